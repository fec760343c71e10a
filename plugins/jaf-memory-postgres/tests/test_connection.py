"""Connections and pools that the application hands over, and what our own pool does with its lines."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest
from jaf_memory_postgres import PostgresBackend, PostgresConfig, create_postgres_provider, errors
from jaf_memory_postgres.names import Names
from jaf_memory_testing.deadlines import GRACE, Stopwatch

from jaf_memory_core import BackendProvider, MemoryQuery, Message
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError


def said(text):
    """One message."""
    return [Message("user", text)]


def test_a_connection_of_the_application(postgres, table):
    """A connection is used by one operation at a time, and stays open and as it was after `close`."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute("SET application_name = 'mine'")
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await provider.store_messages("c", said("0"))
        await asyncio.gather(*(provider.append_messages("c", said(str(n))) for n in range(20)))
        await asyncio.gather(*(provider.store_messages(f"d{n}", said("x")) for n in range(5)))
        assert len((await provider.get_conversation("c")).messages) == 21
        await provider.close()
        assert await connection.fetchval("SHOW application_name") == "mine"
        with pytest.raises(MemoryConnectionError):
            await provider.get_conversation("c")
        await connection.close()

    asyncio.run(main())


def test_a_connection_inside_a_transaction(postgres, table):
    """A connection inside a transaction is refused, at creation and later, and the transaction is left alone."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        config = PostgresConfig(table_name=table)
        async with connection.transaction():
            with pytest.raises(MemoryConfigurationError, match="inside a transaction"):
                await create_postgres_provider(config, connection)
        provider = await create_postgres_provider(config, connection)
        async with connection.transaction():
            await connection.execute(f"CREATE TABLE mine_{table} (x int)")
            with pytest.raises(MemoryConnectionError, match="inside a transaction") as caught:
                await provider.store_messages("c", said("x"))
            assert caught.value.retryable is False
        assert postgres.sql(f"SELECT to_regclass('mine_{table}') IS NOT NULL") == "t"
        assert await provider.get_conversation("c") is None
        await connection.close()

    asyncio.run(main())


def test_a_connection_survives_a_deadline(postgres, table):
    """A write that waits for a lock too long ends in time; the connection stays, outside of any transaction."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        config = PostgresConfig(table_name=table, operation_timeout=2.0)
        provider = await create_postgres_provider(config, connection)
        await provider.store_messages("c", said("x"))
        blocker = await asyncpg.connect(postgres.url())
        async with blocker.transaction():
            await blocker.execute(f"LOCK TABLE {table}__header IN EXCLUSIVE MODE")
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError):
                await provider.store_messages("c", said("y"))
            assert watch.seconds < 2 + GRACE
        await blocker.close()
        await provider.store_messages("c", said("z"))
        assert (await provider.get_conversation("c")).messages[0].content == "z"
        assert not connection.is_closed()
        assert not connection.is_in_transaction()
        await connection.close()

    asyncio.run(main())


