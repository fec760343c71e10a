"""The stores under simulation, each made anew for every schedule; and the real servers behind two of them."""

import asyncio
import collections
import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import asyncpg
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

from jaf_memory_core import create_in_memory_provider
from simulation import disk, engine, lines, redirections, threads

SERVER = "server"
"""The name of the one server in the simulated network."""


COUNTED = ("calls", "unknown", "cancelled", "cuts", "silences", "undecided")


class Store:
    """A store whose providers are made within a schedule.

    Attributes:
        has_line: whether a line leads to it, which may fail.
        leads_on: whether a server may send on to another.
        roughness: how many of a scenario's cuts a line to it has: one whose operations take more messages needs fewer.
        faults: what happens on the way to it.
        history: the calls of the schedule.
        images: what its disk held at some moments: each the moment, and the path of the file.
        counted: calls, those of unknown outcome, those cancelled, cuts, silences, and histories with so many unknown
            outcomes that nobody could look for an order of them in time.
    """

    name = ""
    has_line = False
    leads_on = False
    roughness = 1.0

    def __init__(self):
        self.faults = lines.Faults()
        self.counted = collections.Counter()
        self.history = None
        self.images = []

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
        return ", ".join(f"{counted[what]} {what}" for what in COUNTED)

    async def provider(self, **settings):
        """A provider, as one process would have it."""
        raise NotImplementedError

    def forget(self):
        """What a restart of the server makes it forget, though nothing is lost."""

    async def settled(self):
        """Wait until the store does nothing any more that somebody asked it for who is gone by now."""

    def held(self, provider):
        """What a provider holds for operations, by name; nothing, once none is under way."""
        usage = provider.backend.usage()
        held = {"connections": usage.busy or 0, "places in the queue for one": usage.waiting or 0}
        return {what: count for what, count in held.items() if count}

    def left(self):
        """What still stands in the store, though all conversations are erased, as words."""
        return ""

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
    synchronous = "NORMAL"
    _tables = ("conversation", "message")

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
        return await create_sqlite_provider(SqliteConfig(path=str(path), synchronous=self.synchronous, **settings))

    def left(self):
        """Rows."""
        with contextlib.closing(sqlite3.connect(self._folder / f"{self._files}.db")) as db:
            counts = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in self._tables}
        return ", ".join(f"{count} rows of {table}" for table, count in counts.items() if count)

    def close(self):
        """See above."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Disk(Sqlite):
    """SQLite on a disk that is looked at before and within changes of the file, as a kill or a power cut leaves it."""

    name = "disk"
    synchronous = "FULL"

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as images:
            self.images, self._images = [], Path(images)
            self._disk = disk.Disk(self._folder, self._before)
            with disk.watched(self._disk):
                async with super().opened():
                    yield

    def _before(self, change):
        if self.faults.cuts_here("at a change of the file"):
            folder = self._images / str(len(self.images))
            folder.mkdir()
            self._disk.image(folder, change, power=engine.flip(0.5))
            self.images.append((engine.moment(self.history), folder / f"{self._files}.db"))

    async def at(self, path):
        """A provider of an image."""
        return await create_sqlite_provider(SqliteConfig(path=str(path)))

    def examine(self, path):
        """The file is sound."""
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the file is damaged"
            assert not db.execute("PRAGMA foreign_key_check").fetchall(), "a message has no conversation"


class Served(Store):
    """A store on a server, over a simulated line.

    Args:
        server: one of `services.redis_servers` or `services.postgres_servers`.
    """

    has_line = True

    def __init__(self, server):
        super().__init__()
        self._server = server
        self._ways = {}

    def ways(self):
        """The ways to the server, by host and port in the simulated network."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        async with super().opened():
            self._ways = self.ways()
            listening = [await way.serve(*place) for place, way in self._ways.items()]
            try:
                yield
            finally:
                for one in listening:
                    one.close()

    @property
    def connections(self):
        """See above."""
        return sum(len(way.open) for way in self._ways.values())


class Redis(Served):
    """Redis, emptied for each schedule."""

    name = "redis"

    def ways(self):
        """See above."""
        return {(SERVER, 6379): lines.RedisLine(self.faults, self._server.port)}

    @contextlib.asynccontextmanager
    async def opened(self):
        """See above."""
        lines.command(self._server.port, "FLUSHALL")
        async with super().opened():
            yield

    async def provider(self, **settings):
        """See above."""
        return await create_redis_provider(RedisConfig(host=SERVER, **settings))

    def left(self):
        """Keys."""
        return " ".join(sorted(key.decode() for key in lines.command(self._server.port, "KEYS", "*")))

    def forget(self):
        """Its scripts."""
        lines.command(self._server.port, "SCRIPT", "FLUSH")


class Cluster(Redis):
    """A Cluster whose slots move and whose masters change."""

    name = "cluster"
    leads_on = True

    def ways(self):
        """See above."""
        return redirections.Cluster(self.faults, self._server.port).ways()

    def left(self):
        """Keys of conversations: an entry of an index that points nowhere is dropped by whoever comes upon it."""
        return " ".join(key for key in super().left().split() if "{all}" not in key and "{u-" not in key)

    async def provider(self, **settings):
        """See above."""
        return await create_redis_provider(RedisConfig(host="n0,n1,n2", cluster=True, **settings))


class Sentinel(Redis):
    """A master that changes, and sentinels that know it sooner or later."""

    name = "sentinel"
    leads_on = True

    def ways(self):
        """See above."""
        return redirections.Sentinel(self.faults, self._server.port).ways()

    async def provider(self, **settings):
        """See above."""
        return await create_redis_provider(RedisConfig(sentinel_hosts="s0,s1,s2", **settings))


class Postgres(Served):
    """PostgreSQL; one table for all schedules, each of which has ids of its own."""

    name = "postgres"
    roughness = 0.4
    _tables = ("simulated__header", "simulated__message")

    def __init__(self, server):
        super().__init__(server)
        self._beside = _Beside(server.url())

    def ways(self):
        """See above."""
        return {(SERVER, 5432): lines.PostgresLine(self.faults, self._server.port, self._waits)}

    async def provider(self, **settings):
        """See above."""
        place = f"postgresql://jaf@{SERVER}:5432/jaf?sslmode=disable"
        config = PostgresConfig(connection_string=place, table_name="simulated", max_connections=4, **settings)
        return await create_postgres_provider(config)

    async def settled(self):
        """See above: a statement whose client is gone goes on, and may wait for a lock."""
        while self._beside.value(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'"
            " AND pid <> pg_backend_pid()"
        ):
            await engine.pause(0.01)

    def held(self, provider):
        """See above; and turns on a conversation."""
        turns = len(provider.backend._turns._running)
        return {**super().held(provider), **({"turns": turns} if turns else {})}

    def left(self):
        """Rows."""
        counts = {table: self._beside.value(f"SELECT count(*) FROM {table}") for table in self._tables}
        return ", ".join(f"{count} rows of {table}" for table, count in counts.items() if count)

    def _waits(self, process, gone):
        return self._beside.value(
            "SELECT wait_event_type = 'Lock' AND NOT pg_blocking_pids(pid) && $2::int[]"
            " FROM pg_stat_activity WHERE pid = $1",
            process,
            list(gone),
        )

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
