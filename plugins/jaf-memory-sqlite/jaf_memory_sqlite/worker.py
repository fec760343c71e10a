"""`Worker`: a thread that has a connection to itself, and does jobs on it for any number of event loops.

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
from typing import Any, Generic, Literal, TypeVar

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_sqlite.opening import Opener
from jaf_memory_sqlite.problems import closed, leaves_doubt
from jaf_memory_sqlite.settings import MEMORY

logger = logging.getLogger("jaf_memory_sqlite")

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]

SHARE = 16
"""Jobs of one loop that wait for each other before they are handed in; the loop goes on while these are done."""

Erases = Literal["some", "whole"] | None

TOGETHER = 1_000
"""At most so many jobs are taken at once, so that the first does not wait for the last of a great many."""


class Job(Generic[T]):
    """One call that somebody waits for."""

    __slots__ = ("call", "erases", "failure", "future", "loop", "result")

    def __init__(self, call: Call[T], loop: asyncio.AbstractEventLoop, *, erases: Erases = None) -> None:
        self.call = call
        self.loop = loop
        self.erases = erases
        self.future: asyncio.Future[T] = loop.create_future()
        self.result: T | None = None
        self.failure: Exception | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits."""
        return not self.future.cancelled()

    def settle(self) -> None:
        """Hand over the outcome; to be called in the job's loop."""
        if self.future.done():
            return
        if self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # it was carried out


class Worker:
    """A thread and its connection, which it makes at the first job, and anew after `renew`.

    Nothing here refers to whoever uses the worker, so that a forgotten backend can be collected, and stop it.

    Args:
        name: the thread's.
        opener: makes the connection, in the thread. What it raises is the outcome of the jobs that wait.
    """

    def __init__(self, name: str, opener: Opener) -> None:
        self.opener = opener
        self.lock = threading.Lock()
        """Held by whoever uses the connection."""
        self.db: sqlite3.Connection | None = None
        self.crowded = False
        """Whether several jobs came together lately."""
        self._outboxes: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        self._queue: queue.SimpleQueue[list[Job[Any]] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._stopped = False
        self._ended = False
        self._farewells: list[Job[None]] = []
        self._stale = False
        self._last_turn = False
        self.rest: float | None = None
        """Seconds to wait for a job before there is something to tidy; `None`: as long as it takes."""
        _workers.add(self)
        # A daemon: a provider that nobody closed must not keep the interpreter from ending.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    # For those who wait.

    def submit(self, call: Call[T], *, erases: Erases = None) -> asyncio.Future[T]:
        """Have a call done; it gets the connection.

        Args:
            call: what is to be done.
            erases: whether it removes "some" of a conversation, or "whole" ones.
        """
        loop = asyncio.get_running_loop()
        job = Job(call, loop, erases=erases)
        if not self.crowded:
            self._hand_in([job])
            return job.future
        # Others come together with this one, most likely, and are to travel together.
        outbox = self._outboxes.get(loop)
        if outbox is None:
            outbox = self._outboxes[loop] = []
            loop.call_soon(self._empty_outbox, loop)
        outbox.append(job)
        if len(outbox) >= SHARE:
            self._outboxes[loop] = []
            self._hand_in(outbox)
        return job.future

    def _empty_outbox(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = self._outboxes.pop(loop)
        try:
            if jobs:
                self._hand_in(jobs)
        except MemoryConnectionError as error:
            fail(jobs, error)
            _settle(jobs)

    def _hand_in(self, jobs: list[Job[Any]]) -> None:
        with self._gate:
            if self._stopped:
                raise closed()
            self._queue.put(jobs)

    def stop(self) -> None:
        """Take no more jobs; what waits is done, then the connection is closed, and the thread ends."""
        with self._gate:
            if not self._stopped:
                self._stopped = True
                self._queue.put(None)

    def ended(self) -> asyncio.Future[None]:
        """Wait until the thread has closed its connection."""
        job = Job(_nothing, asyncio.get_running_loop())
        with self._gate:
            if self._ended:
                job.settle()
            else:
                self._farewells.append(job)
        return job.future

    def interrupt(self) -> None:
        """Break off the statement that is running."""
        db = self.db
        if db is not None:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                db.interrupt()

    def renew(self) -> None:
        """Make a new connection before the next job; memory has only the one."""
        self._stale = self.opener.path != MEMORY

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
        answer(self._farewells)

    def _turn(self) -> None:
        # A function of its own, so that nothing is held while the thread waits for the next job.
        jobs = self.take(block=True)
        self.crowded = len(jobs) > 1
        with self.lock:
            if jobs:
                try:
                    db = self._connected()
                except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                    fail(jobs, error)
                else:
                    self.carry_out(db, jobs)
            self.tidy(idle=not jobs, last=False)
        answer(jobs)

    def take(self, *, block: bool) -> list[Job[Any]]:
        """The jobs that wait; with `block` at least one, unless there is something to tidy, or will be no more."""
        jobs: list[Job[Any]] = []
        waiting = self._queue
        try:
            while (block and not jobs) or not waiting.empty():
                some = waiting.get(block, self.rest)
                if some is None:
                    self._last_turn = True
                    break
                jobs += [job for job in some if not job.future.cancelled()]
                if len(jobs) >= TOGETHER:
                    break
        except queue.Empty:
            pass
        return jobs

    def _connected(self) -> sqlite3.Connection:
        db = self.db
        if db is not None and not self._stale and not self.opener.leads_elsewhere():
            return db
        if self.usable:
            logger.warning("the database's file was removed or replaced while it was open; opening what is there now")
            self.renew()
        self._disconnect()
        self.db = self.opener.connect()
        self._stale = False
        return self.db

    def _disconnect(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            with suppress(sqlite3.Error):  # a failed checkpoint, for one: the next who opens the file makes it
                db.close()

    # What the two kinds of workers do differently.

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Give each of these jobs its outcome; the list may change on the way."""
        raise NotImplementedError

    def tidy(self, *, idle: bool, last: bool) -> None:
        """What is to be done behind each turn; `idle`: nobody waits; `last`: the connection is about to be closed."""


def _nothing(_: sqlite3.Connection) -> None:
    return None


def fail(jobs: Iterable[Job[Any]], error: Exception) -> None:
    """Give all of them this outcome."""
    for job in jobs:
        job.failure = error


def answer(jobs: Iterable[Job[Any]]) -> None:
    """Hand over outcomes: one wake-up a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, done in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done)


def _settle(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.settle()


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_inherited: list[Worker] = []


def _keep_inherited() -> None:
    # In the child of a fork. SQLite's connections must not be used there, and closing one is a use.
    _inherited.extend(_workers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
