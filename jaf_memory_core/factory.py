"""From settings to an open provider: what an application calls first."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from jaf_memory_core.deadline import Deadline
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError, MemoryError
from jaf_memory_core.outages import one_line
from jaf_memory_core.processors import Plugins, Processor, checked_observers, checked_processors
from jaf_memory_core.protocol import ManagedMemoryProvider, MemoryProvider
from jaf_memory_core.provider import BackendProvider, configured, opened
from jaf_memory_core.settings import CoreSettings, ProviderConfig, load
from jaf_memory_core.settings.errors import has_credentials

if TYPE_CHECKING:
    from jaf_memory_core.hooks import ProviderSpec
    from jaf_memory_core.observation import Observer

# The registry and the environment are imported in functions, for those who create a provider by its name: a
# program that imports jaf_memory_core for its types starts faster without them.

logger = logging.getLogger("jaf_memory_core")

DOCUMENTED = tuple(name for name in vars(MemoryProvider) if not name.startswith("_"))
"""The six methods that every provider has."""

MANAGED = tuple(name for name in vars(ManagedMemoryProvider) if not name.startswith("_") and name not in DOCUMENTED)
"""What a provider over a backend offers beside them."""

GRACE = 0.2
"""Seconds by which a provider that keeps the deadline itself may be late before it is cut off from outside."""


async def create_memory_provider_from_env(
    environ: Mapping[str, str] | None = None,
    *,
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> ManagedMemoryProvider:
    """Create and open the provider that the environment describes; `JAF_MEMORY_TYPE` chooses it.

    Args:
        environ: the variables; `os.environ` when `None`.
        processors: as for `BackendProvider`; they come before those of `JAF_MEMORY_PLUGINS`.
        observers: the same.

    Returns:
        the open provider; close it in the end. Of all that its type promises, a third party's may have the six
        documented methods only: `missing_methods` tells.

    Raises:
        MemoryConfigurationError: a setting, a plugin or a driver is wrong or missing.
        MemoryConnectionError: the store cannot be reached.

    Example:
        provider = await create_memory_provider_from_env()  # what JAF_MEMORY_TYPE says
        other = await create_memory_provider_from_env({"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": "chat.db"})
        await other.close()
    """
    before = Plugins(checked_processors(processors), checked_observers(observers))
    core, spec, config = _described(environ)
    _warn_of_unknown(environ, spec)
    return await _opened(spec, config, core.plugins, before, os.environ if environ is None else environ)


def checked_environ(environ: Any) -> Mapping[str, str] | None:
    """The variables, if they are some.

    Whoever hands over clients here, as other libraries take them, or an empty dict, would get a store in memory that
    forgets everything; so that is refused.

    Raises:
        MemoryConfigurationError: this is no mapping of texts to texts, or an empty one.
    """
    if environ is None:
        return None
    if isinstance(environ, Mapping):
        kinds = {type(one).__name__ for pair in environ.items() for one in pair if not isinstance(one, str)}
        if environ and not kinds:
            return environ
        given = f"one that holds a {min(kinds)}" if kinds else "an empty one"
    else:
        given = f"a {type(environ).__name__}"
    raise MemoryConfigurationError(
        f"environ must be a mapping of variables to their texts, not {given}: leave it out for os.environ, or give "
        'at least {"JAF_MEMORY_TYPE": "memory"}; a client of your own goes to the factory of its plugin, such as '
        "create_redis_provider(config, client)"
    )


def _described(environ: Mapping[str, str] | None) -> tuple[CoreSettings, ProviderSpec, ProviderConfig]:
    from jaf_memory_core import registry

    core = load(CoreSettings, checked_environ(environ))
    spec = registry.load(core.type)
    return core, spec, load(spec.config, environ)


def _warn_of_unknown(environ: Mapping[str, str] | None, spec: ProviderSpec) -> None:
    from jaf_memory_core import registry
    from jaf_memory_core.settings.environment import unknown_variables

    names = {one.name for group in registry.KINDS for one in registry.installed(group)}
    for unknown in unknown_variables(environ, spec.name, spec.config, names):
        hint = f"; did you mean {unknown.suggestion}?" if unknown.suggestion else ""
        logger.warning("nothing reads the variable %s%s", one_line(unknown.name), hint)


async def create_memory_provider(
    name: str,
    config: ProviderConfig | None = None,
    *,
    plugins: Sequence[str] = (),
    processors: Sequence[Processor] = (),
    observers: Sequence[Observer] = (),
) -> ManagedMemoryProvider:
    """Create and open a provider by its name; the environment is not looked at.

    Args:
        name: memory, sqlite, redis, postgres, or the name that an installed plugin has.
        config: its settings; the defaults when `None`.
        plugins: names of cross-cutting plugins, in the order in which they act.
        processors: as for `BackendProvider`; they come before those of the plugins.
        observers: the same.

    Returns:
        the open provider; see `create_memory_provider_from_env`.

    Raises:
        MemoryConfigurationError: a plugin or a driver is wrong or missing, or the settings are another provider's.
        MemoryConnectionError: the store cannot be reached.

    Example:
        async with await create_memory_provider("memory", InMemoryConfig(max_messages=100)) as provider:
            await provider.append_messages("user-123:chat", [Message("user", "Hello!")], create=True)
    """
    from jaf_memory_core import registry

    before = Plugins(checked_processors(processors), checked_observers(observers))
    if isinstance(plugins, str) or not isinstance(plugins, Sequence):
        raise MemoryConfigurationError(f"plugins must be a list of names, not a {type(plugins).__name__}")
    names = [_checked_name(one) for one in plugins]
    spec = registry.load(_checked_name(name))
    return await _opened(spec, configured(spec.config, config, name), names, before, {})


def _checked_name(name: Any) -> str:
    if isinstance(name, str):
        return name
    raise MemoryConfigurationError(f"the name of a provider or plugin is a str, not a {type(name).__name__}")


async def _opened(
    spec: ProviderSpec,
    config: ProviderConfig,
    plugins: Sequence[str],
    before: Plugins,
    environ: Mapping[str, str],
) -> ManagedMemoryProvider:
    from jaf_memory_core import registry

    # Passed over, a redactor would leak what it was to keep back.
    if spec.backend is None and (before.processors or before.observers):
        raise MemoryConfigurationError(
            f"processors and observers cannot be applied to the memory provider {spec.name!r}: it brings a provider of "
            "its own, which would store and answer past them",
            provider=spec.name,
        )
    if spec.backend is None and plugins:
        raise MemoryConfigurationError(
            f"plugins ({', '.join(plugins)}) cannot be applied to the memory provider {spec.name!r}: it brings a "
            "provider of its own, which would store and answer past them",
            provider=spec.name,
        )
    loaded = registry.load_plugins(plugins, environ)
    offered = Plugins((*before.processors, *loaded.processors), (*before.observers, *loaded.observers))
    try:
        provider = await _made(spec, config, offered)
    except ModuleNotFoundError as error:
        # Some plugins import their driver only now, so that others start faster without it.
        raise registry.missing_module(registry.find(spec.name), error) from error
    lacking = [name for name in DOCUMENTED if not callable(getattr(provider, name, None))]
    if lacking:
        await _let_go(provider, spec.name, config.operation_timeout)
        entry = registry.find(spec.name)
        raise MemoryConfigurationError(
            f"what {entry} creates is no memory provider: it lacks {', '.join(lacking)}",
            provider=spec.name,
            distribution=entry.distribution,
            version=entry.version,
        )
    if isinstance(provider, BackendProvider):
        await opened(provider)
    return cast("ManagedMemoryProvider", provider)


async def _let_go(provider: object, name: str, seconds: float) -> None:
    """Close what is no provider: it may hold connections, and nobody else knows of it."""
    close = getattr(provider, "close", None)
    if not callable(close):
        return
    try:
        await _within(seconds, name, "closing it", close())
    except Exception as error:  # noqa: BLE001  (a third party's; what is told is why it was refused)
        logger.warning("memory provider %r could not be closed: %s", name, type(error).__name__)


async def _made(spec: ProviderSpec, config: ProviderConfig, offered: Plugins) -> object:
    if spec.backend is not None:
        backend = spec.backend(config)
        return BackendProvider(backend, config, processors=offered.processors, observers=offered.observers)
    assert spec.create is not None  # a ProviderSpec has one of the two
    return await _within(config.operation_timeout, spec.name, "creating it", spec.create(config))


async def _within(seconds: float, name: str, what: str, answer: object) -> Any:
    """Wait for what a third party's code may be waiting for, but no longer than the deadline."""
    if not inspect.isawaitable(answer):
        return answer
    deadline = Deadline(seconds)
    try:
        with deadline:
            return await answer
    except TimeoutError as late:
        if not deadline.expired:
            raise
        text = f"memory provider {name!r}: {what} did not end within {seconds:g} s"
        raise MemoryConnectionError(text, provider=name) from late


