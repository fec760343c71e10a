"""How the file is reached: connections for the workers, and what is wrong with a file that does not open."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from jaf_memory_core.errors import MemoryConfigurationError, MemoryStorageError
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import CANNOT_OPEN, DAMAGED, READ_ONLY
from jaf_memory_sqlite.locks import wait_for_lock
from jaf_memory_sqlite.rows import SQL
from jaf_memory_sqlite.settings import MEMORY, SqliteConfig

logger = logging.getLogger("jaf_memory_sqlite")

OLDEST = (3, 25, 0)
"""The first SQLite that understands every statement of ours."""

STATEMENTS = 256
"""Prepared statements that a connection keeps."""

CACHE = 8 << 10
"""KiB of pages that a connection keeps at most."""

PRIVATE = 0o600
"""Rights of a file that is made: it holds what people said."""

LOOK = 0.1
"""Seconds after which it looks anew whether the file is still there."""

PATIENCE = 5.0
"""Seconds to wait for a lock: of many processes that start at once on an empty file the last waits for all others.

No more than half of the deadline, so that there is time to say why.
"""


NOWHERE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""Why a path cannot name a file, whatever is made on the way."""

_making = threading.Lock()


def absolute(path: str) -> Path:
    """The path from the root.

    Raises:
        MemoryConfigurationError: it begins at a home folder or a working folder that is not there.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        problem = "JAF_SQLITE_PATH begins with ~ and a user who has no home folder here; give the whole path"
    except OSError:
        problem = "JAF_SQLITE_PATH begins at the working folder, which is not there any more; give the whole path"
    raise MemoryConfigurationError(problem)


def make_private(path: str) -> None:
    """Make the file, if it is not there, for nobody else to read; SQLite gives its log and its index the same rights.

    A file that is there keeps its rights: who may read it was decided.
    """
    # Under a lock: to close the file would undo locks that a connection of this process got on it meanwhile.
    with _making, suppress(OSError):  # that it cannot be made SQLite tells, and in more words
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))


def size_of(path: str) -> int:
    """Bytes of a file; 0 if there is none, or nobody can tell."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def can_only_be_read(path: str) -> bool:
    """Whether a file holds something that this process may read, and not change."""
    effective = os.access in os.supports_effective_ids
    may_read, may_write = (os.access(path, right, effective_ids=effective) for right in (os.R_OK, os.W_OK))
    return may_read and not may_write and size_of(path) > 0


