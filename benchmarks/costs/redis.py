"""What Redis holds for a conversation, and how long it works for an append."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from benchmarks.backends.redis import Ours
from benchmarks.figures import Figure
from benchmarks.payload import WHOLE

HELD = "memory for 1,000 messages ÷ their bytes"
WORKED = "the server's own time for an append"


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
        held = Figure("costs", "", HELD, value=used / size, ours=float(used), theirs=float(size))
        return [held, await _worked(ours, client, order["appends"])]
    finally:
        await client.aclose()
        await ours.close()


async def _used(client: redis.asyncio.Redis) -> int:
    """Bytes of all keys, as the server counts them."""
    return sum([await client.memory_usage(name, samples=0) or 0 async for name in client.scan_iter(count=1_000)])


async def _worked(ours: Ours, client: redis.asyncio.Redis, appends: int) -> Figure:
    """Microseconds in the commands of an append, as the server counts them: without reading and answering."""
    for times in (appends // 10, appends):  # the first makes it warm
        await client.config_resetstat()
        for _ in range(times):
            await ours.append("whole")
    found = await client.info("commandstats")
    spent = sum(stats["usec"] for name, stats in found.items() if name.startswith(("cmdstat_eval", "cmdstat_fcall")))
    return Figure("costs", "", WORKED, unit="µs", value=spent / appends)
