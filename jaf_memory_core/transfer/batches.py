"""Conversations in groups that travel together: large enough to be quick, small enough for bounded memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory

MOST = 1_024
"""Conversations in one batch."""

BYTES = 8 << 20
"""Bytes of messages, about, in one batch, unless one conversation has more."""

FRAME = 100
"""Bytes that a message is larger than its text, about."""


class Batch:
    """Conversations that are collected."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.conversations: list[ConversationMemory] = []
        self._room = BYTES

    def add(self, conversation: ConversationMemory) -> bool:
        """Take one more; whether that is enough."""
        self.conversations.append(conversation)
        self._room -= _weight(conversation)
        return self._room <= 0 or len(self.conversations) >= self._most


def _weight(conversation: ConversationMemory) -> int:
    weight = 0
    for message in conversation.messages:
        text = message.content
        if type(text) is str and not (message.further or message.tool_calls or message.attachments):
            weight += FRAME + len(text)
        else:
            weight += len(codec.encode(message))
    return weight


async def in_batches(
    conversations: AsyncIterator[ConversationMemory], most: int
) -> AsyncGenerator[list[ConversationMemory], None]:
    """Collect conversations; an error of their source is raised once those before it were passed on."""
    batch = Batch(most)
    problem: Exception | None = None
    try:
        async for conversation in conversations:
            if batch.add(conversation):
                yield batch.conversations
                batch = Batch(most)
    except Exception as error:  # noqa: BLE001  (it is raised as it is, a little later)
        problem = error
    if batch.conversations:
        yield batch.conversations
    if problem is not None:
        raise problem


async def one_by_one(conversations: Iterable[ConversationMemory]) -> AsyncGenerator[ConversationMemory, None]:
    """A source that never waits, as one that may."""
    for conversation in conversations:
        yield conversation
