"""Writes as transactions: the header's lock first, the decision by `rules` under it, and then the change.

The fast statements in `backend.py` change what needs no decision; whatever they leave alone comes here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import asyncpg
from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryError, MemoryNotFoundError
from jaf_memory_core.records import Amend, Record, Stamp, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_postgres import rows
from jaf_memory_postgres.connections import Connection
from jaf_memory_postgres.layout import BEGIN
from jaf_memory_postgres.statements import Statements

T = TypeVar("T")


class BeatenError(Exception):
    """Somebody else made the conversation between our look and our insert; to be tried again."""


async def transaction(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Run statements as one transaction.

    asyncpg's own context manager would wait for a ROLLBACK when it is cancelled, on a dead line for ever. Here only
    an answer of the server is followed by one; after anything else the caller ends the line.
    """
    await connection.execute(BEGIN)
    try:
        answer = await work()
    except (asyncpg.PostgresError, MemoryError, BeatenError):
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return answer


class Locked(NamedTuple):
    """A conversation under its lock.

    Attributes:
        key: id of its header row, or `None` where none stands.
        header: its header, expired or not, or `None`.
        now: the server's time, taken behind the lock.
    """

    key: int | None
    header: Record | None
    now: datetime

    @property
    def live(self) -> Record | None:
        """The header, or `None` if it has expired."""
        return rules.live(self.header, self.now)


class Writer:
    """The changes of one transaction.

    Args:
        connection: in a transaction.
        sql: the statements.
    """

    def __init__(self, connection: Connection, sql: Statements) -> None:
        self._connection = connection
        self._sql = sql

    async def lock(self, conversation_id: str) -> Locked:
        """Take the header's lock, or find that there is none."""
        row = await self._connection.fetchrow(self._sql.lock, conversation_id)
        if row["id"] is None:
            return Locked(None, None, row["now"])
        return Locked(row["id"], rows.header(row), row["now"])

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
        # A replaced conversation counts from 0 again: all of it goes before any of it comes.
        kept = (
            (0, 0) if write.replace else (plan.header.first_position, standing.first_position + standing.message_count)
        )
        removed = await self._cut(locked.key, *kept)
        await self._update(
            locked.key, plan.header, rows.stored(write.metadata) if write.metadata else None, added - removed
        )
        await self._unlabel(locked.key, standing, plan.header)
        await self._insert(locked.key, plan.header.first_position + plan.header.message_count - len(plan.fresh), *fresh)
        return plan.result

    async def _held(self, locked: Locked, ids: Sequence[str]) -> dict[str, bytes]:
        found = await self._connection.fetch(self._sql.held, locked.key, ids)
        return {row[0]: row[1].encode() for row in found}

    async def _made(self, locked: Locked, header: Record, size: int) -> int:
        if locked.key is not None:  # expired
            await self.erase([locked.key])
        key = await self._connection.fetchval(
            self._sql.insert_header,
            *(header.conversation_id, header.incarnation, header.version, header.created_at, header.updated_at),
            *(header.user_id, rows.stored(header.metadata), header.expires_at, header.ttl),
            *(header.first_position, header.trimmed, header.message_count, size),
        )
        if key is None:
            raise BeatenError
        made: int = key
        return made

    async def _cut(self, key: int, first: int, end: int) -> int:
        removed: int = await self._connection.fetchval(self._sql.cut, key, first, end)
        return removed

    async def _insert(self, key: int, first: int, ids: Sequence[str], bodies: Sequence[bytes]) -> None:
        if ids:
            texts = [body.decode() for body in bodies]
            await self._connection.execute(self._sql.insert_messages, key, first, ids, texts)

    async def _update(self, key: int, header: Record, patch: str | None, growth: int) -> None:
        await self._connection.execute(
            self._sql.update_header,
            *(key, header.version, header.updated_at, header.user_id, patch, header.expires_at, header.ttl),
            *(header.first_position, header.message_count, header.trimmed, growth),
        )

    async def _unlabel(self, key: int, before: Record, after: Record) -> None:
        """Write metadata from which something goes: a patch could only add."""
        if before.metadata.keys() - after.metadata.keys():
            await self._connection.execute(self._sql.set_metadata, key, rows.stored(after.metadata))

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
            await self._connection.execute(self._sql.delete_messages, [key])
            await self._connection.execute(
                self._sql.replace_header,
                *(key, record.incarnation, record.version, record.created_at, record.updated_at, record.user_id),
                *(rows.stored(record.metadata), record.expires_at, record.ttl, record.first_position),
                *(record.trimmed, record.message_count, size),
            )
        await self._insert(key, record.first_position, [message.message_id for message in record.messages], bodies)
        return True

    async def truncate(self, truncate: Truncate) -> int:
        """Remove that message and all after it; how many."""
        locked = await self.lock(truncate.conversation_id)
        standing = locked.live
        if standing is None or locked.key is None or truncate.scope not in (None, standing.user_id):
            raise MemoryNotFoundError(truncate.conversation_id)
        first = standing.first_position
        position = await self._connection.fetchval(self._sql.position, locked.key, truncate.message_id, first)
        if position is None:
            return 0
        metadata = rules.unsummarised(standing.metadata, position)
        after = replace(rules.touched(standing, locked.now), message_count=position - first, metadata=metadata)
        removed = await self._cut(locked.key, first, position)
        await self._update(locked.key, after, None, -removed)
        await self._unlabel(locked.key, standing, after)
        return standing.message_count - after.message_count

    async def amend(self, amend: Amend) -> int:
        """Change metadata, ownership or expiry; the new version."""
        locked = await self.lock(amend.conversation_id)
        after = rules.amended(locked.live, amend, locked.now)
        assert locked.key is not None  # noqa: S101  (`rules.amended` raises for a missing one)
        await self._update(locked.key, after, rows.stored(amend.metadata) if amend.metadata else None, 0)
        return after.version

    async def remove(self, conversation_id: str, scope: str | None) -> bool:
        """Delete a conversation; whether it was there."""
        locked = await self.lock(conversation_id)
        if locked.key is None or locked.header is None or scope not in (None, locked.header.user_id):
            return False
        await self.erase([locked.key])
        return locked.live is not None

    async def remove_at(self, conversation_id: str, expected: Stamp) -> bool:
        """Delete the conversation that stands at `expected`."""
        locked = await self.lock(conversation_id)
        if locked.key is None or locked.header is None or locked.header.stamp != expected:
            return False
        await self.erase([locked.key])
        return True

    async def remove_of_user(self, user_id: str, last: int, limit: int) -> tuple[int, int]:
        """Delete up to `limit` conversations of a user, up to that header row: how many, and how many were live."""
        found = await self._connection.fetch(self._sql.lock_of_user, user_id, last, limit)
        await self.erase([row[0] for row in found])
        return len(found), sum(row[1] for row in found)

    async def purge(self, limit: int, scope: str | None) -> int:
        """Delete up to `limit` expired conversations that nobody is writing to."""
        found = await self._connection.fetch(self._sql.lock_expired, scope, limit)
        await self.erase([row[0] for row in found])
        return len(found)

    async def erase(self, keys: list[int]) -> None:
        """Remove conversations whose headers are locked: messages first, in statements that see all of them."""
        if keys:
            await self._connection.execute(self._sql.delete_messages, keys)
            await self._connection.execute(self._sql.delete_headers, keys)
