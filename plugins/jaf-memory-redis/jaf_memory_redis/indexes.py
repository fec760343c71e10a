"""The indexes: kept by the scripts themselves on a single server, and around them on a Cluster.

On a Cluster they live in other slots than the conversations. An entry is made before its conversation, and again
behind each write, so that it may be stale for a moment but is never missing; what points nowhere is dropped by whoever
finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from jaf_memory_core.errors import MemoryConflictError
from jaf_memory_core.records import Record
from jaf_memory_redis import scripts
from jaf_memory_redis.layout import (
    Keys,
    creation_entry,
    expiry_entry,
    score,
    server_time,
    split_creation,
    split_expiry,
    time_of,
)
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, asked, call, command

STEP = 100
"""Entries that are looked at together."""

PASSES = 10
"""How often an index is walked until it is empty; beyond that, somebody goes on writing."""

YOUTH = 60_000_000
"""Microseconds for which an entry on a Cluster may stand before its conversation does."""


def older_data(conversation_id: str) -> MemoryConflictError:
    """The refusal to write where jaf-py's own provider has a conversation."""
    return MemoryConflictError(
        f"jaf-py's own provider stored conversation {conversation_id!r} under this prefix; "
        "`jaf-memory adopt` moves it in, or set another key_prefix"
    )


class Indexes:
    """The indexes of a single server."""

    def __init__(self, keys: Keys, topology: Topology) -> None:
        self.keys = keys
        self.topology = topology

    async def announce(self, conversation_id: str, owner: str | None, created: str) -> None:
        """Make the entries of a conversation that is about to be made."""

    async def refuse_older(self, conversation_id: str) -> None:
        """Refuse where jaf-py's own provider has a conversation; a single server's scripts do that themselves."""

    async def settle(self, conversation_id: str, reply: list[Any]) -> None:
        """Make the entries what the conversation is, after a write that replied so."""

    async def gone(self, conversation_id: str, reply: list[Any]) -> None:
        """Drop the entries of a conversation that was removed."""

    async def repair(self, record: Record, found: float) -> None:
        """Mend an entry that was found at another score than its conversation has."""

    async def sweep(self, conversation_id: str, owner: str | None, created: str) -> int:
        """Drop entries that point nowhere; 1 if it was this call that did."""
        request = {"id": conversation_id, "created": created, "owner": owner}
        keys = self.keys.single(conversation_id, owner)
        (reply,) = await self.topology.run_all([asked(scripts.SWEEP, keys, request)])
        swept: int = reply[1]
        return swept

    async def due(self, limit: int, offset: int) -> list[tuple[str, str | None, str]]:
        """Id, owner and moment of creation of what should have expired by now."""
        (clock,) = await self.topology.run_all([Command(self.keys.expiries, ("TIME",))])
        now = score(server_time(clock))
        (entries,) = await self.topology.run_all(
            [command("ZRANGEBYSCORE", self.keys.expiries, "-inf", now, "LIMIT", offset, limit)]
        )
        return [split_expiry(entry) for entry in entries]

    async def created(
        self, user_id: str | None, lowest: bytes = b"-", highest: bytes = b"+", step: int = STEP
    ) -> AsyncIterator[list[tuple[str, str]]]:
        """Pages of (moment of creation, id), in that order."""
        index = self.keys.index(user_id)[1]
        while True:
            (entries,) = await self.topology.run_all([command("ZRANGEBYLEX", index, lowest, highest, "LIMIT", 0, step)])
            if entries:
                yield [split_creation(entry) for entry in entries]
            if len(entries) < step:
                return
            lowest = b"(" + entries[-1]

    async def entries_of(self, user_id: str) -> AsyncIterator[list[tuple[str, str]]]:
        """Pages of (moment of creation, id) of a user, again and again until there are none."""
        for _ in range(PASSES):
            empty = True
            async for page in self.created(user_id):
                empty = False
                yield page
            if empty:
                return


