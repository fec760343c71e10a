"""Searching many messages: `python benchmarks/searches.py {fill,measure} KIND PLACE [count]`, 100,000 of 20 each.

KIND is sqlite, postgres or redis; PLACE a file, a connection string, a port. Filled are users of 1,000 conversations
each. Shown are a scan of one user, a search over all by the index, both the first page and the last, in milliseconds
and in bytes (that the process reads of the file, or that the server sends); how long the index takes to build, and its
size; appends without it, with it, and by the bare driver; the plan of its query; how long Redis serves nobody else.
"""

# ruff: noqa: SLF001, ASYNC240  (what is measured is inside, and nobody else uses this loop)

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import redis
from msgspec.structs import replace

from jaf_memory_core import BackendProvider, ConversationMemory, MemoryQuery, Message, MessageSearch

MESSAGES, OF_USER = 20, 1_000
STEP = 200
START = datetime(2024, 1, 1, tzinfo=UTC)
ROUNDS = 5
APPENDS = 2_000
CHOSEN = 7
"""The user whose messages are searched."""

SEARCHES = {
    "in 25 of the user's messages": f'"needle{CHOSEN}"',
    "nowhere": "nowhere",
    "in 1 of 10,000 messages": '"pin"',
    "in 1 of 100 messages": '"word500"',
    "in half of the messages": '"word1"',
    "two words, a phrase": '"word20 word30"',
    "a beginning": "word1234",
}


def texts(generator: random.Random, vocabulary: list[str], number: int) -> str:
    """A text of 15 words, few of which are frequent; some messages have a word that hardly any has."""
    words = [vocabulary[min(19_999, int(generator.expovariate(1 / 1_500)))] for _ in range(15)]
    conversation, index = divmod(number, MESSAGES)
    if not index and not conversation % 40:
        words[7] = f"needle{conversation // OF_USER}"
    if not number % 10_000:
        words[9] = "pin"
    if not number % 100:
        words[11] = "word500"
    if number % 2:
        words[13] = "word1"
    return " ".join(words)


def opened(kind: str, place: str, **settings: Any) -> Awaitable[BackendProvider]:
    """A provider."""
    module = importlib.import_module(f"jaf_memory_{kind}")
    if kind == "sqlite":
        config = module.SqliteConfig(path=place, operation_timeout=600, **settings)
    elif kind == "postgres":
        config = module.PostgresConfig(connection_string=place, operation_timeout=600, **settings)
    else:
        config = module.RedisConfig(port=int(place), operation_timeout=600, **settings)
    provider: Awaitable[BackendProvider] = getattr(module, f"create_{kind}_provider")(config)
    return provider


async def fill(kind: str, place: str, count: int) -> None:
    """Make the conversations."""
    generator = random.Random(3)
    vocabulary = [f"w{generator.randrange(16**6):x}" for _ in range(20_000)]
    vocabulary[20:40] = [f"word{n}" for n in range(20, 40)]
    vocabulary[12_340:12_350] = [f"word1234{n}" for n in range(10)]
    began = time.perf_counter()
    async with await opened(kind, place) as provider:
        for start in range(0, count, STEP):
            made = range(start, min(start + STEP, count))
            await provider.import_conversations(
                [
                    ConversationMemory(
                        f"c{n}",
                        f"u{n // OF_USER}",
                        [
                            Message(
                                "assistant" if i % 2 else "user",
                                texts(generator, vocabulary, n * MESSAGES + i),
                                message_id=f"m{i}",
                            )
                            for i in range(MESSAGES)
                        ],
                        {"title": f"talk {n}"},
                        created_at=START + timedelta(seconds=n),
                    )
                    for n in made
                ]
            )
    print(f"{kind}: {count:,} conversations filled in {time.perf_counter() - began:.0f} s")


class Reading:
    """Counts bytes: those that this process reads of files, or those that a server sends."""

    def __init__(self, kind: str, place: str) -> None:
        self._kind, self._place = kind, place

    def total(self, provider: BackendProvider) -> int:
        """Bytes up to now."""
        if self._kind == "sqlite":
            line = Path("/proc/self/io").read_text(encoding="ascii").splitlines()[0]
            return int(line.split()[1])
        if self._kind == "redis":
            with redis.Redis(port=int(self._place)) as client:
                return int(client.info("stats")["total_net_output_bytes"])
        pool = provider.backend._pool  # type: ignore[attr-defined]
        sockets = [one.connection._transport.get_extra_info("socket") for one in _pooled(pool)]
        # `tcpi_bytes_received` of Linux's `struct tcp_info`.
        return sum(int.from_bytes(one.getsockopt(6, 11, 192)[128:136], "little") for one in sockets)


def _pooled(pool: Any) -> list[Any]:
    found = [
        value for value in vars(pool).values() if isinstance(value, (list, set, dict)) or hasattr(value, "popleft")
    ]
    every = itertools.chain.from_iterable(one.values() if isinstance(one, dict) else one for one in found)
    return [one for one in {id(one): one for one in every}.values() if hasattr(one, "connection")]


