"""Costs without clocks: what is read for a page, what is left after a close."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jaf_memory_core import codec
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Amend, Revise, Tail, Write
from jaf_memory_core.values import freeze
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import said, talk
from jaf_memory_testing.target import Store, left_to_default

LONG = 2_000
"""Messages of the long conversation."""

SIZE = 1_000
"""Characters of each of its messages."""

SHARE = 4
"""A request that concerns a few messages takes less than this fraction of what the whole conversation takes."""


def _append(backend: Backend) -> Awaitable[Any]:
    message = said("one more")
    return backend.append(Write("long", (message,), (codec.encode(message),)))


def _revise(backend: Backend) -> Awaitable[Any]:
    message = said("revised", message_id=f"m{LONG // 2}")
    return backend.revise(Revise("long", (message.message_id,), (message,), (codec.encode(message),)))


PARTS: dict[str, Callable[[Backend], Awaitable[Any]]] = {
    "tail": lambda backend: backend.tail(Tail("long", 10)),
    "tail before": lambda backend: backend.tail(Tail("long", 10, LONG // 2)),
    "tail with first messages": lambda backend: backend.tail(Tail("long", 10, leading=4, with_header=True)),
    "header": lambda backend: backend.header("long"),
    "append": _append,
    "revise": _revise,
    "stats": lambda backend: backend.stats("u"),
    "amend": lambda backend: backend.amend(Amend("long", freeze({"a": 1}))),
    "find without messages": lambda backend: backend.find(MemoryQuery(user_id="u", include_messages=False)),
}
"""Requests that must not read a whole conversation, where the backend has a form of its own for them."""


async def filled(store: Store) -> BackendProvider:
    """A provider that has the long conversation."""
    provider = await store.open()
    messages = [said("x" * SIZE, message_id=f"m{n}") for n in range(LONG)]
    done(await provider.store_messages("long", messages, user_id="u"))
    return provider


async def _peak(work: Awaitable[Any]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        kept = await work
        peak = tracemalloc.get_traced_memory()[1]
        del kept
        return peak
    finally:
        tracemalloc.stop()


class CostChecks(Checks):
    """What a request takes, counted in bytes and handles."""

    @needs("backend")
    @pytest.mark.parametrize("part", PARTS)
    async def test_reads_no_more_than_it_needs(self, store: Store, part: str) -> None:
        """A request for a part takes, in Python's memory, less than a quarter of what the whole conversation does."""
        provider = await filled(store)
        backend = provider.backend
        # Once before: what a first call makes and keeps is not the request's.
        await PARTS[part](backend)
        if left_to_default(backend, part.split(maxsplit=1)[0]):
            pytest.skip(f"the backend leaves {part.split(maxsplit=1)[0]!r} to its default")
        # The least of three: whatever else happens in this process only adds.
        taken = min([await _peak(PARTS[part](backend)) for _ in range(3)])
        assert taken * SHARE < LONG * SIZE, (
            f"{part!r} takes {taken:,} bytes of a conversation of {LONG * SIZE:,}: it reads, or writes, all of it. "
            "`tail` and `header` must not read the rest; an append must not copy what stands"
        )

    @needs("backend")
    async def test_a_scan_goes_step_by_step(self, store: Store) -> None:
        """A scan gives its first record before it has read them all, and holds a bounded number of them."""
        provider = await store.open()
        count, size = 1_000, 5_000
        message = said("x" * size, message_id="m")
        imported = [ConversationMemory(f"c{n}", messages=[message]) for n in range(count)]
        assert all(map(done, await provider.import_conversations(imported)))
        backend = provider.backend

        async def first() -> Any:
            scan: AsyncIterator[Any] = backend.scan(MemoryQuery())
            one = await anext(scan)
            await scan.aclose()  # type: ignore[attr-defined]
            return one

        async def all_of_them() -> None:
            async for _ in backend.scan(MemoryQuery()):
                pass

        for name, work in (("the first record", first), ("a whole scan", all_of_them)):
            taken = min([await _peak(work()) for _ in range(2)])
            assert taken / 0.6 < count * size, (
                f"{name} takes {taken:,} bytes at once, of {count * size:,} in the store: "
                "`scan` must hold a bounded number of records in memory"
            )

    @needs("reopen")
    async def test_nothing_grows(self, store: Store) -> None:
        """Opening, using and closing again and again leaves no more handles and threads than before."""
        done(await (await store.open()).store_messages("c", talk(2)))
        before: tuple[int, int] | None = None
        for number in range(18):
            provider = await store.target.open()
            await whole(provider)
            done(await provider.append_messages("c", talk(1, f"n{number}-")))
            await provider.close()
            await provider.close()
            # By now pools and caches are filled.
            if number == 5:
                before = await _handles()
        assert before is not None
        after = await _handles()
        grown = [late - early for early, late in zip(before, after, strict=True)]
        # What is left over each time would be there twelve times.
        assert max(grown) < 6, (
            f"after 12 more times of open, use and close there are {grown[0]} more file descriptors and {grown[1]} "
            "more threads: `close` must let go of everything"
        )


async def _handles() -> tuple[int, int]:
    await asyncio.sleep(0.05)  # what was closed may end a little later
    gc.collect()
    return _descriptors(), threading.active_count()


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
