"""An append leaves indexes and metadata alone, beside an old snapshot too; a store of 0.1.0 is brought there."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider, migrations
from jaf_memory_postgres.names import Names
from jaf_memory_testing import slow
from jaf_memory_testing.checks import in_full
from services import postgres_faults as faults
from services import postgres_servers as servers
from services.postgres_tables import config_of

from jaf_memory_core import ConversationMemory, MemoryQuery, Message, codec
from jaf_memory_core.errors import MemoryConfigurationError

STORED = Path(__file__).parent / "stored" / "layout_1.sql"

DIGESTS = {
    "plain": "242da2868b87bbe554a47233f7ae2dabc5695a8c55f804b2bfe6d88ef4722c77",
    "labelled": "23bf93d243488f62ca9d6d756a1550bb03c0c84330d2fab649527e674763a044",
    "kept": "29266a3f7ba541227b6cb4484ab076bbaf005b6b033fb4ac3af9dd95a084ae48",
}
"""Of what stands in `stored`, as version 0.1.0 told them."""

UNLIKE = """
SELECT count(*) FROM {header} AS header FULL JOIN {label} AS label ON label.conversation = header.id
WHERE label.metadata IS DISTINCT FROM nullif(header.metadata, '{}')"""


async def appended(provider, conversation, count):
    """Seconds that each of so many turns took."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        (await provider.append_messages(conversation, [Message("user", "x" * 200), Message("user", "y")])).unwrap()
        took.append(time.perf_counter() - began)
    return took


def test_a_store_of_version_0_1_is_upgraded(postgres, table):
    """What 0.1.0 wrote is upgraded in place, reads back with its digests, is found, and takes appends."""
    postgres.sql(f"CREATE DATABASE {table}", "postgres")
    role = f"app_{table}"
    postgres.sql(f"CREATE ROLE {role}")
    postgres.sql(STORED.read_text(encoding="utf-8"), table)
    postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON talks__header, talks__message TO {role}", table)

    async def main():
        config = PostgresConfig(connection_string=postgres.url(table), table_name="talks")
        async with await create_postgres_provider(config) as provider:
            for key, digest in DIGESTS.items():
                found = await provider.get_conversation(key)
                assert codec.digest(found) == digest
                # Nothing else is known of what changed last.
                assert found.active_at == found.updated_at
            listed = [one.conversation_id for one in await provider.find_conversations(MemoryQuery())]
            await provider.set_expiry("plain", None)
            assert [one.conversation_id for one in await provider.find_conversations(MemoryQuery())] == listed
            (changed,) = await provider.find_conversations(MemoryQuery(user_id="u1", updated_since=found.updated_at))
            assert changed.conversation_id == "plain"
            assert [one.conversation_id for one in await provider.find_conversations(MemoryQuery(trace_id="t1"))] == [
                "labelled"
            ]
            assert [one.conversation_id for one in await provider.find_conversations(MemoryQuery(user_id="u1"))] == [
                "labelled",
                "plain",
            ]
            assert await provider.purge_expired() == 1
            for key in DIGESTS:
                await appended(provider, key, 1)

    asyncio.run(main())
    assert postgres.sql(Names("public", "talks").fill(UNLIKE), table) == "0"
    # Whoever could write before has rights on what is new.
    assert postgres.sql(f"SET ROLE {role}; SELECT count(*) FROM talks__label", table) == "2"


def test_many_processes_upgrade_at_once(postgres, table):
    """Processes that start at once on the tables of 0.1.0 all come up: one of them upgrades, and nothing is lost."""
    postgres.sql(STORED.read_text(encoding="utf-8").replace("talks", table))
    assert faults.started_at_once(postgres, table, 16 if in_full() else 4) == 0
    assert postgres.sql(f"SELECT count(*) FROM {table}__layout") == str(len(migrations.migrations()))
    assert postgres.sql(f"SELECT count(*) FROM {table}__header WHERE amended_at IS NULL") == "4"


