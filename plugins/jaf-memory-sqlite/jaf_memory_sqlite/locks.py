"""Waiting for another process's lock: in short steps, so that jobs that nobody wants can be dropped meanwhile."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from jaf_memory_sqlite.errors import is_busy

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that a worker tries to get a lock; then the callers are told, and ask again until their deadline."""

SHORTEST, LONGEST = 0.0001, 0.01


def wait_for_lock(
    attempt: Callable[[], T], *, go_on: Callable[[], bool] = lambda: True, patience: float = PATIENCE
) -> T | None:
    """Call until no lock is in the way; `None` as soon as there is no need to `go_on`; `patience` in seconds.

    SQLite's own busy handler sleeps up to 100 ms between attempts, which lets others overtake for ever, and cannot be
    told that nobody waits any more.

    Raises:
        sqlite3.OperationalError: another process still holds the lock when the patience ends.
    """
    end = time.monotonic() + patience
    pause = SHORTEST
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > end:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))  # so that two who wait do not stay in step
        pause = min(pause * 2, LONGEST)
        if not go_on():
            return None