def missing_methods(provider: object) -> tuple[str, ...]:
    """What a provider does not offer of all that our own offer beside the six documented methods.

    Args:
        provider: any provider.

    Returns:
        names of methods; none for a provider over a backend.

    Example:
        print(missing_methods(provider))  # ()
    """
    return tuple(name for name in MANAGED if not callable(getattr(provider, name, None)))


def get_memory_provider_info(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Tell what the environment describes, without creating a provider or connecting to anything.

    Args:
        environ: the variables; `os.environ` when `None`.

    Returns:
        `type`, `persistence` (how durable, one sentence), `summary`, `distribution`, `version`, `api` (the plugin
        API), `settings` (variable → value, secrets masked) and `plugins` (name, distribution and version of each).

    Raises:
        MemoryConfigurationError: a setting, a plugin or a driver is wrong or missing.

    Example:
        print(get_memory_provider_info({"JAF_MEMORY_TYPE": "memory"})["persistence"])
    """
    from jaf_memory_core import registry
    from jaf_memory_core.settings.environment import describe

    core, spec, config = _described(environ)
    entry = registry.find(spec.name)
    plugins = [registry.find(name, registry.PLUGINS) for name in core.plugins]
    return {
        "type": spec.name,
        "persistence": spec.persistence_of(config),
        "summary": spec.summary,
        "distribution": entry.distribution,
        "version": entry.version,
        "api": spec.api,
        "settings": {row.variable: row.value_shown for row in describe(spec.config, environ)},
        "plugins": [{"name": one.name, "distribution": one.distribution, "version": one.version} for one in plugins],
    }


async def test_memory_provider_connection(
    environ: Mapping[str, str] | None = None,  # noqa: PT028  (the document's name; no test)
) -> dict[str, Any]:
    """Create the provider that the environment describes, ask how it is, and close it.

    Args:
        environ: the variables; `os.environ` when `None`.

    Returns:
        what `health_check` answers, with `healthy`, `provider` and `message` or `error` in any case. Trouble with
        the connection or the configuration is an answer, too, and is not raised.

    Example:
        health = await test_memory_provider_connection({"JAF_MEMORY_TYPE": "memory"})
        print(health["healthy"], health.get("error"))  # True None
    """
    name = ""
    try:
        name = load(CoreSettings, checked_environ(environ)).type
        core, spec, config = _described(environ)
        _warn_of_unknown(environ, spec)
        variables = os.environ if environ is None else environ
        provider = await _opened(spec, config, core.plugins, Plugins(), variables)
        health = await _health(provider, name, config.operation_timeout + GRACE)
    except (TimeoutError, MemoryError, OSError) as error:  # a third party's driver raises the latter two
        text = str(error)
        # A driver of somebody else's may quote the URL that it was given.
        health = {"healthy": False, "error": type(error).__name__ if has_credentials(text) else text}
        health |= {"error_type": type(error).__name__, "retryable": getattr(error, "retryable", None)}
    healthy = bool(health.get("healthy"))
    key, text = ("message", "it answers") if healthy else ("error", "it does not say what is wrong")
    if not health.get(key):
        health[key] = text
    return {**health, "healthy": healthy, "provider": health.get("provider") or name}


# Otherwise pytest collects it from every test module that imports it.
test_memory_provider_connection.__test__ = False  # type: ignore[attr-defined]


async def _health(provider: ManagedMemoryProvider, name: str, seconds: float) -> dict[str, Any]:
    try:
        return dict(await _within(seconds, name, "its health check", provider.health_check()))
    finally:
        if "close" not in missing_methods(provider):
            await _within(seconds, name, "closing it", provider.close())
