"""A conversation's header: one hash, with a field for each top-level key of the metadata (`m:` and the key as JSON)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaf_memory_core import codec
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Record
from jaf_memory_core.values import EMPTY, FrozenDict
from jaf_memory_redis.keys import moment, time_of

METADATA = b"m:"
"""What the fields of metadata begin with."""


def pairs(metadata: Mapping[str, Any]) -> list[str]:
    """Metadata as fields and values in turn, both JSON: keys may hold what is no UTF-8."""
    flat: list[str] = []
    for key, value in metadata.items():
        flat += (METADATA.decode() + codec.encode(key).decode(), codec.encode(value).decode())
    return flat


def messages_of(messages: Iterable[Message], bodies: Iterable[bytes]) -> list[str | bytes]:
    """Messages as the scripts take them: all ids, and then all bodies."""
    return [*(message.message_id for message in messages), *bodies]


def check_format(found: bytes) -> None:
    """Refuse a header that a newer version wrote.

    Raises:
        MemoryStorageError: with both versions.
    """
    codec.check_format(int(found) if found.isdigit() else found.decode("ascii", "replace"))


def record_of(flat: Sequence[bytes], bodies: Sequence[bytes] | None = None) -> Record | None:
    """The record that `HGETALL` shows, `None` if there is none.

    Raises:
        MemoryStorageError: a newer version wrote it.
    """
    if not flat:
        return None
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    check_format(fields[b"f"])
    owner, expires, ttl = fields.get(b"o"), fields.get(b"x"), fields.get(b"t")
    messages: tuple[Message, ...] = codec.decode_messages(bodies) if bodies else ()
    return Record(
        conversation_id=fields[b"id"].decode(),
        incarnation=fields[b"inc"].decode(),
        version=int(fields[b"v"]),
        created_at=time_of(fields[b"c"]),
        updated_at=time_of(fields[b"u"]),
        user_id=None if owner is None else owner.decode(),
        messages=messages,
        metadata=metadata_of(fields.items()),
        expires_at=None if expires is None else time_of(expires),
        ttl=None if ttl is None else float(ttl),
        first_position=int(fields[b"p"]),
        trimmed=fields[b"k"] == b"1",
        message_count=int(fields[b"n"]),
    )


def stamp_of(flat: Sequence[bytes]) -> list[bytes | None]:
    """Incarnation and version in what `HGETALL` showed."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return [fields.get(b"inc"), fields.get(b"v")]


def metadata_of(fields: Iterable[tuple[bytes, bytes]]) -> FrozenDict:
    """The metadata among the fields of a header."""
    members = [field[2:] + b":" + value for field, value in fields if field.startswith(METADATA)]
    return codec.decode_object(b"{" + b",".join(members) + b"}") if members else EMPTY


def request_of(record: Record) -> dict[str, Any]:
    """What `put.lua` takes of a record, its messages aside."""
    return {
        "id": record.conversation_id,
        "incarnation": record.incarnation,
        "version": record.version,
        "created": moment(record.created_at),
        "updated": moment(record.updated_at),
        "expires": moment(record.expires_at) if record.expires_at else None,
        "ttl": repr(record.ttl) if record.ttl is not None else None,
        "owner": record.user_id,
        "first": record.first_position,
        "trimmed": record.trimmed,
        "metadata": pairs(record.metadata),
    }
