"""A scan: conversations in order of creation, read in stretches, as far ahead as nobody changes anything."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Record
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import tells_damage
from jaf_memory_sqlite.operations.queries import Statement, active, briefly, filters, joined
from jaf_memory_sqlite.operations.reads import INLINE_BYTES, odd_text, snapshot, text_as, with_joined
from jaf_memory_sqlite.rows import BODIES, SQL, kept, micros, moment, weight

FEWEST, STRETCH = 8, 100
"""Conversations that a scan reads ahead where others have just written, and at most."""

ROOM = 1 << 20
"""Bytes of messages that a stretch may hold."""

INLINE_STRETCH = 32
"""Conversations that are read ahead in an event loop's own thread, in a quarter of a millisecond."""

CREATED = 5
"""Where `created_at` stands in a row of `columns`."""

STALE = 0.01
"""Seconds after which what was read ahead is read again: it may have expired."""

Standing = tuple[int, int, int]
"""What tells whether the file changed: commits of this writer's; a connection, and its count of others' commits."""


Row = tuple[Any, ...]


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


class Stretch(NamedTuple):
    """What a scan has read ahead.

    Attributes:
        found: keys, each with a row and its messages; without one it is read when it is its turn.
        ended: whether nothing comes behind it.
        standing: of the file, before it was read; `None` where nobody could tell.
        read_at: when it was read.
    """

    found: list[tuple[Key, Row | None]]
    ended: bool
    standing: Standing | None
    read_at: float

    def is_fresh(self, standing: Standing | None) -> bool:
        """Whether it stands as it was read."""
        return standing is not None and standing == self.standing and time.monotonic() - self.read_at < STALE

    @property
    def last(self) -> Key:
        """The key behind which the next stretch begins.

        Raises:
            MemoryStorageError: nothing of the whole stretch can be compared.
        """
        comparable = [key for key, _ in self.found if key.created_at is not None and key.conversation_id is not None]
        if not comparable:
            raise codec.damaged()
        return comparable[-1]


def start(query: MemoryQuery) -> Key | None:
    """The key behind which a scan begins."""
    cursor = rules.creation_cursor(query)
    return None if cursor is None else Key(micros(cursor[0]), cursor[1])


def standing(db: sqlite3.Connection, commits: int) -> Standing:
    """How the file stands; `PRAGMA data_version` counts what every other connection has committed, of any process."""
    return commits, id(db), db.execute("PRAGMA data_version").fetchone()[0]


def stretch(
    db: sqlite3.Connection,
    query: MemoryQuery,
    above: Key | None,
    most: int,
    stood: Standing | None,
    *,
    short: bool = False,
) -> Stretch:
    """The next conversations of a scan.

    Args:
        db: the connection.
        query: which ones.
        above: the key that they stand behind.
        most: so many are read ahead; with 0 there are only keys.
        stood: the standing of the file, taken before.
        short: whether it is read in an event loop's own thread.
    """
    read_at = time.monotonic()
    if most:
        try:
            return Stretch(*_rows(db, query, above, min(most, INLINE_STRETCH) if short else most), stood, read_at)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # One by one, so that what is damaged is one conversation among others.
            if not tells_damage(error):
                raise
    keys = _keys(db, query, above, STRETCH)
    return Stretch([(key, None) for key in keys], len(keys) < STRETCH, stood, read_at)


def short_stretch(db: sqlite3.Connection, ahead: Callable[..., Stretch]) -> Stretch:
    """The same in an event loop's own thread.

    Raises:
        NeedsThreadError: it takes long.
    """
    return briefly(db, partial(ahead, short=True))


def next_length(most: int, fresh: int) -> int:
    """How many to read ahead, when so many of the last were passed on as they were read."""
    if not most:
        return FEWEST
    # Where others write all the time, what was read ahead is read again: better not at all for a while.
    return min(STRETCH, 2 * fresh) if 2 * fresh >= FEWEST else 0


def _rows(
    db: sqlite3.Connection, query: MemoryQuery, above: Key | None, most: int
) -> tuple[list[tuple[Key, Row | None]], bool]:
    select, values = (SQL["whole"], [INLINE_BYTES]) if query.include_messages else (SQL["headers"], [])
    text, filtered = in_order_of_creation(query, above, most, select)
    found: list[tuple[Key, Row | None]] = []
    room = ROOM
    with snapshot(db), closing(db.execute(text, [*values, *filtered])) as rows:
        for row in rows:
            found.append((Key(row[CREATED], row[1]), row))
            room -= weight(row)
            if room < 0:
                return found, False
    return found, len(found) < most


def _keys(db: sqlite3.Connection, query: MemoryQuery, above: Key | None, most: int) -> list[Key]:
    # Text that is no UTF-8 would end the whole stretch, too.
    with text_as(db, odd_text):
        rows = db.execute(*in_order_of_creation(query, above, most)).fetchall()
    migrations.check(db)
    return [Key(*row) for row in rows]


def in_order_of_creation(query: MemoryQuery, above: Key | None, limit: int, select: str = SQL["keys"]) -> Statement:
    """Conversations, expired ones too, oldest `created_at` first."""
    where = [*filters(query), *active(query)]
    if above is not None:
        where.append((f"(created_at, conversation_id) > (?, {above.place})", [above.created_at, above.bound]))
    text, values = joined(select, where)
    return f"{text} ORDER BY created_at, conversation_id LIMIT ?", [*values, limit]


def read(row: Row, *, with_messages: bool) -> Record | None:
    """The record of a row that was read ahead; `None` for one that has to be read by itself, since it is unusual."""
    try:
        found = kept(row)
    except MemoryStorageError:
        return None  # by itself it tells so
    return with_joined(found, row[BODIES]) if with_messages else found.record
