"""Which store a command works on: the environment's, exactly as for applications, or what options put over it."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from jaf_memory_cli.errors import USAGE, Stop
from jaf_memory_cli.options import Choice, local
from jaf_memory_cli.output import Output
from jaf_memory_core import registry
from jaf_memory_core.factory import create_memory_provider_from_env
from jaf_memory_core.hooks import ProviderSpec
from jaf_memory_core.maintenance import HasFiles, MayBeAbsent
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.registry import KINDS, installed
from jaf_memory_core.registry import load as load_spec
from jaf_memory_core.settings import CoreSettings, ProviderConfig, load, variables
from jaf_memory_core.settings.environment import describe, doctor_notes, unknown_variables

TYPE = "JAF_MEMORY_TYPE"
PLUGINS = "JAF_MEMORY_PLUGINS"

LARGEST = 1 << 20
"""Bytes of a file of variables; a device has no end."""

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


# Finding a plugin reads the metadata of all that is installed, and one command asks several times.
_spec = functools.cache(load_spec)


@dataclass(frozen=True)
class Store:
    """A store that was chosen.

    Attributes:
        environ: all variables, as `create_memory_provider_from_env` takes them.
        origins: variable → the option that set it; all others come from the environment.
    """

    environ: Mapping[str, str]
    origins: Mapping[str, str]

    @property
    def name(self) -> str:
        """The provider's name."""
        return load(CoreSettings, self.environ).type

    def spec(self) -> ProviderSpec:
        """The provider's plugin.

        Raises:
            MemoryConfigurationError: it does not load.
        """
        return _spec(self.name)

    def config(self) -> ProviderConfig:
        """The provider's settings.

        Raises:
            MemoryConfigurationError: one of them is wrong.
        """
        return load(self.spec().config, self.environ)

    @asynccontextmanager
    async def unopened(self) -> AsyncIterator[Any]:
        """The backend, made and not opened, so that nothing of the store is made; `None` if the plugin has none."""
        spec, config = self.spec(), self.config()
        try:
            backend: Any = spec.backend(config) if spec.backend is not None else None
        except ModuleNotFoundError as error:
            raise registry.missing_module(registry.find(spec.name), error) from error
        try:
            yield backend
        finally:
            if backend is not None:
                await backend.close()

    async def absent(self) -> str | None:
        """Why there is nothing that could be read or erased; `None` if the store stands."""
        if self.name == "memory":
            return f"the store is 'memory', which lives as long as one process; set {TYPE}, or give --type, for another"
        async with self.unopened() as backend:
            reason = await backend.absent() if isinstance(backend, MayBeAbsent) else None
        return f"there is no store: {reason}; `jaf-memory info` shows which settings lead there" if reason else None

    async def files(self) -> Sequence[Path]:
        """What the store consists of, where that is files on this machine."""
        async with self.unopened() as backend:
            return backend.files() if isinstance(backend, HasFiles) else ()

    @asynccontextmanager
    async def opened(self, *, create: bool = False) -> AsyncIterator[ManagedMemoryProvider]:
        """The open provider; closed in the end.

        Args:
            create: whether the store may be made if it is absent: not by who reads or erases.

        Raises:
            Stop: it is absent, and must not be made.
        """
        if not create and (reason := await self.absent()):
            raise Stop(reason, USAGE)
        provider = await create_memory_provider_from_env(self.environ)
        try:
            yield provider
        finally:
            if callable(getattr(provider, "close", None)):
                await provider.close()


def choose(kind: str | None, settings: Sequence[str], file: str | None, *, option: str = "--") -> Store:
    """Choose a store by options.

    Args:
        kind: a provider's name; the environment's when `None`.
        settings: `FIELD=VALUE` or `VARIABLE=VALUE`, put over the environment.
        file: variables of a store, one a line. Then none of this process's own `JAF_` variables count, so that no
            URL of another store's can win over a host in the file; only its plugins do, lest a redactor be skipped.
        option: what the options' names begin with, for errors.

    Raises:
        Stop: an option is wrong.
        MemoryConfigurationError: the provider is unknown, or its plugin does not load.
    """
    environ = dict(os.environ)
    origins: dict[str, str] = {}
    if file is not None:
        read = _read_file(file)
        inherited = {name: text for name, text in environ.items() if not name.startswith("JAF_") or name == PLUGINS}
        environ = inherited | read
        origins = dict.fromkeys(read, f"{option}env-file")
    if kind is not None:
        environ[TYPE], origins[TYPE] = kind, "--type" if option == "--" else option.rstrip("-")
    store = Store(environ, origins)
    if not settings and file is None:
        return store
    spec = store.spec()
    for assignment in settings:
        variable, text = _assigned(assignment, spec, f"{option}set")
        environ[variable], origins[variable] = text, f"{option}set"
    _refuse_what_has_no_effect(store, spec)
    return store


