"""`providers`, `info`, `doctor`: what is installed, what is set, and whether it works."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from jaf_memory_cli.errors import FAILED, OK, USAGE, Stop
from jaf_memory_cli.options import Json
from jaf_memory_cli.output import BAD, GOOD, WARN, Output, count, heading, marked, pairs, table, text_or_dash
from jaf_memory_cli.probe import Probe, probe
from jaf_memory_cli.stores import Store, chosen
from jaf_memory_cli.terminal import safe
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError
from jaf_memory_core.factory import (
    create_memory_provider_from_env,
    get_memory_provider_info,
    missing_methods,
    test_memory_provider_connection,
)
from jaf_memory_core.hooks import ProviderSpec
from jaf_memory_core.maintenance import HasFiles, MayBeAbsent
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.registry import KINDS, OURS, Installed, find, installed
from jaf_memory_core.settings import CoreSettings
from jaf_memory_core.settings.environment import Setting, UnknownVariable, describe, doctor_notes, unknown_variables

DAY = 86_400
"""Seconds that nobody waits longer for."""

Watch = Annotated[
    float | None,
    typer.Option("--watch", metavar="SECONDS", min=0.1, help="Look again every so many seconds, until Ctrl-C."),
]

LOOKED_AT = 20
"""Newest conversations whose owner is looked at: a service that names none does so in each."""


async def providers(context: typer.Context, *, as_json: Json = False) -> None:
    """List the installed providers, each tried.

    Each is loaded in a process of its own: a broken one breaks nothing.
    """
    output, store = Output(as_json=as_json), chosen(context)
    found = installed()
    # Threads will do: each of them waits for the process that it has started.
    with ThreadPoolExecutor(max_workers=4) as pool:
        probes = list(pool.map(probe, [one.name for one in found]))
    selected = _selected(store)
    missing = {
        name: f'pip install "jaf-memory-core[{name}]"' for name in OURS if name not in {one.name for one in found}
    }
    if as_json:
        output.document(
            {
                "providers": [_described(one, tried, selected) for one, tried in zip(found, probes, strict=True)],
                "not_installed": [{"name": name, "install": command} for name, command in missing.items()],
            }
        )
        return
    rows = [_row(one, tried, selected) for one, tried in zip(found, probes, strict=True)]
    output.show(table(("", {}), ("Provider", {}), ("Distribution", {}), ("", {"overflow": "fold"}), rows=rows))
    if missing:
        output.show(Text(""))
    for name, command in missing.items():
        output.console.print(
            Text.assemble(f"{name} is not installed: ", (command, "cyan"), style="dim"), soft_wrap=True
        )


def _selected(store: Store) -> str:
    try:
        return store.name
    except MemoryConfigurationError:
        return ""


def _described(one: Installed, tried: Probe, selected: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "distribution": one.distribution,
        "version": one.version,
        "ok": tried.ok,
        "summary": tried.summary or None,
        "error": tried.error,
        "selected": one.name == selected,
    }


def _row(one: Installed, tried: Probe, selected: str) -> Sequence[Text]:
    chosen_one = one.name == selected
    told = Text(safe(tried.summary if tried.ok else _reason(tried)), style="" if tried.ok else "red")
    if chosen_one:
        told.append("  ← selected", style="cyan")
    return (
        GOOD if tried.ok else BAD,
        Text(safe(one.name), style="bold" if chosen_one else ""),
        Text(safe(f"{one.distribution} {one.version}"), style="dim"),
        told,
    )


def _reason(tried: Probe) -> str:
    """Why a plugin does not load; who it is stands in the row already."""
    error = tried.error or "nobody knows why"
    return error.partition(" does not load: ")[2] or error


async def info(context: typer.Context, *, as_json: Json = False) -> None:
    """Tell which store is set, without connecting."""
    output, store = Output(as_json=as_json), chosen(context)
    found = get_memory_provider_info(store.environ)
    if as_json:
        output.document(found)
        return
    rows = [("persistence", text_or_dash(found["persistence"]))]
    rows += [
        ("plugin", Text(safe(f"{one['name']}  {one['distribution']} {one['version']}"))) for one in found["plugins"]
    ]
    output.show(heading(found["type"], found["summary"], f"{found['distribution']} {found['version']}"), Text(""))
    output.show(pairs(*rows), Text(""))
    output.show(pairs(*[(name, text_or_dash(value)) for name, value in found["settings"].items()]))


async def doctor(context: typer.Context, *, watch: Watch = None, as_json: Json = False) -> int:
    """Check settings, plugin and connection.

    Says what is wrong, and what to do; the exit status is 1 then.
    """
    output, store = Output(as_json=as_json, warnings=False), chosen(context)  # its own words are better
    if watch is not None and not watch <= DAY:  # nan, too, which is neither below a bound nor above it
        raise Stop(f"--watch takes 0.1 to {DAY} seconds, not {watch:g}", USAGE)
    found = await diagnose(store)
    if watch is not None and not found.absent and found.health:
        if not as_json:
            _show_diagnosis(output, found, store)
        await look_again(output, store, watch)
    if as_json:
        output.document(found.document())
    else:
        _show_diagnosis(output, found, store)
    return OK if found.healthy else FAILED


def _show_diagnosis(output: Output, found: Diagnosis, store: Store) -> None:
    output.show(heading(found.provider or "jaf-memory", *filter(None, (found.distribution,))))
    if found.persistence:
        output.show(Text(safe(found.persistence), style="dim"))
    if found.settings:
        columns = (
            ("Setting", {"overflow": "fold"}),
            ("Value", {"overflow": "fold"}),
            ("From", {"overflow": "fold", "style": "dim"}),
        )
        output.show(Text(""), table(*columns, rows=[_setting(row, store.origins) for row in found.settings]))
    lines = [(BAD, _told(what, advice)) for what, advice in found.problems]
    lines += [(WARN, _told(text)) for text in (found.absent, *found.warnings) if text]
    if found.health.get("healthy"):
        latency = f"  {float(found.health.get('latency_ms') or 0):.1f} ms"
        lines.insert(0, (GOOD, Text.assemble(safe(found.health["message"]), (latency, "dim"))))
    output.show(Text(""), marked(lines), Text(""), _verdict(found))


def _setting(row: Setting, origins: Mapping[str, str]) -> Sequence[Text]:
    default = row.source == "default"
    style = "dim" if default else ""
    origin = "default" if default else origins.get(row.source, "environment")
    if not default and row.source != row.variable:
        origin += f" ({row.source})"
    value = text_or_dash(row.value_shown)
    return Text(row.variable, style=style), value if not default else Text(value.plain, style="dim"), Text(safe(origin))


def _told(text: str, advice: str = "") -> Text:
    told = Text(safe(text))
    if advice:
        told.append(f"\n{safe(advice)}", style="dim")
    return told


def _verdict(found: Diagnosis) -> Text:
    if not found.healthy:
        return Text("not healthy", style="bold red")
    if found.warnings:
        return Text(f"healthy, with {count(len(found.warnings), 'warning')}", style="bold yellow")
    return Text("healthy", style="bold green")


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        provider: its name, `""` if not even that is known.
        distribution: name and version of the distribution that brings it.
        persistence: how durable it is, in a sentence.
        settings: all of them, secrets masked.
        problems: what is wrong, and what to do, which may be `""`.
        warnings: what deserves a word though the provider works.
        unknown: variables that nothing reads; the warnings tell of them, too.
        health: what the health check answered.
        absent: that there is no store yet, if so; it was not connected to then, and not made.
    """

    provider: str = ""
    distribution: str = ""
    persistence: str = ""
    settings: list[Setting] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: Sequence[UnknownVariable] = ()
    health: dict[str, Any] = field(default_factory=dict)
    absent: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; there may be warnings, and the store may still have to be made."""
        return not self.problems and bool(self.absent or self.health.get("healthy"))

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "healthy": self.healthy,
            "provider": self.provider,
            "distribution": self.distribution or None,
            "persistence": self.persistence or None,
            "settings": [asdict(row) for row in self.settings],
            "problems": [{"problem": what, "advice": advice or None} for what, advice in self.problems],
            "warnings": self.warnings,
            "unknown_variables": [asdict(one) for one in self.unknown],
            "health": self.health,
            "absent": self.absent or None,
        }


async def diagnose(store: Store) -> Diagnosis:
    """Find out how a store is: everything that can be told is, whatever fails before it."""
    found = Diagnosis(settings=describe(CoreSettings, store.environ))
    try:
        found.provider = store.name
        entry = find(store.name)
        found.distribution = f"{entry.distribution} {entry.version}"
        spec = store.spec()
    except MemoryConfigurationError as error:
        found.problems.append((str(error), _advice(error)))
        return found
    _look_at_settings(found, store, spec)
    if found.problems:
        return found
    if await _is_still_to_be_made(found, store):
        return found
    # Only behind the settings: a wrong one would be told as trouble with the connection.
    found.health = await test_memory_provider_connection(store.environ)
    found.warnings += found.health.get("warnings") or ()
    if not found.health["healthy"]:
        found.problems.append((str(found.health["error"]), _advice_by_cause(found.health)))
    elif store.name != "memory":
        found.warnings += await _without_owner(store)
    return found


async def _without_owner(store: Store) -> list[str]:
    """What is to be said of runs of JAF's engine that belong to nobody: no query or erasure by user finds them."""
    async with store.opened() as provider:
        if "find_conversations" in missing_methods(provider):
            return []
        try:
            newest = await provider.find_conversations(MemoryQuery(limit=LOOKED_AT, include_messages=False))
        except MemoryError as error:
            return [f"the newest conversations cannot be listed: {error}"]
    lost = sum(one.user_id is None and {"agent_name", "run_id"} <= one.metadata.keys() for one in newest)
    if not lost:
        return []
    told = (
        f"{lost} of the newest {count(len(newest), 'conversation')} are of JAF's engine and belong to nobody, so that "
        "forget-user does not find them: give jaf_provider(provider, user_id=...), or user_of= to JAF's server"
    )
    return [told]


