"""OpenTelemetry for jaf-memory: the plugin `otel`.

JAF_MEMORY_PLUGINS=otel      # for every provider that is made from the environment
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaf_memory_core.hooks import hookimpl
from jaf_memory_core.observation import Observer
from jaf_memory_core.settings import load
from jaf_memory_otel.settings import OtelSettings
from jaf_memory_otel.telemetry import Telemetry

__all__ = ["OtelSettings", "Telemetry"]


@hookimpl
def jaf_memory_observers(environ: Mapping[str, str]) -> Sequence[Observer]:
    """What `JAF_MEMORY_PLUGINS=otel` brings: spans and metrics through the application's own OpenTelemetry."""
    return [Telemetry(conversation_ids=load(OtelSettings, environ).conversation_ids)]
