"""py-key-value, the floor of a generic store: a conversation is one value, which is read, extended and put back.

Nothing there tells one writer of another, so that of two who append at once one loses its messages.
"""

from __future__ import annotations

from typing import Any

from benchmarks.competitors import Competitor
from benchmarks.payload import text

SHELF = "conversations"


def items(count: int) -> list[dict[str, str]]:
    """So many messages, the user's and the assistant's by turns."""
    roles = ("assistant" if number % 2 else "user" for number in range(count))
    return [{"role": role, "content": text(role)} for role in roles]


class Values(Competitor):
    """What its stores have in common."""

    store: Any

    async def close(self) -> None:
        """Disconnect."""
        await self.store.close()

    async def fill(self, key: str, length: int) -> None:
        """Put so many messages."""
        await self.store.put(key, {"messages": items(length)}, collection=SHELF)

    async def append(self, key: str) -> None:
        """Add two messages."""
        await self.extend(key, items(2))

    async def extend(self, key: str, more: list[dict[str, str]]) -> None:
        """Read all, and put all with some more."""
        await self.store.put(key, {"messages": [*await self.held(key), *more]}, collection=SHELF)

    async def recent(self, key: str, limit: int) -> object:
        """Read all, and take the last."""
        return (await self.held(key))[-limit:]

    async def load(self, key: str) -> None:
        """Read all."""
        await self.held(key)

    async def held(self, key: str) -> list[dict[str, str]]:
        """All messages."""
        value = await self.store.get(key, collection=SHELF)
        found: list[dict[str, str]] = value["messages"]
        return found


class InMemory(Values):
    """`MemoryStore`, which keeps each value as JSON."""

    async def open(self) -> None:
        """Make it."""
        from key_value.aio.stores.memory import MemoryStore

        self.store = MemoryStore()

    async def close(self) -> None:
        """There is nothing to close."""


class Sqlite(Values):
    """`DiskStore`, diskcache's SQLite file, which does not wait for the disk."""

    async def open(self) -> None:
        """Open it."""
        from key_value.aio.stores.disk import DiskStore

        self.store = DiskStore(directory=self.place["folder"])


class Redis(Values):
    """`RedisStore`, over the pool of its own client."""

    async def open(self) -> None:
        """Connect."""
        from key_value.aio.stores.redis import RedisStore

        self.store = RedisStore(host="127.0.0.1", port=self.place["port"])


class Postgres(Values):
    """`PostgreSQLStore`; the pool that it makes has as many connections as ours."""

    async def open(self) -> None:
        """Connect, and make the table."""
        from key_value.aio.stores.postgresql import PostgreSQLStore

        self.store = PostgreSQLStore(url=self.place["url"])
        await self.store.setup()
