"""The clock that waits are measured by: the simulated loop's, so that a schedule reaches what they are bounded by."""

import asyncio
import contextlib
import sys
import time
import types
from unittest import mock

PATIENT = ("jaf_memory_core.", "jaf_memory_postgres.", "jaf_memory_redis.")
"""Whose clock it is. SQLite's threads sleep until a file's lock is free; that is real time, in a simulation, too."""


def _monotonic():
    loop = asyncio._get_running_loop()
    return time.monotonic() if loop is None else loop.time()


@contextlib.contextmanager
def simulated():
    """Within, who measures a wait measures the time of the loop that runs."""
    ours = types.SimpleNamespace(**{**vars(time), "monotonic": _monotonic})
    with contextlib.ExitStack() as patches:
        for name, module in tuple(sys.modules.items()):
            if name.startswith(PATIENT) and vars(module).get("time") is time:
                patches.enter_context(mock.patch.object(module, "time", ours))
        yield
