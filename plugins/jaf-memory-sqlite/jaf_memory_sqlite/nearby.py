"""`Nearby`: short reads need no thread, they are done where they are asked for."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TypeVar

from jaf_memory_sqlite.problems import is_busy
from jaf_memory_sqlite.reading import NotHereError
from jaf_memory_sqlite.worker import Call, Worker

T = TypeVar("T")

SLOW = 0.01
"""Seconds that a read in the caller's thread may take: an event loop stands still meanwhile."""

OFTEN = 2
"""So many slow reads, one after the other, are the disk's; a single one may be a busy computer's."""

PAUSE = 1.0
"""Seconds for which all reads go to a thread then."""


class Nearby:
    """Reads in the caller's thread, on the connection of a worker that has nothing to do.

    A hand-over to a thread and back costs 20 to 60 µs, several times as much as reading 20 messages.

    Args:
        workers: whose connections may be used. The writer's comes first: its cache is warm, while any other
            connection forgets its own at each commit.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._from = 0.0
        self._slow = 0

    def read(self, call: Call[T]) -> T:
        """Read at once.

        Raises:
            NotHereError: a thread must do it.
        """
        if self._from:
            if time.monotonic() < self._from:
                raise NotHereError
            self._from = 0.0
        for worker in self._workers:
            if worker.lock.acquire(blocking=False):
                try:
                    return self._read(worker, call)
                finally:
                    worker.lock.release()
        raise NotHereError

    def _read(self, worker: Worker, call: Call[T]) -> T:
        if worker.db is None or not worker.usable:
            raise NotHereError
        started = time.monotonic()
        try:
            return call(worker.db)
        except sqlite3.DatabaseError as error:
            if is_busy(error):
                raise NotHereError from None
            worker.doubt(error)
            raise
        finally:
            self._learn(time.monotonic() - started)

    def _learn(self, seconds: float) -> None:
        if seconds < SLOW:
            self._slow = 0
            return
        self._slow += 1
        if self._slow == OFTEN:
            self._slow = 0
            self._from = time.monotonic() + PAUSE
