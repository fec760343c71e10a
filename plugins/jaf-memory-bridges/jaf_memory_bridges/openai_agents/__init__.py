"""The OpenAI Agents SDK on any jaf-memory provider: a `Session` whose items are messages.

    session = JafMemorySession("user-123:chat", provider, user_id="user-123")
    result = await Runner.run(agent, "Hello!", session=session)

What the SDK stores comes back as it was given, and is a conversation like any other: `MemorySession` makes views of it,
`jaf-memory show` prints it, an export or an erasure of its user takes it along.

A compaction by the SDK's `OpenAIResponsesCompactionSession` around this session replaces items in one write.

One thing is the SDK's own doing, whatever stores its items. It hands over items without ids that would tell a
repetition from a second saying of the same, so that only `add_items` itself is safe against a lost answer.
"""

from __future__ import annotations

from jaf_memory_bridges import extras

extras.require("openai-agents", module="agents", distribution="openai-agents", versions=">=0.24,<1")

from jaf_memory_bridges.openai_agents.items import to_items, to_message  # without it, the line above says what to do
from jaf_memory_bridges.openai_agents.session import JafMemorySession

__all__ = ["JafMemorySession", "to_items", "to_message"]
