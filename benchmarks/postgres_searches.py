"""Searches among many conversations in PostgreSQL: `python benchmarks/postgres_searches.py [conversations]`, 200,000.

Shown for each: what the first call on a connection takes, the median and the slowest of the sixth to the hundredth, for
which the server may keep a plan, and whether a plan that it may keep reads all conversations. Statistics of everybody's
conversations read them all; nothing else may.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations import queries
from services import postgres_searches
from services import postgres_servers as servers

from jaf_memory_core import ManagedMemoryProvider, MemoryQuery

CALLS = 100
"""Calls of each search on one connection."""

MANY = 200_000
"""Conversations beyond which the table is filled with fewer messages."""

LIMIT = 10
"""Conversations that each search asks for, where it says nothing else."""


WALKS = "stats of all"
"""What reads all conversations, as it has to."""


def asked(query: MemoryQuery, names: Names, *, whole: bool = False) -> tuple[str, list[Any]]:
    """A search as the provider sends it, with messages or without."""
    fields = {field: getattr(query, field) for field in query.__struct_fields__}
    found = queries.found(MemoryQuery(**fields | {"limit": query.limit or LIMIT, "include_messages": whole}), names.sql)
    assert found is not None  # something can match
    return found


def statements(count: int, names: Names) -> dict[str, tuple[str, list[Any]]]:
    """Everything that looks among all conversations."""
    searches = postgres_searches.searches(count)
    listed = ("newest of a user", "metadata")
    return {
        **{name: asked(query, names) for name, query in searches.items()},
        **{f"{name}, with messages": asked(searches[name], names, whole=True) for name in listed},
        "stats of a user": (names.sql["stats_of_user"], ["u7"]),
        WALKS: (names.sql["stats"], []),
        "purge of nothing": (names.sql["lock_expired"], ["nobody", 1_000]),
    }


def methods(provider: ManagedMemoryProvider) -> dict[str, Callable[[], Awaitable[object]]]:
    """What an application calls for a list, and for an overview."""
    newest = MemoryQuery(user_id="u7", limit=LIMIT, include_messages=False)
    topic = MemoryQuery(metadata={"topic": 7}, limit=LIMIT, include_messages=False)
    return {
        "newest of a user": partial(provider.find_conversations, newest),
        "metadata": partial(provider.find_conversations, topic),
        "stats of a user": partial(provider.get_stats, "u7"),
        WALKS: provider.get_stats,
    }


async def measured(call: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each call."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1000)
    return took


async def reads_all(connection: Any, sql: str, values: list[Any]) -> bool:
    """Whether the plan for all values, or that for these, reads all conversations."""
    plans = []
    for mode in ("force_generic_plan", "force_custom_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        plans += [row[0] for row in await connection.fetch(f"EXPLAIN {sql}", *values)]
    await connection.execute("RESET plan_cache_mode")
    return any("Seq Scan" in line for line in plans)


def told(name: str, took: list[float], what: str = "") -> None:
    """Print a line."""
    rest = took[5:]
    times = f"first {took[0]:8.2f} ms   then {statistics.median(rest):8.2f} ms, slowest {max(rest):8.2f} ms"
    print(f"{name:<38} {times}   {what}".rstrip(), flush=True)


async def main(count: int) -> bool:
    """Everything, on a server of its own; whether no search reads all."""
    good = True
    names = Names("public", "large")
    settings = {"shared_buffers": "256MB", "max_wal_size": "4GB", "fsync": "off", "maintenance_work_mem": "256MB"}
    with servers.serving(servers.machine(), settings) as server:
        began = time.perf_counter()
        # Few searches are measured with messages: many conversations need no more than one each.
        await postgres_searches.fill(server, names, count, messages=5 if count <= MANY else 1)
        took = time.perf_counter() - began
        print(f"{server.sql('SELECT version()').split(' on ')[0]}, {count:,} conversations, made in {took:.0f} s")
        for name, (sql, values) in statements(count, names).items():
            connection = await asyncpg.connect(server.url())
            times = await measured(partial(connection.fetch, sql, *values))
            walks = await reads_all(connection, sql, values)
            await connection.close()
            good = good and (not walks or name == WALKS)
            told(name, times, "READS ALL" if walks else "by index")
        config = PostgresConfig(connection_string=server.url(), table_name=names.table)
        async with await create_postgres_provider(config) as provider:
            for name, call in methods(provider).items():
                told(f"by the provider, {name}", await measured(call))
    return good


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)))
