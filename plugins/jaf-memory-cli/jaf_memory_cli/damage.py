"""Damaged conversations: `--keep-going` passes over them, and they are told in the end."""

from __future__ import annotations

from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.transfer.reports import Problems

DAMAGED = "damaged, left out"
"""The title under which they are told."""


def noting(damaged: Problems, *, keep_going: bool) -> OnDamaged:
    """What a listing does with a damaged conversation: it ends, or notes each once, however often it is met."""

    def note(error: MemoryStorageError) -> None:
        damaged.add(error.conversation_id or f"one without a readable id ({damaged.count + 1})", str(error))

    return note if keep_going else "raise"
