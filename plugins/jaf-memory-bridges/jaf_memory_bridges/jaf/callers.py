"""Which of the engine's functions asks: it asks for different things by one method, and its calls have no word for it.

What its lists and their metadata say does not tell: the metadata of a regeneration or a checkpoint stay with the
conversation, and whoever loads it may hand them over again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any

from jaf.core import checkpoint, engine, regeneration


def _code(module: Any, name: str) -> CodeType | None:
    return getattr(getattr(module, name, None), "__code__", None)


LOADS = _code(engine, "_load_conversation_history")
"""The engine's function that loads for a model. Regeneration and checkpoints ask for a conversation by the same method,
and look for any of its messages: what they are given is always whole. So who asks has to be told apart; where a release
of jaf-py has no such function, everybody is given the whole conversation."""

RUNS: CodeType | None = _code(engine, "run")

REGENERATION = "regeneration"
CHECKPOINT = "checkpoint"

CUTS = {
    REGENERATION: _code(regeneration, "regenerate_conversation"),
    CHECKPOINT: _code(checkpoint, "checkpoint_conversation"),
}
"""The engine's functions whose lists mean that the rest of the conversation is to go."""


def cutting() -> frozenset[str]:
    """What of `CUTS` has called the caller of this, itself or through a wrapper of the application's.

    A function that this release of jaf-py does not have counts as asking: then the metadata decide alone.
    """
    asked = {name for name, code in CUTS.items() if code is None}
    frame: FrameType | None = sys._getframe(1)
    # A run that a regeneration has begun is a run like any other, and so is what its callbacks and its model store.
    while frame is not None and frame.f_code is not RUNS:
        name = next((name for name, code in CUTS.items() if frame.f_code is code), None)
        if name is not None:
            return frozenset(asked | {name})
        frame = frame.f_back
    return frozenset(asked)


_REGENERATED: ContextVar[tuple[str, str] | None] = ContextVar("jaf_memory_regenerated", default=None)
"""The conversation in which this task has just answered a message anew, and that message; the engine notes it next."""


def remember_regeneration(conversation_id: str, message_id: str) -> None:
    """Remember that this task has answered a message anew: its next list repeats what the run has stored."""
    _REGENERATED.set((conversation_id, message_id))


def forget_regeneration() -> None:
    """Forget it: a run has begun, whose list is its own."""
    _REGENERATED.set(None)


def notes_regeneration(conversation_id: str, metadata: Mapping[str, Any]) -> bool:
    """Whether this is the engine's note behind a regeneration, whose run has stored its messages already.

    The note repeats them as they were before `before_memory_store`: what that redacted must not come back. Its metadata
    alone do not tell: they stay with the conversation, and every later run hands them over again.
    """
    if not metadata.get("regeneration_preserved"):
        return False
    marked, point = _REGENERATED.get(), metadata.get("regeneration_point")
    forget_regeneration()
    return marked == (conversation_id, str(point))
