"""What `doctor` finds out: settings, plugins, connection; what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jaf_memory_cli.stores import Store
from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.factory import test_memory_provider_connection
from jaf_memory_core.hooks import ProviderSpec
from jaf_memory_core.registry import KINDS, find, installed
from jaf_memory_core.settings import CoreSettings
from jaf_memory_core.settings.environment import Setting, UnknownVariable, describe, doctor_notes, unknown_variables


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
    """

    provider: str = ""
    distribution: str = ""
    persistence: str = ""
    settings: list[Setting] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: Sequence[UnknownVariable] = ()
    health: dict[str, Any] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; there may be warnings."""
        return not self.problems and bool(self.health.get("healthy"))

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
    found.health = await test_memory_provider_connection(store.environ)
    found.warnings += found.health.get("warnings") or ()
    if not found.health["healthy"]:
        advice = "look whether the store is up, and whether the settings above lead to it"
        found.problems.append((str(found.health["error"]), advice))
    return found


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
