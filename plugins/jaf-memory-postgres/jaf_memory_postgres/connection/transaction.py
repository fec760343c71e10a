"""Transactions: what several statements change together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from jaf_memory_core.errors import MemoryError
from jaf_memory_postgres.connection.pool import Connection

T = TypeVar("T")

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the server's default is: a later statement has to see what was committed while an earlier one waited.

Not READ WRITE: a server that is read-only refuses that in words of its own, and then each other write in others."""


class BeatenError(Exception):
    """Somebody else made the conversation between our look and our insert; to be tried again."""


async def transaction(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Run statements as one transaction.

    asyncpg's own context manager would wait for a ROLLBACK when it is cancelled, on a dead connection for ever. Here
    only an answer of the server is followed by one; after anything else the caller ends the connection.
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
