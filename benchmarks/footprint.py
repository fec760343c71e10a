"""Bytes that a stored message takes on each store: `python -m benchmarks.footprint [--store …] [--conversations 500]`.

Conversations of 20 messages are stored, with an owner and metadata; counted is what the store has grown by: the file,
the tables with their indexes, the server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from benchmarks.competitors import Place
from benchmarks.servers import STAGES
from jaf_memory_core import Message, codec

MESSAGES = 20
SIZES = (300, 3_000)
LETTERS = random.Random(7)  # the same ones each time
METADATA = {"title": "Where is my order?", "topic": "orders"}


def message(size: int) -> Message:
    """A message of so many bytes, encoded, of letters that cannot be compressed much."""
    empty = len(codec.encode(Message("user", "")))
    return Message("user", "".join(LETTERS.choices(ascii_lowercase + " ", k=size - empty)))


def of_file(place: Place) -> Callable[[], int]:
    """The size of a file of SQLite's, with what waits in its log put into it."""
    import sqlite3

    path = Path(place["folder"], "ours.db")

    def size() -> int:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size

    return size


def of_redis(place: Place) -> Callable[[], int]:
    """The memory that a Redis server uses."""
    import redis

    def size() -> int:
        with redis.Redis(port=place["port"]) as client:
            memory: dict[str, Any] = client.info("memory")
            return int(memory["used_memory"])

    return size


def of_postgres(place: Place) -> Callable[[], int]:
    """The size of a database's tables and indexes, once the dead rows of the filling have been taken away."""
    import asyncpg

    async def asked() -> int:
        connection = await asyncpg.connect(place["url"])
        try:
            await connection.execute("VACUUM")
            return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        finally:
            await connection.close()

    return lambda: asyncio.run(asked())


WAYS: dict[str, Callable[[Place], Callable[[], int]]] = {
    "sqlite": of_file,
    "redis": of_redis,
    "postgres": of_postgres,
}


async def fill(store: str, place: Place, count: int, size: int) -> None:
    """Store so many conversations of messages of that size; none only makes the store."""
    ours = import_module(f"benchmarks.backends.{store}").Ours({**place, "filling": True})
    await ours.open()
    try:
        for number in range(count):
            said = [message(size) for _ in range(MESSAGES)]
            await ours.provider.store_messages(
                f"user-{number % 50}:{number}", said, METADATA, user_id=f"user-{number % 50}"
            )
    finally:
        await ours.close()


def measured(store: str, place: Place, count: int, size: int) -> float:
    """Bytes a message."""
    asyncio.run(fill(store, place, 0, size))
    weigh = WAYS[store](place)
    before = weigh()
    asyncio.run(fill(store, place, count, size))
    return (weigh() - before) / (count * MESSAGES)


def main() -> None:
    """Every store, on servers of its own."""
    parser = argparse.ArgumentParser(prog="footprint", description="Measure the bytes that a stored message takes.")
    parser.add_argument("--store", nargs="+", choices=WAYS, default=tuple(WAYS), help="on these stores")
    parser.add_argument("--conversations", type=int, default=500, help=f"so many, of {MESSAGES} messages each")
    chosen = parser.parse_args()
    print(f"| store | {' | '.join(f'a message of {size:,} bytes' for size in SIZES)} |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="jaf-footprint-") as folder:
        for store in chosen.store:
            cells = []
            with STAGES[store](Path(folder), lambda _place: None) as stage:
                for size in SIZES:
                    with stage.empty() as place:
                        cells.append(f"{measured(store, place, chosen.conversations, size):,.0f}")
            print(f"| {store} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
