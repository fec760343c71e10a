"""Google ADK on any jaf-memory provider: a `BaseSessionService` whose events are messages.

    service = JafMemorySessionService(provider)
    runner = Runner(app_name="app", agent=agent, session_service=service)

A session is a conversation of its user's; what is the user's state or the app's stands in a conversation of its own
without messages. What ADK's own services promise and this one does otherwise, `JafMemorySessionService` says.
"""

from __future__ import annotations

from jaf_memory_bridges import extras

extras.require("adk", module="google.adk", distribution="google-adk", versions=">=2.13,<3")

from jaf_memory_bridges.adk.events import to_event, to_message  # without it, the line above says what to do
from jaf_memory_bridges.adk.service import JafMemorySessionService

__all__ = ["JafMemorySessionService", "to_event", "to_message"]
