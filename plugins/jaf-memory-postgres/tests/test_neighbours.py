"""What an append and `health_check` take while the same process loads the server with something else."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import asynccontextmanager

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.names import Names
from jaf_memory_testing import slow

from jaf_memory_core import Message

NOISE = 0.003
"""Seconds that a busy machine may add to any of them."""

PAUSE = 0.1
"""Seconds between two appends of one of many."""

ROUNDS = 5
"""What is slow each time is so by itself, and not by the machine's load."""

LONG = """
WITH made AS (
    INSERT INTO {header} (conversation_id, incarnation, version, metadata, first_position, message_count, size, trimmed,
        created_at, updated_at)
    VALUES ('long', 'i', 1, '{}', 0, $1::bigint, $1::bigint * 300, false, now(), now()) RETURNING id
)
INSERT INTO {message} (conversation, position, message_id, body)
SELECT id, n, 'm' || n, '{"role":"user","content":"' || repeat('x', 250) || '","message_id":"m' || n || '"}'
FROM made, generate_series(0, $1::bigint - 1) AS n"""


def said(text="x"):
    """One message."""
    return [Message("user", text)]


class Loads:
    """What keeps a provider and its server busy."""

    def __init__(self, server, table, provider, *, seconds, length):
        self.server, self.names, self.provider = server, Names("public", table), provider
        self.seconds, self.length = seconds, length

    async def none(self):
        """Nothing."""
        await asyncio.sleep(self.seconds)

    async def busy(self):
        """200 who append to one conversation, 2,000 times a second: without a pause they would keep the client busy."""
        end = time.monotonic() + self.seconds

        async def one(place):
            await asyncio.sleep(place * PAUSE / 200)
            while time.monotonic() < end:
                await self.provider.append_messages("hot", said())
                await asyncio.sleep(PAUSE)

        await asyncio.gather(*map(one, range(200)))

    async def copied(self):
        """A fork of a long conversation, and appends that wait for it."""
        fork = asyncio.ensure_future(self.provider.fork_conversation("long", "copy"))
        await asyncio.sleep(0.02)
        await asyncio.gather(*(self.provider.append_messages("long", said()) for _ in range(12)))
        assert await fork >= self.length

    async def held(self):
        """200 who append to a conversation whose row somebody holds."""
        connection = await asyncpg.connect(self.server.url())
        async with connection.transaction():
            await connection.execute(self.names.fill("SELECT FROM {header} WHERE conversation_id = 'hot' FOR UPDATE"))
            waiting = [asyncio.ensure_future(self.provider.append_messages("hot", said())) for _ in range(200)]
            await asyncio.sleep(self.seconds)
        await connection.close()
        await asyncio.gather(*waiting)


async def beside(provider, load):
    """Medians of what an append and `health_check` take while a load runs."""
    running = asyncio.ensure_future(load())
    appends, checks = [], []
    while not running.done():
        for took, call in ((appends, provider.append_messages("cold", said())), (checks, provider.health_check())):
            began = time.perf_counter()
            await call
            took.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    await running
    return statistics.median(appends), statistics.median(checks)


@asynccontextmanager
async def loads(server, table, **sizes):
    """A provider with a pool of ten, and its loads."""
    config = PostgresConfig(connection_string=server.url(), table_name=table, operation_timeout=60.0)
    async with await create_postgres_provider(config) as provider:
        for key in ("hot", "cold"):
            await provider.store_messages(key, said())
        made = Loads(server, table, provider, **sizes)
        connection = await asyncpg.connect(server.url())
        await connection.execute(made.names.fill(LONG), sizes["length"])
        await connection.execute("CHECKPOINT")
        await connection.close()
        yield made


async def compared(server, table, kind, **sizes):
    """An unrelated append and a look at the server's health take at most three times their time alone."""
    found = []
    async with loads(server, table, **sizes) as made:
        for _ in range(ROUNDS):
            alone = await beside(made.provider, made.none)
            loaded = await beside(made.provider, getattr(made, kind))
            found.append((alone, loaded))
            if all(one <= 3 * other + NOISE for one, other in zip(loaded, alone, strict=True)):
                return
            await made.provider.delete_conversation("copy")
    raise AssertionError(found)


@pytest.mark.parametrize("kind", ["busy", "copied", "held"])
def test_neighbours_are_not_starved(postgres, table, kind):
    """Beside a busy, a copied and a held conversation another is appended to in three times its time at most."""
    asyncio.run(compared(postgres, table, kind, seconds=1.0, length=20_000))


@slow("four seconds and 100,000 messages each")
@pytest.mark.parametrize("kind", ["busy", "copied", "held"])
def test_neighbours_are_not_starved_for_long(postgres, table, kind):
    """The same for seconds, and for a conversation of 100,000 messages."""
    asyncio.run(compared(postgres, table, kind, seconds=4.0, length=100_000))
