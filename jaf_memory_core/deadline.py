"""`Deadline`: how long something may take. All that are of one length share a timer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Deadline:
    """Cancels the running task after so many seconds, and says so: `asyncio.timeout` at about half its price.

    Attributes:
        expired: whether it has cancelled the task.
        ends: when it does, by the event loop's clock; once it has begun.
    """

    expired = False
    ends: float

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        loop, seconds = task.get_loop(), self._seconds
        timer = _here.timers.get(seconds)
        if timer is None or timer.loop is not loop:
            timer = _timer(seconds, loop)
        self._timer = timer
        self.ends = ends = loop.time() + seconds
        timer.running[self] = None
        if timer.handle is None:
            timer.ring_at(ends)
        return self

    def expire(self) -> None:
        """Cancel the task now."""
        self.expired = True
        self._task.cancel(msg=self)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self.expired:
            del self._timer.running[self]
            return
        # Somebody else's cancellation goes on as one; only our own becomes a TimeoutError.
        ours = self._task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


class Begun(Generic[T]):
    """Something that was begun outside of any deadline, and waits: to be awaited within one, in the same task."""

    __slots__ = ("_going", "_waits")

    def __init__(self, going: Generator[Any, None, T], waits: Any) -> None:
        self._going = going
        self._waits = waits

    def __await__(self) -> Generator[Any, None, T]:
        """Go on with it; what it waits for, or has failed with, comes first."""
        going, waits = self._going, self._waits
        if isinstance(waits, Exception):
            raise waits
        while True:
            thrown: BaseException | None = None
            try:
                yield waits
            except GeneratorExit:
                going.close()
                raise
            except BaseException as error:  # noqa: BLE001  (a cancellation, for one, is for what waits)
                thrown = error
            try:
                waits = next(going) if thrown is None else going.throw(thrown)
            except StopIteration as done:
                answer: T = done.value
                return answer


def begin(work: Awaitable[T]) -> T | Begun[T]:
    """What something comes to without any wait; or, begun, what of it waits or has failed, to be awaited.

    Raises:
        StopAsyncIteration: it was the next of an iteration that has ended.
    """
    going = work.__await__()
    try:
        waits = next(going)
    except StopIteration as done:
        answer: T = done.value
        return answer
    except StopAsyncIteration:
        raise
    except Exception as error:  # noqa: BLE001  (raised again where it is awaited)
        waits = error
    return Begun(going, waits)


def never_sent(error: asyncio.CancelledError) -> None:
    """Note that what was cancelled was still waiting, and nothing of it had been sent to any store."""
    error.add_note(_NEVER_SENT)


class _Waiting:
    """Where a caller still waits for its turn, or for a connection: whatever is cancelled within was never sent."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing: it keeps nothing, so that there is one for all."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            never_sent(error)


waiting = _Waiting()


def is_never_sent(error: BaseException | None) -> bool:
    """Whether that was noted of an error."""
    return _NEVER_SENT in getattr(error, "__notes__", ())


@contextmanager
def steps() -> Iterator[None]:
    """Several steps, of which an earlier one may stand: what a later one says of itself does not hold for all."""
    try:
        yield
    except asyncio.CancelledError as error:
        if is_never_sent(error):
            error.__notes__.remove(_NEVER_SENT)
        raise


_NEVER_SENT = "nothing had been sent"


class _Timer:
    """The deadlines of one length on one event loop: they end in the order in which they begin.

    A timer of the loop's for each of them would cost an operation more than its deadline is worth. This one rings
    about once in that time, and not at all where nothing has begun since.

    Attributes:
        running: those that have begun. A dict keeps their order, and lets any of them go at once.
        handle: of the loop's timer, while it is set.
    """

    __slots__ = ("handle", "loop", "running")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.running: dict[Deadline, None] = {}
        self.handle: asyncio.TimerHandle | None = None

    def ring_at(self, ends: float) -> None:
        self.handle = self.loop.call_at(ends, self._ring)

    def _ring(self) -> None:
        self.handle = None
        now = self.loop.time()
        for deadline in tuple(self.running):
            if deadline.ends > now:
                self.ring_at(deadline.ends)
                break
            del self.running[deadline]
            deadline.expire()


class _Here(threading.local):
    """The timers of the event loop that this thread ran last, by their seconds."""

    def __init__(self) -> None:
        self.timers: dict[float, _Timer] = {}


_here = _Here()


def _timer(seconds: float, loop: asyncio.AbstractEventLoop) -> _Timer:
    # What still runs on another loop keeps its timer, which that loop and the deadlines hold.
    timer = _Timer(loop)
    _here.timers = {length: one for length, one in _here.timers.items() if one.loop is loop}
    _here.timers[seconds] = timer
    return timer
