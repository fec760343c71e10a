"""What we want to reach. A figure that has none here is shown to compare with."""

from __future__ import annotations

from benchmarks import bulk, comparisons
from benchmarks.costs import core, postgres, redis
from benchmarks.figures import LEAST, MOST, Figure, Target
from benchmarks.payload import MANY_TASKS, peers_shelf

MANY_MORE = 128
"""Tasks."""

DRIVER: dict[str, dict[str, float]] = {
    "postgres": {
        comparisons.APPEND: 1.35,
        comparisons.RECENT_READ: 1.25,
        comparisons.LOAD: 1.9,
        comparisons.NEWEST: 1.6,
        comparisons.NEWEST_HEADERS: 1.6,
    },
    "redis": {
        comparisons.APPEND: 1.5,
        comparisons.RECENT_READ: 1.3,
        comparisons.LOAD: 2.0,
        comparisons.NEWEST: 1.8,
        comparisons.NEWEST_HEADERS: 1.8,
    },
    "sqlite": {
        comparisons.APPEND: 2.0,
        comparisons.RECENT_READ: 2.0,
        comparisons.NEWEST: 2.0,
        comparisons.NEWEST_HEADERS: 2.0,
    },
}
"""Ours over the bare driver, at every length."""

PAIRS: dict[str, dict[int, float]] = {
    "postgres": {MANY_TASKS: 2.0, MANY_MORE: 2.8},
    "redis": {MANY_TASKS: 1.7},
    "sqlite": {1: 0.6, MANY_TASKS: 1.5},
}
"""Our throughput of so many tasks over the driver's."""

BULK = {bulk.IMPORT: 0.6, bulk.EXPORT: 0.3}
"""Our speed over the bare driver's."""

GROWTH = 1.05
"""Cost at 10,000 messages over cost at 10."""

HISTORIES = (comparisons.APPEND, comparisons.RECENT_READ)

PEERS: dict[tuple[str, str], dict[str, float]] = {
    ("memory", "jaf-py"): dict.fromkeys((*HISTORIES, comparisons.LOAD, comparisons.PAIRS), 1.0),
    ("postgres", "OpenAI Agents SDK"): {
        comparisons.APPEND: 4,
        comparisons.RECENT_READ: 4,
        comparisons.LOAD: 2,
        comparisons.PAIRS: 12,
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
"""Times faster than a peer; of histories with the most messages that are measured, beside jaf-py in memory of all."""

COSTS: dict[tuple[str, str], float] = {
    (core.MAKING, ""): 3.0,
    (core.DECODING, ""): 1.0,
    (core.IMPORTING, ""): 1.15,
    (core.OPENING, ""): 1.6,
    (redis.WORKED, ""): 9.0,
    (postgres.WAL, "at 10"): 1500.0,
    (postgres.WAL, "at 10,000"): 1500.0,
}
"""Microseconds, milliseconds, two ratios to importing pydantic-settings, microseconds, bytes."""

RESIDENT = 100.0
"""MB, while 100,000 conversations are read."""

SERVED = 1.02
"""Memory after all operations over that after the first ten thousand: no more than an allocator's unrest."""


def target_of(figure: Figure) -> Target | None:
    """What a figure should be."""
    return {"beside": _driver, "peers": _peer, "costs": _costs, "resident": _resident}[figure.section](figure)


def _driver(figure: Figure) -> Target | None:
    if figure.backend not in DRIVER:
        return None
    if comparisons.GROWTH in figure.what:
        return Target(MOST, GROWTH)
    if figure.what in BULK:
        return Target(LEAST, BULK[figure.what])
    if figure.what == comparisons.PAIRS:
        return _bound(LEAST, PAIRS[figure.backend].get(figure.at or 0))
    return _bound(MOST, DRIVER[figure.backend].get(figure.what))


def _peer(figure: Figure) -> Target | None:
    longest = peers_shelf(figure.backend).copies[-1][0]
    counts = figure.backend == "memory" or figure.what not in HISTORIES or figure.at == longest
    return _bound(LEAST, PEERS.get((figure.backend, figure.beside), {}).get(figure.what)) if counts else None


def _costs(figure: Figure) -> Target | None:
    return _bound(MOST, COSTS.get((figure.what, figure.beside)))


def _bound(sense: str, bound: float | None) -> Target | None:
    return Target(sense, bound) if bound else None


def _resident(figure: Figure) -> Target:
    return Target(MOST, SERVED if figure.unit == "x" else RESIDENT)
