"""One measurement in a fresh process: `python -m benchmarks.worker`, with an order as JSON on its standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import peers, processors
from benchmarks.bulk import in_bulk
from benchmarks.comparisons import Effort, beside_driver, beside_peers
from benchmarks.competitors import Competitor, Ours
from benchmarks.figures import Figure
from benchmarks.measurement import describe
from benchmarks.payload import DRIVERS_SHELF, Shelf, peers_shelf

Order = dict[str, Any]
"""What is to be done: `kind`, `backend`, `place`, `processors`, `loop`, `answer` (a file), and what its kind needs."""


def sides(order: Order) -> tuple[Ours, Competitor]:
    """Ours and the bare driver of a backend."""
    module = import_module(f"benchmarks.backends.{order['backend']}")
    return module.Ours(order["place"]), module.Bare(order["place"])


async def fill_shelf(one: Competitor, shelf: Shelf) -> None:
    """Store what everybody has at the start."""
    for key, length in shelf:
        await one.fill(key, length)


async def opened(stack: AsyncExitStack, *competitors: Competitor) -> None:
    """Open some; they are closed with the stack."""
    for one in competitors:
        await one.open()
        stack.push_async_callback(one.close)


async def fill(order: Order) -> list[Figure]:
    """Fill a store from which others get copies."""
    both = sides(order)
    async with AsyncExitStack() as stack:
        await opened(stack, *both)
        await _fill_all(both, order["conversations"])
    return []


async def _fill_all(both: tuple[Any, ...], conversations: int) -> None:
    for one in both:
        await fill_shelf(one, DRIVERS_SHELF)
        if conversations:
            await one.fill_crowd(conversations)


async def beside(order: Order) -> list[Figure]:
    """Ours beside the bare driver."""
    both = sides(order)
    effort = Effort(**order["effort"])
    async with AsyncExitStack() as stack:
        await opened(stack, *both)
        if order["backend"] == "memory":  # nobody can give it a copy
            await _fill_all(both, order["conversations"] if effort.newest else 0)
        return await beside_driver(*both, effort)


async def bulk(order: Order) -> list[Figure]:
    """Import and export."""
    both = sides(order)
    async with AsyncExitStack() as stack:
        await opened(stack, *both)
        return await in_bulk(*both, order["conversations"])


async def latency(order: Order) -> list[Figure]:
    """Very many tasks, the slowest, and processors; or lines."""
    from benchmarks import latency as measured

    if order["how"] == "lines":
        return await measured.over_lines(order)
    both = sides(order)
    async with AsyncExitStack() as stack:
        await opened(stack, *both)
        return await measured.measure(order, both)


async def beside_others(order: Order) -> list[Figure]:
    """Ours beside the peers."""
    ours, _ = sides(order)
    them, failed = peers.load(order["backend"], order["place"])
    shelf = peers_shelf(order["backend"])
    async with AsyncExitStack() as stack:
        await opened(stack, ours)
        await fill_shelf(ours, shelf)
        ready = []
        for peer in them:
            try:
                await peer.open()
                stack.push_async_callback(_closed, peer, failed)
                await asyncio.wait_for(fill_shelf(peer, shelf), order["patience"])
            except Exception as error:  # noqa: BLE001  (whatever a library raises is told in the table)
                failed[peer.name] = describe(error)
            else:
                ready.append(peer)
        figures = await beside_peers(ours, ready, shelf, order["rounds"]) if ready else []
    return [*figures, *(Figure("peers", "", "", None, name, error=error) for name, error in failed.items())]


async def _closed(peer: Competitor, failed: dict[str, str]) -> None:
    """Close a peer; one that cannot be closed has failed, and the others have not."""
    try:
        await peer.close()
    except Exception as error:  # noqa: BLE001  (as above)
        failed[peer.name] = describe(error)


async def resident(order: Order) -> list[Figure]:
    """One of the proofs about memory."""
    from benchmarks import resident as proofs

    ours, _ = sides(order)
    async with AsyncExitStack() as stack:
        await opened(stack, ours)
        return await proofs.PROOFS[order["proof"]](ours, order)


async def costs(order: Order) -> list[Figure]:
    """What else is to be known of a backend, or of the core."""
    module = import_module(f"benchmarks.costs.{order['what']}")
    answer: list[Figure] = await module.measure(order)
    return answer


KINDS: dict[str, Callable[[Order], Awaitable[list[Figure]]]] = {
    "fill": fill,
    "beside": beside,
    "bulk": bulk,
    "latency": latency,
    "peers": beside_others,
    "resident": resident,
    "costs": costs,
}


async def obey(order: Order) -> list[Figure]:
    """Do what an order says; its figures know their backend and their loop."""
    found = await KINDS[order["kind"]](order)
    return [replace(figure, backend=order["backend"], loop=order["loop"]) for figure in found]


def main() -> None:
    """Read the order, obey, write the answer."""
    order = json.load(sys.stdin)
    processors.take(order["processors"])
    if order["loop"] == "uvloop":
        import uvloop

        figures = uvloop.run(obey(order))
    else:
        figures = asyncio.run(obey(order))
    Path(order["answer"]).write_text(json.dumps([asdict(figure) for figure in figures]), encoding="utf-8")


if __name__ == "__main__":
    main()
