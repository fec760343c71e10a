"""Moving in what jaf-py's own provider stored: one JSON string a conversation, under the same prefix."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jaf_memory_core import codec, validation
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryStorageError
from jaf_memory_core.maintenance import Adopted
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.records import Record
from jaf_memory_core.transfer.jsonlines import derived_id
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.indexes import ClusterIndexes, Indexes
from jaf_memory_redis.layout import Keys, server_time
from jaf_memory_redis.operations.reads import Reader
from jaf_memory_redis.operations.writes import TRIES, Writer, decided
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, call, command
from jaf_memory_redis.settings import RedisConfig

PAGES = 50
"""Pages of keys that are looked through at the start for what was never moved in."""

ABREAST = 16
"""Strings that are read together."""

CLEAR = 60.0
"""Seconds for which it holds that nothing of jaf-py's was found: to look walks over all keys of the server."""

GONE = -2
"""What `PTTL` answers for a key that is not there."""


class _Older(msgspec.Struct, frozen=True):
    """One of jaf-py's conversations as it stands."""

    key: bytes
    text: bytes
    left: int
    """Milliseconds until it expires; below 0 for never."""
    now: datetime


class Adoption:
    """One run of `adopt`.

    Args:
        config: limits for what is moved in.
        writer: runs the script that puts a conversation.
        topology: the way to the servers.
        keys: names of keys.
        remove: whether a string is removed once its conversation is verified.
    """

    def __init__(self, config: RedisConfig, writer: Writer, topology: Topology, keys: Keys, *, remove: bool) -> None:
        # Nothing is cut away while moving.
        self._config = config.model_copy(update={"max_messages": None})
        self._writer = writer
        self._topology = topology
        self._keys = keys
        self._remove = remove
        self._indexes = Indexes(keys, topology) if topology.single else ClusterIndexes(keys, topology)
        self._reader = Reader(keys, topology, lambda _id, _owner: None)

    async def run(self) -> AsyncIterator[Adopted]:
        """A step for each conversation, between two notes."""
        total = 0
        async for names in self._strings():
            total += len(names)
        yield Adopted("note", text=f"{total} strings stand under the prefix, as jaf-py's own provider wrote them")
        left = 0
        async for names in self._strings():
            for name in names:
                step = await self._step(name)
                if step is None:  # it expired meanwhile
                    continue
                left += step.outcome in {"moved", "held"} and not self._remove
                yield msgspec.structs.replace(step, total=total)
        if left:
            yield Adopted(
                "note",
                text=f"the older strings of {left} conversations are still there; run it again with --remove to drop "
                "them, once no jaf-py of before uses them",
            )

    def _strings(self) -> AsyncIterator[list[bytes]]:
        return strings_under(self._topology, self._keys)

    async def _step(self, name: bytes) -> Adopted | None:
        clock, text, left = await self._topology.run_all(
            [Command(name, ("TIME",)), command("GET", name), command("PTTL", name)]
        )
        if text is None or left == GONE:
            return None
        older = _Older(name, text, left, server_time(clock))
        shown = name[len(self._keys.prefix) :].decode("utf-8", "replace")
        try:
            record = self._read(older, shown)
        except MemoryInvalidInputError as error:
            return Adopted("refused", shown, str(error))
        outcome = await self._move(record)
        if outcome == "refused":
            return Adopted("refused", shown, "another conversation of that id, or an older state of it, stands here")
        if self._remove:
            # Only if it still is what was read: a jaf-py that is running may have written again.
            await self._topology.run_all([call(scripts.FORGET, (name,), text)])
        return Adopted("held" if outcome == "held" else "moved", record.conversation_id)

    async def _move(self, record: Record) -> str:
        for _ in range(TRIES):
            standing = await self._reader.read(record.conversation_id)
            if standing is not None:
                # The incarnation is made of the content: equal means that an earlier run has moved this very state.
                return "held" if standing.incarnation == record.incarnation else "refused"
            request = {**layout.request_of(record), "adopting": True}
            times = request["created"], request["active"]
            token = await self._indexes.announce(record.conversation_id, record.user_id, *times)
            keys: tuple[bytes, ...] = self._keys.conversation(record.conversation_id)
            if self._topology.single:
                keys = self._keys.single(record.conversation_id, record.user_id)
            messages = layout.messages_of(record.messages, map(codec.encode, record.messages))
            reply = await self._writer.send(scripts.PUT, keys, request, messages)
            if reply[0] == b"ok":
                await self._indexes.settle(record.conversation_id, reply, token)
                moved = await self._reader.read(record.conversation_id)
                return "moved" if moved is not None and digest_of(moved) == digest_of(record) else "refused"
            # Left over is that somebody has made it since; everything else is raised.
            decided(record.conversation_id, reply)
        raise MemoryStorageError("the conversation never stood still", operation="adopt", retryable=True)

    def _read(self, older: _Older, shown: str) -> Record:
        found = _parsed(older.text)
        if found.get("conversation_id") != shown:
            raise MemoryInvalidInputError("its key names another conversation than its content")
        conversation_id = validation.checked_id(shown, "conversation_id")
        labels = validation.labels(found.get("metadata") or {}, found.get("user_id"), self._config, Chain(()))
        messages = _messages(conversation_id, found["messages"])
        batch = validation.batch(messages, self._config, Chain(()))
        content = codec.canonical([labels.user_id, [message.dict() for message in batch.messages]])
        created = _moment(labels.metadata.get("created_at")) or older.now
        expires = older.now + timedelta(milliseconds=older.left) if older.left >= 0 else None
        return Record(
            conversation_id=conversation_id,
            # Made of the content, so that a repeated run knows what it has moved, and what has changed since.
            incarnation=hashlib.sha256(content.encode()).hexdigest()[:16],
            version=1,
            created_at=created,
            updated_at=max(created, _moment(labels.metadata.get("updated_at")) or created),
            user_id=labels.user_id,
            messages=batch.messages,
            metadata=labels.metadata,
            expires_at=expires,
            ttl=self._config.ttl if expires else None,
            message_count=len(batch.messages),
        )


