"""Costs without clocks: what is read for a page, what is left after a close, turns that other tasks get meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Revise, Tail, Truncate, Write
from jaf_memory_core.values import freeze
from jaf_memory_testing.cells import seed
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import said, talk
from jaf_memory_testing.target import FourMethods, Store, left_to_default

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


HEAVY = 600_000
"""Characters of a message, or of metadata, that nobody should read, or decode, while all others wait."""

READS = 4
"""So many reads have to give as many turns to others."""


def _batch(text: str, key: str, **fields: Any) -> Write:
    message = said(text, message_id=key)
    return Write("c", (message,), (codec.encode(message),), **fields)


async def _grown(backend: Backend) -> None:
    await backend.store(_batch("short", "m0", replace=True, create=True))
    await backend.append(_batch("x" * HEAVY, "m1"))


async def _grown_at_once(backend: Backend) -> None:
    await backend.store(_batch("x" * HEAVY, "m0", replace=True, create=True))


async def _grown_again(backend: Backend) -> None:
    await backend.store(_batch("short", "m0", replace=True, create=True))
    await backend.store(_batch("x" * HEAVY, "m1", replace=True, create=True))


async def _grown_in_a_bulk(backend: Backend) -> None:
    await backend.append_many([_batch("x" * HEAVY, "m1", create=True)])


async def _grown_by_revision(backend: Backend) -> None:
    await backend.store(_batch("short", "m0", replace=True, create=True))
    message = said("x" * HEAVY, message_id="m0")
    await backend.revise(Revise("c", ("m0",), (message,), (codec.encode(message),)))


async def _grown_elsewhere(backend: Backend) -> None:
    await backend.store(replace(_batch("x" * HEAVY, "m1", replace=True, create=True), conversation_id="parent"))
    await backend.fork(Fork("parent", "c"))


async def _grown_as_a_whole(backend: Backend) -> None:
    await backend.write(seed("c", messages=(said("x" * HEAVY, message_id="m1"),), message_count=1), expected=None)


async def _grown_and_shrunk(backend: Backend) -> None:
    await _grown(backend)
    await backend.append(_batch("short", "m2"))
    await backend.amend(Amend("c", freeze({"a": 1})))
    await backend.truncate(Truncate("c", "m2"))
    await backend.delete_messages(DeleteMessages("c", ("m0",)))


WAYS: dict[str, Callable[[Backend], Awaitable[None]]] = {
    "store": _grown_at_once,
    "store once more": _grown_again,
    "append": _grown,
    "append many": _grown_in_a_bulk,
    "revise": _grown_by_revision,
    "fork": _grown_elsewhere,
    "write": _grown_as_a_whole,
    "append, and all that leaves it there": _grown_and_shrunk,
}
"""What makes, or leaves, the newest message of a conversation large."""


async def _waiting(provider: BackendProvider) -> Backend:
    await provider.open()
    backend = provider.backend
    inner = backend.inner if isinstance(backend, FourMethods) else backend
    if not inner.waits:
        pytest.skip("the backend waits for nothing")
    return backend


async def _turns(works: Sequence[Callable[[], Awaitable[Any]]]) -> int:
    """How many turns another task gets while these are done one after the other."""
    beats, going_on = 0, True

    async def beat() -> None:
        nonlocal beats
        while going_on:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    begun = beats
    for work in works:
        await work()
    counted, going_on = beats - begun, False
    await beating
    return counted


class TurnChecks(Checks):
    """Nothing waits for the store on the event loop, and nothing large is read there."""

    @needs("backend")
    async def test_the_loop_goes_on(self, store: Store) -> None:
        """While large reads are under way other tasks get their turns: nothing waits for the store on the loop."""
        backend = await _waiting(await filled(store))
        reads = 10
        counted = await _turns([partial(backend.read, "long")] * reads)
        assert counted >= reads, (
            f"{reads} reads of a large conversation gave other tasks {counted} turns: they block the event loop. "
            "A backend must wait in a thread, or with `await`"
        )

    @needs("backend")
    @pytest.mark.parametrize("way", WAYS)
    async def test_the_loop_goes_on_whatever_has_grown(self, store: Store, way: str) -> None:
        """Nor does a page block the loop whose message is large, by whichever request it became so."""
        backend = await _waiting(await store.open())
        await WAYS[way](backend)
        counted = await _turns([partial(backend.tail, Tail("c", 1))] * READS)
        assert counted >= READS, (
            f"{READS} pages of one message of {HEAVY:,} characters, there since {way!r}, gave other tasks {counted} "
            "turns: whatever tells how large a message may be has to hold after each request"
        )

    @needs("backend")
    async def test_the_loop_goes_on_beside_a_cap(self, store: Store) -> None:
        """Nor does an append that takes away thousands of messages."""
        backend = await _waiting(await filled(store))
        message = said("the last")
        capped = Write("long", (message,), (codec.encode(message),), max_messages=1)
        assert await _turns([partial(backend.append, capped)]) >= 1, (
            f"an append under a cap, which removed {LONG:,} messages, gave other tasks no turn"
        )

    @needs("backend")
    async def test_the_loop_goes_on_beside_heavy_labels(self, store: Store) -> None:
        """Nor does a list of a few conversations whose metadata is large."""
        provider = await store.open(max_metadata_bytes=2 * HEAVY)
        for number in range(3):
            done(await provider.store_messages(f"c{number}", [], {"a": "x" * HEAVY}, user_id="u"))
        query = MemoryQuery(user_id="u", limit=3, include_messages=False)
        backend = await _waiting(provider)
        counted = await _turns([partial(backend.find, query)] * READS)
        assert counted >= READS, (
            f"{READS} lists of three conversations, with {HEAVY:,} characters of metadata each, gave other tasks "
            f"{counted} turns"
        )
