"""The stores under simulation, each made anew for every schedule; and the real servers behind two of them."""

import asyncio
import collections
import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

import asyncpg
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

from jaf_memory_core import create_in_memory_provider
from simulation import lines, threads

SERVER = "server"
"""The name of the one server in the simulated network."""


class Store:
    """A store whose providers are made within a schedule.

    Attributes:
        has_line: whether a line leads to it, which may fail.
        faults: what happens on the way to it.
        counted: calls, those of unknown outcome, cuts, silences, and histories with so many unknown outcomes that
            nobody could look for an order of them in time.
    """

    name = ""
    has_line = False

    def __init__(self):
        self.faults = lines.Faults()
        self.counted = collections.Counter()

    @contextlib.asynccontextmanager
    async def opened(self):
        """An empty store; within, providers of it can be made."""
        self.faults = lines.Faults()
        try:
            yield
        finally:
            self.counted["cuts"] += self.faults.cuts
            self.counted["silences"] += self.faults.silences

    def counts(self):
        """What there was since the last time, as words."""
        counted, self.counted = self.counted, collections.Counter()
        return ", ".join(f"{counted[what]} {what}" for what in ("calls", "unknown", "cuts", "silences", "undecided"))

    async def provider(self, **settings):
        """A provider, as one process would have it."""
        raise NotImplementedError

    def forget(self):
        """What a restart of the server makes it forget, though nothing is lost."""

    def close(self):
        """End what stands behind it."""

    @property
    def connections(self):
        """How many connections to it stand."""
        return 0


class Memory(Store):
    """The in-memory store: one provider, for all that ask."""

    name = "memory"

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        self._one = None
        async with super().opened():
            yield

    async def provider(self, **settings):
        """See above: there is one."""
        if self._one is None:
            self._one = create_in_memory_provider()
        return self._one


class Sqlite(Store):
    """SQLite: a file in memory, and threads that run inline."""

    name = "sqlite"

    def __init__(self):
        super().__init__()
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="jaf-simulated-", dir=place))
        self._files = 0

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        self._files += 1
        with threads.inline():
            async with super().opened():
                yield
        for file in self._folder.iterdir():
            file.unlink()

    async def provider(self, **settings):
        """See above."""
        path = self._folder / f"{self._files}.db"
        return await create_sqlite_provider(SqliteConfig(path=str(path), synchronous="NORMAL", **settings))

    def close(self):
        """See above."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Served(Store):
    """A store on a server, over a simulated line.

    Attributes:
        port: the one that its server listens at in the simulated network.

    Args:
        server: one of `services.redis_servers` or `services.postgres_servers`.
    """

    has_line = True
    port = 0

    def __init__(self, server):
        super().__init__()
        self._server = server
        self._line = None

    def line(self):
        """The way to the server."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        async with super().opened():
            self._line = self.line()
            listening = await self._line.serve(SERVER, self.port)
            try:
                yield
            finally:
                listening.close()

    @property
    def connections(self):
        """See above."""
        return len(self._line.open)


class Redis(Served):
    """Redis, emptied for each schedule."""

    name = "redis"
    port = 6379

    def line(self):
        """See above."""
        lines.command(self._server.port, "FLUSHALL")
        return lines.RedisLine(self.faults, self._server.port)

    async def provider(self, **settings):
        """See above."""
        return await create_redis_provider(RedisConfig(host=SERVER, **settings))

    def forget(self):
        """Its scripts."""
        lines.command(self._server.port, "SCRIPT", "FLUSH")


class Postgres(Served):
    """PostgreSQL; one table for all schedules, each of which has ids of its own."""

    name = "postgres"
    port = 5432

    def __init__(self, server):
        super().__init__(server)
        self._beside = _Beside(server.url())

    def line(self):
        """See above."""
        return lines.PostgresLine(self.faults, self._server.port, self._waits)

    async def provider(self, **settings):
        """See above."""
        place = f"postgresql://jaf@{SERVER}:5432/jaf?sslmode=disable"
        config = PostgresConfig(connection_string=place, table_name="simulated", max_connections=4, **settings)
        return await create_postgres_provider(config)

    def _waits(self, process):
        return self._beside.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", process)

    def close(self):
        """See above."""
        self._beside.close()


class _Beside:
    """A connection to the real server that knows nothing of the simulation: it has a loop and a thread of its own."""

    def __init__(self, url):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self._do(asyncpg.connect(url))

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def value(self, statement, *arguments):
        """The one value of a query."""
        return self._do(self._connection.fetchval(statement, *arguments))

    def close(self):
        """Let go of the connection, and end the thread."""
        self._do(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
