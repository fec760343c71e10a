"""The statements, and what their rows hold: a row of `conversation` and a `Record`, one made from the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from jaf_memory_core import codec
from jaf_memory_core.records import Record
from jaf_memory_core.statements import load
from jaf_memory_core.values import EMPTY, FrozenDict

SQL = load(__package__, "statements.sql")
"""Every statement, by its name."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
PLAIN = 1 << 51
"""Microseconds up to 2041, which a float of seconds tells apart by four times what it needs."""

POSITIONS = 32
"""Bits of a message's row number that hold its position; those above hold the conversation's number."""

BEYOND = 1 << POSITIONS
"""No conversation has as many positions, and no message as many bytes."""


MOST = 1 << 62
"""No number of ours is as large, and what is added to one that is below still fits into 64 bits."""

BUSY = -(1 << 60)
"""What stands before the time from which on a conversation is busy: far below any time at which one rests."""

RESTING = BUSY >> 1
"""Below this it is busy."""

UPDATED, LISTED, METADATA, BODIES = 6, 14, 17, 18
"""Where `updated_at` and `listed_at` stand in a row of `columns`, and metadata and bodies behind them, if asked for."""

LAG = 60_000_000
"""Microseconds for which a busy conversation is left where it stands. Files hold it: see migrations/0004.sql."""

LONGEST = 1 << 33
"""Seconds above any ttl, which is a century at most."""

MOMENT = (int, type(None))
"""What an expiry is."""

SPAN = (float, int)
"""What a ttl is, where there is one."""


class Kept(Struct, frozen=True):
    """A conversation's row: its `Record` (without messages, maybe without metadata), and what only we know.

    Attributes:
        key: the row's number.
        record: the header.
        size: bytes of all bodies.
        largest: no body has more bytes.
        listed: by which two indexes go: the time of the last activity, or, if `busy`, since when it has been busy.
    """

    key: int
    record: Record
    size: int
    largest: int
    listed: int

    def row_of(self, position: int) -> int:
        """Number of the `message` row at a position."""
        return row_of(self.key, position)

    @property
    def end(self) -> int:
        """The position behind the newest message."""
        return self.record.end


def row_of(key: int, position: int) -> int:
    """Number of the `message` row of a conversation at a position."""
    return (key << POSITIONS) + position


def micros(moment: datetime) -> int:
    """Whole microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def busy(micros: int) -> int:
    """Where a conversation stands that has been busy since then."""
    return micros + BUSY


def moment(micros: int) -> datetime:
    """The UTC time of so many microseconds since 1970."""
    # In a fifth less time, where a float tells microseconds apart: lists make three for each row.
    if 0 <= micros < PLAIN:
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    return EPOCH + timedelta(0, 0, micros)


def kept(row: tuple[Any, ...]) -> Kept:
    """Read a row of the statement `header`, with the metadata behind it or without.

    Raises:
        MemoryStorageError: the row is damaged; the text names the conversation.
    """
    try:
        found = _kept(row)
    except codec.UNREADABLE:
        found = None
    if found is not None:
        return found
    raise codec.damaged(name_in(row[1]))


def name_in(value: object) -> str:
    """A conversation's id as an error can show it, whatever stands there."""
    text = value if isinstance(value, str) else repr(value)[:255]
    return text.encode(errors="backslashreplace").decode()


def weight(row: tuple[Any, ...]) -> int:
    """Characters of its metadata, and bytes of its bodies, if it has them; damaged ones may be neither."""
    size = 0
    # A loop, which takes a quarter of what `sum` takes over a generator: lists and scans ask it of each row.
    for value in row[METADATA:]:
        if value.__class__ is str or value.__class__ is bytes:
            size += len(value)
    return size


def _kept(row: tuple[Any, ...]) -> Kept | None:
    """What a row says; `None` unless numbers stand where they must, each within its bounds, and text is text."""
    key, conversation_id, user_id, incarnation, version, created, updated, expires = row[:8]
    ttl, first_position, message_count, trimmed, size, largest, listed, amended, gaps = row[8:17]
    metadata = row[METADATA] if len(row) > METADATA else "{}"
    # Joined by their bits, for every write looks at one such row: that is negative, or too large, if one of them is,
    # and a TypeError if one is no whole number. Moments may be older than 1970; too far away, they are no `datetime`.
    if not (
        0 <= key | version | first_position | message_count | trimmed | size | largest | gaps < MOST
        and -MOST < created | updated | listed < MOST
        and first_position + message_count + gaps < BEYOND
        and (message_count or not gaps)
        and key < BEYOND >> 1
        and type(conversation_id) is str
        and type(incarnation) is str
        and type(metadata) is str
        and (user_id is None or type(user_id) is str)
        and (expires is None or type(expires) is int)
        and (amended is None or type(amended) is int)
        and (ttl is None or (type(ttl) in SPAN and 0 <= ttl < LONGEST))
    ):
        return None
    active = moment(updated)
    record = Record(
        conversation_id,
        incarnation,
        version,
        active if created == updated else moment(created),
        active if amended is None or amended <= updated else moment(amended),
        user_id,
        (),
        read_metadata(metadata, conversation_id),
        None if expires is None else moment(expires),
        ttl,
        first_position,
        trimmed == 1,
        message_count,
        active,
        gaps,
    )
    return Kept(key, record, size, largest, listed)


def columns(record: Record, size: int, largest: int) -> tuple[Any, ...]:
    """Values for the statement `create`."""
    return (
        record.conversation_id,
        record.user_id,
        record.incarnation,
        record.version,
        micros(record.created_at),
        micros(record.active_at),
        micros(record.active_at),  # it rests
        None if record.expires_at is None else micros(record.expires_at),
        record.ttl,
        record.first_position,
        record.message_count,
        int(record.trimmed),
        size,
        largest,
        *labels(record.metadata),
        amended_at(record),
        record.gaps,
    )


def amended_at(record: Record) -> int | None:
    """When the record was changed last, where that is not when its messages were."""
    return micros(record.updated_at) if record.updated_at > record.active_at else None


def read_metadata(text: str, conversation_id: str) -> FrozenDict:
    """Metadata from its column."""
    return EMPTY if text == "{}" else codec.decode_object(text, conversation_id)


def labels(metadata: FrozenDict) -> tuple[str | None, str]:
    """`trace_id` and `metadata`. Equal texts of a trace id are equal JSON values, so that it can be looked up."""
    if not metadata:
        return None, "{}"
    trace = codec.canonical(metadata["trace_id"]) if "trace_id" in metadata else None
    return trace, codec.encode(metadata).decode()


def held(count: int) -> str:
    """Look for so many message ids in a conversation."""
    return SQL["held"].replace("(?)", f"({', '.join('?' * count)})")
