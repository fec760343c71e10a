"""The command line: `python3 dev.py bench`, or `python -m benchmarks` where everything is installed."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import page, tables
from benchmarks.figures import Report
from benchmarks.plan import LOOPS, SECTIONS, Plan
from benchmarks.program import run
from benchmarks.servers import STAGES


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure every store beside its driver and its peers.")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=tuple(STAGES), help="these stores")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=SECTIONS, help="these parts")
    parser.add_argument("--loop", nargs="+", choices=LOOPS, default=LOOPS, help="these event loops")
    parser.add_argument("--quick", action="store_true", help="one process, few rounds: whether everything runs")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other libraries too")
    parser.add_argument("--processes", type=int, help="fresh processes for each figure")
    parser.add_argument("--rounds", type=int, help="rounds in each process")
    parser.add_argument("--operations", type=int, help="operations of the proof that a process does not grow")
    parser.add_argument("--folder", help="where files are made, for a certain disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="draw the charts")
    parser.add_argument("--docs", action="store_true", help="put figures, charts and tables into the documentation")
    parser.add_argument("--from", dest="earlier", type=Path, metavar="FILE", help="measure nothing, take these figures")
    return parser.parse_args(words)


def plan_of(chosen: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    sections = tuple(one for one in SECTIONS if one in chosen.section and (chosen.peers or one != "peers"))
    loops = tuple(one for one in LOOPS if one in chosen.loop)
    if "uvloop" in loops and importlib.util.find_spec("uvloop") is None:
        sys.exit("uvloop is not installed; --loop asyncio does without it")
    plan = Plan(tuple(one for one in STAGES if one in chosen.only), sections, loops, folder=chosen.folder)
    if chosen.quick:
        plan = plan.quick()
    if chosen.operations:
        plan = replace(plan, operations=chosen.operations, operations_in_memory=chosen.operations)
    return replace(plan, processes=chosen.processes or plan.processes, rounds=chosen.rounds or plan.rounds)


def main() -> None:
    """Measure, print, and write what was asked for."""
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # unwinding stops the servers
    started = time.perf_counter()
    report = Report.read(chosen.earlier) if chosen.earlier else run(plan_of(chosen))
    print(tables.text(report))
    sys.stderr.write(f"after {(time.perf_counter() - started) / 60:.1f} minutes\n")
    if chosen.json:
        report.write(chosen.json)
    if chosen.charts:
        from benchmarks import charts

        charts.draw(report, chosen.charts)
    if chosen.docs:
        page.publish(report)


if __name__ == "__main__":
    main()
