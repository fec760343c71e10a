"""Whoever keeps conversations and is measured: ours, a bare driver, or a peer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from benchmarks.payload import RECENT, crowd, messages, turn
from jaf_memory_core import ConversationMemory, ManagedMemoryProvider, MemoryQuery, Success
from jaf_memory_core.transfer import export, import_conversations

Place = dict[str, Any]
"""Where a worker finds its store: a file, a port, a URL."""


class Competitor:
    """What is measured. An operation that one does not have stays `None`, and is no figure.

    Attributes:
        name: what stands in the tables.
    """

    name = ""
    recent: Any = None
    load: Any = None
    newest: Any = None
    bulk_import: Any = None
    bulk_export: Any = None

    def __init__(self, place: Place) -> None:
        self.place = place

    async def open(self) -> None:
        """Connect, and make what is missing."""

    async def close(self) -> None:
        """Disconnect."""

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        raise NotImplementedError

    async def append(self, key: str) -> object:
        """Add a turn."""
        raise NotImplementedError

    async def append_among(self, key: str) -> object:
        """The same while other tasks do something."""
        return await self.append(key)

    async def server(self) -> int | None:
        """The server's process, where there is one whose work can be seen."""
        return None

    async def pair(self, key: str) -> None:
        """What a turn of a task does: append, and read what is recent."""
        await self.append(key)
        await self.recent(key, RECENT)


class Ours(Competitor):
    """A provider of ours, through the methods that an application calls."""

    name = "ours"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.provider: ManagedMemoryProvider

    async def close(self) -> None:
        """Close the provider."""
        await self.provider.close()

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        stored = await self.provider.store_messages(key, messages(length))
        assert isinstance(stored, Success)

    async def fill_crowd(self, count: int) -> None:
        """So many conversations of one turn each."""
        parts = 16  # side by side, where a store does more than one thing at once
        await asyncio.gather(
            *(import_conversations(self.provider, crowd(range(part, count, parts))) for part in range(parts))
        )

    async def append(self, key: str) -> object:
        """Add a turn. Making the two messages is part of it."""
        return await self.provider.append_messages(key, turn())

    async def recent(self, key: str, limit: int) -> object:
        """The last messages."""
        return await self.provider.get_recent_messages(key, limit)

    async def load(self, key: str) -> object:
        """The whole conversation."""
        return await self.provider.get_conversation(key)

    async def newest(self, user: str, *, with_messages: bool) -> object:
        """The ten newest conversations of a user."""
        query = MemoryQuery(user_id=user, limit=10, include_messages=with_messages)
        found = await self.provider.find_conversations(query)
        assert len(found) == 10
        return found

    async def bulk_import(self, conversations: Iterable[ConversationMemory]) -> None:
        """Put conversations in."""
        report = await import_conversations(self.provider, conversations)
        assert not len(report.refused)

    async def bulk_export(self) -> int:
        """Read everything as lines; how many bytes."""
        size = 0
        async for line in export(self.provider):
            size += len(line)
        return size
