"""Iterating over conversations."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expect import done, whole
from jaf_memory_testing.samples import talk
from jaf_memory_testing.seeding import kept, put
from jaf_memory_testing.store import Store


async def passed(provider: BackendProvider, query: MemoryQuery | None = None, **filters: Any) -> list[str]:
    """The ids that an iteration passes, in order."""
    query = query or MemoryQuery(**filters)
    return [conversation.conversation_id async for conversation in provider.iter_conversations(query)]


class IterationChecks(Checks):
    """`iter_conversations`: what export, copy and purge go by."""

    async def test_order_of_creation(self, store: Store) -> None:
        """Conversations come in the order of their creation, whatever was written last."""
        provider = await store.open()
        assert await passed(provider) == []
        for n in (3, 1, 2, 0):
            done(await provider.store_messages(f"c{n}", talk(1)))
            await asyncio.sleep(0.002)
        done(await provider.append_messages("c3", talk(1, "n")))
        assert await passed(provider) == ["c3", "c1", "c2", "c0"]

    @needs("backend")
    async def test_ties_of_creation(self, store: Store) -> None:
        """Conversations of one `created_at` come by id, ascending by code points."""
        provider = await store.open()
        names = ["b", "a", "B", "a1", "a10", "a2", "ä", "😀", "\uffee"]
        await put(provider, *(kept(name, created=5, updated=9 + n) for n, name in enumerate(names)))
        await put(provider, kept("first", created=4, updated=99), kept("last", created=6))
        assert await passed(provider) == ["first", *sorted(names), "last"]

    async def test_no_query_is_all(self, store: Store) -> None:
        """Without a query it passes all, whole."""
        provider = await store.open()
        for n in range(3):
            done(await provider.store_messages(f"c{n}", talk(n), {"n": n}, user_id="u"))
        all_of_them = [conversation async for conversation in provider.iter_conversations()]
        assert all_of_them == [await whole(provider, f"c{n}") for n in range(3)]

    async def test_filters(self, store: Store) -> None:
        """Filters, `limit` and `offset` hold as in `find_conversations`."""
        provider = await store.open()
        for n in range(10):
            done(await provider.store_messages(f"c{n}", talk(1), {"n": n % 3}, user_id=f"u{n % 2}"))
        assert await passed(provider, user_id="u1") == ["c1", "c3", "c5", "c7", "c9"]
        assert await passed(provider, user_id="u0", metadata={"n": 0}) == ["c0", "c6"]
        assert await passed(provider, limit=2, offset=3) == ["c3", "c4"]
        assert await passed(provider, limit=0) == []
        assert await passed(provider, conversation_id="c4") == ["c4"]

    async def test_without_messages_in_an_iteration(self, store: Store) -> None:
        """`include_messages=False` leaves `messages` empty, and `message_count` filled."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(4)))
        query = MemoryQuery(include_messages=False)
        (conversation,) = [conversation async for conversation in provider.iter_conversations(query)]
        assert conversation.messages == ()
        assert conversation.message_count == 4

    @needs("backend")
    async def test_many(self, store: Store) -> None:
        """It passes 1,200 conversations, many of one `created_at`, each once and in order."""
        provider = await store.open()
        names = [f"c{n:04}" for n in range(1200)]
        await put(provider, *(kept(name, created=n // 7, updated=2000 - n) for n, name in enumerate(names)))
        assert await passed(provider) == names
        assert await passed(provider, include_messages=False, limit=1150, offset=25) == names[25:1175]

    @needs("backend")
    async def test_goes_on_after(self, store: Store) -> None:
        """`query.after(last)` goes on behind the last one, within ties, too."""
        provider = await store.open()
        names = [f"c{n}" for n in range(9)]
        await put(provider, *(kept(name, created=n // 4, updated=50 - n) for n, name in enumerate(names)))
        for n, name in enumerate(names):
            assert await passed(provider, MemoryQuery().after(await whole(provider, name))) == names[n + 1 :]

    async def test_misses_nothing_that_stood(self, store: Store) -> None:
        """Beside writes, deletes and creations it passes all that stood throughout, and none twice."""
        provider = await store.open()
        for n in range(60):
            done(await provider.store_messages(f"c{n:02}", talk(1)))
        seen: list[str] = []
        async for conversation in provider.iter_conversations():
            seen.append(conversation.conversation_id)
            n = len(seen)
            done(await provider.append_messages(f"c{n * 7 % 60:02}", talk(1, f"n{n}."), create=True))
            done(await provider.store_messages(f"new{n}", talk(1)))
            if n % 5 == 0:
                await provider.delete_conversation(f"c{(n + 7) % 60:02}")
            if n > 200:
                break
        gone = {f"c{(n + 7) % 60:02}" for n in range(5, len(seen) + 1, 5)}
        assert {f"c{n:02}" for n in range(60)} - gone <= set(seen)
        standing = [name for name in seen if name not in gone]
        assert len(standing) == len(set(standing))

    async def test_deleted_ahead(self, store: Store) -> None:
        """What is deleted before its turn, and long before it, is not passed."""
        provider = await store.open()
        names = [f"c{n:03}" for n in range(300)]
        for name in names:
            done(await provider.store_messages(name, []))
        seen: list[str] = []
        async for conversation in provider.iter_conversations():
            seen.append(conversation.conversation_id)
            if len(seen) == 1:
                for name in names[290:]:
                    assert await provider.delete_conversation(name) is True
        assert seen == names[:290]

    async def test_broken_off(self, store: Store) -> None:
        """An iteration that is broken off leaves a provider that works, several at once, too."""
        provider = await store.open()
        for n in range(20):
            done(await provider.store_messages(f"c{n:02}", talk(1)))
        for stop in (1, 5):
            async with aclosing(provider.iter_conversations()) as one, aclosing(provider.iter_conversations()) as two:
                for _ in range(stop):
                    assert (await anext(one)) == (await anext(two))
        assert len(await passed(provider)) == 20
        done(await provider.append_messages("c00", talk(1, "n")))

    async def test_writes_between_two_steps(self, store: Store) -> None:
        """An iteration that stands still keeps nobody from writing."""
        one, other = await store.open(), await store.open()
        for n in range(3):
            done(await one.store_messages(f"c{n}", talk(1)))
        async with aclosing(one.iter_conversations()) as iteration:
            await anext(iteration)
            done(await asyncio.wait_for(one.append_messages("c0", talk(1, "n")), 20))
            done(await asyncio.wait_for(other.append_messages("c1", talk(1, "n")), 20))
            assert await asyncio.wait_for(other.delete_conversation("c2"), 20) is True

    async def test_no_query_to_iterate(self, store: Store) -> None:
        """Something else than a `MemoryQuery` is refused."""
        provider = await store.open()
        nothing: Any = "u"
        with pytest.raises(MemoryInvalidInputError):
            await anext(provider.iter_conversations(nothing))
