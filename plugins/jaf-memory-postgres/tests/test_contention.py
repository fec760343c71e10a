"""Many writers on one conversation, beside others that erase."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from jaf_memory_postgres import PostgresConfig, create_postgres_provider

from jaf_memory_core import Message

WRITER = """
import asyncio, json, sys
from jaf_memory_core import Message
from jaf_memory_postgres import PostgresConfig, create_postgres_provider

async def write(provider, name, count):
    for n in range(count):
        batch = [Message("user", "x" * 50, message_id=f"{name}.{n}.{part}") for part in range(2)]
        result = await provider.append_messages("shared", batch)
        assert result.data.added == 2, result

async def disturb(provider, name, count):
    for n in range(count):
        await provider.append_messages(f"victim{n % 5}", [Message("user", "x")], user_id="victim", create=True)

async def main(url, table, name, tasks, count):
    config = PostgresConfig(connection_string=url, table_name=table, operation_timeout=120.0)
    async with await create_postgres_provider(config) as provider:
        work = [write(provider, f"{name}-{task}", count) for task in range(tasks)]
        await asyncio.gather(*work, disturb(provider, name, count))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
"""

PROCESSES, TASKS, APPENDS = 4, 16, 4


def test_one_conversation_from_four_processes(postgres, table):
    """16 tasks in each of 4 processes lose nothing, double nothing, tear no batch and keep their order.

    Beside them, two clear another user's conversations without pause, and leave no orphan behind.
    """

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table, operation_timeout=120.0)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("shared", [])
            command = [sys.executable, "-c", WRITER, postgres.url(), table]
            writers = [
                await asyncio.create_subprocess_exec(
                    *command, f"p{n}", str(TASKS), str(APPENDS), stderr=subprocess.PIPE
                )
                for n in range(PROCESSES)
            ]
            running = asyncio.gather(*(writer.communicate() for writer in writers))
            cleared = await asyncio.gather(*(clear_while(provider, running) for _ in range(2)))
            for writer, (_, errors) in zip(writers, await running, strict=True):
                assert writer.returncode == 0, errors.decode()
            await provider.append_messages("victim0", [Message("user", "x")], user_id="victim", create=True)
            assert await provider.clear_user_conversations("victim") >= 1
            assert sum(cleared) > 0
            return await provider.get_conversation("shared")

    async def clear_while(provider, running):
        cleared = 0
        while not running.done():
            cleared += await provider.clear_user_conversations("victim")
            await asyncio.sleep(0)
        return cleared

    found = [message.message_id for message in asyncio.run(main()).messages]
    expected = {
        f"p{p}-{t}.{n}.{part}"
        for p in range(PROCESSES)
        for t in range(TASKS)
        for n in range(APPENDS)
        for part in range(2)
    }
    assert len(found) == len(expected)
    assert set(found) == expected
    assert all(
        one[:-1] == other[:-1] and (one[-1], other[-1]) == ("0", "1")
        for one, other in zip(found[::2], found[1::2], strict=True)
    )
    last = {}
    for key in found[::2]:
        writer, number, _ = key.rsplit(".", 2)
        assert last.get(writer, -1) < int(number)
        last[writer] = int(number)
    orphans = postgres.sql(
        f"SELECT count(*) FROM {table}__message WHERE conversation NOT IN (SELECT id FROM {table}__header)"
    )
    assert orphans == "0"
    gaps = f"SELECT max(position) + 1 - count(*), min(position) FROM {table}__message"
    assert postgres.sql(gaps) == "0|0"
    assert json.loads(postgres.sql(f"SELECT jsonb_array_length(messages) FROM {table}")) == len(expected)


def test_a_small_cap_under_contention(postgres, table):
    """With a cap of three, many writers never leave more, and never a message that counts for nothing."""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table, max_messages=3)
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", [])
            await asyncio.gather(
                *(provider.append_messages("c", [Message("user", "x"), Message("user", "y")]) for _ in range(100))
            )
            conversation = await provider.get_conversation("c")
            stats = await provider.get_stats()
            return conversation, stats

    conversation, stats = asyncio.run(main())
    assert (len(conversation.messages), conversation.version) == (3, 101)
    rows = postgres.sql(f"SELECT count(*), min(position), sum(octet_length(body)) FROM {table}__message")
    assert rows == f"3|197|{stats['total_storage_size']}"


def test_whoever_clears_is_done_when_it_returns(postgres, table):
    """Of several who clear one user at once, none returns before all of it is gone."""
    fill = f"""
    INSERT INTO {table}__header (conversation_id, user_id, incarnation, version, metadata, first_position,
        message_count, size, trimmed, created_at, updated_at)
    SELECT 'c' || n, 'u', 'i', 1, '{{}}', 0, 0, 0, false, now(), now() FROM generate_series(1, 1700) AS n"""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            await asyncio.to_thread(postgres.sql, fill)

            async def clear():
                cleared = await provider.clear_user_conversations("u")
                return cleared, (await provider.get_stats("u"))["total_conversations"]

            return await asyncio.gather(*(clear() for _ in range(4)))

    answers = asyncio.run(main())
    assert [left for _, left in answers] == [0] * 4
    assert sum(cleared for cleared, _ in answers) == 1700
