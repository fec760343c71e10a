"""`python -m release [FOLDER]`: what is in the folder afterwards was built here, and may be published."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from release import files, sources, trial

ROOT = Path(__file__).parents[2]


def say(text: str) -> None:
    """Tell of a step."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stop_at(problems: list[str]) -> None:
    """End here if there is any."""
    if problems:
        raise SystemExit("\n".join(["release: not made", *(f"  {problem}" for problem in problems)]))


def main(arguments: list[str]) -> None:
    """Make and check everything; the folder is there only if all is well."""
    folder = Path(arguments[0]) if arguments else ROOT / "dist"
    began = time.monotonic()
    stop_at([f"{folder} is there already; remove it"] if folder.exists() else [])
    stop_at(sources.refusals(ROOT))
    found = sources.sources(ROOT)
    commit = ["git", "log", "-1", "--format=%ct %h"]
    epoch, name = subprocess.run(commit, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    say(f"release: {len(found)} distributions of version {found[0].version}, from commit {name}")
    say("refused nothing: tree clean, versions equal, changelog not empty, documentation complete (tests/docs)")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        built = files.build(found, Path(first), epoch)
        again = files.build(found, Path(second), epoch)
        stop_at([f"{name} differs when it is built again" for name in built if built[name] != again[name]])
        place = Path(first)
        problems = files.problems_of_metadata(place)
        for one in found:
            problems += files.problems_of_wheel(one, files.wheel_of(one, place))
            problems += files.problems_of_sdist(one, files.sdist_of(one, place))
        stop_at(problems)
        for file, content in built.items():
            say(f"made {file}, {len(content):,} bytes")
        say("each: built twice to the same bytes; metadata, classifiers, licence, py.typed, contents, RECORD checked")
        say("each wheel: a bill of materials in .dist-info/sboms")
        stop_at(try_all(found, place))
        folder.mkdir(parents=True)
        for file, content in built.items():
            (folder / file).write_bytes(content)
    say(f"released into {folder}: {len(built)} files, {time.monotonic() - began:.0f} s")


def try_all(found: list[sources.Source], place: Path) -> list[str]:
    """Try each distribution on the lowest and the highest Python, with the lowest and the newest requirements."""
    here = trial.pythons(found[0].pythons)
    problems = []
    for version in trial.lowest_and_highest([one for one in found[0].pythons if one in here]):
        for way, told in trial.WAYS.items():
            for one in found:
                well, text = trial.tried(one, place, here[version], way)
                say(f"{'tried' if well else 'FAILED'} {one.name} alone, Python {version}, {told}: {text}")
                problems += [] if well else [f"{one.name} on Python {version} with {told} of what it requires"]
    tested = trial.lowest_and_highest(list(here))
    rest = [version for version in found[0].pythons if version not in tested]
    say(f"untested here: Python {', '.join(rest)}" if rest else "tested on every Python that is declared")
    return problems or ([] if here else ["no Python that is declared was found"])


if __name__ == "__main__":
    main(sys.argv[1:])