def test_a_closed_connection(postgres, table):
    """A connection that is closed is refused; one that closes later recovers from nothing, and says so."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await connection.close()
        with pytest.raises(MemoryConnectionError, match="connection is closed") as caught:
            await provider.get_conversation("c")
        assert caught.value.retryable is False
        with pytest.raises(MemoryConfigurationError, match="connection is closed"):
            await create_postgres_provider(PostgresConfig(table_name=table), connection)

    asyncio.run(main())


def test_something_else_than_a_connection():
    """What is neither a connection nor a pool is refused by name."""
    with pytest.raises(MemoryConfigurationError, match="not a str"):
        asyncio.run(create_postgres_provider(PostgresConfig(), "postgresql://u:hunter2@h/d"))


def test_a_pool_of_the_application(postgres, table):
    """A pool is used by many operations at once, recovers from killed backends, and stays open after `close`."""

    async def main():
        async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=3) as pool:
            provider = await create_postgres_provider(PostgresConfig(table_name=table), pool)
            await provider.store_messages("c", said("0"))
            await asyncio.gather(*(provider.append_messages("c", said(str(n))) for n in range(20)))
            killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await asyncio.to_thread(postgres.sql, killed + " AND backend_type = 'client backend'")
            await provider.append_messages("c", said("after"))
            assert len((await provider.get_conversation("c")).messages) == 22
            await provider.close()
            assert await pool.fetchval("SELECT 1") == 1

    asyncio.run(main())


def test_a_pool_of_another_loop(postgres, table):
    """A pool belongs to its loop: on another one the provider refuses before it touches a socket."""
    loop = asyncio.new_event_loop()

    async def made():
        pool = await asyncpg.create_pool(postgres.url(), min_size=1, max_size=1)
        return pool, await create_postgres_provider(PostgresConfig(table_name=table), pool)

    pool, provider = loop.run_until_complete(made())
    with pytest.raises(MemoryConnectionError, match="another event loop"):
        asyncio.run(provider.get_conversation("c"))
    loop.run_until_complete(pool.close())
    loop.close()


def backends(server, name):
    """How many connections with that application name the server has."""
    return int(server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"))


async def until_backends(count, server, name):
    """Wait until there are so many: the server ends one a moment after its line was closed."""
    end = time.monotonic() + 10
    while (left := await asyncio.to_thread(backends, server, name)) != count:
        assert time.monotonic() < end, left
        await asyncio.sleep(0.05)


def test_bounds_of_our_pool(postgres, table):
    """The pool opens no more than its most, keeps its least, and closes what is idle."""

    async def main():
        config = PostgresConfig(
            connection_string=postgres.url(parameters=f"sslmode=disable&application_name={table}"),
            table_name=table,
            pool_min_size=2,
            pool_max_size=4,
            pool_max_inactive_connection_lifetime=2.0,
        )
        async with await create_postgres_provider(config) as provider:
            assert await asyncio.to_thread(backends, postgres, table) == 2
            await provider.store_messages("c", said("0"))
            # Of one conversation, only two are written to at once.
            await asyncio.gather(*(provider.append_messages(f"c{n}", said(str(n)), create=True) for n in range(40)))
            assert await asyncio.to_thread(backends, postgres, table) == 4
            await until_backends(2, postgres, table)
        await until_backends(0, postgres, table)

    asyncio.run(main())


def test_a_worn_connection_is_replaced(postgres, table):
    """After `pool_max_queries` operations a connection is replaced, and nothing is lost by it."""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table, pool_max_size=1, pool_max_queries=3)
        async with await create_postgres_provider(config) as provider:
            pids = set()
            for n in range(9):
                await provider.append_messages("c", said(str(n)), create=True)
                pids.add(await provider.backend.run(lambda line: line.fetchval("SELECT pg_backend_pid()")))
            assert len(pids) >= 5
            assert len((await provider.get_conversation("c")).messages) == 9

    asyncio.run(main())


def test_a_cancelled_wait_loses_no_connection(postgres, table):
    """Tasks that are cancelled while they wait for the only connection, or use it, leave it to the others."""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table, max_connections=1)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", said("0"))
            for round_ in range(30):
                tasks = [asyncio.ensure_future(provider.get_recent_messages("c")) for _ in range(6)]
                await asyncio.sleep(0.0002 * round_)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert len(await asyncio.wait_for(provider.get_recent_messages("c"), 5)) == 1

    asyncio.run(main())


def test_no_session_state_behind_a_pooler(bouncer, table):
    """Through PgBouncer no prepared statement and no setting stays in the server's sessions."""

    async def main():
        config = PostgresConfig(connection_string=bouncer.url(), table_name=table, pooler=True)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", said("0"))
            await asyncio.gather(*(provider.append_messages("c", said(str(n))) for n in range(50)))
            await provider.set_expiry("c", 60)
            connection = await asyncpg.connect(bouncer.url(), statement_cache_size=0)
            for _ in range(20):
                async with connection.transaction():
                    assert (
                        await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
                    )
                    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
            await connection.close()

    asyncio.run(main())


