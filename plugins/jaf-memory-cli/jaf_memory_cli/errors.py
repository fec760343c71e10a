"""How a command ends: exit statuses that scripts can rely on, and the error that ends one."""

from __future__ import annotations

OK = 0
FAILED = 1
"""The command did its work, and the answer is no: unhealthy, not found, conflicts, a bad line, not confirmed."""
USAGE = 2
"""The command cannot be run like this: arguments, settings, a plugin, no store, a file that cannot be opened."""
STORE = 3
"""The store could not be reached, did not answer in time, or failed."""
SIGNALLED = 128
"""A signal ended it: that many and the signal's number, as shells have it; 130 for Ctrl-C, 143 for SIGTERM."""
READER_GONE = 141
"""Whoever read standard output (`| head`) has gone; a shell shows the same for a process that SIGPIPE ended."""


class Stop(Exception):  # noqa: N818  (no error: a command that ends here says why)
    """End the command with a status, and one sentence on standard error."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
