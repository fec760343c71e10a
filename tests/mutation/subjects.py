"""What is mutated, and what has to notice."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mutation.operators import Mutant

ROOT = Path(__file__).parents[2]

EQUIVALENTS = Path(__file__).with_name("equivalents.toml")


@dataclass(frozen=True)
class Subject:
    """A backend.

    Attributes:
        package: its import package, of which a temporary copy is changed.
        modules: the mutated modules, as patterns within the package.
        tests: what pytest runs on each mutant.
    """

    package: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self) -> list[Path]:
        """The modules."""
        return [file for pattern in self.modules for file in sorted((ROOT / self.package).glob(pattern))]


SUBJECTS: dict[str, Subject] = {
    "files": Subject(
        "examples/jaf-memory-files/jaf_memory_files",
        ("__init__.py", "folder.py"),
        ("examples/jaf-memory-files/tests/test_conformance.py",),
    ),
    "memory": Subject(
        "jaf_memory_core", ("backends/in_memory.py",), ("tests/conformance/test_in_memory.py::TestInMemory",)
    ),
    "sqlite": Subject(
        "plugins/jaf-memory-sqlite/jaf_memory_sqlite",
        ("operations/*.py",),
        ("plugins/jaf-memory-sqlite/tests/test_conformance.py::TestFile",),
    ),
    "redis": Subject(
        "plugins/jaf-memory-redis/jaf_memory_redis",
        ("operations/*.py",),
        ("plugins/jaf-memory-redis/tests/test_conformance.py::TestSingle",),
    ),
    "postgres": Subject(
        "plugins/jaf-memory-postgres/jaf_memory_postgres",
        ("operations/*.py",),
        ("plugins/jaf-memory-postgres/tests/test_conformance.py::TestPostgres",),
    ),
}
"""The backends, by name."""


def equivalents() -> dict[tuple[str, str, str], str]:
    """(module, line as it stands, change) → why nobody can tell this mutant from the original."""
    listed = tomllib.loads(EQUIVALENTS.read_text(encoding="utf-8")).get("equivalent", [])
    return {(one["module"], one["line"], one["change"]): one["reason"] for one in listed}


def place(file: Path, mutant: Mutant) -> tuple[str, str, str]:
    """What a mutant is listed under, wherever its line moves."""
    return file.relative_to(ROOT).as_posix(), mutant.text, mutant.change
