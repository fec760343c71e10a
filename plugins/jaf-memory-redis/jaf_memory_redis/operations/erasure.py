"""Erasure: one conversation, all of a user, and what has expired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from jaf_memory_core import rules
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Stamp
from jaf_memory_redis import scripts
from jaf_memory_redis.errors import FAILURES
from jaf_memory_redis.indexes import GRACE, MANY, STEP, Indexes
from jaf_memory_redis.operations.writes import Writer, stamp_text, version_of

logger = logging.getLogger("jaf_memory_redis")

T = TypeVar("T")

TIDY_EVERY = 10.0
"""Seconds after which a write looks for what expired and nobody purged."""


class Eraser:
    """Removes conversations, with all that names them.

    Args:
        indexes: where the entries are.
        writer: runs the scripts.
    """

    def __init__(self, indexes: Indexes, writer: Writer) -> None:
        self._indexes = indexes
        self._writer = writer
        self.tidy_at = 0.0
        """When a write is to look next for what expired and nobody purged."""

    async def delete(self, conversation_id: str, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        return await self._removed(conversation_id, expected=stamp_text(expected)) is not None

    async def remove(self, conversation_id: str, scope: str | None, expected_version: int | None = None) -> bool:
        """Remove the conversation, by one script.

        Raises:
            MemoryConflictError: there is none, and jaf-py's own provider has one of that id; or it is at another
                version than the expected one.
        """
        alive = await self._removed(conversation_id, scope=scope, version=expected_version)
        if alive is None and scope is None:
            await self._indexes.refuse_unmoved(conversation_id)
        return bool(alive)

    async def bury(self, conversation_id: str, owner: str | None = None) -> bool:
        """Remove the conversation if it has expired; whether it was this call that did."""
        return await self._removed(conversation_id, expired=True, owner=owner) is not None

    async def _removed(
        self,
        conversation_id: str,
        *,
        scope: str | None = None,
        expected: str | None = None,
        expired: bool = False,
        owner: str | None = None,
        named: bool = False,
        version: int | None = None,
    ) -> int | None:
        """1 if a live conversation was removed, 0 for an expired one, `None` if there was none like that.

        `named` is what the index of `scope` names.
        """
        request: dict[str, Any] = {
            "id": conversation_id,
            "scope": scope,
            "expected": expected,
            "expired": expired or None,
        }
        request.update(named=named or None, version=version_of(version))
        if expected is None and version is None:
            request["unsound"] = True  # who removes a conversation need not be able to read it
        try:
            reply = await self._writer.perform(scripts.REMOVE, request, owner=scope or owner)
        except MemoryNotFoundError:
            return None
        if reply[0] == b"version":
            rules.expect_version(conversation_id, version, reply[1])
        dropped = await self._indexes.gone(conversation_id, reply)
        if expired and not dropped:
            return None  # another has swept its entries meanwhile, and counts it
        alive: int = reply[5]
        return alive

    async def forget_user(self, user_id: str, removed: list[int]) -> None:
        """Remove all that the user's indexes name, until they name nothing; of each that went, whether it was live."""

        async def forget(created: str, conversation_id: str) -> None:
            # By scope: an entry may be stale, and name what is another's by now. That is left, and the entry goes.
            alive = await self._removed(conversation_id, scope=user_id, named=True)
            if alive is None:
                await self._indexes.sweep(conversation_id, user_id, created)
            else:
                removed.append(alive)

        async for entries in self._indexes.entries_of(user_id):
            await together(entries, forget)

    async def purge(self, limit: int, scope: str | None, removed: list[str]) -> None:
        """Remove what the index by expiry names; the ids of what went."""
        offset = 0

        async def purge(conversation_id: str, owner: str | None, created: str) -> None:
            if scope not in (None, owner):
                return
            # Redis itself may have dropped it already; or it was made again, or another process was faster.
            if await self.bury(conversation_id, owner) or await self._indexes.sweep(conversation_id, owner, created):
                removed.append(conversation_id)

        while len(removed) < limit:
            before = len(removed)
            entries = await self._indexes.due(min(limit - before, MANY), offset)
            await together(entries, purge)
            # What was left stays in the index, and is stepped over: else the same page would come for ever.
            offset += len(entries) - (len(removed) - before)
            if not entries:
                break

    async def tidy(self) -> None:
        """Drop the entries of some of those that Redis itself has dropped by now; a write does so now and then."""
        # Before the first await: of many writers that come now, one does it.
        self.tidy_at = time.monotonic() + TIDY_EVERY
        try:
            entries = await self._indexes.due(STEP, 0, late=GRACE)
            await together(entries, self._tidied)
        except FAILURES as error:
            # The write behind it is another matter, and says for itself what is wrong.
            logger.debug("housekeeping failed: %s", type(error).__name__)
            return
        # There is more: the next write goes on, so that no single one pays for all of it.
        if len(entries) == STEP:
            self.tidy_at = 0.0

    async def _tidied(self, conversation_id: str, owner: str | None, created: str) -> None:
        if not await self.bury(conversation_id, owner):
            await self._indexes.sweep(conversation_id, owner, created)


async def together(entries: Sequence[tuple[str | None, ...]], work: Callable[..., Awaitable[T]]) -> list[T]:
    """Do the same with each of a page of entries at once: what is under way travels together.

    Raises:
        MemoryError, or one of the driver's: the first that failed, once none is under way any more.
    """
    outcomes = await asyncio.gather(*(work(*entry) for entry in entries), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
