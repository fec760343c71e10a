"""The worker that reads, and reads without a worker: short ones are done where they are asked for."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from jaf_memory_core.errors import MemoryError
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.connection.worker import Call, Job, Worker, fail
from jaf_memory_sqlite.errors import NeedsThreadError, is_busy
from jaf_memory_sqlite.locks import wait_for_lock

T = TypeVar("T")

LOOK = 20_000
"""Steps of SQLite's machine after which it looks whether anybody still waits: about a millisecond."""


SLOW = 0.01
"""Seconds that something in a caller's thread may take: an event loop stands still meanwhile."""

OFTEN = 2
"""So many slow ones, one after the other, are the disk's doing; a single one may be a busy computer's."""

PAUSE = 1.0
"""Seconds for which all reads go to a worker's thread then."""


class Reader(Worker):
    """Reads, each in a snapshot of its own; a writer never keeps it waiting."""

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Do one after the other, each answered at once; stops reading when nobody waits any more."""
        for job in jobs:
            # Whoever searches may be gone long before the search has ended.
            db.set_progress_handler(partial(_cancelled, job), LOOK)
            try:
                job.result = wait_for_lock(partial(job.call, db), go_on=partial(_wanted, job)) if job.wanted else None
            except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                self.doubt(error)
                fail([job], _of_another_version(db, error) or error)
            self.answer([job])
        db.set_progress_handler(None, LOOK)
        jobs.clear()


def _of_another_version(db: sqlite3.Connection, error: Exception) -> MemoryError | None:
    """What there is to say where a statement fails because tables or columns are those of another version."""
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such"):
        try:
            migrations.check(db)
        except MemoryError as other:
            return other
        except sqlite3.Error:
            return None
    return None


def _cancelled(job: Job[Any]) -> bool:
    return not job.wanted


def _wanted(job: Job[Any]) -> bool:
    return job.wanted


class ReadLatency:
    """Learns from how long reads took. Any thread may ask and tell."""

    def __init__(self) -> None:
        self._from = 0.0
        self._slow = 0

    def allows(self) -> bool:
        """Whether the next read may be done in the caller's thread."""
        if self._from:
            if time.monotonic() < self._from:
                return False
            self._from = 0.0
        return True

    def learn(self, seconds: float) -> None:
        """Take notice of how long a read in a caller's thread took."""
        if seconds < SLOW:
            self._slow = 0
            return
        self._slow += 1
        if self._slow == OFTEN:
            # Each is counted once: behind the pause two more have to be slow.
            self._slow = 0
            self._from = time.monotonic() + PAUSE


class InlineReads:
    """Reads in the caller's thread, on the connection of a worker that has nothing to do.

    A hand-over to a thread and back costs 20 to 60 µs, several times as much as reading 20 messages.

    Args:
        workers: whose connections may be used. The writer's comes first: its cache is warm, while any other
            connection forgets its own at each commit.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._latency = ReadLatency()

    def read(self, call: Call[T]) -> T:
        """Read at once.

        Raises:
            NeedsThreadError: a thread must do it.
        """
        if not self._latency.allows():
            raise NeedsThreadError
        for worker in self._workers:
            if not worker.busy and worker.lock.acquire(blocking=False):
                try:
                    return self._read(worker, call)
                finally:
                    worker.lock.release()
        raise NeedsThreadError

    def _read(self, worker: Worker, call: Call[T]) -> T:
        connector = worker.connector
        if worker.db is None or not worker.usable or connector.leads_elsewhere(now=connector.read_only):
            raise NeedsThreadError
        started = time.monotonic()
        try:
            return call(worker.db)
        except sqlite3.DatabaseError as error:
            if not is_busy(error):
                worker.doubt(error)
            raise NeedsThreadError from None  # the thread meets it again, and tells whoever waits
        finally:
            self._latency.learn(time.monotonic() - started)
