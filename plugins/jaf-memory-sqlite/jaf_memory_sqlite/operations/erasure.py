"""What is removed, each within the writer's transaction. The messages go with their conversation, as the tables say."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from jaf_memory_core import rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import DeleteMessages, Stamp, Truncate
from jaf_memory_sqlite.operations.reads import check_complete, held_rows, look_up
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
    position = row[0] - standing.row_of(0)
    left = position - standing.record.first_position
    if standing.record.gaps:
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
