"""JAF's own engine, jaf-py, on any jaf-memory provider.

    provider = await create_memory_provider_from_env(user_id="user-123")
    config = RunConfig(..., memory=MemoryConfig(provider=provider, max_messages=100), conversation_id="user-123:chat")

The engine reads a conversation's owner from an *attribute* `user_id` of the context. A `dict` has none: give `user_id`
here, or use the `RunState` of this module, or the conversation belongs to nobody, and `clear_user_conversations` does
not find it. What else JAF's documentation imports from `jaf` for a run stands here, too, unchanged.
"""

from __future__ import annotations

from jaf_memory_bridges import extras

extras.require("jaf", module="jaf", distribution="jaf-py", versions=("2.6.",))

from jaf import Agent, Message, RunConfig, run  # noqa: E402  (without jaf-py, the line above says what to do)

from jaf_memory_bridges.jaf.provider import (  # noqa: E402
    JafProvider,
    create_memory_provider_from_env,
    jaf_provider,
)
from jaf_memory_bridges.jaf.runs import MemoryConfig, RunState  # noqa: E402

__all__ = [
    "Agent",
    "JafProvider",
    "MemoryConfig",
    "Message",
    "RunConfig",
    "RunState",
    "create_memory_provider_from_env",
    "jaf_provider",
    "run",
]
