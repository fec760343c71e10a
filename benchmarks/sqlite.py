"""SQLite beside the bare driver: `python benchmarks/sqlite.py [--rounds 25] [--json FILE]`.

Everything is measured interleaved, in one run and on one disk: a round does some operations of ours, then as many with
`sqlite3` itself in the calling thread. The ratios are medians over the rounds of ratios within a round. The bare driver
has a write-ahead log and synchronous=FULL like ours, two tables with an index each, and none of our promises.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

from jaf_memory_core import BackendProvider, Message

LENGTHS = (10, 100, 1_000, 10_000)
RECENT = 20
TASKS = 32
STEPS = 40
PAIRS = 10
TEXT = "x" * 230
"""A message of it has 300 bytes as it is stored."""


class Bare:
    """The driver alone: a row of 600 bytes is a turn, and rows of 300 are to be read."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        for table in ("turn", "message"):
            self.db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, conversation TEXT, body TEXT)")
            self.db.execute(f"CREATE INDEX {table}_of ON {table} (conversation, id)")
        rows = ((f"c{length}", "y" * 300) for length in LENGTHS for _ in range(max(length, RECENT)))
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO message (conversation, body) VALUES (?, ?)", rows)
        self.db.execute("COMMIT")

    def append(self, conversation: str) -> None:
        """One row, committed."""
        self.db.execute("INSERT INTO turn (conversation, body) VALUES (?, ?)", (conversation, "y" * 600))

    def recent(self, conversation: str) -> None:
        """The last rows."""
        text = "SELECT body FROM message WHERE conversation = ? ORDER BY id DESC LIMIT ?"
        self.db.execute(text, (conversation, RECENT)).fetchall()


class Rounds:
    """What was measured, by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = defaultdict(list)

    def note(self, name: str, ours: float, bare: float, ratio: float) -> None:
        """Keep one round's figures."""
        for kind, value in (("ours", ours), ("bare", bare), ("ratio", ratio)):
            self.found[f"{name}, {kind}"].append(value)

    def medians(self) -> dict[str, float]:
        """The figures of all rounds."""
        return {name: round(statistics.median(values), 2) for name, values in self.found.items()}

    def table(self) -> str:
        """One line a thing."""
        medians = self.medians()
        names = dict.fromkeys(name.rpartition(", ")[0] for name in medians)
        lines = [f"{'':44}{'ours':>10}{'bare':>10}{'ratio':>8}"]
        for name in names:
            ours, bare, ratio = (medians[f"{name}, {kind}"] for kind in ("ours", "bare", "ratio"))
            lines.append(f"{name:44}{ours:10.1f}{bare:10.1f}{ratio:8.2f}")
        return "\n".join(lines)


def turn() -> list[Message]:
    """What a user says, and what is answered."""
    return [Message("user", TEXT), Message("assistant", TEXT)]


async def store(provider: BackendProvider, name: str, length: int) -> None:
    """Make a conversation of that length, also where there is one."""
    await provider.store_messages(name, [Message("user", TEXT) for _ in range(length)], user_id="u")


async def each(work: Callable[[], Awaitable[object]]) -> float:
    """Median microseconds of ours."""
    times = []
    for _ in range(STEPS):
        started = time.perf_counter_ns()
        await work()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


def each_bare(work: Callable[[], None]) -> float:
    """Median microseconds of the bare driver."""
    times = []
    for _ in range(STEPS):
        started = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


async def pairs(provider: BackendProvider) -> float:
    """Pairs a second of 32 tasks, each of which appends a turn and reads what is recent, again and again."""

    async def task(name: str) -> None:
        for _ in range(PAIRS):
            await provider.append_messages(name, turn())
            await provider.get_recent_messages(name, RECENT)

    started = time.perf_counter()
    await asyncio.gather(*(task(f"t{number}") for number in range(TASKS)))
    return TASKS * PAIRS / (time.perf_counter() - started)


def pairs_bare(bare: Bare) -> float:
    """Pairs a second of the bare driver, one after the other: it has no tasks."""
    started = time.perf_counter()
    for _ in range(TASKS * PAIRS):
        bare.append("c100")
        bare.recent("c100")
    return TASKS * PAIRS / (time.perf_counter() - started)


async def one_round(provider: BackendProvider, bare: Bare, rounds: Rounds) -> None:
    """Each thing once."""
    appended, read = {}, {}
    for length in LENGTHS:
        name = f"c{length}"
        if length <= STEPS * 3:  # what the rounds append would make it another length
            await store(provider, name, max(0, length - STEPS))
        appended[length] = await each(lambda name=name: provider.append_messages(name, turn()))  # type: ignore[misc]
        theirs = each_bare(lambda name=name: bare.append(name))  # type: ignore[misc]
        rounds.note(f"append a turn at {length:,}, µs", appended[length], theirs, appended[length] / theirs)
        read[length] = await each(lambda name=name: provider.get_recent_messages(name, RECENT))  # type: ignore[misc]
        theirs = each_bare(lambda name=name: bare.recent(name))  # type: ignore[misc]
        rounds.note(f"recent {RECENT} of {length:,}, µs", read[length], theirs, read[length] / theirs)
    for what, times in (("append a turn", appended), (f"recent {RECENT}", read)):
        rounds.note(f"{what}: 10,000 over 10, µs", times[10_000], times[10], times[10_000] / times[10])
    ours, theirs = await pairs(provider), pairs_bare(bare)
    rounds.note(f"{TASKS} tasks, append + recent, pairs/s", ours, theirs, ours / theirs)


async def measure(folder: Path, count: int) -> Rounds:
    """So many rounds, after one that warms up."""
    async with await create_sqlite_provider(SqliteConfig(path=str(folder / "ours.db"))) as provider:
        bare = Bare(folder / "bare.db")
        for length in LENGTHS:
            await store(provider, f"c{length}", length)
        for number in range(TASKS):
            await store(provider, f"t{number}", RECENT)
        await one_round(provider, bare, Rounds())
        rounds = Rounds()
        for _ in range(count):
            await one_round(provider, bare, rounds)
        return rounds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--folder", help="where the files are, for a certain disk")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        rounds = asyncio.run(measure(Path(folder), chosen.rounds))
    print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {chosen.rounds} rounds")
    print(rounds.table())
    if chosen.json:
        chosen.json.write_text(json.dumps(rounds.medians(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
