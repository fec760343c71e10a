"""How providers are made, in the shapes of jaf-py's factories: its configurations, `Result`s and clients."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Mapping, Sequence
from importlib import import_module
from typing import Any

from jaf.memory import types as jaf
from pydantic import BaseModel

from jaf_memory_bridges.jaf.provider import JafProvider, jaf_provider
from jaf_memory_core import (
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryError,
    Processor,
    ProviderConfig,
    registry,
)
from jaf_memory_core import create_in_memory_provider as _create_in_memory
from jaf_memory_core import create_memory_provider_from_env as _create_from_env
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Plugins, checked_observers, checked_processors
from jaf_memory_core.settings import CoreSettings, load

logger = logging.getLogger("jaf_memory_bridges")

OVER_CLIENTS = {"redis": "jaf_memory_redis", "postgres": "jaf_memory_postgres"}
"""Providers that take a client of the application's → the package with their factory."""


async def create_memory_provider_from_env(
    external_clients: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    user_id: str | None = None,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> Any:
    """Create and open the provider that the environment describes, ready for a `RunConfig`; `JAF_MEMORY_TYPE` chooses.

    Args:
        external_clients: open clients of the application by the provider's name, `{"redis": client}` or
            `{"postgres": connection_or_pool}`; the chosen provider uses its own, and never closes it. A mapping of
            texts to texts is no mapping of clients: it is taken for `environ`.
        environ: the variables; `os.environ` when `None`.
        user_id: the owner of every conversation; see `jaf_provider`.
        processors: as for jaf_memory_core's `BackendProvider`; they come before those of `JAF_MEMORY_PLUGINS`.
        observers: the same.

    Returns:
        the provider, which is jaf-py's `Success` as well, with itself as `data`; or jaf-py's `Failure`. A `Failure`
        raises its cause where a provider is needed, as in `MemoryConfig`.
    """
    if environ is None and external_clients and _is_environment(external_clients):
        environ, external_clients = external_clients, None
    offered = Plugins(processors, observers)
    return await _result(_from_env(external_clients or {}, environ, user_id, offered))


def _is_environment(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(one, str) for pair in given.items() for one in pair)


async def _from_env(
    clients: Any, environ: Mapping[str, str] | None, user_id: str | None, given: Plugins
) -> JafProvider:
    if not isinstance(clients, Mapping):
        raise MemoryConfigurationError(
            f"external_clients must be a mapping of providers' names to clients, not a {type(clients).__name__}"
        )
    settings = load(CoreSettings, environ)
    unused = sorted(str(name) for name in clients if name != settings.type)
    if unused:
        logger.warning("the memory provider %r has no use for the clients: %s", settings.type, ", ".join(unused))
    client = clients.get(settings.type)
    if client is None:
        whole: Any = await _create_from_env(environ, processors=given.processors, observers=given.observers)
    else:
        config = load(registry.load(settings.type).config, environ)
        named = registry.load_plugins(settings.plugins, os.environ if environ is None else environ)
        offered = Plugins(
            (*checked_processors(given.processors), *named.processors),
            (*checked_observers(given.observers), *named.observers),
        )
        whole = await _create_over(settings.type, config, client, offered)
    try:
        bridge = jaf_provider(whole, user_id)
    except MemoryError:
        # It is open by now, and nobody else has it.
        await JafProvider(whole).close()
        raise
    bridge.owned = whole
    return bridge


async def _create_over(name: str, config: Any, client: Any, given: Plugins) -> Any:
    spec = registry.load(name)
    if name not in OVER_CLIENTS:
        raise MemoryConfigurationError(f"the memory provider {name!r} takes no client", provider=name)
    if not isinstance(config, spec.config):
        text = f"the memory provider {name!r} takes a {spec.config.__name__}, not a {type(config).__name__}"
        raise MemoryConfigurationError(text, provider=name)
    processors, observers = checked_processors(given.processors), checked_observers(given.observers)
    create = getattr(import_module(OVER_CLIENTS[name]), f"create_{name}_provider")
    return await create(config, client, processors=processors, observers=observers)


async def _result(work: Awaitable[JafProvider]) -> Any:
    try:
        return await work
    except MemoryError as error:
        logger.warning("no memory provider was made: %s", error)
        given = {"message": str(error), "provider": error.provider or "jaf-memory", "cause": error}
        return jaf.Failure(jaf.MemoryConnectionError(**given))


class InMemoryProvider(JafProvider):
    """A provider in the memory of the process, as jaf-py's class of that name makes it.

    Args:
        config: jaf-py's `InMemoryConfig`, or ours; the defaults when `None`.
        processors: as for jaf_memory_core's `BackendProvider`.
        observers: the same.

    Raises:
        MemoryConfigurationError: these are other settings, or one of the others cannot work.
    """

    def __init__(
        self, config: Any = None, *, processors: Sequence[Processor] = (), observers: Sequence[Observer] = ()
    ) -> None:
        ours = _settings(config, "memory", InMemoryConfig)
        super().__init__(_create_in_memory(ours, processors=processors, observers=observers))


def create_in_memory_provider(
    config: Any = None, *, processors: Sequence[Processor] = (), observers: Sequence[Observer] = ()
) -> InMemoryProvider:
    """Create a provider in the memory of the process; see `InMemoryProvider`."""
    return InMemoryProvider(config, processors=processors, observers=observers)


async def create_redis_provider(
    config: Any = None,
    client: Any = None,
    *,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> Any:
    """Create and open a provider over Redis; the environment is not looked at.

    Args:
        config: jaf-py's `RedisConfig`, or that of jaf_memory_redis; the defaults when `None`.
        client: a `redis.asyncio.Redis` of the application, which stays open.
        processors: as for jaf_memory_core's `BackendProvider`.
        observers: the same.

    Returns:
        the provider, which is jaf-py's `Success` as well; or jaf-py's `Failure`.
    """
    return await _result(_configured("redis", config, client, Plugins(processors, observers)))


async def create_postgres_provider(
    config: Any = None,
    client: Any = None,
    *,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> Any:
    """Create and open a provider over PostgreSQL; the environment is not looked at.

    Args:
        config: jaf-py's `PostgresConfig`, or that of jaf_memory_postgres; the defaults when `None`.
        client: an `asyncpg` connection or pool of the application, which stays open.
        processors: as for jaf_memory_core's `BackendProvider`.
        observers: the same.

    Returns:
        the provider, which is jaf-py's `Success` as well; or jaf-py's `Failure`.
    """
    return await _result(_configured("postgres", config, client, Plugins(processors, observers)))


async def _configured(name: str, config: Any, client: Any, given: Plugins) -> JafProvider:
    ours = _settings(config, name, registry.load(name).config)
    return JafProvider(await _create_over(name, ours, client, given))


def _settings(config: Any, name: str, kind: type[ProviderConfig]) -> Any:
    """Our settings, from jaf-py's: what was set there. Both have the same defaults."""
    theirs = {"memory": jaf.InMemoryConfig, "redis": jaf.RedisConfig, "postgres": jaf.PostgresConfig}[name]
    if config is None:
        return kind()
    if isinstance(config, theirs) and isinstance(config, BaseModel):
        given = config.model_dump(include=config.model_fields_set - {"type"}, exclude_none=True)
        return kind(**given)
    if isinstance(config, kind):
        return config
    raise MemoryConfigurationError(
        f"the memory provider {name!r} takes a {kind.__name__}, not a {type(config).__name__}", provider=name
    )
