"""What is still to be done after rows were deleted, so that nothing of their texts stands in the file.

SQLite overwrites what it deletes (`secure_delete`). Three places are left:

- the write-ahead log, which holds pages as they were: it is written into the file and emptied before an erasing call
  is answered, or as soon as the readers of other processes let it;
- the index for searches, if there is one, which is cleared out in a quiet moment: at once where it is small, else in
  steps of some 10 ms;
- unused space within pages, where a copy can lie of a row that once moved to the neighbouring page. Only VACUUM
  removes it, by writing the whole file anew: that is done in a quiet moment, if the file is small.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from jaf_memory_sqlite.operations import search
from jaf_memory_sqlite.settings import MEMORY

AGAIN = 0.1
"""Seconds until the log is tried anew, when a reader kept it from being emptied."""

SMALL = 32 << 20
"""Bytes of a file that is written anew by itself; a write that comes meanwhile waits for a third of a second."""

QUIET = 1.0
"""Seconds after the last deletion, before the file is written anew."""

SELDOM = 60.0
"""Seconds between two such rewrites, at least."""


class Vacuum:
    """Remembers what is owed, for one writer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._log_from: float | None = None
        self._rewrite_from: float | None = None
        self._search_from: float | None = None
        self._search_begun = False
        self._rewritten = -SELDOM

    def note(self, *, whole: bool) -> None:
        """Something was deleted; `whole`: a conversation, all of a user, or messages that somebody named."""
        if self._path == MEMORY:
            return
        now = time.monotonic()
        self._log_from = now
        self._search_from, self._search_begun = now + QUIET, False
        if whole:
            self._rewrite_from = max(now + QUIET, self._rewritten + SELDOM)

    @property
    def owes(self) -> bool:
        """Whether anything is owed."""
        return any(since is not None for since in (self._log_from, self._search_from, self._rewrite_from))

    @property
    def rest(self) -> float | None:
        """Seconds until there is something to do, if anything is owed."""
        owed = [since for since in (self._log_from, self._search_from, self._rewrite_from) if since is not None]
        return max(AGAIN, min(owed) - time.monotonic()) if owed else None

    def settle(self, db: sqlite3.Connection, *, idle: bool, last: bool = False) -> None:
        """Do what is due.

        Args:
            db: the writer's connection, outside a transaction.
            idle: nobody waits just now.
            last: the connection is about to be closed, and what is owed would be forgotten.
        """
        now = time.monotonic()
        if self._search_from is not None and (last or (idle and now >= self._search_from)):
            self._clear_out_search(db, now, last=last)
        rewrite = self._rewrite_from is not None and (last or (idle and now >= self._rewrite_from))
        if rewrite:
            self._rewrite_from = None
            # VACUUM writes the whole file through the log, which then holds all of it: so that is emptied behind it.
            if self._is_small() and _done(db, "VACUUM"):
                self._rewritten = self._log_from = now
        if self._log_from is not None and (last or now >= self._log_from):
            self._log_from = None if _done(db, "PRAGMA wal_checkpoint(TRUNCATE)") else now + AGAIN

    def _clear_out_search(self, db: sqlite3.Connection, now: float, *, last: bool) -> None:
        """A step of it; all of it where that is quick."""
        try:
            if last and search.is_large(db):
                return  # whoever erases next does it
            done = search.clear_out(db, first=not self._search_begun)
            self._search_begun = True
        except sqlite3.Error:
            self._search_from = now + AGAIN
            return
        self._search_from, self._log_from = None if done else now, now

    def _is_small(self) -> bool:
        try:
            return Path(self._path).stat().st_size <= SMALL
        except OSError:  # removed under our hands
            return False


def _done(db: sqlite3.Connection, statement: str) -> bool:
    try:
        row = db.execute(statement).fetchone()
    except sqlite3.Error:  # a lock, a full disk: what was to be deleted is deleted all the same
        return False
    return row is None or row[0] == 0
