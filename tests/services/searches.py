"""Conversations to search in, and what a search or a store with an index says: for the tests of the stores."""

from __future__ import annotations

from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import said

from jaf_memory_core import MessageSearch


async def fill(provider, count=100, word="word", key="c"):
    """Conversations of two messages each."""
    for n in range(count):
        turn = [said(f"{word}{n} here", message_id="q"), said("fine", "assistant", message_id="a")]
        done(await provider.append_messages(f"{key}{n}", turn, user_id=f"u{n % 3}", create=True))


async def found(provider, text, **fields):
    """Where something is said."""
    return [hit.conversation_id for hit in await provider.search_messages(MessageSearch(text, **fields))]


async def state(provider):
    """What health_check says of its index for searches."""
    return (await provider.health_check())["details"]["search"]
