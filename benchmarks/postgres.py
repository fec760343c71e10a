"""PostgreSQL beside the bare driver: `python benchmarks/postgres.py [--json] [--rounds N] [--conversations N]`.

One run, one server of its own, everything by turns: a round does some operations of ours, then as many with asyncpg
alone on one connection (INSERT of one 600-byte row, SELECT of 20 or 1,000). Shown are medians over the rounds of the
ratios within a round, with the spread of the middle half. The bare driver has none of our promises.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
from jaf_memory_postgres import PostgresConfig, create_postgres_provider, queries
from jaf_memory_postgres.names import Names

from jaf_memory_core import MemoryQuery, Message

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import postgres_servers as servers

TEXT = "x" * 240
LENGTHS = (10, 100, 1_000, 10_000)
STEPS = 40
TASKS = 32
NAMES = Names("public", "conversations")

BARE = """
CREATE TABLE turn (id bigserial PRIMARY KEY, conversation text NOT NULL, body text NOT NULL);
CREATE INDEX ON turn (conversation, id);
CREATE TABLE bare (conversation text NOT NULL, position bigint NOT NULL, body text NOT NULL,
    PRIMARY KEY (conversation, position))"""

FILL = """
INSERT INTO {header} (conversation_id, user_id, incarnation, version, metadata, first_position, message_count, size,
    trimmed, created_at, updated_at)
SELECT 'x' || n, 'u' || n % 100, 'i', 1, jsonb_build_object('topic', jsonb_build_array((n % 500)::text)), 0, 2, 600,
    false,
    timestamptz '2024-01-01Z' + n * interval '1 second', timestamptz '2024-01-01Z' + n * interval '1 second'
