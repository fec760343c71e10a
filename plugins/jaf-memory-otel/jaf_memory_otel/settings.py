"""Settings of the plugin `otel`."""

from __future__ import annotations

from typing import ClassVar

from jaf_memory_core.settings import Settings


class OtelSettings(Settings):
    """What OpenTelemetry's own variables (`OTEL_…`) do not say."""

    env_prefix: ClassVar[str] = "JAF_OTEL_"

    conversation_ids: bool = False
    """Whether spans bear the conversation's id. No metric ever does."""
