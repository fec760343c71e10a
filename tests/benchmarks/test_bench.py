"""The program that measures runs, leaves nothing out, and sees what is slow; how fast things are is not tested."""

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: packages that are installed are those under test

pytestmark = pytest.mark.skipif(
    os.environ.get("JAF_TEST_INSTALLED") == "wheels", reason="the program that measures is in no wheel"
)

from benchmarks import (
    comparisons,
    contention,
    engines,
    page,
    peers,
    resident,
    sessions,
    tables,
    targets,
    worker,
    writers,
)
from benchmarks.backends import memory as memory_store
from benchmarks.backends import sqlite
from benchmarks.bulk import EXPORT, IMPORT
from benchmarks.costs import core
from benchmarks.figures import Figure, Report, Target, merged
from benchmarks.measurement import Case, by_turns
from benchmarks.payload import LENGTHS, SIZE, turn
from jaf_memory_core import codec

STORES = ("memory", "sqlite")


@pytest.fixture(scope="module")
def memory():
    """A folder in memory, where there is one: how long a disk takes to be sure is not tested."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, memory):
    """A quick run for the stores without a server: its figures, what it printed, and the charts."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-peers", "--only", *STORES]
    command += ["--folder", memory, "--json", folder / "figures.json", "--charts", folder / "charts"]
    # A module is found in the folder that it is run in, unless Python is told to trust no such folder.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return Report.read(folder / "figures.json"), done.stdout, sorted((folder / "charts").iterdir())


def expected():
    """Every figure of a quick run: section, store, what, at, loop."""
    for store, loop in itertools.product(STORES, ("asyncio", "uvloop")):
        for what, at in itertools.product((comparisons.APPEND, comparisons.RECENT_READ), LENGTHS):
            yield "beside", store, what, at, loop
        yield from (("beside", store, comparisons.RECENT_TEN, at, loop) for at in (10, 10_000))
        yield from (("beside", store, comparisons.PAIRS, at, loop) for at in (1, 32))
        yield "beside", store, comparisons.LOAD, 1_000, loop
        yield "beside", store, comparisons.PAIRS, 128, loop
        yield "beside", store, comparisons.CONTENDED, 32, loop
        timed = [(comparisons.APPEND, 1), (comparisons.RECENT_READ, 1), (comparisons.APPEND, 32)]
        for what, tasks in (*timed, (comparisons.PAIR, 32), (comparisons.PAIR, 128)):
            yield from (("beside", store, f"{what}, {part}", tasks, loop) for part in ("p50", "p99"))
        for what, tasks in ((comparisons.APPEND, 1), (comparisons.RECENT_READ, 1), (comparisons.PAIR, 32)):
            yield "beside", store, f"{what}, the client's processor", tasks, loop
        for what in (comparisons.APPEND, comparisons.RECENT_TEN):
            yield "beside", store, f"{what}, {comparisons.GROWTH}", None, loop
    for store in STORES:
        yield from (("beside", store, what, 100, "asyncio") for what in (IMPORT, EXPORT))
        yield from (
            ("beside", store, what, None, "asyncio") for what in (comparisons.NEWEST, comparisons.NEWEST_HEADERS)
        )
        peak = resident.PEAK_IN_MEMORY if store == "memory" else resident.PEAK
        yield from (("resident", store, f"{how}, {peak}", 1_000, "asyncio") for how in ("iterate", "export"))
    yield "resident", "memory", "after all operations ÷ after 10,000", 20_000, "asyncio"
    yield "resident", "sqlite", "after all operations ÷ after 1,000", 2_000, "asyncio"
    yield from (
        ("costs", "", what, None, "asyncio") for what in (core.MAKING, core.DECODING, core.IMPORTING, core.OPENING)
    )


def test_no_figure_is_missing(run):
    """Everything that is to be measured has a value, and the spread of its processes."""
    report, _, _ = run
    found = {(one.section, one.backend, one.what, one.at, one.loop): one for one in report.figures}
    assert set(expected()) == set(found)
    # A value may be 0: a process need not have grown.
    missing = [one for one in found.values() if one.value is None or not one.low <= one.value <= one.high or one.error]
    assert missing == []


def test_the_printed_tables_are_those_of_the_figures(run):
    """What is printed can be made from the JSON again; every figure of the first table stands in it."""
    report, printed, _ = run
    assert printed.strip() == tables.text(report)
    for figure in report.of("beside", loop="asyncio"):
        if figure.what != comparisons.PAIRS:
            line = next(line for line in printed.splitlines() if line.startswith(f"| {tables.label(figure)} "))
            assert tables.cell(figure) in line


