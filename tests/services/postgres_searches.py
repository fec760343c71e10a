"""Many conversations in PostgreSQL, and searches: for the tests, and for `benchmarks/postgres_searches.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.names import Names

from jaf_memory_core import MemoryQuery
from services import postgres_servers as servers

START = datetime(2024, 1, 1, tzinfo=UTC)

_HEADERS = """
INSERT INTO {header} (conversation_id, user_id, incarnation, version, metadata, first_position, message_count, size,
    trimmed, ttl, expires_at, created_at, updated_at, amended_at)
SELECT 'c' || n, 'u' || n % 200, 'i', 1,
    jsonb_build_object('topic', jsonb_build_array((n % 200)::text), 'trace_id', jsonb_build_array('"t' || n || '"')),
    0, $2::integer, 100 * $2::integer, false, NULL, CASE WHEN n % 300 = 0 THEN timestamptz '2024-01-01' END,
    timestamptz '2024-01-01Z' + n * interval '1 minute', timestamptz '2024-01-01Z' + n * interval '1 minute',
    CASE WHEN n % 400 = 7 THEN timestamptz '2024-01-01Z' + ($1::integer + n) * interval '1 minute' END
FROM generate_series(0, $1::integer - 1) AS n"""

_MESSAGES = """
INSERT INTO {message} (conversation, position, message_id, body)
SELECT id, position, 'm' || position, '{"role":"user","content":"x","message_id":"m' || position || '"}'
FROM {header}, generate_series(0, $1::integer - 1) AS position"""

_LABELS = "INSERT INTO {label} (conversation, metadata) SELECT id, metadata FROM {header}"


def at(minutes: float) -> datetime:
    """A time so many minutes after the first."""
    return START + timedelta(minutes=minutes)


async def fill(server: servers.Server, names: Names, count: int, messages: int = 5) -> None:
    """Make a table with so many conversations of a few messages, a minute apart, of 200 users and 200 topics."""
    config = PostgresConfig(connection_string=server.url(), schema_name=names.schema, table_name=names.table)
    async with await create_postgres_provider(config):
        pass
    connection = await asyncpg.connect(server.url())
    try:
        # What the trigger would do row by row is done at once.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(names.fill(_HEADERS), count, messages)
        await connection.execute(names.fill(_LABELS))
        await connection.execute(names.fill(_MESSAGES), messages)
        await connection.execute(names.fill("VACUUM ANALYZE {header}, {message}, {label}"))
    finally:
        await connection.close()


def searches(count: int) -> dict[str, MemoryQuery]:
    """Searches of every kind among so many conversations, each of which keeps at most one in a hundred."""
    last = (at(5_000), at(5_000), "c5000")
    everything: dict[str, Any] = {"user_id": "u7", "metadata": {"topic": 7}, "since": at(100), "limit": 5}
    return {
        "id": MemoryQuery(conversation_id="c7"),
        "user": MemoryQuery(user_id="u7"),
        "newest of a user": MemoryQuery(user_id="u7", limit=10),
        "next of a user": MemoryQuery(user_id="u7", limit=10, cursor=last),
        "trace": MemoryQuery(trace_id="t7"),
        "metadata": MemoryQuery(metadata={"topic": 7}),
        "owner as metadata": MemoryQuery(metadata={"user_id": "u7"}),
        "null as an owner": MemoryQuery(metadata={"user_id": None}),
        "since": MemoryQuery(since=at(count - 100)),
        "until": MemoryQuery(until=at(100)),
        "active since": MemoryQuery(active_since=at(count - 100)),
        "active until": MemoryQuery(active_until=at(100)),
        "updated since": MemoryQuery(updated_since=at(count - 100)),
        "the newest of those updated since": MemoryQuery(updated_since=at(count - 100), limit=10),
        "updated since of a user": MemoryQuery(user_id="u7", updated_since=at(count - 100)),
        "updated until": MemoryQuery(updated_until=at(100)),
        "newest": MemoryQuery(limit=10),
        "next": MemoryQuery(limit=10, cursor=last),
        "all together": MemoryQuery(**everything, active_until=at(10_000)),
    }
