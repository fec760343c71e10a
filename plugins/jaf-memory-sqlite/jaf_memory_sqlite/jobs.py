"""`Job`: one call that somebody waits for, in some event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]
Erases = Literal["some", "whole"] | None


class Job(Generic[T]):
    """One call that somebody waits for.

    Attributes:
        call: what is to be done.
        little: the same, if it may be done in the caller's thread; raises `NotHereError` when it turns out to be too
            much for that.
        erases: whether it removes "some" of a conversation, or "whole" ones.
        loop: where somebody waits.
        future: what is waited for, once the job is a thread's.
        begun: whether somebody has taken it up, or nobody is to.
        result, failure: what came of it.
    """

    __slots__ = ("begun", "call", "erases", "failure", "future", "little", "loop", "result")

    def __init__(self, call: Call[T], *, little: Call[T] | None = None, erases: Erases = None) -> None:
        self.call = call
        self.little = little
        self.erases = erases
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] | None = None
        self.begun = False
        self.result: T | None = None
        self.failure: Exception | None = None

    def awaited(self) -> asyncio.Future[T]:
        """Wait for a thread; to be called in the job's loop."""
        self.future = self.loop.create_future()
        return self.future

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for a thread."""
        return self.future is not None and not self.future.cancelled()

    def forsake(self) -> None:
        """Nobody waits any more, and who has not begun it yet need not; to be called in the job's loop."""
        self.begun = True
        if self.future is not None:
            self.future.cancel()

    def outcome(self) -> T:
        """What came of it."""
        if self.failure is not None:
            raise self.failure
        return self.result  # type: ignore[return-value]  # it was carried out

    def settle(self) -> None:
        """Hand over the outcome; to be called in the job's loop."""
        if self.future is None or self.future.done():
            return
        if self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # it was carried out


def fail(jobs: Iterable[Job[Any]], error: Exception) -> None:
    """Give all of them this outcome."""
    for job in jobs:
        job.failure = error


def settle(jobs: Iterable[Job[Any]]) -> None:
    """Hand over outcomes, in the loop of all these jobs."""
    for job in jobs:
        job.settle()


def by_loop(jobs: Iterable[Job[Any]]) -> dict[asyncio.AbstractEventLoop, list[Job[Any]]]:
    """The jobs of each loop."""
    found: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in jobs:
        found.setdefault(job.loop, []).append(job)
    return found
