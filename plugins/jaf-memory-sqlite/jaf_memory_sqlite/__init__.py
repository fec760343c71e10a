"""The provider `sqlite`: conversations in one file, durable, shared by any number of processes, no server.

    provider = await create_sqlite_provider(SqliteConfig(path="conversations.db"))

or `JAF_MEMORY_TYPE=sqlite`, `JAF_SQLITE_PATH=conversations.db` and `create_memory_provider_from_env()`.
"""

from __future__ import annotations

from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_sqlite.backend import SqliteBackend, create_sqlite_provider
from jaf_memory_sqlite.settings import SqliteConfig, persistence

__all__ = ["SqliteBackend", "SqliteConfig", "create_sqlite_provider"]


@hookimpl
def jaf_memory_provider() -> ProviderSpec:
    """The provider named `sqlite`."""
    return ProviderSpec(
        name="sqlite",
        config=SqliteConfig,
        backend=SqliteBackend,
        persistence=persistence,
        summary="in one file, shared by any number of processes, no server",
        api=1,
    )
