"""Expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import (
    SHORT,
    absent,
    done,
    let_expire,
    refused,
    renewed_in_time,
    wait_until_absent,
    whole,
)
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import ids, talk
from jaf_memory_testing.target import Store

CLOSE = timedelta(milliseconds=2)
"""A server may keep milliseconds only."""


def left(conversation: ConversationMemory) -> timedelta:
    """From the last write to the expiry."""
    assert conversation.expires_at is not None
    assert conversation.updated_at is not None
    return conversation.expires_at - conversation.updated_at


class ExpiryChecks(Checks):
    """From the moment it expires, a conversation is absent."""

    async def _expired(self, store: Store) -> BackendProvider:
        provider = await store.open()
        done(await provider.store_messages("c", talk(3), {"x": 1}, user_id="u"))
        await let_expire(provider, "c")
        return provider

    async def test_never_by_itself(self, store: Store) -> None:
        """Without a ttl a conversation has no expiry."""
        provider = await store.open(ttl=None)
        done(await provider.store_messages("c", talk(1)))
        conversation = await whole(provider)
        assert conversation.expires_at is None
        assert conversation.ttl is None

    async def test_ttl_of_the_provider(self, store: Store) -> None:
        """A conversation that a provider makes expires its `ttl` after the write."""
        provider = await store.open(ttl=600)
        done(await provider.store_messages("a", talk(1)))
        done(await provider.append_messages("b", talk(1), create=True))
        for name in ("a", "b"):
            conversation = await whole(provider, name)
            assert abs(left(conversation) - timedelta(seconds=600)) <= CLOSE
            assert conversation.ttl == 600

    async def test_ttl_of_the_provider_ends(self, store: Store) -> None:
        """It is absent once the provider's `ttl` is over, for every provider on the store."""
        provider, other = await store.open(ttl=SHORT), await store.open()
        done(await provider.store_messages("c", talk(1)))
        await wait_until_absent(provider, "c")
        await absent(other)

    async def test_set_expiry(self, store: Store) -> None:
        """`set_expiry` counts from now, and gives the new version."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        assert await provider.set_expiry("c", 90.5) == 2
        conversation = await whole(provider)
        assert abs(left(conversation) - timedelta(seconds=90.5)) <= CLOSE
        assert conversation.ttl == 90.5
        assert list(conversation.messages) == talk(1)

    async def test_set_expiry_none(self, store: Store) -> None:
        """`None` lets the conversation stay for ever, whatever the provider's default is."""
        provider = await store.open(ttl=600)
        done(await provider.store_messages("c", talk(1)))
        assert await provider.set_expiry("c", None) == 2
        done(await provider.append_messages("c", talk(1, "n")))
        conversation = await whole(provider)
        assert conversation.expires_at is None
        assert conversation.ttl is None

    async def test_set_expiry_of_missing(self, store: Store) -> None:
        """A missing conversation raises `MemoryNotFoundError`."""
        provider = await store.open()
        for ttl in (60, None):
            with pytest.raises(MemoryNotFoundError):
                await provider.set_expiry("c", ttl)
        await absent(provider)

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "60", 1e300])
    async def test_no_ttl(self, store: Store, ttl: Any) -> None:
        """What is no time above 0 is refused, and changes nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        with pytest.raises(MemoryInvalidInputError):
            await provider.set_expiry("c", ttl)
        assert (await whole(provider)).version == 1

    async def test_longest_ttl(self, store: Store) -> None:
        """A ttl of a hundred years is kept."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        await provider.set_expiry("c", 100 * 365 * 86_400)
        assert abs(left(await whole(provider)) - timedelta(days=36_500)) <= CLOSE

    async def test_reads_find_nothing(self, store: Store) -> None:
        """An expired conversation is absent for every read."""
        provider = await self._expired(store)
        await absent(provider)
        assert await provider.get_conversation_until_message("c", "m1") is None
        for read in (provider.get_recent_messages, provider.get_messages):
            with pytest.raises(MemoryNotFoundError):
                await read("c")
        assert await found(provider) == await found(provider, user_id="u") == []
        assert await found(provider, conversation_id="c") == await found(provider, metadata={"x": 1}) == []
        assert await passed(provider) == await passed(provider, user_id="u") == []

    async def test_writes_find_nothing(self, store: Store) -> None:
        """An expired conversation is absent for every write to an existing one, and for `delete`."""
        provider = await self._expired(store)
        refused(await provider.append_messages("c", talk(1, "n")), MemoryNotFoundError)
        refused(await provider.append_messages("c", talk(3)), MemoryNotFoundError)
        writes: list[tuple[Callable[..., Awaitable[int]], Any]] = [
            (provider.update_metadata, {"x": 2}),
            (provider.set_expiry, None),
            (provider.truncate_conversation_after, "m1"),
            (provider.delete_messages, ["m1"]),
        ]
        for write, argument in writes:
            with pytest.raises(MemoryNotFoundError):
                await write("c", argument)
        await absent(provider)
        assert await provider.delete_conversation("c") is False

    @pytest.mark.parametrize("way", ["store", "append"])
    async def test_starts_anew(self, store: Store, way: str) -> None:
        """Storing an expired conversation starts anew: another one, at version 1, with nothing of the old."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3, "old"), {"old": 1}, user_id="old"))
        old = await whole(provider)
        await let_expire(provider, "c")
        if way == "store":
            result = await provider.store_messages("c", talk(2, "old", start=1), user_id="new", expected_version=0)
        else:
            result = await provider.append_messages("c", talk(2, "old", start=1), user_id="new", create=True)
        assert done(result) == WriteResult(1, 2, 2)
        conversation = await whole(provider)
        assert ids(conversation.messages) == ["old1", "old2"]
        assert conversation.metadata == {"user_id": "new"}
        assert conversation.incarnation != old.incarnation
        assert conversation.expires_at is None
        assert conversation.created_at is not None
        assert old.created_at is not None
        assert conversation.created_at > old.created_at
        assert await found(provider, user_id="old") == []
        assert await found(provider, user_id="new") == ["c"]

    @pytest.mark.parametrize("way", ["store", "append", "update", "truncate"])
    async def test_writes_renew(self, store: Store, way: str) -> None:
        """Every write renews the expiry by the conversation's own ttl, also that of a provider with another default."""
        provider, other = await store.open(), await store.open(ttl=5)
        done(await provider.store_messages("c", talk(3)))
        await provider.set_expiry("c", 600)
        before = await whole(provider)
        await asyncio.sleep(0.01)
        writes: dict[str, Callable[[], Awaitable[Any]]] = {
            "store": lambda: other.store_messages("c", talk(1)),
            "append": lambda: other.append_messages("c", talk(1, "n")),
            "update": lambda: other.update_metadata("c", {"x": 1}),
            "truncate": lambda: other.truncate_conversation_after("c", "m2"),
        }
        await writes[way]()
        after = await whole(provider)
        assert after.version == before.version + 1
        assert after.ttl == 600
        assert abs(left(after) - timedelta(seconds=600)) <= CLOSE
        assert isinstance(after.expires_at, datetime)
        assert isinstance(before.expires_at, datetime)
        assert after.expires_at > before.expires_at

    async def test_writes_give_no_expiry(self, store: Store) -> None:
        """A conversation without an expiry gets none by a provider that has a default."""
        provider, other = await store.open(), await store.open(ttl=5)
        done(await provider.store_messages("c", talk(1)))
        done(await other.append_messages("c", talk(1, "n")))
        done(await other.store_messages("c", talk(2)))
        assert (await whole(provider)).expires_at is None

    async def test_last_set_expiry_counts(self, store: Store) -> None:
        """A conversation whose expiry was put off, or taken away, outlives the first one."""
        provider = await store.open()
        for name, later in (("a", 600.0), ("b", None)):
            done(await provider.store_messages(name, talk(1)))
            await renewed_in_time(provider, name, 1, partial(provider.set_expiry, name, later))
        done(await provider.store_messages("first", talk(1)))
        await provider.set_expiry("first", 1)
        await wait_until_absent(provider, "first")
        await whole(provider, "a")
        await whole(provider, "b")

    async def test_purge(self, store: Store) -> None:
        """`purge_expired` removes what has expired, tells how many, and leaves the rest."""
        provider = await store.open()
        for n in range(6):
            done(await provider.store_messages(f"c{n}", talk(1), user_id="u"))
        await provider.set_expiry("c5", 600)
        await let_expire(provider, "c0", "c2", "c4")
        assert await provider.purge_expired() == 3
        assert await provider.purge_expired() == 0
        assert await passed(provider) == ["c1", "c3", "c5"]

    async def test_purge_nothing(self, store: Store) -> None:
        """Purging a store without expired conversations removes none."""
        provider = await store.open()
        assert await provider.purge_expired() == 0
        done(await provider.store_messages("c", talk(1)))
        assert await provider.purge_expired() == 0
        assert (await whole(provider)).version == 1

    async def test_purge_leaves_what_was_stored_anew(self, store: Store) -> None:
        """A conversation that was stored anew under an expired one's id is not purged."""
        provider = await self._expired(store)
        done(await provider.store_messages("c", talk(1)))
        assert await provider.purge_expired() == 0
        assert list((await whole(provider)).messages) == talk(1)

    async def test_expires_during_an_iteration(self, store: Store) -> None:
        """What expires before its turn is not passed."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(1)))
        seen = []
        async for conversation in provider.iter_conversations():
            seen.append(conversation.conversation_id)
            if seen == ["a"]:
                await let_expire(provider, "c")
        assert seen == ["a", "b"]


class ReadChecks(Checks):
    """Reads never write."""

    async def test_reads_change_nothing(self, store: Store) -> None:
        """No read changes version, times or expiry of a conversation."""
        provider = await store.open(ttl=600)
        done(await provider.store_messages("c", talk(5), {"x": 1}, user_id="u"))
        before = await whole(provider)
        await asyncio.sleep(0.01)
        await self._read_everything(provider)
        assert await whole(provider) == before
        done(await provider.append_messages("c", talk(1, "n"), expected_version=1))

    async def test_reads_renew_no_expiry(self, store: Store) -> None:
        """No read puts off the moment at which a conversation expires."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5), {"x": 1}, user_id="u"))
        await provider.set_expiry("c", 600)
        before = await whole(provider)
        await asyncio.sleep(0.01)
        await self._read_everything(provider)
        assert (await whole(provider)).expires_at == before.expires_at

    @needs("dump")
    async def test_reads_store_nothing(self, store: Store) -> None:
        """No read changes anything that is stored."""
        assert store.target.dump is not None
        provider = await store.open(ttl=600)
        done(await provider.store_messages("c", talk(5), {"x": 1}, user_id="u"))
        before = await store.target.dump()
        await asyncio.sleep(0.01)
        await self._read_everything(provider)
        assert await store.target.dump() == before

    async def _read_everything(self, provider: BackendProvider) -> None:
        for reader in (provider, provider.for_user("u"), provider.for_user("v")):
            await reader.get_conversation("c")
            await reader.get_conversation("missing")
            await reader.get_conversation_until_message("c", "m3")
            await found(reader)
            await found(reader, metadata={"x": 1})
            await passed(reader)
            await reader.get_stats()
            await reader.health_check()
        await provider.get_recent_messages("c", limit=2)
        await provider.get_messages("c", limit=2)
        await found(provider, user_id="u", include_messages=False)
        await provider.get_stats("u")
