"""What is asked of many conversations: a `MemoryQuery` as SQL, and counts.

Every filter is in the statement, save that metadata is compared by the core's own rule, row by row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Record, Stats
from jaf_memory_core.values import EMPTY, identifier
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import tells_damage
from jaf_memory_sqlite.operations.reads import all_bodies, snapshot
from jaf_memory_sqlite.rows import BEYOND, SQL, Kept, kept, micros, moment, second

STRETCH = 100
"""Conversations whose keys a scan looks up at once."""


Statement = tuple[str, list[Any]]


class Key(NamedTuple):
    """What a scan goes by, as it stands in the file: a number and a text, unless they are damaged."""

    created_at: Any
    conversation_id: Any

    @property
    def creation(self) -> tuple[datetime, str] | None:
        """The order of a record, or `None` for what is no key of one."""
        try:
            self.conversation_id.encode()
            return moment(self.created_at), self.conversation_id
        except (AttributeError, TypeError, ValueError, OverflowError):
            return None

    @property
    def place(self) -> str:
        """Where `bound` stands in a statement."""
        return "CAST(? AS TEXT)" if isinstance(self.conversation_id, str) else "?"

    @property
    def bound(self) -> Any:
        """The id as a statement takes it, though it may be no UTF-8."""
        value = self.conversation_id
        return value.encode(errors="surrogateescape") if isinstance(value, str) else value


def newest(query: MemoryQuery, now: datetime, select: str = SQL["headers"], values: Sequence[Any] = ()) -> Statement:
    """Live conversations, newest activity first; with a metadata filter it is for the caller to page.

    Args:
        query: which ones.
        now: the moment.
        select: what of them.
        values: those that this binds.
    """
    where = _filters(query)
    where.append(("(expires_at IS NULL OR expires_at > ?)", [micros(now)]))
    below = rules.activity_cursor(query)
    if below is not None:
        where.append(("updated_second <= ?", [second(below[0])]))
        where.append(("(updated_at, conversation_id) < (?, ?)", [micros(below[0]), below[1]]))
    text, filtered = _joined(select, where)
    values = [*values, *filtered]
    # The plus keeps SQLite from walking through all there is in the order of the answer, where a range would do.
    plus = "+" if _only_by_creation(query) or _only_by_last_change(query) else ""
    text += f" ORDER BY {plus}updated_second DESC, updated_at DESC, conversation_id DESC"
    if query.metadata is None and (query.limit is not None or query.offset):
        text += " LIMIT ? OFFSET ?"
        values += [-1 if query.limit is None else min(query.limit, BEYOND), min(query.offset, BEYOND)]
    return text, values


def in_order_of_creation(query: MemoryQuery, above: Key | None, limit: int) -> Statement:
    """Keys of conversations, expired ones too, oldest `created_at` first."""
    where = _filters(query)
    if above is not None:
        where.append((f"(created_at, conversation_id) > (?, {above.place})", [above.created_at, above.bound]))
    text, values = _joined(SQL["keys"], where)
    return f"{text} ORDER BY created_at, conversation_id LIMIT ?", [*values, limit]


def _only_by_creation(query: MemoryQuery) -> bool:
    others = (query.conversation_id, query.user_id, query.trace_id, query.active_since, query.active_until)
    return not (query.since is query.until is None) and all(other is None for other in (*others, query.cursor))


def _only_by_last_change(query: MemoryQuery) -> bool:
    others = (query.conversation_id, query.user_id, query.trace_id, query.since, query.until)
    return query.updated_since is not None and all(other is None for other in (*others, query.active_since))


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
        *(("updated_second <= ?", query.updated_until, second), ("updated_at < ?", query.updated_until, micros)),
        ("ifnull(amended_at < ?, 1)", query.updated_until, micros),
    ]
    where: list[Statement] = [(text, [value]) for text, value in texts if value is not None]
    if query.updated_since is not None:
        # Each side has an index of its own.
        since = micros(query.updated_since)
        either = "((updated_second >= ? AND updated_at >= ?) OR amended_at >= ?)"
        where.append((either, [second(query.updated_since), since, since]))
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


def find(db: sqlite3.Connection, query: MemoryQuery, now: datetime) -> list[Record | Damaged]:
    """Live records that match, newest first, paging applied; what cannot be read stands there as damaged."""
    with snapshot(db):
        try:
            found = list(_page(map(_kept, db.execute(*newest(query, now))), query))
        except sqlite3.OperationalError as error:
            if not tells_damage(error):
                raise
            found = _with_odd_text(db, query, now)
        return [_whole(db, one) if query.include_messages else _header(one) for one in found]


def _with_odd_text(db: sqlite3.Connection, query: MemoryQuery, now: datetime) -> list[Kept | Damaged]:
    """The same where some text is no UTF-8: it is read all the same, and then found to be none."""
    db.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        return list(_page(map(_kept, db.execute(*newest(query, now))), query))
    finally:
        db.text_factory = str


def _page(rows: Iterator[Kept | Damaged], query: MemoryQuery) -> Iterator[Kept | Damaged]:
    wanted = query.metadata
    if wanted is None:
        return rows
    holding = (one for one in rows if isinstance(one, Damaged) or rules.holds(one.record, wanted))
    offset = min(query.offset, BEYOND)
    return islice(holding, offset, None if query.limit is None else offset + min(query.limit, BEYOND))


def _kept(row: tuple[Any, ...]) -> Kept | Damaged:
    try:
        return kept(row)
    except MemoryStorageError as error:
        return Damaged(error)


def _header(one: Kept | Damaged) -> Record | Damaged:
    return one if isinstance(one, Damaged) else one.record


def _whole(db: sqlite3.Connection, one: Kept | Damaged) -> Record | Damaged:
    if isinstance(one, Damaged):
        return one
    key = one.record.conversation_id
    try:
        return replace(one.record, messages=codec.decode_messages(all_bodies(db, one), key))
    except MemoryStorageError as error:
        return Damaged(error, one.record.created_at)
    except sqlite3.DatabaseError as error:
        if not tells_damage(error):
            raise
    return Damaged(codec.damaged(key), one.record.created_at)


def start(query: MemoryQuery) -> Key | None:
    """The key behind which a scan begins."""
    cursor = rules.creation_cursor(query)
    return None if cursor is None else Key(micros(cursor[0]), cursor[1])


def keys(db: sqlite3.Connection, query: MemoryQuery, above: Key | None) -> list[Key]:
    """Keys of the next conversations of a scan, at most `STRETCH`."""
    # Text that is no UTF-8 would end the whole stretch; this way it is one damaged conversation among others.
    db.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        rows = db.execute(*in_order_of_creation(query, above, STRETCH)).fetchall()
    finally:
        db.text_factory = str
    migrations.check(db)
    return [Key(*row) for row in rows]


def owners(db: sqlite3.Connection, after: str, limit: int, now: datetime) -> list[str]:
    """The first owners of live conversations behind one, in the order of their ids."""
    # Bytes, so that text which is no UTF-8 is passed over: it is nobody's id.
    db.text_factory = bytes
    try:
        rows = db.execute(SQL["owners"], (after, micros(now), limit)).fetchall()
    finally:
        db.text_factory = str
    migrations.check(db)
    found = []
    for (owner,) in rows:
        with suppress(ValueError):
            found.append(identifier(owner.decode()) if isinstance(owner, bytes) else identifier(owner))
    return found


def last(keys: list[Key]) -> Key:
    """The key behind which the next stretch begins.

    Raises:
        MemoryStorageError: nothing of the whole stretch can be compared.
    """
    comparable = [key for key in keys if key.created_at is not None and key.conversation_id is not None]
    if not comparable:
        raise codec.damaged()
    return comparable[-1]


def stats(db: sqlite3.Connection, user_id: str | None, now: datetime) -> Stats:
    """Counts over live conversations, in one statement."""
    values = (micros(now),) if user_id is None else (micros(now), user_id)
    text = SQL["stats"] if user_id is None else SQL["stats_of_user"]
    with snapshot(db):
        conversations, sound, messages, size, oldest, newest = db.execute(text, values).fetchone()
    if not conversations:
        return Stats()
    with suppress(*codec.UNREADABLE):
        if sound == conversations:
            return Stats(conversations, messages, size, moment(oldest), moment(newest))
    raise codec.damaged()
