"""Waiting for conversations to expire."""

from __future__ import annotations

import asyncio
import time

from jaf_memory_core.provider import BackendProvider

SHORT = 0.05
"""A time to live, in seconds, that is over soon."""

LATE = 5.0
"""Seconds within which an expired conversation must be absent."""

OFTEN = 100
"""So often it must have been asked for as well: in those seconds a busy machine may not get to ask at all."""


async def let_expire(provider: BackendProvider, *conversation_ids: str) -> None:
    """Give the conversations an expiry, and wait until each is absent."""
    for conversation_id in conversation_ids:
        await provider.set_expiry(conversation_id, SHORT)
    await wait_until_absent(provider, *conversation_ids)


async def wait_until_absent(provider: BackendProvider, *conversation_ids: str) -> None:
    """Wait until each of the conversations is absent."""
    latest, asked = time.monotonic() + LATE, 0
    for conversation_id in conversation_ids:
        while await provider.get_conversation(conversation_id) is not None:
            asked += 1
            assert asked < OFTEN or time.monotonic() < latest, "an expired conversation stays visible"
            await asyncio.sleep(0.005)
