"""PostgreSQL: our provider, and asyncpg on one connection; many tasks share a pool of ten, as ours do."""

from __future__ import annotations

import asyncpg

from benchmarks import competitors, processors
from benchmarks.payload import BODY, HEADER, RECENT, TURN, moment, owner

POOL = 10
"""Connections."""

TABLES = """
CREATE TABLE IF NOT EXISTS bare_turn (id bigserial PRIMARY KEY, conversation text NOT NULL, body text NOT NULL);
CREATE INDEX IF NOT EXISTS bare_turn_of ON bare_turn (conversation, id);
CREATE TABLE IF NOT EXISTS bare_message (conversation text NOT NULL, position bigint NOT NULL, body text NOT NULL,
    PRIMARY KEY (conversation, position));
CREATE TABLE IF NOT EXISTS bare_conversation (conversation_id text PRIMARY KEY, user_id text NOT NULL,
    metadata jsonb NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS bare_conversation_of ON bare_conversation (user_id, updated_at DESC, conversation_id DESC);
"""
INSERT = "INSERT INTO bare_turn (conversation, body) VALUES ($1, $2)"
LAST = "SELECT body FROM bare_message WHERE conversation = $1 ORDER BY position DESC LIMIT $2"
ALL = "SELECT body FROM bare_message WHERE conversation = $1 ORDER BY position"
NEWEST = """
SELECT conversation_id, user_id, metadata, created_at, updated_at FROM bare_conversation
WHERE user_id = $1 ORDER BY updated_at DESC, conversation_id DESC LIMIT 10"""
NEWEST_WHOLE = f"""
SELECT found.*, array(SELECT body FROM bare_message WHERE conversation = found.conversation_id ORDER BY position)
FROM ({NEWEST}) AS found"""


class Ours(competitors.Ours):
    """The provider `postgres`."""

    async def open(self) -> None:
        """Connect."""
        from jaf_memory_postgres import PostgresConfig, create_postgres_provider

        config = PostgresConfig(connection_string=self.place["url"], max_connections=POOL, pool_min_size=POOL)
        self.provider = await create_postgres_provider(config)


class Bare(competitors.Competitor):
    """The driver alone."""

    name = "asyncpg"

    async def open(self) -> None:
        """Connect."""
        self.line = await asyncpg.connect(self.place["url"])
        self.pool = await asyncpg.create_pool(self.place["url"], min_size=POOL, max_size=POOL)
        await self.line.execute(TABLES)

    async def close(self) -> None:
        """Disconnect."""
        await self.pool.close()
        await self.line.close()

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        await self.bulk_import([(key, [BODY] * length)])

    async def fill_crowd(self, count: int) -> None:
        """So many conversations of one turn each."""
        moments = map(moment, range(count))
        rows = ((f"x{number}", owner(number), HEADER, at, at) for number, at in enumerate(moments))
        await self.line.copy_records_to_table("bare_conversation", records=rows)
        await self.bulk_import([(f"x{number}", [BODY, BODY]) for number in range(count)])

    async def append_among(self, key: str) -> object:
        """The same on a connection of the pool."""
        return await self.pool.execute(INSERT, key, TURN)

    async def server(self) -> int | None:
        """The process whose children serve."""
        if not processors.HAVE_PROC:
            return None
        return processors.parent_of(await self.line.fetchval("SELECT pg_backend_pid()"))

    async def append(self, key: str) -> object:
        """INSERT of one row of 600 bytes."""
        return await self.line.execute(INSERT, key, TURN)

    async def recent(self, key: str, limit: int) -> object:
        """SELECT of the last rows."""
        return await self.line.fetch(LAST, key, limit)

    async def load(self, key: str) -> object:
        """SELECT of all rows."""
        return await self.line.fetch(ALL, key)

    async def newest(self, user: str, *, with_messages: bool) -> object:
        """One statement."""
        return await self.line.fetch(NEWEST_WHOLE if with_messages else NEWEST, user)

    async def pair(self, key: str) -> None:
        """Both statements on a connection of the pool."""
        async with self.pool.acquire() as line:
            await line.execute(INSERT, key, TURN)
            await line.fetch(LAST, key, RECENT)

    async def bulk_import(self, conversations: list[tuple[str, list[str]]]) -> None:
        """COPY of all rows."""
        rows = ((key, at, body) for key, bodies in conversations for at, body in enumerate(bodies))
        await self.line.copy_records_to_table("bare_message", records=rows)

    async def bulk_export(self) -> int:
        """COPY of all rows, in order; how many bytes."""
        size = 0

        async def count(data: bytes) -> None:
            nonlocal size
            size += len(data)

        query = "SELECT conversation, body FROM bare_message ORDER BY conversation, position"
        await self.line.copy_from_query(query, output=count)
        return size
