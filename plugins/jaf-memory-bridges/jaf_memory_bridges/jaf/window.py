"""What the engine's load reads of a long conversation: the end that a view can show, and not the whole history."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgspec.structs import replace

from jaf_memory_bridges.jaf.messages import is_halted
from jaf_memory_core import ConversationMemory, ManagedMemoryProvider, Message
from jaf_memory_core.session import history, views
from jaf_memory_core.session.plain import is_plain, plain_view
from jaf_memory_core.session.room import Room
from jaf_memory_core.session.storage import brings_leading


@dataclass(frozen=True)
class Window:
    """What a model may be shown of a conversation.

    Attributes:
        most: messages of a view, `None` for any number.
        threshold: number of messages above which a view leaves out.
    """

    most: int | None = None
    threshold: int | None = None

    @property
    def room(self) -> Room:
        """How much a view may hold."""
        return Room(min(self.most or math.inf, self.threshold or math.inf))

    @property
    def leading(self) -> int:
        """How many of the first messages are of interest."""
        return history.LEADING + (int(self.room.messages) // 5 if self.threshold else 0)


@dataclass(frozen=True)
class Part:
    """A conversation of which only a part was read.

    Attributes:
        conversation: its messages are the first ones of interest and the newest.
        unread: how many stand between them.
    """

    conversation: ConversationMemory
    unread: int = 0


async def newest(provider: ManagedMemoryProvider, conversation_id: str, window: Window) -> Part | None:
    """As much of a conversation as a view within the window can show; `None` if there is none."""
    room = window.room
    if room.unlimited or not brings_leading(provider):
        return _whole(await provider.get_conversation(conversation_id))
    size = int(room.messages) + 1
    found = await provider.get_condensed_conversation(conversation_id, size, leading=window.leading)
    if found is None:
        return None
    if found.summary is not None:  # a session's; the engine knows none
        return _whole(await provider.get_conversation(conversation_id))
    messages, before = found.conversation.messages, found.before
    first = _of_interest(found.leading, window)
    while before is not None and not _is_full(first, messages, room):
        size = min(2 * size, history.LARGEST_PAGE)
        page = await provider.get_messages(conversation_id, before=before, limit=size)
        messages, before = (*page, *messages), page.before if page else None
    read = {message.message_id for message in messages}
    kept = tuple(one for one in first if before is not None and one.message_id not in read)
    unread = (found.conversation.message_count or 0) - len(messages) - len(kept)
    return Part(replace(found.conversation, messages=(*kept, *messages)), max(0, unread) if before is not None else 0)


def _whole(conversation: ConversationMemory | None) -> Part | None:
    return None if conversation is None else Part(conversation)


def _of_interest(leading: tuple[Message, ...], window: Window) -> tuple[Message, ...]:
    if window.threshold:
        return history.ended(leading)
    return tuple(one for one in leading if one.role in views.STAYING)


def _is_full(first: tuple[Message, ...], messages: tuple[Message, ...], room: Room) -> bool:
    # The engine leaves out what notes that a human is asked.
    shown = [one for one in messages if not is_halted(one)]
    if len(shown) > room.messages and is_plain(shown) and plain_view(first, shown, room) is not None:
        return True
    return history.is_full(views.blocks_of([*first, *shown]), room)
