"""What the engine is shown of a conversation, and what in a list that it hands back is new."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, SupportsIndex

from jaf_memory_bridges.jaf.messages import bearable, is_halted, to_core, to_jaf, usable_id
from jaf_memory_core import ConversationMemory, MemoryConflictError, Message
from jaf_memory_core.session import views
from jaf_memory_core.session.room import Room

MARKED = "_jaf_memory_loaded"
"""Attribute by which a message of the engine's tells that it came from the store."""

BOUNDARY = "previous_response_boundary_id"
"""Metadata key: the last message that the model's own server knows (the engine counts in lists that it cuts)."""

INDEX = "previous_response_message_index"

NAMESPACE = uuid.UUID("8d2f4b8e-5f0e-5a51-9c57-6f5b2f0c9f7a")


@dataclass(frozen=True)
class Loaded:
    """What one load of a conversation found.

    Attributes:
        ttl: the conversation's, in seconds.
        halted: call id → id of the message that notes that a human is asked.
        ids: of all messages that were stored.
        shown: message id → the message as a view has brought it into form, where that is not as it is stored.
    """

    ttl: float | None = None
    halted: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    shown: dict[str, Message] = field(default_factory=dict)

    def __deepcopy__(self, _memo: object) -> Loaded:
        return self  # a callback that copies its messages does not copy this for each


_LOADS: ContextVar[Mapping[str, weakref.ref[Loaded]]] = ContextVar("jaf_memory_loads", default=MappingProxyType({}))
"""What this task has loaded, by conversation: a callback may rebuild each message that told so."""


def loaded_here(conversation_id: str) -> Loaded | None:
    """What the run of this task loaded of a conversation, if it is still about."""
    found = _LOADS.get().get(conversation_id)
    return None if found is None else found()


def note_load(conversation_id: str, loaded: Loaded | None) -> None:
    """Remember what this task has loaded, or, with `None`, that it has deleted the conversation."""
    # Another mapping each time: tasks that this one has started share the old one.
    loads = {key: load for key, load in _LOADS.get().items() if key != conversation_id and load() is not None}
    _LOADS.set(loads if loaded is None else {**loads, conversation_id: weakref.ref(loaded)})


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


class History(tuple[Any, ...]):  # noqa: SLOT001  (it knows where it belongs)
    """All messages of a conversation, as the engine's own.

    The engine takes the last so many, `messages[-limit:]`, for a model. Such a slice is a valid view, and no more than
    so many; everything else is as with any tuple.
    """

    loaded: Loaded
    _messages: tuple[Message, ...]
    _threshold: int | None
    _metadata: dict[str, Any]
    _unread: int

    @classmethod
    def of(
        cls, conversation: ConversationMemory, metadata: dict[str, Any], threshold: int | None, unread: int = 0
    ) -> History:
        """The history of a conversation; a view of it sets the engine's index in `metadata` right.

        Args:
            conversation: with all messages, or with those that its view can show.
            metadata: as the engine gets them.
            threshold: number of messages above which views leave out.
            unread: how many messages are not there, between the first and the newest.
        """
        pending = {one.tool_call_id: one.message_id for one in conversation.messages if is_halted(one)}
        ids = frozenset(message.message_id for message in conversation.messages)
        loaded = Loaded(conversation.ttl, {call: key for call, key in pending.items() if call is not None}, ids)
        history = cls(_marked(to_jaf(message), loaded) for message in conversation.messages)
        history._messages = conversation.messages
        history.loaded = loaded
        history._threshold = threshold
        history._metadata = metadata
        history._unread = unread
        return history

    def __getitem__(self, wanted: SupportsIndex | slice) -> Any:
        last = isinstance(wanted, slice) and wanted.stop is wanted.step is None and isinstance(wanted.start, int)
        if isinstance(wanted, slice) and last and wanted.start < 0:
            return self._view(-wanted.start)
        return super().__getitem__(wanted)

    def _view(self, limit: int) -> tuple[Any, ...]:
        # The engine leaves out what notes that a human is asked; to us its call waits.
        blocks = views.blocks_of(message for message in self._messages if not is_halted(message))
        # Without a limit the engine asks for as many as there are: for all, and what a view adds to them counts not.
        most = math.inf if limit == len(self) else limit
        if self._threshold is not None and len(self) + self._unread > self._threshold:
            shown = views.shown(views.first_and_newest(blocks, Room(min(most, self._threshold)), self._unread))
        else:
            shown = views.shown(views.limited(blocks, Room(most)))
        by_id = {message.message_id: message for message in self}
        boundary = self._metadata.get(BOUNDARY)
        if boundary is not None and self._metadata.get(INDEX) is not None:
            ids = [message.message_id for message in shown]
            self._metadata[INDEX] = ids.index(boundary) + 1 if boundary in ids else 0
        as_stored = {id(message) for message in self._messages}
        self.loaded.shown.update((one.message_id, one) for one in shown if id(one) not in as_stored)
        return tuple(
            # What a view brought into form, or shortened, is still the message that was loaded.
            _bearable(_brought(by_id.get(one.message_id), one, same=id(one) in as_stored))
            for one in shown
        )


