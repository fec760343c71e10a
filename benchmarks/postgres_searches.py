"""Searches among many conversations in PostgreSQL: `python benchmarks/postgres_searches.py [conversations]`, 200,000.

Shown for each: what the first call on a connection takes, the median of the sixth to the hundredth, for which the
server may keep a plan, and whether a plan that it may keep reads all conversations.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations import queries
from services import postgres_searches
from services import postgres_servers as servers

from jaf_memory_core import MemoryQuery

CALLS = 100
"""Calls of each search on one connection."""

MANY = 200_000
"""Conversations beyond which the table is filled with fewer messages."""

LIMIT = 10
"""Conversations that each search asks for, where it says nothing else."""


def asked(query: MemoryQuery, names: Names) -> tuple[str, list[Any]]:
    """A search as the provider sends it, without messages."""
    fields = {field: getattr(query, field) for field in query.__struct_fields__}
    found = queries.found(MemoryQuery(**fields | {"limit": query.limit or LIMIT, "include_messages": False}), names.sql)
    assert found is not None  # something can match
    return found


async def measured(connection: Any, sql: str, values: list[Any]) -> list[float]:
    """Milliseconds of each call."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await connection.fetch(sql, *values)
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


async def main(count: int) -> bool:
    """Everything, on a server of its own; whether no search reads all."""
    good = True
    names = Names("public", "large")
    settings = {"shared_buffers": "256MB", "max_wal_size": "4GB", "fsync": "off", "maintenance_work_mem": "256MB"}
    with servers.serving(servers.machine(), settings) as server:
        began = time.perf_counter()
        # Searches are measured without messages: many conversations need no more than one each.
        await postgres_searches.fill(server, names, count, messages=5 if count <= MANY else 1)
        took = time.perf_counter() - began
        print(f"{server.sql('SELECT version()').split(' on ')[0]}, {count:,} conversations, made in {took:.0f} s")
        searches = {name: asked(query, names) for name, query in postgres_searches.searches(count).items()}
        searches["purge of nothing"] = (names.sql["lock_expired"], ["nobody", 1_000])
        for name, (sql, values) in searches.items():
            connection = await asyncpg.connect(server.url())
            took = await measured(connection, sql, values)
            walks = await reads_all(connection, sql, values)
            await connection.close()
            good = good and not walks
            print(
                f"{name:<24} first {took[0]:8.2f} ms   sixth to hundredth {statistics.median(took[5:]):8.2f} ms"
                f"   {'READS ALL' if walks else 'by index'}"
            )
    return good


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)))