FROM generate_series(1, $1::integer) AS n"""


def turn() -> list[Message]:
    """What a turn adds: two messages of 300 bytes."""
    return [Message("user", TEXT), Message("assistant", TEXT)]


async def seconds(work: Callable[[], Awaitable[Any]], steps: int) -> float:
    """Seconds for each of so many operations in a row."""
    started = time.perf_counter()
    for _ in range(steps):
        await work()
    return (time.perf_counter() - started) / steps


class Bench:
    """A provider and a bare connection to the same server.

    Args:
        server: where.
        rounds: how many rounds each figure is the median of.
    """

    def __init__(self, server: servers.Server, rounds: int) -> None:
        self._server = server
        self._rounds = rounds
        self.figures: dict[str, dict[str, float]] = {}

    async def open(self, conversations: int) -> None:
        """Connect, and store what is read."""
        config = PostgresConfig(connection_string=self._server.url(), max_connections=10, pool_min_size=10)
        self._ours = await create_postgres_provider(config)
        self._bare = await asyncpg.connect(self._server.url())
        self._pool = await asyncpg.create_pool(self._server.url(), min_size=10, max_size=10)
        await self._bare.execute(BARE)
        for length in LENGTHS:
            await self._ours.store_messages(f"c{length}", [Message("user", TEXT) for _ in range(length)], user_id="u")
            await self._bare.executemany(
                "INSERT INTO bare VALUES ($1, $2, $3)", [(f"c{length}", n, "y" * 300) for n in range(length)]
            )
        for number in range(TASKS):
            await self._ours.store_messages(f"t{number}", [Message("user", TEXT) for _ in range(100)])
            await self._bare.executemany(
                "INSERT INTO bare VALUES ($1, $2, $3)", [(f"t{number}", n, "y" * 300) for n in range(100)]
            )
        await self._bare.execute(NAMES.fill(FILL), conversations)
        await self._bare.execute(NAMES.fill("VACUUM ANALYZE {header}, {message}, bare"))

    async def close(self) -> None:
        """Disconnect."""
        await self._ours.close()
        await self._pool.close()
        await self._bare.close()

    async def compare(
        self, what: str, ours: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], steps: int = STEPS
    ) -> None:
        """Measure two things by turns."""
        ratios, times, others = [], [], []
        for round_ in range(self._rounds + 1):
            mine, theirs = await seconds(ours, steps), await seconds(bare, steps)
            if round_:  # the first warms up
                ratios.append(mine / theirs)
                times.append(mine)
                others.append(theirs)
        low, middle, high = statistics.quantiles(ratios, n=4)
        mine, theirs = (statistics.median(each) * 1e6 for each in (times, others))
        self.figures[what] = {"ratio": middle, "low": low, "high": high, "ours_us": mine, "bare_us": theirs}
        print(f"{what:<48}{middle:>7.2f}  ({low:.2f} to {high:.2f})  {mine:>9.0f} µs, bare {theirs:.0f} µs", flush=True)

    def fetch_last(self, key: str, count: int) -> Callable[[], Awaitable[Any]]:
        """The bare driver's read."""
        query = "SELECT body FROM bare WHERE conversation = $1 ORDER BY position DESC LIMIT $2"
        return lambda: self._bare.fetch(query, key, count)

    async def single(self) -> None:
        """One task."""
        for length in LENGTHS:
            key = f"c{length}"
            await self.compare(
                f"append a turn, at {length}",
                lambda key=key: self._ours.append_messages(key, turn()),
                lambda key=key: self._bare.execute(
                    "INSERT INTO turn (conversation, body) VALUES ($1, $2)", key, "y" * 600
                ),
            )
        for length in LENGTHS:
            key = f"c{length}"
            read = self.fetch_last(key, 20)
            await self.compare(f"recent 20, at {length}", lambda key=key: self._ours.get_recent_messages(key, 20), read)
        await self.compare(
            "load 1,000", lambda: self._ours.get_recent_messages("c10000", 1_000), self.fetch_last("c10000", 1_000), 10
        )
        query = MemoryQuery(user_id="u7", limit=10, include_messages=False)
        by_key = NAMES.fill("SELECT * FROM {header} WHERE id = $1")
        await self.compare(
            "ten newest of a user ÷ SELECT by primary key",
            lambda: self._ours.find_conversations(query),
            lambda: self._bare.fetchrow(by_key, 500),
        )
        newest = NAMES.fill("SELECT * FROM {header} WHERE user_id = $1 ORDER BY updated_at DESC LIMIT 10")
        await self.compare(
            "ten newest of a user ÷ the same by hand",
            lambda: self._ours.find_conversations(query),
            lambda: self._bare.fetch(newest, "u7"),
        )
        select, values = queries.found(query, NAMES) or ("", [])
        await self.compare(
            "its statement alone ÷ SELECT by primary key",
            lambda: self._bare.fetch(select, *values),
            lambda: self._bare.fetchrow(by_key, 500),
        )

    async def beside(self) -> None:
        """Many tasks at once."""
        insert = "INSERT INTO turn (conversation, body) VALUES ($1, $2)"
        select = "SELECT body FROM bare WHERE conversation = $1 ORDER BY position DESC LIMIT 20"

        async def ours(number: int) -> None:
            await self._ours.append_messages(f"t{number}", turn())
            await self._ours.get_recent_messages(f"t{number}", 20)

        async def bare(number: int) -> None:
            async with self._pool.acquire() as line:
                await line.execute(insert, f"t{number}", "y" * 600)
                await line.fetch(select, f"t{number}")

        await self.compare(
            f"{TASKS} tasks: append and recent, time ÷ bare pool",
            lambda: asyncio.gather(*map(ours, range(TASKS))),
            lambda: asyncio.gather(*map(bare, range(TASKS))),
            5,
        )

    async def wal(self) -> None:
        """Bytes of the write-ahead log that one append costs, beside the bare INSERT's."""
        for what, work in (
            ("at 10", lambda: self._ours.append_messages("c10", turn())),
            ("at 10,000", lambda: self._ours.append_messages("c10000", turn())),
            (
                "bare INSERT",
                lambda: self._bare.execute("INSERT INTO turn (conversation, body) VALUES ('w', $1)", "y" * 600),
            ),
        ):
            await self._bare.execute("CHECKPOINT")
            for _ in range(200):  # pages that a checkpoint left are logged whole once
                await work()
            before = await self._bare.fetchval("SELECT pg_current_wal_insert_lsn()")
            for _ in range(1_000):
                await work()
            after = await self._bare.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", before)
            self.figures[f"WAL an append, {what}"] = {"bytes": float(after) / 1_000}
            print(f"{'WAL an append, ' + what:<48}{float(after) / 1_000:>7.0f}  bytes")


async def measure(server: servers.Server, rounds: int, conversations: int) -> dict[str, dict[str, float]]:
    """All figures."""
    bench = Bench(server, rounds)
    await bench.open(conversations)
    try:
        await bench.single()
        await bench.beside()
        await bench.wal()
    finally:
        await bench.close()
    for kind in ("append a turn", "recent 20"):
        ends = [bench.figures[f"{kind}, at {length}"] for length in (LENGTHS[0], LENGTHS[-1])]
        growth = ends[1]["ours_us"] / ends[0]["ours_us"]
        ratio = ends[1]["ratio"] / ends[0]["ratio"]
        bench.figures[f"{kind}: 10,000 ÷ 10"] = {"of_times": growth, "of_ratios": ratio}
        print(f"{kind + ': cost at 10,000 ÷ at 10':<48}{growth:>7.2f}  (of ratios {ratio:.2f})")
    return bench.figures


def main() -> None:
    """Read the arguments, start a server, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--newest", action="store_true", help="on the newest PostgreSQL instead of the machine's own")
    options = parser.parse_args()
    programs = servers.newest() if options.newest else servers.machine()
    with servers.serving(programs, {"shared_buffers": "256MB"}) as server:
        print(server.sql("SELECT version()").split(" on ")[0])
        figures = asyncio.run(measure(server, options.rounds, options.conversations))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
