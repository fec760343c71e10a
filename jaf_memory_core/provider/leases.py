"""`Leases`: who may run the next turn of a conversation. The rules are pure functions, below what writes by them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from jaf_memory_core import validation
from jaf_memory_core.conversations import Lease
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Record, Write
from jaf_memory_core.rules import RESERVED
from jaf_memory_core.values import FrozenDict

LEASE = f"{RESERVED}lease"
"""Metadata key of a conversation's lease; it vanishes with the conversation."""


class Leases(ProviderBase):
    """Turns of several processes, one after the other."""

    async def acquire_lease(
        self, conversation_id: str, seconds: float, *, user_id: str | None = None, token: str | None = None
    ) -> Lease:
        """Take the right to run the next turn, for so many seconds; a missing conversation is made, empty.

        Nothing that is written depends on a lease: it keeps those apart who ask for it.

        Args:
            conversation_id: 1 to 255 characters.
            seconds: until others may have it, unless it is renewed.
            user_id: the owner of a conversation that is made.
            token: from an earlier try whose answer was lost; made when absent.

        Raises:
            MemoryConflictError: another holds it.

        Example:
            held = await provider.acquire_lease("user-123:chat", 30)
            try:
                held = await provider.renew_lease(held, 30)
            finally:
                await provider.release_lease(held)
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        span = _span(seconds)
        mine = new_token() if token is None else validation.checked_text(token, "token")
        owner = validation.stated_owner(None, user_id, self._scope)
        got: Lease | None = None

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            nonlocal got
            got = taken(key, header.metadata, mine, span, now)
            return {LEASE: stored_form(got)}

        async def acquire() -> Lease:
            while True:
                try:
                    await self._annotate(key, change)
                except MemoryNotFoundError:
                    # Others may make it at the same moment, or delete it: either way it is looked at once more.
                    await self._make_empty(key, owner)
                else:
                    assert got is not None  # `change` has run
                    return got

        return await self._guard.run("acquire_lease", acquire, key)

    async def _make_empty(self, conversation_id: str, owner: str | None) -> None:
        empty = Write(conversation_id, user_id=owner, scope=self._scope, create=True, ttl=self.config.ttl)
        await self.backend.append(empty)

    async def renew_lease(self, held: Lease, seconds: float) -> Lease:
        """Keep a lease for so many seconds from now.

        Raises:
            MemoryConflictError: it expired, and another has it.
            MemoryNotFoundError: the conversation was deleted.
        """
        span = _span(seconds)
        validation.checked_lease(held)
        got = held

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            nonlocal got
            got = renewed(held, header.metadata, span, now)
            return {LEASE: stored_form(got)}

        await self._annotated("renew_lease", held.conversation_id, change)
        return got

    async def release_lease(self, held: Lease) -> bool:
        """Give a lease back; `False` if it was not theirs any more."""
        validation.checked_lease(held)
        ours = False

        def change(header: Record, _now: datetime) -> Mapping[str, Any] | None:
            nonlocal ours
            after = released(held, header.metadata)
            ours = after is not None
            return {LEASE: after} if ours else None

        try:
            await self._annotated("release_lease", held.conversation_id, change)
        except MemoryNotFoundError:
            return False
        return ours


def _span(seconds: float) -> float:
    span = validation.checked_ttl(seconds)
    if span is None:
        raise MemoryInvalidInputError("a lease needs an end: give seconds above 0")
    return span


def new_token() -> str:
    """32 random hexadecimal digits."""
    return os.urandom(16).hex()


def held_by_another(conversation_id: str, seconds: float) -> MemoryConflictError:
    """The conflict of leases; it names nobody.

    Args:
        conversation_id: whose lease was asked for.
        seconds: after which the lease ends, unless its holder renews it.
    """
    error = MemoryConflictError(
        f"another turn of conversation {conversation_id!r} is under way; "
        f"its lease ends in {seconds:.1f} s, unless it is renewed: try again then",
    )
    error.retryable, error.retry_after = True, seconds
    return error


def lost(conversation_id: str) -> MemoryConflictError:
    """The conflict of a lease that its holder has no more."""
    return MemoryConflictError(
        f"the lease of conversation {conversation_id!r} is not held any more: it expired, or was given back"
    )


def taken(conversation_id: str, metadata: FrozenDict, token: str, seconds: float, now: datetime) -> Lease:
    """The lease after `token` asked for it, for the first time or again.

    Raises:
        MemoryConflictError: another holds it, and it has not expired.
    """
    stored = metadata.get(LEASE) or {}
    holder, number = stored.get("token"), int(stored.get("number", 0))
    if holder not in (None, token):
        left = (datetime.fromisoformat(stored["expires_at"]) - now).total_seconds()
        if left > 0:
            raise held_by_another(conversation_id, left)
    # A new number for a new holder only: the retry of a lost answer is no other turn.
    return Lease(conversation_id, token, number + (holder != token), now + timedelta(seconds=seconds))


def stored_form(lease: Lease) -> FrozenDict:
    """What the conversation's metadata keeps of a lease."""
    return FrozenDict(token=lease.token, number=lease.number, expires_at=lease.expires_at.isoformat())


def renewed(lease: Lease, metadata: FrozenDict, seconds: float, now: datetime) -> Lease:
    """The lease with a later end.

    Raises:
        MemoryConflictError: it expired, and another took it, or it was given back.
    """
    if (metadata.get(LEASE) or {}).get("token") != lease.token:
        raise lost(lease.conversation_id)
    return taken(lease.conversation_id, metadata, lease.token, seconds, now)


def released(lease: Lease, metadata: FrozenDict) -> FrozenDict | None:
    """What the metadata keeps after the holder gave it back; `None` if it is not theirs any more."""
    stored = metadata.get(LEASE) or {}
    if stored.get("token") != lease.token:
        return None
    # The number stays, and grows over all holders: other systems refuse by it who came earlier.
    return FrozenDict(token=None, number=stored["number"])  # the holder may know its token only