def _read_file(file: str) -> dict[str, str]:
    found = {}
    with local(file).open("rb") as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Stop(f"{file} has more than {LARGEST} bytes; this is no file of variables", USAGE)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise Stop(f"{file} is not a text file in UTF-8", USAGE) from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise Stop(f"{file}, line {number}: expected VARIABLE=VALUE", USAGE)
        found[match[1]] = _unquoted(match[2])
    return found


def _unquoted(text: str) -> str:
    text = text.strip()
    for quote in ('"', "'"):
        if len(text) > 1 and text[0] == text[-1] == quote:
            return text[1:-1]
    return text.partition(" #")[0].rstrip()


def _assigned(assignment: str, spec: ProviderSpec, option: str) -> tuple[str, str]:
    key, separator, text = assignment.partition("=")
    if not separator:
        raise Stop(f"{option} takes FIELD=VALUE, for example {option} {_example(spec)}", USAGE)
    names = variables(spec.config)
    if key in names:
        return names[key][0], text
    known = {name for choices in (*names.values(), *variables(CoreSettings).values()) for name in choices}
    if key in known:
        return key, text
    near = difflib.get_close_matches(key, [*names, *known], n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
    raise Stop(f"{option}: the provider {spec.name!r} has no setting {key!r}; {hint}", USAGE)


def _example(spec: ProviderSpec) -> str:
    fields = [name for name in spec.config.model_fields if name not in ProviderConfig.model_fields]
    return f"{fields[0] if fields else 'ttl'}=…"


def _refuse_what_has_no_effect(store: Store, spec: ProviderSpec) -> None:
    """An option that says which store must not be overruled quietly: the work would be done on another one."""
    for note in doctor_notes(spec.config, store.environ):
        named = {name for name in re.findall(r"JAF_[A-Z0-9_]+", note) if store.environ.get(name)}
        ours = [store.origins[name] for name in sorted(named) if name in store.origins]
        if ours and named - store.origins.keys():
            raise Stop(f"{ours[0]} and the environment contradict each other: {note}", USAGE)
    # Variables of providers and plugins that are only installed are theirs to know.
    names = {one.name for group in KINDS for one in installed(group)}
    for unknown in unknown_variables(store.environ, spec.name, spec.config, names):
        if unknown.name in store.origins:
            hint = f"; did you mean {unknown.suggestion}?" if unknown.suggestion else ""
            raise Stop(f"{store.origins[unknown.name]}: nothing reads {unknown.name}{hint}", USAGE)


async def warn_if_gone_at_end(output: Output, store: Store) -> None:
    """Say what puzzles everyone once: the default store is in memory, and gone when this process ends."""
    if store.name == "memory" and (reason := await store.absent()):
        output.note(reason)


def own_files(context: typer.Context) -> Sequence[Path]:
    """The file of variables that describes the store, if one does."""
    _, _, file = context.find_object(Choice) or Choice(None, (), None)
    return [local(file)] if file is not None else []


def said_before(context: typer.Context) -> list[str]:
    """The options before the command, for a command that is shown to be run next; secrets are left out."""
    kind, settings, file = context.find_object(Choice) or Choice(None, (), None)
    store, spec = chosen(context), chosen(context).spec() if settings else None
    said = [*(["--type", kind] if kind else []), *(["--env-file", str(file)] if file else [])]
    shown = {row.variable: row.value_shown for row in describe(spec.config, store.environ)} if spec else {}
    for assignment in settings:
        variable, text = _assigned(assignment, spec, "--set") if spec else ("", "")
        said += ["--set", assignment if shown.get(variable, text) == text else f"{assignment.partition('=')[0]}=…"]
    return said


def chosen(context: typer.Context) -> Store:
    """The store that a command works on; see `choose`."""
    return choose(*context.find_object(Choice) or Choice(None, (), None))
