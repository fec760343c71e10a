"""Servers that fail under load: nothing acknowledged is lost or doubled, and the provider goes on by itself.

`benchmarks/postgres_faults.py` does the same twenty times.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import traceback

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, backend, create_postgres_provider
from jaf_memory_testing.checks import in_full
from jaf_memory_testing.deadlines import GRACE, Stopwatch
from services import postgres_faults as faults
from services import postgres_servers as servers
from services.ports import free_port

from jaf_memory_core import MemoryQuery, Message
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryNotFoundError, MemoryStorageError

ROUNDS = 3 if in_full() else 1
"""How often something is killed."""


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
    flawless(asyncio.run(faults.killed_backends(postgres, table, rounds=ROUNDS)))


def test_killed_server(postgres, table):
    """`kill -9` of the whole server neither."""
    flawless(asyncio.run(faults.killed_server(postgres, table, rounds=ROUNDS)))


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

        async def in_time(call):
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError):
                await call
            assert watch.seconds < 1 + GRACE

        server.pause()
        try:
            await in_time(provider.get_conversation("c"))
            await asyncio.gather(
                in_time(provider.append_messages("c", [Message("user", "y")])),
                in_time(provider.store_messages("c", [Message("user", "y")])),
                in_time(provider.find_conversations(MemoryQuery())),
                in_time(provider.delete_conversation("d")),
            )
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


WRITES = {
    "append": lambda provider: provider.append_messages("c", [Message("user", "y")]),
    "store": lambda provider: provider.store_messages("c", [Message("user", "y")]),
    "create": lambda provider: provider.store_messages("new", []),
    "metadata": lambda provider: provider.update_metadata("c", {"a": 1}),
    "expiry": lambda provider: provider.set_expiry("c", 60),
    "delete": lambda provider: provider.delete_conversation("c"),
    "truncate": lambda provider: provider.truncate_conversation_after("c", "m"),
    "fork": lambda provider: provider.fork_conversation("c", "d"),
    "clear": lambda provider: provider.clear_user_conversations("u"),
    "purge": lambda provider: provider.purge_expired(),
}


def test_a_read_only_server_means_one_thing(postgres, table):
    """A server that cannot write, by its own setting, is left by each write, in the same words."""
    url = f"{postgres.url()}&default_transaction_read_only=on"

    async def main():
        plain = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(plain) as provider:
            await provider.store_messages("c", [Message("user", "x", message_id="m")], user_id="u")
        config = PostgresConfig(connection_string=url, table_name=table, operation_timeout=20.0, reconnect_timeout=0.6)
        async with await create_postgres_provider(config) as provider:
            assert await provider.get_conversation("c") is not None

            async def refused(write):
                with pytest.raises(MemoryConnectionError, match=r"read-only.*25006") as caught:
                    await write(provider)
                assert caught.value.retryable is True

            await asyncio.gather(*map(refused, WRITES.values()))
            assert len((await provider.get_conversation("c")).messages) == 1

    asyncio.run(main())


def test_writes_recover_when_an_address_leads_to_the_primary_again(postgres, standby, table):
    """Each write that met a standby works by itself once the same address leads to the primary."""
    leads_to = standby

    async def forwarded(reader, writer):
        other = await asyncio.open_connection("127.0.0.1", leads_to.port)

        async def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, other[1]), pump(other[0], writer))

    async def main():
        nonlocal leads_to
        async with await create_postgres_provider(
            PostgresConfig(connection_string=postgres.url(), table_name=table)
        ) as provider:
            await provider.store_messages("c", [Message("user", "x", message_id="m")], user_id="u")
        await asyncio.to_thread(standby.catch_up, postgres)
        async with contextlib.AsyncExitStack() as open_ones:
            relay = await open_ones.enter_async_context(await asyncio.start_server(forwarded, "127.0.0.1", 0))
            port = relay.sockets[0].getsockname()[1]
            url = f"postgresql://jaf:{servers.PASSWORD}@127.0.0.1:{port}/jaf?sslmode=disable"
            config = PostgresConfig(
                connection_string=url, table_name=table, operation_timeout=20.0, reconnect_timeout=2.0
            )
            providers = {
                name: await open_ones.enter_async_context(await create_postgres_provider(config)) for name in WRITES
            }

            async def refused(name):
                with pytest.raises(MemoryConnectionError, match="read-only"):
                    await WRITES[name](providers[name])

            await asyncio.gather(*map(refused, WRITES))
            leads_to = postgres
            for name, write in WRITES.items():
                try:
                    await write(providers[name])
                except MemoryNotFoundError:
                    assert name in ("metadata", "expiry", "truncate", "fork")

    asyncio.run(main())


def test_causes_hold_no_values(postgres, table):
    """The driver's error goes along as the cause of ours, and a traceback shows no value of a row or a statement."""
    word = "zqcard4111"

    async def main():
        async with await create_postgres_provider(
            PostgresConfig(connection_string=postgres.url(), table_name=table)
        ) as provider:
            await provider.store_messages("c", [])
            postgres.sql(f"ALTER TABLE {table}__message ADD CHECK (body NOT LIKE '%zqcard%')")
            postgres.sql(f"ALTER TABLE {table}__header ADD CHECK (metadata::text NOT LIKE '%zqcard%')")
            appended = await provider.append_messages("c", [Message("user", word)])
            stored = await provider.store_messages("c", [Message("user", word)])
            with pytest.raises(MemoryStorageError) as caught:
                await provider.update_metadata("c", {"a": word})
            return appended.error, stored.error, caught.value

    for error in asyncio.run(main()):
        assert "23514" in str(error)
        assert word not in "".join(traceback.format_exception(error))


def test_an_erasure_of_many_that_is_stopped(postgres, table, monkeypatch):
    """An erasure that fails behind its first step has outcome unknown, and leaves the rest for the next."""

    def end_the_second(provider):
        locked, calls = provider.backend._locked, itertools.count()

        async def ended(key, work):
            if next(calls) == 1:
                raise MemoryConnectionError("no server is there")
            return await locked(key, work)

        provider.backend._locked = ended

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            for n in range(3):
                await provider.store_messages(f"c{n}", [Message("user", "x")], user_id="u")
            monkeypatch.setattr(backend, "STEP", 1)
            end_the_second(provider)
            with pytest.raises(MemoryError) as caught:
                await provider.clear_user_conversations("u")
            assert caught.value.outcome == "unknown"
            assert (await provider.get_stats("u"))["user_conversations"] == 2
            assert await provider.clear_user_conversations("u") == 2

    asyncio.run(main())
