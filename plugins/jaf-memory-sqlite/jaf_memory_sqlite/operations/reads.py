"""What is read of one conversation, each in one snapshot."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import Message, codec, pages, rules
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Page, Record, Tail
from jaf_memory_core.stretches import size_of
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import NeedsThreadError, tells_damage
from jaf_memory_sqlite.rows import BEYOND, MOMENT, SQL, Kept, held, kept, micros

ANY = math.inf
"""Bytes without a limit."""

ASKED = 512
"""Message ids that one statement looks for; older SQLites take no more than 999 parameters."""

INLINE_BYTES = 256 << 10
"""Bytes of messages that a read in an event loop's own thread may bring."""


@contextmanager
def snapshot(db: sqlite3.Connection, conversation_id: str | None = None) -> Iterator[None]:
    """Let several statements see the same state, of a version that we know.

    Raises:
        MemoryStorageError: the file is damaged where the conversation lies, or a newer version has upgraded it.
    """
    try:
        db.execute("BEGIN")
        yield
        # Behind the reads, in the same snapshot: what was read is of the version that is checked.
        migrations.check(db)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if conversation_id is None or not tells_damage(error):
            raise
        raise codec.damaged(conversation_id) from None
    finally:
        _end(db)


@contextmanager
def text_as(db: sqlite3.Connection, kind: Callable[[bytes], Any]) -> Iterator[None]:
    """Make something else of text than a str, which has to be UTF-8, and in a damaged file need not be."""
    db.text_factory = kind
    try:
        yield
    finally:
        db.text_factory = str


odd_text = partial(str, encoding="utf-8", errors="surrogateescape")
"""A str of any text: what is no UTF-8 stands there as lone surrogates."""


def _end(db: sqlite3.Connection) -> None:
    """Leave the transaction, which some errors end by themselves.

    A progress handler may break off this statement, too, whose steps SQLite counts over all its runs; but not twice.
    Behind a damaged page SQLite does not commit, which would end a list that goes on behind what is damaged.
    """
    try:
        if db.in_transaction:
            db.execute("COMMIT")
    except sqlite3.DatabaseError:
        if db.in_transaction:
            db.execute("ROLLBACK")


def conversation(
    db: sqlite3.Connection, conversation_id: str, most: float = ANY, *, with_messages: bool = True
) -> Record | None:
    """The whole record.

    Raises:
        NeedsThreadError: its messages have more than `most` bytes.
    """
    with snapshot(db, conversation_id):
        row = db.execute(SQL["header_with_metadata"], (conversation_id,)).fetchone()
        if row is None:
            return None
        found = kept(row)
        if not with_messages:
            return found.record
        if found.size > most:
            raise NeedsThreadError
        bodies = all_bodies(db, found)
        places = all_places(db, found)
    return replace(found.record, messages=codec.decode_messages(bodies, conversation_id), positions=places)


def tail(db: sqlite3.Connection, asked: Tail, now: datetime, most: float = ANY) -> Page | None:
    """A page of messages, with what is asked for beside it; costs what it brings.

    Raises:
        NeedsThreadError: it might have more than `most` bytes.
    """
    with snapshot(db, asked.conversation_id):
        row = db.execute(SQL["header_with_metadata" if asked.with_header else "header"], (asked.conversation_id,))
        found = next(map(kept, row), None)
        if found is None or rules.seen(found.record, now, asked.scope) is None:
            return None
        if found.record.gaps:
            return _page_with_gaps(db, found, asked, most)
        first, end = pages.bounds(found.record, asked)
        oldest, lead = found.record.first_position, pages.lead(found.record, asked, first)
        if min(found.size, found.largest * (end - first + lead)) > most:
            raise NeedsThreadError
        bodies = bodies_of(db, found, first, end)
        first_bodies = bodies_of(db, found, oldest, oldest + lead) if asked.leading else None
    messages = codec.decode_messages(bodies, asked.conversation_id)
    leading = None if first_bodies is None else codec.decode_messages(first_bodies, asked.conversation_id)
    header = found.record if asked.with_header else None
    return Page(messages, first, first > oldest, leading, header, pages.known_end(found.record, asked))


