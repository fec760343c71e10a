"""Leases: who may run the next turn of a conversation. Values and pure rules; the provider does the writing."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from msgspec import Struct

from jaf_memory_core.errors import MemoryConflictError
from jaf_memory_core.rules import RESERVED
from jaf_memory_core.values import FrozenDict

LEASE = f"{RESERVED}lease"
"""Metadata key of a conversation's lease; it vanishes with the conversation."""


class Lease(Struct, frozen=True):
    """The right to run the next turn of a conversation, for a while.

    Attributes:
        conversation_id: of which conversation.
        token: random; what tells the holder from others. Keep it to yourself.
        number: grows with each holder of the conversation's lease. Hand it to other systems that the turn changes, so
            that they can refuse a holder who came earlier (a fencing number).
        expires_at: from this moment on others may have it; UTC.
    """

    conversation_id: str
    token: str
    number: int
    expires_at: datetime


def new_token() -> str:
    """32 random hexadecimal digits."""
    return os.urandom(16).hex()


def held_by_another(conversation_id: str) -> MemoryConflictError:
    """The conflict of leases; it names nobody."""
    return MemoryConflictError(f"another turn of conversation {conversation_id!r} is under way; try again later")


def taken(conversation_id: str, metadata: FrozenDict, token: str, seconds: float, now: datetime) -> Lease:
    """The lease after `token` asked for it, for the first time or again.

    Raises:
        MemoryConflictError: another holds it, and it has not expired.
    """
    stored = metadata.get(LEASE) or {}
    holder, number = stored.get("token"), int(stored.get("number", 0))
    if holder not in (None, token) and now < datetime.fromisoformat(stored["expires_at"]):
        raise held_by_another(conversation_id)
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
        raise held_by_another(lease.conversation_id)
    return taken(lease.conversation_id, metadata, lease.token, seconds, now)


def released(lease: Lease, metadata: FrozenDict) -> FrozenDict | None:
    """What the metadata keeps after the holder gave it back; `None` if it is not theirs any more."""
    if (metadata.get(LEASE) or {}).get("token") != lease.token:
        return None
    return FrozenDict(token=None, number=lease.number)
