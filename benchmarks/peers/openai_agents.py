"""The sessions of the OpenAI Agents SDK: a session is a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.competitors import Competitor
from benchmarks.payload import text


def items(count: int) -> list[dict[str, Any]]:
    """Messages as the SDK has them."""
    return [
        {"role": role, "content": text(role)}
        for role, _ in zip(("user", "assistant") * count, range(count), strict=False)
    ]


class Sessions(Competitor):
    """What its sessions have in common."""

    def session(self, key: str) -> Any:
        """The session of a conversation."""
        raise NotImplementedError

    async def fill(self, key: str, length: int) -> None:
        """Add so many items."""
        await self.session(key).add_items(items(length))

    async def append(self, key: str) -> None:
        """Add two items."""
        await self.session(key).add_items(items(2))

    async def recent(self, key: str, limit: int) -> None:
        """Read the last items."""
        await self.session(key).get_items(limit=limit)

    async def load(self, key: str) -> None:
        """Read all."""
        await self.session(key).get_items()


class Sqlite(Sessions):
    """`SQLiteSession` on a file; an application keeps the session of a conversation that it is in."""

    async def open(self) -> None:
        """Nothing is open yet."""
        from agents import SQLiteSession

        self.kind, self.open_ones = SQLiteSession, {}

    def session(self, key: str) -> Any:
        """The session, opened once."""
        if key not in self.open_ones:
            self.open_ones[key] = self.kind(key, Path(self.place["folder"], "openai.db"))
        return self.open_ones[key]

    async def close(self) -> None:
        """Close all."""
        for session in self.open_ones.values():
            session.close()


class Redis(Sessions):
    """`RedisSession` on one client."""

    async def open(self) -> None:
        """Connect."""
        import redis.asyncio
        from agents.extensions.memory import RedisSession

        self.kind, self.redis = RedisSession, redis.asyncio.Redis(port=self.place["port"])

    def session(self, key: str) -> Any:
        """The session."""
        return self.kind(key, redis_client=self.redis)

    async def close(self) -> None:
        """Disconnect."""
        await self.redis.aclose()


class Postgres(Sessions):
    """`SQLAlchemySession` over asyncpg, on one engine with as many connections as ours."""

    async def open(self) -> None:
        """Connect, and make the tables."""
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        url = self.place["url"].replace("postgresql://", "postgresql+asyncpg://").replace("sslmode=", "ssl=")
        self.kind, self.engine = SQLAlchemySession, create_async_engine(url, pool_size=10, max_overflow=0)
        self.sessions: dict[str, Any] = {}
        await self.kind("tables", engine=self.engine, create_tables=True).get_items()

    def session(self, key: str) -> Any:
        """The session, made once: it builds its statements when it is made."""
        if key not in self.sessions:
            self.sessions[key] = self.kind(key, engine=self.engine)
        return self.sessions[key]

    async def close(self) -> None:
        """Disconnect."""
        await self.engine.dispose()
