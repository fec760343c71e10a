"""What stands where: names of keys, moments, and a conversation's header.

A header is one hash, with a field for each top-level key of the metadata (`m:` and the key as JSON).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, TypeVar

from jaf_memory_core import codec
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Record
from jaf_memory_core.values import EMPTY, FrozenDict, identifier
from jaf_memory_redis.errors import damaged

T = TypeVar("T")

BEGINNING = datetime.min.replace(tzinfo=UTC)
EPOCH = datetime.fromtimestamp(0, UTC)
MICROSECOND = timedelta(microseconds=1)
DIGITS = 18
"""Digits of a moment: microseconds since the year 1, so that all moments are sorted as text, and exact."""

END = b"(:"
"""Behind every moment in an index by creation; in that of all there stands one entry for each owner behind it."""

SEPARATOR = b"\0"
"""Between the parts of an expiry entry; no id holds a NUL."""


def moment(time: datetime) -> str:
    """A UTC time as 18 digits."""
    return f"{(time - BEGINNING) // MICROSECOND:0{DIGITS}d}"


def time_of(digits: bytes) -> datetime:
    """The UTC time that 18 digits stand for.

    Raises:
        ValueError, OverflowError: they are no such digits.
    """
    if len(digits) != DIGITS or not digits.isdigit():
        raise ValueError("no moment")
    return BEGINNING + timedelta(microseconds=int(digits))


def score(time: datetime) -> int:
    """A UTC time as the score of an index: microseconds since 1970, exact as a double until 2255."""
    return (time - EPOCH) // MICROSECOND


def server_time(reply: list[bytes]) -> datetime:
    """What `TIME` answered."""
    return EPOCH + timedelta(seconds=int(reply[0]), microseconds=int(reply[1]))


@lru_cache(maxsize=4096)
def tag(name: str) -> bytes:
    """What stands between the braces of a key: a digest (192 bits), which no id can break, whatever it holds."""
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:24])


def _start(prefix: bytes, conversation_id: str) -> bytes:
    return b"%b{%b}:" % (prefix, tag(conversation_id))


@lru_cache(maxsize=4096)
def _names(prefix: bytes, conversation_id: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Header, bodies and ids of a conversation, and jaf-py's string."""
    start = _start(prefix, conversation_id)
    return start + b"h", start + b"m", start + b"i", prefix + conversation_id.encode()


def creation_entry(created: str, conversation_id: str) -> bytes:
    """The entry of the index by creation."""
    return created.encode() + conversation_id.encode()


def owner_entry(user_id: str) -> bytes:
    """What says, in the index of all by creation, that a user has conversations, whatever becomes of the user's own."""
    return b"o:" + user_id.encode()


def split_creation(entry: bytes) -> tuple[str, str] | None:
    """The moment and the id in an entry of the index by creation; `None` if it is none of ours."""
    try:
        time_of(entry[:DIGITS])
        return entry[:DIGITS].decode(), identifier(entry[DIGITS:].decode())
    except (ValueError, OverflowError):
        return None


def readable(entry: bytes) -> str | None:
    """The id in an entry of an index by activity; `None` if it is none of ours."""
    try:
        return identifier(entry.decode())
    except ValueError:
        return None


def expiry_entry(conversation_id: str, owner: str | None, created: str) -> bytes:
    """The entry of the index by expiry: all that is needed to clear up after a conversation that is gone already."""
    return SEPARATOR.join((conversation_id.encode(), (owner or "").encode(), created.encode()))


def split_expiry(entry: bytes) -> tuple[str, str | None, str] | None:
    """Id, owner and moment of creation in an entry of the index by expiry; `None` if it is none of ours."""
    try:
        conversation_id, owner, created = entry.decode().split("\0")
        time_of(created.encode())
        return identifier(conversation_id), identifier(owner) if owner else None, created
    except (ValueError, OverflowError):
        return None


