"""What is removed, each within the writer's transaction. The messages go with their conversation, as the tables say."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from jaf_memory_core import rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Stamp, Truncate
from jaf_memory_sqlite.operations.reads import look_up
from jaf_memory_sqlite.operations.writes import Clock, drop, relabel, touch
from jaf_memory_sqlite.rows import SQL, micros


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
    removed: int = end - row[0]
    size = standing.size - drop(db, row[0], end)
    touched = rules.touched(standing.record, now)
    metadata = rules.unsummarised(touched.metadata, row[0] - standing.row_of(0))
    after = replace(touched, message_count=touched.message_count - removed, metadata=metadata)
    touch(db, standing, after, size, standing.largest)
    relabel(db, standing, after)
    return removed


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
