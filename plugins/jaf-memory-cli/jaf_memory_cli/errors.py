"""How a command ends: exit statuses that scripts can rely on, and one place that turns errors into them."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

import typer

from jaf_memory_cli.output import Output
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
)
from jaf_memory_core.transfer.jsonlines import LineError

OK = 0
FAILED = 1
"""The command did its work, and the answer is no: unhealthy, not found, conflicts, a bad line, not confirmed."""
USAGE = 2
"""The command cannot be run like this: arguments, settings, a plugin, a file that cannot be opened."""
STORE = 3
"""The store could not be reached, did not answer in time, or failed."""
INTERRUPTED = 130
READER_GONE = 141
"""Whoever read standard output (`| head`) has gone; a shell shows the same for a process that SIGPIPE ended."""

P = ParamSpec("P")


class Stop(Exception):  # noqa: N818  (no error: a command that ends here says why)
    """End the command with a status, and one sentence on standard error."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def command(work: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, None]:
    """Make a command of a coroutine function: run it, and end with its status, or with an error's.

    No mistake of a user's ends in a stack trace; a bug does.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        output = Output(as_json=bool(kwargs.get("as_json")))
        try:
            status = asyncio.run(work(*args, **kwargs)) or OK
            sys.stdout.flush()
        except (Stop, MemoryError) as error:
            status = status_of(error)
            output.error(error, status)
        except KeyboardInterrupt:
            status = INTERRUPTED
            output.error(KeyboardInterrupt("interrupted"), status)
        except OSError as error:
            status = _status_of_os_error(error, output)
        raise typer.Exit(status)

    return run


def status_of(error: Exception) -> int:
    """The exit status that an error leads to."""
    if isinstance(error, Stop):
        return error.status
    if isinstance(error, (LineError, MemoryConflictError, MemoryNotFoundError)):
        return FAILED
    if isinstance(error, (MemoryConfigurationError, MemoryInvalidInputError)):
        return USAGE
    if isinstance(error, MemoryConnectionError) and not error.retryable:
        return STORE
    return STORE


def _status_of_os_error(error: OSError, output: Output) -> int:
    if error.errno == errno.EPIPE or isinstance(error, BrokenPipeError):
        # What is still buffered must not fail a second time when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    if error.filename is not None and error.strerror:
        error = OSError(f"{os.fspath(error.filename)}: {error.strerror}")
    output.error(error, USAGE)
    return USAGE
