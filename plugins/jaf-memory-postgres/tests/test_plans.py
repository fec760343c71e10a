"""Every query of the provider goes through an index where a filter keeps few, at a size where that matters."""

from __future__ import annotations

import asyncio
import json
import os
import re

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations import queries
from jaf_memory_testing.checks import in_full
from services import postgres_searches
from services.postgres_searches import START, at

from jaf_memory_core import MemoryQuery

COUNT = int(os.environ.get("JAF_TEST_CONVERSATIONS") or (50_000 if in_full() else 20_000))


@pytest.fixture(scope="module")
def large(postgres):
    """A table with many conversations."""
    names = Names("public", "large")

    asyncio.run(postgres_searches.fill(postgres, names, COUNT))
    yield names
    postgres.sql(names.fill(DROP))


@pytest.fixture(scope="module")
def shared(postgres):
    """A table whose conversations belong to ten users, in turn."""
    names = Names("public", "shared")
    asyncio.run(postgres_searches.fill(postgres, names, 20_000, messages=1))
    postgres.sql(names.fill("UPDATE {header} SET user_id = 'u' || substr(conversation_id, 2)::integer % 10"))
    postgres.sql(names.fill("CLUSTER {header} USING {index:created_at}"))
    postgres.sql(names.fill("VACUUM ANALYZE {header}"))
    yield names
    postgres.sql(names.fill(DROP))


DROP = (
    "DROP VIEW {view}; DROP TABLE {header}, {message}, {label}, {layout};"
    "DROP FUNCTION {shown}, {labels}, {admits}, {admits_message}, {refuses}, {keeps}"
)

SEARCHES = postgres_searches.searches(COUNT)


