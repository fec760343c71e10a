"""`KeyFile`: the users' data keys, wrapped, in one SQLite file that the processes of a machine share."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from jaf_memory_core.errors import MemoryStorageError

SCHEMA = """
CREATE TABLE IF NOT EXISTS data_key (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL UNIQUE,
    ring TEXT NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID
"""

GONE = (
    "is not there: bring it back from where it was, for nothing that was sealed opens without it; "
    "where nothing was sealed yet, make it by `jaf-memory keys init`"
)

PAGE = 500
"""Keys that a rotation reads at a time."""


class WrappedKey(NamedTuple):
    """A data key as it is kept.

    Attributes:
        id: 16 random hexadecimal digits.
        user: whose it is; `""` for conversations that belong to nobody.
        ring: id of the ring's key that wrapped it.
        wrapped: the data key, for whoever has that key.
    """

    id: str
    user: str
    ring: str
    wrapped: bytes


class KeyFile:
    """Data keys in a file, for any number of threads and processes.

    What is deleted is overwritten. The file belongs apart from the conversations: whoever has a backup of both, from
    before a user was forgotten, and the key ring, can read that user's text.

    Args:
        path: the file.
        make: whether it is made where it is not there, readable by its owner only. For the very first time: where it
            was lost, or another folder is looked into, what is sealed by new keys would not fit what stands.
        read_only: whether it is a copy of another machine's file: keys that were made in both would open here or there.
    """

    def __init__(self, path: Path, *, make: bool = False, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._make = make
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._pid = 0
        self._place: tuple[int, int] | None = None
        self._opens = 0
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<KeyFile {self.path}>"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # A fork's child must not touch its parent's connection; and where another file was put into the place
                # of this one, or none is there, nobody but us would ever read what stands in this one.
                if self._db is None or self._pid != os.getpid() or self._place != self._found():
                    self._db, self._pid = self._opened(), os.getpid()
                    self._place = self._found()
                yield self._db
            except sqlite3.Error as error:
                reason = error.sqlite_errorname if hasattr(error, "sqlite_errorname") else type(error).__name__
                raise MemoryStorageError(f"the file of data keys {self.path} cannot be used: {reason}") from None

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116  (asked for each message)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _opened(self) -> sqlite3.Connection:
        if self._make:
            self.make()
        elif not self.is_there():
            raise MemoryStorageError(f"the file of data keys {self.path} {GONE}")
        self._make = False  # once it was there, it is never made anew
        self._opens += 1
        # As it was looked for above: never made by SQLite.
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if self.read_only else 'rw'}"
        db = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)
        # No write-ahead log: what is deleted must stand nowhere.
        # A processor is never told that its provider is closed.
        weakref.finalize(self, db.close)
        if self.read_only:
            return db
        for statement in ("PRAGMA secure_delete=ON", "PRAGMA journal_mode=DELETE", "PRAGMA synchronous=FULL", SCHEMA):
            db.execute(statement).fetchall()
        return db

    def _check_writable(self) -> None:
        if self.read_only:
            raise MemoryStorageError(
                f"the file of data keys {self.path} is a copy for reading (JAF_ENCRYPTION_READ_ONLY): new users' first "
                "messages are written, and keys rotated or destroyed, on the machine that has the file itself"
            )

    def is_there(self) -> bool:
        """Whether the file is there."""
        return os.path.isfile(self.path)  # noqa: PTH113  (no error where a folder may not be looked into)

    def make(self) -> bool:
        """Make the file, unless it is there; whether it was made.

        Raises:
            MemoryStorageError: it cannot be made.
        """
        try:
            # By us, so that nobody else may read it, not even for a moment.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return False
        except OSError as error:
            reason = type(error).__name__
            raise MemoryStorageError(f"the file of data keys {self.path} cannot be made: {reason}") from None
        return True

    def version(self) -> tuple[int, ...]:
        """Numbers that differ once another process has changed something, or anybody has forgotten a user."""
        with self._connection() as db:
            # SQLite's number says nothing of what this connection did, nor of what was before it was opened.
            return self._opens, self._forgotten, int(db.execute("PRAGMA data_version").fetchone()[0])

    def of_user(self, user: str) -> WrappedKey | None:
        """A user's key."""
        return self._one("SELECT id, user, ring, wrapped FROM data_key WHERE user = ?", user)

    def by_id(self, key_id: str) -> WrappedKey | None:
        """The key of an id."""
        return self._one("SELECT id, user, ring, wrapped FROM data_key WHERE id = ?", key_id)

    def _one(self, sql: str, value: str) -> WrappedKey | None:
        with self._connection() as db:
            row = db.execute(sql, (value,)).fetchone()
            return WrappedKey(*row) if row else None

    def add(self, key: WrappedKey) -> WrappedKey:
        """Keep a user's key, unless the user has one by now; the one that stands."""
        self._check_writable()
        with self._connection() as db:
            db.execute("INSERT INTO data_key VALUES (?, ?, ?, ?) ON CONFLICT (user) DO NOTHING", key)
            standing = self.of_user(key.user)
            return self.add(key) if standing is None else standing  # forgotten in between

    def those(self, ids: Iterable[str]) -> list[WrappedKey]:
        """The keys of these ids that are there."""
        with self._connection() as db:
            sql = "SELECT id, user, ring, wrapped FROM data_key WHERE id IN (SELECT value FROM json_each(?))"
            return [WrappedKey(*row) for row in db.execute(sql, (json.dumps(list(ids)),))]

    def replace(self, before: WrappedKey, after: WrappedKey) -> bool:
        """Put another wrapping of a key into its place; `False` if it does not stand as it was."""
        self._check_writable()
        with self._connection() as db:
            sql = "UPDATE data_key SET ring = ?, wrapped = ? WHERE id = ? AND ring = ?"
            return db.execute(sql, (after.ring, after.wrapped, before.id, before.ring)).rowcount == 1

    def forget(self, user: str) -> bool:
        """Delete a user's key; whether there was one."""
        self._check_writable()
        with self._connection() as db:
            self._forgotten += 1
            return db.execute("DELETE FROM data_key WHERE user = ?", (user,)).rowcount == 1

    def others(self, ring: str) -> Iterator[WrappedKey]:
        """All keys that another key of the ring has wrapped."""
        last = ""
        while True:
            with self._connection() as db:
                sql = "SELECT id, user, ring, wrapped FROM data_key WHERE ring <> ? AND id > ? ORDER BY id LIMIT ?"
                page = [WrappedKey(*row) for row in db.execute(sql, (ring, last, PAGE))]
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1].id

    def counts(self) -> dict[str, int]:
        """How many keys each of the ring's has wrapped."""
        with self._connection() as db:
            return dict(db.execute("SELECT ring, count(*) FROM data_key GROUP BY ring ORDER BY ring"))

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._lock:
            if self._db is not None and self._pid == os.getpid():
                with closing(self._db):
                    self._db = None
