"""What is asked of many conversations: a `MemoryQuery` as SQL, and counts.

Every filter is in the statement, save that metadata is compared by the core's own rule, row by row.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from heapq import merge
from itertools import chain, islice
from typing import Any, TypeVar

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Record, Stats
from jaf_memory_core.values import EMPTY, identifier
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import NeedsThreadError, tells_damage
from jaf_memory_sqlite.operations.reads import ANY, INLINE_BYTES, all_bodies, odd_text, snapshot, text_as, with_joined
from jaf_memory_sqlite.rows import (
    BEYOND,
    BODIES,
    BUSY,
    LAG,
    LISTED,
    RESTING,
    SQL,
    UPDATED,
    Kept,
    busy,
    kept,
    micros,
    moment,
    weight,
)

INLINE_CONVERSATIONS = 50
"""Conversations that a list in an event loop's own thread may bring, and pass over."""

INLINE_SECONDS = 0.002
"""How long a read there may take: a list takes long where many have expired, or wait to be put in order."""

INLINE_STEPS = 5_000
"""Steps of SQLite's machine after which it looks at the clock."""

T = TypeVar("T")
Statement = tuple[str, list[Any]]
Row = tuple[Any, ...]
Listed = Kept | Record | Damaged


def newest(query: MemoryQuery, now: datetime, select: str = SQL["headers"], values: Sequence[Any] = ()) -> Statement:
    """Live conversations, newest activity first, all sorted; it is for the caller to page.

    Args:
        query: which ones.
        now: the moment.
        select: what of them.
        values: those that this binds.
    """
    where = [*filters(query), *active(query), _live(now), *_behind(query, "updated_at")]
    if query.updated_since is not None and query.user_id is None:
        # Where they may stand: each has an index of its own.
        since = micros(query.updated_since)
        text = "(listed_at >= ? OR (listed_at >= ? AND listed_at < ?) OR amended_at >= ?)"
        where.append((text, [since, busy(since - LAG), RESTING, since]))
    text, filtered = joined(select, where)
    return f"{text} ORDER BY updated_at DESC, conversation_id DESC", [*values, *filtered]


def resting(query: MemoryQuery, now: datetime, *, whole: bool = False) -> Statement:
    """Those of them that rest, which stand in an index in the very order; with their messages, unless they are long."""
    since, until = _span(query)
    where = [*filters(query), ("listed_at >= ?", [RESTING if since is None else since]), _live(now)]
    if until is not None:
        where.append(("listed_at < ?", [until]))
    where += _behind(query, "listed_at")
    text, values = joined(SQL["whole" if whole else "headers"], where)
    return f"{text} ORDER BY listed_at DESC, conversation_id DESC", [INLINE_BYTES, *values] if whole else values


def busily(query: MemoryQuery, now: datetime) -> Statement:
    """Those of them that are busy, in the order in which they became so: each was active up to `LAG` later."""
    since, until = _span(query)
    below = rules.activity_cursor(query)
    ends = [until, None if below is None else micros(below[0]) + 1]
    end = min((busy(one) for one in ends if one is not None), default=RESTING)
    where = [*filters(query), *active(query), ("listed_at < ?", [end]), _live(now), *_behind(query, "updated_at")]
    if since is not None:
        where.append(("listed_at >= ?", [busy(since - LAG)]))
    text, values = joined(SQL["headers"], where)
    return f"{text} ORDER BY listed_at DESC", values


def _stand_together(query: MemoryQuery) -> bool:
    """Whether an index leads to few, or no index to an order: all of them are sorted then."""
    if query.conversation_id is not None or _traces(query):
        return True
    others = (query.user_id, query.active_since, query.active_until)
    bounds = (query.since, query.until, query.updated_since)
    return any(bound is not None for bound in bounds) and all(other is None for other in others)


def _live(now: datetime) -> Statement:
    return SQL["live"], [micros(now)]


def _behind(query: MemoryQuery, column: str) -> list[Statement]:
    """What comes behind the cursor, by the column that has the time of activity."""
    cursor = rules.activity_cursor(query)
    return [] if cursor is None else [(f"({column}, conversation_id) < (?, ?)", [micros(cursor[0]), cursor[1]])]


