"""How a file gets its tables: numbered scripts beside this module, each of which leads from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_sqlite.locks import wait_for_lock

CURRENT = 4
"""The version that this code reads and writes; `PRAGMA user_version` of a file says which it has."""

APPLICATION = 0x4A41464D
"""`JAFM`: `PRAGMA application_id` of our files. https://sqlite.org/fileformat2.html#application_id"""


def script(version: int) -> str:
    """The SQL that leads to a version from the one before."""
    return (files(__package__) / f"{version:04}.sql").read_text(encoding="utf-8")


def version_of(db: sqlite3.Connection) -> int:
    """The version that the file has; 0: no tables yet."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def refuse_foreign(db: sqlite3.Connection, path: str) -> None:
    """Keep away from another program's database; changes nothing.

    Raises:
        MemoryStorageError: the file is not ours.
    """
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    version = version_of(db)
    # Last: another process of ours may make the tables between two of these, and its mark comes with them.
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION and (application or tables or version):
        raise MemoryStorageError(
            f"{path} is another program's SQLite database; name another file (JAF_SQLITE_PATH)", operation="open"
        )


def refuse_newer(found: int, path: str) -> None:
    """Keep away from what a newer version wrote.

    Raises:
        MemoryStorageError: with both versions.
    """
    if found > CURRENT:
        raise MemoryStorageError(
            f"{path} has schema {found}, this jaf-memory-sqlite knows schema {CURRENT}; upgrade jaf-memory-sqlite",
            operation="open",
        )


def refuse_older(found: int, path: str) -> None:
    """Keep away from an older file that cannot be upgraded, because it cannot be written.

    Raises:
        MemoryStorageError: with both versions.
    """
    if found < CURRENT:
        raise MemoryStorageError(
            f"{path} has schema {found}, and cannot be written, so that it cannot be upgraded to schema {CURRENT}; "
            "make it and its folder writable for this process",
            operation="open",
        )


def check(db: sqlite3.Connection) -> None:
    """Refuse what a newer version has upgraded while it was open, or an older file that was put in its place.

    Behind a read, so that nothing comes between.

    Raises:
        MemoryStorageError: with both versions.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != CURRENT:
        (_, _, path) = db.execute("PRAGMA database_list").fetchone()
        refuse_newer(version, path)
        raise MemoryStorageError(
            f"{path} has schema {version}, and was put there while it was open; the next write upgrades it to schema "
            f"{CURRENT}, and so does whoever opens it",
            operation="open",
        )


def definitions() -> str:
    """All that a new file gets, as `sqlite3 FILE` would run it."""
    marks = f"PRAGMA application_id = {APPLICATION};\nPRAGMA user_version = {CURRENT};\n"
    return "\n".join([*map(script, range(1, CURRENT + 1)), marks])


def migrate(db: sqlite3.Connection, path: str) -> list[int]:
    """Bring the file to the current version: in place, under the write lock, in one transaction.

    Any number of processes may come at once: who gets the lock later finds the work done.

    Returns:
        the versions that were applied.

    Raises:
        MemoryStorageError: the file has a newer version.
    """
    refuse_newer(version_of(db), path)
    # Without the lock, as nearly always: who opens waits for no writer.
    if version_of(db) == CURRENT:
        return []
    wait_for_lock(lambda: db.execute("BEGIN IMMEDIATE"))
    try:
        # Once more, now under the lock: another process may have done the work meanwhile.
        found = version_of(db)
        refuse_newer(found, path)
        missing = list(range(found + 1, CURRENT + 1))
        for version in missing:
            for statement in statements(script(version)):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        # Within the transaction: a process that is killed leaves tables and version, or neither.
        db.execute(f"PRAGMA user_version = {CURRENT}")
        db.execute("COMMIT")
        return missing
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def statements(text: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit between them."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
