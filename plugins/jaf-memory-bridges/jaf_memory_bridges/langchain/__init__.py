"""LangChain on any jaf-memory provider: a `BaseChatMessageHistory` for code with and without asyncio.

    history = JafMemoryChatMessageHistory("user-123:chat", provider, user_id="user-123")
    chain = RunnableWithMessageHistory(model, lambda session_id: history)

Messages come back as they were given, with calls, artifacts, usage and ids, and are messages of ours as well. A message
with an `id` is stored once, however often it is added; one without is another one each time, as with LangChain's own.

LangChain calls `BaseChatMessageHistory` deprecated from langchain-core 1.6.4 on, in favour of LangGraph's short-term
memory, and means to remove it with 2.0. What JSON cannot hold, an artifact that is an object for one, is refused.
"""

from __future__ import annotations

from jaf_memory_bridges import extras

extras.require("langchain", module="langchain_core", distribution="langchain-core", versions=">=1,<2")

from jaf_memory_bridges.langchain.history import JafMemoryChatMessageHistory  # without it, the line above says so
from jaf_memory_bridges.langchain.messages import to_langchain, to_message

__all__ = ["JafMemoryChatMessageHistory", "to_langchain", "to_message"]
