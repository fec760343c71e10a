"""What the engine is shown of a conversation, and what in a list that it hands back is new; its queries as ours."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, SupportsIndex

from jaf.memory import types as jaf

from jaf_memory_bridges.jaf.loads import MARKED, Loaded, Place, loaded_here, mark_of, marked
from jaf_memory_bridges.jaf.messages import bearable, is_halted, to_core, to_jaf, usable_id
from jaf_memory_core import ConversationMemory, MemoryConflictError, MemoryInvalidInputError, MemoryQuery, Message
from jaf_memory_core.session import views
from jaf_memory_core.session.room import Room
from jaf_memory_core.values import thaw

BOUNDARY = "previous_response_boundary_id"
"""Metadata key: the last message that the model's own server knows (the engine counts in lists that it cuts)."""

INDEX = "previous_response_message_index"

NAMESPACE = uuid.UUID("8d2f4b8e-5f0e-5a51-9c57-6f5b2f0c9f7a")


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
        cls,
        conversation: ConversationMemory,
        metadata: dict[str, Any],
        origin: str,
        threshold: int | None,
        unread: int = 0,
    ) -> History:
        """The history of a conversation; a view of it sets the engine's index in `metadata` right.

        Args:
            conversation: with all messages, or with those that its view can show.
            metadata: as the engine gets them.
            origin: the store that it is in.
            threshold: number of messages above which views leave out.
            unread: how many messages are not there, between the first and the newest.
        """
        loaded = Loaded(
            conversation.ttl,
            _waiting(conversation.messages),
            frozenset(message.message_id for message in conversation.messages),
            place=(origin, conversation.conversation_id),
            owner=conversation.user_id,
        )
        history = cls(marked(to_jaf(message), loaded) for message in conversation.messages)
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


def _waiting(messages: Iterable[Message]) -> dict[str, str]:
    """Call id → id of the message that notes that a human is asked, where no later call has that id."""
    waiting: dict[str, str] = {}
    for message in messages:
        for call in message.tool_calls or ():
            waiting.pop(call.id or "", None)
        if message.tool_call_id is not None and is_halted(message):
            waiting[message.tool_call_id] = message.message_id
    return waiting


def _brought(loaded: Any, shown: Message, *, same: bool) -> Any:
    if loaded is None:
        return to_jaf(shown)
    return loaded if same else marked(to_jaf(shown), getattr(loaded, MARKED).loaded)


def _bearable(message: Any) -> Any:
    shown = bearable(message)
    mark = getattr(message, MARKED, None)
    return shown if shown is message or mark is None else marked(shown, mark.loaded)


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


def news(messages: Iterable[Any], identify: Mapping[int, str], place: Place, *, in_place: bool = True) -> News:
    """Tell what is new in a list of the engine's.

    A message that came from this conversation, unchanged, is known, and is not written again, whether the store still
    holds it or not: what was removed meanwhile does not come back. One that came from another conversation is new.

    Args:
        messages: the engine's list.
        identify: place → id, for messages without a usable one.
        place: the conversation; what the run loaded of it tells which messages are known that lost their marks.
        in_place: whether a result takes the place of the note that a human is asked, or stands behind it.
    """
    given = list(messages)
    marks = [mark_of(message, place) for message in given]
    loaded = next((mark.loaded for mark in marks if mark is not None), loaded_here(place))
    marked = {str(one.message_id) for one, mark in zip(given, marks, strict=True) if mark is not None}
    held = marked if loaded is None else marked | loaded.ids
    known: dict[str, None] = {}
    revised: dict[str, Message] = {}
    rebuilt: dict[str, Message] = {}
    fresh: dict[str, Message] = {}
    waiting = {} if loaded is None or not in_place else dict(loaded.halted)
    for number, (message, mark) in enumerate(zip(given, marks, strict=True)):
        if mark is not None and not mark.is_edited(message):
            known[str(message.message_id)] = None
            continue
        after = to_core(message, identify.get(number))
        key = after.message_id
        asked = waiting.get(after.tool_call_id or "") if after.role == "tool" else None
        if key in held:
            known[key] = None
            if mark is not None or key not in marked:  # not what repeats a message that came back unchanged
                _put(rebuilt, after)
        # The marker of a view comes back with the list, and is never stored.
        elif views.is_made_up(after):
            continue
        elif asked is not None and not is_halted(message):
            revised[asked] = after
        else:
            _put(fresh, after)
            for call in after.tool_calls or ():  # some models give each turn's first call the same id
                waiting.pop(call.id or "", None)
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


def to_jaf_conversation(found: ConversationMemory, origin: str, threshold: int | None = None, unread: int = 0) -> Any:
    """A conversation as jaf-py's, the last so many of whose messages are a valid view.

    Args:
        found: one of ours.
        origin: the store that it is in.
        threshold: number of messages above which views leave out.
        unread: how many messages are not there, between the first and the newest.
    """
    metadata: dict[str, Any] = thaw(found.metadata) | _derived(found)
    conversation = jaf.ConversationMemory(found.conversation_id, found.user_id, [], metadata)
    # jaf-py would make a plain tuple of it.
    object.__setattr__(conversation, "messages", History.of(found, metadata, origin, threshold, unread))
    return conversation


def to_core_query(query: Any) -> MemoryQuery:
    """What a query says to us.

    Raises:
        MemoryInvalidInputError: it is no query, or says what cannot be asked here.
    """
    if isinstance(query, MemoryQuery):
        return query
    if not isinstance(query, jaf.MemoryQuery):
        raise MemoryInvalidInputError(f"a MemoryQuery is needed, not a {type(query).__name__}")
    names = {field.name for field in fields(jaf.MemoryQuery)}
    given = {name: value for name, value in vars(query).items() if value is not None}
    unknown = sorted(given.keys() - names)
    if unknown:
        raise MemoryInvalidInputError(
            f"the query's {', '.join(unknown)} would not be looked at; jaf_memory_core.MemoryQuery can also ask for "
            "metadata, active_since and active_until"
        )
    asked: dict[str, Any] = {name: str(value) if name.endswith("_id") else value for name, value in given.items()}
    return MemoryQuery(**asked)


def _derived(found: ConversationMemory) -> dict[str, Any]:
    """What jaf-py keeps in the metadata, in its form, which is local time without a zone."""
    active = getattr(found, "active_at", None) or found.updated_at
    moments = {"created_at": found.created_at, "updated_at": found.updated_at, "last_activity": active}
    times = {name: moment.astimezone().replace(tzinfo=None) for name, moment in moments.items() if moment is not None}
    count = found.message_count or len(found.messages)
    return {**times, "total_messages": count}
