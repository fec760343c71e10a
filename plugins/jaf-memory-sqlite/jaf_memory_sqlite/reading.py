"""What is read, each in one snapshot: functions of a connection, for whichever thread holds it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Page, Record, Stats, Tail
from jaf_memory_sqlite import queries
from jaf_memory_sqlite import statements as sql
from jaf_memory_sqlite.rows import BEYOND, Kept, kept, micros, moment

ANY = math.inf
"""Bytes without a limit."""

LITTLE = 256 << 10
"""Bytes of messages that a read in an event loop's own thread may bring."""

STRETCH = 100
"""Conversations whose keys a scan looks up at once."""


class NotHereError(Exception):
    """A read that must be done in the reader's own thread."""


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Let several statements see the same state."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:  # some errors end the transaction by themselves
            db.execute("COMMIT")


def conversation(
    db: sqlite3.Connection, conversation_id: str, most: float = ANY, *, with_messages: bool = True
) -> Record | None:
    """The whole record.

    Raises:
        NotHereError: its messages have more than `most` bytes.
    """
    with snapshot(db):
        row = db.execute(sql.HEADER_WITH_METADATA, (conversation_id,)).fetchone()
        if row is None:
            return None
        found = kept(row)
        if not with_messages:
            return found.record
        if found.size > most:
            raise NotHereError
        bodies = _bodies(db, found, found.record.first_position, found.end)
    return replace(found.record, messages=codec.decode_messages(bodies))


def tail(db: sqlite3.Connection, asked: Tail, now: datetime) -> Page | None:
    """A page of messages, of any size; costs the page."""
    with snapshot(db):
        row = db.execute(sql.HEADER, (asked.conversation_id,)).fetchone()
        found = kept(row) if row else None
        if found is None or rules.seen(found.record, now, asked.scope) is None:
            return None
        first, end = rules.bounds(found.record, asked)
        bodies = _bodies(db, found, first, end)
    return Page(codec.decode_messages(bodies), first, more=first > found.record.first_position)


def little_tail(db: sqlite3.Connection, asked: Tail, now: datetime) -> Page | None:
    """The same for a small page, in one statement.

    Raises:
        NotHereError: the page might have more than `LITTLE` bytes.
    """
    limit = min(asked.limit, BEYOND)
    before = BEYOND if asked.before is None else min(asked.before, BEYOND)
    row = db.execute(sql.TAIL, (LITTLE, limit, LITTLE, before, limit, before, asked.conversation_id)).fetchone()
    if row is None:
        return None
    owner, expires, oldest, count, bodies = row
    if asked.scope not in (None, owner) or (expires is not None and expires <= micros(now)):
        return None
    end = max(oldest, min(oldest + count, before))  # as `rules.bounds` has it
    first = max(oldest, end - limit)
    if bodies is None and end > first:
        raise NotHereError
    return Page(codec.decode_joined(bodies) if bodies else (), first, more=first > oldest)


def _bodies(db: sqlite3.Connection, found: Kept, first: int, end: int) -> list[bytes]:
    rows = db.execute(sql.BODIES, (found.row_of(first), found.row_of(end))).fetchall()
    return [body for (body,) in rows]


def _messages(db: sqlite3.Connection, found: Kept) -> tuple[Message, ...]:
    return codec.decode_messages(_bodies(db, found, found.record.first_position, found.end))


def find(db: sqlite3.Connection, query: MemoryQuery, now: datetime) -> list[Record]:
    """Live records that match, newest first, paging applied."""
    with snapshot(db):
        found = list(_page(map(kept, db.execute(*queries.newest(query, now))), query))
        if not query.include_messages:
            return [one.record for one in found]
        return [replace(one.record, messages=_messages(db, one)) for one in found]


def _page(rows: Iterator[Kept], query: MemoryQuery) -> Iterator[Kept]:
    wanted = query.metadata
    if wanted is None:
        return rows
    holding = (one for one in rows if rules.holds(one.record, wanted))
    return islice(holding, query.offset, None if query.limit is None else query.offset + query.limit)


def keys(db: sqlite3.Connection, query: MemoryQuery, above: tuple[datetime, str] | None) -> list[tuple[datetime, str]]:
    """Keys of the next conversations of a scan, at most `STRETCH`."""
    rows = db.execute(*queries.in_order_of_creation(query, above, STRETCH)).fetchall()
    return [(moment(created_at), conversation_id) for created_at, conversation_id in rows]


def stats(db: sqlite3.Connection, user_id: str | None, now: datetime) -> Stats:
    """Counts over live conversations, in one statement."""
    values = (micros(now),) if user_id is None else (micros(now), user_id)
    text = sql.STATS if user_id is None else sql.STATS_OF_USER
    conversations, messages, size, oldest, newest = db.execute(text, values).fetchone()
    if not conversations:
        return Stats()
    return Stats(conversations, messages, size, moment(oldest), moment(newest))
