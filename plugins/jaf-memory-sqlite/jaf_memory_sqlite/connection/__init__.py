"""How the file is reached: connections for the workers, and what is wrong with a file that does not open."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

from jaf_memory_core.errors import MemoryConfigurationError, MemoryStorageError
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import CANNOT_OPEN, DAMAGED, READ_ONLY
from jaf_memory_sqlite.locks import wait_for_lock
from jaf_memory_sqlite.rows import SQL
from jaf_memory_sqlite.settings import MEMORY, SqliteConfig

OLDEST = (3, 24, 0)
"""The first SQLite that understands every statement of ours."""

STATEMENTS = 256
"""Prepared statements that a connection keeps."""

CACHE = 8 << 10
"""KiB of pages that a connection keeps at most."""

LOOK = 0.1
"""Seconds after which it looks anew whether the file is still there."""

PATIENCE = 5.0
"""Seconds to wait for a lock: of many processes that start at once on an empty file the last waits for all others.

No more than half of the deadline, so that there is time to say why.
"""


class Connector:
    """Makes connections to one file, and can tell whether the last one still leads to what the path names.

    Args:
        config: says which file, and how durable.
        reading: whether the connections only read; another connector has made the file then.
    """

    def __init__(self, config: SqliteConfig, *, reading: bool = False) -> None:
        self.path = MEMORY if config.in_memory else str(Path(config.path).expanduser().absolute())
        self._synchronous = config.synchronous
        self._patience = min(PATIENCE, config.operation_timeout / 2)
        self._reading = reading
        self.applied: list[int] = []
        """Versions of the tables that were applied to the file when it was opened."""
        self._identity: tuple[int, int] | None = None
        self._looked_at = 0.0

    def connect(self) -> sqlite3.Connection:
        """A new connection, ready to work; the file gets our tables if it has none.

        Raises:
            MemoryConfigurationError: the path leads nowhere.
            MemoryStorageError: the file is not ours, damaged, newer than this code, or may not be written.
            sqlite3.OperationalError: another process holds a lock on it.
        """
        if sqlite3.sqlite_version_info < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise MemoryConfigurationError(f"Python was built with SQLite {sqlite3.sqlite_version}; {needed} is needed")
        try:
            db = wait_for_lock(self._connected, patience=self._patience)
        except sqlite3.DatabaseError as error:
            self._explain(error)
            raise
        assert db is not None  # noqa: S101  (patience without end conditions gives a connection)
        self._identity = self._stands_at()
        return db

    def leads_elsewhere(self) -> bool:
        """Whether the path no longer names the file that was opened: removed, replaced, restored."""
        now = time.monotonic()
        if self.path == MEMORY or now < self._looked_at + LOOK:
            return False
        if self._stands_at() != self._identity:
            return True  # and so it stays for whoever asks next, until the other file is opened
        self._looked_at = now
        return False

    def _stands_at(self) -> tuple[int, int] | None:
        try:
            found = Path(self.path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _connected(self) -> sqlite3.Connection:
        # Transactions are ours to begin and end, and a lock of the worker's guards the connection.
        db = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        # Sorting must not leave users' texts in temporary files, and a cache must not grow with the file.
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA cache_size = -{CACHE}")
        if self._reading:
            db.execute("PRAGMA query_only = ON")
            return
        migrations.refuse_foreign(db, self.path)
        migrations.refuse_newer(migrations.version_of(db), self.path)
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal" and self.path != MEMORY:
            raise MemoryStorageError(
                f"{self.path} cannot have a write-ahead log (journal mode {mode}); put it on a local disk",
                operation="open",
            )
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten, so that erased texts are in no free page.
        db.execute("PRAGMA secure_delete = ON")
        self.applied += migrations.migrate(db, self.path)
        db.execute(SQL["write_nothing"])

    def _explain(self, error: sqlite3.DatabaseError) -> None:
        """Raise what is wrong with the path, where that can be told; otherwise the error speaks for itself."""
        text = str(error)
        if text.startswith(CANNOT_OPEN):
            raise self._why_not_opened() from error
        if text.startswith(READ_ONLY):
            raise MemoryStorageError(
                f"{self.path} cannot be written; make the file and its folder writable for this process",
                operation="open",
            ) from error
        if text.startswith(DAMAGED):
            raise MemoryStorageError(
                f"{self.path} is no SQLite database, or is damaged; restore it from a backup, or name another file",
                operation="open",
            ) from error

    def _why_not_opened(self) -> MemoryConfigurationError | MemoryStorageError:
        folder = Path(self.path).parent
        if Path(self.path).is_dir():
            return MemoryConfigurationError(f"{self.path} is a folder; JAF_SQLITE_PATH must name a file")
        if not folder.is_dir():
            return MemoryConfigurationError(f"there is no folder {folder}; make it, or name a file elsewhere")
        if not os.access(folder, os.W_OK | os.X_OK):
            return MemoryStorageError(
                f"the folder {folder} cannot be written, and a database needs more files beside it; "
                "make it writable for this process",
                operation="open",
            )
        reason = os.strerror(errno.EACCES) if not os.access(self.path, os.R_OK) else "SQLite does not say why"
        return MemoryStorageError(f"{self.path} cannot be opened: {reason}", operation="open")
