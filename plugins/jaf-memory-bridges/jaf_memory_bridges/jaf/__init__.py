"""JAF's own engine, jaf-py, on any jaf-memory provider.

    provider = await create_memory_provider_from_env(user_id="user-123")
    config = RunConfig(..., memory=MemoryConfig(provider=provider, max_messages=100), conversation_id="user-123:chat")

The engine reads a conversation's owner from an *attribute* `user_id` of the context. A `dict` has none: give `user_id`
here, or use the `RunState` of this module, or the conversation belongs to nobody, and `clear_user_conversations` does
not find it.

Every name of `jaf.memory` stands here in its own shape, so that code on jaf-py moves by changing its imports; what
JAF's documentation imports from `jaf` for a run stands here, too, unchanged.
"""

from __future__ import annotations

from jaf_memory_bridges import extras

extras.require("jaf", module="jaf", distribution="jaf-py", versions=">=2.6.22,<2.7")

from jaf import Agent, Message, RunConfig, run  # without jaf-py, the line above says what to do
from jaf.memory import (
    ConversationMemory,
    Failure,
    InMemoryConfig,
    MemoryConnectionError,
    MemoryError,
    MemoryNotFoundError,
    MemoryProvider,
    MemoryProviderConfig,
    MemoryQuery,
    MemoryStorageError,
    PostgresConfig,
    RedisConfig,
    Result,
    Success,
)

from jaf_memory_bridges.jaf.factory import (
    InMemoryProvider,
    create_in_memory_provider,
    create_memory_provider_from_env,
    create_postgres_provider,
    create_redis_provider,
)
from jaf_memory_bridges.jaf.provider import JafProvider, jaf_provider
from jaf_memory_bridges.jaf.runs import MemoryConfig, RunState

__all__ = [
    "Agent",
    "ConversationMemory",
    "Failure",
    "InMemoryConfig",
    "InMemoryProvider",
    "JafProvider",
    "MemoryConfig",
    "MemoryConnectionError",
    "MemoryError",
    "MemoryNotFoundError",
    "MemoryProvider",
    "MemoryProviderConfig",
    "MemoryQuery",
    "MemoryStorageError",
    "Message",
    "PostgresConfig",
    "RedisConfig",
    "Result",
    "RunConfig",
    "RunState",
    "Success",
    "create_in_memory_provider",
    "create_memory_provider_from_env",
    "create_postgres_provider",
    "create_redis_provider",
    "jaf_provider",
    "run",
]