class Keys:
    """The names of all keys under one prefix.

    A conversation has three, with one hash tag: its header (with the metadata), its messages' bodies, and their ids
    by position. Indexes have another tag: the global ones by activity, by creation and by expiry, a user's by
    activity and by creation.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self.everything = (self._name(b"all", b"a"), self._name(b"all", b"c"))
        self.expiries = self._name(b"all", b"x")

    def _name(self, within: bytes, what: bytes) -> bytes:
        return b"%b{%b}:%b" % (self.prefix, within, what)

    def start(self, conversation_id: str) -> bytes:
        """What the names of one conversation's keys begin with; of one length for all."""
        return _start(self.prefix, conversation_id)

    def conversation(self, conversation_id: str) -> tuple[bytes, bytes, bytes]:
        """Header, bodies and ids of one conversation."""
        return _names(self.prefix, conversation_id)[:3]

    def aside(self, conversation_id: str, token: str) -> tuple[bytes, bytes]:
        """Where bodies and ids of a large change are laid aside, for one writer."""
        start = self.start(conversation_id)
        return b"%bm:%b" % (start, token.encode()), b"%bi:%b" % (start, token.encode())

    def owned(self, user_id: str) -> tuple[bytes, bytes]:
        """A user's index by activity, and by creation."""
        start = b"%b{u-%b}:" % (self.prefix, tag(user_id))
        return start + b"a", start + b"c"

    def mark(self, conversation_id: str, owner: str | None) -> bytes:
        """On a Cluster: that a writer is about to make the conversation, beside the indexes by owner or of all."""
        within = b"all" if owner is None else b"u-" + tag(owner)
        return self._name(within, b"w:" + tag(conversation_id))

    def index(self, user_id: str | None) -> tuple[bytes, bytes]:
        """The narrowest index: a user's, or the global one."""
        return self.everything if user_id is None else self.owned(user_id)

    def older(self, conversation_id: str) -> bytes:
        """Where jaf-py's own provider kept the conversation, as one JSON string."""
        return _names(self.prefix, conversation_id)[3]

    def single(self, conversation_id: str, owner: str | None) -> tuple[bytes, ...]:
        """All keys that a write on a single server may touch."""
        whole = (*_names(self.prefix, conversation_id), *self.everything, self.expiries)
        return whole if owner is None else (*whole, *self.owned(owner))


