"""A command from its start to its exit status, whatever ends it: done, an error, a signal, a reader who has gone."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ParamSpec

import typer

from jaf_memory_cli.errors import FAILED, OK, READER_GONE, SIGNALLED, STORE, USAGE, Stop
from jaf_memory_cli.output import Output
from jaf_memory_cli.terminal import os_error, safe, silence
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
)
from jaf_memory_core.transfer.jsonlines import LineError

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that ask the program to end, and that it answers by tidying up."""

P = ParamSpec("P")


class Ended(SystemExit):
    """A signal arrived where nothing can be cancelled."""


class Interruption:
    """What signals do: the first cancels the command, so that all its files and connections are given back.

    Attributes:
        signal: the number of the one that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._blocked = 0
        self._cancel: Callable[[], object] | None = None

    async def guard(self, work: Coroutine[Any, Any, int | None]) -> int | None:
        """Run a command's coroutine; a signal cancels it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        # Called by a handler of signals: only this wakes a loop that waits.
        self._cancel = functools.partial(loop.call_soon_threadsafe, task.cancel if task else _nothing)
        try:
            return await work
        finally:
            self._cancel = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer signals, but for those that whoever started the program has made it ignore (`nohup`)."""
        before = {one: signal.getsignal(one) for one in ENDING}
        heard = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
        for one in heard:
            signal.signal(one, self._arrived)
        try:
            yield
        finally:
            for one in heard:
                signal.signal(one, before[one])

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Around a call that waits for somebody else, outside of the event loop: a signal ends it there and then."""
        self._blocked += 1
        try:
            yield
        finally:
            self._blocked -= 1

    def wait_for_line(self) -> None:
        """Return when the terminal has a line to read.

        A signal that arrives just before a read is only noted, and the read sleeps on; behind this none does, because a
        signal also writes into a socket that is waited for.
        """
        if os.name == "nt":  # there only sockets can be waited for
            return
        heard, told = socket.socketpair()
        with heard, told:
            told.settimeout(0)
            before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
            try:
                while sys.stdin not in select.select([sys.stdin, heard], [], [])[0]:
                    heard.recv(4096)  # of a signal that ended nothing
            finally:
                signal.set_wakeup_fd(before)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        again, self.signal = bool(self.signal), number
        # A second signal ends at once: whoever sends it does not want to wait for the tidying.
        if again or self._blocked or self._cancel is None:
            raise Ended(SIGNALLED + number)
        self._cancel()


interruption = Interruption()
"""The one of this process."""


def command(work: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, None]:
    """Make a command of a coroutine function: run it, and end with its status, or with an error's.

    No mistake of a user's ends in a stack trace; a bug does.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        output = Output(as_json=bool(kwargs.get("as_json")))
        with interruption.listening():
            try:
                status = asyncio.run(interruption.guard(work(*args, **kwargs))) or OK
                # Here, where it is handled: that the reader has gone, or the disk is full, may show only now.
                sys.stdout.flush()
            except (Stop, MemoryError) as error:
                status = status_of(error)
                output.error(error, status)
            except (Ended, asyncio.CancelledError):
                if not interruption.signal:
                    raise
                status = SIGNALLED + interruption.signal
                output.error(_ended(interruption.signal), status)
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
    return USAGE if isinstance(error, (MemoryConfigurationError, MemoryInvalidInputError)) else STORE


def _ended(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt("interrupted")
    return SystemExit(f"ended by {signal.Signals(number).name}")


def _status_of_os_error(error: OSError, output: Output) -> int:
    if error.errno == errno.EPIPE:
        silence(sys.stdout)
        return READER_GONE
    # Standard output: what is buffered would fail once more when Python ends.
    if error.filename is None:
        silence(sys.stdout)
    output.error(OSError(os_error(error)), USAGE)
    return USAGE


def _nothing() -> None:
    """Nobody is there to be cancelled."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless `--yes` has answered.

    Raises:
        Stop: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Stop("there is nobody to ask here, and this cannot be undone; say --yes to do it", USAGE)
    if _answer(f"{safe(question)} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stop("nothing was done", FAILED)


def _answer(question: str) -> str:
    # Before the question is seen: whoever presses Ctrl-C at once would otherwise cancel a loop that is not running.
    with interruption.blocking():
        with suppress(OSError):
            sys.stderr.write(question)
            sys.stderr.flush()
        interruption.wait_for_line()
        return sys.stdin.readline()
