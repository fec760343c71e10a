"""Sessions with the server: whether a pooler hands them from client to client, and how long they outlive us."""

from __future__ import annotations

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_postgres.connection.pool import Connection

_PID = "SELECT pg_backend_pid()"

_WATCHED = """
SELECT pg_backend_pid(), CASE WHEN current_setting('client_connection_check_interval', true) = '0'
    THEN set_config('client_connection_check_interval', '500', false) END"""
"""While a statement runs or waits for a lock, the server looks every 500 ms whether its client is still there."""

STATEMENT_MODE = "statement pooling mode"
"""How PgBouncer says that it allows no transactions."""


async def copied(connection: Connection, query: str) -> str:
    """The first column of a query of one row, asked so that nothing of it stays in the session, as COPY is."""
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)

    await connection.copy_from_query(query, output=keep)
    return b"".join(parts).decode().strip().split("\t")[0]


async def is_behind_pooler(connection: Connection) -> bool:
    """Whether the session that answers is another than the one that let us in, as behind PgBouncer."""
    return await copied(connection, _PID) != str(connection.get_server_pid())


async def watch(connection: Connection) -> bool:
    """Let the server end what it does for a client that is gone.

    Returns:
        whether the session was still the one that let us in.
    """
    try:
        pid = await copied(connection, _WATCHED)
    except asyncpg.PostgresError:
        return True  # its computer has no way to look
    return pid == str(connection.get_server_pid())


async def require_transactions(connection: Connection) -> None:
    """Refuse a pooler that hands each statement to another session.

    Raises:
        MemoryConfigurationError: it does.
    """
    try:
        await connection.execute("BEGIN")
        await connection.execute("COMMIT")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if STATEMENT_MODE not in str(error):
            raise
    else:
        return
    raise MemoryConfigurationError(
        "the pooler is in statement mode, in which there are no transactions; set its pool_mode to transaction (or "
        "session) for this database",
        provider="postgres",
    )