def test_one_round_trip(postgres, table, monkeypatch):
    """An append and each read are one statement, with nothing before it and nothing behind it."""
    sent = []
    connect = asyncpg.connect

    async def watched(*positional, **named):
        connection = await connect(*positional, **named)
        connection.add_query_logger(lambda query: sent.append(query.query))
        return connection

    monkeypatch.setattr(asyncpg, "connect", watched)

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            await provider.append_messages("c", said("0"), {"a": 1}, user_id="u", create=True)
            capped = await create_postgres_provider(config.model_copy(update={"max_messages": 2}))
            for call in (
                lambda: provider.append_messages("c", said("1")),
                lambda: provider.append_messages("c", said("2"), {"b": 2}),
                lambda: capped.append_messages("c", said("3")),
                lambda: provider.store_messages("new", said("4")),
                lambda: provider.get_recent_messages("c", 20),
                lambda: provider.get_messages("c", before=3),
                lambda: provider.get_conversation("c"),
                lambda: provider.find_conversations(MemoryQuery(user_id="u", metadata={"a": 1})),
                lambda: provider.get_stats("u"),
                provider.health_check,
            ):
                await asyncio.sleep(0)  # the driver tells of a statement in the next turn of the loop
                sent.clear()
                await call()
                await asyncio.sleep(0)
                assert len(sent) == 1, sent
            await capped.close()

    asyncio.run(main())


def test_a_large_conversation(postgres, table, monkeypatch):
    """A conversation that is too large for one value comes as rows, and is the same."""
    statements = Names("public", table).sql
    small = {name: text.replace(statements["large"], "10") for name, text in statements.items()}
    monkeypatch.setattr(Names, "sql", small)

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            messages = [Message("user", str(n), message_id=f"m{n}") for n in range(50)]
            await provider.store_messages("c", messages)
            await provider.store_messages("d", [])
            assert await provider.get_recent_messages("c", 7) == messages[-7:]
            assert list(await provider.get_messages("c", before=20, limit=5)) == messages[15:20]
            found = await provider.find_conversations(MemoryQuery())
            assert {one.conversation_id: len(one.messages) for one in found} == {"c": 50, "d": 0}
            assert [len(one.messages) async for one in provider.iter_conversations()] == [50, 0]

    asyncio.run(main())


def test_a_pooler_without_a_server_is_no_lost_answer():
    """What PgBouncer refuses because it has no server was sent to none, and may be tried again."""
    error = asyncpg.ConnectionDoesNotExistError("connection was closed: server login has been failing, try again later")
    problem = errors.translated(error, "store_messages")
    assert (problem.retryable, problem.outcome) == (True, "not_applied")


def test_errors_quote_nothing():
    """A server's error is told by its class and code, not by its words, which may quote what was sent."""
    error = asyncpg.DataError("invalid input: zqsecret")
    error.sqlstate = "22000"
    assert "zqsecret" not in str(errors.translated(error, "store_messages"))
    assert "22000" in str(errors.translated(error, "store_messages"))


def test_a_cancelled_opening_leaves_nothing(postgres, table):
    """A provider whose opening was cancelled, and that is closed then, leaves no connection behind."""

    async def main():
        url = postgres.url(parameters=f"sslmode=disable&application_name={table}")
        provider = BackendProvider(PostgresBackend(PostgresConfig(connection_string=url, table_name=table)))
        for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
            opening = asyncio.ensure_future(provider.open())
            await asyncio.sleep(delay)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        await provider.close()
        await until_backends(0, postgres, table)

    asyncio.run(main())


def test_variables_of_the_driver_count_for_nothing(postgres, table, monkeypatch):
    """A provider comes where its settings say, whatever stands in the variables that the driver reads."""
    names = (
        *("HOST", "PORT", "USER", "PASSWORD", "DATABASE", "SERVICE", "SERVICEFILE", "SSLMODE", "SSLNEGOTIATION"),
        *("SSLROOTCERT", "SSLCERT", "SSLKEY", "SSLCRL", "SSLMINPROTOCOLVERSION", "SSLMAXPROTOCOLVERSION"),
        *("TARGETSESSIONATTRS", "KRBSRVNAME", "GSSLIB", "OPTIONS", "APPNAME", "CONNECT_TIMEOUT"),
    )
    for name in names:
        monkeypatch.setenv(f"PG{name}", "nonsense")

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            assert await provider.get_conversation("c") is None
            assert provider.backend.config.address.gss == {"krbsrvname": "postgres", "gsslib": "gssapi"}

    asyncio.run(main())
