"""Pydantic AI's conversations, in the one store that it brings: in memory."""

from __future__ import annotations

from typing import Any

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationStore, InMemoryConversationStore
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

from benchmarks.competitors import Competitor
from benchmarks.payload import text


def messages(count: int) -> list[Any]:
    """So many messages, the user's and the model's by turns."""
    turn = (
        lambda: ModelRequest([UserPromptPart(text())]),
        lambda: ModelResponse([TextPart(text("assistant"))]),
    )
    return [turn[number % 2]() for number in range(count)]


class InMemory(Competitor):
    """`InMemoryConversationStore`, which keeps and hands out copies of an application's own objects."""

    store: ConversationStore

    async def open(self) -> None:
        """Make it."""
        self.store = InMemoryConversationStore()

    async def fill(self, key: str, length: int) -> None:
        """Save a conversation of so many messages."""
        await self.store.save(Conversation(conversation_id=key, messages=messages(length)))

    async def append(self, key: str) -> None:
        """Load the newest messages, as a run does, and save two more."""
        conversation = await self.store.load(key, limit=2)
        assert conversation
        conversation.messages = [*conversation.messages, *messages(2)]
        await self.store.save(conversation)

    async def recent(self, key: str, limit: int) -> None:
        """Load the last messages."""
        await self.store.load(key, limit=limit)

    async def load(self, key: str) -> None:
        """Load all."""
        await self.store.load(key)
