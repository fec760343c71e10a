"""Mutate a backend, run the kit on each mutant, and count: caught, equivalent, survived."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from mutation.operators import Mutant, mutants
from mutation.runs import tried
from mutation.subjects import ROOT, SUBJECTS, Subject, equivalents, place


def main() -> int:
    """Do what the command line asks for; 1 if a mutant survived that is not listed as equivalent."""
    options = _parser().parse_args()
    failed = 0
    for name in options.subjects or ["files"]:
        failed += _subject(name, SUBJECTS[name], options)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="BACKEND", help=f"of {', '.join(SUBJECTS)}; files when absent")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, chosen at random, and not all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--module", help="only modules whose path has this in it")
    parser.add_argument("--areas", default="", help="only these areas of the kit, with commas between")
    parser.add_argument("--patience", type=float, default=600, help="seconds after which a run counts as caught")
    parser.add_argument("--list", action="store_true", help="show the mutants, and run nothing")
    return parser


def _subject(name: str, subject: Subject, options: argparse.Namespace) -> int:
    known = equivalents()
    made = [
        (file, mutant)
        for file in subject.files()
        if not options.module or options.module in str(file)
        for mutant in mutants(file.read_text(encoding="utf-8"))
    ]
    chosen = made
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(made, min(options.sample, len(made)))
    counts = {"caught": 0, "equivalent": 0, "survived": 0}
    for number, (file, mutant) in enumerate(chosen, 1):
        began = time.monotonic()
        if options.list:
            how, told = "made", ""
        elif place(file, mutant) in known:
            how, told = "equivalent", known[place(file, mutant)]
        else:
            caught = tried(subject, file, mutant.source, areas=options.areas, patience=options.patience)
            how, told = ("survived", "") if caught is None else ("caught", caught)
        counts[how] = counts.get(how, 0) + 1
        _say(f"{number}/{len(chosen)} {how} {_shown(file, mutant)} {told} ({time.monotonic() - began:.0f} s)")
    _say(f"{name}: {len(made)} mutants, {len(chosen)} tried: " + ", ".join(f"{n} {how}" for how, n in counts.items()))
    return counts["survived"]


def _shown(file: Path, mutant: Mutant) -> str:
    return f"[{mutant.operator}] {file.relative_to(ROOT)}:{mutant.line} {mutant.change}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
