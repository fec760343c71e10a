"""What is removed, each within the writer's transaction, and what is still to be done behind it (`Vacuum`).

The messages go with their conversation, as the tables say.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from msgspec.structs import replace

from jaf_memory_core import rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import DeleteMessages, Stamp, Truncate
from jaf_memory_sqlite.operations import search
from jaf_memory_sqlite.operations.reads import check_complete, held_rows, look_up
from jaf_memory_sqlite.operations.writes import Clock, drop, relabel, touch
from jaf_memory_sqlite.rows import SQL, micros
from jaf_memory_sqlite.settings import MEMORY

AGAIN = 0.1
"""Seconds until the log is tried anew, when a reader kept it from being emptied."""

SMALL = 32 << 20
"""Bytes of a file that is written anew by itself; a write that comes meanwhile waits for a third of a second."""

QUIET = 1.0
"""Seconds after the last deletion, before the file is written anew."""

SELDOM = 60.0
"""Seconds between two such rewrites, at least."""


def truncate(db: sqlite3.Connection, request: Truncate, clock: Clock) -> int:
    """Remove a message and all after it; costs what is removed."""
    now = clock()
    standing = look_up(db, request.conversation_id, with_metadata=True)
    if standing is None or rules.seen(standing.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    rules.expect_version(request.conversation_id, request.expected_version, standing.record.version)
    row = db.execute(SQL["row_of_message"], (standing.key, request.message_id)).fetchone()
    if row is None:
        return 0
    end = standing.row_of(standing.end)
    position = row[0] - standing.row_of(0)
    left = position - standing.record.first_position
    if standing.record.gaps:
        check_complete(db, standing)
        (left,) = db.execute(SQL["messages_before"], (standing.row_of(0), row[0])).fetchone()
    removed: int = standing.record.message_count - left
    size = standing.size - drop(db, row[0], end)
    touched = rules.touched(standing.record, now)
    metadata = rules.unsummarised(touched.metadata, position)
    after = replace(rules.ends_at(touched, left, position), metadata=metadata)
    touch(db, standing, after, size, standing.largest)
    relabel(db, standing, after)
    return removed


def delete_messages(db: sqlite3.Connection, request: DeleteMessages, clock: Clock) -> int:
    """Remove single messages; costs what is removed."""
    now = clock()
    standing = look_up(db, request.conversation_id, with_metadata=True)
    rules.deletable(rules.seen(standing.record, now, request.scope) if standing else None, request)
    assert standing is not None  # `rules.deletable` raises for a missing one
    found = held_rows(db, standing, request.ids)
    # A row that is missing is told by nothing else, once there are gaps.
    check_complete(db, standing)
    if not found:
        return 0
    removed = sum(drop(db, row, row + 1) for row in found)
    start = standing.row_of(0)
    oldest = db.execute(SQL["row_at"], (start, standing.row_of(standing.end), 0)).fetchone()
    first = None if oldest is None else oldest[0] - start
    after = rules.thinned(standing.record, len(found), min(found) - start, first, now)
    touch(db, standing, after, standing.size - removed, standing.largest)
    relabel(db, standing, after)
    return len(found)


def delete(db: sqlite3.Connection, conversation_id: str, expected: Stamp) -> bool:
    """Remove the conversation that stands at `expected`."""
    standing = look_up(db, conversation_id)
    if standing is None or standing.record.stamp != expected:
        return False
    db.execute(SQL["erase"], (standing.key,))
    return True


def remove(
    db: sqlite3.Connection, conversation_id: str, scope: str | None, clock: Clock, expected_version: int | None = None
) -> bool:
    """Remove the conversation, expired or damaged or not; whether it was there.

    Raises:
        MemoryConflictError: it is at another version than the expected one.
    """
    row = db.execute(SQL["standing"], (conversation_id, scope, scope)).fetchone()
    if row is None:
        return False
    standing = None if expected_version is None else look_up(db, conversation_id)
    if standing is not None and rules.live(standing.record, clock()):
        rules.expect_version(conversation_id, expected_version, standing.record.version)
    db.execute(SQL["erase"], row[:1])
    return not isinstance(row[1], int) or row[1] > micros(clock())


def forget_user(db: sqlite3.Connection, user_id: str, clock: Clock) -> int:
    """Remove all conversations of a user; how many were live."""
    (live,) = db.execute(SQL["count_of_user"], (user_id, micros(clock()))).fetchone()
    db.execute(SQL["erase_user"], (user_id,))
    return int(live)


def purge(db: sqlite3.Connection, limit: int, scope: str | None, clock: Clock) -> int:
    """Remove up to so many expired conversations; how many."""
    now = micros(clock())
    if scope is None:
        return db.execute(SQL["purge"], (now, limit)).rowcount
    return db.execute(SQL["purge_of_user"], (scope, now, limit)).rowcount


class Vacuum:
    """What is still to be done after rows were deleted, so that nothing of their texts stands in the file.

    It is remembered for one writer. SQLite overwrites what it deletes (`secure_delete`). Three places are left:

    - the write-ahead log, which holds pages as they were: it is written into the file and emptied before an erasing
      call is answered, or as soon as the readers of other processes let it;
    - the index for searches, if there is one, which is cleared out in a quiet moment: at once where it is small, else
      in steps of some 10 ms;
    - unused space within pages, where a copy can lie of a row that once moved to the neighbouring page. Only VACUUM
      removes it, by writing the whole file anew: that is done in a quiet moment, if the file is small.
    """

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
