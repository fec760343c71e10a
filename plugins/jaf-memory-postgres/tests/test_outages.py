"""Servers that fail under load: nothing acknowledged is lost or doubled, and the provider goes on by itself.

`benchmarks/postgres_faults.py` does the same twenty times.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_testing.deadlines import GRACE, Stopwatch
from services import postgres_faults as faults
from services import postgres_servers as servers
from services.ports import free_port

from jaf_memory_core import MemoryQuery, Message
from jaf_memory_core.errors import MemoryConnectionError


def flawless(outcome):
    """Assert that a load came through."""
    assert outcome.acknowledged > faults.LEAST
    assert (outcome.lost, outcome.doubled, outcome.disordered, outcome.unanswered) == (0, 0, 0, 0)


@pytest.fixture
def pair():
    """A primary and its streaming standby."""
    with servers.serving(servers.machine()) as primary, servers.standby_of(primary) as standby:
        yield primary, standby


def test_killed_backends(postgres, table):
    """`kill -9` of a backend, which ends all others, costs no acknowledged append, and nobody restarts anything."""
    flawless(asyncio.run(faults.killed_backends(postgres, table, rounds=3)))


def test_killed_server(postgres, table):
    """`kill -9` of the whole server neither."""
    flawless(asyncio.run(faults.killed_server(postgres, table, rounds=3)))


def test_promotion(pair, table):
    """When the primary dies and its standby is promoted, the provider finds the new primary."""
    flawless(asyncio.run(faults.promoted(*pair, table)))


def test_demotion(pair, table):
    """When the primary becomes read-only without dying (25006), the provider leaves it for the new one."""
    flawless(asyncio.run(faults.demoted(*pair, table)))


def test_a_dead_line(table):
    """On a server that stops answering every call ends within its deadline, `close` too, and it recovers."""

    async def main(server):
        patient = PostgresConfig(connection_string=server.url(), table_name=table)
        async with await create_postgres_provider(patient) as provider:
            await provider.store_messages("c", [Message("user", "x")])
        provider = await create_postgres_provider(patient.model_copy(update={"operation_timeout": 1.0}))
        assert await provider.get_conversation("c") is not None
        server.pause()
        try:
            for call in (
                lambda: provider.get_conversation("c"),
                lambda: provider.append_messages("c", [Message("user", "y")]),
                lambda: provider.store_messages("c", [Message("user", "y")]),
                lambda: provider.find_conversations(MemoryQuery()),
                lambda: provider.delete_conversation("d"),
            ):
                with Stopwatch() as watch, pytest.raises(MemoryConnectionError):
                    await call()
                assert watch.seconds < 1 + GRACE
            health = await provider.health_check()
            assert health["healthy"] is False
        finally:
            server.resume()
        while not (await provider.health_check())["healthy"]:  # noqa: ASYNC110  (it is the server's event)
            await asyncio.sleep(0.05)
        assert await provider.get_conversation("c") is not None
        server.pause()
        try:
            with Stopwatch() as watch:
                await provider.close()
            assert watch.seconds < 1 + GRACE
        finally:
            server.resume()

    with servers.serving(servers.machine()) as server:
        asyncio.run(main(server))


def test_a_server_that_is_not_there(table):
    """A server that cannot be reached is a `MemoryConnectionError` within the deadline, without its password."""
    port = free_port()
    config = PostgresConfig(host="127.0.0.1", port=port, password="hunter2", table_name=table, operation_timeout=0.5)
    with Stopwatch() as watch, pytest.raises(MemoryConnectionError) as caught:
        asyncio.run(create_postgres_provider(config))
    assert watch.seconds < 0.5 + GRACE
    assert str(port) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"database": "missing"}, "no database of that name"), ({"password": "hunter2"}, "refused the password")],
)
def test_a_login_that_is_refused(postgres, table, change, words):
    """A wrong password or database is said at once, is not retried, and no database is created."""
    right = {"host": "127.0.0.1", "port": postgres.port, "database": "jaf", "username": "jaf"}
    config = PostgresConfig(**{**right, "password": servers.PASSWORD, "table_name": table, **change})
    before = postgres.sql("SELECT count(*) FROM pg_database")
    with pytest.raises(MemoryConnectionError, match=words) as caught:
        asyncio.run(create_postgres_provider(config))
    assert caught.value.retryable is False
    assert "hunter2" not in str(caught.value)
    assert postgres.sql("SELECT count(*) FROM pg_database") == before


def test_only_what_the_settings_name_is_connected_to(postgres, table, monkeypatch):
    """With `PG…` variables that lead elsewhere, the provider still connects to the named server and database."""
    for name, text in {"PGHOST": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "postgres", "PGUSER": "nobody"}.items():
        monkeypatch.setenv(name, text)
    seen = []
    original = asyncpg.connect

    async def watched(*positional, **named):
        seen.append((named["host"], named["port"], named["database"], named["user"]))
        return await original(*positional, **named)

    monkeypatch.setattr(asyncpg, "connect", watched)

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", [Message("user", "x")])

    asyncio.run(main())
    assert set(seen) == {("127.0.0.1", postgres.port, "jaf", "jaf")}
