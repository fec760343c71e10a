"""How things are compared: by turns, within one process.

A machine may be twice as slow for a minute, but not for one of two things that take turns every few milliseconds. So a
round lets everybody do some steps of everything; a round's time is the median of the steps; a ratio is made within a
round; and the median over the rounds counts. The order is turned round every second time.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

Work = Callable[[int], Awaitable[object]]
"""One step; it is given its number, from 0."""

PATIENCE = 120.0
"""Seconds for the steps of one turn; what takes longer has failed."""


@dataclass
class Case:
    """Something that several competitors do.

    Attributes:
        what: the figure's name.
        at: messages or tasks.
        steps: how often it is done in one turn.
        works: the step of each competitor, by name.
        times: median seconds of a step, one for each round, by name.
    """

    what: str
    at: int | None
    steps: int
    works: dict[str, Work]
    times: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, over: str, under: str) -> list[float]:
        """What one took over what the other took, one for each round."""
        return [one / other for one, other in zip(self.times[over], self.times[under], strict=True)]

    def median(self, name: str) -> float:
        """Median seconds of a step."""
        return statistics.median(self.times[name])


async def by_turns(cases: Iterable[Case], rounds: int, may_fail: Iterable[str] = ()) -> Mapping[str, str]:
    """Measure cases; their `times` are filled.

    Args:
        cases: what to do.
        rounds: how many rounds, beside one that warms up.
        may_fail: names of competitors whose failure is told, and does not end the run.

    Returns:
        what went wrong, by name of the competitor; such a one has no times.
    """
    cases = list(cases)
    tolerated = set(may_fail)
    failed: dict[str, str] = {}
    gc.collect()
    gc.freeze()  # what a large library or a large store has made is not looked through in the middle of a step
    try:
        for round_ in range(rounds + 1):
            for case in cases:
                names = [name for name in case.works if name not in failed]
                for name in names if round_ % 2 else reversed(names):
                    try:
                        taken = await asyncio.wait_for(_turn(case, name, round_), PATIENCE)
                    except Exception as error:
                        if name not in tolerated:
                            raise
                        failed[name] = describe(error)
                        continue
                    if round_:
                        case.times.setdefault(name, []).append(taken)
    finally:
        gc.unfreeze()
    for case in cases:
        for name in failed:
            case.times.pop(name, None)
    return failed


def describe(error: BaseException) -> str:
    """An error in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"[:200]


async def _turn(case: Case, name: str, round_: int) -> float:
    work, first = case.works[name], round_ * case.steps
    taken = []
    for number in range(first, first + case.steps):
        started = time.perf_counter()
        await work(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