async def pages(provider: BackendProvider, search: MessageSearch) -> tuple[int, list[float], bool]:
    """How many hits there are, milliseconds of each page, and whether the search met no bound."""
    took, hits, complete = [], 0, True
    while True:
        began = time.perf_counter()
        found = await provider.search_messages(search)
        took.append((time.perf_counter() - began) * 1000)
        hits, complete = hits + len(found), complete and found.complete
        if found.cursor is None or len(took) > 20 or sum(took) > 5_000:
            return hits, took, complete
        search = replace(search, cursor=found.cursor)


async def searched(kind: str, place: str, provider: BackendProvider, what: str, user: str | None) -> None:
    """Each search, the best of some rounds, and once more for the bytes."""
    reading = Reading(kind, place)
    for name, text in SEARCHES.items():
        search = MessageSearch(text, user_id=user)
        before = reading.total(provider)
        await provider.search_messages(search)
        size = reading.total(provider) - before
        rounds = [await pages(provider, search)]
        rounds += [await pages(provider, search) for _ in range(ROUNDS - 1) if sum(rounds[0][1]) < 1_000]
        hits, took, complete = min(rounds, key=lambda one: one[1][0])
        last = min(one[1][-1] for one in rounds)
        print(
            f"  {what}, {name}: {hits} hits on {len(took)} pages{'' if complete else ', bounds met'}; "
            f"first {took[0]:.1f} ms, {size / 1000:,.0f} kB; last {last:.1f} ms; all {sum(took):,.0f} ms",
            flush=True,
        )


async def appended(kind: str, place: str) -> None:
    """Turns of two messages: by the bare driver, without an index, with one; by turns, to a store of its own each."""
    generator = random.Random(5)
    vocabulary = [f"w{generator.randrange(16**6):x}" for _ in range(20_000)]
    took: dict[str, list[float]] = {"by the bare driver": [], "without an index": [], "with an index": []}
    with tempfile.TemporaryDirectory(dir=Path(place).parent if kind == "sqlite" else None) as folder:

        def other(way: str) -> Awaitable[BackendProvider]:
            if kind == "sqlite":
                return opened(kind, f"{folder}/{way}.db", search=way)
            return opened(kind, place, search=way, table_name=f"appends_{way}_{os.getpid()}")

        async with await other("scan") as plain, await other("index") as indexed, bare(kind, place, folder) as driver:
            for n in range(APPENDS):
                turn = [Message(role, texts(generator, vocabulary, 1 + 2 * n)) for role in ("user", "assistant")]
                for way, provider in (("without an index", plain), ("with an index", indexed)):
                    began = time.perf_counter()
                    (await provider.append_messages(f"a{n % 200}", turn, create=True)).unwrap()
                    took[way].append((time.perf_counter() - began) * 1e6)
                began = time.perf_counter()
                await driver(n)
                took["by the bare driver"].append((time.perf_counter() - began) * 1e6)
    for name, each in took.items():
        each.sort()
        print(
            f"  appends of two messages, {name}: mean {statistics.mean(each):.0f} µs, "
            f"median {each[len(each) // 2]:.0f} µs, 99 % {each[len(each) * 99 // 100]:.0f} µs",
            flush=True,
        )


