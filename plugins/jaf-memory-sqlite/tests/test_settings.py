"""Settings, and what people are told of them and of the file."""

import asyncio
from pathlib import Path

import pytest
from jaf_memory_sqlite import (
    SqliteBackend,
    SqliteConfig,
    create_sqlite_provider,
    health,
    jaf_memory_provider,
    migrations,
)

from jaf_memory_core import MemoryConfigurationError, Message
from jaf_memory_core.settings import load


def test_defaults():
    """Without settings the file is `jaf-memory.db` in the current folder, and every commit is on the disk."""
    config = load(SqliteConfig, {})
    assert (config.path, config.synchronous, list(config.notes())) == ("jaf-memory.db", "FULL", [])


def test_variables():
    """`JAF_SQLITE_PATH` and `JAF_SQLITE_SYNCHRONOUS` are read, the latter in any case of letters."""
    config = load(SqliteConfig, {"JAF_SQLITE_PATH": "x.db", "JAF_SQLITE_SYNCHRONOUS": "normal", "JAF_SQLITE_TTL": "60"})
    assert (config.path, config.synchronous, config.ttl) == ("x.db", "NORMAL", 60.0)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("JAF_SQLITE_SYNCHRONOUS", "off", "'FULL' or 'NORMAL'"),
        ("JAF_SQLITE_PATH", "file:x.db?mode=ro", "plain path"),
        ("JAF_SQLITE_PATH", "sqlite:///x.db", "plain path"),
        ("JAF_SQLITE_PATH", "postgres://u:hunter2@h/d", "plain path"),
        ("JAF_SQLITE_PATH", "postgres:/u:hunter2@h/d", "plain path"),
        ("JAF_SQLITE_PATH", " redis://:hunter2@h", "plain path"),
        ("JAF_SQLITE_PATH", "u:hunter2@h", "plain path"),
        ("JAF_SQLITE_PATH", "a\0b", "no NUL"),
    ],
)
def test_wrong_values(variable, value, said):
    """A wrong value names its variable, and what is allowed."""
    with pytest.raises(MemoryConfigurationError, match=variable) as caught:
        load(SqliteConfig, {variable: value})
    assert said in str(caught.value)


def test_paths(tmp_path, monkeypatch):
    """A `Path` will do, `~` is the home folder, and a relative path stays what it was when the folder changes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    async def work(path):
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            await provider.store_messages("c", [Message("user", "hi")])
            monkeypatch.chdir("/")
            await provider.store_messages("c", [Message("user", "hi")])
        monkeypatch.chdir(tmp_path)

    for path in (Path("a.db"), "~/b.db", "c.db"):
        asyncio.run(work(path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "b.db", "c.db"]


def test_spec():
    """The hook describes the provider, and how durable it is with each configuration."""
    spec = jaf_memory_provider()
    assert (spec.name, spec.config, spec.api) == ("sqlite", SqliteConfig, 1)
    assert "FULL" in spec.persistence_of(SqliteConfig())
    assert "power failure" in spec.persistence_of(SqliteConfig(synchronous="NORMAL"))
    assert "no file" in spec.persistence_of(SqliteConfig(path=":memory:"))


def test_health(path, use):
    """`health_check` tells the level of durability, sizes, versions, and nothing to warn of."""

    async def work(provider):
        await provider.store_messages("c", [Message("user", "x" * 10_000)])
        return await provider.health_check()

    told = use(work)
    assert told["healthy"]
    assert told["warnings"] == []
    assert told["metrics"]["active_connections"] == 3
    assert told["metrics"]["memory_usage"] > 10_000
    assert told["metrics"]["wal_size"] > 10_000
    details = told["details"]
    assert (details["durability"], details["synchronous"]) == ("every commit is on the disk", "FULL")
    assert (details["journal_mode"], details["schema"], details["path"]) == ("wal", migrations.CURRENT, str(path))


@pytest.mark.parametrize(
    ("settings", "durability", "said"),
    [
        ({"synchronous": "NORMAL"}, "a power failure can lose the last commits", "synchronous=NORMAL"),
        ({"path": ":memory:"}, "none", ":memory:"),
    ],
)
def test_health_warns(use, settings, durability, said):
    """What weakens the promise of durability is a warning, and `doctor` has the same words."""
    told = use(lambda provider: provider.health_check(), **settings)
    assert told["details"]["durability"] == durability
    (warning,) = told["warnings"]
    assert said in warning
    assert [warning] == list(SqliteConfig(**settings).notes())


def test_synchronous_is_what_it_says(use):
    """The connection that writes has the level that was asked for; foreign keys and overwriting are on."""

    def pragmas(db):
        names = ("synchronous", "foreign_keys", "secure_delete")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert use(lambda provider: provider.backend._write(pragmas)) == [2, 1, 1]
    assert use(lambda provider: provider.backend._write(pragmas), synchronous="NORMAL") == [1, 1, 1]


def test_health_sees_trouble(use, monkeypatch):
    """A network file system, a file that is mostly free, and a log that does not shrink are warnings."""
    monkeypatch.setattr(health, "file_system", lambda _: "nfs4")
    monkeypatch.setattr(health, "WARN_FROM", 1000)

    async def work(provider):
        await provider.store_messages("c", [Message("user", "x" * 500_000)])
        await provider.store_messages("c", [])
        return (await provider.health_check())["warnings"]

    warnings = use(work)
    assert len(warnings) == 3
    assert "network file system (nfs4)" in warnings[0]
    assert "VACUUM" in warnings[1]
    assert "write-ahead log" in warnings[2]


def test_file_systems(tmp_path, monkeypatch):
    """The file system is that of the deepest mount above the path; where the system does not tell, there is none."""
    mounts = "/dev/a / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\nb /srv/local xfs rw 0 0\n"
    monkeypatch.setattr(health.Path, "read_text", lambda *_, **__: mounts)
    kinds = [health.file_system(path) for path in ("/c.db", "/srv/c.db", "/srvx/c.db", "/srv/local/c.db")]
    assert kinds == ["ext4", "nfs4", "ext4", "xfs"]

    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(health.Path, "read_text", absent)
    assert health.file_system("/c.db") == ""
    assert health.size_of(str(tmp_path / "absent")) == 0


def test_what_is_not_there_is_said_and_not_made(path, use):
    """Without opening, the backend says that there is no file, or an empty one, makes none, and is content with one."""
    backend = SqliteBackend(SqliteConfig(path=str(path)))
    assert asyncio.run(backend.absent()) == f"there is no file {path}"
    assert not path.exists()
    path.touch()
    assert asyncio.run(backend.absent()) == f"{path} is empty, and no database yet"
    use(lambda provider: provider.health_check())
    assert asyncio.run(backend.absent()) is None
    assert "is in no file" in asyncio.run(SqliteBackend(SqliteConfig(path=":memory:")).absent())


def test_files_are_known(tmp_path):
    """The backend knows the files that the database consists of, beside what a link leads to as well."""
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    files = SqliteBackend(SqliteConfig(path=str(link))).files()
    assert [file.name for file in files] == ["link.db", "real.db", "real.db-wal", "real.db-shm", "real.db-journal"]
    assert SqliteBackend(SqliteConfig(path=":memory:")).files() == ()
