"""Mutate a backend, run the kit on each mutant, and count: caught, equivalent, survived."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from mutation.operators import Mutant
from mutation.runs import Kit, collected
from mutation.subjects import ROOT, SUBJECTS, Subject, equivalents, place

Made = list[tuple[Path, Mutant]]


def main() -> int:
    """Do what the command line asks for; 1 if a mutant survived that is not listed as equivalent."""
    options = _parser().parse_args()
    status = 0
    for name in options.subjects or ["files"]:
        pid = os.fork()  # each with a pytest of its own
        if not pid:
            os._exit(_subject(name, SUBJECTS[name], options))
        status |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 1 if status else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mutate", description=__doc__, epilog="TMPDIR on a disk in memory makes it quicker."
    )
    parser.add_argument("subjects", nargs="*", metavar="BACKEND", help=f"of {', '.join(SUBJECTS)}; files when absent")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, chosen at random, and not all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--module", default="", help="only files whose path has this in it")
    parser.add_argument("--only", default="", help="only mutants whose line in the output has this in it")
    parser.add_argument("--areas", default="", help="only these areas of the kit, with commas between")
    parser.add_argument("--traces", type=Path, help="a file that keeps, for the next time, what each check reaches")
    parser.add_argument("--list", action="store_true", help="show the mutants, and run nothing")
    return parser


def _subject(name: str, subject: Subject, options: argparse.Namespace) -> int:
    made = [one for one in subject.mutants(options.module) if options.only in shown(*one)]
    chosen = made
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(made, min(options.sample, len(made)))
    if options.list:
        _say("\n".join(shown(*one) for one in chosen))
        return 0
    counts: Counter[str] = Counter()
    began = time.monotonic()

    def work(kit: Kit) -> None:
        kit.record(options.traces)
        told = f"{name}: {len(kit.checks)} checks, recorded in {time.monotonic() - began:.0f} s"
        kit.say(f"{told}; left out: {', '.join(kit.left_out) or 'none'}")
        _try(kit, chosen, counts)

    try:
        collected(subject, work, areas=options.areas)
    finally:
        told = ", ".join(f"{n} {how}" for how, n in sorted(counts.items()))
        _say(f"{name}: {len(made)} mutants, {counts.total()} tried in {time.monotonic() - began:.0f} s: {told}")
    return int(counts["survived"] + counts["not reached"] > 0)


def _try(kit: Kit, chosen: Made, counts: Counter[str]) -> None:
    known = equivalents()
    for number, (file, mutant) in enumerate(chosen, 1):
        began = time.monotonic()
        if place(file, mutant) in known:
            how, told = "equivalent", known[place(file, mutant)]
        else:
            outcome = kit.tried(file, mutant)
            how, told = outcome.how, outcome.told
        counts[how] += 1
        kit.say(f"{number}/{len(chosen)} {how} {shown(file, mutant)} | {told} ({time.monotonic() - began:.1f} s)")


def shown(file: Path, mutant: Mutant) -> str:
    """A mutant in one line."""
    return f"[{mutant.operator}] {file.relative_to(ROOT)}:{mutant.line} {mutant.change}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