def filters(query: MemoryQuery) -> list[Statement]:
    """All but the bounds on activity."""
    metadata = query.metadata or EMPTY
    texts = [
        ("conversation_id = ?", query.conversation_id),
        ("user_id = ?", query.user_id),
        *(("trace_id = ?", codec.canonical(trace)) for trace in _traces(query)),
        *(("instr(metadata, ?) > 0", f'"{key}"') for key in metadata if _stands_as_it_is(key)),
    ]
    times = [
        ("created_at >= ?", query.since),
        ("created_at < ?", query.until),
        ("updated_at < ?", query.updated_until),
        ("ifnull(amended_at < ?, 1)", query.updated_until),
    ]
    where: list[Statement] = [(text, [value]) for text, value in texts if value is not None]
    if query.updated_since is not None:
        since = micros(query.updated_since)
        where.append(("(updated_at >= ? OR ifnull(amended_at >= ?, 0))", [since, since]))
    return where + [(text, [micros(value)]) for text, value in times if value is not None]


def active(query: MemoryQuery) -> list[Statement]:
    """The bounds on activity, exactly."""
    bounds = [("updated_at >= ?", query.active_since), ("updated_at < ?", query.active_until)]
    return [(text, [micros(value)]) for text, value in bounds if value is not None]


def _span(query: MemoryQuery) -> tuple[int | None, int | None]:
    """The bounds on activity that an index can look for: from the first on, before the second."""
    ends = [micros(one) for one in (query.active_until, query.updated_until) if one is not None]
    return None if query.active_since is None else micros(query.active_since), min(ends, default=None)


def _traces(query: MemoryQuery) -> list[Any]:
    wanted = (query.trace_id, (query.metadata or EMPTY).get("trace_id"))
    return [trace for trace in wanted if trace is not None]


def _stands_as_it_is(key: str) -> bool:
    """Whether any writer of JSON writes the key letter by letter, so that a row without it need not be decoded."""
    return key != "user_id" and key.isascii() and key.isprintable() and not {'"', "\\"} & set(key)


def joined(select: str, where: list[Statement]) -> Statement:
    """A statement with these conditions."""
    text = " AND ".join(text for text, _ in where)
    values = [value for _, some in where for value in some]
    return f"{select} WHERE {text}" if text else select, values


def find(db: sqlite3.Connection, query: MemoryQuery, now: datetime, most: float = ANY) -> list[Record | Damaged]:
    """Live records that match, newest first, paging applied; what cannot be read stands there as damaged.

    Raises:
        NeedsThreadError: their metadata or their messages have more than `most` bytes.
    """
    with snapshot(db):
        # What is passed over need not bring messages.
        whole = query.include_messages and not query.offset and is_short(query)
        try:
            found = list(_page(_rows(db, query, now, most, whole=whole), query))
        except sqlite3.DatabaseError as error:
            if not tells_damage(error):
                raise
            # The headers where some text is no UTF-8: it is read all the same, and then found to be none.
            with text_as(db, odd_text):
                found = list(_page(_rows(db, query, now), query))
        if not query.include_messages:
            return [_header(one) for one in found]
        if most < ANY and sum(one.size for one in found if isinstance(one, Kept)) > most:
            raise NeedsThreadError
        return [_whole(db, one) for one in found]


def is_short(query: MemoryQuery) -> bool:
    """Whether a list may be tried in an event loop's own thread."""
    few = query.limit is not None and query.limit + query.offset <= INLINE_CONVERSATIONS
    return few and query.metadata is None and not _stand_together(query)


def find_inline(db: sqlite3.Connection, query: MemoryQuery, now: datetime) -> list[Record | Damaged]:
    """The same in an event loop's own thread.

    Raises:
        NeedsThreadError: it goes through much, or brings much.
    """
    return briefly(db, lambda db: find(db, query, now, INLINE_BYTES))