async def _is_still_to_be_made(found: Diagnosis, store: Store) -> bool:
    """Whether there is no store, and the first write can make it. Connecting would do that here and now."""
    if store.name == "memory":
        return False
    try:
        async with store.unopened() as backend:
            reason = await backend.absent() if isinstance(backend, MayBeAbsent) else None
            files = backend.files() if isinstance(backend, HasFiles) else ()
    except MemoryError:  # connecting will say it better
        return False
    # Where it could not be made, connecting says what is wrong.
    if reason and files and _can_be_made(files[0]):
        found.absent = f"{reason}: the first write makes the store"
    return bool(found.absent)


def _can_be_made(file: Path) -> bool:
    # Of a link, the folder that it leads to.
    return os.access(Path(os.path.realpath(file)).parent, os.W_OK | os.X_OK)


def _advice_by_cause(health: Mapping[str, Any]) -> str:
    """What to do about a failed connection: a store that answered, and refused, is not down."""
    cause = health.get("error_type")
    if cause in ("MemoryConfigurationError", "MemoryInvalidInputError"):
        return "mend what is named, and run this again"
    if cause == "MemoryConnectionError" and health.get("retryable") is False:
        return "the store was reached, and refused: look at user, password, database and rights"
    if cause in ("MemoryStorageError", "MemoryConflictError"):
        return "the store was reached; what it names has to be mended there"
    return "look whether the store is up, and whether the settings above lead to it"


