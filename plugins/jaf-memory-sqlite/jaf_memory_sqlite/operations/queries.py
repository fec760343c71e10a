"""What is asked of many conversations: a `MemoryQuery` as SQL, and counts.

Every filter is in the statement, save that metadata is compared by the core's own rule, row by row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Record, Stats
from jaf_memory_core.values import EMPTY
from jaf_memory_sqlite.operations.reads import bodies_of, snapshot
from jaf_memory_sqlite.rows import BEYOND, SQL, Kept, kept, micros, moment, second

STRETCH = 100
"""Conversations whose keys a scan looks up at once."""


Statement = tuple[str, list[Any]]


def newest(query: MemoryQuery, now: datetime) -> Statement:
    """Live conversations, newest `updated_at` first; with a metadata filter it is for the caller to page."""
    where = _filters(query)
    where.append(("(expires_at IS NULL OR expires_at > ?)", [micros(now)]))
    below = rules.activity_cursor(query)
    if below is not None:
        where.append(("updated_second <= ?", [second(below[0])]))
        where.append(("(updated_at, conversation_id) < (?, ?)", [micros(below[0]), below[1]]))
    text, values = _joined(SQL["headers"], where)
    # The plus keeps SQLite from walking through all there is in the order of the answer, where a range would do.
    plus = "+" if _only_by_creation(query) else ""
    text += f" ORDER BY {plus}updated_second DESC, updated_at DESC, conversation_id DESC"
    if query.metadata is None and (query.limit is not None or query.offset):
        text += " LIMIT ? OFFSET ?"
        values += [-1 if query.limit is None else min(query.limit, BEYOND), min(query.offset, BEYOND)]
    return text, values


def in_order_of_creation(query: MemoryQuery, above: tuple[datetime, str] | None, limit: int) -> Statement:
    """Keys of conversations, expired ones too, oldest `created_at` first."""
    where = _filters(query)
    if above is not None:
        where.append(("(created_at, conversation_id) > (?, ?)", [micros(above[0]), above[1]]))
    text, values = _joined(SQL["keys"], where)
    return f"{text} ORDER BY created_at, conversation_id LIMIT ?", [*values, limit]


def _only_by_creation(query: MemoryQuery) -> bool:
    others = (query.conversation_id, query.user_id, query.trace_id, query.active_since, query.active_until)
    return not (query.since is query.until is None) and all(other is None for other in (*others, query.cursor))


def _filters(query: MemoryQuery) -> list[Statement]:
    metadata = query.metadata or EMPTY
    texts = [
        ("conversation_id = ?", query.conversation_id),
        ("user_id = ?", query.user_id),
        *(("trace_id = ?", codec.canonical(trace)) for trace in _traces(query)),
        *(("instr(metadata, ?) > 0", f'"{key}"') for key in metadata if _stands_as_it_is(key)),
    ]
    times = [
        ("created_at >= ?", query.since, micros),
        ("created_at < ?", query.until, micros),
        ("updated_second >= ?", query.active_since, second),  # the index goes by seconds
        ("updated_at >= ?", query.active_since, micros),
        ("updated_second <= ?", query.active_until, second),
        ("updated_at < ?", query.active_until, micros),
    ]
    where: list[Statement] = [(text, [value]) for text, value in texts if value is not None]
    return where + [(text, [convert(value)]) for text, value, convert in times if value is not None]


def _traces(query: MemoryQuery) -> list[Any]:
    wanted = (query.trace_id, (query.metadata or EMPTY).get("trace_id"))
    return [trace for trace in wanted if trace is not None]


def _stands_as_it_is(key: str) -> bool:
    """Whether any writer of JSON writes the key letter by letter, so that a row without it need not be decoded."""
    return key != "user_id" and key.isascii() and key.isprintable() and not {'"', "\\"} & set(key)


def _joined(select: str, where: list[Statement]) -> Statement:
    text = " AND ".join(text for text, _ in where)
    values = [value for _, some in where for value in some]
    return f"{select} WHERE {text}" if text else select, values


def find(db: sqlite3.Connection, query: MemoryQuery, now: datetime) -> list[Record]:
    """Live records that match, newest first, paging applied."""
    with snapshot(db):
        found = list(_page(map(kept, db.execute(*newest(query, now))), query))
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
    rows = db.execute(*in_order_of_creation(query, above, STRETCH)).fetchall()
    return [(moment(created_at), conversation_id) for created_at, conversation_id in rows]


def stats(db: sqlite3.Connection, user_id: str | None, now: datetime) -> Stats:
    """Counts over live conversations, in one statement."""
    values = (micros(now),) if user_id is None else (micros(now), user_id)
    text = SQL["stats"] if user_id is None else SQL["stats_of_user"]
    conversations, messages, size, oldest, newest = db.execute(text, values).fetchone()
    if not conversations:
        return Stats()
    return Stats(conversations, messages, size, moment(oldest), moment(newest))


def _messages(db: sqlite3.Connection, found: Kept) -> tuple[Message, ...]:
    return codec.decode_messages(bodies_of(db, found, found.record.first_position, found.end))
