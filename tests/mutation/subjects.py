"""What is mutated, and what has to notice."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mutation import operators, texts
from mutation.operators import Mutant

ROOT = Path(__file__).parents[2]

EQUIVALENTS = Path(__file__).with_name("equivalents.toml")


@dataclass(frozen=True)
class Subject:
    """A backend.

    Attributes:
        package: the folder of its import package, of which a temporary copy is changed.
        modules: the mutated files, as patterns within the package.
        tests: the classes of the kit that have to notice.
        own: tests of what is no promise of all; they are asked about what the kit does not notice.
        renewed: what is imported anew for a mutant, with all below it; the whole package when empty.
        server: the store is a server that all mutants share, and that no check may stop.
    """

    package: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    own: tuple[str, ...] = ()
    renewed: str = ""
    server: bool = False

    def files(self) -> list[Path]:
        """The modules."""
        return [file for pattern in self.modules for file in sorted((ROOT / self.package).glob(pattern))]

    def mutants(self, within: str = "") -> Iterator[tuple[Path, Mutant]]:
        """Every mutant of the files whose path has this in it."""
        for file in self.files():
            if within in str(file):
                source = file.read_text(encoding="utf-8")
                yield from ((file, mutant) for mutant in mutants_of(file, source))


def _kit(plugin: str, *classes: str) -> tuple[str, ...]:
    return tuple(f"plugins/{plugin}/tests/test_conformance.py::{one}" for one in classes)


def _own(plugin: str) -> tuple[str, ...]:
    found = (ROOT / "plugins" / plugin / "tests").glob("test_*.py")
    return tuple(sorted(file.relative_to(ROOT).as_posix() for file in found if file.stem != "test_conformance"))


def mutants_of(file: Path, source: str, wanted: Callable[[Mutant], bool] = lambda _: True) -> Iterator[Mutant]:
    """Every mutant of a file that is wanted, by the operators of its language."""
    if file.suffix == ".py":
        return operators.mutants(source, wanted)
    return filter(wanted, texts.mutants(source, texts.SQL if file.suffix == ".sql" else texts.LUA))


SUBJECTS: dict[str, Subject] = {
    "files": Subject(
        "examples/jaf-memory-files/jaf_memory_files",
        ("__init__.py", "folder.py"),
        ("examples/jaf-memory-files/tests/test_conformance.py::TestFiles",),
        ("examples/jaf-memory-files/tests/test_files.py",),
    ),
    "memory": Subject(
        "jaf_memory_core",
        ("backends/in_memory.py",),
        ("tests/conformance/test_in_memory.py::TestInMemory",),
        ("tests/unit/test_in_memory.py",),
        renewed="jaf_memory_core.backends",
    ),
    "sqlite": Subject(
        "plugins/jaf-memory-sqlite/jaf_memory_sqlite",
        ("operations/*.py", "statements.sql"),
        _kit("jaf-memory-sqlite", "TestFile", "TestSearchIndex"),
        _own("jaf-memory-sqlite"),
    ),
    "redis": Subject(
        "plugins/jaf-memory-redis/jaf_memory_redis",
        ("operations/[!a]*.py", "scripts/*.lua"),  # adoption is not the kit's
        _kit("jaf-memory-redis", "TestSingle"),
        _own("jaf-memory-redis"),
        server=True,
    ),
    "postgres": Subject(
        "plugins/jaf-memory-postgres/jaf_memory_postgres",
        ("operations/*.py", "statements.sql"),
        _kit("jaf-memory-postgres", "TestPostgres", "TestSearchIndex"),
        _own("jaf-memory-postgres"),
        server=True,
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