def _look_at_settings(found: Diagnosis, store: Store, spec: ProviderSpec) -> None:
    known = {row.variable for row in found.settings}
    found.settings += [row for row in describe(spec.config, store.environ) if row.variable not in known]
    names = {one.name for group in KINDS for one in installed(group)}
    found.unknown = unknown_variables(store.environ, spec.name, spec.config, names)
    for one in found.unknown:
        hint = f"; did you mean {one.suggestion}?" if one.suggestion else "; remove it, or mend its name"
        found.warnings.append(f"nothing reads the variable {one.name}{hint}")
    found.warnings += doctor_notes(spec.config, store.environ)
    try:
        found.persistence = spec.persistence_of(store.config())
    except MemoryConfigurationError as error:
        found.problems.append((str(error), "mend what is named, and run this again"))


def _advice(error: MemoryConfigurationError) -> str:
    """What to do, where the error does not say it already."""
    if error.install and error.install not in str(error):
        return error.install
    return "" if error.install else "set JAF_MEMORY_TYPE to one that `jaf-memory providers` shows as good"


async def look_again(output: Output, store: Store, seconds: float) -> None:
    """Look at the store every so many seconds, until somebody ends it.

    Raises:
        MemoryConfigurationError: looking again would not help.
    """
    said: list[str] = []
    async for moment, health in _looks(store, seconds):
        if output.as_json:
            output.document({"at": moment, **health})
        else:
            said = _show_look(output, moment, health, said)
        sys.stdout.flush()  # whoever reads it through a pipe waits for each line


def _show_look(output: Output, moment: datetime, health: Mapping[str, Any], said: list[str]) -> list[str]:
    """Show a look; a reason that stands is said once, and again when it has changed."""
    told = list(health.get("warnings") or ()) if health["healthy"] else [str(health.get("error"))]
    output.show(_look_line(moment, health))
    for text in told if told != said else ():
        output.show(Text.assemble("    ", WARN if health["healthy"] else BAD, " ", (safe(text), "dim")))
    return told


async def _looks(store: Store, seconds: float) -> AsyncIterator[tuple[datetime, Mapping[str, Any]]]:
    provider: ManagedMemoryProvider | None = None
    try:
        while True:
            started = time.perf_counter()
            try:
                provider = provider or await create_memory_provider_from_env(store.environ)
                health: Mapping[str, Any] = await provider.health_check()
            except MemoryConfigurationError:
                raise
            except MemoryError as error:  # it is not there yet
                health = {"healthy": False, "provider": store.name, "error": str(error)}
            yield datetime.now(UTC).astimezone(), health
            # From one look to the next, however long it took: a store that hangs is not looked at less often.
            await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - started)))
    finally:
        if provider is not None and callable(getattr(provider, "close", None)):
            await provider.close()


def _look_line(moment: datetime, health: Mapping[str, Any]) -> Text:
    line = Text.assemble((f"{moment:%H:%M:%S} ", "dim"), GOOD if health["healthy"] else BAD, " ")
    line.append("healthy" if health["healthy"] else "not healthy", style="" if health["healthy"] else "bold red")
    if "latency_ms" in health:
        line.append(f"  {float(health['latency_ms']):.1f} ms", style="dim")
    connections = (health.get("metrics") or {}).get("active_connections")
    if connections:
        line.append(f"  {count(int(connections), 'connection')}", style="dim")
    return line
