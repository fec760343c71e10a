"""`FourMethods`: any backend, reduced to the four methods that every author writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.records import Record, Stamp


class FourMethods(Backend):
    """Hides what a backend overrides for speed, so that the defaults of `Backend` work over its four methods."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        for attribute in ("name", "loop_bound", "waits", "driver_errors"):
            setattr(self, attribute, getattr(inner, attribute))

    async def read(self, conversation_id: str) -> Record | None:
        """The inner backend's."""
        return await self.inner.read(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """The inner backend's."""
        return await self.inner.write(record, expected=expected)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """The inner backend's."""
        return await self.inner.delete(conversation_id, expected=expected)

    def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        """The inner backend's."""
        return self.inner.scan(query)

    async def open(self) -> None:
        """The inner backend's."""
        await self.inner.open()

    async def close(self) -> None:
        """The inner backend's."""
        await self.inner.close()

    def abandon(self) -> None:
        """The inner backend's."""
        self.inner.abandon()

    def now(self) -> datetime:
        """The inner backend's."""
        return self.inner.now()

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """The inner backend's."""
        return self.inner.translate(error, operation)
