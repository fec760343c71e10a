"""Writes in one statement, one round trip: those in which no rule has anything to decide."""

from __future__ import annotations

from typing import Any

import asyncpg

from jaf_memory_core import codec
from jaf_memory_core.records import Write
from jaf_memory_core.results import WriteResult
from jaf_memory_postgres import rows
from jaf_memory_postgres.connections import Connection
from jaf_memory_postgres.statements import FEW, MOST, Statements


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
            sql, arguments = self._adding(write)
            try:
                row = await connection.fetchrow(sql, *arguments)
            except asyncpg.UniqueViolationError:  # a message is held
                row = None
            if row is not None:
                return WriteResult(row[0], row[1], len(write.messages))
        if write.create and write.origin is None:
            return await self.create(connection, write)
        return None

    def _adding(self, write: Write) -> tuple[str, list[Any]]:
        patch = rows.stored(write.metadata) if write.metadata else None
        version = None if write.expected_version is None else min(write.expected_version, MOST)
        size = codec.size(write.bodies)
        arguments: list[Any] = [write.conversation_id, write.scope, write.user_id, version, patch, size]
        if write.max_messages is not None:
            arguments += [*_arrays(write), write.max_messages, write.dropped > 0]
            return self._sql.append_capped, arguments
        count = len(write.messages)
        if count > FEW:
            arguments += _arrays(write)
            return self._sql.append, arguments
        for message, body in zip(write.messages, write.bodies, strict=True):
            arguments += (message.message_id, body.decode())
        return self._sql.append_few[count - 1], arguments

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
            *(*_arrays(write), codec.size(write.bodies), write.dropped > 0, ttl, expires, created),
        )
        return WriteResult(row[0], row[1], len(write.messages)) if row is not None else None


def _arrays(write: Write) -> list[list[str]]:
    """Ids and bodies of the messages."""
    return [[message.message_id for message in write.messages], [body.decode() for body in write.bodies]]