class ClusterIndexes(Indexes):
    """The indexes of a Cluster."""

    async def announce(self, conversation_id: str, owner: str | None, created: str) -> None:
        """Make the entries before the conversation."""
        at = score(time_of(created.encode()))
        await self.topology.run_all(
            [
                one
                for by_activity, by_creation in self._indexes(owner)
                for one in (
                    command("ZADD", by_activity, "NX", at, conversation_id),
                    command("ZADD", by_creation, 0, creation_entry(created, conversation_id)),
                )
            ]
        )

    def _indexes(self, owner: str | None) -> list[tuple[bytes, bytes]]:
        return [self.keys.everything, *([self.keys.owned(owner)] if owner is not None else [])]

    async def refuse_older(self, conversation_id: str) -> None:
        """Refuse where jaf-py's own provider has a conversation, and we have none."""
        older, header = self.keys.older(conversation_id), self.keys.conversation(conversation_id)[0]
        kind, ours = await self.topology.run_all([command("TYPE", older), command("EXISTS", header)])
        if kind == b"string" and not ours:
            raise older_data(conversation_id)

    async def settle(self, conversation_id: str, reply: list[Any]) -> None:
        """Make the entries again, behind the write."""
        owner, created, updated, expires = (part.decode() for part in reply[1:5])
        at = score(time_of(updated.encode()))
        commands = []
        for by_activity, by_creation in self._indexes(owner or None):
            commands.append(command("ZADD", by_activity, "GT", at, conversation_id))
            commands.append(command("ZADD", by_creation, 0, creation_entry(created, conversation_id)))
        entry = expiry_entry(conversation_id, owner or None, created)
        if expires:
            commands.append(command("ZADD", self.keys.expiries, score(time_of(expires.encode())), entry))
        else:
            commands.append(command("ZREM", self.keys.expiries, entry))
        await self.topology.run_all(commands)

    async def gone(self, conversation_id: str, reply: list[Any]) -> None:
        """Drop the entries, unless the conversation was made again meanwhile."""
        owner, created, updated, _ = (part.decode() for part in reply[1:5])
        await self._drop(conversation_id, owner or None, created, score(time_of(updated.encode())), 0)
        older = self.keys.older(conversation_id)
        (kind,) = await self.topology.run_all([command("TYPE", older)])
        if kind == b"string":
            await self.topology.run_all([command("UNLINK", older)])

    async def _drop(self, conversation_id: str, owner: str | None, created: str, highest: int, youth: int) -> None:
        commands = [command("ZREM", self.keys.expiries, expiry_entry(conversation_id, owner, created))]
        for by_activity, by_creation in self._indexes(owner):
            commands.append(command("ZREM", by_creation, creation_entry(created, conversation_id)))
            commands.append(call(scripts.DROP, (by_activity,), conversation_id, highest, youth))
        await self.topology.run_all(commands)

    async def repair(self, record: Record, found: float) -> None:
        """Raise the score of an entry."""
        at = score(record.updated_at)
        if found < at:
            commands = [
                command("ZADD", by_activity, "XX", "GT", at, record.conversation_id)
                for by_activity, _ in self._indexes(record.user_id)
            ]
            await self.topology.run_all(commands)

    async def sweep(self, conversation_id: str, owner: str | None, created: str) -> int:
        """Drop entries that point nowhere and are no longer young."""
        header = self.keys.conversation(conversation_id)[0]
        (found,), (clock,) = (
            await self.topology.run_all([command("HMGET", header, "c", "o")]),
            await self.topology.run_all([Command(header, ("TIME",))]),
        )
        stands, user = (None if part is None else part.decode() for part in found)
        if stands == created and user == owner:
            return 0
        now = score(server_time(clock))
        if now - score(time_of(created.encode())) < YOUTH:
            return 0
        index = self.keys.everything
        commands = [command("ZREM", self.keys.expiries, expiry_entry(conversation_id, owner, created))]
        if stands != created:
            commands.append(command("ZREM", index[1], creation_entry(created, conversation_id)))
        if owner is not None:
            commands.append(command("ZREM", self.keys.owned(owner)[1], creation_entry(created, conversation_id)))
        if owner is not None and user != owner:
            commands.append(call(scripts.DROP, (self.keys.owned(owner)[0],), conversation_id, now, YOUTH))
        if stands is None:
            commands.append(call(scripts.DROP, (index[0],), conversation_id, now, YOUTH))
        replies = await self.topology.run_all(commands)
        return int(stands != created and replies[1])
