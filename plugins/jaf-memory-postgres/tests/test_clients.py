"""What an application does to a connection or a pool that it has handed over, and what we do to it."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.connection.clients import KINDS
from jaf_memory_postgres.names import Names

from jaf_memory_core import MemoryQuery, Message
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError
from jaf_memory_core.results import Success


def said(text):
    """One message."""
    return [Message("user", text)]


async def handed(kind, server, **settings):
    """A connection or a pool, and how it is closed."""
    if kind == "pool":
        pool = await asyncpg.create_pool(server.url(), min_size=1, max_size=2, **settings)
        return pool, pool.close
    connection = await asyncpg.connect(server.url())
    if "init" in settings:
        await settings["init"](connection)
    return connection, connection.close


@pytest.mark.parametrize("operation", ["store", "metadata", "delete", "append"])
def test_a_cancelled_write_leaves_no_transaction(postgres, table, operation):
    """Wherever a write is cancelled, the application's connection is in no transaction, and its own writes stay."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"CREATE TABLE mine_{table} (x int)")
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await provider.store_messages("c", said("0"))
        calls = {
            "store": lambda: provider.store_messages("c", said("1")),
            "metadata": lambda: provider.update_metadata("c", {"a": 1}),
            "delete": lambda: provider.delete_conversation("none"),
            "append": lambda: provider.append_messages("c", said("2")),
        }
        for turns in range(1, 40, 2):
            task = asyncio.ensure_future(calls[operation]())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await provider.get_recent_messages("c", 1)
            assert not connection.is_in_transaction()
            await connection.execute(f"INSERT INTO mine_{table} VALUES ($1)", turns)
        await provider.close()
        await connection.close()

    asyncio.run(main())
    assert postgres.sql(f"SELECT count(*) FROM mine_{table}") == "20"


@pytest.mark.parametrize("kind", ["connection", "pool"])
def test_a_codec_for_json_changes_nothing(postgres, table, kind):
    """With the usual codecs for jsonb and json all is stored and read as without them."""

    async def init(connection):
        for name in ("jsonb", "json"):
            await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async def main():
        client, close = await handed(kind, postgres, init=init)
        provider = await create_postgres_provider(PostgresConfig(table_name=table), client)
        metadata = {"topic": "x", "n": 1, "deep": {"a": [1, None]}}
        await provider.store_messages("c", said("0"), metadata, user_id="u")
        await provider.append_messages("c", said("1"), {"k": "v"})
        await provider.update_metadata("c", {"z": 2})
        await provider.fork_conversation("c", "d")
        expected = {"topic": "x", "n": 1, "deep": {"a": [1, None]}, "k": "v", "z": 2, "user_id": "u"}
        assert (await provider.get_conversation("c")).metadata == expected
        found = await provider.find_conversations(MemoryQuery(metadata={"k": "v"}))
        assert {one.conversation_id for one in found} == {"c", "d"}
        await provider.close()
        await close()
        async with await create_postgres_provider(
            PostgresConfig(connection_string=postgres.url(), table_name=table)
        ) as plain:
            assert (await plain.get_conversation("c")).metadata == expected

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["connection", "pool"])
@pytest.mark.parametrize("name", ["timestamptz", "int8", "text", "varchar", "bool", "float8", "record"])
def test_a_codec_that_would_change_values_is_refused(postgres, table, kind, name):
    """A codec of a type in which we store or read is refused at the start, by the type's name."""

    async def init(connection):
        await connection.set_type_codec(name, encoder=str, decoder=lambda text: f"<{text}>", schema="pg_catalog")

    async def main():
        client, close = await handed(kind, postgres, init=init)
        with pytest.raises(MemoryConfigurationError, match=f"codec of its own for {name}"):
            await create_postgres_provider(PostgresConfig(table_name=table), client)
        await close()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["text", "varchar"])
def test_a_codec_that_changes_some_values_is_refused(postgres, table, name):
    """A codec that keeps most texts, and not the spaces at their ends, is refused as well."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.set_type_codec(name, encoder=str.strip, decoder=str.strip, schema="pg_catalog")
        with pytest.raises(MemoryConfigurationError, match=f"codec of its own for {name}"):
            await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await connection.close()

    asyncio.run(main())


def test_codecs_are_looked_at_for_all_types(postgres, table):
    """No statement sends or reads a type whose codec is not looked at: one for any other type does no harm."""

    async def main():
        async with await create_postgres_provider(PostgresConfig(connection_string=postgres.url(), table_name=table)):
            pass
        connection = await asyncpg.connect(postgres.url())
        seen = set()
        for text in Names("public", table).sql.values():
            try:
                statement = await connection.prepare(text)
            except asyncpg.PostgresError:
                continue  # a fragment, or of an adoption that has not begun
            kinds = [*statement.get_parameters(), *(one.type for one in statement.get_attributes())]
            seen |= {kind.name.removesuffix("[]") for kind in kinds}
        await connection.close()
        assert {"text", "timestamptz", "record"} <= seen <= {*KINDS}

    asyncio.run(main())


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
def test_another_client_encoding_is_refused(postgres, table, encoding):
    """A connection that cannot send every text is refused at the start, and told of where it comes to be one later."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"SET client_encoding = '{encoding}'")
        with pytest.raises(MemoryConfigurationError, match=f"client_encoding {encoding}.*UTF8"):
            await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await connection.execute("RESET client_encoding")
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await connection.execute(f"SET client_encoding = '{encoding}'")
        answer = await provider.store_messages("c", said("\u20ac\U0001f642"))
        assert "client_encoding" in str(answer.error)
        assert await provider.get_conversation("c") is None
        await connection.close()

    asyncio.run(main())