def test_metadata_are_searched_as_they_stand(postgres, table):
    """Whatever changes metadata changes what searches look in: creating, appending, patching, copying, erasing."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            for key in "abcdef":
                await provider.store_messages(key, [Message("user", "x")], {"n": 1, key: 1} if key != "f" else None)
            await provider.append_messages("a", [Message("user", "y")], {"n": 2})
            await provider.update_metadata("b", {"n": None})
            await provider.update_metadata("c", {"n": 3})
            await provider.delete_conversation("d")
            await provider.store_messages("e", [Message("user", "z")], {"n": 4})
            await provider.fork_conversation("c", "g")
            await provider.append_messages("f", [Message("user", str(n)) for n in range(6)], {"late": True})
            return {
                n: {one.conversation_id for one in await provider.find_conversations(MemoryQuery(metadata={"n": n}))}
                for n in range(1, 5)
            }

    assert asyncio.run(main()) == {1: set(), 2: {"a"}, 3: {"c", "g"}, 4: {"e"}}
    assert postgres.sql(Names("public", table).fill(UNLIKE)) == "0"
    assert postgres.sql(f"SELECT count(*) FROM {table}__label") == "6"


def test_an_append_leaves_metadata_alone(postgres, table):
    """An append to a conversation with 10,000 keys writes hardly more than one to a conversation without any."""

    async def main():
        connection = await asyncpg.connect(postgres.url())
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            for suffix in ("header", "label", "message"):  # what it writes would count, too
                await connection.execute(f"ALTER TABLE {table}__{suffix} SET (autovacuum_enabled = false)")
            written = {}
            for count in (0, 10_000):
                await provider.store_messages(
                    "c", [Message("user", "x")], {f"key {n}": f"value {n}" for n in range(count)}
                )
                await appended(provider, "c", 5)
                await connection.execute("CHECKPOINT")
                await appended(provider, "c", 5)  # after a checkpoint a page goes to the log as a whole, once
                before = await connection.fetchval("SELECT pg_current_wal_lsn()")
                await appended(provider, "c", 50)
                written[count] = await connection.fetchval("SELECT (pg_current_wal_lsn() - $1) / 50", before)
        await connection.close()
        return written

    written = asyncio.run(main())
    assert written[10_000] < 2 * written[0] + 4_000, written


def test_an_append_leaves_indexes_alone(postgres, table):
    """Of the appends of a twentieth of a second, one makes new entries in the indexes of the headers."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table, ttl=3_600.0)) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": 1}, user_id="u")
            began = time.monotonic()
            await asyncio.gather(*(appended(provider, "c", 50) for _ in range(8)))
            return time.monotonic() - began

    seconds = asyncio.run(main())
    counted = f"SELECT n_tup_upd, n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{table}__header'"
    for _ in range(100):
        updated, elsewhere = map(int, postgres.sql(counted).split("|"))
        if updated >= 400:
            break
        time.sleep(0.1)
    # One for each twentieth of a second that begins meanwhile, and a few for full pages.
    assert elsewhere <= 20 + 21 * seconds


async def beside_an_old_snapshot(server, table, count):
    """Blocks that the last append looks at, and how long appends take before and after `count` beside a snapshot."""
    connection, old = await asyncpg.connect(server.url()), await asyncpg.connect(server.url())
    async with await create_postgres_provider(config_of(server, table)) as provider:
        await provider.store_messages("c", [Message("user", "x")], {"a": 1}, user_id="u")
        usual = statistics.median(await appended(provider, "c", 50))
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        await appended(provider, "c", count)
        last = statistics.median(await appended(provider, "c", 50))
        statement = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {Names('public', table).sql['append_1']}"
        plan = json.loads(
            (await connection.fetchrow(statement, "c", None, None, None, 2, "last", '{"role":"user"}'))[0]
        )[0]["Plan"]
    await old.close()
    await connection.close()
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], usual, last


