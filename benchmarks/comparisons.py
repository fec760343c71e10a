"""What is measured: ours beside a bare driver, and ours beside peers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from benchmarks.competitors import Competitor, Ours
from benchmarks.figures import Figure
from benchmarks.measurement import Case, Work, by_turns
from benchmarks.payload import DRIVERS_SHELF, LENGTHS, MANY_TASKS, RECENT, WHOLE, Shelf

APPEND = "append a turn"
RECENT_READ = f"recent {RECENT}"
RECENT_TEN = "recent 10"
LOAD = "load all"
NEWEST = "ten newest of a user"
NEWEST_HEADERS = "ten newest, without messages"
PAIRS = "append + recent pairs, throughput"
PAIR = "append + recent"
CONTENDED = "append by tasks to one conversation, throughput"
GROWTH = "at 10,000 ÷ at 10"


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        rounds: of single operations.
        task_rounds: of many tasks.
        tasks: which numbers of tasks.
        pairs: pairs of one turn, whatever the number of tasks.
        newest: whether the store holds a crowd to search.
        steps: of single operations, in one turn.
    """

    rounds: int
    task_rounds: int
    tasks: tuple[int, ...]
    pairs: int = 64
    newest: bool = True
    steps: int = 16


async def beside_driver(ours: Ours, bare: Competitor, effort: Effort) -> list[Figure]:
    """Ours beside a bare driver; both are open and filled.

    The values are what ours costs over what the driver costs; of many tasks and in bulk, our speed over the driver's.
    """
    shelf, both = DRIVERS_SHELF, (ours, bare)
    cases = [*_histories(shelf, both, LENGTHS, effort.steps), _loading(shelf, both, 4)]
    cases += [
        _over_keys(
            RECENT_TEN, length, effort.steps, shelf.keys(length), {one.name: partial(_recent, one, 10) for one in both}
        )
        for length in (LENGTHS[0], LENGTHS[-1])
    ]
    if effort.newest:
        cases += [
            Case(what, None, 5, {one.name: partial(_newest, one, with_messages=whole) for one in both})
            for what, whole in ((NEWEST, True), (NEWEST_HEADERS, False))
        ]
    await by_turns(cases, effort.rounds)
    tasks = [_tasks(both, count, effort.pairs) for count in effort.tasks]
    await by_turns(tasks, effort.task_rounds)
    figures = [
        Figure(
            *("beside", "", case.what, case.at, bare.name),
            value=median(case.ratios(bare.name, ours.name) if case in tasks else case.ratios(ours.name, bare.name)),
            ours=case.median(ours.name),
            theirs=case.median(bare.name),
        )
        for case in (*cases, *tasks)
    ]
    return [*figures, *(_growth(cases, what, both) for what in (APPEND, RECENT_TEN))]


def _growth(cases: Sequence[Case], what: str, both: Sequence[Competitor]) -> Figure:
    """What the longest history costs over what the shortest does."""
    short, long = (next(case for case in cases if (case.what, case.at) == (what, at)) for at in (10, 10_000))
    ours, bare = (
        median(one / other for one, other in zip(long.times[each.name], short.times[each.name], strict=True))
        for each in both
    )
    return Figure("beside", "", f"{what}, {GROWTH}", None, both[1].name, value=ours, ours=ours, theirs=bare)


async def beside_peers(ours: Ours, peers: Sequence[Competitor], shelf: Shelf, rounds: int) -> list[Figure]:
    """Ours beside other libraries; a value is how many times faster ours is. A peer that fails is told."""
    failed: dict[str, str] = {}
    everybody = [ours, *peers]
    cases = [
        *_histories(shelf, everybody, [length for length, _ in shelf.copies], steps=4),
        _loading(shelf, everybody, 2),
        _tasks([one for one in everybody if one.recent], MANY_TASKS, MANY_TASKS),
    ]
    cases = [case for case in cases if len(case.works) > 1]
    failed.update(await by_turns(cases, rounds, may_fail=[peer.name for peer in peers]))
    figures = [
        Figure(
            *("peers", "", case.what, case.at, peer.name),
            value=median(case.ratios(peer.name, ours.name)),
            ours=case.median(ours.name),
            theirs=case.median(peer.name),
        )
        for peer in peers
        for case in cases
        if peer.name in case.times
    ]
    return [*figures, *(Figure("peers", "", "", None, name, error=error) for name, error in failed.items())]


def _histories(shelf: Shelf, who: Sequence[Competitor], lengths: Iterable[int], steps: int) -> Iterable[Case]:
    for length in lengths:
        keys = shelf.keys(length)
        yield _over_keys(APPEND, length, steps, keys, {one.name: one.append for one in who})
        readers = {one.name: partial(_recent, one, RECENT) for one in who if one.recent}
        yield _over_keys(RECENT_READ, length, steps, keys, readers)


def _loading(shelf: Shelf, who: Sequence[Competitor], steps: int) -> Case:
    return _over_keys(LOAD, WHOLE, steps, [shelf.whole], {one.name: one.load for one in who if one.load})


def _over_keys(what: str, at: int, steps: int, keys: Sequence[str], works: Mapping[str, Any]) -> Case:
    """A case whose steps take one conversation after the other."""

    def step(work: Any) -> Work:
        return lambda number: work(keys[number % len(keys)])

    return Case(what, at, steps, {name: step(work) for name, work in works.items()})


async def _recent(one: Competitor, limit: int, key: str) -> None:
    await one.recent(key, limit)


async def _newest(one: Competitor, number: int, *, with_messages: bool) -> None:
    await one.newest(f"u{number % 10}", with_messages=with_messages)


def _tasks(who: Sequence[Competitor], count: int, pairs: int) -> Case:
    """So many tasks, each in a conversation of its own, do the same number of pairs together."""
    return Case(PAIRS, count, 1, {one.name: partial(together, one, count, max(1, pairs // count)) for one in who})


async def together(one: Competitor, tasks: int, pairs: int, _number: int) -> None:
    """Let so many tasks do so many pairs each, all at once."""

    async def task(key: str) -> None:
        for _ in range(pairs):
            await one.pair(key)

    await asyncio.gather(*map(task, DRIVERS_SHELF.of_tasks(tasks)))
