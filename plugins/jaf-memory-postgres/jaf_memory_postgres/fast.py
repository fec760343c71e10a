"""Writes in one statement, one round trip: those in which no rule has anything to decide."""

from __future__ import annotations

from typing import Any

import asyncpg

from jaf_memory_core import codec
from jaf_memory_core.records import Write
from jaf_memory_core.results import WriteResult
from jaf_memory_postgres import rows
from jaf_memory_postgres.connections import Connection
from jaf_memory_postgres.statements import MOST, Statements


class Fast:
    """Creating and appending.

    Both answer `None`, and have changed nothing, where the rules have to be asked under the lock.
    """

    def __init__(self, sql: Statements) -> None:
        self._sql = sql

    async def append(self, connection: Connection, write: Write) -> WriteResult | None:
        """Add to a conversation that stands; where none does and `create` says so, make it."""
        if write.origin is not None:  # an import: most of its conversations are not there yet
            made = await self.create(connection, write)
            if made:
                return made
        if write.messages:
            added = await self._add(connection, write)
            if added:
                return added
        if write.create and write.origin is None:
            return await self.create(connection, write)
        return None

    async def _add(self, connection: Connection, write: Write) -> WriteResult | None:
        patch = rows.stored(write.metadata) if write.metadata else None
        version = None if write.expected_version is None else min(write.expected_version, MOST)
        arguments: list[Any] = [write.conversation_id, write.scope, write.user_id, version, patch]
        arguments += _batch(write)
        sql = self._sql.append
        if write.max_messages is not None:
            sql = self._sql.append_capped
            arguments += [write.max_messages, write.dropped > 0]
        try:
            row = await connection.fetchrow(sql, *arguments)
        except asyncpg.UniqueViolationError:
            return None
        return WriteResult(row[0], row[1], len(write.messages)) if row is not None else None

    async def create(self, connection: Connection, write: Write) -> WriteResult | None:
        """Make a conversation that does not stand."""
        if write.expected_version:
            return None
        created, expires, ttl = None, None, write.ttl
        if write.origin is not None:
            created, expires, ttl = write.origin.created_at, write.origin.expires_at, write.origin.ttl
        row = await connection.fetchrow(
            self._sql.create,
            *(write.conversation_id, write.user_id, write.incarnation, rows.stored(write.metadata)),
            *(*_batch(write), write.dropped > 0, ttl, expires, created),
        )
        return WriteResult(row[0], row[1], len(write.messages)) if row is not None else None


def _batch(write: Write) -> list[Any]:
    """Ids, bodies and bytes of the messages."""
    ids = [message.message_id for message in write.messages]
    return [ids, [body.decode() for body in write.bodies], codec.size(write.bodies)]
