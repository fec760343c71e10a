"""Whether the event loop goes on beside what is large: turns that other tasks get, without clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Revise, Tail, Truncate, Write
from jaf_memory_core.values import freeze
from jaf_memory_testing.cells import seed
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.costs import LONG, filled
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import said
from jaf_memory_testing.target import FourMethods, Store

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
