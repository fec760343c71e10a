"""Keys for tests, and the four stores."""

import pytest
from jaf_memory_encryption import DataKeys, Encryption, KeyFile, KeyRing
from services.stores import (
    environ,
    postgres_server,
    postgres_settings,
    redis_server,
    redis_settings,
    shared_environ,
)

__all__ = [
    "environ",
    "postgres_server",
    "postgres_settings",
    "redis_server",
    "redis_settings",
    "shared_environ",
]

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def keys(tmp_path):
    """A file of data keys, and a ring of one key."""
    made = DataKeys(KeyRing({"old": OLD}), KeyFile(tmp_path / "data-keys.db"))
    assert made.file.make()
    yield made
    made.file.close()


@pytest.fixture
def encryption(keys):
    """A processor that seals everything."""
    return Encryption(keys)
