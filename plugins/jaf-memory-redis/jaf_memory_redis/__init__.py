"""Conversation memory in Redis: the provider `redis` of jaf-memory."""

from __future__ import annotations

from collections.abc import Sequence

from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Processor
from jaf_memory_core.provider import BackendProvider, configured, opened
from jaf_memory_redis.backend import RedisBackend
from jaf_memory_redis.clients import topology_of, topology_of_client
from jaf_memory_redis.settings import RedisConfig

__all__ = ["RedisBackend", "RedisConfig", "create_redis_provider", "jaf_memory_provider"]


def create_backend(config: RedisConfig, client: object | None = None) -> RedisBackend:
    """A backend over the server of the settings, or over that of a client; no I/O.

    Raises:
        MemoryConfigurationError: the client is none of `redis.asyncio`.
    """
    topology, arguments = topology_of(config) if client is None else topology_of_client(client, config)
    return RedisBackend(config, topology, arguments)


async def create_redis_provider(
    config: RedisConfig | None = None,
    client: object | None = None,
    *,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> BackendProvider:
    """Create and open a provider over Redis.

    Args:
        config: its settings; the defaults when absent. Beside a client, only names and policies of it count.
        client: a `redis.asyncio.Redis` of the application. A connection pool of our own is made with a copy of its
            settings; the client stays as it is, and open.
        processors: as for `BackendProvider`.
        observers: as for `BackendProvider`.

    Returns:
        the open provider; close it in the end.

    Raises:
        MemoryConnectionError: the server cannot be reached, or refuses us.
        MemoryConfigurationError: the client is of another kind.

    Example:
        provider = await create_redis_provider(RedisConfig(host="redis.example"))
    """
    backend = create_backend(configured(RedisConfig, config, "redis"), client)
    return await opened(BackendProvider(backend, processors=processors, observers=observers))


@hookimpl
def jaf_memory_provider() -> ProviderSpec:
    """The provider named `redis`."""
    return ProviderSpec(
        name="redis",
        config=RedisConfig,
        backend=create_backend,
        persistence=_persistence,
        summary="in Redis, alone, behind Sentinel, or as a Cluster",
        api=1,
    )


def _persistence(config: RedisConfig) -> str:
    replicas = f"; each write waits for {config.min_replicas} replicas" if config.min_replicas else ""
    return f"as durable as the server's own persistence setting, which health_check() tells{replicas}"
