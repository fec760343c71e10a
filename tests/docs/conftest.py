"""How code that stands in documentation is run: as if it were typed into `python -m asyncio`."""

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import os

import pytest
from page_code import BLOCK, ROOT
from services import postgres_servers, redis_servers, stores


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Run in an empty folder, with no setting of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("JAF_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def console():
    """Something that runs code; all that one test runs shares one event loop."""
    console = Console()
    yield console
    console.close()


class Console:
    """Runs code that may `await` outside of functions."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()

    def run(self, source, names, *, title):
        """Run code in a namespace, and return what it printed.

        Tasks that it leaves behind are awaited. Code that uses no event loop runs without one, so that it may call
        `asyncio.run` itself.
        """
        code = compile(source, title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE or "create_task" in code.co_names:
                self.wait(self._finished(code, names))
            else:
                exec(code, names)
        return printed.getvalue()

    async def _finished(self, code, names):
        answer = eval(code, names)
        if inspect.isawaitable(answer):
            await answer
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    def wait(self, awaitable):
        """Wait for something on the loop on which the code runs, and return its answer."""
        return self._loop.run_until_complete(awaitable)

    def close(self):
        """End the loop as `asyncio.run` would."""
        self.wait(self._loop.shutdown_asyncgens())
        self.wait(self._loop.shutdown_default_executor())
        self._loop.close()


_tables = itertools.count()

redis_server = stores.redis_server


@pytest.fixture
def redis_settings(redis_server):
    """Settings for that server, empty."""
    redis_server.command("FLUSHALL")
    return {"JAF_REDIS_URL": f"redis://localhost:{redis_server.port}/0"}


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, with the database and the roles that the document names."""
    with postgres_servers.serving(postgres_servers.machine()) as server:
        server.sql("CREATE ROLE \"user\" LOGIN SUPERUSER PASSWORD 'pass'; CREATE DATABASE jaf_memory", "postgres")
        yield server


@pytest.fixture
def postgres_settings(postgres):
    """Settings of an empty store in it."""
    return {
        "JAF_POSTGRES_CONNECTION_STRING": postgres.url(),
        "JAF_POSTGRES_TABLE_NAME": f"documented_{os.getpid()}_{next(_tables)}",
    }


@pytest.fixture
def documented_postgres(postgres, monkeypatch):
    """The same server, found where the document expects one: at port 5432 of `localhost`."""
    import asyncpg

    connect = asyncpg.connect

    async def redirected(*positional, **named):
        if named.get("port", 5432) == 5432:
            named.update(host="127.0.0.1", port=postgres.port)
        return await connect(*positional, **named)

    monkeypatch.setattr(asyncpg, "connect", redirected)
    return postgres


@pytest.fixture
def own_postgres(monkeypatch):
    """A PostgreSQL server that a page has for itself, with its roles, databases and programs."""
    with postgres_servers.serving(postgres_servers.machine()) as server:
        monkeypatch.setenv("PATH", f"{server.programs}{os.pathsep}{os.environ['PATH']}")
        yield server


@pytest.fixture
def own_pooler(own_postgres):
    """PgBouncer before it, with the file that the page about it shows."""
    page = (ROOT / "docs" / "recipes" / "deploy-postgres.md").read_text(encoding="utf-8")
    (settings,) = [block for _, name, _, block in BLOCK.findall(page) if name == "pgbouncer.ini"]
    bouncer = postgres_servers.Bouncer(own_postgres)
    for name, here in {
        "db.internal": "127.0.0.1",
        "5432": str(own_postgres.port),
        "6432": str(bouncer.port),
        "/etc/pgbouncer": str(bouncer.root),
        "listen_addr = *": "listen_addr = 127.0.0.1\nunix_socket_dir =",
    }.items():
        settings = settings.replace(name, here)
    try:
        yield bouncer.start(settings, '"chat" "chat-secret"\n')
    finally:
        bouncer.remove()


def shown_settings():
    """Lines of the redis.conf that the page about Redis shows: name to value."""
    page = (ROOT / "docs" / "recipes" / "deploy-redis.md").read_text(encoding="utf-8")
    (block,) = [block for _, name, _, block in BLOCK.findall(page) if name == "redis.conf"]
    lines = [line.partition("#")[0].split(maxsplit=1) for line in block.splitlines()]
    return {name: value.strip() for name, value in filter(None, lines)}


@pytest.fixture
def own_redis():
    """A Redis server that a page has for itself, with the settings that the page about Redis shows."""
    with redis_servers.single(shown_settings()) as server:
        yield server


@pytest.fixture
def own_cache():
    """A Redis server that was set up as a cache, and loses what it likes."""
    with redis_servers.single({"maxmemory-policy": "allkeys-lru"}) as server:
        yield server


@pytest.fixture
def own_sentinels():
    """A master, two replicas and three sentinels, with those settings."""
    yield from _group(redis_servers.Group(shown_settings()))


@pytest.fixture
def own_cluster():
    """A Cluster of six nodes, with those settings."""
    yield from _group(redis_servers.Cluster(shown_settings()))


def _group(group):
    try:
        yield group.start()
    finally:
        group.stop()
