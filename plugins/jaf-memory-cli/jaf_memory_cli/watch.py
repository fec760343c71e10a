"""`doctor --watch`: how the store is, again and again, a line for each look."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from jaf_memory_cli.output import BAD, GOOD, WARN, Output, count
from jaf_memory_cli.stores import Store
from jaf_memory_cli.terminal import safe
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError
from jaf_memory_core.factory import create_memory_provider_from_env
from jaf_memory_core.protocol import ManagedMemoryProvider


async def watch(output: Output, store: Store, seconds: float) -> None:
    """Look at the store every so many seconds, until somebody ends it.

    Raises:
        MemoryConfigurationError: looking again would not help.
    """
    said: list[str] = []
    async for moment, health in _looks(store, seconds):
        if output.as_json:
            output.document({"at": moment, **health})
        else:
            said = _show(output, moment, health, said)
        sys.stdout.flush()  # whoever reads it through a pipe waits for each line


def _show(output: Output, moment: datetime, health: Mapping[str, Any], said: list[str]) -> list[str]:
    """Show a look; a reason that stands is said once, and again when it has changed."""
    told = list(health.get("warnings") or ()) if health["healthy"] else [str(health.get("error"))]
    output.show(_line(moment, health))
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


def _line(moment: datetime, health: Mapping[str, Any]) -> Text:
    line = Text.assemble((f"{moment:%H:%M:%S} ", "dim"), GOOD if health["healthy"] else BAD, " ")
    line.append("healthy" if health["healthy"] else "not healthy", style="" if health["healthy"] else "bold red")
    if "latency_ms" in health:
        line.append(f"  {float(health['latency_ms']):.1f} ms", style="dim")
    connections = (health.get("metrics") or {}).get("active_connections")
    if connections:
        line.append(f"  {count(int(connections), 'connection')}", style="dim")
    return line
