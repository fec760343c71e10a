"""Google ADK's `DatabaseSessionService`: a session is read, and events are appended to it one by one."""

from __future__ import annotations

from typing import Any

from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part

from benchmarks.competitors import Competitor
from benchmarks.payload import text

WHOSE = {"app_name": "bench", "user_id": "u"}


def event(author: str) -> Event:
    """A message as ADK has it."""
    role = "user" if author == "user" else "assistant"
    return Event(author=author, content=Content(role=author, parts=[Part(text=text(role))]))


class Postgres(Competitor):
    """The service on PostgreSQL, over asyncpg, with as many connections as ours."""

    async def open(self) -> None:
        """Connect."""
        url = self.place["url"].replace("postgresql://", "postgresql+asyncpg://").replace("sslmode=", "ssl=")
        self.service = DatabaseSessionService(url, pool_size=10, max_overflow=0)
        self.sessions: dict[str, Any] = {}

    async def close(self) -> None:
        """Disconnect."""
        await self.service.close()

    async def fill(self, key: str, length: int) -> None:
        """Make a session with so many events; an application keeps the session that it is in."""
        self.sessions[key] = await self.service.create_session(**WHOSE, session_id=key)
        for _ in range(length):
            await self.service.append_event(self.sessions[key], event("user"))

    async def append(self, key: str) -> None:
        """Append two events."""
        await self.service.append_event(self.sessions[key], event("user"))
        await self.service.append_event(self.sessions[key], event("model"))

    async def recent(self, key: str, limit: int) -> None:
        """Read the session with its last events."""
        await self.service.get_session(**WHOSE, session_id=key, config=GetSessionConfig(num_recent_events=limit))

    async def load(self, key: str) -> None:
        """Read the session with all its events."""
        await self.service.get_session(**WHOSE, session_id=key)
