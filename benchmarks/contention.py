"""Eight tasks that write to one conversation at once: `python -m benchmarks.contention`.

Each of them adds a hundred messages one after the other, by our providers and by other libraries that are installed.
Shown is what became of the messages, and how often the conversation holds one that was sent twice, as after an answer
that got lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.competitors import Place
from benchmarks.measurement import describe
from benchmarks.page import rewritten
from benchmarks.payload import ROOT
from benchmarks.servers import STAGES
from benchmarks.tables import NAMES
from benchmarks.writers import LIBRARIES, Writers

TASKS, EACH = 8, 100
PATIENCE = 180.0
"""Seconds for one library on one store."""

PAGE = ROOT / "docs" / "comparison.md"
MARK = "<!-- made by `python3 dev.py contention -- --docs` -->"
HEAD = (
    f"| library | store | held, of {TASKS * EACH} | lost, though acknowledged | refused | sent twice, held |\n"
    "|---|---|--:|--:|---|---|"
)


@dataclass(frozen=True)
class Outcome:
    """What became of the messages.

    Attributes:
        sent: appends that were tried.
        refused: those that were answered with an error.
        held: messages that the conversation holds, each counted once.
        lost: messages that were acknowledged, and are not there.
        again: how often the conversation holds the message that was sent twice.
        errors: the kinds of the errors.
    """

    sent: int
    refused: int
    held: int
    lost: int
    again: int
    errors: frozenset[str]


async def contend(writers: Writers, tasks: int, each: int) -> Outcome:
    """Let the tasks write, and count."""
    acknowledged: set[str] = set()
    errors: list[str] = []

    async def one(task: int) -> None:
        say = writers.say()
        for number in range(each):
            text = f"{task}-{number}"
            try:
                await say(text)
            except Exception as error:  # noqa: BLE001  (whatever a library raises is its answer)
                errors.append(type(error).__name__)
            else:
                acknowledged.add(text)

    await asyncio.gather(*(one(task) for task in range(tasks)))
    kept = set(await writers.kept())
    say = writers.say()
    for _ in range(2):
        with contextlib.suppress(Exception):
            await say("again")
    again = (await writers.kept()).count("again")
    sent = tasks * each
    return Outcome(sent, len(errors), len(kept), len(acknowledged - kept), again, frozenset(errors))


async def tried(name: str, place: Place) -> Outcome:
    """One library on one store; what it prints is thrown away."""
    writers = LIBRARIES[name][0](place)
    with contextlib.redirect_stdout(io.StringIO()):
        await writers.open()
        try:
            return await asyncio.wait_for(contend(writers, TASKS, EACH), PATIENCE)
        finally:
            await writers.close()


def row(name: str, store: str, outcome: Outcome) -> str:
    """A row of the table."""
    why = f" ({', '.join(sorted(outcome.errors))})" if outcome.errors else ""
    again = {1: "once", 2: "twice"}.get(outcome.again, f"{outcome.again} times")
    figures = f"{outcome.held} | {outcome.lost} | {outcome.refused}{why} | {again}"
    return f"| {name} {version(LIBRARIES[name][1])} | {NAMES[store]} | {figures} |"


def rows(chosen: argparse.Namespace) -> Iterator[str]:
    """A row for each that is installed, on servers of its own."""
    with tempfile.TemporaryDirectory(prefix="jaf-contention-") as folder:
        for store in chosen.store:
            with STAGES[store](Path(folder), lambda _place: None) as stage:
                for name in chosen.only:
                    if store not in LIBRARIES[name][2]:
                        continue
                    try:
                        with stage.empty() as place:
                            yield row(name, store, asyncio.run(tried(name, {**place, "store": store})))
                    except (ImportError, PackageNotFoundError) as error:
                        sys.stderr.write(f"{name} on {store}: not checked, {describe(error)}\n")


def main() -> None:
    """Let them write, print the table, and put it into the documentation if that was asked for."""
    parser = argparse.ArgumentParser(prog="contention", description="Let eight tasks write to one conversation.")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=tuple(LIBRARIES), help="these libraries")
    parser.add_argument("--store", nargs="+", choices=STAGES, default=tuple(STAGES), help="on these stores")
    parser.add_argument("--docs", action="store_true", help="put the table into the documentation")
    chosen = parser.parse_args()
    print(HEAD)
    made = []
    for one in rows(chosen):
        print(one, flush=True)
        made.append(one)
    if chosen.docs:
        table = "\n".join([HEAD, *made])
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), table, MARK), encoding="utf-8")


if __name__ == "__main__":
    main()
