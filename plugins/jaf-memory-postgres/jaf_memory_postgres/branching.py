"""What changes the course of a conversation, on the server's side: forks, and messages revised in place."""

from __future__ import annotations

from msgspec.structs import replace

from jaf_memory_core import forks, rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Fork, Record, Revise
from jaf_memory_postgres.writing import Locked, Writer


class Brancher(Writer):
    """A writer that can also fork and revise."""

    async def fork(self, fork: Fork) -> int:
        """Copy a conversation to a new id; how many messages the copy holds. No body crosses the line."""
        # The locks are taken in the order of ids, so that two who fork into each other's never wait in a circle.
        locks = {one: await self.lock(one) for one in sorted({fork.conversation_id, fork.new_id})}
        parent, child = locks[fork.conversation_id], locks[fork.new_id]
        source = _seen(parent, fork.scope)
        if source is None or parent.key is None:
            raise MemoryNotFoundError(fork.conversation_id)
        if child.live is not None:
            raise forks.taken(fork.new_id)
        end = await self._end(parent.key, source, fork)
        count = end - source.first_position
        header = replace(forks.fork_header(source, fork, parent.now), message_count=count)
        key = await self._made(child, header, 0)
        await self._connection.execute(self._sql.copy_messages, key, parent.key, source.first_position, end)
        return count

    async def _end(self, key: int, source: Record, fork: Fork) -> int:
        if fork.until_message_id is None:
            return source.first_position + source.message_count
        first = source.first_position
        end: int | None = await self._connection.fetchval(self._sql.position, key, fork.until_message_id, first)
        if end is None:
            raise forks.no_such_message(fork)
        return end

    async def revise(self, revise: Revise) -> int:
        """Put messages into the places of others; the version."""
        locked = await self.lock(revise.conversation_id)
        standing = _seen(locked, revise.scope)
        if standing is None or locked.key is None:
            raise MemoryNotFoundError(revise.conversation_id)
        concerned = {*revise.ids, *(message.message_id for message in revise.messages)}
        held = await self._held(locked, sorted(concerned))
        indexes = forks.replacements(revise, held, revise.conversation_id)
        if not indexes:
            return standing.version
        # All of the old rows go before any of the new ones comes: they may have exchanged their ids.
        taken = await self._connection.fetch(self._sql.take, locked.key, [revise.ids[index] for index in indexes])
        places = {row[0]: row[1] for row in taken}
        await self._connection.execute(
            self._sql.place,
            locked.key,
            [places[revise.ids[index]] for index in indexes],
            [revise.messages[index].message_id for index in indexes],
            [revise.bodies[index].decode() for index in indexes],
        )
        growth = sum(len(revise.bodies[index]) - len(held[revise.ids[index]]) for index in indexes)
        after = replace(rules.touched(standing, locked.now), metadata=rules.unsummarised(standing.metadata))
        await self._update(locked.key, after, None, growth)
        await self._unlabel(locked.key, standing, after)
        return after.version


def _seen(locked: Locked, scope: str | None) -> Record | None:
    return rules.seen(locked.header, locked.now, scope)
