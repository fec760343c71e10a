"""Headers that stand as the writer's last appends left them, so that who appends again need not read them."""

from __future__ import annotations

import sqlite3

from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.rows import Kept

MOST = 256
"""Headers that are kept; each takes about a kilobyte."""


class Headers:
    """What the writer knows of some conversations, within its transactions and under its lock.

    All of it is forgotten once anything else has changed the file: a connection counts the rows that it changes by
    itself, and `PRAGMA data_version` the commits of every other one, of any process.
    """

    __slots__ = ("_changes", "_db", "_kept", "_version")

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._changes = -1
        self._db: sqlite3.Connection | None = None
        self._version = 0

    def begin(self, db: sqlite3.Connection) -> None:
        """To be called within each transaction, first: from then on nobody else can change anything.

        Raises:
            MemoryStorageError: a newer version has upgraded the file, or an older one was put in its place.
        """
        (version,) = db.execute("PRAGMA data_version").fetchone()
        # An upgrade, too, is somebody else's commit.
        if version != self._version or db is not self._db:
            self.forget()
            migrations.check(db)
            self._db, self._version = db, version

    def forget(self) -> None:
        """Forget all: a transaction was not committed, or not for certain."""
        self._kept.clear()
        self._changes = -1
        self._db = None

    def get(self, db: sqlite3.Connection, conversation_id: str) -> Kept | None:
        """A header, without metadata; `None` where it has to be read. To be asked before each `keep`."""
        if db.total_changes == self._changes:
            return self._kept.get(conversation_id)
        self._kept.clear()
        return None

    def keep(self, db: sqlite3.Connection, kept: Kept) -> None:
        """Keep what a job has just written, which has changed nothing else since it asked."""
        if len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[kept.record.conversation_id] = kept
        self._changes = db.total_changes
