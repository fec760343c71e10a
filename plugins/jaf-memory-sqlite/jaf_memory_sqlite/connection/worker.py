"""A thread with a connection to itself, which does jobs on it for any number of event loops.

A job is whole: whoever asked for it may be cancelled at any moment, and it is either not begun or carried through.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar, Generic, Literal, TypeVar

from jaf_memory_sqlite.connection import Connector
from jaf_memory_sqlite.errors import closed, leaves_doubt, without_content
from jaf_memory_sqlite.settings import MEMORY

logger = logging.getLogger("jaf_memory_sqlite")

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]
Erases = Literal["some", "whole"] | None

TOGETHER = 1_000
"""At most so many jobs are taken at once, so that the first does not wait for the last of a great many."""


class Job(Generic[T]):
    """One call that somebody waits for.

    Attributes:
        call: what is to be done.
        inline: the same, if it may be done in the caller's thread; raises `NeedsThreadError` when it turns out to be
            too much for that.
        erases: whether it removes "some" of a conversation, or "whole" ones, as named messages are, too.
        loop: where somebody waits.
        future: what is waited for, once the job is a thread's.
        begun: whether somebody has taken it up, or nobody is to.
        result, failure: what came of it.
    """

    __slots__ = ("begun", "call", "erases", "failure", "future", "inline", "loop", "result")

    def __init__(self, call: Call[T], *, inline: Call[T] | None = None, erases: Erases = None) -> None:
        self.call = call
        self.inline = inline
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
        # Cancelled meanwhile: what was done stays done, and nobody is told.
        if self.future is None or self.future.done():
            return
        if self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # it was carried out


def fail(jobs: Iterable[Job[Any]], error: Exception) -> None:
    """Give all of them this outcome."""
    for job in jobs:
        job.failure = without_content(error)


def settle(jobs: Iterable[Job[Any]]) -> None:
    """Hand over outcomes, in the loop of all these jobs."""
    for job in jobs:
        job.settle()


class Worker:
    """A thread and its connection, which it makes at the first job, and anew after `renew`.

    Nothing here refers to whoever uses the worker, so that a forgotten backend can be collected, and stop it.

    Args:
        name: the thread's.
        connector: makes the connection, in the thread. What it raises is the outcome of the jobs that wait.
    """

    writes: ClassVar[bool] = False
    """Whether it changes the file: then it looks each time whether that is still the one that the path names."""

    def __init__(self, name: str, connector: Connector) -> None:
        self.connector = connector
        self.lock = threading.Lock()
        """Held by whoever uses the connection."""
        self.db: sqlite3.Connection | None = None
        self.queue: queue.SimpleQueue[list[Job[Any]] | None] = queue.SimpleQueue()
        self.rest: float | None = None
        """Seconds to wait for a job before there is something to tidy; `None`: as long as it takes."""
        self.busy = False
        """Whether the thread has jobs, or will have."""
        # Reentrant: a collection of garbage may stop the worker at any moment, in a thread that is inside.
        self._gate = threading.RLock()
        self.stopped = False
        """Whether no more jobs are taken."""
        self._ended = False
        self._farewells: list[Job[None]] = []
        self._stale = False
        self._last_turn = False
        _workers.add(self)
        # A daemon: a provider that nobody closed must not keep the interpreter from ending.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    # For those who wait.

    def submit(self, call: Call[T]) -> asyncio.Future[T]:
        """Have the thread do a call; it gets the connection."""
        job = Job(call)
        self.hand_in([job])
        assert job.future is not None  # `hand_in` makes it
        return job.future

    def hand_in(self, jobs: list[Job[Any]]) -> None:
        """Leave jobs of one loop to the thread; each gets its future."""
        with self._gate:
            # Under the gate, so that no job comes to stand behind the `None` that ends the thread.
            if self.stopped:
                raise closed()
            for job in jobs:
                job.awaited()
            self.busy = True
            self.queue.put(jobs)

    def stop(self) -> None:
        """Take no more jobs; what waits is done, then the connection is closed, and the thread ends."""
        with self._gate:
            if not self.stopped:
                self.stopped = True
                self.queue.put(None)

    def ended(self) -> asyncio.Future[None]:
        """Wait until the thread has closed its connection."""
        job = Job(_nothing)
        future = job.awaited()
        with self._gate:
            if self._ended:
                job.settle()
            else:
                self._farewells.append(job)
        return future

    def interrupt(self) -> None:
        """Break off the statement that is running."""
        db = self.db
        if db is not None:
            # No lock: who runs the statement holds it, and this is to break it off.
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                db.interrupt()

    def renew(self) -> None:
        """Make a new connection before the next job; memory has only the one."""
        self._stale = self.connector.path != MEMORY

    def doubt(self, error: Exception) -> None:
        """Renew the connection after an error that may have come from it."""
        if leaves_doubt(error):
            self.renew()

    @property
    def usable(self) -> bool:
        """Whether there is a connection that need not be renewed; to be asked under the lock."""
        return self.db is not None and not self._stale

    # In the thread.

    def _run(self) -> None:
        while not self._last_turn:
            self._turn()
        with self.lock:
            self.tidy(idle=True, last=True)
            self._disconnect()
        with self._gate:
            self._ended = True
        self.answer(self._farewells)

    def _turn(self) -> None:
        # A function of its own, so that nothing is held while the thread waits for the next job.
        jobs = self.take(block=True)
        with self.lock:
            if jobs:
                self._work_on(jobs)
            self.tidy(idle=not jobs, last=False)
        with self._gate:
            # Under the gate: a job that comes at this moment has set it already, and must not be overlooked.
            self.busy = not self.queue.empty()
        # Behind the lock: those who are woken may want the connection at once.
        self.answer(jobs)

    def take(self, *, block: bool) -> list[Job[Any]]:
        """The jobs that wait; with `block` at least one, unless there is something to tidy, or will be no more."""
        jobs: list[Job[Any]] = []
        waiting = self.queue
        try:
            while (block and not jobs) or not waiting.empty():
                some = waiting.get(block, self.rest)
                if some is None:
                    self._last_turn = True
                if not some:  # nothing more will come, or there is something to tidy
                    break
                jobs += some
                if len(jobs) >= TOGETHER:
                    break
        except queue.Empty:
            pass
        return jobs

    def _work_on(self, jobs: list[Job[Any]]) -> None:
        try:
            db = self._connected()
        except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
            fail(jobs, error)
        else:
            self.carry_out(db, jobs)

    def _connected(self) -> sqlite3.Connection:
        db = self.db
        if (
            db is not None
            and not self._stale
            and not self.connector.leads_elsewhere(now=self.writes or self.connector.read_only)
        ):
            return db
        if self.usable:
            logger.warning("the database's file was removed or replaced while it was open; opening what is there now")
            self.renew()
        self._disconnect()
        self.db = self.connector.connect()
        self._stale = False
        return self.db

    def _disconnect(self) -> None:
        # Out of sight first: `interrupt` looks without the lock.
        db, self.db = self.db, None
        if db is not None:
            with suppress(sqlite3.Error):  # a failed checkpoint, for one: the next who opens the file makes it
                db.close()

    def answer(self, jobs: Iterable[Job[Any]]) -> None:
        """Hand over outcomes: one wake-up a loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        for job in jobs:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, done in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, done)

    # What the two kinds of workers do differently.

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Give each of these jobs that is still wanted its outcome; others may join the list on the way."""
        raise NotImplementedError

    def tidy(self, *, idle: bool, last: bool) -> None:
        """What is to be done behind each turn; `idle`: nobody waits; `last`: the connection is about to be closed."""


def _nothing(_: sqlite3.Connection) -> None:
    return None


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_inherited: list[sqlite3.Connection | None] = []


def _leave_inherited() -> None:
    # In the child of a fork. SQLite's connections must not be used there, and closing one is a use.
    for worker in _workers:
        _inherited.append(worker.db)
        worker.db = None
        worker.stopped = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_inherited)