class Connector:
    """Makes connections to one file, and can tell whether the last one still leads to what the path names.

    Args:
        config: says which file, and how durable.
        reading: whether the connections only read; another connector has made the file then.
    """

    def __init__(self, config: SqliteConfig, *, reading: bool = False) -> None:
        self.path = MEMORY if config.in_memory else str(absolute(config.path))
        self._file = Path(self.path)
        self._status = partial(os.stat, self.path)  # each commit asks for it
        self._synchronous = config.synchronous
        self._patience = min(PATIENCE, config.operation_timeout / 2)
        self._reading = reading
        self.applied: list[int] = []
        """Versions of the tables that were applied to the file when it was opened."""
        self.read_only = False
        """Whether the last connection can only read, since the file or its folder cannot be written."""
        self._identity: tuple[int, ...] | None = None
        self._looked_at = 0.0

    def connect(self) -> sqlite3.Connection:
        """A new connection, ready to work; the file gets our tables if it has none.

        Raises:
            MemoryConfigurationError: the path leads nowhere.
            MemoryStorageError: the file is not ours, damaged, newer than this code, or can neither be written nor read.
            sqlite3.OperationalError: another process holds a lock on it.
        """
        if sqlite3.sqlite_version_info < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise MemoryConfigurationError(f"Python was built with SQLite {sqlite3.sqlite_version}; {needed} is needed")
        try:
            db = wait_for_lock(self._connected, patience=self._patience)
        except sqlite3.DatabaseError as error:
            db = self._only_reading(error)
        except UnicodeDecodeError:  # SQLite quotes a damaged definition of a table
            db = None
        if db is None:
            raise self._damaged()
        return db

    def _only_reading(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """A connection to a file that cannot be written.

        Raises:
            MemoryConfigurationError, MemoryStorageError, sqlite3.DatabaseError: what was wrong with writing, or is now.
        """
        if str(error).startswith((READ_ONLY, CANNOT_OPEN)) and size_of(self.path):
            known = self.read_only
            with suppress(sqlite3.DatabaseError):
                db = self._connected(read_only=True)
                if not (known or self._reading):
                    logger.warning("%s cannot be written; it can be read, and every change is refused", self.path)
                return db
        self._explain(error)
        raise error

    def leads_elsewhere(self, *, now: bool = False) -> bool:
        """Whether the path no longer names the file that was opened: removed, replaced, restored.

        Args:
            now: look, however short a time ago it was looked.
        """
        moment = time.monotonic()
        if self.path == MEMORY or (not now and moment < self._looked_at + LOOK):
            return False
        if self._stands_at(read_only=self.read_only) != self._identity:
            return True  # and so it stays for whoever asks next, until the other file is opened
        self._looked_at = moment
        return False

    def _stands_at(self, *, read_only: bool) -> tuple[int, ...] | None:
        try:
            found = self._status()
        except OSError:
            return None
        identity = found.st_dev, found.st_ino
        if not read_only:
            return identity
        # What others change in a file that is taken to be unchanging has to be opened anew.
        return (*identity, found.st_mtime_ns, found.st_size, size_of(f"{self.path}-wal"))

    def _connected(self, *, read_only: bool = False) -> sqlite3.Connection:
        target = self._file.as_uri() + self._reading_options() if read_only else self.path
        if not (read_only or self.path == MEMORY):
            if can_only_be_read(self.path):
                # SQLite would try, and leave a log's index with the same rights beside it: in everybody's way, once the
                # file can be written again.
                raise sqlite3.OperationalError(READ_ONLY)
            # Before SQLite would make it, with whatever rights the process's mask leaves.
            make_private(self.path)
        # Before the connection: a file that is put there meanwhile is another one than what is opened.
        identity = self._stands_at(read_only=read_only)
        # Transactions are ours to begin and end, and a lock of the worker's guards the connection.
        db = sqlite3.connect(
            target,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
            uri=read_only,
        )
        try:
            self._prepare(db, read_only=read_only)
        except BaseException:
            db.close()
            raise
        self.read_only, self._identity = read_only, identity
        return db

    def _reading_options(self) -> str:
        """A file with a log can only be read with the log's index; one without is read as it stands."""
        # Immutable: without the right to write, SQLite could not make the index that a file in WAL mode wants.
        return "?mode=ro" if size_of(f"{self.path}-wal") else "?mode=ro&immutable=1"

    def _prepare(self, db: sqlite3.Connection, *, read_only: bool) -> None:
        # Sorting must not leave users' texts in temporary files, and a cache must not grow with the file.
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA cache_size = -{CACHE}")
        if self._reading:
            db.execute("PRAGMA query_only = ON")
            if not read_only:
                db.execute("PRAGMA user_version").fetchone()  # now it is known whether it can be opened
            return
        migrations.refuse_foreign(db, self.path)
        migrations.refuse_newer(migrations.version_of(db), self.path)
        if read_only:
            migrations.refuse_older(migrations.version_of(db), self.path)
            return
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
            raise self._damaged() from error

    def _damaged(self) -> MemoryStorageError:
        return MemoryStorageError(
            f"{self.path} is no SQLite database, or is damaged; restore it from a backup, or name another file",
            operation="open",
        )

    def _why_not_opened(self) -> MemoryConfigurationError | MemoryStorageError:
        try:
            self._file.stat()
        except OSError as error:
            if error.errno in NOWHERE:
                reason = os.strerror(error.errno or 0).lower()
                return MemoryConfigurationError(f"JAF_SQLITE_PATH leads nowhere: {reason}; name another file")
        # A link that leads nowhere: the folder that is missing is the one it leads to.
        folder = (Path(os.path.realpath(self.path)) if self._file.is_symlink() else self._file).parent
        if self._file.is_dir():
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
