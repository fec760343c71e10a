"""Pydantic AI on any jaf-memory provider: a durable `ConversationStore`, and two lines for a history without one.

    store = JafMemoryConversationStore(provider)
    conversation = await store.load("chat", scope="user-123") or Conversation(conversation_id="chat")
    result = await agent.run("Hello!", conversation=conversation)
    await store.save(result, scope="user-123")

`ConversationStore` came with pydantic-ai 2.68; with older releases of 2 there are the history's two lines:

    history = to_history((await provider.get_conversation("chat")).messages)
    await provider.append_messages("chat", to_messages(result.new_messages()), create=True)

Entries are messages of the conversation, so that views, `jaf-memory show`, exports and erasures know them. What is left
to its stores by Pydantic AI, `JafMemoryConversationStore` says.
"""

from __future__ import annotations

from typing import Any

from jaf_memory_bridges import extras

extras.require("pydantic-ai", module="pydantic_ai", distribution="pydantic-ai-slim", versions=">=2,<3")

from jaf_memory_bridges.pydantic_ai.messages import to_history, to_messages  # without it, the line above says so

if extras.is_there("pydantic_ai.conversation_store"):
    from jaf_memory_bridges.pydantic_ai.store import JafMemoryConversationStore

__all__ = ["JafMemoryConversationStore", "to_history", "to_messages"]


def __getattr__(name: str) -> Any:
    if name == "JafMemoryConversationStore":
        raise ImportError(f"{name} needs pydantic-ai 2.68 or newer, which has the ConversationStore", name=__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
