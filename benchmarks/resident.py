"""Proofs about memory: what a process holds while it reads a large store, and after a million operations."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.competitors import Ours
from benchmarks.figures import Figure
from benchmarks.payload import messages, turn
from jaf_memory_core.transfer import export

MB = 1_000_000
SETTLED = 10_000
"""Operations after which a process should have all that it needs."""

WORKERS = 8
KEYS = 64
"""The operations go to so many conversations, made anew from time to time, so that what they hold stays the same."""

ANEW = 40
"""Operations on one conversation until it is made anew."""

PEAK_IN_MEMORY = "peak beyond what the store holds"
PEAK = "peak of the process"


def resident(peak: bool = False) -> int:  # noqa: FBT001, FBT002  (two words of one file)
    """Bytes of memory that the process has, or has had at most since `forget_peak`."""
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


async def reading(ours: Ours, order: dict[str, Any]) -> list[Figure]:
    """Iterate over all conversations, or export them, and see what the process takes."""
    count: int = order["conversations"]
    base = 0
    if order["backend"] == "memory":
        await ours.fill_crowd(count)
        base = resident()
    forget_peak()
    seen = 0
    if order["how"] == "export":
        async for _ in export(ours.provider):
            seen += 1
    else:
        async for _ in ours.provider.iter_conversations():
            seen += 1
    assert seen >= count, f"{seen} conversations of {count}"
    what = PEAK_IN_MEMORY if base else PEAK
    return [
        Figure("resident", "", f"{order['how']}, {what}", count, unit="MB", value=(resident(peak=True) - base) / MB)
    ]


async def serving(ours: Ours, order: dict[str, Any]) -> list[Figure]:
    """Many operations, and what the process has after them over what it had after the first ten thousand."""
    operations: int = order["operations"]
    settled = min(SETTLED, operations // 2)
    await _operate(ours, settled)
    gc.collect()  # what nobody holds any longer waits for the collector, a megabyte of it at times
    before = resident()
    await _operate(ours, operations - settled)
    gc.collect()
    after = resident()
    return [
        Figure(
            *("resident", "", f"after all operations ÷ after {settled:,}", operations),
            value=after / before,
            ours=after / MB,
            theirs=before / MB,
        )
    ]


async def _operate(ours: Ours, count: int) -> None:
    """Appends, reads, and once in a while a conversation made anew; as many tasks as a small server has."""
    provider, numbers = ours.provider, iter(range(count))

    async def worker() -> None:
        for number in numbers:
            key = f"r{number % KEYS}"
            turns = number // KEYS
            if turns % ANEW == 0:
                await provider.store_messages(key, messages(20), {"turn": turns}, user_id="r")
            elif turns % 2:
                await provider.append_messages(key, turn())
            else:
                await provider.get_recent_messages(key, 20)

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


PROOFS: dict[str, Callable[[Ours, dict[str, Any]], Awaitable[list[Figure]]]] = {
    "reading": reading,
    "serving": serving,
}
HAVE_PROC = os.path.exists("/proc/self/clear_refs")  # noqa: PTH110
