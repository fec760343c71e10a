"""Damaged values: one kind of error, which names the conversation, no wrong answer, and listings go on behind it."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis.asyncio as redis
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys
from services import damage

FIELDS = ["f", "id", "inc", "v", "c", "u", "a", "x", "t", "o", "p", "k", "n", "s", 'm:"name"', 'm:"jaf-memory:summary"']
VALUES = [b"", b"x", b"-1", b"1.5", b"9" * 30, b"nan", b"1e400", b"\xff\xfe", b"\0", b"[", b"CONTENT", b"0" * 18, None]
BODIES = [b"", b"null", b"[]", b"{}", b"5", b"\xff\xfe", b'{"role":5,"content":"CONTENT"}', b"[" * 5000, b"x"]
REDIS_TYPES = [("SET", b"CONTENT"), ("RPUSH", b"CONTENT"), ("SADD", b"CONTENT"), ("HSET", b"a", b"CONTENT")]


class Place:
    """A store of five conversations, as often as it is wanted."""

    def __init__(self, port, prefix):
        self.client = redis.Redis(host="127.0.0.1", port=port)
        self.keys = Keys(prefix)
        self.header, self.bodies, self.ids = self.keys.conversation("c2")
        self.config = RedisConfig(port=port, key_prefix=prefix, operation_timeout=10)
        self.stored = {}

    async def fill(self):
        """Store them, and remember each key."""
        async with await create_redis_provider(self.config) as provider:
            await damage.fill(provider)
        for key in await self.client.keys(f"{self.keys.prefix.decode()}*"):
            self.stored[key] = await self.client.dump(key)

    async def sweep(self, damages):
        """What goes wrong of all reads and writes behind each damage."""
        await self.fill()
        wrong = []
        for number, spoil in enumerate(damages):
            for key in await self.client.keys(f"{self.keys.prefix.decode()}*"):
                await self.client.delete(key)
            for key, dump in self.stored.items():
                await self.client.restore(key, 0, dump)
            await spoil(self)
            async with await create_redis_provider(self.config) as provider:
                wrong += [f"{number}: {one}" for one in damage.problems(*await damage.answers(provider))]
        await self.client.aclose()
        return wrong


@pytest.mark.parametrize("field", FIELDS)
def test_damaged_headers(server7, prefix, field):
    """Whatever stands in a field of one header, or nothing, the others are found, and that one can be deleted."""

    def putting(value):
        async def spoil(place):
            if value is None:
                assert await place.client.hdel(place.header, field) == 1
            else:
                await place.client.hset(place.header, field, value)

        return spoil

    assert asyncio.run(Place(server7.port, prefix).sweep(map(putting, VALUES))) == []


@pytest.mark.parametrize("kind", ["flip", "cut", "zero", "spoil"])
def test_spoilt_bytes(server7, prefix, kind):
    """The same for bytes of each field and of a body."""

    def spoiling(seed):
        async def spoil(place):
            fields = await place.client.hgetall(place.header)
            name = random.Random(seed).choice(sorted(fields))
            if fields[name]:
                await place.client.hset(place.header, name, damage.changed(kind, fields[name], seed))
            if seed % 2:
                await place.client.lset(
                    place.bodies, 2, damage.changed(kind, await place.client.lindex(place.bodies, 2), seed)
                )

        return spoil

    assert asyncio.run(Place(server7.port, prefix).sweep(map(spoiling, range(16)))) == []


def test_damaged_bodies(server7, prefix):
    """A body that is no message is told by each read of it."""

    def putting(value):
        async def spoil(place):
            await place.client.lset(place.bodies, 2, value)

        return spoil

    assert asyncio.run(Place(server7.port, prefix).sweep(map(putting, BODIES))) == []


@pytest.mark.parametrize("part", ["header", "bodies", "ids"])
def test_wrong_types(server7, prefix, part):
    """A key that holds another type of Redis's is damage, and goes with its conversation."""

    def putting(value):
        async def spoil(place):
            key = getattr(place, part)
            await place.client.delete(key)
            name, *rest = value
            await place.client.execute_command(name, key, *rest)

        return spoil

    assert asyncio.run(Place(server7.port, prefix).sweep(map(putting, REDIS_TYPES))) == []


ENTRIES = [
    b"",
    b"x",
    b"\xff\xfe",
    b"\0",
    b"0" * 18,
    b"0" * 18 + b"c2",
    b"9" * 30,
    b"c2\0v",
    b"a\0b\0c\0d",
    b"\0\0\0",
    b"x" * 300,
]


@pytest.mark.parametrize("index", ["activity", "creation", "expiry", "user's activity", "user's creation"])
def test_damaged_entries(server7, prefix, index):
    """An entry of an index that names nothing, or cannot be read, hides no conversation and stops nothing."""

    def putting(entry):
        async def spoil(place):
            keys = dict(zip(("activity", "creation"), place.keys.everything, strict=True))
            keys |= dict(zip(("user's activity", "user's creation"), place.keys.owned("u"), strict=True))
            keys["expiry"] = place.keys.expiries
            await place.client.zadd(keys[index], {entry: 0})

        return spoil

    assert asyncio.run(Place(server7.port, prefix).sweep(map(putting, ENTRIES))) == []