class Known(Generic[T]):
    """Remembers something of the conversations used last. Only a guess: others change them, too."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[str, T] = OrderedDict()

    def guess(self, conversation_id: str) -> T | None:
        """What is known of it, if anything."""
        return self._known.get(conversation_id)

    def learn(self, conversation_id: str, what: T | None) -> None:
        """Remember that; `None` is nothing to remember."""
        if what is None:
            self._known.pop(conversation_id, None)
            return
        self._known[conversation_id] = what
        self._known.move_to_end(conversation_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


Owners = Known[str]
"""Who owns them, so that a script gets the right keys at once; the script checks it, and names the owner."""


PLAIN = b"%d" % codec.FORMAT
"""The format of a header whose conversation has none."""

WITH_GAPS = b"%d" % codec.WITH_GAPS
"""The format of a header whose conversation has positions without a message; its field `g` says how many."""

METADATA = b"m:"
"""What the fields of metadata begin with."""


def pairs(metadata: Mapping[str, Any]) -> list[str]:
    """Metadata as fields and values in turn, both JSON: keys may hold what is no UTF-8."""
    flat: list[str] = []
    for key, value in metadata.items():
        flat += (field_of(key), codec.encode(value).decode())
    return flat


def field_of(key: str) -> str:
    """The field that holds a key of the metadata."""
    return METADATA.decode() + codec.encode(key).decode()


def messages_of(messages: Iterable[Message], bodies: Iterable[bytes]) -> list[str | bytes]:
    """Messages as the scripts take them: all ids, and then all bodies."""
    return [*[message.message_id for message in messages], *bodies]


def check_format(found: bytes | None, conversation_id: str) -> None:
    """Refuse a header that a newer version wrote.

    Raises:
        MemoryStorageError: with both versions; or it is damaged.
    """
    number = int(found) if found is not None and found.isdigit() and len(found) < DIGITS else 0
    codec.check_format(number or None, conversation_id)


def record_of(conversation_id: str, flat: Sequence[bytes], bodies: Sequence[bytes] | None = None) -> Record | None:
    """The record that `HGETALL` shows, `None` if there is none.

    Raises:
        MemoryStorageError: a newer version wrote it, it is damaged, or the bodies are not as many as it counts.
    """
    if not flat:
        return None
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    check_format(fields.get(b"f"), conversation_id)
    count = reading(conversation_id, lambda: counted(fields[b"n"]))
    if bodies is not None and len(bodies) != count:
        raise damaged(conversation_id, count, len(bodies))
    messages: tuple[Message, ...] = codec.decode_messages(bodies, conversation_id) if bodies else ()
    return reading(conversation_id, lambda: _record_of(conversation_id, fields, count, messages))


def gaps_of(format_found: bytes | None, gaps: bytes | None) -> int:
    """How many positions of a conversation have no message.

    Raises:
        ValueError: a header of the form with gaps does not say.
    """
    if format_found != WITH_GAPS:
        return 0
    found = counted(gaps)
    if not found:
        raise ValueError("no gaps")
    return found


def _record_of(
    conversation_id: str, fields: Mapping[bytes, bytes], count: int, messages: tuple[Message, ...]
) -> Record:
    owner, expires, ttl = fields.get(b"o"), fields.get(b"x"), fields.get(b"t")
    counted(fields[b"s"])
    if fields[b"id"] != conversation_id.encode() or fields[b"k"] not in {b"0", b"1"}:
        raise ValueError("another conversation's, or nobody's")
    active = time_of(fields[b"u"])
    return Record(
        conversation_id=conversation_id,
        incarnation=fields[b"inc"].decode(),
        version=counted(fields[b"v"]),
        created_at=time_of(fields[b"c"]),
        active_at=active,
        updated_at=max(active, time_of(fields.get(b"a", fields[b"u"]))),
        user_id=owner_of(owner),
        messages=messages,
        metadata=metadata_of(conversation_id, fields.items()),
        expires_at=None if expires is None else time_of(expires),
        ttl=None if ttl is None else _ttl_of(ttl),
        first_position=counted(fields[b"p"]),
        trimmed=fields[b"k"] == b"1",
        message_count=count,
        gaps=gaps_of(fields.get(b"f"), fields.get(b"g")),
    )


def reading(conversation_id: str, read: Callable[[], T]) -> T:
    """What a reading of stored parts gives.

    Raises:
        MemoryStorageError: they cannot be read; what was caught, whose text may repeat them, is not its context.
    """
    try:
        return read()
    except (KeyError, ValueError, TypeError, OverflowError):
        pass
    raise codec.damaged(conversation_id)


def parts_of(
    owner: bytes | None, first: bytes | None, count: bytes | None, size: bytes | None, expires: bytes | None
) -> tuple[str | None, int, int, int, datetime | None]:
    """What a page needs of a header.

    Raises:
        ValueError: one of its fields cannot be read.
    """
    return (
        None if owner is None else owner_of(owner),
        counted(first),
        counted(count),
        counted(size),
        None if expires is None else time_of(expires),
    )


def counted(digits: bytes | None) -> int:
    """A count or a position.

    Raises:
        ValueError: it is none.
    """
    if digits is None or not digits.isdigit() or len(digits) >= DIGITS:
        raise ValueError("no count")
    return int(digits)


def counts(conversation_id: str, numbers: Iterable[bytes | None]) -> list[int]:
    """Counts and positions of a header.

    Raises:
        MemoryStorageError: one is none.
    """
    return reading(conversation_id, lambda: [counted(one) for one in numbers])


def owner_of(stored: bytes | None) -> str | None:
    """The owner that a header names.

    Raises:
        ValueError: it is no id.
    """
    return None if stored is None else identifier(stored.decode())


def _ttl_of(stored: bytes) -> float:
    ttl = float(stored)
    if not 0 < ttl < math.inf:
        raise ValueError("no ttl")
    return ttl


def stamp_of(flat: Sequence[bytes]) -> list[bytes | None]:
    """Incarnation and version in what `HGETALL` showed."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return [fields.get(b"inc"), fields.get(b"v")]


def metadata_of(conversation_id: str, fields: Iterable[tuple[bytes, bytes]]) -> FrozenDict:
    """The metadata among the fields of a header.

    Raises:
        MemoryStorageError: they are damaged.
    """
    members = [field[2:] + b":" + value for field, value in fields if field.startswith(METADATA)]
    if not members:
        return EMPTY
    metadata = codec.decode_object(b"{" + b",".join(members) + b"}", conversation_id)
    if len(metadata) != len(members):  # a damaged member that closes itself, and opens another
        raise codec.damaged(conversation_id)
    return metadata


def amended(active: datetime, updated: datetime) -> str | None:
    """The moment of the last change as a header keeps it beside that of the last activity: where it is later."""
    return moment(updated) if updated > active else None


def request_of(record: Record) -> dict[str, Any]:
    """What `put.lua` takes of a record, its messages aside."""
    return {
        "id": record.conversation_id,
        "incarnation": record.incarnation,
        "version": record.version,
        "created": moment(record.created_at),
        "active": moment(record.active_at),
        "amended": amended(record.active_at, record.updated_at),
        "expires": moment(record.expires_at) if record.expires_at else None,
        "ttl": repr(record.ttl) if record.ttl is not None else None,
        "owner": record.user_id,
        "first": record.first_position,
        "trimmed": record.trimmed,
        "gaps": record.gaps or None,
        "positions": record.positions or None,
        "metadata": pairs(record.metadata),
    }