def _page_with_gaps(db: sqlite3.Connection, found: Kept, asked: Tail, most: float) -> Page:
    """The same of a conversation of which single messages were deleted."""
    header, start = found.record, found.row_of(0)
    lowest, end = pages.reach(header, asked)
    if min(found.size, found.largest * (asked.limit + asked.leading)) > most:
        raise NeedsThreadError
    forwards = asked.after is not None
    rows = placed(db, found, lowest, end, asked.limit, forwards=forwards)
    positions = tuple(row[0] - start for row in rows)
    first = positions[0] if positions else pages.nowhere(header, asked)
    check_complete(db, found)
    leading = None
    if asked.leading:
        ahead = placed(db, found, header.first_position, min(asked.leading, first), asked.leading, forwards=True)
        leading = codec.decode_messages([body for _, body in ahead], asked.conversation_id)
    messages = codec.decode_messages([body for _, body in rows], asked.conversation_id)
    shown = header if asked.with_header else None
    told = pages.known_end(header, asked)
    return Page(messages, first, first > header.first_position, leading, shown, told, positions)


def check_complete(db: sqlite3.Connection, found: Kept) -> None:
    """See whether as many messages stand as the header says, where positions do not tell.

    Raises:
        MemoryStorageError: there are more or fewer.
    """
    (count,) = db.execute(SQL["count_held"], (found.key,)).fetchone()
    if count != found.record.message_count:
        raise codec.damaged(found.record.conversation_id)


def placed(
    db: sqlite3.Connection, found: Kept, first: int, end: int, limit: int, *, forwards: bool
) -> list[tuple[int, bytes]]:
    """Rows and bodies of the first or the last so many messages between two positions, oldest first."""
    statement = SQL["oldest_placed" if forwards else "newest_placed"]
    bounds = (found.row_of(first), found.row_of(max(first, end)), min(limit, BEYOND))
    rows = db.execute(statement, bounds).fetchall()
    return rows if forwards else rows[::-1]


def tails(
    db: sqlite3.Connection, asked: Sequence[Tail], room: int, now: datetime
) -> list[Page | MemoryStorageError | None]:
    """Several pages, as many as there is room for, but one at least; an error in the place of what is damaged."""
    found: list[Page | MemoryStorageError | None] = []
    for one in asked:
        if room <= 0 and found:
            break
        try:
            page = tail(db, one, now)
        except MemoryStorageError as error:
            if error.conversation_id is None:
                raise
            found.append(error)
            continue
        room -= 0 if page is None else size_of(page)
        found.append(page)
    return found


def small_tail(db: sqlite3.Connection, asked: Tail, now: datetime) -> Page | None:
    """The same for a small page, in one statement where it is looked for backwards, and without a header.

    Raises:
        NeedsThreadError: the page might have more than `INLINE_BYTES` bytes.
    """
    if asked.with_header or asked.after is not None:
        return tail(db, asked, now, INLINE_BYTES)
    limit = min(asked.limit, BEYOND)
    before = BEYOND if asked.before is None else min(asked.before, BEYOND)
    values: tuple[Any, ...] = (INLINE_BYTES, limit, INLINE_BYTES, before, limit, before)
    if asked.leading:
        lead = min(asked.leading, BEYOND)
        values += (INLINE_BYTES, lead, INLINE_BYTES, lead, before, limit)
    found = db.execute(SQL["ends" if asked.leading else "tail"], (*values, asked.conversation_id))
    # Before its row is fetched, while it is still being read: in the same snapshot, and at half the price.
    try:
        migrations.check(db)
    except Exception:
        # Else whoever keeps the error keeps the cursor, and with it the snapshot: in the way of writes and checkpoints.
        found.close()
        raise
    row = found.fetchone()
    return None if row is None else _small_page(row, asked, now, limit, before)


