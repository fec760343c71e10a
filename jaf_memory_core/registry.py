"""From a name to one loaded plugin: installed metadata is read first, and only what is named is imported."""

from __future__ import annotations

import difflib
import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings.errors import has_credentials, quoted

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

    from jaf_memory_core.hooks import ProviderSpec, ReaderSpec
    from jaf_memory_core.observation import Observer
    from jaf_memory_core.processors import Plugins, Processor

logger = logging.getLogger("jaf_memory_core")

Spec = TypeVar("Spec", "ProviderSpec", "ReaderSpec")

PROVIDERS = "jaf.memory.providers"
PLUGINS = "jaf.memory.plugins"
READERS = "jaf.memory.readers"
KINDS = {PROVIDERS: "memory provider", PLUGINS: "plugin", READERS: "reader"}
CORE = "jaf-memory-core"
OURS = {"sqlite": "jaf-memory-sqlite", "redis": "jaf-memory-redis", "postgres": "jaf-memory-postgres"}
"""Our own providers → the distributions that bring them; each is an extra of the core."""
OUR_PLUGINS = {
    "encryption": "jaf-memory-encryption",
    "otel": "jaf-memory-otel",
    "redaction": "jaf-memory-redaction",
}
"""The same for our own plugins."""
OUR_READERS = {  # of what needs nothing, the extra is empty
    "openai-agents-sqlite": "openai-agents",
    "langchain-postgres": "langchain",
    "pydantic-ai": "pydantic-ai",
    "adk": "adk",
    "chatgpt-export": "",
}
"""Our own readers → the extras of jaf-memory-bridges that bring what they need."""


@dataclass(frozen=True)
class Installed:
    """One entry point, as the metadata of its distribution has it; nothing was imported for it.

    Attributes:
        name: what settings call it.
        distribution, version: who brings it.
        value: what would be imported, `module` or `module:object`.
    """

    name: str
    distribution: str
    version: str
    value: str

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"


def installed(group: str = PROVIDERS) -> list[Installed]:
    """What is installed, by name; a name that two distributions claim comes twice.

    Args:
        group: the entry-point group, providers unless told otherwise.

    Returns:
        one item an entry point and distribution, in alphabetical order.
    """
    # Late: only who opens or lists providers needs it. The backport, because Python's own differs by version.
    from importlib_metadata import distributions

    found: dict[tuple[str, str], Installed] = {}
    for distribution in distributions():
        for entry in _entries(distribution, group):
            name, version = _identity(distribution)
            if name:  # without one it is what an interrupted uninstall left behind
                # A distribution may be on the path twice (editable, beside an older one); the first counts.
                one = Installed(entry.name, name, version, entry.value)
                found.setdefault((entry.name, canonical(name)), one)
    return sorted(found.values(), key=lambda one: (one.name, one.distribution))


def _entries(distribution: Any, group: str) -> list[EntryPoint]:
    try:
        return [entry for entry in distribution.entry_points if entry.group == group]
    except (TypeError, ValueError):
        # So the library fails at a file of another format; a broken distribution must not hide the others.
        _tell_unreadable(_identity(distribution)[0])
        return []


@functools.cache
def _tell_unreadable(distribution: str) -> None:
    logger.warning("the entry points of %s cannot be read and are left out", distribution or "a distribution")


