"""The provider `postgres` of jaf-memory: conversations in PostgreSQL.

config = PostgresConfig(connection_string="postgresql://user:password@localhost/jaf_memory")
provider = await create_postgres_provider(config)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Processor
from jaf_memory_core.provider import BackendProvider, configured, opened
from jaf_memory_postgres.backend import PostgresBackend
from jaf_memory_postgres.connection.clients import is_pool, unusable
from jaf_memory_postgres.settings import PostgresConfig

__all__ = ["PostgresBackend", "PostgresConfig", "create_postgres_provider"]


async def create_postgres_provider(
    config: PostgresConfig | None = None,
    connection: Any = None,
    *,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> BackendProvider:
    """A provider that keeps conversations in PostgreSQL, connected, its tables made or upgraded.

    Args:
        config: the settings; the defaults when absent. With a `connection` only its names, limits and policies count.
        connection: an `asyncpg.Connection` of the application, used by one operation at a time and never closed, or
            an `asyncpg.Pool`, used and never closed. A connection that is lost stays lost; while an operation uses
            it, statements of the application on it are refused (`asyncpg.InterfaceError`).
        processors: as for `BackendProvider`.
        observers: as for `BackendProvider`.

    Raises:
        MemoryConnectionError: the server could not be reached within `operation_timeout`.
        MemoryConfigurationError: the connection is closed or inside a transaction, decodes a type in a way of its own,
            or keeps statements behind a pooler; the role may not make tables; a table of others stands under that
            name; the pooler is in statement mode; or a file of certificates or of the password cannot be read.

    Example:
        provider = await create_postgres_provider(PostgresConfig(host="db.example", password="secret"))
    """
    config = configured(PostgresConfig, config, "postgres")
    if connection is not None and not is_pool(connection):
        if not hasattr(connection, "is_in_transaction"):
            kind = type(connection).__name__
            raise MemoryConfigurationError(
                f"connection must be an asyncpg connection or pool, not a {kind}", provider="postgres"
            )
        problem = unusable(connection)
        if problem:
            raise MemoryConfigurationError(problem, provider="postgres")
    backend = PostgresBackend(config, connection)
    return await opened(BackendProvider(backend, processors=processors, observers=observers))


@hookimpl
def jaf_memory_provider() -> ProviderSpec:
    """The provider named `postgres`."""
    return ProviderSpec(
        name="postgres",
        config=PostgresConfig,
        backend=PostgresBackend,
        persistence="committed in PostgreSQL before each answer, as durable as the server's synchronous_commit",
        summary="in PostgreSQL, for production",
        api=1,
    )
