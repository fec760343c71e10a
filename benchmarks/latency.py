"""What one task does not tell: many tasks, one conversation of many writers, the slowest, network lines, processors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from benchmarks import processors
from benchmarks.comparisons import APPEND, CONTENDED, PAIR, PAIRS, RECENT_READ, together
from benchmarks.competitors import Competitor, Ours
from benchmarks.distance import away
from benchmarks.figures import Figure
from benchmarks.measurement import Case, by_turns
from benchmarks.payload import DRIVERS_SHELF, MANY_TASKS, RECENT

SHARED = "shared"
"""The conversation that all write."""

LINES = (1, 10)
"""Milliseconds there and back."""

SAMPLES = 100
"""Of single operations in a round."""

Both = tuple[Ours, Competitor]


async def filled(both: Both, tasks: int) -> None:
    """Give each task its conversation, and all of them one."""
    for one in both:
        for key in (*DRIVERS_SHELF.of_tasks(tasks), SHARED):
            await one.fill(key, RECENT)


def _compared(case: Case, both: Both, *, speed: bool) -> Figure:
    ours, bare = (one.name for one in both)
    ratios = case.ratios(bare, ours) if speed else case.ratios(ours, bare)
    value = sorted(ratios)[len(ratios) // 2]
    return Figure("beside", "", case.what, case.at, bare, value=value, ours=case.median(ours), theirs=case.median(bare))


async def crowded(both: Both, crowds: Sequence[int], rounds: int) -> list[Figure]:
    """Throughput of many tasks, and of many that append to one conversation."""

    async def contend(one: Competitor, _number: int) -> None:
        await asyncio.gather(*(one.append_among(SHARED) for _ in range(MANY_TASKS)))

    cases = [Case(PAIRS, count, 1, {one.name: partial(together, one, count, 1) for one in both}) for count in crowds]
    cases.append(Case(CONTENDED, MANY_TASKS, 1, {one.name: partial(contend, one) for one in both}))
    await by_turns(cases, rounds)
    return [_compared(case, both, speed=True) for case in cases]


async def sampled(both: Both, crowds: Sequence[int], rounds: int) -> list[Figure]:
    """The median and the slowest of a hundred: alone, and among tasks that do the same at once."""
    keys = DRIVERS_SHELF.of_tasks(MANY_TASKS)
    kinds: dict[tuple[str, int], Callable[[Competitor, list[float]], Awaitable[object]]] = {
        (APPEND, 1): lambda one, taken: _timed(one.append, keys * 3, taken),
        (RECENT_READ, 1): lambda one, taken: _timed(partial(_recent, one), keys * 3, taken),
        (APPEND, MANY_TASKS): lambda one, taken: asyncio.gather(
            *(_timed(one.append_among, [key] * 4, taken) for key in keys)
        ),
        **{(PAIR, count): partial(_pairs, DRIVERS_SHELF.of_tasks(count)) for count in (MANY_TASKS, *crowds)},
    }
    figures = []
    for (what, tasks), work in kinds.items():
        taken: dict[str, list[float]] = {one.name: [] for one in both}
        for _ in range(rounds):
            for one in both:
                await work(one, taken[one.name])
        found = {name: quantiles(times, n=100) for name, times in taken.items()}
        for name, place in (("p50", 49), ("p99", 98)):
            ours, theirs = (found[one.name][place] for one in both)
            figures.append(
                Figure(
                    "beside", "", f"{what}, {name}", tasks, both[1].name, value=ours / theirs, ours=ours, theirs=theirs
                )
            )
    return figures


async def _timed(work: Callable[[str], Awaitable[object]], keys: Sequence[str], taken: list[float]) -> None:
    for key in keys:
        started = time.perf_counter()
        await work(key)
        taken.append(time.perf_counter() - started)


async def _pairs(keys: Sequence[str], one: Competitor, taken: list[float]) -> None:
    """A pair in each conversation at once, and a hundred at least."""
    for _ in range(-(-SAMPLES // len(keys))):
        await asyncio.gather(*(_timed(one.pair, [key], taken) for key in keys))


async def _recent(one: Competitor, key: str) -> None:
    await one.recent(key, RECENT)


async def worked(both: Both, rounds: int) -> list[Figure]:
    """Seconds that processors work for one operation: the client's, and the server's where there is one."""
    server = await both[1].server()
    keys = DRIVERS_SHELF.of_tasks(MANY_TASKS)
    kinds: dict[str, tuple[int, Callable[[Competitor], Awaitable[object]]]] = {
        APPEND: (SAMPLES, lambda one: _timed(one.append, (keys * 4)[:SAMPLES], [])),
        RECENT_READ: (SAMPLES, lambda one: _timed(partial(_recent, one), (keys * 4)[:SAMPLES], [])),
        PAIR: (4 * MANY_TASKS, lambda one: together(one, MANY_TASKS, 4, 0)),
    }
    figures = []
    for what, (count, work) in kinds.items():
        spent: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for one in both:
                before = time.process_time(), processors.worked(server)
                await work(one)
                after = time.process_time(), processors.worked(server)
                for side, start, end in zip(("client", "server"), before, after, strict=True):
                    spent.setdefault((side, one.name), []).append((end - start) / count)
        for side in ("client", "server") if server else ("client",):
            ours, theirs = (sorted(spent[side, one.name])[rounds // 2] for one in both)
            name = f"{what}, the {side}'s processor"
            tasks = MANY_TASKS if what == PAIR else 1
            figures.append(
                Figure("beside", "", name, tasks, both[1].name, value=ours / theirs, ours=ours, theirs=theirs)
            )
    return figures


async def over_lines(order: dict[str, Any]) -> list[Figure]:
    """Append, read and many tasks, over lines of different lengths."""
    place, rounds = order["place"], order["rounds"]
    async with _opened(order["backend"], place) as both:
        await filled(both, MANY_TASKS)
    figures = []
    for milliseconds in LINES:
        url = urlsplit(place["url"]) if "url" in place else None
        host, port = (url.hostname, url.port) if url else ("127.0.0.1", place["port"])
        with away(host or "127.0.0.1", port or 5432, milliseconds) as near:
            there = {"url": place["url"].replace(f"{host}:{port}", f"127.0.0.1:{near}")} if url else {"port": near}
            async with _opened(order["backend"], there) as both:
                figures += await _over(both, milliseconds, rounds)
    return figures


@asynccontextmanager
async def _opened(backend: str, place: dict[str, Any]) -> AsyncIterator[Both]:
    module = import_module(f"benchmarks.backends.{backend}")
    async with AsyncExitStack() as stack:
        both = module.Ours(place), module.Bare(place)
        for one in both:
            await one.open()
            stack.push_async_callback(one.close)
        yield both


async def _over(both: Both, milliseconds: int, rounds: int) -> list[Figure]:
    keys = DRIVERS_SHELF.of_tasks(MANY_TASKS)
    works: dict[str, Callable[[Competitor, int], Awaitable[object]]] = {
        APPEND: lambda one, number: one.append(keys[number % len(keys)]),
        RECENT_READ: lambda one, number: one.recent(keys[number % len(keys)], RECENT),
        PAIRS: lambda one, _number: together(one, MANY_TASKS, 1, 0),
    }
    cases = [
        Case(
            f"{what}, {milliseconds} ms away",
            MANY_TASKS if what == PAIRS else 1,
            4,
            {one.name: partial(work, one) for one in both},
        )
        for what, work in works.items()
    ]
    await by_turns(cases, rounds)
    return [_compared(case, both, speed=case.what.startswith(PAIRS)) for case in cases]


async def measure(order: dict[str, Any], both: Both) -> list[Figure]:
    """All but lines, on one store."""
    rounds, crowds = order["rounds"], order["crowds"]
    await filled(both, max(crowds))
    return [*await crowded(both, crowds, rounds), *await sampled(both, crowds, rounds), *await worked(both, rounds)]
