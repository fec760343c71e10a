"""Damaged conversations: what an export and a copy do about them, and what `doctor` advises about what fails."""

import json
import sqlite3
from contextlib import closing

import pytest
from jaf_memory_cli.diagnosis import _advice_by_cause

from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError, MemoryStorageError

SECRET = "correct-horse-battery"


@pytest.fixture
def damaged(program, tmp_path):
    """`jaf-memory` on a SQLite file with three conversations, the second of which cannot be read."""
    lines = [
        json.dumps({"conversation_id": key, "messages": [{"role": "user", "content": SECRET}]})
        for key in ("a", "b", "c")
    ]
    (tmp_path / "given.jsonl").write_text("\n".join(lines))
    program.run("import", tmp_path / "given.jsonl")
    with closing(sqlite3.connect(tmp_path / "store.db")) as db, db:
        (key,) = db.execute("SELECT id FROM conversation WHERE conversation_id = 'b'").fetchone()
        assert db.execute("UPDATE message SET body = '{broken' WHERE conversation = ?", (key,)).rowcount == 1
    return program


def test_damage_ends_an_export(damaged, tmp_path):
    """An export that meets a damaged conversation names it, ends with status 3, and leaves no file."""
    ran = damaged.run("export", "out.jsonl", status=3)
    assert "'b'" in ran.err
    assert SECRET not in ran.err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_export_keeps_going(damaged, tmp_path):
    """With `--keep-going` an export has all that can be read, names each that cannot, and ends with status 1."""
    ran = damaged.run("export", "out.jsonl", "--keep-going", status=1)
    assert "✓ exported 2 conversations" in ran.out
    assert "✗ damaged, left out (1):\n  b: " in ran.err
    keys = [json.loads(line)["conversation_id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert keys == ["a", "c"]
    document = damaged.run("export", "out.jsonl", "--keep-going", "--json", status=1).document
    assert (document["conversations"], document["damaged"]) == (2, 1)
    assert document["damaged_first"][0]["conversation_id"] == "b"


def test_a_copy_keeps_going(damaged):
    """With `--keep-going` a copy, verified, has all that can be read, and names each that cannot."""
    to = ["copy", "--to", "sqlite", "--to-set", "path=other.db", "--verify"]
    assert "'b'" in damaged.run(*to, status=3).err
    document = damaged.run(*to, "--keep-going", "--json", status=1).document
    assert (document["conversations"], document["verified"], document["damaged"]) == (2, 2, 1)


def test_a_list_keeps_going(damaged):
    """`list` ends at a header that cannot be read; with `--keep-going` it has the others, and names that one."""
    with closing(sqlite3.connect(damaged.folder / "store.db")) as db, db:
        db.execute("UPDATE conversation SET metadata = '{' WHERE conversation_id = 'b'")
    assert "'b'" in damaged.run("list", status=3).err
    for pages in ([], ["--limit", "1"], ["--all"]):
        ran = damaged.run("list", *pages, "--keep-going", status=1)
        assert "✗ damaged, left out (1):\n  b: " in ran.err
        assert "b" not in [line.split()[0] for line in ran.out.splitlines() if line.strip()]
    ran = damaged.run("list", "--keep-going", "--json", status=1)
    assert sorted(json.loads(line)["conversation_id"] for line in ran.out.splitlines()) == ["a", "c"]
    assert "  b: " in ran.err


def test_previews_keep_going(damaged):
    """`list --preview` ends at a last message that cannot be read; with `--keep-going` that one has no preview."""
    assert "'b'" in damaged.run("list", "--preview", status=3).err
    ran = damaged.run("list", "--preview", "--keep-going", "--json", status=1)
    assert {one["conversation_id"]: one["last_message"] is not None for one in ran.lines} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert "✗ damaged, left out (1):\n  b: " in ran.err


def test_counts_keep_going(damaged):
    """With `--keep-going` `stats` counts what can be read, as it counts a whole store, and names what cannot."""
    ran = damaged.run("stats", "--keep-going", "--json", status=1)
    assert "✗ damaged, left out (1):\n  b: " in ran.err
    assert (ran.document["total_conversations"], ran.document["total_messages"]) == (2, 2)
    damaged.run("delete", "b", "--yes")
    counted = damaged.run("stats", "--keep-going", "--json").document
    assert counted == damaged.run("stats", "--json").document


def health(error):
    """Return what a failed connection test answers for an error."""
    return {"error_type": type(error).__name__, "retryable": getattr(error, "retryable", None)}


ADVICE = [
    (MemoryConnectionError("gone", retryable=True), "look whether the store is up"),
    (
        MemoryConnectionError("no password", retryable=False),
        "the store was reached, and refused: look at user, password",
    ),
    (MemoryStorageError("no right to do it", operation="open"), "the store was reached; what it names"),
    (MemoryConfigurationError("no such folder"), "mend what is named"),
    (OSError("no route"), "look whether the store is up"),
]


@pytest.mark.parametrize(("error", "said"), ADVICE, ids=lambda one: one if type(one) is str else type(one).__name__)
def test_advice_goes_by_the_cause(error, said):
    """`doctor` does not send anybody to look whether a store is up that has answered, and refused."""
    assert _advice_by_cause(health(error)).startswith(said)
