"""Whatever is wrong with the file has an error of its own, which says what to do."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from jaf_memory_sqlite import SqliteBackend, SqliteConfig, connection, create_sqlite_provider, health, migrations
from jaf_memory_testing.expectations import done
from jaf_memory_testing.expectations import refused as was_refused

from jaf_memory_core import (
    ConversationMemory,
    MemoryConfigurationError,
    MemoryConnectionError,
    MemoryStorageError,
    Message,
    create_in_memory_provider,
    create_memory_provider_from_env,
)
from jaf_memory_core import (
    test_memory_provider_connection as try_connection,
)
from jaf_memory_core.transfer import Copied, Imported, copy, import_conversations

NOBODY = 65_534


def refused(path, kind, **settings):
    """The error with which a provider does not open."""

    async def open_it():
        with pytest.raises(kind) as caught:
            await create_sqlite_provider(SqliteConfig(path=path, operation_timeout=1.5, **settings))
        return caught.value

    return asyncio.run(open_it())


def test_no_folder(tmp_path):
    """A missing folder is a configuration error that names it."""
    error = refused(tmp_path / "absent" / "c.db", MemoryConfigurationError)
    assert str(tmp_path / "absent") in str(error)
    assert "make it" in str(error)
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere" / "c.db")
    assert f"there is no folder {tmp_path / 'nowhere'};" in str(refused(tmp_path / "link.db", MemoryConfigurationError))


def test_folder_itself(tmp_path):
    """A folder in the file's place is a configuration error."""
    assert "is a folder" in str(refused(tmp_path, MemoryConfigurationError))


@pytest.mark.parametrize("content", [b"This is a letter. " * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_no_database(path, content):
    """A file that is no database is refused, and left as it is."""
    path.write_bytes(content)
    error = refused(path, MemoryStorageError)
    assert "is no SQLite database, or is damaged" in str(error)
    assert "letter" not in str(error)
    assert path.read_bytes() == content


def test_damaged(path, use):
    """A damaged database is told as such by the operation that meets the damage."""

    async def fill(provider):
        for n in range(200):
            await provider.store_messages(f"c{n}", [Message("user", "x" * 500)])

    use(fill)
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)

    async def meet(provider):
        with pytest.raises(MemoryStorageError, match="damaged") as caught:
            await provider.get_conversation("c7")
        assert caught.value.operation == "get_conversation"
        answer = await provider.store_messages("new", [Message("user", "secret")])
        assert "damaged" in str(answer.error)
        assert "secret" not in str(answer.error)

    use(meet)


def test_foreign(path):
    """Another program's database is refused, and left as it is."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    assert "another program's" in str(refused(path, MemoryStorageError))
    assert path.read_bytes() == before


@pytest.mark.parametrize("mark", ["application_id", "user_version"])
def test_foreign_and_empty(path, mark):
    """A database that another program has marked as its own is refused and left as it is, even without tables."""
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA {mark} = 1")
    db.close()
    before = path.read_bytes()
    assert "another program's" in str(refused(path, MemoryStorageError))
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: sqlite3.connect(path).close()])
def test_empty(path, use, make):
    """An empty file is taken for a new database."""
    make(path)
    assert use(lambda provider: provider.get_stats())["total_conversations"] == 0


def as_nobody(path, python):
    """What opening a file comes to for a user without rights."""
    return python(
        """
        import asyncio, logging, os, sys
        from jaf_memory_core import MemoryError, MemoryQuery
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def open_it(path):
            try:
                provider = await create_sqlite_provider(SqliteConfig(path=path))
            except MemoryError as error:
                print(type(error).__name__, error)
                return
            if path != ":memory:":
                await look(provider)
            await provider.close()

        async def look(provider):
            for one in await provider.find_conversations(MemoryQuery()):
                print(one.conversation_id, one.message_count)
            async for one in provider.iter_conversations():
                print(one.conversation_id)
            print((await provider.get_stats())["total_messages"])
            print((await provider.get_recent_messages("c"))[0].content)
            for call in (provider.store_messages("d", []), provider.clear_user_conversations("u")):
                try:
                    error = (await call).error
                except MemoryError as raised:
                    error = raised
                print(type(error).__name__, error)
            health = await provider.health_check()
            print(health["healthy"], health.get("error"))

        logging.getLogger("jaf_memory_sqlite").addHandler(logging.NullHandler())
        asyncio.run(open_it(":memory:"))  # imports what is imported late, while it can be read
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(int(sys.argv[2]))
            os.setuid(int(sys.argv[2]))
        asyncio.run(open_it(sys.argv[1]))
        """,
        path,
        NOBODY,
    )


@pytest.fixture
def visible():
    """A folder that any user can reach, but not write; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="rights work differently there")
def test_folder_that_cannot_be_written(visible, python):
    """A folder in which nothing can be made is told, with what to do."""
    visible.chmod(0o555)
    said = as_nobody(visible / "c.db", python)
    assert said.startswith("MemoryStorageError")
    assert "cannot be written" in said


