"""Redaction for jaf-memory: the plugin `redaction`.

JAF_MEMORY_PLUGINS=redaction JAF_REDACTION_SECRET=…      # before `encryption`, where both are named
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.hooks import hookimpl
from jaf_memory_core.processors import Processor
from jaf_memory_core.settings import load
from jaf_memory_redaction.kinds import KINDS, Kind
from jaf_memory_redaction.redaction import Redaction
from jaf_memory_redaction.settings import RedactionSettings, from_settings

__all__ = ["KINDS", "Kind", "Redaction", "RedactionSettings"]


@hookimpl
def jaf_memory_processors(environ: Mapping[str, str]) -> Sequence[Processor]:
    """What `JAF_MEMORY_PLUGINS=redaction` brings: nothing of what it knows reaches a store."""
    named = [name.strip() for name in environ.get("JAF_MEMORY_PLUGINS", "").split(",")]
    if "encryption" in named[: named.index("redaction") if "redaction" in named else 0]:
        raise MemoryConfigurationError(
            "JAF_MEMORY_PLUGINS names encryption before redaction, which would find nothing in what is sealed: "
            "write redaction,encryption"
        )
    return [from_settings(load(RedactionSettings, environ))]