def test_the_charts_are_drawn(run):
    """There is a chart of histories and one of tasks, whole SVG files that name their stores."""
    *_, charts = run
    assert [chart.name for chart in charts] == ["length.svg", "tasks.svg"]
    for chart in charts:
        words = "".join(ET.parse(chart).getroot().itertext())
        assert "SQLite" in words
        assert "in memory" in words


class Slowed(sqlite.Ours):
    """Our provider, with an append that takes its time."""

    async def append(self, key):
        """Wait, then append."""
        await asyncio.sleep(0.05)
        return await super().append(key)


def test_a_slow_provider_misses_its_target(memory):
    """The same provider, slowed by 50 ms, has a worse ratio than before, and a cross in the table."""

    async def measure(kind):
        place = {"folder": tempfile.mkdtemp(dir=memory)}
        ours, bare = kind(place), sqlite.Bare(place)
        async with worker.AsyncExitStack() as stack:
            await worker.opened(stack, ours, bare)
            for one in (ours, bare):
                await worker.fill_shelf(one, worker.DRIVERS_SHELF)
            effort = comparisons.Effort(1, 1, (32,), pairs=32, newest=False, steps=2)
            return await comparisons.beside_driver(ours, bare, effort)

    def finished(figures):
        named = [replace(one, backend="sqlite") for one in figures]
        return Report({}, [replace(one, target=targets.target_of(one)) for one in merged(named)])

    good, slow = (finished(asyncio.run(measure(kind))) for kind in (sqlite.Ours, Slowed))
    for length in LENGTHS:
        (before,) = good.of("beside", what=comparisons.APPEND, at=length)
        (after,) = slow.of("beside", what=comparisons.APPEND, at=length)
        assert after.value > before.value
        assert not after.met
        assert f"{tables.label(after)} " in tables.beside(slow, "asyncio")
        assert tables.cell(after).endswith("≤ 2 ✗")
    assert "targets are reached" in tables.summary(slow)


def test_a_peer_that_fails_is_told_and_not_counted(monkeypatch):
    """A library that cannot be imported, and one that fails in one process of two, stand in the table as failed."""
    monkeypatch.setitem(peers.PEERS, "memory", {"Nobody": "nowhere:Nothing"})
    order = {"kind": "peers", "backend": "memory", "place": {}, "loop": "asyncio", "rounds": 1, "patience": 60}
    (nobody,) = asyncio.run(worker.obey(order))
    assert (nobody.backend, nobody.beside, nobody.value) == ("memory", "Nobody", None)
    assert "ModuleNotFoundError" in nobody.error
    once = Figure("peers", "redis", "append a turn", 10, "Sometimes", value=9.0, target=Target("least", 2))
    figures = merged([nobody, once, Figure("peers", "redis", "", None, "Sometimes", error="it fell over")])
    report = Report({}, figures)
    assert "failed: ModuleNotFoundError" in tables.peers(report)
    assert "failed: it fell over" in tables.peers(report)
    assert "9.00" not in tables.peers(report)
    told = "0 of 0 targets are reached. Failed, and not counted: Nobody on in memory, Sometimes on Redis."
    assert tables.summary(report) == told


class Stuck(memory_store.Bare):
    """A dict of lists that cannot be closed."""

    name = "Stuck"

    async def close(self):
        """Fail."""
        raise OSError("still busy")


def test_a_peer_that_cannot_be_closed_wrongs_nobody(monkeypatch):
    """It is told as failed, and what was measured of the others stays."""
    monkeypatch.setattr(peers, "load", lambda *_: ([Stuck({}), memory_store.Bare({})], {}))
    order = {"kind": "peers", "backend": "memory", "place": {}, "loop": "asyncio", "rounds": 1, "patience": 60}
    figures = merged(asyncio.run(worker.obey(order)))
    (stuck,) = [one for one in figures if one.beside == "Stuck"]
    assert stuck.error == "OSError: still busy"
    assert {one.what for one in figures if one.value} > {comparisons.APPEND, comparisons.RECENT_READ, comparisons.PAIRS}


def test_bridges_are_measured_beside_their_engines(monkeypatch):
    """An engine's own store and the bridge do the same by turns, and both have a figure for each."""
    pytest.importorskip("pydantic_ai.conversation_store")
    monkeypatch.setattr(engines, "ROUNDS", 1)
    monkeypatch.setattr(engines, "STEPS", 2)
    lines = [line.split(" | ") for line in asyncio.run(engines.measure("Pydantic AI", "memory", {}))]
    assert [line[2] for line in lines] == ["append a turn", "the last 20", "all 100"]


def test_sessions_are_measured_beside_the_provider(monkeypatch):
    """Each load has its ratio to `get_recent_messages`, a record its own to `append_messages`."""
    monkeypatch.setattr(sessions, "ROUNDS", 1)
    monkeypatch.setattr(sessions, "STEPS", 2)
    lines = [line.split(" | ") for line in asyncio.run(sessions.measure("memory", {}, 200))]
    assert {line[2] for line in lines} >= {sessions.READ, "load", "load, with a ttl", sessions.WRITE, "record"}
    assert [line[4] for line in lines if line[2] in (sessions.READ, sessions.WRITE)] == ["1.00 |"] * 2
    assert all(float(line[4].split()[0]) > 0 for line in lines)


