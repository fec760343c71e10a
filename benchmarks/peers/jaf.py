"""jaf-py's own providers. They print what they do; the worker throws that away."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from jaf.core.types import Message
from jaf.memory.providers.in_memory import InMemoryProvider
from jaf.memory.providers.postgres import create_postgres_provider
from jaf.memory.providers.redis import create_redis_provider
from jaf.memory.types import InMemoryConfig, PostgresConfig, RedisConfig, Success

from benchmarks.competitors import Competitor
from benchmarks.payload import text

logging.disable(logging.CRITICAL)


def data(result: Any) -> Any:
    """What an operation answers, if it did succeed."""
    if not isinstance(result, Success):
        raise RuntimeError(f"jaf-py: {result.error!r}")  # noqa: TRY004  (a failure is an answer of its own kind)
    return result.data


class Jaf(Competitor):
    """What its three providers have in common."""

    provider: Any

    async def close(self) -> None:
        """Close the provider."""
        await self.provider.close()

    async def fill(self, key: str, length: int) -> None:
        """Store a conversation."""
        data(await self.provider.store_messages(key, [Message(role="user", content=text()) for _ in range(length)]))

    async def append(self, key: str) -> None:
        """Append two messages."""
        turn = [Message(role="user", content=text()), Message(role="assistant", content=text("assistant"))]
        data(await self.provider.append_messages(key, turn))

    async def recent(self, key: str, limit: int) -> None:
        """Read the last messages."""
        data(await self.provider.get_recent_messages(key, limit))

    async def load(self, key: str) -> None:
        """Read all."""
        data(await self.provider.get_conversation(key))


class InMemory(Jaf):
    """In memory."""

    async def open(self) -> None:
        """Make it."""
        self.provider = InMemoryProvider(InMemoryConfig(max_messages_per_conversation=1_000_000))


class Redis(Jaf):
    """On Redis."""

    async def open(self) -> None:
        """Connect."""
        config = RedisConfig(host="127.0.0.1", port=self.place["port"], key_prefix="jaf-py:")
        self.provider = data(await create_redis_provider(config))


class Postgres(Jaf):
    """On PostgreSQL, with asyncpg's pool."""

    async def open(self) -> None:
        """Connect, with the same number of connections as ours."""
        url = urlsplit(self.place["url"])
        config = PostgresConfig(
            host=url.hostname,
            port=url.port,
            database=url.path.strip("/"),
            username=url.username,
            password=url.password,
            table_name="jaf_py",
        )
        self.provider = data(await create_postgres_provider(config))
