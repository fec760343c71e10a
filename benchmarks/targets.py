"""What we want to reach. A figure that has none here is shown to compare with."""

from __future__ import annotations

from benchmarks import bulk, comparisons
from benchmarks.costs import core
from benchmarks.figures import LEAST, MOST, Figure, Target
from benchmarks.payload import MANY_TASKS, peers_shelf

DRIVER: dict[str, dict[str, float]] = {
    "postgres": {
        comparisons.APPEND: 1.6,
        comparisons.RECENT_READ: 1.5,
        comparisons.LOAD: 1.9,
        comparisons.NEWEST: 1.6,
        comparisons.NEWEST_HEADERS: 1.6,
        comparisons.PAIRS: 0.8,
    },
    "redis": {
        comparisons.APPEND: 1.65,
        comparisons.RECENT_READ: 1.3,
        comparisons.LOAD: 2.0,
        comparisons.NEWEST: 1.8,
        comparisons.NEWEST_HEADERS: 1.8,
        comparisons.PAIRS: 1.3,
    },
    "sqlite": {
        comparisons.APPEND: 2.2,
        comparisons.RECENT_READ: 2.0,
        comparisons.NEWEST: 2.0,
        comparisons.NEWEST_HEADERS: 2.0,
        comparisons.PAIRS: 1.3,
    },
}
"""Ours over the bare driver, at every length; of many tasks our throughput over the driver's."""

BULK = 0.5
"""Our speed of a bulk import over the bare driver's."""

GROWTH = 1.1
"""Cost at 10,000 messages over cost at 10."""

PEERS: dict[tuple[str, str], dict[str, float]] = {
    ("memory", "jaf-py"): {comparisons.APPEND: 8, comparisons.RECENT_READ: 3},
    ("postgres", "OpenAI Agents SDK"): {
        comparisons.APPEND: 4,
        comparisons.RECENT_READ: 4,
        comparisons.LOAD: 2,
        comparisons.PAIRS: 9,
    },
    ("redis", "OpenAI Agents SDK"): {
        comparisons.APPEND: 2.5,
        comparisons.RECENT_READ: 1.1,
        comparisons.LOAD: 2,
        comparisons.PAIRS: 5,
    },
    ("sqlite", "OpenAI Agents SDK"): {
        comparisons.APPEND: 1,
        comparisons.RECENT_READ: 3.5,
        comparisons.LOAD: 2,
        comparisons.PAIRS: 5,
    },
    ("postgres", "jaf-py"): {comparisons.APPEND: 20},
    ("redis", "jaf-py"): {comparisons.APPEND: 20},
}
"""Times faster than a peer; of histories, with the most messages that are measured."""

COSTS = {core.MAKING: 3.0, core.DECODING: 1.0, core.IMPORTING: 150.0}
"""Microseconds, milliseconds, milliseconds."""

RESIDENT = 100.0
"""MB, while 100,000 conversations are read."""

SERVED = 1.02
"""Memory after all operations over that after the first ten thousand: no more than an allocator's unrest."""


def target_of(figure: Figure) -> Target | None:
    """What a figure should be."""
    return {"beside": _driver, "peers": _peer, "costs": _costs, "resident": _resident}[figure.section](figure)


def _driver(figure: Figure) -> Target | None:
    if figure.backend == "memory" or figure.backend not in DRIVER:
        return None
    if comparisons.GROWTH in figure.what:
        return Target(MOST, GROWTH)
    if figure.what == bulk.IMPORT:
        return Target(LEAST, BULK)
    bound = DRIVER[figure.backend].get(figure.what)
    if figure.what == comparisons.PAIRS:
        return Target(LEAST, bound) if bound and figure.at == MANY_TASKS else None
    return Target(MOST, bound) if bound else None


def _peer(figure: Figure) -> Target | None:
    bound = PEERS.get((figure.backend, figure.beside), {}).get(figure.what)
    longest = peers_shelf(figure.backend).copies[-1][0]
    counts = figure.what in {comparisons.PAIRS, comparisons.LOAD} or figure.at == longest
    return Target(LEAST, bound) if bound and counts else None


def _costs(figure: Figure) -> Target | None:
    return Target(MOST, COSTS[figure.what]) if figure.what in COSTS and not figure.beside else None


def _resident(figure: Figure) -> Target:
    return Target(MOST, SERVED if figure.unit == "x" else RESIDENT)
