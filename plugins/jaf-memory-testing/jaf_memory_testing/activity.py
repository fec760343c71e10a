"""What moves a conversation in a list, and what leaves it where it is; the two times that this goes by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery, Summary
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import said, talk
from jaf_memory_testing.target import Store

Change = Callable[[BackendProvider], Awaitable[Any]]


async def _annotated(provider: BackendProvider) -> None:
    held = await provider.acquire_lease("a", 600)
    await provider.renew_lease(held, 600)
    await provider.release_lease(held)


async def _summarised(provider: BackendProvider) -> None:
    conversation = await whole(provider, "a")
    assert await provider.store_summary("a", Summary("what was said", "m1"), conversation.incarnation)


MOVES: Mapping[str, Change] = {
    "append": lambda provider: provider.append_messages("a", talk(1, "n"), {"x": 1}),
    "append beside what is held": lambda provider: provider.append_messages("a", [*talk(1), *talk(1, "n")]),
    "append that makes room": lambda provider: provider.append_messages("a", talk(3, "n")),
    "store": lambda provider: provider.store_messages("a", talk(1)),
    "store what stands": lambda provider: provider.store_messages("a", talk(3)),
    "truncate": lambda provider: provider.truncate_conversation_after("a", "m2"),
    "delete messages": lambda provider: provider.delete_messages("a", ["m1"]),
    "revise": lambda provider: provider.revise_messages("a", {"m1": said("revised", message_id="m1")}),
}
"""Changes of the messages of `a`, which has three and takes four."""

STAYS: Mapping[str, Change] = {
    "metadata": lambda provider: provider.update_metadata("a", {"title": "another"}),
    "metadata by an append": lambda provider: provider.append_messages("a", [], {"title": "another"}),
    "a first owner": lambda provider: provider.append_messages("a", [], user_id="u"),
    "an expiry": lambda provider: provider.set_expiry("a", 600),
    "no expiry": lambda provider: provider.set_expiry("a", None),
    "a lease": _annotated,
    "a summary": _summarised,
    "a regeneration point": lambda provider: provider.mark_regeneration_point("a", "m1"),
}
"""Changes of what stands beside the messages."""


async def _two(store: Store) -> tuple[BackendProvider, ConversationMemory]:
    """`a`, and `b` that is newer."""
    provider = await store.open(max_messages=4)
    for name in ("a", "b"):
        done(await provider.store_messages(name, talk(3)))
        # Longer than a millisecond, since a store may keep no more than these.
        await asyncio.sleep(0.002)
    assert await found(provider) == ["b", "a"]
    return provider, await whole(provider, "a")


def _times(conversation: ConversationMemory) -> tuple[Any, Any]:
    assert conversation.active_at is not None
    assert conversation.updated_at is not None
    assert conversation.active_at <= conversation.updated_at
    return conversation.active_at, conversation.updated_at


class ActivityChecks(Checks):
    """`active_at` and `updated_at`, and the order of lists."""

    @pytest.mark.parametrize("way", MOVES)
    async def test_messages_move_a_list(self, store: Store, way: str) -> None:
        """What changes messages moves both times, and brings its conversation to the front."""
        provider, before = await _two(store)
        await MOVES[way](provider)
        active, updated = _times(await whole(provider, "a"))
        assert active > _times(before)[0], f"{way}: active_at stands still"
        assert updated > _times(before)[1], f"{way}: updated_at stands still"
        assert await found(provider) == ["a", "b"]
        assert await found(provider, active_since=active) == ["a"]

    @pytest.mark.parametrize("way", STAYS)
    async def test_nothing_else_moves_a_list(self, store: Store, way: str) -> None:
        """What changes no message moves `updated_at` alone, and leaves its conversation where it is in a list."""
        provider, before = await _two(store)
        await STAYS[way](provider)
        after = await whole(provider, "a")
        active, updated = _times(after)
        assert active == _times(before)[0], f"{way}: active_at has moved"
        assert updated > _times(before)[1], f"{way}: updated_at stands still"
        assert await found(provider) == ["b", "a"]
        assert await found(provider, active_since=(await whole(provider, "b")).active_at) == ["b"]
        assert await found(provider, updated_since=updated) == ["a"]
        assert await found(provider, updated_until=updated) == ["b"]
        (first,) = await provider.find_conversations(MemoryQuery(limit=1))
        assert await found(provider, MemoryQuery().after(first)) == ["a"]
        if after.user_id is not None:
            done(await provider.store_messages("c", talk(1), user_id=after.user_id))
            assert await found(provider, user_id=after.user_id) == ["c", "a"]

    async def test_an_owner_given_later(self, store: Store) -> None:
        """One that becomes a user's has the place in the user's list that its activity gives it."""
        provider = await store.open()
        for name, user in (("0", None), ("a", None), ("b", "u"), ("c", None)):
            done(await provider.store_messages(name, talk(1), user_id=user))
            await asyncio.sleep(0.002)
        done(await provider.append_messages("a", [], user_id="u"))
        assert await found(provider, user_id="u") == ["b", "a"]
        done(await provider.append_messages("c", [], user_id="u"))
        assert await found(provider, user_id="u") == ["c", "b", "a"]
        assert await found(provider, user_id="u", limit=1) == ["c"]
        await provider.update_metadata("0", {"user_id": "u"})
        assert await found(provider, user_id="u") == ["c", "b", "a", "0"]

    async def test_activity_goes_on_behind_a_change(self, store: Store) -> None:
        """An append behind a change of metadata moves both times again, to one moment."""
        provider, before = await _two(store)
        await provider.update_metadata("a", {"title": "another"})
        _, changed = _times(await whole(provider, "a"))
        await asyncio.sleep(0.002)
        done(await provider.append_messages("a", talk(1, "n")))
        active, updated = _times(await whole(provider, "a"))
        assert active == updated > changed > _times(before)[1]
        assert await found(provider, updated_since=changed) == ["a"]
        assert await found(provider, updated_until=updated) == ["b"]

    async def test_a_fork_is_new(self, store: Store) -> None:
        """A fork is made now, and its parent stays where it is in a list."""
        provider, before = await _two(store)
        await provider.update_metadata("a", {"title": "another"})
        assert await provider.fork_conversation("a", "c") == 3
        made = await whole(provider, "c")
        assert made.active_at == made.updated_at
        assert (await whole(provider, "a")).active_at == before.active_at
        assert await found(provider) == ["c", "b", "a"]
