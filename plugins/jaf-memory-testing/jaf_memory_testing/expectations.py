"""What checks expect of answers, and waiting for conversations to expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryError, MemoryNotFoundError
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_testing.samples import talk

E = TypeVar("E", bound=MemoryError)


def done(result: Result) -> WriteResult:
    """What a write answered; it must have succeeded."""
    assert isinstance(result, Success), f"the write was refused: {result!r}"
    return result.data


def refused(result: Result, kind: type[E]) -> E:
    """The error of a write; it must have been refused in that way."""
    assert isinstance(result, Failure), f"the write was not refused: {result!r}"
    # Exactly that kind: an error below it would tell the caller something else.
    assert type(result.error) is kind, f"it was refused with {result.error!r}"
    assert result.error.outcome == "not_applied"
    return result.error


async def whole(provider: MemoryProvider, conversation_id: str = "c") -> ConversationMemory:
    """A conversation that must be there."""
    conversation = await provider.get_conversation(conversation_id)
    assert conversation is not None, f"conversation {conversation_id!r} is not there"
    return conversation


async def absent(provider: MemoryProvider, conversation_id: str = "c") -> None:
    """No conversation must be there."""
    assert await provider.get_conversation(conversation_id) is None


def same_values(left: object, right: object) -> None:
    """Both must be equal in type and order, all the way down: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    assert _exact(left) == _exact(right)


def _exact(value: object) -> object:
    if isinstance(value, dict):
        return [(key, _exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return type(value).__name__, repr(value)


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


async def renewed_in_time(
    provider: BackendProvider, conversation_id: str, seconds: float, renew: Callable[[], Awaitable[object]]
) -> None:
    """Let a conversation expire in so many seconds, and renew it before; once more where a busy machine was late."""
    for _ in range(OFTEN):
        begun = time.monotonic()
        await provider.set_expiry(conversation_id, seconds)
        try:
            await renew()
        except MemoryNotFoundError:
            renewed = None
        else:
            renewed = await provider.get_conversation(conversation_id)
        # Renewed in time, or gone though it was: either is the store's.
        if time.monotonic() - begun < seconds:
            assert renewed is not None, "a conversation that was renewed before its end has expired"
            return
        done(await provider.store_messages(conversation_id, talk(3), {"a": 1}, user_id="u"))
    raise AssertionError(f"no renewal within {seconds} s in {OFTEN} tries: the machine is too slow")


async def wait_until_absent(provider: BackendProvider, *conversation_ids: str) -> None:
    """Wait until each of the conversations is absent."""
    latest, asked = time.monotonic() + LATE, 0
    for conversation_id in conversation_ids:
        while await provider.get_conversation(conversation_id) is not None:
            asked += 1
            assert asked < OFTEN or time.monotonic() < latest, "an expired conversation stays visible"
            await asyncio.sleep(0.005)
