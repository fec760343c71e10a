"""`Annotating`: changes of a conversation's metadata that nobody's other change can come between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, validation
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import (
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryStorageError,
)
from jaf_memory_core.guard import Guard
from jaf_memory_core.processors import Chain
from jaf_memory_core.records import Amend, Record
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import FrozenDict, freeze

Change = Callable[[Record, datetime], Mapping[str, Any] | None]
"""From a header and the time to what is to be merged into its metadata; `None` to leave it."""


class Annotating:
    """What a provider has, and compare-and-swap over a conversation's header."""

    backend: Backend
    config: ProviderConfig
    _guard: Guard
    _chain: Chain
    _scope: str | None

    def _shown(self, record: Record) -> ConversationMemory:
        raise NotImplementedError

    def _check_size(self, value: FrozenDict, what: str) -> None:
        size, most = len(codec.encode(value)), self.config.max_metadata_bytes
        if size > most:
            raise MemoryInvalidInputError(f"{what} has {size} bytes, allowed are {most}")

    async def _annotated(self, operation: str, conversation_id: str, change: Change) -> Record:
        key = validation.checked_id(conversation_id, "conversation_id")
        return await self._guard.run(operation, lambda: self._annotate(key, change))

    async def _annotate(self, conversation_id: str, change: Change) -> Record:
        """Merge into the metadata what `change` makes of the header, until nobody came between."""
        for _ in range(1_000_000):
            header = await self.backend.header(conversation_id, scope=self._scope)
            if header is None:
                raise MemoryNotFoundError(conversation_id)
            patch = change(header, self.backend.now())
            if patch is None:
                return header
            frozen: FrozenDict = freeze(patch, where="metadata")
            self._check_size(frozen, "what is noted in the metadata")
            amend = Amend(conversation_id, frozen, scope=self._scope, expected=header.stamp)
            try:
                return replace(header, version=await self.backend.amend(amend))
            except MemoryConflictError:
                await jitter()
        raise MemoryStorageError("the conversation never stood still", operation="amend", retryable=True)


async def jitter() -> None:
    """Wait a little, each caller for another while."""
    await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  (so that those who met once do not meet again)
