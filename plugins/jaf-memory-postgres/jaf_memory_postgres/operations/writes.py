"""Writes: in one statement where no rule has anything to decide, else as a transaction.

A transaction takes the header's lock first, lets `rules` decide under it, and changes then what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import asyncpg
from msgspec.structs import replace

from jaf_memory_core import codec, forks, rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Record, Revise, Stamp, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_postgres import rows
from jaf_memory_postgres.connection.execution import BeatenError, Connection, Run
from jaf_memory_postgres.operations.erasure import Eraser, Locked

FEW = 4
"""Messages up to which an append without metadata has a statement of its own for their number, as a turn has."""

SHORT = 16_384
"""Bytes of messages up to which an append travels with others."""


class Fast:
    """Creating and appending in one statement, one round trip.

    Both answer `None`, and have changed nothing, where the rules have to be asked under the lock.
    """

    def __init__(self, sql: Mapping[str, str]) -> None:
        self._sql = sql
        self._few = tuple(sql[f"append_{count}"] for count in range(1, FEW + 1))

    async def append(self, run: Run, write: Write) -> WriteResult | None:
        """Add to a conversation that stands; where none does and `create` says so, make it.

        Args:
            run: gives a connection for one statement. One that answers nothing has changed nothing.
            write: what is asked.
        """
        if write.origin is not None:  # an import: most of its conversations are not there yet
            made = await run(partial(self.create, write=write))
            if made is not None:
                return made  # type: ignore[no-any-return]
        # An import that goes on with what it made leaves its times, which the rules see.
        if write.messages and rules.times_of(write.origin) is None:
            sql, arguments = self._adding(write)
            try:
                row = await run(methodcaller("fetchrow", sql, *arguments))
            except asyncpg.UniqueViolationError:  # a message is held
                row = None
            if row is not None:
                return WriteResult(row[0], row[1], len(write.messages))
        # No row: it is missing, or a rule has to decide. To make it tells, and changes nothing where a header stands.
        if write.create and write.origin is None:
            return await run(partial(self.create, write=write))  # type: ignore[no-any-return]
        return None

    def fits(self, write: Write) -> int | None:
        """The size of the messages, if the write may travel with others."""
        if not write.messages or write.metadata or write.max_messages is not None or write.origin is not None:
            return None
        size = codec.size(write.bodies)
        return size if size <= SHORT else None

    def joins(self, one: Write, other: Write) -> bool:
        """Whether two appends to one conversation may be one change of it: what admits one, admits the other."""
        return (
            one.expected_version is None
            and other.expected_version is None
            and one.scope == other.scope
            and one.user_id == other.user_id
        )

    async def together(self, connection: Connection, writes: Sequence[Write]) -> Sequence[WriteResult | None]:
        """Append in one statement, each write as one of its own; `None` for what has to be asked alone.

        Writes to one conversation have to join each other, and are applied in their order.
        """
        headers: list[list[Any]] = []
        batch: list[tuple[int, int, str, str]] = []
        members: list[list[int]] = []
        last = None
        # In the order of ids, as everybody takes his locks.
        for number in sorted(range(len(writes)), key=lambda number: writes[number].conversation_id):
            write = writes[number]
            if write.conversation_id != last:
                last = write.conversation_id
                version = None if write.expected_version is None else min(write.expected_version, rows.MOST)
                headers.append([last, write.scope, write.user_id, version, 0, 0, 0])
                members.append([])
            header = headers[-1]
            at = header[5]
            for message, body in zip(write.messages, write.bodies, strict=True):
                batch.append((len(headers), at, message.message_id, body.decode()))
                at += 1
            header[4] += 1
            header[5] = at
            header[6] += codec.size(write.bodies)
            members[-1].append(number)
        columns = *zip(*headers, strict=True), *zip(*batch, strict=True)
        answers: list[WriteResult | None] = [None] * len(writes)
        for row in await connection.fetch(self._sql["append_together"], *columns):
            version, count, place = row
            # The last of them left the conversation so; who came before it, one version earlier, without its messages.
            for number in reversed(members[place - 1]):
                added = len(writes[number].messages)
                answers[number] = WriteResult(version, count, added)
                version -= 1
                count -= added
        return answers

    def _adding(self, write: Write) -> tuple[str, list[Any]]:
        version = None if write.expected_version is None else min(write.expected_version, rows.MOST)
        size, count = codec.size(write.bodies), len(write.messages)
        arguments: list[Any] = [write.conversation_id, write.scope, write.user_id, version]
        if count <= FEW and not write.metadata and write.max_messages is None:
            arguments.append(size)
            for message, body in zip(write.messages, write.bodies, strict=True):
                arguments += (message.message_id, body.decode())
            return self._few[count - 1], arguments
        patch = rows.stored(write.metadata) if write.metadata else None
        arguments += [patch, size, *_arrays(write)]
        # Half: as stored, metadata are never less than half as long as the rules count them; above, the rules decide.
        most = rows.MOST if write.max_metadata_bytes is None else min(write.max_metadata_bytes // 2, rows.MOST)
        if write.max_messages is not None:
            return self._sql["append_capped"], [*arguments, write.max_messages, write.dropped > 0, most]
        return self._sql["append"], [*arguments, most]

    async def create(self, connection: Connection, write: Write) -> WriteResult | None:
        """Make a conversation that does not stand."""
        if write.expected_version:
            return None
        created, expires, ttl, times = None, None, write.ttl, rules.times_of(write.origin)
        if write.origin is not None:
            created, expires, ttl = write.origin.created_at, write.origin.expires_at, write.origin.ttl
        row = await connection.fetchrow(
            self._sql["create"],
            *(write.conversation_id, write.user_id, write.incarnation, rows.stored(write.metadata)),
            *(*_arrays(write), codec.size(write.bodies), write.dropped > 0, ttl, expires, created),
            *((times[0], rows.amended(*times)) if times else (None, None)),
        )
        return WriteResult(row[0], row[1], len(write.messages)) if row is not None else None


def _arrays(write: Write) -> list[list[str]]:
    """Ids and bodies of the messages."""
    return [[message.message_id for message in write.messages], [body.decode() for body in write.bodies]]


class Writer(Eraser):
    """The changes of one transaction."""

    async def write(self, write: Write) -> WriteResult:
        """A store or an append, as `rules.plan_write` decides."""
        locked = await self.lock(write.conversation_id)
        standing = locked.live
        ids = [message.message_id for message in write.messages]
        held = await self._held(locked, ids) if standing is not None and not write.replace else {}
        plan = rules.plan_write(standing, write, held, locked.now)
        if not plan.changed:
            return plan.result
        fresh = (
            [write.messages[index].message_id for index in plan.fresh],
            [write.bodies[index] for index in plan.fresh],
        )
        added = codec.size(fresh[1])
        if standing is None or locked.key is None:
            key = await self._made(locked, plan.header, added)
            await self._insert(key, 0, *fresh)
            return plan.result
        header = plan.header
        if plan.cut and header.gaps:
            position = await self._position_at(locked.key, standing, plan.cut)
            # Where all go that were there, the first of what comes is the oldest.
            header = rules.begins(header, standing.end if position is None else position)
        # A replaced conversation counts from 0 again: all of it goes before any of it comes.
        removed = await self._cut(locked.key, *((0, 0) if write.replace else (header.first_position, standing.end)))
        await self._update(locked.key, header, rows.stored(write.metadata) if write.metadata else None, added - removed)
        await self._unlabel(locked.key, standing, header)
        await self._insert(locked.key, header.end - len(plan.fresh), *fresh)
        return plan.result

    async def _position_at(self, key: int, standing: Record, place: int) -> int | None:
        position: int | None = await self._connection.fetchval(
            self._sql["position_at"], key, standing.first_position, place
        )
        return position

    async def _held(self, locked: Locked, ids: Sequence[str]) -> dict[str, bytes]:
        found = await self._connection.fetch(self._sql["held"], locked.key, ids)
        return {row[0]: row[1].encode() for row in found}

    async def _made(self, locked: Locked, header: Record, size: int) -> int:
        if locked.key is not None:  # expired
            await self.erase([locked.key])
        key = await self._connection.fetchval(
            self._sql["insert_header"],
            *(header.conversation_id, header.incarnation, header.version, header.created_at, header.active_at),
            *(header.user_id, rows.stored(header.metadata), header.expires_at, header.ttl),
            *(header.first_position, header.trimmed, header.message_count, size),
            *(rows.amended(header.active_at, header.updated_at), header.gaps),
        )
        if key is None:
            # There was no row to lock when this looked, and somebody has made one since: only a new look can lock it.
            raise BeatenError
        made: int = key
        return made

    async def _insert(self, key: int, first: int, ids: Sequence[str], bodies: Sequence[bytes]) -> None:
        if ids:
            texts = [body.decode() for body in bodies]
            await self._connection.execute(self._sql["insert_messages"], key, first, ids, texts)

    async def _update(self, key: int, header: Record, patch: str | None, growth: int) -> None:
        await self._connection.execute(
            self._sql["update_header"],
            *(key, header.version, header.active_at, header.user_id, patch, header.expires_at, header.ttl),
            *(header.first_position, header.message_count, header.trimmed, growth),
            *(rows.amended(header.active_at, header.updated_at), header.gaps),
        )

    async def _unlabel(self, key: int, before: Record, after: Record) -> None:
        """Write metadata from which something goes: a patch could only add."""
        if before.metadata.keys() - after.metadata.keys():
            await self._connection.execute(self._sql["set_metadata"], key, rows.stored(after.metadata))

    async def put(self, record: Record, expected: Stamp | None) -> bool:
        """A whole record in the place of the one at `expected`."""
        locked = await self.lock(record.conversation_id)
        if (locked.header.stamp if locked.header else None) != expected:
            return False
        bodies = [codec.encode(message) for message in record.messages]
        size = codec.size(bodies)
        if locked.key is None:
            key = await self._made(locked, record, size)
        else:
            # In its row: whoever waits for its lock finds it there, and not nothing.
            key = locked.key
            await self._connection.execute(self._sql["delete_messages"], [key])
            await self._connection.execute(
                self._sql["replace_header"],
                *(key, record.incarnation, record.version, record.created_at, record.active_at, record.user_id),
                *(rows.stored(record.metadata), record.expires_at, record.ttl, record.first_position),
                *(record.trimmed, record.message_count, size, rows.amended(record.active_at, record.updated_at)),
                record.gaps,
            )
        ids = [message.message_id for message in record.messages]
        if record.gaps:
            texts = [body.decode() for body in bodies]
            await self._connection.execute(self._sql["place"], key, record.positions, ids, texts)
        else:
            await self._insert(key, record.first_position, ids, bodies)
        return True

    async def truncate(self, truncate: Truncate) -> int:
        """Remove that message and all after it; how many."""
        locked = await self.lock(truncate.conversation_id)
        standing = locked.live
        if standing is None or locked.key is None or truncate.scope not in (None, standing.user_id):
            raise MemoryNotFoundError(truncate.conversation_id)
        rules.expect_version(truncate.conversation_id, truncate.expected_version, standing.version)
        first = standing.first_position
        position = await self._connection.fetchval(self._sql["position"], locked.key, truncate.message_id, first)
        if position is None:
            return 0
        metadata = rules.unsummarised(standing.metadata, position)
        left = await self._between(locked.key, standing, position)
        after = replace(rules.ends_at(rules.touched(standing, locked.now), left, position), metadata=metadata)
        removed = await self._cut(locked.key, first, position)
        await self._update(locked.key, after, None, -removed)
        await self._unlabel(locked.key, standing, after)
        return standing.message_count - after.message_count

    async def _between(self, key: int, standing: Record, position: int) -> int:
        """How many messages stand before a position."""
        if not standing.gaps:
            return position - standing.first_position
        await self._check_complete(key, standing)
        count: int = await self._connection.fetchval(
            self._sql["messages_between"], key, standing.first_position, position
        )
        return count

    async def _check_complete(self, key: int, standing: Record) -> None:
        """See that as many messages stand as the header says: beside gaps nothing else tells of a missing row."""
        count = await self._connection.fetchval(self._sql["messages_between"], key, 0, rows.MOST)
        if count != standing.message_count:
            raise codec.damaged(standing.conversation_id)

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Remove single messages; how many."""
        locked = await self.lock(delete.conversation_id)
        standing = rules.deletable(_seen(locked, delete.scope), delete)
        assert locked.key is not None  # `rules.deletable` raises for a missing one
        await self._check_complete(locked.key, standing)
        gone = await self._connection.fetch(self._sql["pick"], locked.key, delete.ids)
        if not gone:
            return 0
        first = await self._position_at(locked.key, standing, 0)
        after = rules.thinned(standing, len(gone), min(row[0] for row in gone), first, locked.now)
        await self._update(locked.key, after, None, -sum(row[1] for row in gone))
        await self._unlabel(locked.key, standing, after)
        return len(gone)

    async def amend(self, amend: Amend) -> int:
        """Change metadata, ownership or expiry; the new version."""
        locked = await self.lock(amend.conversation_id)
        after = rules.amended(locked.live, amend, locked.now)
        assert locked.key is not None  # `rules.amended` raises for a missing one
        await self._update(locked.key, after, rows.stored(amend.metadata) if amend.metadata else None, 0)
        if amend.removed and locked.header is not None:
            await self._unlabel(locked.key, locked.header, after)
        return after.version

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
        count = await self._between(parent.key, source, end)
        header = rules.ends_at(forks.fork_header(source, fork, parent.now), count, end)
        key = await self._made(child, header, 0)
        await self._connection.execute(self._sql["copy_messages"], key, parent.key, source.first_position, end)
        return count

    async def _end(self, key: int, source: Record, fork: Fork) -> int:
        if fork.until_message_id is None:
            return source.end
        first = source.first_position
        end: int | None = await self._connection.fetchval(self._sql["position"], key, fork.until_message_id, first)
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
        # Under the lock, so that what is compared is what is replaced.
        held = await self._held(locked, sorted(concerned))
        indexes = forks.replacements(revise, held, revise.conversation_id)
        if not indexes:
            return standing.version
        # All of the old rows go before any of the new ones comes: they may have exchanged their ids.
        taken = await self._connection.fetch(self._sql["take"], locked.key, [revise.ids[index] for index in indexes])
        places = {row[0]: row[1] for row in taken}
        await self._connection.execute(
            self._sql["place"],
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
