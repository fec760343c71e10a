"""Erasure: one conversation, all of a user, and what has expired."""

from __future__ import annotations

from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Stamp
from jaf_memory_redis import scripts
from jaf_memory_redis.indexes import STEP, Indexes
from jaf_memory_redis.operations.writes import Writer, stamp_text


class Eraser:
    """Removes conversations, with all that names them.

    Args:
        indexes: where the entries are.
        writer: runs the scripts.
    """

    def __init__(self, indexes: Indexes, writer: Writer) -> None:
        self._indexes = indexes
        self._writer = writer

    async def delete(self, conversation_id: str, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        return await self._removed(conversation_id, expected=stamp_text(expected)) is not None

    async def remove(self, conversation_id: str, scope: str | None) -> bool:
        """Remove the conversation, by one script."""
        return bool(await self._removed(conversation_id, scope=scope))

    async def bury(self, conversation_id: str) -> bool:
        """Remove the conversation if it has expired; whether it was this call that did."""
        return await self._removed(conversation_id, expired=True) is not None

    async def _removed(
        self, conversation_id: str, *, scope: str | None = None, expected: str | None = None, expired: bool = False
    ) -> int | None:
        """1 if a live conversation was removed, 0 for an expired one, `None` if there was none like that."""
        request = {"id": conversation_id, "scope": scope, "expected": expected, "expired": expired or None}
        try:
            reply = await self._writer.perform(scripts.REMOVE, request, owner=scope)
        except MemoryNotFoundError:
            return None
        await self._indexes.gone(conversation_id, reply)
        alive: int = reply[5]
        return alive

    async def forget_user(self, user_id: str) -> int:
        """Remove all that the user's indexes name, until they name nothing."""
        removed = 0
        async for entries in self._indexes.entries_of(user_id):
            for created, conversation_id in entries:
                alive = await self._removed(conversation_id, scope=user_id)
                if alive is None:
                    await self._indexes.sweep(conversation_id, user_id, created)
                removed += alive or 0
        return removed

    async def purge(self, limit: int, scope: str | None) -> int:
        """Remove what the index by expiry names."""
        removed, offset = 0, 0
        while removed < limit:
            entries = await self._indexes.due(min(limit - removed, STEP), offset)
            for conversation_id, owner, created in entries:
                done = 0
                if scope in (None, owner):
                    # Redis itself may have dropped it already; or it was made again, or another process was faster.
                    done = await self.bury(conversation_id) or await self._indexes.sweep(
                        conversation_id, owner, created
                    )
                removed += done
                offset += not done
            if not entries:
                break
        return removed
