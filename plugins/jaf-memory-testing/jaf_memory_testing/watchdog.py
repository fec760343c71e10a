"""A watchdog outside the event loop: what blocks the loop, or Python itself, ends, and shows where it stands."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_stderr: list[int] = []


class CheckHangs(BaseException):
    """A check takes too long. No `Exception`: Hypothesis would look for the smallest example that hangs as well."""


def keep_stderr() -> None:
    """Remember where to write to, before pytest captures it."""
    if not _stderr:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _stderr.append(os.dup(sys.stderr.fileno()))


@contextlib.contextmanager
def watching(seconds: float) -> Iterator[None]:
    """Raise `CheckHangs` when the block takes longer though its loop is blocked; end the process if that fails, too.

    The alarm reaches what waits in Python: a lock, a sleep, a read. What keeps the GIL is ended by `faulthandler`'s
    thread of its own, with the stacks of all threads on stderr.
    """
    # Only the main thread hears signals, and an alarm of somebody else's is left alone.
    armed = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, None)
    )
    # The last of three: the loop's own time-out comes first, then the alarm, and both can say more.
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_stderr[0] if _stderr else sys.__stderr__ or 2)
    if armed:
        signal.signal(signal.SIGALRM, _alarm(seconds))
        signal.setitimer(signal.ITIMER_REAL, 1.2 * seconds)
    try:
        yield
    finally:
        if armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.cancel_dump_traceback_later()


def _alarm(seconds: float) -> Callable[[int, FrameType | None], None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise CheckHangs(
            f"the event loop is blocked: for more than {seconds:g} s (JAF_TEST_PATIENCE) nothing else got a turn. "
            "The traceback shows what blocks it; a backend must wait in a thread, or with `await`"
        )

    return ring