async def explained(server, sql, values):
    """The plan of a statement with its values bound, as the server would choose it for a prepared one."""
    connection = await asyncpg.connect(server.url())
    try:
        return json.loads((await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {sql}", *values))[0])
    finally:
        await connection.close()


def scans(plan):
    """Kinds of all nodes."""
    found = json.dumps(plan)
    return "Seq Scan" in found


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("name", SEARCHES)
def test_find_uses_an_index(postgres, large, name, include):
    """No filter of `find_conversations` that keeps at most one in a hundred reads all conversations."""
    query = SEARCHES[name]
    if not include:
        query = MemoryQuery(
            **{field: getattr(query, field) for field in query.__struct_fields__} | {"include_messages": False}
        )
    sql, values = queries.found(query, large.sql)
    assert not scans(asyncio.run(explained(postgres, sql, values)))


@pytest.mark.parametrize("room", [None, 1 << 20])
@pytest.mark.parametrize("name", [name for name in SEARCHES if not name.startswith("next") and name != "metadata"])
def test_scan_uses_an_index(postgres, large, name, room):
    """No page of `iter_conversations` reads all conversations."""
    sql, values = queries.scanned(SEARCHES[name], (at(100), "c100") if name != "until" else None, 200, large.sql, room)
    assert not scans(asyncio.run(explained(postgres, sql, values)))


def statements(names):
    """Every other statement of the provider, with values for it."""
    sql = names.sql
    arrays = [["m"], ["{}"]]
    return {
        "read": (sql["read"], ["c7"]),
        "tail": (sql["tail"], ["c7", None, 20, None]),
        "page": (sql["tail"], ["c7", 4, 20, "u7"]),
        "short": (sql["short_tail"], ["c7", None, 20, None]),
        "append": (sql["append"], ["c7", None, "u7", None, None, 2, *arrays, 1 << 20]),
        "append_few": (sql["append_2"], ["c7", None, "u7", None, 4, "m", "{}", "n", "{}"]),
        "append_capped": (sql["append_capped"], ["c7", None, "u7", None, None, 2, *arrays, 3, False, 1 << 20]),
        "append_together": (
            sql["append_together"],
            [["c7"], [None], ["u7"], [None], [1], [2], [4], [1, 1], [0, 1], ["m", "n"], ["{}", "{}"]],
        ),
        "tail_together": (sql["tail_together"], [["c7", "c8"], [None, 4], [20, 20], [None, "u8"]]),
        "create": (sql["create"], ["n", "u", "i", "{}", *arrays, 2, False, *[None] * 5]),
        "lock": (sql["lock"], ["c7"]),
        "held": (sql["held"], [7, ["m1"]]),
        "cut": (sql["cut"], [7, 0, 3]),
        "update_header": (sql["update_header"], [7, 2, START, "u", None, None, None, 0, 5, False, 0, None, 0]),
        "newest with gaps": (sql["newest_placed"], ["c7", 0, 9, 20, "u7", 3]),
        "oldest with gaps": (sql["oldest_placed"], ["c7", 2, 1 << 40, 20, None, 0]),
        "pick": (sql["pick"], [7, ["m1", "m2"]]),
        "position_at": (sql["position_at"], [7, 0, 3]),
        "messages_between": (sql["messages_between"], [7, 0, 1 << 40]),
        "position": (sql["position"], [7, "m1", 0]),
        "delete_messages": (sql["delete_messages"], [[7, 8]]),
        "delete_headers": (sql["delete_headers"], [[7, 8]]),
        "last_id": (sql["last_id"], ["u7"]),
        "any_left": (sql["any_left"], ["u7", 1 << 40]),
        "lock_of_user": (sql["lock_of_user"], ["u7", 1 << 40, 500]),
        "lock_expired": (sql["lock_expired"], [None, 1000]),
        "stats of a user": (sql["stats_of_user"], ["u7"]),
        "whole": (sql["whole"], [["c7", "c8"]]),
        "stamps": (sql["stamps"], [["c7", "c8"]]),
    }


@pytest.mark.parametrize("name", statements(Names("public", "large")))
def test_statements_use_an_index(postgres, large, name):
    """No statement on one conversation, one user or what has expired reads all of them."""
    sql, values = statements(large)[name]
    assert not scans(asyncio.run(explained(postgres, sql, values)))


@pytest.mark.parametrize("name", ["read", "tail", "page", "short"])
def test_messages_come_in_the_order_of_their_index(postgres, large, name):
    """No read of messages sorts them: behind a pooler, each would read the whole conversation for the last few."""
    sql, values = statements(large)[name]
    assert "Sort" not in json.dumps(asyncio.run(explained(postgres, sql, values)))


@pytest.mark.parametrize("name", ["append_together", "tail_together"])
@pytest.mark.parametrize("members", [2, 64])
def test_groups_of_any_size_have_one_plan(postgres, large, name, members):
    """The server keeps one plan for groups, which looks up each conversation, and does not plan at each call."""
    sql, values = statements(large)[name]
    values = [value * members for value in values]
    values[0] = [f"none{number}" for number in range(len(values[0]))]
    if name == "append_together":
        values[7] = [999] * len(values[7])  # nobody's

    async def main():
        connection = await asyncpg.connect(postgres.url())
        for _ in range(10):
            assert await connection.fetch(sql, *values) == []
        counted = "SELECT generic_plans FROM pg_prepared_statements WHERE statement = $1"
        kept = await connection.fetchval(counted, sql)
        await connection.close()
        return kept

    assert asyncio.run(main()) == 5
    for mode in ("force_custom_plan", "force_generic_plan"):
        assert not scans(asyncio.run(planned(postgres, sql, values, mode)))


def test_newest_of_a_user_have_one_plan(postgres, large):
    """The server keeps one plan for the newest of a user, and does not plan at each call."""
    sql, values = queries.found(SEARCHES["newest of a user"], large.sql)

    async def main():
        connection = await asyncpg.connect(postgres.url())
        for _ in range(10):
            await connection.fetch(sql, *values)
        counted = "SELECT generic_plans FROM pg_prepared_statements WHERE statement = $1"
        kept = await connection.fetchval(counted, sql)
        await connection.close()
        return kept

    assert asyncio.run(main()) == 5


async def kept(server, sql, values):
    """The plan that the server keeps for a statement on one connection, after so many calls that it has chosen one."""
    connection = await asyncpg.connect(server.url())
    try:
        for _ in range(10):
            await connection.fetch(sql, *values)
        statement = await connection.prepare(f"EXPLAIN (FORMAT JSON) {sql}")
        plans = [json.loads((await statement.fetchrow(*values))[0]) for _ in range(8)]
        return plans[-1]
    finally:
        await connection.close()


def walks(plan):
    """Whether a part of a plan goes through an index in its order without a condition, and without a limit of ours."""
    if isinstance(plan, list):
        return any(map(walks, plan))
    if not isinstance(plan, dict):
        return False
    if plan.get("Node Type") == "Limit" and plan.get("Plan Rows", 0) <= queries.MOST_WALK:
        below = plan.get("Plans", [])
        # A few at a time are sorted within their twentieth of a second.
        below = [
            deep for part in below for deep in (part["Plans"] if part["Node Type"] == "Incremental Sort" else [part])
        ]
        return any(walks(part.get("Plans", [])) for part in below)
    return (plan.get("Node Type") == "Index Scan" and "Index Cond" not in plan) or any(map(walks, plan.values()))


PLACE = (at(5_007), at(5_007), "c5007")

NEWEST = {
    "the first ten": {},
    "the ten behind them": {"offset": 10},
    "ten in the middle": {"cursor": PLACE},
    "ten behind those": {"cursor": PLACE, "offset": 10},
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("page", NEWEST)
def test_the_newest_of_a_user_are_looked_for_among_his(postgres, shared, page, mode):
    """Where few users have all conversations, who lists one's newest walks through nobody else's."""
    query = MemoryQuery(user_id="u7", limit=10, include_messages=False, **NEWEST[page])
    sql, values = queries.found(query, shared.sql)

    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"SET plan_cache_mode = {mode}")
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
        await connection.close()
        return text

    plan = asyncio.run(main())
    assert json.loads(plan)[0]["Plan"]["Actual Rows"] == 10
    # At the place of the cursor there is one that was shown already.
    assert sum(map(int, re.findall(r'"Rows Removed by Filter": (\d+)', plan))) <= 1, plan


@pytest.mark.parametrize("limit", [1, 10])
@pytest.mark.parametrize("name", ["trace", "metadata", "since", "until", "active until", "all together"])
def test_the_plan_that_is_kept_walks_through_nothing(postgres, large, name, limit):
    """From the first call to the hundredth a search with a filter reads some of the newest, and what matches."""
    fields = {field: getattr(SEARCHES[name], field) for field in SEARCHES[name].__struct_fields__}
    query = MemoryQuery(**fields | {"limit": limit, "include_messages": False})
    sql, values = queries.found(query, large.sql)
    for mode in ("force_custom_plan", "force_generic_plan"):
        plan = asyncio.run(planned(postgres, sql, values, mode))
        assert not walks(plan), (mode, json.dumps(plan)[:3000])
    assert not walks(asyncio.run(kept(postgres, sql, values)))


async def planned(server, sql, values, mode):
    """The plan of a statement as the server makes it in a mode."""
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        return json.loads((await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {sql}", *values))[0])
    finally:
        await connection.close()


def test_a_search_is_as_quick_on_the_hundredth_call(postgres, large):
    """A hundred searches for old trace ids on one connection take no longer at the end than at the beginning."""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name="large", max_connections=1)
        async with await create_postgres_provider(config) as provider:
            buffers = []
            connection = await asyncpg.connect(postgres.url())
            sql, values = queries.found(MemoryQuery(trace_id="t7", limit=1, include_messages=False), large.sql)
            statement = await connection.prepare(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
            for _ in range(100):
                plan = json.loads((await statement.fetchrow(*values))[0])[0]["Plan"]
                buffers.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
            await connection.close()
            assert [
                one.conversation_id for one in await provider.find_conversations(MemoryQuery(trace_id="t7", limit=1))
            ]
            return buffers

    buffers = asyncio.run(main())
    assert max(buffers[10:]) <= 3 * max(buffers[:3])
    assert max(buffers) < 200
