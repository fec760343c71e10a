"""The conformance kit on a file, and in memory."""

import contextlib
import functools
import sqlite3

import pytest
from jaf_memory_sqlite import SqliteBackend, SqliteConfig, create_sqlite_provider
from jaf_memory_sqlite.connection import writer
from jaf_memory_sqlite.operations import search
from jaf_memory_testing import BRIEF, ProviderConformance, SearchChecks, Target, slow

from jaf_memory_core import BackendProvider, proposals

NEVER_AWAY = "a file is not away; another process's lock, which is what keeps it from answering, is the stall"

NO_POWER_CUT = (
    "SQLite calls fsync within its own library, where Python cannot see what was synced; that each commit is, "
    "is its synchronous=FULL, which health_check reads back"
)


async def open_file(path, **settings):
    """Open a provider on a file, here or in another process."""
    return await create_sqlite_provider(SqliteConfig(path=path, **settings))


class Shared(SqliteBackend):
    """A backend that several providers stand on: it stays open when one of them is closed."""

    async def close(self):
        """Stay open."""

    async def finish(self):
        """Close."""
        await super().close()


async def open_on(backend, **settings):
    """Open one more provider on a backend."""
    return await BackendProvider(backend, SqliteConfig(path=":memory:", **settings)).open()


@contextlib.asynccontextmanager
async def locked(path):
    """Another connection holds the file's write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def rows(db):
    """Everything that the tables hold; the indexes are on nothing else."""
    return [db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in ("conversation", "message")]


async def dump_file(path):
    """What the file holds, as another connection sees it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return rows(db)


WAYS = {
    "a message": "UPDATE message SET body = substr(body, 1, 40) WHERE id = (SELECT id << 32 FROM {c}) + 2",
    "a missing message": "DELETE FROM message WHERE id = (SELECT id << 32 FROM {c}) + 2",
    "metadata": "UPDATE conversation SET metadata = '{{' WHERE id = (SELECT id FROM {c})",
}
"""Statements that damage a conversation, by what they damage."""


async def damaged(path, way, conversation_id):
    """Damage a conversation, as another connection."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        standing = "(SELECT id FROM conversation WHERE conversation_id = ?)"
        assert db.execute(WAYS[way].format(c=standing), (conversation_id,)).rowcount == 1


async def upgraded(path, _conversation_id):
    """As if a newer version had upgraded the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")


async def dump_memory(backend):
    """What the memory holds."""
    return await backend._search(rows)


class TestFile(ProviderConformance):
    """One file."""

    @pytest.fixture
    def target(self, tmp_path):
        """A file of its own."""
        path = str(tmp_path / "conversations.db")
        return Target(
            open=functools.partial(open_file, path),
            stall=functools.partial(locked, path),
            dump=functools.partial(dump_file, path),
            damage={way: functools.partial(damaged, path, way) for way in WAYS},
            newer=functools.partial(upgraded, path),
            declares={
                "outage": NEVER_AWAY,
                "power_cut": NO_POWER_CUT,
            },
        )


class TestSearchIndex(SearchChecks):
    """One file with an index for searches, to which everything is carried over before each of them."""

    @pytest.fixture
    def target(self, tmp_path, monkeypatch):
        """A file of its own."""
        monkeypatch.setattr(search, "TOGETHER", 0)
        monkeypatch.setattr(proposals, "FIRST", 0)
        monkeypatch.setattr(proposals, "REMEMBERED", 0.0)
        return Target(open=functools.partial(open_file, str(tmp_path / "conversations.db"), search="index"))


@slow("a second kind of database", but=BRIEF)
class TestMemory(ProviderConformance):
    """No file: one connection for all."""

    @pytest.fixture
    def target(self):
        """A database of its own."""
        backend = Shared(SqliteConfig(path=":memory:"))
        return Target(
            open=functools.partial(open_on, backend),
            elsewhere=functools.partial(open_file, ":memory:"),
            clean=backend.finish,
            dump=functools.partial(dump_memory, backend),
            declares={
                "processes": "conversations are kept in one process",
                "reopen": "conversations go with the connection",
                "stall": "there is no other process to wait for",
                "outage": "there is nothing that could be away",
            },
        )


@slow("a second way to write", but=BRIEF)
class TestInTheCallersThread(TestFile):
    """One file on a disk that is taken for a quick one: small writes are done in the caller's thread."""

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch):
        """As if every commit were quick."""
        monkeypatch.setattr(writer, "QUICK", 60)


@slow("the other way to write", but=BRIEF)
class TestInTheThread(TestFile):
    """One file on a disk that is taken for a slow one: all writes are done in the writer's thread."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch):
        """As if no commit were quick."""
        monkeypatch.setattr(writer, "QUICK", -60)
