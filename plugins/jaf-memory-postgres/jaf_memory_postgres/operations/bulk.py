"""Many new conversations in one transaction: their headers in one statement, their messages by COPY."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryConnectionError, MemoryStorageError
from jaf_memory_core.records import Write
from jaf_memory_core.results import WriteResult
from jaf_memory_postgres import errors, rows
from jaf_memory_postgres.connection.execution import Connection, Run, transaction
from jaf_memory_postgres.names import Names

COLUMNS = ("conversation", "position", "message_id", "body")


class Bulk:
    """Makes conversations.

    Args:
        names: of the tables.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._make = names.sql["create_many"]

    async def make(self, run: Run, writes: Sequence[Write]) -> dict[int, WriteResult]:
        """Make those that are not there yet, all or none of them.

        Args:
            run: gives a connection for a transaction.
            writes: appends.

        Returns:
            what was done, by index. The others are for `append`: what stands there, or comes twice. All of them are
            where the server refuses one, so that each gets an answer of its own; nothing was changed then.
        """
        new = _new(writes)
        if len(new) <= 1:
            return {}
        try:
            made = await run(lambda connection: transaction(connection, lambda: self._copy(connection, new)))
        except (asyncpg.PostgresError, MemoryStorageError) as error:
            if isinstance(error, asyncpg.PostgresError) and _of_the_line(error):
                raise
            return {}
        return {
            index: WriteResult(1, len(write.messages), len(write.messages))
            for key, (index, write) in new.items()
            if key in made
        }

    async def _copy(self, connection: Connection, new: dict[str, tuple[int, Write]]) -> dict[str, int]:
        found = await connection.fetch(self._make, *_columns([write for _, write in new.values()]))
        made = {row[0]: row[1] for row in found}
        if made:
            await connection.copy_records_to_table(
                self._names.plain("message"),
                schema_name=self._names.schema,
                columns=COLUMNS,
                records=_messages([(row, new[key][1]) for key, row in made.items()]),
            )
        return made


def _new(writes: Sequence[Write]) -> dict[str, tuple[int, Write]]:
    """The first write to each conversation, by id, with its index, if it may make it."""
    seen: set[str] = set()
    new: dict[str, tuple[int, Write]] = {}
    for index, write in enumerate(writes):
        if write.conversation_id not in seen and write.create and not write.expected_version:
            new[write.conversation_id] = (index, write)
        seen.add(write.conversation_id)
    return new


def _columns(writes: Sequence[Write]) -> Iterator[list[Any]]:
    origins = [write.origin for write in writes]
    yield [write.conversation_id for write in writes]
    yield [write.user_id for write in writes]
    yield [write.incarnation for write in writes]
    yield [rows.stored(write.metadata) if write.metadata else "{}" for write in writes]
    yield [len(write.messages) for write in writes]
    yield [codec.size(write.bodies) for write in writes]
    yield [write.dropped > 0 for write in writes]
    yield [origin.ttl if origin else write.ttl for origin, write in zip(origins, writes, strict=True)]
    yield [origin and origin.expires_at for origin in origins]
    yield [origin and origin.created_at for origin in origins]
    times = [rules.times_of(origin) for origin in origins]
    yield [moments and moments[0] for moments in times]
    yield [moments and rows.amended(*moments) for moments in times]


def _messages(made: Sequence[tuple[int, Write]]) -> Iterator[tuple[int, int, str, str]]:
    for key, write in made:
        for position, message in enumerate(write.messages):
            yield key, position, message.message_id, write.bodies[position].decode()


def _of_the_line(error: asyncpg.PostgresError) -> bool:
    return isinstance(errors.translated(error, "append_many"), MemoryConnectionError)