def test_a_connection_that_went_back_to_its_pool(postgres, table):
    """A connection that the application gave back to its pool is refused at once, each time, and by its reason."""

    async def main():
        pool = await asyncpg.create_pool(postgres.url(), min_size=1, max_size=1)
        connection = await pool.acquire()
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await provider.store_messages("c", said("0"))
        await pool.release(connection)
        for _ in range(3):
            with pytest.raises(MemoryConnectionError, match="given back to its pool") as caught:
                await provider.append_messages("c", said("1"))
            assert (caught.value.retryable, caught.value.outcome) == (False, "not_applied")
        assert not (await provider.health_check())["healthy"]
        await provider.close()
        with pytest.raises(MemoryConfigurationError, match="given back to its pool"):
            await create_postgres_provider(PostgresConfig(table_name=table), connection)
        # The pool lends it to others as it was.
        assert await pool.fetchval("SELECT 1") == 1
        await pool.close()

    asyncio.run(main())


def test_a_pool_that_was_never_opened(postgres, table):
    """A pool that nobody awaited is refused at once, in words that say what is missing."""

    async def main():
        pool = asyncpg.create_pool(postgres.url())
        with pytest.raises(MemoryConnectionError, match="never opened") as caught:
            await create_postgres_provider(PostgresConfig(table_name=table), pool)
        assert not caught.value.retryable

    asyncio.run(main())


def test_tables_that_are_altered_under_a_transaction(postgres, table):
    """A statement whose plan somebody's ALTER TABLE has spoilt is tried again, in a transaction too."""

    async def main():
        async with await create_postgres_provider(
            PostgresConfig(connection_string=postgres.url(), table_name=table, max_connections=1)
        ) as provider:
            await provider.store_messages("c", said("0"))
            await provider.update_metadata("c", {"a": 1})
            postgres.sql(f"DROP VIEW {table}; ALTER TABLE {table}__header ALTER conversation_id TYPE text")
            await provider.update_metadata("c", {"a": 2})
            assert (await provider.get_conversation("c")).metadata == {"a": 2}

    asyncio.run(main())


def test_statements_of_the_application_between_ours_are_refused(postgres, table):
    """While the provider works on a connection, the application's statements on it are refused, and none is lost."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"CREATE TABLE mine_{table} (x int)")
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await provider.store_messages("c", said("0"))
        acknowledged = refused = 0

        async def mine():
            nonlocal acknowledged, refused
            while not done.is_set():
                try:
                    await connection.execute(f"INSERT INTO mine_{table} VALUES ($1)", acknowledged)
                    acknowledged += 1
                except asyncpg.InterfaceError:
                    refused += 1
                await asyncio.sleep(0)

        done = asyncio.Event()
        task = asyncio.ensure_future(mine())
        for n in range(60):
            # Refused by its rules, so that its transaction is rolled back.
            await provider.truncate_conversation_after("c", "none")
            await provider.append_messages("c", said(str(n)))
            assert await provider.delete_conversation("none") is False
        done.set()
        await task
        await provider.close()
        assert refused
        assert await connection.fetchval(f"SELECT count(*) FROM mine_{table}") == acknowledged
        await connection.close()

    asyncio.run(main())


@pytest.mark.parametrize("statement", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_prepared_statements_that_the_application_drops(postgres, table, statement):
    """What the application does to the prepared statements of its connection is mended by the next operation."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        await provider.store_messages("c", said("0"))
        await provider.append_messages("c", said("1"))
        await connection.execute(statement)
        assert isinstance(await provider.append_messages("c", said("1")), Success)
        assert len(await provider.get_recent_messages("c")) == 3
        await connection.close()

    asyncio.run(main())


def test_undoing_leaves_no_gap(postgres, table):
    """From a failure amid our transaction to its ROLLBACK no statement of the application can join it."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"CREATE TABLE mine_{table} (x int)")
        provider = await create_postgres_provider(PostgresConfig(table_name=table), connection)
        acknowledged = 0

        async def work(mine):
            await mine.execute("BEGIN")
            # The next of its turns comes right behind the failure.
            tasks.append(asyncio.ensure_future(insert()))
            raise TypeError

        async def insert():
            nonlocal acknowledged
            while True:
                try:
                    await connection.execute(f"INSERT INTO mine_{table} VALUES (1)")
                except asyncpg.InterfaceError:
                    await asyncio.sleep(0)
                else:
                    acknowledged += 1
                    return

        tasks = []
        for _ in range(10):
            with pytest.raises(TypeError):
                await provider.backend.run(work)
            await asyncio.gather(*tasks)
        assert not connection.is_in_transaction()
        assert await connection.fetchval(f"SELECT count(*) FROM mine_{table}") == acknowledged == 10
        await provider.close()
        await connection.close()

    asyncio.run(main())