def _identity(distribution: Any) -> tuple[str, str]:
    """Name and version; both empty where there is no metadata, which the library's versions tell in many ways."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    fields = dict(re.findall(r"^(Name|Version): *(\S+)", text.partition("\n\n")[0], re.MULTILINE))
    return fields.get("Name", ""), fields.get("Version", "")


def canonical(distribution: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def find(name: str, group: str = PROVIDERS) -> Installed:
    """The entry point of a name.

    Args:
        name: what the settings say.
        group: the entry-point group.

    Returns:
        the one entry point; it has not been imported.

    Raises:
        MemoryConfigurationError: nothing of that name is installed, or two distributions claim it.
    """
    available = installed(group)
    claims = [one for one in available if one.name == name]
    if not claims:
        _refuse_unknown(name, group, available)
    # Which of the two comes first on a path is chance (docs/decisions/0004).
    if len(claims) > 1:
        who = " and ".join(f"{one.distribution} {one.version}" for one in claims)
        raise MemoryConfigurationError(
            f"two distributions claim the {KINDS[group]} {name!r}: {who}; uninstall one of them",
            provider=name,
        )
    return claims[0]


def _refuse_unknown(name: str, group: str, available: Sequence[Installed]) -> NoReturn:
    ours = {**OURS} if group == PROVIDERS else {**OUR_PLUGINS} if group == PLUGINS else {**OUR_READERS}
    install = None
    if name in ours:
        install = _install_reader(name) if group == READERS else _install(ours[name])
    text = f"there is no {KINDS[group]} {quoted(name)}"
    if install:
        text = f"the {KINDS[group]} {name!r} is not installed; to install it: {install}"
    elif group == PROVIDERS and name == "memory":
        text += f"; {CORE} itself is not installed here, only importable"
    else:
        known = {one.name for one in available} | set(ours)
        near = difflib.get_close_matches(name.lower(), known, n=1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(str, available)) or "none"
    raise MemoryConfigurationError(
        f"{text} (installed: {listed})", provider="" if has_credentials(name) else name, install=install
    )


def load(name: str) -> ProviderSpec:
    """Import the plugin of one provider, and only that one.

    Args:
        name: what `JAF_MEMORY_TYPE` says.

    Returns:
        its description, validated.

    Raises:
        MemoryConfigurationError: there is no such provider, two distributions claim it, or its plugin does
            not load, describes no provider or another one, or was built for another plugin API.
    """
    from jaf_memory_core.hooks import ProviderSpec

    return _described(find(name), "jaf_memory_provider", ProviderSpec)


def load_reader(name: str) -> ReaderSpec:
    """Import the plugin of one reader, and only that one.

    Args:
        name: what `jaf-memory import --from` says.

    Returns:
        its description, validated.

    Raises:
        MemoryConfigurationError: as for `load`.
    """
    from jaf_memory_core.hooks import ReaderSpec

    return _described(find(name, READERS), "jaf_memory_reader", ReaderSpec)


def _described(entry: Installed, hook: str, kind: type[Spec]) -> Spec:
    from jaf_memory_core.hooks import PLUGIN_API

    spec = _offered(entry, hook)[hook]
    if not isinstance(spec, kind):
        raise _problem(entry, f"its {hook} returns {type(spec).__name__}, not a {kind.__name__}")
    if spec.api != PLUGIN_API:
        behind = CORE if spec.api > PLUGIN_API else entry.distribution
        text = f"it was built for plugin API {spec.api}, and {CORE} {_core_version()} has {PLUGIN_API}"
        raise _problem(entry, f"{text}; upgrade {behind}", _upgrade(behind))
    if spec.name != entry.name:
        raise _problem(entry, f"its entry point is called {entry.name!r}, but its {kind.__name__} {spec.name!r}")
    return spec


def load_plugins(names: Iterable[str], environ: Mapping[str, str] | None = None) -> Plugins:
    """Import the cross-cutting plugins that are named, in that order.

    Args:
        names: what `JAF_MEMORY_PLUGINS` says.
        environ: variables for their own settings.

    Returns:
        all their processors and observers.

    Raises:
        MemoryConfigurationError: one of them is missing, named twice, does not load or offers nothing.
    """
    from jaf_memory_core.processors import Plugins, Processor

    names = list(names)
    processors: list[Processor] = []
    observers: list[Observer] = []
    for name in names:
        if names.count(name) > 1:
            raise MemoryConfigurationError(f"the plugin {name!r} is named twice; name it once")
        entry = find(name, PLUGINS)
        offered = _offered(entry, "jaf_memory_processors", "jaf_memory_observers", environ=environ or {})
        processors += _items(entry, offered, "jaf_memory_processors", lambda one: isinstance(one, Processor))
        observers += _items(entry, offered, "jaf_memory_observers", _observes)
    return Plugins(tuple(processors), tuple(observers))


def _observes(one: object) -> bool:
    return callable(one) or callable(getattr(one, "begin", None))


def _items(entry: Installed, offered: Mapping[str, Any], hook: str, is_right: Callable[[Any], bool]) -> list[Any]:
    if hook not in offered:
        return []
    # pluggy makes a list of all answers, here of one plugin's, and leaves out `None`: that is no list either.
    items = next(iter(offered[hook]), None)
    if isinstance(items, (list, tuple)) and all(map(is_right, items)):
        return [*items]
    raise _problem(entry, f"its {hook} does not return a list of {hook.removeprefix('jaf_memory_')}")


def _offered(entry: Installed, *hooks: str, **arguments: object) -> dict[str, Any]:
    """Import a plugin, have pluggy validate it, and call those of the hooks that it implements."""
    import pluggy

    from jaf_memory_core import hooks as specifications

    manager = pluggy.PluginManager("jaf_memory")
    manager.add_hookspecs(specifications)
    plugin = _imported(entry)
    try:
        manager.register(plugin, name=entry.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _problem(entry, " ".join(str(error).split())) from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if not implemented.intersection(hooks):
        unmarked = [hook for hook in hooks if callable(getattr(plugin, hook, None))]
        hint = f"; its {unmarked[0]} lacks the mark @hookimpl" if unmarked else ""
        raise _problem(entry, f"{entry.value} implements none of {', '.join(hooks)}{hint}")
    try:
        return {hook: getattr(manager.hook, hook)(**arguments) for hook in hooks if hook in implemented}
    except (Exception, SystemExit) as error:
        # A boundary like the import below: the plugin's own start-up code, which may fail in any way.
        raise _broken(entry, error) from error


def _imported(entry: Installed) -> Any:
    from importlib_metadata import EntryPoint

    try:
        return EntryPoint(entry.name, entry.value, "").load()
    except ModuleNotFoundError as error:
        raise missing_module(entry, error) from error
    except (Exception, SystemExit) as error:
        # An import runs the plugin's code, which may fail in any way, and must not end the application.
        raise _broken(entry, error) from error


def missing_module(entry: Installed, error: ModuleNotFoundError) -> MemoryConfigurationError:
    """What to raise when a plugin could not import a module: its driver, or one of its own.

    Args:
        entry: the plugin.
        error: what its import raised.
    """
    package = entry.value.partition(":")[0].partition(".")[0]
    # A module of its own: the plugin is broken, and no driver is missing.
    if error.name is None or error.name.partition(".")[0] == package:
        return _broken(entry, error)
    text = f"it needs the module {error.name!r}, which is not installed"
    return _problem(entry, text, _install(entry.distribution))


def _broken(entry: Installed, error: BaseException) -> MemoryConfigurationError:
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    return _problem(entry, type(error).__name__ if has_credentials(text) else text)


def _problem(entry: Installed, text: str, command: str | None = None) -> MemoryConfigurationError:
    return MemoryConfigurationError(
        f"the plugin {entry} does not load: {text}" + (f"; to mend it: {command}" if command else ""),
        provider=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        install=command,
    )


def _install(distribution: str) -> str | None:
    """The command that installs one of our own distributions whole; of others we know none."""
    extras = [name for name, ours in (OURS | OUR_PLUGINS).items() if ours == canonical(distribution)]
    return f'pip install "{CORE}[{extras[0]}]"' if extras else None


def _install_reader(name: str) -> str:
    extra = OUR_READERS[name]
    return f'pip install "jaf-memory-bridges[{extra}]"' if extra else "pip install jaf-memory-bridges"


def _upgrade(distribution: str) -> str | None:
    if canonical(distribution) == CORE:
        return f"pip install --upgrade {CORE}"
    install = _install(distribution)
    return install and install.replace("install", "install --upgrade", 1)


def _core_version() -> str:
    from importlib_metadata import PackageNotFoundError, version

    try:
        return version(CORE)
    except PackageNotFoundError:
        return "(not installed, only importable)"
