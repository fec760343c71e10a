"""SQL in files: what the loader gives, and what it refuses."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from jaf_memory_core import statements

TEXT = """-- Everything above the first name is for readers only.

-- name: columns
id, text

-- name: newest
-- The index is enough.
SELECT {columns} FROM {table}  -- in this order
WHERE text <> '{}' ORDER BY id DESC

-- name: add
INSERT INTO {table} ({columns}) VALUES (?, ?)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with nothing in it yet; its name is its own, because what was read is remembered."""
    name = f"with_sql_{abs(hash(request.node.name))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def written(package: str, tmp_path: Path, text: str) -> str:
    """Put a file into the package; its name."""
    (tmp_path / package / "some.sql").write_text(text)
    return "some.sql"


def test_pieces_and_identifiers_are_put_in_and_comments_left_out(package: str, tmp_path: Path) -> None:
    """A statement comes with its pieces and quoted names in their places, and without the lines that explain it."""
    found = statements.load(package, written(package, tmp_path, TEXT), table="t")
    assert dict(found) == {
        "columns": "id, text",
        "newest": "SELECT id, text FROM \"t\"  -- in this order\nWHERE text <> '{}' ORDER BY id DESC",
        "add": 'INSERT INTO "t" (id, text) VALUES (?, ?)',
    }


@pytest.mark.parametrize("name", ['a"b', "select", "{columns}", "x; DROP TABLE y --", "tafel größe"])
def test_any_name_is_one_identifier(package: str, tmp_path: Path, name: str) -> None:
    """Whatever a table is called, the statements find it and nothing else."""
    found = statements.load(package, written(package, tmp_path, TEXT), table=name)
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE TABLE {statements.quoted(name)} (id INTEGER, text TEXT)")
    db.execute(found["add"], (1, "one"))
    assert db.execute(found["newest"]).fetchall() == [(1, "one")]
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [(name,)]
    db.close()


def test_several_names_are_a_qualified_one() -> None:
    """A pair of names is a table in a schema, in statements and in migrations alike."""
    assert statements.fill("CREATE TABLE {table} ()", {"table": ("my schema", 'a"b')}) == (
        'CREATE TABLE "my schema"."a""b" ()'
    )


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_no_store_takes_as_a_name_is_refused(name: str) -> None:
    """An empty name, and one that would end in its middle, never reach a statement."""
    with pytest.raises(ValueError, match="no NUL"):
        statements.quoted(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- name: one\nSELECT {other}", "the statement one has places that nothing fills: other"),
        ("-- name: one\nSELECT 1\n-- name: one\nSELECT 2", "names a statement twice: one"),
        ("-- name: one\n{two}\n-- name: two\n{one}", "holds itself: one in two in one"),
    ],
)
def test_a_mistake_in_a_file_is_told_by_name(package: str, tmp_path: Path, text: str, message: str) -> None:
    """An empty place, a name that stands twice and a circle are refused when the file is read, not when it is run."""
    with pytest.raises(ValueError, match=message):
        statements.load(package, written(package, tmp_path, text))