def _small_page(row: tuple[Any, ...], asked: Tail, now: datetime, limit: int, before: int) -> Page | None:
    owner, expires, oldest, count, gaps, bodies, *others = row
    if oldest.__class__ is not int or count.__class__ is not int or expires.__class__ not in MOMENT or gaps != 0:
        raise NeedsThreadError  # where the whole header is looked at
    if asked.scope not in (None, owner) or (expires is not None and expires <= micros(now)):
        return None
    end = max(oldest, min(oldest + count, before))  # as `pages.bounds` has it
    first = max(oldest, end - limit)
    if bodies is None and end > first:
        raise NeedsThreadError
    messages = codec.decode_joined(bodies, asked.conversation_id) if bodies else ()
    if len(messages) != end - first:
        raise codec.damaged(asked.conversation_id)
    leading = _leading(others[0], max(0, min(asked.leading, first) - oldest), asked) if others else None
    return Page(messages, first, first > oldest, leading)


def _leading(bodies: bytes | None, count: int, asked: Tail) -> tuple[Message, ...]:
    if bodies is None and count:
        raise NeedsThreadError
    leading = codec.decode_joined(bodies, asked.conversation_id) if bodies else ()
    if len(leading) != count:
        raise codec.damaged(asked.conversation_id)
    return leading


def all_bodies(db: sqlite3.Connection, found: Kept) -> list[bytes]:
    """Bodies of all messages.

    Raises:
        MemoryStorageError: there are more or fewer than the header says.
    """
    rows = db.execute(SQL["bodies"], (found.row_of(0), found.row_of(BEYOND))).fetchall()
    if len(rows) != found.record.message_count:
        raise codec.damaged(found.record.conversation_id)
    return [body for (body,) in rows]


def with_joined(found: Kept, bodies: bytes | None) -> Record | None:
    """The record whose messages a statement has brought with its header; `None` where they have to be read."""
    record = found.record
    try:
        messages = () if bodies is None else codec.decode_joined(bodies, record.conversation_id)
    except MemoryStorageError:
        return None  # who reads them one by one tells what is damaged
    return replace(record, messages=messages) if len(messages) == record.message_count else None


def all_places(db: sqlite3.Connection, found: Kept) -> tuple[int, ...]:
    """Positions of all messages, where they do not follow each other.

    Raises:
        MemoryStorageError: they do not lie where the header says.
    """
    if not found.record.gaps:
        return ()
    start = found.row_of(0)
    rows = db.execute(SQL["oldest_placed"], (start, found.row_of(BEYOND), BEYOND))
    places = tuple(row[0] - start for row in rows)
    if places[:1] != (found.record.first_position,) or places[-1] >= found.end:
        raise codec.damaged(found.record.conversation_id)
    return places


def bodies_of(db: sqlite3.Connection, found: Kept, first: int, end: int) -> list[bytes]:
    """Bodies at the positions from `first`, below `end`.

    Raises:
        MemoryStorageError: not all of them are there.
    """
    rows = db.execute(SQL["bodies"], (found.row_of(first), found.row_of(end))).fetchall()
    if len(rows) != max(0, end - first):
        raise codec.damaged(found.record.conversation_id)
    return [body for (body,) in rows]


def look_up(db: sqlite3.Connection, conversation_id: str, *, with_metadata: bool = False) -> Kept | None:
    """The header that stands, expired or not, or `None`."""
    text = SQL["header_with_metadata"] if with_metadata else SQL["header"]
    try:
        row = db.execute(text, (conversation_id,)).fetchone()
        return kept(row) if row else None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not tells_damage(error):
            raise
        raise codec.damaged(conversation_id) from None


def held_rows(db: sqlite3.Connection, live: Kept, wanted: Sequence[str]) -> list[int]:
    """Rows of those of the wanted messages that a conversation holds."""
    rows = (db.execute(SQL["row_of_message"], (live.key, one)).fetchone() for one in wanted)
    return [row[0] for row in rows if row is not None]


def held_bodies(db: sqlite3.Connection, live: Kept, wanted: Sequence[str]) -> dict[str, bytes]:
    """Bodies of those of the wanted messages that a conversation holds, by id."""
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), ASKED):
        ids = list(wanted[start : start + ASKED])
        # Few different statements, so that they stay prepared: the last id fills up to a power of two.
        count = 1 << (len(ids) - 1).bit_length()
        found.update(db.execute(held(count), (live.key, *ids, *ids[-1:] * (count - len(ids)))).fetchall())
    return found