def test_who_fails_while_others_are_measured_is_left_out():
    """One that fails in a later step has no times at all, and the others have all of theirs."""

    async def well(_number):
        await asyncio.sleep(0)

    async def badly(number):
        if number > 2:
            raise OSError("gone")

    case = Case("something", None, 2, {"well": well, "badly": badly})
    failed = asyncio.run(by_turns([case], 3, may_fail=["badly"]))
    assert failed == {"badly": "OSError: gone"}
    assert set(case.times) == {"well"}
    assert len(case.times["well"]) == 3


def test_several_processes_make_one_figure():
    """The median counts, the lowest and the highest stand beside it, and a target is looked at as it is shown."""
    found = [Figure("beside", "redis", "append", 10, "redis-py", value=value) for value in (1.9, 1.2, 1.604)]
    (figure,) = [replace(one, target=Target("most", 1.6)) for one in merged(found)]
    assert (figure.low, figure.value, figure.high) == (1.2, 1.604, 1.9)
    assert figure.met
    assert tables.cell(figure) == "1.60 (1.20…1.90) ≤ 1.6 ✓"
    assert not replace(figure, value=1.606).met


def test_a_message_has_300_bytes():
    """The payload is what the documentation says."""
    assert [len(codec.encode(message)) for message in turn()] == [SIZE, SIZE]


@pytest.mark.parametrize("file", page.PAGES, ids=lambda file: file.name)
def test_a_page_shows_the_figures_that_lie_beside_it(file):
    """The tables of a page are those of figures.json; `python3 dev.py bench -- --docs` writes both."""
    text = file.read_text(encoding="utf-8")
    assert text == page.rewritten(text, page.PAGES[file](Report.read(page.FIGURES)))


def test_the_page_shows_every_chart():
    """Each chart that lies there is shown, and each that is shown lies there."""
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    charts = [f"(charts/{chart.name})" for chart in page.FOLDER.glob("*.svg")]
    assert len(charts) == text.count(".svg)") == 3
    assert all(chart in text for chart in charts)


def test_writers_of_one_conversation_lose_nothing_of_ours(tmp_path, monkeypatch):
    """Eight tasks that append at once find all that they have appended, and what was sent twice once."""
    monkeypatch.setattr(contention, "EACH", 5)
    for store in STORES:
        outcome = asyncio.run(contention.tried("jaf-memory", {"store": store, "folder": str(tmp_path)}))
        assert (outcome.sent, outcome.held, outcome.lost, outcome.refused, outcome.again) == (40, 40, 0, 0, 1)


def test_what_writers_lose_is_counted():
    """A store that reads, waits and writes back loses what others wrote; what it refuses is no loss."""

    class Careless(writers.Writers):
        held = ()

        def say(self):
            async def append(text):
                if text.endswith("-0"):
                    raise OSError
                before = self.held
                await asyncio.sleep(0)
                self.held = (*before, text)

            return append

        async def kept(self):
            return list(self.held)

    outcome = asyncio.run(contention.contend(Careless({}), 4, 5))
    assert (outcome.held, outcome.lost, outcome.refused, outcome.again) == (4, 12, 4, 2)
    assert outcome.errors == {"OSError"}


def test_the_readme_says_what_the_table_says():
    """The losses that the README tells of are those of the table that `python3 dev.py contention -- --docs` makes."""
    lines = [line.strip("| ").split(" | ") for line in contention.PAGE.read_text(encoding="utf-8").splitlines()]
    table = {
        (cells[0].rpartition(" ")[0], cells[1]): cells for cells in lines if len(cells) == 6 and cells[2].isdigit()
    }
    held = {who: int(cells[2]) for who, cells in table.items()}
    assert {held[who] for who in table if who[0] == "jaf-memory"} == {800}
    assert {table[who][5] for who in table if who[0] == "jaf-memory"} == {"once"}
    assert held["LangGraph", "PostgreSQL"] == 100 > held["jaf-py", "Redis"]
    assert table["Google ADK", "PostgreSQL"][4] == "700 (StaleSessionError)"
    sdk = [cells for (name, _), cells in table.items() if name == "OpenAI Agents SDK"]
    assert {(cells[2], cells[5]) for cells in sdk} == {("800", "twice")}
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for claim in (
        "in PostgreSQL holds 100",
        "jaf-py's Redis store fewer",
        "refuses 700",
        "jaf-memory holds 800, each once",
    ):
        assert claim in told
