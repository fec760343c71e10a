"""Rows that somebody holds, callers that give up, and what the server is left with."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from contextlib import asynccontextmanager

import asyncpg
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_testing.checks import in_full

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConnectionError


def said(text):
    """One message."""
    return [Message("user", text)]


def config_of(server, table, **settings):
    """Settings by whose name the server knows our connections."""
    url = server.url(parameters=f"sslmode=disable&application_name={table}")
    return PostgresConfig(connection_string=url, table_name=table, **settings)


@asynccontextmanager
async def held(server, table, conversation_id):
    """A conversation's row is locked by somebody who forgot to commit."""
    connection = await asyncpg.connect(server.url())
    try:
        async with connection.transaction():
            await connection.execute(
                f"SELECT FROM {table}__header WHERE conversation_id = $1 FOR UPDATE", conversation_id
            )
            yield
    finally:
        await connection.close()


def backends(server, table):
    """How many of our connections the server has."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}'"
    return int(server.sql(query))


def test_backends_stay_within_the_pool(postgres, table):
    """However often operations time out on a row that is held, the server never has more backends than the pool."""

    async def main():
        most = 0
        config = config_of(postgres, table, operation_timeout=1.0, max_connections=5)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("hot", said("0"))
            await provider.store_messages("cold", said("0"))
            async with held(postgres, table, "hot"):
                for _ in range(8 if in_full() else 3):
                    calls = (provider.append_messages("hot", said("x")) for _ in range(5))
                    results = await asyncio.gather(*calls, return_exceptions=True)
                    assert all(isinstance(result, MemoryConnectionError) for result in results)
                    most = max(most, await asyncio.to_thread(backends, postgres, table))
                    assert await provider.get_conversation("cold") is not None
            assert most <= 5
            assert len((await provider.get_conversation("hot")).messages) <= 3

    asyncio.run(main())


def test_what_was_never_sent_is_known(postgres, table):
    """Of those that time out at a held row, only the two that reached the server are in doubt."""

    async def main():
        config = config_of(postgres, table, operation_timeout=1.0, max_connections=4)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("hot", said("0"))
            async with held(postgres, table, "hot"):
                calls = (provider.append_messages("hot", said(str(n))) for n in range(8))
                errors = await asyncio.gather(*calls, return_exceptions=True)
            return [error.outcome for error in errors]

    assert sorted(asyncio.run(main())) == ["not_applied"] * 6 + ["unknown"] * 2


def test_a_held_row_starves_nobody(postgres, table):
    """While many wait for one row, another conversation and `health_check` are answered at once."""

    async def main():
        config = config_of(postgres, table, operation_timeout=20.0, max_connections=4)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("hot", said("0"))
            await provider.store_messages("cold", said("0"))
            async with held(postgres, table, "hot"):
                waiting = [asyncio.ensure_future(provider.append_messages("hot", said(str(n)))) for n in range(50)]
                await asyncio.sleep(0.3)
                began = time.monotonic()
                for n in range(10):
                    await provider.append_messages("cold", said(str(n)))
                    assert (await provider.health_check())["healthy"] is True
                assert time.monotonic() - began < 5
                assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)
            messages = (await provider.get_conversation("hot")).messages
            assert [message.content for message in messages] == [str(n) for n in range(50)] or len(messages) == 51

    asyncio.run(main())


def test_cancelled_operations_say_nothing(postgres, table):
    """A thousand cancelled operations leave no exception that nobody took, no task and no connection too many."""
    noise = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context["message"]))
        url = postgres.url(parameters=f"application_name={table}")
        config = PostgresConfig(connection_string=url, table_name=table, max_connections=5)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", [])

            async def impatient(number):
                try:
                    async with asyncio.timeout(random.random() * 0.02):
                        await provider.append_messages("c", said(str(number)))
                except TimeoutError:
                    pass

            for start in range(0, 1000, 50):
                await asyncio.gather(*(impatient(number) for number in range(start, start + 50)))
            await provider.append_messages("c", said("end"))
            assert await asyncio.to_thread(backends, postgres, table) <= 5
        gc.collect()
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert noise == []


def test_locks_are_taken_in_one_order(postgres, table):
    """Forks, clearing, appends and imports beside each other never wait in a circle."""
    before = postgres.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'jaf'")

    async def main():
        async with await create_postgres_provider(config_of(postgres, table, max_connections=10)) as provider:
            end = time.monotonic() + (4 if in_full() else 1.5)

            async def mixed():
                while time.monotonic() < end:
                    one, other = f"c{random.randrange(8)}", f"c{random.randrange(8)}"
                    kind = random.randrange(4)
                    if kind == 0:
                        await provider.append_messages(one, said("x"), user_id="u", create=True)
                    elif kind == 1:
                        await provider.clear_user_conversations("u")
                    else:
                        await asyncio.gather(provider.fork_conversation(one, other), return_exceptions=True)

            await asyncio.gather(*(mixed() for _ in range(12)))

    asyncio.run(main())
    time.sleep(0.6)  # the server's counters lag
    assert postgres.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'jaf'") == before
