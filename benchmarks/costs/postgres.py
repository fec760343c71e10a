"""What PostgreSQL writes for an append, and what the search's statement alone takes."""

from __future__ import annotations

from typing import Any

import asyncpg
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations import queries

from benchmarks.backends.postgres import Bare, Ours
from benchmarks.figures import Figure
from benchmarks.measurement import Case, by_turns
from jaf_memory_core import MemoryQuery

WARM = 200
"""Appends before it counts: a page that a checkpoint left is logged whole once."""

WAL = "bytes of write-ahead log, an append"
STATEMENT = "ten newest: the statement alone ÷ SELECT by primary key"


async def measure(order: dict[str, Any]) -> list[Figure]:
    """All of it, on a filled store."""
    ours, bare = Ours(order["place"]), Bare(order["place"])
    await ours.open()
    await bare.open()
    try:
        return [
            *[await _log(ours, bare.line, f"c{length}-0", f"at {length:,}", order) for length in (10, 10_000)],
            await _log(bare, bare.line, "bare", "bare INSERT", order),
            await _statement(bare.line, order["rounds"]),
        ]
    finally:
        await ours.close()
        await bare.close()


async def _log(one: Any, line: asyncpg.Connection, key: str, name: str, order: dict[str, Any]) -> Figure:
    """Bytes of the write-ahead log that one append costs."""
    await line.execute("CHECKPOINT")
    for _ in range(WARM):
        await one.append(key)
    before = await line.fetchval("SELECT pg_current_wal_insert_lsn()")
    for _ in range(order["appends"]):
        await one.append(key)
    written = await line.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", before)
    return Figure("costs", "", WAL, None, name, unit="bytes", value=float(written) / order["appends"])


async def _statement(line: asyncpg.Connection, rounds: int) -> Figure:
    names = Names("public", "conversations")
    select, values = queries.found(MemoryQuery(user_id="u7", limit=10, include_messages=False), names.sql) or ("", [])
    by_key = names.fill("SELECT * FROM {header} WHERE conversation_id = $1")
    works = {
        "statement": lambda _number: line.fetch(select, *values),
        "by key": lambda _number: line.fetchrow(by_key, "x77"),
    }
    case = Case(STATEMENT, None, 20, works)
    await by_turns([case], rounds)
    ratios = sorted(case.ratios("statement", "by key"))
    value, ours, theirs = ratios[len(ratios) // 2], case.median("statement"), case.median("by key")
    return Figure("costs", "", STATEMENT, value=value, ours=ours, theirs=theirs)
