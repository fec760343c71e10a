"""What changes the course of a conversation, within the writer's transaction: forks, and messages revised in place."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from jaf_memory_core import forks, rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Fork, Revise
from jaf_memory_sqlite import statements as sql
from jaf_memory_sqlite.rows import Kept, columns, row_of
from jaf_memory_sqlite.writing import Clock, held_bodies, longest, look_up, relabel, touch


def fork(db: sqlite3.Connection, request: Fork, clock: Clock) -> int:
    """Copy a conversation's rows to a new id; how many messages the copy holds. No message leaves the file."""
    now = clock()
    parent = look_up(db, request.conversation_id, with_metadata=True)
    if parent is None or rules.seen(parent.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    there = look_up(db, request.new_id)
    if there is not None and rules.live(there.record, now):
        raise forks.taken(request.new_id)
    first, end = parent.row_of(parent.record.first_position), _end(db, parent, request)
    if there is not None:
        db.execute(sql.ERASE, (there.key,))
    (size,) = db.execute(sql.BYTES, (first, end)).fetchone()
    header = replace(forks.fork_header(parent.record, request, now), message_count=end - first)
    key = db.execute(sql.CREATE, columns(header, size, parent.largest)).lastrowid
    assert key is not None  # noqa: S101  (of an INSERT)
    db.execute(sql.COPY, (row_of(key, 0) - parent.row_of(0), key, first, end))
    return header.message_count


def _end(db: sqlite3.Connection, parent: Kept, request: Fork) -> int:
    if request.until_message_id is None:
        return parent.row_of(parent.end)
    row = db.execute(sql.ROW_OF_MESSAGE, (parent.key, request.until_message_id)).fetchone()
    if row is None:
        raise forks.no_such_message(request)
    end: int = row[0]
    return end


def revise(db: sqlite3.Connection, request: Revise, clock: Clock) -> int:
    """Put messages into the rows of others; the version."""
    now = clock()
    there = look_up(db, request.conversation_id, with_metadata=True)
    if there is None or rules.seen(there.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    concerned = {*request.ids, *(message.message_id for message in request.messages)}
    bodies = held_bodies(db, there, sorted(concerned))
    wanted = forks.replacements(request, bodies, request.conversation_id)
    if not wanted:
        return there.record.version
    rows = []
    # All of the old rows go before any of the new ones comes: they may have exchanged their ids.
    for index in wanted:
        (row,) = db.execute(sql.ROW_OF_MESSAGE, (there.key, request.ids[index])).fetchone()
        rows.append((row, there.key, request.messages[index].message_id, request.bodies[index]))
    for row in rows:
        db.execute(sql.DROP, (row[0], row[0] + 1))
    db.executemany(sql.ADD, rows)
    growth = sum(len(request.bodies[index]) - len(bodies[request.ids[index]]) for index in wanted)
    after = replace(rules.touched(there.record, now), metadata=rules.unsummarised(there.record.metadata))
    most = max(there.largest, longest([request.bodies[index] for index in wanted]))
    touch(db, there, after, there.size + growth, most)
    relabel(db, there, after)
    return after.version
