"""Over the whole store: iterating, and counting."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from jaf_memory_core import codec
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, let_expire, whole
from jaf_memory_testing.samples import kept, put, rich, said, talk
from jaf_memory_testing.target import Store


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
            # What is made meanwhile may be passed as well, and then there is always one more.
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
                # At the far end, where no page can have been read yet.
                for name in names[290:]:
                    assert await provider.delete_conversation(name) is True
        assert seen == names[:290]

    async def test_made_again_ahead(self, store: Store) -> None:
        """What is made again before its turn comes last or not at all: whoever goes on behind it would skip others."""
        provider = await store.open()
        names = [f"c{n:03}" for n in range(120)]
        for name in names:
            done(await provider.store_messages(name, []))
        again = {"c003", "c060", "c118"}
        seen: list[tuple[Any, str]] = []
        async for conversation in provider.iter_conversations():
            if not seen:
                for name in sorted(again):
                    assert await provider.delete_conversation(name) is True
                    done(await provider.store_messages(name, []))
            seen.append((conversation.created_at, conversation.conversation_id))
        assert seen == sorted(seen)
        assert {name for _, name in seen} | again == set(names)

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


class StatisticsChecks(Checks):
    """`get_stats` and the figures of `health_check`."""

    async def test_of_nothing(self, store: Store) -> None:
        """An empty store has zeros, and no oldest conversation."""
        provider = await store.open()
        assert await provider.get_stats() == {
            "total_conversations": 0,
            "total_messages": 0,
            "avg_messages_per_conversation": 0.0,
            "total_storage_size": 0,
            "oldest_conversation": None,
            "newest_conversation": None,
        }

    async def test_of_all(self, store: Store) -> None:
        """It counts conversations and messages, their average, and the first and last creation."""
        provider = await store.open()
        for n in range(4):
            done(await provider.store_messages(f"c{n}", talk(n)))
            await asyncio.sleep(0.002)
        done(await provider.append_messages("c0", talk(3, "n")))
        stats = await provider.get_stats()
        assert stats["total_conversations"] == 4
        assert stats["total_messages"] == 9
        assert stats["avg_messages_per_conversation"] == 2.25
        assert stats["oldest_conversation"] == (await whole(provider, "c0")).created_at
        assert stats["newest_conversation"] == (await whole(provider, "c3")).created_at
        assert "user_conversations" not in stats

    async def test_of_a_user(self, store: Store) -> None:
        """With a user all of it is about that user, and stands under `user_conversations` and `user_messages`, too."""
        provider = await store.open()
        for n in range(6):
            done(await provider.store_messages(f"c{n}", talk(n), user_id=f"u{n % 2}"))
        done(await provider.store_messages("nobodys", talk(9)))
        stats = await provider.get_stats(user_id="u1")
        assert stats["total_conversations"] == stats["user_conversations"] == 3
        assert stats["total_messages"] == stats["user_messages"] == 1 + 3 + 5
        assert stats["avg_messages_per_conversation"] == 3.0
        assert stats["oldest_conversation"] == (await whole(provider, "c1")).created_at
        assert stats["newest_conversation"] == (await whole(provider, "c5")).created_at

    async def test_of_an_unknown_user(self, store: Store) -> None:
        """A user without conversations has zeros."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2), user_id="u"))
        stats = await provider.get_stats(user_id="U")
        assert stats["user_conversations"] == stats["user_messages"] == stats["total_storage_size"] == 0
        assert stats["oldest_conversation"] is None

    async def test_size(self, store: Store) -> None:
        """`total_storage_size` is the bytes of the encoded messages."""
        provider = await store.open()
        messages = [*rich(), said("é😀\0", message_id="m"), said("\ud800", message_id="n", value=[1e22, -0.0])]
        done(await provider.store_messages("c", messages[:2]))
        done(await provider.append_messages("c", messages))
        done(await provider.store_messages("d", talk(3)))
        expected = codec.size(map(codec.encode, [*messages, *talk(3)]))
        assert (await provider.get_stats())["total_storage_size"] == expected

    async def test_follows_every_change(self, store: Store) -> None:
        """Replacing, truncating and deleting are counted."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(5), user_id="u"))
        done(await provider.store_messages("a", talk(2)))
        await provider.truncate_conversation_after("b", "m1")
        await provider.delete_conversation("c")
        size = codec.size(map(codec.encode, [*talk(2), *talk(1)]))
        for stats in (await provider.get_stats(), await provider.get_stats("u")):
            assert stats["total_conversations"] == 2
            assert stats["total_messages"] == 3
            assert stats["total_storage_size"] == size

    async def test_expired_does_not_count(self, store: Store) -> None:
        """What has expired is not counted, though it may not have been removed yet."""
        provider = await store.open()
        for name in ("a", "b"):
            done(await provider.store_messages(name, talk(2), user_id="u"))
        await let_expire(provider, "a")
        for stats in (await provider.get_stats(), await provider.get_stats("u")):
            assert stats["total_conversations"] == 1
            assert stats["total_messages"] == 2
            assert stats["oldest_conversation"] == (await whole(provider, "b")).created_at

    async def test_health_figures(self, store: Store) -> None:
        """`health_check` has the provider's name, latency, warnings, details, and the documented metrics."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        health = await provider.health_check()
        assert health["healthy"] is True
        assert health["provider"] == provider.name
        assert health["message"]
        assert health["latency_ms"] >= 0
        assert all(isinstance(warning, str) for warning in health["warnings"])
        assert isinstance(health["details"], dict)
        assert health["metrics"]["active_connections"] >= 0
        assert health["metrics"]["memory_usage"] >= 0
        assert health["metrics"]["avg_response_time"] >= 0
