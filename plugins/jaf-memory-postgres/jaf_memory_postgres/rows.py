"""Rows of the storage tables ⇄ records of the core."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Record, Write
from jaf_memory_core.values import EMPTY, FrozenDict, freeze

_stored = msgspec.json.Decoder(dict[str, list[str]])
_any = msgspec.json.Decoder()

MOST = (1 << 62) - 1
"""Stands for "all" where the server counts in 64 bits."""


def header(row: Sequence[Any], messages: tuple[Message, ...] = ()) -> Record:
    """A record from a row that begins with the statement `columns`.

    Raises:
        MemoryStorageError: its metadata are damaged; the text names the conversation.
    """
    try:
        return _header(row, messages)
    except codec.UNREADABLE:
        pass
    # Not within the handler: the decoder's error may quote what stands there, and would go along.
    raise codec.damaged(row[0])


def whole(row: Sequence[Any], bodies: Sequence[str]) -> Record:
    """A record with its messages.

    Raises:
        MemoryStorageError: something of it is damaged, or its messages are not as many as it counts.
    """
    record = header(row, codec.decode_messages(bodies, row[0]))
    if len(record.messages) != record.message_count:
        raise codec.damaged(row[0])
    return record


def places(listed: str | None) -> tuple[int, ...]:
    """Positions, of a text with commas between them."""
    return tuple(map(int, listed.split(","))) if listed else ()


def placed(record: Record, listed: str | None) -> Record:
    """A record with the positions of its messages, where they do not follow each other.

    Raises:
        MemoryStorageError: they do not lie where the header says.
    """
    if not record.gaps:
        return record
    positions = places(listed)
    sound = len(positions) == record.message_count and positions[0] == record.first_position
    if not sound or positions[-1] >= record.end:
        raise codec.damaged(record.conversation_id)
    return replace(record, positions=positions)


def _header(row: Sequence[Any], messages: tuple[Message, ...]) -> Record:
    conversation_id, incarnation, version, created, active, owner, stored_metadata = row[:7]
    expires, ttl, first, trimmed, count, amended_at, gaps = row[7:14]
    for time in (created, active, expires, amended_at):
        # `infinity` comes as a naive datetime; what a hand wrote must not be reckoned with.
        if time is not None and time.tzinfo is None:
            raise ValueError("no moment")
    if not (ttl is None or 0 < ttl < math.inf):
        raise ValueError("no ttl")
    # Joined by their bits: that is negative, or too large, if one of them is.
    if not 0 <= version | first | count | gaps <= MOST or owner == "" or (gaps and not count):
        raise ValueError("no count, or no owner")
    return Record(
        conversation_id,
        incarnation,
        version,
        created,
        active if amended_at is None else max(active, amended_at),
        owner,
        messages,
        metadata(stored_metadata),
        expires,
        ttl,
        first,
        trimmed,
        count,
        active,
        gaps,
    )


def finite(write: Write) -> Write:
    """A write whose times the server keeps as moments.

    The driver sends the first and the last that Python has as `infinity`, which is none; programs in other languages
    write them for "not set" and "never". Their neighbours stand for them.
    """
    if write.origin is None:
        return write
    given = msgspec.structs.asdict(write.origin)
    infinite = {name: _NEIGHBOURS[value] for name, value in given.items() if value in _NEIGHBOURS}
    return write if not infinite else replace(write, origin=replace(write.origin, **infinite))


_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_NEIGHBOURS: Mapping[Any, datetime] = {_FIRST: _FIRST + datetime.resolution, _LAST: _LAST - datetime.resolution}


def amended(active: datetime, updated: datetime) -> datetime | None:
    """The time of the last change as a row keeps it beside that of the last activity: where it is later."""
    return updated if updated > active else None


# Metadata: key → [canonical JSON], or [canonical JSON, JSON as it was given]. All of it is escaped text, and so within
# what jsonb keeps; the canonical form makes `@>` compare as `rules.holds` does.


def stored(patch: Mapping[str, Any]) -> str:
    """Metadata as the column `metadata` holds it, or its part for `||`."""
    return json.dumps({json.dumps(key)[1:-1]: _forms(value) for key, value in patch.items()})


def _forms(value: Any) -> list[str]:
    canonical = codec.canonical(value)
    given = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return [canonical] if given == canonical else [canonical, given]


def wanted(values: Mapping[str, Any]) -> str:
    """What `metadata @>` has to be asked for so that these values stand there exactly."""
    return json.dumps({json.dumps(key)[1:-1]: [codec.canonical(value)] for key, value in values.items()})


def metadata(text: str) -> FrozenDict:
    """Metadata from the column `metadata`."""
    if text == "{}":
        return EMPTY
    return FrozenDict({_key(key): _value(forms[-1]) for key, forms in _stored.decode(text).items()})


def _key(escaped: str) -> str:
    key: str = json.loads(f'"{escaped}"') if "\\" in escaped else escaped
    return key


def _value(given: str) -> Any:
    try:
        value = _any.decode(given)
    except msgspec.DecodeError:  # lone surrogates
        value = json.loads(given)
    return freeze(value) if isinstance(value, dict | list) else value
