"""SQLite: our provider, and `sqlite3` itself in the calling thread.

The driver has a write-ahead log and synchronous=FULL like ours, and tables with an index each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import competitors
from benchmarks.payload import BODY, HEADER, TURN, owner

TABLES = """
CREATE TABLE IF NOT EXISTS turn (id INTEGER PRIMARY KEY, conversation TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS turn_of ON turn (conversation, id);
CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, conversation TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS message_of ON message (conversation, id);
CREATE TABLE IF NOT EXISTS conversation (id TEXT PRIMARY KEY, owner TEXT, written INTEGER, header TEXT);
CREATE INDEX IF NOT EXISTS conversation_of ON conversation (owner, written, id);
"""
FILL = "INSERT INTO message (conversation, body) VALUES (?, ?)"
LAST = "SELECT body FROM message WHERE conversation = ? ORDER BY id DESC LIMIT ?"
ALL = "SELECT body FROM message WHERE conversation = ? ORDER BY id"
NEWEST = "SELECT id, header FROM conversation WHERE owner = ? ORDER BY written DESC, id DESC LIMIT 10"


class Ours(competitors.Ours):
    """The provider `sqlite`."""

    async def open(self) -> None:
        """Open the file; one that is only being filled need not be on the disk at each step."""
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        synchronous = "NORMAL" if self.place.get("filling") else "FULL"
        path = str(Path(self.place["folder"], "ours.db"))
        self.provider = await create_sqlite_provider(SqliteConfig(path=path, synchronous=synchronous))


class Bare(competitors.Competitor):
    """The driver alone."""

    name = "sqlite3"

    async def open(self) -> None:
        """Open a file of its own."""
        self.db = sqlite3.connect(Path(self.place["folder"], "bare.db"), isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript(TABLES)

    async def close(self) -> None:
        """Close it."""
        self.db.close()

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        self._many(FILL, ((key, BODY) for _ in range(length)))

    async def fill_crowd(self, count: int) -> None:
        """So many conversations of one turn each."""
        rows = ((f"x{number}", owner(number), number, HEADER) for number in range(count))
        self._many("INSERT INTO conversation VALUES (?, ?, ?, ?)", rows)
        self._many(FILL, ((f"x{number}", BODY) for number in range(count) for _ in range(2)))

    async def append(self, key: str) -> None:
        """One row of 600 bytes, committed."""
        self.db.execute("INSERT INTO turn (conversation, body) VALUES (?, ?)", (key, TURN))

    async def recent(self, key: str, limit: int) -> object:
        """The last rows."""
        return self.db.execute(LAST, (key, limit)).fetchall()

    async def load(self, key: str) -> object:
        """All rows."""
        return self.db.execute(ALL, (key,)).fetchall()

    async def newest(self, user: str, *, with_messages: bool) -> object:
        """Ten rows of an index, and the rows of their messages."""
        found = self.db.execute(NEWEST, (user,)).fetchall()
        if not with_messages:
            return found
        return [(header, self.db.execute(ALL, (key,)).fetchall()) for key, header in found]

    async def bulk_import(self, conversations: list[tuple[str, list[str]]]) -> None:
        """All rows in one transaction."""
        self._many(FILL, ((key, body) for key, bodies in conversations for body in bodies))

    async def bulk_export(self) -> int:
        """Read all rows in order; how many bytes."""
        return sum(len(body) for (body,) in self.db.execute("SELECT body FROM message ORDER BY conversation, id"))

    def _many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self.db.execute("BEGIN")
        self.db.executemany(statement, rows)
        self.db.execute("COMMIT")