@asynccontextmanager
async def bare(kind: str, place: str, folder: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """The same by the driver: one statement, and nothing else."""
    text = "y" * 200
    if kind == "sqlite":
        with closing(sqlite3.connect(f"{folder}/bare.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE message (c INTEGER, position INTEGER, body TEXT, PRIMARY KEY (c, position))")

            async def insert(n: int) -> None:
                values = (n % 200, 2 * n, text, n % 200, 2 * n + 1, text)
                db.execute("INSERT INTO message VALUES (?, ?, ?), (?, ?, ?)", values)

            yield insert
        return
    connection = await asyncpg.connect(place)
    await connection.execute("CREATE TABLE bare (c bigint, position bigint, body text, PRIMARY KEY (c, position))")
    prepared = await connection.prepare("INSERT INTO bare VALUES ($1, $2, $3), ($1, $4, $3)")

    async def fetch(n: int) -> None:
        await prepared.fetch(n % 200, 2 * n, text, 2 * n + 1)

    yield fetch
    await connection.execute("DROP TABLE bare")
    await connection.close()


async def built(kind: str, place: str) -> None:
    """Build the index under a writer."""
    before = await size(kind, place)
    ended = asyncio.Event()
    async with await opened(kind, place) as writer:
        writing = asyncio.create_task(_until(writer, ended))
        maker = await opened(kind, place)
        began = time.perf_counter()
        print(f"  {await maker.backend.apply_search('index')}")  # type: ignore[attr-defined]
        seconds = time.perf_counter() - began
        await maker.close()
        ended.set()
        count, longest = await writing
    print(
        f"  built in {seconds:.0f} s, {(await size(kind, place) - before) / 1e6:,.0f} MB; "
        f"beside it {count:,} appends, the longest {longest * 1000:.0f} ms",
        flush=True,
    )


async def _until(provider: BackendProvider, ended: asyncio.Event) -> tuple[int, float]:
    count, longest = 0, 0.0
    while not ended.is_set():
        began = time.perf_counter()
        (await provider.append_messages("beside", [Message("user", f"more {count}")], create=True)).unwrap()
        count, longest = count + 1, max(longest, time.perf_counter() - began)
        await asyncio.sleep(0.002)
    return count, longest


async def size(kind: str, place: str) -> int:
    """Bytes of the store."""
    if kind == "sqlite":
        return sum(Path(one).stat().st_size for one in (place, f"{place}-wal") if Path(one).exists())
    connection = await asyncpg.connect(place)
    found = await connection.fetchval("SELECT pg_database_size(current_database())")
    await connection.close()
    return int(found)


async def planned(kind: str, place: str) -> None:
    """Plans of the index's query."""
    from jaf_memory_core.records import Look, Place
    from jaf_memory_core.search import RULE, phrases, terms_asked

    query = MemoryQuery(user_id=f"u{CHOSEN}")
    if kind == "sqlite":
        from jaf_memory_sqlite.operations import queries, search
        from jaf_memory_sqlite.rows import SQL

        asked = Look(query, None, 1_000, phrases('"pin"'))
        match = search._match(terms_asked(asked.asked))
        text, values = queries.newest(query, datetime.now(UTC), SQL["search_proposed"], [match])
        with closing(sqlite3.connect(place)) as db:
            for statement, given in ((text, values), (SQL["search_count"], [match, search.MOST_PROPOSED + 1])):
                print(*(f"    {row[3]}" for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", given)), sep="\n")
        return
    from jaf_memory_postgres.names import Names
    from jaf_memory_postgres.operations import queries as of_postgres
    from jaf_memory_postgres.operations import search as searching

    names = Names("public", "conversations")
    index = searching.Index(names)
    first = (
        searching._match(terms_asked(phrases('"pin"'))),
        searching.MOST_PROPOSED + 1,
        1_001,
        RULE,
        index._message,
        index._triggers,
    )
    place_ = Place(START, START, "c", 0)
    text, values = of_postgres.proposed(replace(query, cursor=place_.cursor), names.sql, first, 201, None)
    connection = await asyncpg.connect(place)
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        rows = await connection.fetch(f"EXPLAIN {text}", *values)
        print(f"    {mode}", *(f"    {row[0]}" for row in rows if "Scan" in row[0]), sep="\n")
    await connection.close()


async def measure(kind: str, place: str) -> None:
    """All of it."""
    user = f"u{CHOSEN}"
    print(f"{kind}, load {os.getloadavg()[0]:.0f}")
    if kind == "redis":
        await blocked(place, user)
        return
    async with await opened(kind, place) as provider:
        await searched(kind, place, provider, "scan of one user", user)
        stands = (await provider.health_check())["details"]["search"].startswith("index (")
    await appended(kind, place)
    if not stands:
        await built(kind, place)
    async with await opened(kind, place, search="index") as provider:
        print("  index:", (await provider.health_check())["details"]["search"])
        await searched(kind, place, provider, "index, one user", user)
        await searched(kind, place, provider, "index, all", None)
    await planned(kind, place)


async def blocked(place: str, user: str) -> None:
    """What a scan costs Redis: SLOWLOG, and how long another client waits."""
    with redis.Redis(port=int(place)) as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 100_000)
        async with await opened("redis", place) as provider:
            await searched("redis", place, provider, "scan of one user", user)
            client.slowlog_reset()
            waits: list[float] = []
            pinging = asyncio.create_task(asyncio.to_thread(ping, place, waits))
            await asyncio.sleep(0.2)
            for _ in range(3):
                await pages(provider, MessageSearch("nowhere", user_id=user))
            waits.append(-1.0)
            await pinging
            ours = [one for one in client.slowlog_get(100_000) if not one["command"].startswith(b"SLOWLOG")]
            slowest = max(ours, key=lambda one: one["duration"])
            command = slowest["command"].split()[0].decode()
            longest = slowest["duration"] / 1000
            print(f"  longest command {longest:.2f} ms ({command}); another client waited {max(waits):.2f} ms")


def ping(place: str, waits: list[float]) -> None:
    """Ask again and again, and note how long each answer takes."""
    with redis.Redis(port=int(place)) as client:
        while not waits or waits[-1] >= 0:
            began = time.perf_counter()
            client.ping()
            waits.append((time.perf_counter() - began) * 1000)
            time.sleep(0.0002)


def main(doing: str, kind: str, place: str, count: str = "100000") -> None:
    """What the first line says."""
    work: Callable[[], Any] = (
        (lambda: fill(kind, place, int(count))) if doing == "fill" else lambda: measure(kind, place)
    )
    asyncio.run(work())


if __name__ == "__main__":
    main(*sys.argv[1:])
