"""What is stored outlives versions: the tables are under test, older ones are upgraded, newer ones refused."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jaf_memory_sqlite import SqliteBackend, SqliteConfig, create_sqlite_provider, migrations
from jaf_memory_sqlite.operations import search
from jaf_memory_testing.checks import in_full
from jaf_memory_testing.expectations import done, refused
from jaf_memory_testing.samples import talk

from jaf_memory_core import MemoryQuery, MemoryStorageError, Message, MessageSearch, digest

STORED = Path(__file__).parent / "stored" / "schema-1.sql"
"""A file of schema 1 as `sqlite3 FILE .dump` writes it. It never changes: files like it are out there."""


@pytest.fixture
def stored(path):
    """A database as schema 1 had it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(STORED.read_text(encoding="utf-8"))
        db.execute(f"PRAGMA application_id = {migrations.APPLICATION}")
        db.execute("PRAGMA user_version = 1")
    return path


def tables(path):
    """The definitions of tables and indexes, without their comments and spaces."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        texts = [text for (text,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")]
    lines = [[line.partition("--")[0] for line in text.splitlines()] for text in texts]
    return ["".join("".join(some).split()) for some in lines]


@pytest.mark.usefixtures("stored")
def test_stored_form_is_read(use):
    """What schema 1 has stored comes back equal in every value, whatever the code became since."""

    async def read(provider):
        found = await provider.get_conversation("user-1:chat/ü")
        expected = json.loads(STORED.with_suffix(".json").read_text(encoding="utf-8"))
        assert [message.dict() for message in found.messages] == expected["messages"]
        assert dict(found.metadata) == expected["metadata"]
        assert digest(found) == expected["digest"]
        assert [str(found.created_at), str(found.updated_at), str(found.expires_at)] == expected["times"]
        assert found.active_at == found.updated_at
        assert (found.version, found.incarnation, found.ttl) == (3, expected["incarnation"], 1e9)
        other = await provider.get_conversation("capped")
        assert [message.content for message in other.messages] == ["m 3", "m 4", "m 5"]
        assert (await provider.get_messages("capped", limit=2)).before == 4
        assert len(await provider.find_conversations(MemoryQuery(user_id="user-1", trace_id="trace"))) == 1
        stats = await provider.get_stats()
        assert (stats["total_conversations"], stats["total_messages"]) == (2, len(expected["messages"]) + 3)
        assert done(await provider.append_messages("capped", talk(2, start=5))).added == 1
        assert await provider.update_metadata("user-1:chat/ü", {"title": "Reisen"}) == 4
        newest = await provider.find_conversations(MemoryQuery(updated_since=found.updated_at))
        assert [one.conversation_id for one in newest] == ["capped", "user-1:chat/ü"]
        assert newest[1].active_at == found.active_at < newest[0].active_at < newest[1].updated_at

    use(read)


def test_upgrade_beside_a_search_index(path, use):
    """A file of schema 3 keeps its order and its index for searches; both go on after the upgrade."""
    db = sqlite3.connect(path)
    for version in (1, 2, 3):
        db.executescript(migrations.script(version))
    search.make(db)
    for number in range(9):
        moment = 1_795_510_005_000_000 + number % 3
        db.execute(
            "INSERT INTO conversation VALUES "
            "(?, ?, 'u', 'i', 1, ?, ?, ?, NULL, NULL, 0, 0, 0, 0, 0, NULL, '{}', NULL, 0)",
            (number + 1, f"c{number}", moment, moment, moment // 1_000_000),
        )
    db.execute(f"PRAGMA application_id = {migrations.APPLICATION}")
    db.execute("PRAGMA user_version = 3")
    db.commit()
    db.close()

    async def work(provider):
        for filters in ({}, {"user_id": "u"}):
            found = await provider.find_conversations(MemoryQuery(**filters))
            assert [one.conversation_id for one in found] == ["c8", "c5", "c2", "c7", "c4", "c1", "c6", "c3", "c0"]
        await provider.append_messages("c4", [Message("user", "hidden treasure")])
        assert (await provider.find_conversations(MemoryQuery(limit=1)))[0].conversation_id == "c4"
        found = await provider.search_messages(MessageSearch("treasure"))
        assert [one.conversation_id for one in found] == ["c4"]

    use(work, search="index")


def test_new_files_have_the_stored_form(stored, tmp_path, use):
    """A new file has the very tables and indexes of an upgraded one: a change of them is a new version."""
    new = tmp_path / "new.db"
    use(lambda provider: provider.get_stats(), path=new)
    use(lambda provider: provider.get_stats())
    assert tables(new) == tables(stored)
    assert migrations.CURRENT == 4


def test_definitions(path, tmp_path):
    """What `jaf-memory schema` prints makes a file that is taken as it is; what it applies is told once."""

    async def work(file):
        backend = SqliteBackend(SqliteConfig(path=file))
        applied = await backend.apply_schema()
        text = await backend.schema()
        await backend.close()
        return text, applied

    text, applied = asyncio.run(work(path))
    assert applied == ["schema 1", "schema 2", "schema 3", "schema 4"]
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.executescript(text)
    assert asyncio.run(work(tmp_path / "other.db")) == (text, [])
    assert tables(path) == tables(tmp_path / "other.db")


def test_newer(path, use):
    """A newer schema is refused with both versions, and left as it is."""
    use(lambda provider: provider.store_messages("c", talk(1)))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    with pytest.raises(MemoryStorageError, match="has schema 7, this jaf-memory-sqlite knows schema 4; upgrade"):
        use(lambda provider: provider.get_stats())
    assert path.read_bytes() == before


def test_upgraded_while_open(path, use):
    """A process whose file was upgraded by a newer one writes no more into what it does not know."""

    async def work(provider):
        await provider.store_messages("c", talk(1))
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 5")
        error = refused(await provider.append_messages("c", talk(1, start=1)), MemoryStorageError)
        assert "has schema 5" in str(error)
        assert not (await provider.health_check())["healthy"]

    use(work)


@pytest.mark.parametrize("version", [3, 5])
def test_read_with_columns_of_another_version(path, use, version):
    """Where a column has another name, a read says that the version is another one, and not that SQLite refused."""

    async def work(provider):
        await provider.store_messages("c", talk(1))
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("ALTER TABLE conversation RENAME COLUMN listed_at TO listed_by")
            db.execute(f"PRAGMA user_version = {version}")
        for read in (
            provider.get_conversation("c"),
            provider.find_conversations(MemoryQuery(limit=1)),
            provider.find_conversations(MemoryQuery(metadata={"a": 1})),
        ):
            with pytest.raises(MemoryStorageError, match=f"has schema {version}"):
                await read

    use(work)


def test_a_refused_read_keeps_nothing(path, use):
    """Whoever keeps the error of a read that a newer schema refused keeps no snapshot open with it."""

    async def work(provider):
        await provider.store_messages("c", talk(1))
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 5")
            with pytest.raises(MemoryStorageError, match="has schema 5"):
                await provider.get_recent_messages("c")
            with pytest.raises(MemoryStorageError, match="has schema 5") as kept:
                await provider.get_recent_messages("c", 1)
            db.execute("PRAGMA user_version = 4")
            (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (busy, kept.type) == (0, MemoryStorageError)

    use(work)


@pytest.fixture
def fifth(monkeypatch):
    """A fifth version, which adds a column."""
    first = migrations.script
    text = (
        "ALTER TABLE conversation ADD COLUMN\n  mood TEXT; -- ; not here\nCREATE INDEX moods\nON conversation (mood);\n"
    )
    scripts = {5: text}
    monkeypatch.setattr(migrations, "script", lambda version: scripts.get(version) or first(version))
    monkeypatch.setattr(migrations, "CURRENT", 5)
    return scripts


@pytest.mark.usefixtures("fifth")
def test_upgrade(stored, use):
    """An older file is upgraded in place when it is opened; what it holds stays."""
    assert use(lambda provider: provider.get_recent_messages("capped", 1))[0].content == "m 5"
    with contextlib.closing(sqlite3.connect(stored)) as db:
        assert db.execute("SELECT mood FROM conversation").fetchall() == [(None,), (None,)]
        assert db.execute("PRAGMA user_version").fetchone() == (5,)


def test_failed_upgrade(stored, use, fifth):
    """An upgrade that fails half-way leaves the older version whole."""
    before = tables(stored)
    fifth[5] += "CREATE TABLE conversation (x);"
    with pytest.raises(MemoryStorageError):
        use(lambda provider: provider.get_stats())
    assert tables(stored) == before
    with contextlib.closing(sqlite3.connect(stored)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_sixteen_at_once(path):
    """Sixteen processes that start at once on an empty database all come up, and all write."""
    started_at_once(path, 16)


def test_many_upgrade_at_once(stored):
    """Processes that start at once on a file of an older schema all come up, and all write: one of them upgrades it."""
    started_at_once(stored, 16 if in_full() else 4)
    with contextlib.closing(sqlite3.connect(stored)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (migrations.CURRENT,)
        assert db.execute("SELECT count(*) FROM conversation").fetchone() == (3,)


def started_at_once(path, count):
    """Let so many processes open the file at one moment, and append to one conversation."""
    program = (
        "import asyncio, sys\n"
        "from jaf_memory_core import Message\n"
        "from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider\n"
        "async def main():\n"
        "    sys.stdin.readline()\n"
        "    async with await create_sqlite_provider(SqliteConfig(path=sys.argv[1])) as provider:\n"
        "        answer = await provider.append_messages('c', [Message('user', 'hi')], create=True)\n"
        "        print(answer.data.added)\n"
        "asyncio.run(main())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:  # all have been started, so that all go at once
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=100)[0] for process in processes] == ["1\n"] * count

    async def held():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            return len((await provider.get_conversation("c")).messages)

    assert asyncio.run(held()) == count


def test_hostile_values_stand_as_they_were(use):
    """Metadata and messages with surrogates, long integers and NULs come back equal from their columns."""
    message = Message("user", "a\0b\ud800", further_field={"n": 2**70, "z": -0.0, "e": 1e22, "é": ["\udfff", None]})

    async def work(provider):
        await provider.store_messages("c", [message] * 1, {"k\ud800": "\0", "n": 2**70, "trace_id": "\udead"})
        found = await provider.get_conversation("c")
        assert found.messages == (message,)
        assert await provider.get_recent_messages("c") == [message]
        assert dict(found.metadata) == {"k\ud800": "\0", "n": 2**70, "trace_id": "\udead"}
        assert len(await provider.find_conversations(MemoryQuery(trace_id="\udead"))) == 1
        assert len(await provider.find_conversations(MemoryQuery(metadata={"k\ud800": "\0", "n": 2**70}))) == 1
        assert await provider.find_conversations(MemoryQuery(metadata={"n": float(2**70)})) == []

    use(work)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_made_by_another_process_while_it_is_looked_at(path, turn):
    """Tables that another process makes between two looks at a new file are not another program's."""
    with contextlib.closing(sqlite3.connect(path)) as ours, contextlib.closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        looks = 0

        class Beside:
            """Our connection, with another process that makes the tables behind one of its looks."""

            def execute(self, statement):
                nonlocal looks
                found = ours.execute(statement).fetchall()
                looks += 1
                if looks == turn:
                    migrations.migrate(other, str(path))
                return SimpleNamespace(fetchone=lambda: found[0])

        migrations.refuse_foreign(Beside(), str(path))
        assert looks == 3
