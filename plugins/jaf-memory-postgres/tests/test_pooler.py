"""Poolers that nobody told us of: recognised, or refused in words that say what to set."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from services import postgres_servers as servers

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError
from jaf_memory_core.results import Success


async def crosstalk(url, tables, **settings):
    """Messages that one of two providers, each with a table of its own and many connections, finds in the other's."""
    providers = [
        await create_postgres_provider(
            PostgresConfig(connection_string=url, table_name=table, max_connections=6, **settings)
        )
        for table in tables
    ]
    for table, provider in zip(tables, providers, strict=True):
        await provider.store_messages("same", [Message("user", table)])

    async def work(table, provider):
        wrong = 0
        for _ in range(20):
            wrong += (await provider.get_recent_messages("same", 1))[0].content != table
            assert isinstance(await provider.append_messages("same", [Message("user", table)]), Success)
            await provider.update_metadata("same", {"a": 1})
        return wrong

    found = await asyncio.gather(*(work(*each) for each in zip(tables, providers, strict=True) for _ in range(6)))
    for provider in providers:
        await provider.close()
    return sum(found)


@pytest.mark.parametrize("pooler", ["auto", False, True])
def test_two_tables_behind_one_pooler(bouncer, table, pooler):
    """Whatever `pooler` says, nobody reads or writes another's table behind PgBouncer, and everything succeeds."""
    assert asyncio.run(crosstalk(bouncer.url(), [f"{table}a", f"{table}b"], pooler=pooler)) == 0


def test_a_pooler_is_recognised(bouncer, postgres, table):
    """With `auto` no statement is kept behind a pooler, and they are kept without one."""

    async def main(server):
        async with await create_postgres_provider(
            PostgresConfig(connection_string=server.url(), table_name=table)
        ) as provider:
            await provider.health_check()
            return provider.backend._connect.pooled

    assert asyncio.run(main(bouncer)) is True
    assert asyncio.run(main(postgres)) is False


def test_a_connection_string_that_tells_of_a_pooler():
    """`?pgbouncer=true`, as some hosters print it, is `JAF_POSTGRES_POOLER=true`."""
    assert PostgresConfig(connection_string="postgresql://u@h/d?pgbouncer=true").address.is_pooled
    assert (
        "pgbouncer" not in PostgresConfig(connection_string="postgresql://u@h/d?pgbouncer=true").address.server_settings
    )


@pytest.mark.parametrize("pooler", ["auto", True, False])
def test_statement_mode_is_refused(postgres, table, pooler):
    """A pooler that hands each statement to another session is refused at the start, by what has to be set there."""
    with servers.bouncing(postgres, mode="statement") as bouncer:
        config = PostgresConfig(connection_string=bouncer.url(), table_name=table, pooler=pooler)
        with pytest.raises(MemoryConfigurationError, match="pool_mode"):
            asyncio.run(create_postgres_provider(config))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("jaf:wrong@{}/jaf?application_name=a", "the pooler refused the login"),
        ("nobody:x@{}/jaf", "the pooler refused the login"),
        ("{login}@{}/none", "no database of that name"),
        ("{login}@{}/jaf?statement_timeout=5s", "a parameter of the connection string: statement_timeout"),
    ],
)
def test_what_a_pooler_refuses_is_told_apart(bouncer, table, place, words):
    """A login, a database, and a parameter that a pooler refuses are told apart, though it has one code for all."""
    url = "postgresql://" + place.format(f"127.0.0.1:{bouncer.port}", login=f"jaf:{servers.PASSWORD}")
    with pytest.raises(MemoryConnectionError, match=words) as caught:
        asyncio.run(create_postgres_provider(PostgresConfig(connection_string=url, table_name=table)))
    assert not caught.value.retryable


def test_a_pool_of_the_application_behind_a_pooler(bouncer, table):
    """A pool that keeps prepared statements behind a pooler is refused, and one that keeps none works."""

    async def main():
        config = PostgresConfig(table_name=table)
        pool = await asyncpg.create_pool(bouncer.url(), min_size=1, max_size=2)
        with pytest.raises(MemoryConfigurationError, match="statement_cache_size=0"):
            await create_postgres_provider(config, pool)
        await pool.close()
        pool = await asyncpg.create_pool(bouncer.url(), min_size=1, max_size=3, statement_cache_size=0)
        provider = await create_postgres_provider(config, pool)
        results = await asyncio.gather(
            *(provider.append_messages("c", [Message("user", str(n))], create=True) for n in range(20))
        )
        assert all(isinstance(result, Success) for result in results)
        await provider.close()
        await pool.close()

    asyncio.run(main())
