"""What the engine is shown of a conversation, and what in a list that it hands back is new."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, SupportsIndex

from jaf.core.types import MessageContentPart

from jaf_memory_bridges.jaf.messages import is_halted, to_core, to_jaf, usable_id
from jaf_memory_core import ConversationMemory, Message
from jaf_memory_core.session import views

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
    """

    ttl: float | None = None
    halted: Mapping[str, str] = field(default_factory=dict)


class History(tuple[Any, ...]):  # noqa: SLOT001  (it knows where it belongs)
    """All messages of a conversation, as the engine's own.

    The engine takes the last so many, `messages[-limit:]`, for a model. Such a slice is a valid view, and no more than
    so many; everything else is as with any tuple.
    """

    _messages: tuple[Message, ...]
    _threshold: int | None
    _metadata: dict[str, Any]

    @classmethod
    def of(cls, conversation: ConversationMemory, metadata: dict[str, Any], threshold: int | None) -> History:
        """The history of a conversation; a view of it sets the engine's index in `metadata` right."""
        pending = {one.tool_call_id: one.message_id for one in conversation.messages if is_halted(one)}
        loaded = Loaded(conversation.ttl, {call: key for call, key in pending.items() if call is not None})
        history = cls(_marked(to_jaf(message), loaded) for message in conversation.messages)
        history._messages = conversation.messages
        history._threshold = threshold
        history._metadata = metadata
        return history

    def __getitem__(self, wanted: SupportsIndex | slice) -> Any:
        last = isinstance(wanted, slice) and wanted.stop is wanted.step is None and isinstance(wanted.start, int)
        if isinstance(wanted, slice) and last and wanted.start < 0:
            return self._view(-wanted.start)
        return super().__getitem__(wanted)

    def _view(self, limit: int) -> tuple[Any, ...]:
        # The engine leaves out what notes that a human is asked; to us its call waits.
        blocks = views.blocks_of(message for message in self._messages if not is_halted(message))
        most = limit if limit < len(self) else math.inf
        if self._threshold is not None and len(self) > self._threshold:
            shown = views.shown(views.first_and_newest(blocks, views.Room(min(most, self._threshold))))
        else:
            shown = views.shown(views.limited(blocks, views.Room(most)))
        by_id = {message.message_id: message for message in self}
        boundary = self._metadata.get(BOUNDARY)
        if boundary is not None and self._metadata.get(INDEX) is not None:
            ids = [message.message_id for message in shown]
            self._metadata[INDEX] = ids.index(boundary) + 1 if boundary in ids else 0
        return tuple(_bearable(by_id.get(one.message_id) or to_jaf(one)) for one in shown)


def _marked(message: Any, loaded: Loaded) -> Any:
    object.__setattr__(message, MARKED, loaded)  # the engine's messages are frozen, and no field of theirs is changed
    return message


def _bearable(message: Any) -> Any:
    """The message, unless the engine would stumble over it: it takes each tool's result that is JSON for an object."""
    if getattr(message.role, "value", message.role) != "tool" or not isinstance(message.content, str):
        return message
    try:
        if isinstance(json.loads(message.content), dict):
            return message
    except ValueError:
        return message
    part = MessageContentPart(type="text", text=message.content)
    return _marked(replace(message, content=[part]), getattr(message, MARKED, Loaded()))


@dataclass(frozen=True)
class News:
    """What is new in a list of the engine's.

    Attributes:
        loaded: what the load found that the list goes back to; `None` if none of it came from the store.
        known: ids of the messages that came from the store, in the list's order.
        revised: id of a held message → what has become of it.
        fresh: all others, in order.
    """

    loaded: Loaded | None
    known: tuple[str, ...]
    revised: Mapping[str, Message]
    fresh: tuple[Message, ...]


def news(messages: Iterable[Any], identify: Mapping[int, str]) -> News:
    """Tell what is new in a list of the engine's.

    A message that came from the store, unchanged, is known, and is not written again, whether the store still holds it
    or not: what was removed meanwhile does not come back.

    Args:
        messages: the engine's list.
        identify: place → id, for messages without a usable one.
    """
    given = list(messages)
    marks = [getattr(message, MARKED, None) for message in given]
    loaded = next((mark for mark in marks if mark is not None), None)
    known = dict.fromkeys(str(one.message_id) for one, mark in zip(given, marks, strict=True) if mark is not None)
    halted = {} if loaded is None else loaded.halted
    revised: dict[str, Message] = {}
    fresh: dict[str, Message] = {}
    for place, (message, mark) in enumerate(zip(given, marks, strict=True)):
        if mark is not None:
            continue
        after = to_core(message, identify.get(place))
        if after.message_id in known or views.is_made_up(after):
            continue
        waiting = halted.get(after.tool_call_id or "") if after.role == "tool" else None
        if waiting is not None and not is_halted(message):
            revised[waiting] = after
        else:
            fresh[after.message_id] = after
    return News(loaded, tuple(known), revised, tuple(fresh.values()))


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
    overlap = next(
        (
            size
            for size in range(min(len(kept), len(texts)), 0, -1)
            if [text for text, _ in kept[-size:]] == texts[:size]
        ),
        0,
    )
    ids = [key for _, key in kept[len(kept) - overlap :]]
    for number, text in enumerate(texts[overlap:], start=len(stored)):
        ids.append(uuid.uuid5(NAMESPACE, f"{len(conversation_id)}:{conversation_id}:{number}:{text}").hex)
    return dict(zip(places, ids, strict=True))


def _digest(message: Any) -> str:
    fields = to_core(message, "x").dict()
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
