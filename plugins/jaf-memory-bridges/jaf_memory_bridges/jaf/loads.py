"""What a task has loaded of conversations, and by what a message of the engine's tells that it came from the store."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jaf_memory_bridges.jaf.messages import to_core
from jaf_memory_core import Message

MARKED = "_jaf_memory_loaded"
"""Attribute by which a message of the engine's tells that it came from the store."""

Place = tuple[str, str]
"""A store, as `origin_of` names it, and a conversation of it: to any other one its messages are new."""

_ORIGINS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def origin_of(provider: Any) -> str:
    """A name of a provider's own; all bridges over it share it."""
    name = uuid.uuid4().hex
    try:
        return _ORIGINS.setdefault(provider, name)
    except TypeError:  # one that cannot be a key
        return name


@dataclass(frozen=True)
class Loaded:
    """What one load of a conversation found.

    Attributes:
        ttl: the conversation's, in seconds.
        halted: call id → id of the message that notes that a human is asked.
        ids: of all messages that were stored.
        shown: message id → the message as a view has brought it into form, where that is not as it is stored.
        place: where it was loaded from.
        owner: whose the conversation is.
    """

    ttl: float | None = None
    halted: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    shown: dict[str, Message] = field(default_factory=dict)
    place: Place = ("", "")
    owner: str | None = None

    def __deepcopy__(self, _memo: object) -> Loaded:
        return self  # a callback that copies its messages does not copy this for each


_LOADS: ContextVar[Mapping[Place, weakref.ref[Loaded]]] = ContextVar("jaf_memory_loads", default=MappingProxyType({}))
"""What this task has loaded, by its place: a callback may rebuild each message that told so."""


def loaded_here(place: Place) -> Loaded | None:
    """What the run of this task loaded of a conversation, if it is still about."""
    found = _LOADS.get().get(place)
    return None if found is None else found()


def note_load(place: Place, loaded: Loaded | None) -> None:
    """Remember what this task has loaded, or, with `None`, that it has deleted the conversation."""
    # Another mapping each time: tasks that this one has started share the old one.
    loads = {key: load for key, load in _LOADS.get().items() if key != place and load() is not None}
    _LOADS.set(loads if loaded is None else {**loads, place: weakref.ref(loaded)})


def forget_loads(origin: str, owner: str) -> None:
    """Remember that this task has deleted all conversations of a user."""
    found = {key: load() for key, load in _LOADS.get().items()}
    gone = {key for key, load in found.items() if load is None or (key[0], load.owner) == (origin, owner)}
    _LOADS.set({key: load for key, load in _LOADS.get().items() if key not in gone})


@dataclass(frozen=True)
class Mark:
    """What a loaded message carries.

    Attributes:
        loaded: the load that it is of.
        calls: its calls, each of them frozen.
        copy: what it was when it was loaded, if it has parts or attachments, in which a callback can write.
    """

    loaded: Loaded
    calls: tuple[Any, ...]
    copy: Message | None

    def is_edited(self, message: Any) -> bool:
        """Whether somebody has written into the message's lists since it was loaded."""
        calls = tuple(message.tool_calls or ())
        # By identity: a call is frozen, so that one which was changed is another object.
        same = len(calls) == len(self.calls) and all(map(lambda one, other: one is other, calls, self.calls))
        return not same or (self.copy is not None and to_core(message) != self.copy)


def marked(message: Any, loaded: Loaded) -> Any:
    """The message of the engine's, with a mark of the load that it is of."""
    open_to_writing = isinstance(message.content, list) or message.attachments
    mark = Mark(loaded, tuple(message.tool_calls or ()), to_core(message) if open_to_writing else None)
    object.__setattr__(message, MARKED, mark)  # the engine's messages are frozen, and no field of theirs is changed
    return message


def mark_of(message: Any, place: Place) -> Mark | None:
    """The mark of a message that came from this conversation."""
    mark: Mark | None = getattr(message, MARKED, None)
    return mark if mark is not None and mark.loaded.place == place else None
