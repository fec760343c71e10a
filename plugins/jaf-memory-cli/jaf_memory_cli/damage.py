"""Damaged conversations: `--keep-going` passes over them, and they are told in the end."""

from __future__ import annotations

from jaf_memory_cli.errors import FAILED, OK
from jaf_memory_cli.output import Output
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


def told(damaged: Problems) -> int:
    """Tell of what is damaged, beside JSON, too, each line of which is a conversation; the command's exit status."""
    Output(as_json=False).problems(damaged, DAMAGED)
    return FAILED if damaged else OK
