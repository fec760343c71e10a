"""Redis: our provider, and redis-py's client with the pool that it makes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import redis.asyncio

from benchmarks import competitors, processors
from benchmarks.payload import BODY, HEADER, owner

TOGETHER = 500
"""Commands of one pipeline."""


class Ours(competitors.Ours):
    """The provider `redis`."""

    async def open(self) -> None:
        """Connect."""
        from jaf_memory_redis import RedisConfig, create_redis_provider

        self.provider = await create_redis_provider(RedisConfig(port=self.place["port"]))


class Bare(competitors.Competitor):
    """The client alone: a list for each conversation, and a sorted set for each user."""

    name = "redis-py"

    async def open(self) -> None:
        """Connect."""
        # Beyond a hundred tasks its pool would refuse; each task of a thousand has a connection this way.
        self.redis = redis.asyncio.Redis(port=self.place["port"], max_connections=2_000)

    async def close(self) -> None:
        """Disconnect."""
        await self.redis.aclose()

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        await self.redis.rpush(f"bare:{key}", *[BODY] * length)

    async def fill_crowd(self, count: int) -> None:
        """So many conversations of one turn each."""
        for numbers in _parts(iter(range(count)), TOGETHER):
            async with self.redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.rpush(f"bare:x{number}", BODY, BODY)
                    pipe.set(f"bare:header:x{number}", HEADER)
                    pipe.zadd(f"bare:of:{owner(number)}", {f"x{number}": number})
                await pipe.execute()

    async def server(self) -> int | None:
        """The server's process."""
        return int((await self.redis.info("server"))["process_id"]) if processors.HAVE_PROC else None

    async def append(self, key: str) -> object:
        """RPUSH of two values."""
        return await self.redis.rpush(f"bare:{key}", BODY, BODY)

    async def recent(self, key: str, limit: int) -> object:
        """LRANGE of the last ones."""
        return await self.redis.lrange(f"bare:{key}", -limit, -1)

    async def load(self, key: str) -> object:
        """LRANGE of all."""
        return await self.redis.lrange(f"bare:{key}", 0, -1)

    async def newest(self, user: str, *, with_messages: bool) -> object:
        """ZREVRANGE, then a pipeline for the ten."""
        names = await self.redis.zrevrange(f"bare:of:{user}", 0, 9)
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(b"bare:header:" + name)
                if with_messages:
                    pipe.lrange(b"bare:" + name, 0, -1)
            return await pipe.execute()

    async def bulk_import(self, conversations: list[tuple[str, list[str]]]) -> None:
        """RPUSH of all, in pipelines."""
        for part in _parts(iter(conversations), TOGETHER):
            async with self.redis.pipeline(transaction=False) as pipe:
                for key, bodies in part:
                    pipe.rpush(f"bare:{key}", *bodies)
                await pipe.execute()

    async def bulk_export(self) -> int:
        """SCAN, and LRANGE of all in pipelines; how many bytes."""
        names = [name async for name in self.redis.scan_iter("bare:*", count=TOGETHER)]
        size = 0
        for part in _parts(iter(names), TOGETHER):
            async with self.redis.pipeline(transaction=False) as pipe:
                for name in part:
                    pipe.lrange(name, 0, -1)
                size += sum(len(body) for bodies in await pipe.execute() for body in bodies)
        return size


def _parts(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while part := list(islice(items, size)):
        yield part
