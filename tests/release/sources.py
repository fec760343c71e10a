"""What is released, and why it cannot be: read from the sources alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRAGMENT = re.compile(r".+\.(removed|changed|added|fixed|security)\.md")
DECLARED = re.compile(r"Programming Language :: Python :: (3\.\d+)")


@dataclass(frozen=True)
class Source:
    """A distribution before it is built."""

    folder: Path
    project: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name on an index."""
        return str(self.project["name"])

    @property
    def package(self) -> str:
        """The one package that it brings."""
        return self.name.replace("-", "_")

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.project["version"])

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"{self.package}-{self.version}"

    @property
    def pythons(self) -> list[str]:
        """The versions of Python that it declares, the lowest first."""
        found = (DECLARED.fullmatch(text) for text in self.project["classifiers"])
        return sorted((match[1] for match in found if match), key=lambda text: int(text.partition(".")[2]))

    def files(self) -> set[str]:
        """Every file of its package, relative to its folder."""
        found = (path for path in (self.folder / self.package).rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in found if "__pycache__" not in path.parts}


def sources(root: Path) -> list[Source]:
    """Every distribution that is released, the core first; the example is for readers only."""
    files = [root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]
    return [Source(file.parent, tomllib.loads(file.read_text(encoding="utf-8"))["project"]) for file in files]


def refusals(root: Path, *, workers: str = "auto") -> list[str]:
    """Why the sources cannot be released; nothing where they can.

    Args:
        root: the checkout.
        workers: how many processes try the documentation, as pytest-xdist has it.
    """
    return [*_dirty(root), *_unequal(root), *_without_changes(root), *_undocumented(root, workers)]


def _dirty(root: Path) -> list[str]:
    command = ["git", "status", "--porcelain"]
    lines = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    return [f"the tree is dirty: commit or remove {', '.join(line[3:] for line in lines)}"] if lines else []


def _unequal(root: Path) -> list[str]:
    found = sources(root)
    version = found[0].version
    problems = [
        f"versions are unequal: {one.name} has {one.version}, {found[0].name} has {version}"
        for one in found
        if one.version != version
    ]
    ours = {one.name for one in found}
    for one in found:
        extras = one.project.get("optional-dependencies", {}).values()
        for text in [*one.project["dependencies"], *(text for extra in extras for text in extra)]:
            name = re.split(r"[\s\[=<>!~;]", text, maxsplit=1)[0]
            if name in ours and not text.endswith(f"=={version}"):
                problems.append(f"versions are unequal: {one.name} requires {text}, and not =={version}")
    return problems


def _without_changes(root: Path) -> list[str]:
    version = sources(root)[0].version
    fragments = any(FRAGMENT.fullmatch(file.name) for file in (root / "changes").iterdir())
    section = re.search(rf"^## {re.escape(version)}\b", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if fragments or section:
        return []
    return [f"the changelog is empty: neither a fragment in changes/ nor a section {version} in CHANGELOG.md"]


def _undocumented(root: Path, workers: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", "tests/docs"]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))] or [done.stderr[-2000:]]
    return [f"the documentation is not what there is: {line}" for line in told] if done.returncode else []
