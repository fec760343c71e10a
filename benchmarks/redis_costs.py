"""Redis beside the bare driver: `python benchmarks/redis_costs.py [--json] [--rounds N]`.

One run, one server of its own, everything by turns: a round does some operations of ours, then as many with redis-py
alone (RPUSH of two values of 380 bytes, LRANGE of 20 or 1,000). Shown are medians over the rounds of the ratios within
a round, with the spread of the middle half. The bare driver has none of our promises.
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

import redis.asyncio
from jaf_memory_redis import RedisConfig, create_redis_provider

from jaf_memory_core import BackendProvider, MemoryQuery, Message

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import redis_servers as servers

TEXT = "x" * 300
VALUE = b"x" * 380
"""A message of 300 bytes is encoded in so many."""

LENGTHS = (10, 100, 1_000, 10_000)
STEPS = 40
TASKS = 32
CONVERSATIONS = 10_000

Work = Callable[[int], Awaitable[Any]]


def turn() -> list[Message]:
    """Two messages with ids of their own."""
    return [Message("user", TEXT), Message("assistant", TEXT)]


async def seconds(work: Work, steps: int) -> float:
    """Median of what one step takes."""
    taken = []
    for number in range(steps):
        started = time.perf_counter()
        await work(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


class Comparison:
    """One run: what is measured, and the figures so far."""

    def __init__(self, provider: BackendProvider, bare: redis.asyncio.Redis, rounds: int) -> None:
        self.provider = provider
        self.bare = bare
        self.rounds = rounds
        self.figures: dict[str, dict[str, float]] = {}

    async def compare(self, what: str, ours: Work, bare: Work, steps: int = STEPS) -> None:
        """Both by turns; the ratios, and the medians in microseconds."""
        mine, theirs = [], []
        for _ in range(self.rounds):
            theirs.append(await seconds(bare, steps))
            mine.append(await seconds(ours, steps))
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        self.figures[what] = {
            "ratio": middle,
            "from": low,
            "to": high,
            "ours_us": statistics.median(mine) * 1e6,
            "bare_us": statistics.median(theirs) * 1e6,
        }

    async def histories(self) -> None:
        """One caller, at several lengths."""
        for length in LENGTHS:
            key = f"c{length}"
            await self.provider.store_messages(key, [Message("user", TEXT) for _ in range(length)], user_id="u")
            await self.bare.rpush(f"bare:{key}", *[VALUE] * length)
            await self.compare(
                f"append at {length:,}",
                lambda _number, key=key: self.provider.append_messages(key, turn()),
                lambda _number, key=key: self.bare.rpush(f"bare:{key}", VALUE, VALUE),
            )
            await self.compare(
                f"recent 20 of {length:,}",
                lambda _number, key=key: self.provider.get_recent_messages(key, 20),
                lambda _number, key=key: self.bare.lrange(f"bare:{key}", -20, -1),
            )
        await self.provider.store_messages("whole", [Message("user", TEXT) for _ in range(1_000)])
        await self.bare.rpush("bare:whole", *[VALUE] * 1_000)
        await self.compare(
            "load 1,000",
            lambda _number: self.provider.get_conversation("whole"),
            lambda _number: self.bare.lrange("bare:whole", 0, -1),
            10,
        )

    def growth(self) -> None:
        """What the longest history costs over what the shortest does, ours and bare."""
        for what in ("append at {:,}", "recent 20 of {:,}"):
            short, long = (self.figures[what.format(length)] for length in (LENGTHS[0], LENGTHS[-1]))
            self.figures[what.format(LENGTHS[-1]) + " ÷ at 10"] = {
                "ratio": long["ours_us"] / short["ours_us"],
                "bare_ratio": long["bare_us"] / short["bare_us"],
            }

    async def newest(self) -> None:
        """Ten newest of a user with many conversations."""
        for start in range(0, CONVERSATIONS, 500):
            names = [f"q{number}" for number in range(start, start + 500)]
            await asyncio.gather(*(self.provider.store_messages(name, turn(), user_id="many") for name in names))
            await self.bare.zadd("bare:index", {name: start + at for at, name in enumerate(names)})
            async with self.bare.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.rpush(f"bare:{name}", VALUE, VALUE)
                await pipe.execute()

        async def bare(_number: int) -> None:
            names = await self.bare.zrevrange("bare:index", 0, 9)
            async with self.bare.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.lrange(b"bare:" + name, 0, -1)
                await pipe.execute()

        query = MemoryQuery(user_id="many", limit=10)
        await self.compare(
            f"ten newest of {CONVERSATIONS:,}", lambda _number: self.provider.find_conversations(query), bare
        )

    async def beside(self) -> None:
        """Appends and recent reads of many tasks; the ratio is of throughputs."""
        for number in range(TASKS):
            await self.provider.store_messages(f"t{number}", [Message("user", TEXT) for _ in range(20)])
            await self.bare.rpush(f"bare:t{number}", *[VALUE] * 20)

        async def ours(number: int) -> None:
            await self.provider.append_messages(f"t{number}", turn())
            await self.provider.get_recent_messages(f"t{number}", 20)

        async def bare(number: int) -> None:
            await self.bare.rpush(f"bare:t{number}", VALUE, VALUE)
            await self.bare.lrange(f"bare:t{number}", -20, -1)

        async def together(work: Work) -> None:
            async def task(number: int) -> None:
                for _ in range(20):
                    await work(number)

            await asyncio.gather(*map(task, range(TASKS)))

        name = f"{TASKS} tasks, pairs"
        await self.compare(name, lambda _number: together(ours), lambda _number: together(bare), 3)
        slower = self.figures.pop(name)
        self.figures[f"{name}, throughput"] = {
            "ratio": 1 / slower["ratio"],
            "from": 1 / slower["to"],
            "to": 1 / slower["from"],
        }

    async def memory(self, server: servers.Server) -> None:
        """The server's memory for a conversation, over the bytes of its messages."""
        await self.provider.delete_conversation("whole")
        size = -(await self.provider.get_stats())["total_storage_size"]
        await self.provider.store_messages("whole", [Message("user", TEXT) for _ in range(1_000)])
        size += (await self.provider.get_stats())["total_storage_size"]
        names = self.provider.backend.keys.conversation("whole")
        used = sum(server.command("MEMORY", "USAGE", name.decode(), "SAMPLES", 0) for name in names)
        self.figures["memory for 1,000 messages ÷ their bytes"] = {"ratio": used / size}


async def measure(server: servers.Server, rounds: int) -> dict[str, dict[str, float]]:
    """Everything."""
    async with (
        redis.asyncio.Redis(port=server.port) as bare,
        await create_redis_provider(RedisConfig(port=server.port)) as provider,
    ):
        comparison = Comparison(provider, bare, rounds)
        await comparison.histories()
        comparison.growth()
        await comparison.beside()
        await comparison.newest()
        await comparison.memory(server)
        return comparison.figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--rounds", type=int, default=15, help="how often both take turns")
    chosen = parser.parse_args()
    with servers.single() as server:
        figures = asyncio.run(measure(server, chosen.rounds))
    if chosen.json:
        print(json.dumps(figures, indent=1))
        return
    for what, figure in figures.items():
        rest = "  ".join(f"{name} {value:.2f}" for name, value in figure.items() if name != "ratio")
        print(f"{what:<42}{figure['ratio']:>6.2f}   {rest}")


if __name__ == "__main__":
    main()