@pytest.mark.skipif(os.name == "nt", reason="rights work differently there")
@pytest.mark.parametrize(("rights", "folder"), [(0o444, 0o777), (0o444, 0o555), (0o666, 0o555)])
def test_file_that_cannot_be_written(visible, python, rights, folder):
    """What cannot be written can be listed, counted and exported; each change is refused, with what to do."""

    async def make():
        async with await create_sqlite_provider(SqliteConfig(path=visible / "c.db")) as provider:
            done(await provider.store_messages("c", [Message("user", "x")], user_id="u"))

    asyncio.run(make())
    (visible / "c.db").chmod(rights)
    visible.chmod(folder)
    before = (visible / "c.db").read_bytes()
    said = as_nobody(visible / "c.db", python).splitlines()
    assert said[:4] == ["c 1", "c", "1", "x"]
    assert [line.split(" ")[0] for line in said[4:]] == ["MemoryStorageError"] * 2 + ["False"]
    assert all("cannot be written" in line for line in said[4:])
    assert (visible / "c.db").read_bytes() == before
    # A log's index with the file's rights would keep everybody from writing once the file can be written again.
    assert [one.name for one in visible.iterdir()] == ["c.db"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="takes two users; run the tests as root")
def test_what_others_change_is_seen(visible):
    """A file that we cannot write is read as it stands, also after somebody else has changed it."""
    program = """
        import asyncio, os, sys
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def count(path):
            async with await create_sqlite_provider(SqliteConfig(path=":memory:")) as provider:
                await provider.get_stats()  # imports what is imported late, while it can be read
            os.setgroups([])
            os.setgid(int(sys.argv[2]))
            os.setuid(int(sys.argv[2]))
            async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
                for _ in range(3):
                    stats = await provider.get_stats()
                    print(stats["total_messages"], len(await provider.get_recent_messages("c")), flush=True)
                    input()

        asyncio.run(count(sys.argv[1]))
        """

    async def write(number):
        async with await create_sqlite_provider(SqliteConfig(path=visible / "c.db")) as provider:
            done(await provider.append_messages("c", [Message("user", str(number))], create=True))

    asyncio.run(write(0))
    (visible / "c.db").chmod(0o444)
    command = [sys.executable, "-c", textwrap.dedent(program), str(visible / "c.db"), str(NOBODY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        for number in range(1, 4):
            assert reader.stdout.readline() == f"{number} {number}\n"
            asyncio.run(write(number))
            reader.stdin.write("\n")
            reader.stdin.flush()


@pytest.mark.skipif(os.name == "nt", reason="rights work differently there")
def test_file_that_cannot_be_read(visible, python):
    """A file that cannot even be read is told."""
    (visible / "c.db").touch()
    (visible / "c.db").chmod(0o000)
    visible.chmod(0o777)
    said = as_nobody(visible / "c.db", python)
    assert said.startswith("MemoryStorageError")
    assert "cannot be opened" in said


def test_full(use):
    """A full disk is a `Failure` that says so; nothing of the call is applied, and later calls work again."""

    async def fill(provider):
        await provider.store_messages("c", [Message("user", "small", message_id="m")])
        pages = await provider.backend._write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await provider.backend._write(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
        answer = await provider.append_messages("c", [Message("user", "SECRET" * 10_000)])
        error = was_refused(answer, MemoryStorageError)
        assert "disk is full" in str(error)
        assert "SECRET" not in str(error)
        assert error.retryable is False
        assert len((await provider.get_conversation("c")).messages) == 1
        many = [ConversationMemory(f"c{n}", messages=[Message("user", "x" * 900)]) for n in range(50)]
        report = Imported()
        with pytest.raises(MemoryStorageError, match="disk is full"):
            await import_conversations(provider, many, report=report)
        assert (0 < report.conversations < 50, report.refused.count) == (True, 0)
        source, report = create_in_memory_provider(), Copied()
        await import_conversations(source, many)
        with pytest.raises(MemoryStorageError, match="disk is full"):
            await copy(source, provider, report=report)
        assert (report.unchanged > 0, report.refused.count) == (True, 0)
        assert (await provider.health_check())["healthy"]
        await provider.backend._write(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        done(await provider.append_messages("c", [Message("user", "x" * 60_000)]))

    use(fill)


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="limits of files are POSIX's")
def test_file_too_large(path, python):
    """A limit of the system on the file's size is told as what it is, and the provider goes on below it."""
    said = python(
        """
        import asyncio, resource, signal, sys
        from jaf_memory_core import Message
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def main():
            provider = await create_sqlite_provider(SqliteConfig(path=sys.argv[1]))
            await provider.store_messages("c", [Message("user", "small")])
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            answer = await provider.append_messages("c", [Message("user", "x" * 500_000)])
            print(type(answer.error).__name__, answer.error)
            answer = await provider.append_messages("c", [Message("user", "small")])
            print(answer.data.message_count)
            await provider.close()

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        asyncio.run(main())
        """,
        path,
    )
    error, count = said.splitlines()
    assert error.startswith("MemoryStorageError")
    assert "disk" in error
    assert count == "2"


def test_locked_by_another(path):
    """While another process does not let go of a file, opening ends within the deadline, and says why."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("CREATE TABLE t (x)")
    error = refused(path, MemoryConnectionError)
    assert error.retryable
    assert "lock" in str(error)
    db.close()


def test_without_a_log(path, monkeypatch):
    """Where SQLite cannot have its write-ahead log, the provider refuses rather than promise what does not hold."""

    class Unable(sqlite3.Connection):
        def execute(self, statement, *values):
            return super().execute(statement.replace("journal_mode = WAL", "journal_mode = DELETE"), *values)

    connect = sqlite3.connect
    monkeypatch.setattr(connection.sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Unable))
    assert "local disk" in str(refused(path, MemoryStorageError))


def test_old_sqlite(path, monkeypatch):
    """A Python with an SQLite that is too old is told so."""
    monkeypatch.setattr(connection.sqlite3, "sqlite_version_info", (3, 22, 0))
    assert "3.25.0 is needed" in str(refused(path, MemoryConfigurationError))


def test_opens_later(tmp_path):
    """A provider that could not open tries again with the next call."""
    folder = tmp_path / "later"

    async def work():
        backend = SqliteBackend(SqliteConfig(path=folder / "c.db"))
        with pytest.raises(MemoryConfigurationError):
            await backend.open()
        folder.mkdir()
        await backend.open()
        assert (await backend.ping()).details["schema"] == migrations.CURRENT
        await backend.close()

    asyncio.run(work())


def test_health_of_what_does_not_open(tmp_path):
    """A connection test answers what is wrong, and does not raise."""
    environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(tmp_path / "absent" / "c.db")}
    health = asyncio.run(try_connection(environ))
    assert health["healthy"] is False
    assert "there is no folder" in health["error"]


def test_from_environment(path):
    """`JAF_MEMORY_TYPE=sqlite` and `JAF_SQLITE_PATH` are all that is needed."""

    async def work():
        environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(path)}
        async with await create_memory_provider_from_env(environ) as provider:
            assert provider.name == "sqlite"
            await provider.store_messages("c", [Message("user", "Hello!")])
        assert path.is_file()

    asyncio.run(work())


@pytest.mark.skipif(os.name == "nt", reason="rights work differently there")
def test_a_new_file_is_private(path, use):
    """A file that we make, its log and its index are its user's alone; the rights of a file that stood stay."""

    async def rights(provider):
        done(await provider.store_messages("c", [Message("user", "x")]))
        return {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}

    before = os.umask(0)
    try:
        assert use(rights) == dict.fromkeys(
            ["conversations.db", "conversations.db-shm", "conversations.db-wal"], "0o600"
        )
        path.chmod(0o640)
        assert set(use(rights).values()) == {"0o640"}
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~nosuchuser/c.db", "begins with ~ and a user who has no home"),
        ("a" * 300, "file name too long"),
        ("loop/c.db", "too many levels of symbolic links"),
        ("file/c.db", "not a directory"),
        (".", "is a folder"),
        ("nowhere/c.db", "there is no folder"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path, reason):
    """Each kind of path that can name no file is a configuration error that says why."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert reason in str(refused(path, MemoryConfigurationError))


def test_a_working_folder_that_is_gone(tmp_path, monkeypatch):
    """A path that begins at a working folder that is gone is told as such."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "working folder, which is not there" in str(refused("c.db", MemoryConfigurationError))


def test_a_file_that_was_unlinked_takes_no_write(path, use):
    """No write is acknowledged into a file that its path no longer names, however short a time ago it was removed."""

    async def work(provider):
        for n in range(20):
            done(await provider.append_messages(f"c{n}", [Message("user", "x")], create=True))
            path.unlink()
            done(await provider.append_messages(f"d{n}", [Message("user", "x")], create=True))
            db = sqlite3.connect(path)
            assert db.execute("SELECT conversation_id FROM conversation").fetchall() == [(f"d{n}",)]
            db.close()

    use(work)


def test_health_tells_a_full_disk(path, python):
    """Where nothing can be written any more `health_check` says so, though nothing is asked to be stored."""
    said = python(
        """
        import asyncio, os, resource, signal, sys
        from jaf_memory_core import Message
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def main():
            async with await create_sqlite_provider(SqliteConfig(path=sys.argv[1])) as provider:
                await provider.store_messages("c", [Message("user", "x")])
                print((await provider.health_check())["healthy"])
                size = os.stat(sys.argv[1] + "-wal").st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                health = await provider.health_check()
                print(health["healthy"], health["error"])
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                print((await provider.health_check())["healthy"])

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        asyncio.run(main())
        """,
        path,
    )
    first, full, after = said.splitlines()
    assert (first, after) == ("True", "True")
    assert full.startswith("False")
    assert "disk" in full


def test_health_warns_before_the_disk_is_full(use, monkeypatch):
    """When little is left on the disk `health_check` warns, and says how much."""
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    told = use(lambda provider: provider.health_check())
    assert told["healthy"]
    assert "the disk is nearly full: 5 MiB are left" in told["warnings"]
