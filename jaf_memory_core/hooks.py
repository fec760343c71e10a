"""What a plugin offers: the hooks, and the description of a provider.

A plugin is a module (or an object) that an entry point names, with functions that `hookimpl` marks:

    from jaf_memory_core.hooks import ProviderSpec, hookimpl

    @hookimpl
    def jaf_memory_provider() -> ProviderSpec:
        return ProviderSpec(
            name="files", config=FilesConfig, backend=FilesBackend, persistence="Kept in files.", api=1
        )

and in its `pyproject.toml`:

    [project.entry-points."jaf.memory.providers"]
    files = "jaf_memory_files"

All hooks are for start-up; no operation on a conversation ever calls one.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import pluggy

from jaf_memory_core.settings import ProviderConfig

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend
    from jaf_memory_core.conversations import ConversationMemory
    from jaf_memory_core.observation import Observer
    from jaf_memory_core.processors import Processor
    from jaf_memory_core.protocol import MemoryProvider

PLUGIN_API = 1
"""The plugin API of this core. It grows when a plugin that worked before would no longer work."""

hookspec = pluggy.HookspecMarker("jaf_memory")
hookimpl = pluggy.HookimplMarker("jaf_memory")
"""Marks a plugin's function as its answer to the hook that is called like it."""


@dataclass(frozen=True)
class ProviderSpec:
    """One provider, as its plugin describes it.

    Attributes:
        name: the provider's name; the same as its entry point's, and what `JAF_MEMORY_TYPE` says.
        config: the class of its settings.
        backend: makes a `Backend` from a `config`, without I/O; the core wraps it in a `BackendProvider`.
        create: makes a provider from a `config`: any object with the six documented methods. It may be a
            coroutine function, and may connect. Exactly one of `backend` and `create` is given.
        persistence: how durable the provider is, in one plain sentence; or a function of the configuration,
            where that decides.
        summary: what it is, in a few words, for lists of providers.
        api: the `PLUGIN_API` that the plugin was written for, as a number; the constant itself would be
            whatever the installed core has. A plugin that says nothing was written for the first one.

    Raises:
        TypeError: an attribute is of another kind.
        ValueError: an attribute is empty, or not exactly one of `backend` and `create` is given.
    """

    name: str
    config: type[ProviderConfig]
    backend: Callable[[Any], Backend] | None = None
    create: Callable[[Any], MemoryProvider | Awaitable[MemoryProvider]] | None = None
    persistence: str | Callable[[Any], str] = ""
    summary: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        config: Any = self.config  # nothing has checked the types of what a plugin passes
        if not (isinstance(config, type) and issubclass(config, ProviderConfig)):
            raise TypeError("ProviderSpec: config must be a subclass of ProviderConfig")
        if not isinstance(self.api, int):
            raise TypeError("ProviderSpec: api must be a number")
        for given, name in ((self.name, "name"), (self.persistence, "persistence")):
            if not given:
                raise ValueError(f"ProviderSpec: {name} must not be empty")
        makers = [maker for maker in (self.backend, self.create) if maker is not None]
        if len(makers) != 1:
            raise ValueError("ProviderSpec: give exactly one of backend and create")
        if not callable(makers[0]):
            raise TypeError("ProviderSpec: backend or create must be callable")

    def persistence_of(self, config: ProviderConfig) -> str:
        """How durable the provider is with that configuration, in one sentence."""
        return self.persistence if isinstance(self.persistence, str) else self.persistence(config)


OnBad = Callable[[str, str], None]
"""What a reader tells of a row that it cannot read: where it stands, and what is wrong. It may raise, and end the
reading; where it returns, the reader goes on behind the row. Neither text may hold content or a secret."""

Source = Literal["file", "address"]
"""What a reader reads: a file, by its path, or a database, by an address that may hold a secret."""


@dataclass(frozen=True)
class ReaderSpec:
    """Where conversations of another program are read from, for `jaf-memory import --from NAME`.

    Attributes:
        name: the reader's name; the same as its entry point's.
        read: takes the path or address, the owner of all that it reads (`None` where nobody named one), and an
            `OnBad`; gives conversations, one at a time, from an iterable or an async one. What it gives is to be the
            same each time: ids of messages follow from the source, so that importing again adds nothing. It raises a
            `MemoryError` of ours where the source itself cannot be read, and no error of a driver, whose text could
            hold the address.
        source: what it reads.
        owned: whether the source says whose each conversation is; then nobody else may.
        summary: what it reads, in a few words.
        api: as for a `ProviderSpec`.

    Raises:
        TypeError: an attribute is of another kind.
        ValueError: an attribute is empty, or `source` is another word.
    """

    name: str
    read: Callable[[str, str | None, OnBad], Iterable[ConversationMemory] | AsyncIterable[ConversationMemory]]
    source: Source = "file"
    owned: bool = False
    summary: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.api, int):
            raise TypeError("ReaderSpec: api must be a number")
        if not callable(self.read):
            raise TypeError("ReaderSpec: read must be callable")
        if not self.name:
            raise ValueError("ReaderSpec: name must not be empty")
        if self.source not in get_args(Source):
            raise ValueError(f"ReaderSpec: source must be one of {', '.join(get_args(Source))}")


@hookspec(firstresult=True)
def jaf_memory_provider() -> ProviderSpec:  # type: ignore[empty-body]
    """Describe the provider of an entry point in group `jaf.memory.providers`.

    Called at each start that names this provider. It must not connect, and must not read the environment.

    Returns:
        the description; its `name` is the entry point's.
    """


@hookspec(firstresult=True)
def jaf_memory_reader() -> ReaderSpec:  # type: ignore[empty-body]
    """Describe the reader of an entry point in group `jaf.memory.readers`.

    Called at each start of an import that names this reader. It must not open anything.

    Returns:
        the description; its `name` is the entry point's.
    """


@hookspec
def jaf_memory_processors(environ: Mapping[str, str]) -> Sequence[Processor]:  # type: ignore[empty-body]
    """Offer processors, which change what is stored and what is read: redaction, encryption.

    For an entry point in group `jaf.memory.plugins`, called at each start that `JAF_MEMORY_PLUGINS` names it.
    An exception stops the start: a redactor that is skipped would leak.

    Args:
        environ: the variables that the provider is made from, for settings of the plugin's own; none where it is made
            in code. A hook that needs none leaves the argument out.

    Returns:
        processors in the order in which outgoing content passes them; incoming content goes the other way.
    """


@hookspec
def jaf_memory_observers(environ: Mapping[str, str]) -> Sequence[Observer]:  # type: ignore[empty-body]
    """Offer observers, which are told of every operation: telemetry.

    For an entry point in group `jaf.memory.plugins`, called at each start that `JAF_MEMORY_PLUGINS` names it.
    An exception stops the start.

    Args:
        environ: as above.

    Returns:
        callables that take an `OperationEvent`, or objects with a `begin`; they must be quick, and must not raise.
    """
