"""Counting."""

from __future__ import annotations

import asyncio

from jaf_memory_core import codec
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expect import done, whole
from jaf_memory_testing.expiring import let_expire
from jaf_memory_testing.samples import rich, said, talk
from jaf_memory_testing.store import Store


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