def strings_under(topology: Topology, keys: Keys) -> AsyncIterator[list[bytes]]:
    """Pages of the strings under the prefix: a key of ours is never one, so that every string is somebody else's."""
    pattern = b"".join(b"\\" + bytes([one]) if one in b"*?[]\\^-" else bytes([one]) for one in keys.prefix)
    return topology.names(pattern + b"*", "string")


class Remainder:
    """What of jaf-py's stands under the prefix, and was never moved in.

    Args:
        topology: the way to the servers.
        keys: names of keys.
    """

    def __init__(self, topology: Topology, keys: Keys) -> None:
        self._topology = topology
        self._keys = keys
        self._clear_until = 0.0

    async def any(self) -> bool:
        """Whether there is any, as far as the first pages show: this is asked at each start."""
        self._clear_until, seen = 0.0, 0
        async for names in strings_under(self._topology, self._keys):
            async for _ in self._unmoved(names):
                return True
            seen += 1
            if seen == PAGES:
                return False
        self._clear_until = time.monotonic() + CLEAR
        return False

    async def refuse(self, user_id: str) -> None:
        """Refuse to erase a user who has conversations there: they would stay.

        Raises:
            MemoryConflictError: with how many.
        """
        if time.monotonic() < self._clear_until:
            return
        count, others = 0, False
        async for names in strings_under(self._topology, self._keys):
            async for text in self._unmoved(names):
                count += _owner_of(text) == user_id
                others = True
        if count:
            raise MemoryConflictError(
                f"jaf-py's own provider stored {count} conversations of this user under the prefix, and they were "
                "never moved in; run `jaf-memory adopt`, and erase then"
            )
        if not others:
            self._clear_until = time.monotonic() + CLEAR

    async def _unmoved(self, names: list[bytes]) -> AsyncIterator[bytes]:
        """The texts of those that are jaf-py's, where we have no conversation of that id."""
        for start in range(0, len(names), ABREAST):
            some = names[start : start + ABREAST]
            ids = [name[len(self._keys.prefix) :].decode("utf-8", "replace") for name in some]
            headers = [command("EXISTS", self._keys.conversation(one)[0]) for one in ids]
            ours = await self._topology.run_all(headers)
            left = [name for name, stands in zip(some, ours, strict=True) if not stands]
            for text in await self._topology.run_all([command("GET", name) for name in left]):
                if text is not None and b'"conversation_id"' in text[:4096]:
                    yield text


def _owner_of(text: bytes) -> str | None:
    try:
        found = _parsed(text)
    except MemoryInvalidInputError:
        return None
    labels = found.get("metadata")
    owner = found.get("user_id") or (labels.get("user_id") if isinstance(labels, dict) else None)
    return owner if isinstance(owner, str) else None


def digest_of(record: Record) -> str:
    """The digest of a record's content."""
    return codec.digest(
        ConversationMemory(record.conversation_id, record.user_id, record.messages, dict(record.metadata))
    )


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("messages"), list):
        return found
    raise MemoryInvalidInputError("it holds no conversation in the form of jaf-py")


def _messages(conversation_id: str, found: list[Any]) -> list[Message]:
    messages: list[Message] = []
    used: set[str] = set()
    for position, fields in enumerate(found):
        if not isinstance(fields, Mapping):
            raise MemoryInvalidInputError(f"message {position} is no object")
        given = fields.get("message_id")
        # jaf-py stored messages without an id, and some twice: nothing is lost, each gets an id of its own.
        key = given if isinstance(given, str) and given not in used else derived_id(conversation_id, position)
        used.add(key)
        messages.append(Message(**{**fields, "message_id": key}))
    return messages


def _moment(text: Any) -> datetime | None:
    """A time that jaf-py wrote: naive, by the clock of the machine that wrote it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None
