"""Names of keys, and moments as Redis keeps them."""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from functools import lru_cache

BEGINNING = datetime.min.replace(tzinfo=UTC)
EPOCH = datetime.fromtimestamp(0, UTC)
MICROSECOND = timedelta(microseconds=1)
DIGITS = 18
"""Digits of a moment: microseconds since the year 1, so that all moments are sorted as text, and exact."""

SEPARATOR = b"\0"
"""Between the parts of an expiry entry; no id holds a NUL."""


def moment(time: datetime) -> str:
    """A UTC time as 18 digits."""
    return f"{(time - BEGINNING) // MICROSECOND:0{DIGITS}d}"


def time_of(digits: bytes) -> datetime:
    """The UTC time that 18 digits stand for."""
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


def creation_entry(created: str, conversation_id: str) -> bytes:
    """The entry of the index by creation."""
    return created.encode() + conversation_id.encode()


def split_creation(entry: bytes) -> tuple[str, str]:
    """The moment and the id in an entry of the index by creation."""
    return entry[:DIGITS].decode(), entry[DIGITS:].decode()


def expiry_entry(conversation_id: str, owner: str | None, created: str) -> bytes:
    """The entry of the index by expiry: all that is needed to clear up after a conversation that is gone already."""
    return SEPARATOR.join((conversation_id.encode(), (owner or "").encode(), created.encode()))


def split_expiry(entry: bytes) -> tuple[str, str | None, str]:
    """Id, owner and moment of creation in an entry of the index by expiry."""
    conversation_id, owner, created = entry.decode().split("\0")
    return conversation_id, owner or None, created


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
        return b"%b{%b}:" % (self.prefix, tag(conversation_id))

    def conversation(self, conversation_id: str) -> tuple[bytes, bytes, bytes]:
        """Header, bodies and ids of one conversation."""
        start = self.start(conversation_id)
        return start + b"h", start + b"m", start + b"i"

    def owned(self, user_id: str) -> tuple[bytes, bytes]:
        """A user's index by activity, and by creation."""
        start = b"%b{u-%b}:" % (self.prefix, tag(user_id))
        return start + b"a", start + b"c"

    def index(self, user_id: str | None) -> tuple[bytes, bytes]:
        """The narrowest index: a user's, or the global one."""
        return self.everything if user_id is None else self.owned(user_id)

    def older(self, conversation_id: str) -> bytes:
        """Where jaf-py's own provider kept the conversation, as one JSON string."""
        return self.prefix + conversation_id.encode()

    def single(self, conversation_id: str, owner: str | None) -> tuple[bytes, ...]:
        """All keys that a write on a single server may touch."""
        whole = (*self.conversation(conversation_id), self.older(conversation_id), *self.everything, self.expiries)
        return whole if owner is None else (*whole, *self.owned(owner))


class Owners:
    """Remembers who owns the conversations used last, so that a script gets the right keys at once.

    Only a guess: the script checks it, and names the owner where it is wrong.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[str, str | None] = OrderedDict()

    def guess(self, conversation_id: str) -> str | None:
        """The owner, if known and any."""
        return self._known.get(conversation_id)

    def learn(self, conversation_id: str, owner: str | None) -> None:
        """Remember an owner."""
        if owner is None:
            self._known.pop(conversation_id, None)
            return
        self._known[conversation_id] = owner
        self._known.move_to_end(conversation_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