def briefly(db: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """What is read in an event loop's own thread.

    Raises:
        NeedsThreadError: it takes longer than `INLINE_SECONDS`.
    """
    end = time.monotonic() + INLINE_SECONDS
    db.set_progress_handler(lambda: time.monotonic() > end, INLINE_STEPS)
    try:
        return read(db)
    except (NeedsThreadError, sqlite3.OperationalError) as error:
        if isinstance(error, sqlite3.OperationalError) and str(error) != "interrupted":
            raise
    finally:
        db.set_progress_handler(None, 0)
    # Another one: the first keeps cursors, and they the snapshot, while the next already has the connection.
    raise NeedsThreadError


def _rows(
    db: sqlite3.Connection, query: MemoryQuery, now: datetime, most: float = ANY, *, whole: bool = False
) -> Iterator[Row]:
    """Rows of conversations, the newest first, some `whole`, with their messages; whoever takes few costs few."""
    if _stand_together(query):
        text, values = newest(query, now)
        if query.limit is None or query.metadata is not None:
            return iter(db.execute(text, values))
        return iter(db.execute(f"{text} LIMIT ?", [*values, min(query.limit + query.offset, BEYOND)]))
    settled = _settled(_light(db.execute(*busily(query, now)), most))
    first = next(settled, None)
    rest = _light(db.execute(*resting(query, now, whole=whole)), most)
    return rest if first is None else merge(chain((first,), settled), rest, key=_activity, reverse=True)


def _light(rows: Iterable[Row], most: float) -> Iterator[Row]:
    """These rows, unless they have more bytes of metadata: each may have a megabyte, and a list brings many."""
    if most == ANY:
        return iter(rows)
    return _weighed(rows, most)


def _weighed(rows: Iterable[Row], most: float) -> Iterator[Row]:
    for row in rows:
        most -= weight(row)
        if most < 0:
            raise NeedsThreadError
        yield row


def _settled(rows: Iterable[Row]) -> Iterator[Row]:
    """Bring busy ones into the order of their activity: each waits while one that comes may stand before it."""
    waiting: list[Row] = []
    for row in rows:
        # A damaged page can hold NULL, which no `listed_at` is: SQLite takes it for the least one.
        latest = BEYOND << 31 if row[LISTED] is None else row[LISTED] - BUSY + LAG
        while waiting and _activity(waiting[-1])[0] >= latest:
            yield waiting.pop()
        insort(waiting, row, key=_activity)
    yield from reversed(waiting)


def _activity(row: Row) -> tuple[int, str]:
    """By what a list goes; what is damaged leads it."""
    updated, key = row[UPDATED], row[1]
    return updated if updated.__class__ is int else BEYOND << 31, key if key.__class__ is str else ""


def _page(rows: Iterator[Row], query: MemoryQuery) -> Iterator[Listed]:
    wanted = query.metadata
    offset = min(query.offset, BEYOND)
    stop = None if query.limit is None else offset + min(query.limit, BEYOND)
    if wanted is None:
        return map(_kept, islice(rows, offset, stop))
    found = map(_kept, rows)
    holding = (one for one in found if not isinstance(one, Kept) or rules.holds(one.record, wanted))
    return islice(holding, offset, stop)


def _kept(row: tuple[Any, ...]) -> Listed:
    """A row; the whole record, where its messages have come with it."""
    try:
        found = kept(row)
        return (len(row) > BODIES and with_joined(found, row[BODIES])) or found
    except MemoryStorageError as error:
        return Damaged(error)


def _header(one: Listed) -> Record | Damaged:
    return one.record if isinstance(one, Kept) else one


def _whole(db: sqlite3.Connection, one: Listed) -> Record | Damaged:
    if not isinstance(one, Kept):
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


def owners(db: sqlite3.Connection, after: str, limit: int, now: datetime) -> list[str]:
    """The first owners of live conversations behind one, in the order of their ids."""
    # Bytes, so that text which is no UTF-8 is passed over: it is nobody's id.
    with text_as(db, bytes):
        rows = db.execute(SQL["owners"], (after, micros(now), limit)).fetchall()
    migrations.check(db)
    found = []
    for (owner,) in rows:
        with suppress(ValueError):
            found.append(identifier(owner.decode()) if isinstance(owner, bytes) else identifier(owner))
    return found


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
