"""Where the parent lets a backend run: servers of our own, and for each process a store that nobody has used.

A store with 100,000 conversations is filled once, and each process gets a copy.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.competitors import Place

if TYPE_CHECKING:
    from services.postgres_servers import Server as PostgresServer

PATIENCE = 300.0
"""Seconds in which a server writes a file."""

Filling = Callable[[Place], None]
"""Fills the store at a place."""


class Stage:
    """No store at all: in memory, each process fills its own.

    Args:
        folder: for whatever is made.
        fill: fills a store; called once.
    """

    def __init__(self, folder: Path, fill: Filling) -> None:
        self.folder = folder
        self.fill = fill

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what was started."""

    @contextlib.contextmanager
    def empty(self) -> Iterator[Place]:
        """An empty store."""
        yield {}

    @contextlib.contextmanager
    def filled(self) -> Iterator[Place]:
        """A copy of the filled store."""
        yield {}


class Files(Stage):
    """SQLite: a folder for each process."""

    def __enter__(self) -> Self:
        self._template: Path | None = None
        return self

    @contextlib.contextmanager
    def empty(self) -> Iterator[Place]:
        """A new folder."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="sqlite-") as folder:
            yield {"folder": folder}

    @contextlib.contextmanager
    def filled(self) -> Iterator[Place]:
        """A folder with copies of the files."""
        if self._template is None:
            self._template = Path(tempfile.mkdtemp(dir=self.folder, prefix="sqlite-template-"))
            self.fill({"folder": str(self._template), "filling": True})
        with self.empty() as place:
            shutil.copytree(self._template, place["folder"], dirs_exist_ok=True)
            yield place


class RedisServers(Stage):
    """Redis: a server for each process, started from a copy of one file."""

    def __enter__(self) -> Self:
        self._template = Path(self.folder, "redis-template.rdb")
        return self

    @contextlib.contextmanager
    def empty(self) -> Iterator[Place]:
        """A new server."""
        from services import redis_servers

        with redis_servers.single() as server:
            yield {"port": server.port, "folder": str(server.folder)}

    @contextlib.contextmanager
    def filled(self) -> Iterator[Place]:
        """A new server that has read the file."""
        import redis
        from services import redis_servers

        if not self._template.exists():
            with redis_servers.single() as server:
                self.fill({"port": server.port})
                with redis.Redis(port=server.port, socket_timeout=PATIENCE) as client:
                    client.save()
                shutil.move(server.folder / "dump.rdb", self._template)
        server = redis_servers.Server()
        shutil.copy(self._template, server.folder / "dump.rdb")
        with redis_servers.running([server]):
            yield {"port": server.port}


class PostgresDatabases(Stage):
    """PostgreSQL: one server, a database for each process, copied from one that was filled."""

    def __enter__(self) -> Self:
        from services import postgres_servers as servers

        settings = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
        self._stack = contextlib.ExitStack()
        self._server: PostgresServer = self._stack.enter_context(servers.serving(servers.machine(), settings))
        self._made = 0
        self._template = ""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._stack.close()

    @contextlib.contextmanager
    def empty(self) -> Iterator[Place]:
        """A new database."""
        with self._database() as name:
            yield {"url": self._server.url(name)}

    @contextlib.contextmanager
    def filled(self) -> Iterator[Place]:
        """A database like the one that was filled."""
        if not self._template:
            self._server.sql("CREATE DATABASE filled", "postgres")
            self.fill({"url": self._server.url("filled")})
            self._server.sql("VACUUM ANALYZE", "filled")
            self._template = "filled"
        # Copied as files, where the server can: that leaves nothing in its write-ahead log to be written out later.
        strategy = " STRATEGY FILE_COPY" if int(self._server.sql("SHOW server_version_num")) >= 150_000 else ""
        with self._database(f" TEMPLATE {self._template}{strategy}") as name:
            yield {"url": self._server.url(name)}

    @contextlib.contextmanager
    def _database(self, how: str = "") -> Iterator[str]:
        self._made += 1
        name = f"process{self._made}"
        self._server.sql(f"CREATE DATABASE {name}{how}", "postgres")
        self._server.sql("CHECKPOINT", "postgres")  # so that none begins while something is measured
        try:
            yield name
        finally:
            self._server.sql(f"DROP DATABASE {name} WITH (FORCE)", "postgres")


STAGES: dict[str, type[Stage]] = {
    "memory": Stage,
    "sqlite": Files,
    "redis": RedisServers,
    "postgres": PostgresDatabases,
}
