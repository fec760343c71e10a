"""What Redis holds for a conversation."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from benchmarks.backends.redis import Ours
from benchmarks.figures import Figure
from benchmarks.payload import WHOLE

HELD = "memory for 1,000 messages ÷ their bytes"


async def measure(order: dict[str, Any]) -> list[Figure]:
    """The server's memory for all keys of a conversation, indexes with them, over the bytes of its messages."""
    ours = Ours(order["place"])
    await ours.open()
    client = redis.asyncio.Redis(port=order["place"]["port"])
    try:
        before = await _used(client)
        await ours.fill("whole", WHOLE)
        used = await _used(client) - before
        size = (await ours.provider.get_stats())["total_storage_size"]
        return [Figure("costs", "", HELD, value=used / size, ours=float(used), theirs=float(size))]
    finally:
        await client.aclose()
        await ours.close()


async def _used(client: redis.asyncio.Redis) -> int:
    """Bytes of all keys, as the server counts them."""
    return sum([await client.memory_usage(name, samples=0) or 0 async for name in client.scan_iter(count=1_000)])