def test_appends_beside_an_old_snapshot(postgres, table):
    """While an old snapshot is open, 1,000 appends to one conversation leave the next far fewer blocks to look at."""
    blocks, _, _ = asyncio.run(beside_an_old_snapshot(postgres, table, 1_000))
    assert blocks < 2_000, blocks  # with an entry an append in each index, 8,000


@slow("5,000 appends beside an old snapshot")
def test_many_appends_beside_an_old_snapshot(postgres, table):
    """After 5,000 of them an append takes at most three times what it takes without."""
    _, usual, last = asyncio.run(beside_an_old_snapshot(postgres, table, 5_000))
    assert last < 3 * usual, (usual, last)


@pytest.mark.parametrize(
    "lost", ["DROP TABLE {0}__label", "DROP FUNCTION {0}__keeps CASCADE", "DROP TRIGGER {0}__keeps_made ON {0}__header"]
)
def test_what_is_searched_is_made_again(postgres, table, lost):
    """A copy of the metadata that is gone, or was not kept for a while, is made again by a start, from the headers."""

    async def main():
        for key in "ab":
            async with await create_postgres_provider(config_of(postgres, table)) as provider:
                await provider.store_messages(key, [Message("user", "x")], {"n": key})
                if key == "b":
                    assert len(await provider.find_conversations(MemoryQuery(metadata={"n": "a"}, limit=1))) == 1
            await asyncio.to_thread(postgres.sql, lost.format(table))

    asyncio.run(main())
    asyncio.run(main_of(postgres, table))
    assert postgres.sql(Names("public", table).fill(UNLIKE)) == "0"


def test_a_session_without_triggers_is_refused(postgres, table):
    """A session that switches triggers off would change metadata behind the back of searches, and is refused."""
    url = f"{postgres.url()}&session_replication_role=replica"
    with pytest.raises(MemoryConfigurationError, match="session_replication_role"):
        asyncio.run(create_postgres_provider(PostgresConfig(connection_string=url, table_name=table)))


def test_a_role_whose_sessions_lose_their_triggers(postgres, table):
    """Where a role is set so after the start, its next session is refused, and nothing is written in it."""
    role = f"r{table}"

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            await provider.store_messages("a", [Message("user", "x")], {"n": 1})
        url = postgres.url().replace("//jaf:", f"//{role}:")
        async with await create_postgres_provider(PostgresConfig(connection_string=url, table_name=table)) as provider:
            postgres.sql(f"ALTER ROLE {role} SET session_replication_role = replica")
            postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
            # A read is repeated where it meets the lost connection, and so gets to the new one for certain.
            with pytest.raises(MemoryConfigurationError, match="session_replication_role"):
                await provider.get_conversation("a")
            with pytest.raises(MemoryConfigurationError, match="session_replication_role"):
                await provider.update_metadata("a", {"n": 2})
            postgres.sql(f"ALTER ROLE {role} RESET session_replication_role")
            await provider.update_metadata("a", {"n": 3})
            assert len(await provider.find_conversations(MemoryQuery(metadata={"n": 3}))) == 1

    postgres.sql(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{servers.PASSWORD}'")
    try:
        asyncio.run(main())
    finally:
        postgres.sql(f"DROP ROLE {role}")


async def main_of(server, table):
    """A start, and nothing else."""
    async with await create_postgres_provider(config_of(server, table)):
        pass


def test_first_and_last_moment(postgres, table):
    """Times that other languages write for "not set" and "never" are kept as moments, and read back."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    times = {"created_at": first, "active_at": first, "updated_at": last, "expires_at": last}
    given = [ConversationMemory(f"c{n}", messages=[Message("user", "a", message_id="a")], **times) for n in range(3)]

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            (await provider.import_conversation(given[0])).unwrap()
            results = await provider.import_conversations(given)
            assert [result.unwrap().added for result in results] == [0, 1, 1]
            found = await provider.find_conversations(MemoryQuery())
            assert len(found) == 3
            for one in found:
                told = {name: getattr(one, name) for name in times}
                assert all(abs(told[name] - times[name]) <= datetime.resolution for name in times), told

    asyncio.run(main())
