"""What a run of jaf-py's engine is given: its `RunState`, for which less has to be said, and its `MemoryConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaf.core import types as jaf
from jaf.memory import types as memory

from jaf_memory_bridges.jaf.provider import JafProvider, jaf_provider
from jaf_memory_bridges.jaf.window import Window
from jaf_memory_core import MemoryInvalidInputError
from jaf_memory_core.conversations import LONGEST_TTL


class OwnedContext(dict[str, Any]):
    """A context that is a `dict`, and that shows its `user_id` as the attribute which the engine looks for."""

    __slots__ = ()  # the engine takes what has a `__dict__` for a dataclass

    @property
    def user_id(self) -> str | None:
        """The owner that the context names."""
        return self.get("user_id")


@dataclass(frozen=True, kw_only=True)
class RunState(jaf.RunState):
    """jaf-py's `RunState`, as JAF's documentation uses it: ids are made, and a `dict` as context names the owner.

    Attributes:
        messages: the messages that the run adds to the conversation.
        current_agent_name: which agent begins.
        context: anything; a `dict` with a `user_id` becomes an `OwnedContext`, so that the conversation has an owner.
        run_id, trace_id: made when absent.
        turn_count: how many turns there were; the engine counts those that it loads.
    """

    run_id: Any = field(default_factory=jaf.generate_run_id)
    trace_id: Any = field(default_factory=jaf.generate_trace_id)
    messages: list[Any] = field(default_factory=list)
    current_agent_name: str = ""
    context: Any = None
    turn_count: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.context, dict) and "user_id" in self.context and not hasattr(self.context, "user_id"):
            object.__setattr__(self, "context", OwnedContext(self.context))


@dataclass(frozen=True)
class MemoryConfig(memory.MemoryConfig):
    """jaf-py's `MemoryConfig`, with meaning for all its fields.

    Attributes:
        provider: a `JafProvider`, or any provider of ours, which is then bridged (with no owner).
        auto_store: whether a run stores what it adds.
        max_messages: how many messages a run loads at most, as a valid view; the store keeps them all.
        ttl: seconds from its last write until a conversation expires.
        compression_threshold: number of messages above which a run loads the first fifth and the newest only, with a
            marker between; the store keeps them all.
        store_on_completion: whether a completed run is stored.
    """

    def __post_init__(self) -> None:
        threshold = _limit("compression_threshold", self.compression_threshold)
        object.__setattr__(self, "compression_threshold", None if threshold is None else Threshold(threshold))
        _limit("max_messages", self.max_messages)
        if self.ttl is not None and (isinstance(self.ttl, bool) or not isinstance(self.ttl, int | float)):
            raise MemoryInvalidInputError(f"ttl is a number of seconds, or None for no expiry, not {_said(self.ttl)}")
        if self.ttl is not None and not 0 < self.ttl <= LONGEST_TTL:
            raise MemoryInvalidInputError(
                f"ttl is more than 0 and at most {LONGEST_TTL} seconds, or None for no expiry, not {self.ttl!r}"
            )
        bridge = self.provider if isinstance(self.provider, JafProvider) else jaf_provider(self.provider)
        window = Window(self.max_messages or None, int(threshold) if threshold else None)
        object.__setattr__(self, "provider", bridge.configured(self.ttl, window))


class Threshold(int):
    """A number of messages by which the bridge shapes what a run loads, and which the engine takes for none.

    jaf-py's engine also cuts what it stores by `compression_threshold`, if it is not false, before any provider sees
    it. So this number is false, and a number in every other respect.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str) and len(str(value)) < 40 else f"a {type(value).__name__}"


def _limit(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MemoryInvalidInputError(f"{name} is a number of messages, or None for no limit, not {_said(value)}")
    return int(value)
