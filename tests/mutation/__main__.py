"""Mutate a backend, run the kit on each mutant, and count: caught, equivalent, survived."""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from mutation.operators import Mutant
from mutation.runs import Kit, collected
from mutation.subjects import ROOT, SUBJECTS, Subject, equivalents, place

Made = list[tuple[Path, Mutant]]

MISSED = ("survived", "not reached", "undecided")


def main() -> int:
    """Do what the command line asks for; 1 if a mutant survived that is not listed as equivalent."""
    options = _parser().parse_args()
    return max(_subject(name, SUBJECTS[name], options) for name in options.subjects or ["files"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mutate", description=__doc__, epilog="TMPDIR on a disk in memory makes it quicker."
    )
    parser.add_argument("subjects", nargs="*", metavar="BACKEND", help=f"of {', '.join(SUBJECTS)}; files when absent")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, chosen at random, and not all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--module", default="", help="only files whose path has this in it")
    parser.add_argument(
        "--only", action="append", default=[], help="only mutants whose line in the output has this in it, or another"
    )
    parser.add_argument("--areas", default="", help="only these areas of the kit, with commas between")
    parser.add_argument("--checks", default="", metavar="EXPRESSION", help="only these checks, as pytest's -k has them")
    parser.add_argument("--traces", type=Path, help="a file that keeps, for the next time, what each check reaches")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, metavar="N", help="of checks that are run on each mutant, at most"
    )
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--kit", action="store_true", help="do not ask the backend's own tests about what is left")
    asked.add_argument("--own", action="store_true", help="ask the backend's own tests alone")
    parser.add_argument("--list", action="store_true", help="show the mutants, and run nothing")
    return parser


def _subject(name: str, subject: Subject, options: argparse.Namespace) -> int:
    wanted = options.only or [""]
    made = [one for one in subject.mutants(options.module) if any(part in shown(*one) for part in wanted)]
    chosen = made
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(made, min(options.sample, len(made)))
    if options.list:
        _say("\n".join(shown(*one) for one in chosen))
        return 0
    began = time.monotonic()
    by_kit = ["undecided"] * len(chosen) if options.own else _tried(name, subject, chosen, options)
    counts = Counter(by_kit)
    missed = [one for one, how in zip(chosen, by_kit, strict=False) if how in MISSED]
    if missed and subject.own and not options.kit:
        own = replace(subject, tests=subject.own, server=False)  # each of their servers may be stopped
        others = {"areas": "", "traces": options.traces and options.traces.with_suffix(".own")}
        by_own = _tried(f"{name}'s own tests", own, missed, argparse.Namespace(**{**vars(options), **others}))
        counts["caught by own tests"] = len(_of(by_own, "caught", "hangs"))
        counts["equivalent"] += by_own.count("equivalent")
        counts.subtract(how for how, by in zip(_of(by_kit, *MISSED), by_own, strict=False) if by not in MISSED)
    told = ", ".join(f"{n} {how}" for how, n in sorted((+counts).items()))
    _say(f"{name}: {len(made)} mutants, {counts.total()} tried in {time.monotonic() - began:.0f} s: {told}")
    return int(any(counts[how] for how in MISSED) or len(by_kit) < len(chosen))


def _of(outcomes: list[str], *wanted: str) -> list[str]:
    return [how for how in outcomes if how in wanted]


def _tried(name: str, subject: Subject, chosen: Made, options: argparse.Namespace) -> list[str]:
    """What became of each mutant, so far as they were tried; in a process of its own, with a pytest of its own."""
    with tempfile.TemporaryFile() as outcomes:
        pid = os.fork()
        if not pid:
            work = partial(_try, name, chosen, options, outcomes.fileno())
            collected(subject, work, areas=options.areas, checks=options.checks)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        outcomes.seek(0)
        told = outcomes.read().decode().splitlines()
    if status:
        _say(f"{name}: ended after {len(told)} of {len(chosen)} mutants")
    return told


def _try(name: str, chosen: Made, options: argparse.Namespace, tell: int, kit: Kit) -> None:
    began = time.monotonic()
    kit.record(options.traces)
    told = f"{name}: {len(kit.checks)} checks, recorded in {time.monotonic() - began:.0f} s"
    kit.say(f"{told}; left out: {', '.join(kit.left_out) or 'none'}")
    known = equivalents()
    for number, (file, mutant) in enumerate(chosen, 1):
        began = time.monotonic()
        if place(file, mutant) in known:
            how, told = "equivalent", known[place(file, mutant)]
        else:
            outcome = kit.tried(file, mutant, options.seconds)
            how, told = outcome.how, outcome.told
        kit.say(f"{number}/{len(chosen)} {how} {shown(file, mutant)} | {told} ({time.monotonic() - began:.1f} s)")
        os.write(tell, f"{how}\n".encode())


def shown(file: Path, mutant: Mutant) -> str:
    """A mutant in one line."""
    return f"[{mutant.operator}] {file.relative_to(ROOT)}:{mutant.line} {mutant.change}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
