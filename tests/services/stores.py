"""The four stores for tests that run on each: fixtures that a `conftest.py` imports, and one that counts."""

import contextlib
import uuid
from importlib.util import find_spec

import pytest

from jaf_memory_core.backends.in_memory import InMemoryBackend

SERVERS = pytest.StashKey[dict]()

BACKENDS = {
    # provider: its package, and its settings (or the name of a fixture that gives them); paths are in a new folder
    "memory": ("jaf_memory_core", {"JAF_MEMORY_MAX_MESSAGES": "1000000"}),
    "sqlite": ("jaf_memory_sqlite", {"JAF_SQLITE_PATH": "conversations.db"}),
    "redis": ("jaf_memory_redis", "redis_settings"),
    "postgres": ("jaf_memory_postgres", "postgres_settings"),
}


def settings_of(name, request, folder):
    """What the environment says of a backend."""
    package, settings = BACKENDS[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    settings = request.getfixturevalue(settings) if isinstance(settings, str) else settings
    return {"JAF_MEMORY_TYPE": name} | {
        key: str(folder / value) if key.endswith("_PATH") else value for key, value in settings.items()
    }


def running(config, start):
    """The one server that all fixtures of a process share, though each `conftest.py` that imports them has its own."""
    servers = config.stash.setdefault(SERVERS, {})
    if start not in servers:
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        servers[start] = stack.enter_context(start())
    return servers[start]


def redis():
    """A Redis server."""
    from services import redis_servers

    return redis_servers.single()


def postgres():
    """A PostgreSQL server."""
    from services import postgres_servers

    return postgres_servers.serving(postgres_servers.machine(), postgres_servers.UNSYNCED)


@pytest.fixture(scope="session")
def redis_server(request):
    """A Redis server for all tests."""
    return running(request.config, redis)


@pytest.fixture
def redis_settings(redis_server):
    """Settings of an empty store in it."""
    return {
        "JAF_REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/0",
        "JAF_REDIS_KEY_PREFIX": f"{uuid.uuid4().hex}:",
    }


@pytest.fixture(scope="session")
def postgres_server(request):
    """A PostgreSQL server for all tests."""
    return running(request.config, postgres)


@pytest.fixture
def postgres_settings(postgres_server):
    """Settings of an empty store in it."""
    return {
        "JAF_POSTGRES_CONNECTION_STRING": postgres_server.url(),
        "JAF_POSTGRES_TABLE_NAME": f"t{uuid.uuid4().hex[:20]}",
    }


@pytest.fixture(params=BACKENDS)
def environ(request, tmp_path):
    """Variables that describe one backend."""
    return settings_of(request.param, request, tmp_path)


@pytest.fixture(params=[name for name in BACKENDS if name != "memory"])
def shared_environ(request, tmp_path):
    """Variables that describe a backend that processes share."""
    return settings_of(request.param, request, tmp_path)


class CountingBackend(InMemoryBackend):
    """The in-memory store, counting the messages that are read of it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read_messages = 0

    async def tail(self, tail):
        """Count a page."""
        page = await super().tail(tail)
        self.read_messages += len(page.messages) + len(page.leading or ()) if page else 0
        return page

    async def read(self, conversation_id):
        """Count a whole conversation."""
        record = await super().read(conversation_id)
        self.read_messages += len(record.messages) if record else 0
        return record
