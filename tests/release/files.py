"""Wheels and sdists: built twice to the same bytes, and looked into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

from release.bill import add_bill, wrong_in_record
from release.sources import Source

LEGAL = "licenses/LICENSE"


def build(found: Sequence[Source], folder: Path, epoch: str) -> dict[str, bytes]:
    """Build an sdist of each, the wheel from the sdist, and put its bill into the wheel; file's name → content."""
    for one in found:
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(one.folder)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
        if done.returncode:
            raise SystemExit(f"release: {one.name} does not build:\n{done.stdout}{done.stderr}")
        add_bill(wheel_of(one, folder))
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def wheel_of(source: Source, folder: Path) -> Path:
    """Where the wheel of a distribution stands."""
    return folder / f"{source.stem}-py3-none-any.whl"


def sdist_of(source: Source, folder: Path) -> Path:
    """Where the sdist of a distribution stands."""
    return folder / f"{source.stem}.tar.gz"


def problems_of_metadata(folder: Path) -> list[str]:
    """What an index would refuse, or not show as it is meant."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(folder.iterdir()))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return [f"twine check: {done.stdout[-2000:]}{done.stderr[-2000:]}"] if done.returncode else []


def problems_of_wheel(source: Source, wheel: Path) -> list[str]:
    """What is missing in a wheel, wrong, or has no business there."""
    from trove_classifiers import classifiers

    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name) for name in archive.namelist()}
    info = f"{source.stem}.dist-info"
    bill = f"{info}/sboms/{source.name}.cdx.json"
    names = {"METADATA", "WHEEL", "RECORD", LEGAL} | ({"entry_points.txt"} if _has_entries(source) else set())
    wanted = source.files() | {f"{info}/{name}" for name in names} | {bill}
    problems = [f"{name} is missing" for name in wanted - texts.keys()]
    problems += [f"{name} has no business there" for name in texts.keys() - wanted]
    if problems:
        return [f"{wheel.name}: {problem}" for problem in sorted(problems)]
    problems += wrong_in_record(texts)
    if f"{source.package}/py.typed" not in texts:
        problems.append("py.typed is missing")
    metadata = message_from_bytes(texts[f"{info}/METADATA"])
    told = (metadata["Name"], metadata["Version"], metadata["License-Expression"], metadata["Requires-Python"])
    if told != (source.name, source.version, "MIT", ">=3.11"):
        problems.append(f"METADATA says {told}")
    problems += [f"there is no classifier {one!r}" for one in set(metadata.get_all("Classifier", [])) - classifiers]
    if not metadata.get_payload():
        problems.append("METADATA has no description, which an index shows")
    document = json.loads(texts[bill])
    named = {one["name"] for one in document["components"]}
    if document["metadata"]["component"]["version"] != source.version or not named >= _plain(source):
        problems.append("its bill of materials is another distribution's")
    return [f"{wheel.name}: {problem}" for problem in problems]


def problems_of_sdist(source: Source, sdist: Path) -> list[str]:
    """The same of an sdist."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    more = {"pyproject.toml", "PKG-INFO", "LICENSE", ".gitignore"}
    more |= {"CHANGELOG.md"} if source.name == "jaf-memory-core" else set()
    more |= {"README.md"} if source.project.get("readme") == "README.md" else set()
    wanted = source.files() | more
    problems = [f"{name} is missing" for name in wanted - names]
    problems += [f"{name} has no business there" for name in names - wanted]
    return [f"{sdist.name}: {problem}" for problem in sorted(problems)]


def _has_entries(source: Source) -> bool:
    return bool(source.project.get("entry-points") or source.project.get("scripts"))


def _plain(source: Source) -> set[str]:
    from packaging.requirements import Requirement

    return {Requirement(text).name for text in source.project["dependencies"]}
