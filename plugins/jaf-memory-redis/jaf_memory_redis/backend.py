"""The Redis backend: conversations in a server's memory, every write one atomic script."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import (
    MemoryConflictError,
    MemoryError,
    MemoryNotFoundError,
    MemoryStorageError,
)
from jaf_memory_core.maintenance import Adopted
from jaf_memory_core.records import (
    Amend,
    Damaged,
    DeleteMessages,
    Fork,
    Page,
    Ping,
    Record,
    Revise,
    Stamp,
    Stats,
    Tail,
    Truncate,
    Usage,
    Write,
)
from jaf_memory_core.results import WriteResult
from jaf_memory_core.steps import in_steps
from jaf_memory_redis import health, layout, scripts
from jaf_memory_redis.errors import DRIVER_ERRORS, ServerError, is_denied, lacking, misplaced, translate
from jaf_memory_redis.indexes import ClusterIndexes, Indexes
from jaf_memory_redis.layout import Keys, Owners
from jaf_memory_redis.operations import writes
from jaf_memory_redis.operations.adoption import Adoption, Remainder
from jaf_memory_redis.operations.bulk import Bulk
from jaf_memory_redis.operations.copies import ATTEMPTS, MANY, Copier, is_large
from jaf_memory_redis.operations.erasure import Eraser
from jaf_memory_redis.operations.queries import Finder
from jaf_memory_redis.operations.reads import Reader
from jaf_memory_redis.operations.writes import TRIES, Writer
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Part
from jaf_memory_redis.settings import RedisConfig

_logger = logging.getLogger("jaf_memory_redis")

UNMOVED = (
    "conversations of jaf-py's own provider stand under the prefix, and are not seen: "
    "`jaf-memory adopt` moves them in, or set another key_prefix"
)
"""What is told at the start, and by health, until they are moved in."""


class RedisBackend(Backend):
    """Conversations in Redis.

    Args:
        config: names, policies and time limits.
        topology: the way to the server or servers.
        arguments: what the connections are made with; for `health_check` alone.
    """

    name: ClassVar[str] = "redis"
    loop_bound: ClassVar[bool] = True
    abreast: ClassVar[int] = 32
    driver_errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS

    def __init__(self, config: RedisConfig, topology: Topology, arguments: Mapping[str, Any]) -> None:
        self.config: RedisConfig = config
        self.topology = topology
        self.keys = Keys(config.key_prefix)
        self._arguments = arguments
        self._owners = Owners()
        self._indexes = (
            Indexes(self.keys, topology)
            if topology.single
            else ClusterIndexes(self.keys, topology, config.operation_timeout + 30)
        )
        self._reader = Reader(self.keys, topology, self._owners.learn)
        self._finder = Finder(self._reader, self._indexes)
        self._writer = Writer(config, self._indexes, self._owners)
        self._copier = Copier(self.keys, topology)
        self._remainder = Remainder(topology, self.keys)
        self._older = False
        self._eraser = Eraser(self._indexes, self._writer)
        self._bulk = Bulk(self.keys, topology, self._write, piped=topology.single and not config.min_replicas)

    # Connections.

    async def open(self) -> None:
        """Connect."""
        await self.topology.open()
        self._writer.rights.forget()
        self._reader.forget()
        try:
            self._older = await self._remainder.any()
        except ServerError:  # a user who may not SCAN: nothing is known of it then
            self._older = False
        if self._older:
            _logger.warning(UNMOVED)

    async def close(self) -> None:
        """Let all connections go."""
        await self.topology.close()

    def abandon(self) -> None:
        """Forget the connections of a loop that is gone."""
        self.topology.abandon()

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """Turn an error of server, connection or driver into ours."""
        return translate(error, operation)

    def now(self) -> datetime:
        """The server's time, as far as the last read told."""
        return self._reader.now()

    # Writing.

    # A coroutine that only awaits another is left out where it would be on the way of every operation.

    def store(self, write: Write) -> Coroutine[Any, Any, WriteResult]:
        """Create or replace, by one script."""
        return self._write(write)

    def append(self, write: Write) -> Coroutine[Any, Any, WriteResult]:
        """Add what is new, by one script."""
        return self._write(write)

    async def append_many(self, writes: Sequence[Write]) -> Sequence[WriteResult | MemoryError | None]:
        """In one pipeline, or several at a time."""
        return await self._bulk.append_many(writes)

    async def _write(self, write: Write) -> WriteResult:
        if time.monotonic() >= self._eraser.tidy_at:
            await self._eraser.tidy()
        request = writes.request_of(write, confirm=self.config.min_replicas > 0)
        token: str | None = None
        more: tuple[bytes, ...]
        messages = layout.messages_of(write.messages, write.bodies)
        count, size = len(write.bodies), codec.size(write.bodies)
        large, more = is_large(count, size), ()
        self._reader.note_bulky(write.conversation_id, size, count)
        for turn in range(TRIES):
            if large and not more:
                # Who is cancelled from here on leaves what was laid aside; it expires within a minute.
                request["staged"], more = (turn < ATTEMPTS and await self._copier.write(write)) or (None, ())
                request["plain"] = None
                request["at_once"] = not more or None
            sent = () if more else messages
            reply = await self._writer.perform(scripts.WRITE, request, sent, owner=write.user_id, more=more)
            status = reply[0]
            if status == b"expired":
                # What has expired goes with all that names it, and the request comes again to an empty place.
                await self._eraser.bury(write.conversation_id)
            elif status in {b"changed", b"large"}:  # large: a lower cap than before lets much go
                await self._copier.discard(more)
                request["staged"], more, large = None, (), True
            elif status in {b"differs", b"heavy"}:
                request |= await self._judged(write, reply, more)
            elif status == b"announce":
                request["announced"], request["moment"] = reply[1].decode(), reply[2].decode()
                await self._indexes.refuse_older(write.conversation_id)
                token = await self._indexes.announce(
                    write.conversation_id, write.user_id, request["announced"], request.get("active")
                )
            elif status == b"version":
                await self._copier.discard(more)
                rules.expect_version(write.conversation_id, write.expected_version, reply[1])
            else:
                if not self.topology.single:
                    # A single server's script did it; here the entry comes once more, behind the write.
                    await self._indexes.settle(write.conversation_id, reply, token)
                return writes.result_of(write, reply)
        raise MemoryStorageError("the conversation never stood still", operation="write", retryable=True)

    async def _judged(self, write: Write, reply: list[Any], aside: tuple[bytes, ...]) -> dict[str, str]:
        try:
            return writes.judged(write, reply)
        except MemoryError:
            await self._copier.discard(aside)
            raise

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put a whole record in the place of the one at `expected`, by one script."""
        key, new = record.conversation_id, record.user_id
        request = layout.request_of(record) | {"expected": writes.stamp_text(expected)}
        messages = layout.messages_of(record.messages, map(codec.encode, record.messages))
        await self._indexes.refuse_older(key)
        token = await self._indexes.announce(key, new, request["created"], request["active"])
        old = self._owners.guess(key) or new
        more: tuple[bytes, ...] = ()
        if len(record.messages) > MANY:
            staged = await self._copier.record(record, request["expected"])
            if staged is not None:
                request["staged"], more = staged
                request["more"], request["positions"] = len(more), None
        for _ in range(TRIES):
            keys: tuple[bytes, ...] = self.keys.conversation(key)
            if self.topology.single:
                request["guess"] = old
                keys = self.keys.single(key, old or new)
                if old is not None and new is not None and old != new:
                    keys += self.keys.owned(new)
            reply = await self._writer.send(scripts.PUT, (*keys, *more), request, () if more else messages)
            if reply[0] == b"changed":
                await self._copier.discard(more)
                request["staged"] = request["more"] = None
                request["positions"] = record.positions or None
                more = ()
                continue
            if reply[0] == b"owner":
                old = reply[1].decode() or None
                continue
            if reply[0] == b"ok":
                self._owners.learn(key, new)
                await self._indexes.settle(key, reply, token)
                return True
            if reply[0] == b"legacy":
                raise await self._indexes.standing_there(key)
            writes.decided(key, reply)
            return False
        raise MemoryStorageError("the conversation never stood still", operation="write", retryable=True)

    async def amend(self, amend: Amend) -> int:
        """Change the header, by one script."""
        request: dict[str, Any] = {
            "id": amend.conversation_id,
            "scope": amend.scope,
            "user": amend.user_id,
            "metadata": layout.pairs(amend.metadata),
            "expected": writes.stamp_text(amend.expected),
            "most": writes.most_of(amend),
            "removed": [layout.field_of(key) for key in amend.removed] or None,
            "version": writes.version_of(amend.expected_version),
        }
        if amend.ttl is not UNSET:
            request.update(lease=True, ttl=None if amend.ttl is None else repr(float(amend.ttl)))
        token: str | None = None
        for _ in range(TRIES):
            reply = await self._writer.perform(scripts.AMEND, request, owner=amend.user_id)
            if reply[0] == b"stamp":
                raise writes.state_conflict(amend, reply[1])
            if reply[0] == b"version":
                rules.expect_version(amend.conversation_id, amend.expected_version, reply[1])
            if reply[0] == b"heavy":
                writes.weigh(amend, reply[2])
                request["weighed"] = reply[1].decode()
                continue
            if reply[0] != b"announce":
                await self._indexes.settle(amend.conversation_id, reply, token)
                version: int = reply[5]
                return version
            request["announced"] = reply[1].decode()
            token = await self._indexes.announce(amend.conversation_id, amend.user_id, request["announced"])
        raise MemoryStorageError("the conversation never stood still", operation="amend", retryable=True)

    async def truncate(self, truncate: Truncate) -> int:
        """Drop from the end, by one script."""
        key = truncate.conversation_id
        request: dict[str, Any] = {"id": key, "scope": truncate.scope, "message": truncate.message_id}
        request["version"] = writes.version_of(truncate.expected_version)
        reply = await self._writer.perform(scripts.TRUNCATE, request, owner=truncate.scope)
        for attempt in range(ATTEMPTS + 1):
            if reply[0] != b"large":
                break
            # At the last, one script does it however long that takes: a busy conversation must not put it off for ever.
            request["at_once"] = attempt == ATTEMPTS or None
            staged = await self._copier.part(key, key, reply[1].decode(), *reply[2:4])
            request["staged"], more = staged or (None, ())
            request["at_once"] = True if staged is None else request["at_once"]
            reply = await self._writer.perform(scripts.TRUNCATE, request, owner=truncate.scope, more=more)
        if reply[0] == b"version":
            rules.expect_version(key, truncate.expected_version, reply[1])
        await self._indexes.settle(key, reply)
        removed: int = reply[5]
        return removed

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Take them out of the list, by one script; of a long one, what stays is laid aside before."""
        key = delete.conversation_id
        request: dict[str, Any] = {"id": key, "scope": delete.scope, "ids": delete.ids}
        request["version"] = writes.version_of(delete.expected_version)
        reply = await self._writer.perform(scripts.THIN, request, owner=delete.scope)
        for attempt in range(ATTEMPTS + 1):
            if reply[0] != b"large":
                break
            staged = await self._copier.thinned(key, reply)
            request["staged"], more = staged or (None, ())
            # As a truncation does it.
            request["at_once"] = True if staged is None or attempt == ATTEMPTS else None
            reply = await self._writer.perform(scripts.THIN, request, owner=delete.scope, more=more)
            if reply[0] != b"ok":
                await self._copier.discard(more)
        if reply[0] == b"version":
            rules.expect_version(key, delete.expected_version, reply[1])
        await self._indexes.settle(key, reply)
        removed: int = reply[5]
        return removed

    async def revise(self, revise: Revise) -> int:
        """Set messages in the list, by one script, for the state that was looked at."""
        for turn in range(TRIES):
            record = rules.seen(
                await self._reader.read(revise.conversation_id, with_messages=False), self.now(), revise.scope
            )
            if record is None:
                raise MemoryNotFoundError(revise.conversation_id)
            wanted, refusal = None, None
            try:
                wanted = await self._reader.replacements(record, revise)
            except MemoryConflictError as error:
                refusal = error
            if wanted is None:
                # All stand there already, or one does not; by another's hand, perhaps, since the header was read.
                after = await self._reader.read(revise.conversation_id, with_messages=False)
                if after is None or after.stamp != record.stamp:
                    continue
                if refusal is not None:
                    raise refusal
                return int(record.version)
            reply = await self._revised(revise, record.user_id, *wanted, last=turn >= ATTEMPTS)
            if reply[0] == b"ok":
                await self._indexes.settle(revise.conversation_id, reply)
                version: int = reply[5]
                return version
        raise MemoryStorageError("the conversation never stood still", operation="revise", retryable=True)

    async def _revised(
        self, revise: Revise, owner: str | None, request: dict[str, Any], messages: Sequence[Part], *, last: bool
    ) -> list[Any]:
        request["at_once"] = last or None
        reply = await self._writer.perform(scripts.REVISE, request, messages, owner=owner)
        if reply[0] != b"large":
            return reply
        staged = await self._copier.revised(revise.conversation_id, reply, request["positions"], messages)
        if staged is None:
            request["at_once"] = True
            return await self._writer.perform(scripts.REVISE, request, messages, owner=owner)
        request["staged"], more = staged
        reply = await self._writer.perform(scripts.REVISE, request, owner=owner, more=more)
        if reply[0] != b"ok":
            await self._copier.discard(more)
        return reply

    async def fork(self, fork: Fork) -> int:
        """Copy within the server, by one script; on a Cluster the two are in different slots, and the default does."""
        if not self.topology.single:
            return await super().fork(fork)
        request: dict[str, Any] = {
            "id": fork.new_id,
            "scope": fork.scope,
            "stop": fork.until_message_id,
            "incarnation": fork.incarnation,
            "parent": fork.conversation_id,  # for errors
        }
        parent: tuple[bytes, ...] = self.keys.conversation(fork.conversation_id)
        attempts = ATTEMPTS
        more: tuple[bytes, ...] = ()
        for _ in range(TRIES):
            owner = fork.scope or self._owners.guess(fork.conversation_id)
            try:
                reply = await self._writer.perform(scripts.FORK, request, owner=owner, more=parent + more)
            except MemoryNotFoundError:
                raise MemoryNotFoundError(fork.conversation_id) from None
            except ServerError as error:
                raise misplaced(error, fork.conversation_id) from None
            if reply[0] == b"ok":
                count: int = reply[5]
                return count
            if reply[0] == b"large":
                staged = await self._copier.part(fork.conversation_id, fork.new_id, reply[1].decode(), *reply[2:4])
                attempts -= 1
                request["staged"], more = staged or (None, ())
                request["at_once"] = True if staged is None or not attempts else None
                continue
            writes.decided_fork(fork, reply)
            await self._eraser.bury(fork.new_id)
        raise MemoryStorageError("the conversation never stood still", operation="fork", retryable=True)

    # Erasing.

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        return await self._eraser.delete(conversation_id, expected)

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        """Remove the conversation, by one script."""
        return await self._eraser.remove(conversation_id, scope, expected_version)

    async def forget_user(self, user_id: str) -> int:
        """Remove all that the user's indexes name, until they name nothing."""
        try:
            await self._remainder.refuse(user_id)
        except ServerError as error:
            raise lacking("scan", "erase") if is_denied(error) else error from None
        removed: list[int] = []
        with in_steps(self, "clear_user_conversations", removed):
            await self._eraser.forget_user(user_id, removed)
        return sum(removed)

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        """Remove what the index by expiry names."""
        removed: list[str] = []
        with in_steps(self, "purge_expired", removed):
            await self._eraser.purge(limit, scope, removed)
        return len(removed)

    # Reading.

    async def read(self, conversation_id: str) -> Record | None:
        """The whole record, of one moment."""
        return await self._reader.read(conversation_id)

    def tail(self, tail: Tail) -> Coroutine[Any, Any, Page | None]:
        """The end of the list of bodies, with the header of that moment."""
        return self._reader.tail(tail)

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        """The header's hash alone."""
        return rules.seen(await self._reader.read(conversation_id, with_messages=False), self.now(), scope)

    def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """Records in order of creation, in pages of the narrowest index by creation."""
        return self._finder.scan(query)

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        """Records by activity, in pages of the narrowest index."""
        return await self._finder.find(query)

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over the headers, in pages of the narrowest index by creation."""
        return await self._finder.stats(user_id)

    async def adopt(self, *, remove: bool = False) -> AsyncIterator[Adopted]:
        """Move in what jaf-py's own provider stored under the prefix; see `jaf_memory_core.maintenance.Adopts`."""
        await self.topology.open()
        async for step in Adoption(self.config, self._writer, self.topology, self.keys, remove=remove).run():
            yield step

    def usage(self) -> Usage:
        """Connections, and what is under way on them."""
        return self.topology.usage()

    async def ping(self) -> Ping:
        """What the servers tell of themselves."""
        await self._writer.rights.check("health_check")
        found = await health.ping(self.topology, self.config, self._arguments)
        return msgspec.structs.replace(found, warnings=(*found.warnings, UNMOVED)) if self._older else found