def _marked(message: Any, loaded: Loaded) -> Any:
    open_to_writing = isinstance(message.content, list) or message.attachments
    mark = Mark(loaded, tuple(message.tool_calls or ()), to_core(message) if open_to_writing else None)
    object.__setattr__(message, MARKED, mark)  # the engine's messages are frozen, and no field of theirs is changed
    return message


def _brought(loaded: Any, shown: Message, *, same: bool) -> Any:
    if loaded is None:
        return to_jaf(shown)
    return loaded if same else _marked(to_jaf(shown), getattr(loaded, MARKED).loaded)


def _bearable(message: Any) -> Any:
    shown = bearable(message)
    mark = getattr(message, MARKED, None)
    return shown if shown is message or mark is None else _marked(shown, mark.loaded)


@dataclass(frozen=True)
class News:
    """What is new in a list of the engine's.

    Attributes:
        loaded: what the load found that the list goes back to; `None` if none of it came from the store.
        known: ids of the messages that came from the store, in the list's order.
        revised: id of a note that a human is asked → the result that takes its place.
        rebuilt: id of a held message → the object that a callback made of it; it need not differ.
        fresh: all others, in order.
    """

    loaded: Loaded | None = None
    known: tuple[str, ...] = ()
    revised: Mapping[str, Message] = field(default_factory=dict)
    rebuilt: Mapping[str, Message] = field(default_factory=dict)
    fresh: tuple[Message, ...] = ()


def news(
    messages: Iterable[Any], identify: Mapping[int, str], here: Loaded | None = None, *, in_place: bool = True
) -> News:
    """Tell what is new in a list of the engine's.

    A message that came from the store, unchanged, is known, and is not written again, whether the store still holds it
    or not: what was removed meanwhile does not come back.

    Args:
        messages: the engine's list.
        identify: place → id, for messages without a usable one.
        here: what the run loaded, by which messages are known that lost their marks.
        in_place: whether a result takes the place of the note that a human is asked, or stands behind it.
    """
    given = list(messages)
    marks = [getattr(message, MARKED, None) for message in given]
    loaded = next((mark.loaded for mark in marks if mark is not None), here)
    marked = {str(one.message_id) for one, mark in zip(given, marks, strict=True) if mark is not None}
    held = marked if loaded is None else marked | loaded.ids
    known: dict[str, None] = {}
    revised: dict[str, Message] = {}
    rebuilt: dict[str, Message] = {}
    fresh: dict[str, Message] = {}
    for place, (message, mark) in enumerate(zip(given, marks, strict=True)):
        if mark is not None and not mark.is_edited(message):
            known[str(message.message_id)] = None
            continue
        after = to_core(message, identify.get(place))
        key = after.message_id
        waiting = loaded.halted.get(after.tool_call_id or "") if loaded is not None and after.role == "tool" else None
        if key in held:
            known[key] = None
            if mark is not None or key not in marked:  # not what repeats a message that came back unchanged
                _put(rebuilt, after)
        # The marker of a view comes back with the list, and is never stored.
        elif views.is_made_up(after):
            continue
        elif in_place and waiting is not None and not is_halted(message):
            revised[waiting] = after
        else:
            _put(fresh, after)
    return News(loaded, tuple(known), revised, rebuilt, tuple(fresh.values()))


def _put(found: dict[str, Message], message: Message) -> None:
    """Keep a message under its id; a callback that gives two of them one id would have one of them lost.

    Raises:
        MemoryConflictError: another message has it.
    """
    if found.setdefault(message.message_id, message) != message:
        raise MemoryConflictError(
            f"two messages of the list have the id {message.message_id!r}, and different content; a callback must give "
            "each message an id of its own"
        )


def nameless(messages: Sequence[Any]) -> list[int]:
    """Places of messages without a usable id."""
    return [place for place, message in enumerate(messages) if usable_id(message) is None]


def identified(messages: Sequence[Any], conversation_id: str, stored: Sequence[Message]) -> dict[int, str]:
    """Ids for messages that have none, the same each time: of the end of the store that the list begins with, or new.

    The list is laid over the end of what is stored so that as many messages as possible meet; what reaches beyond is
    new, also where it says the same again. New ids come from conversation, place and content.
    """
    places = nameless(messages)
    if not places:
        return {}
    texts = [_digest(messages[place]) for place in places]
    kept = [(_digest(to_jaf(one)), one.message_id) for one in stored if not is_halted(one)]
    # The longest first: two equal answers are two messages (docs/decisions/0009).
    overlap = next(
        (
            size
            for size in range(min(len(kept), len(texts)), 0, -1)
            if [text for text, _ in kept[-size:]] == texts[:size]
        ),
        0,
    )
    ids = [key for _, key in kept[len(kept) - overlap :]]
    # From place and content: the same list, handed over again, adds nothing.
    for number, text in enumerate(texts[overlap:], start=len(stored)):
        ids.append(uuid.uuid5(NAMESPACE, f"{len(conversation_id)}:{conversation_id}:{number}:{text}").hex)
    return dict(zip(places, ids, strict=True))


def _digest(message: Any) -> str:
    fields = to_core(message, "x").dict()
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
