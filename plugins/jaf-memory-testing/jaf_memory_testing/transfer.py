"""Import, and the digest that is equal everywhere."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core.backends.in_memory import InMemoryConfig, create_in_memory_provider
from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.hostile import VALUES
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found, paged
from jaf_memory_testing.samples import at, rich, said, talk
from jaf_memory_testing.target import Store


class TransferChecks(Checks):
    """`import_conversation`, which copies and restores go by."""

    async def test_import_makes(self, store: Store) -> None:
        """It makes a missing conversation, with owner, metadata, messages and its own times and ttl."""
        provider = await store.open(ttl=5)
        source = ConversationMemory(
            "c", "u", talk(3), {"x": 1}, created_at=at(0), active_at=at(5), updated_at=at(9), version=7,
            incarnation="other", ttl=600, expires_at=at(10**9),
        )  # fmt: skip
        assert done(await provider.import_conversation(source)) == WriteResult(1, 3, 3)
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(3)
        assert conversation.user_id == "u"
        assert conversation.metadata == {"x": 1, "user_id": "u"}
        assert (conversation.created_at, conversation.active_at, conversation.updated_at) == (at(0), at(5), at(9))
        assert conversation.ttl == 600
        assert conversation.expires_at is not None
        assert abs(conversation.expires_at - at(10**9)) < timedelta(milliseconds=2)
        assert conversation.incarnation != "other"

    async def test_import_without_times(self, store: Store) -> None:
        """A conversation without times of its own is made now, and takes the provider's expiry."""
        provider = await store.open(ttl=5)
        done(await provider.import_conversation(ConversationMemory("c", messages=talk(1))))
        conversation = await whole(provider)
        assert conversation.created_at == conversation.updated_at
        assert conversation.ttl == 5

    async def test_import_of_one_time(self, store: Store) -> None:
        """Of the last activity and the last change one may be given, and stands for both; none: both are now."""
        provider = await store.open()
        await provider.import_conversations(
            [
                ConversationMemory("a", messages=talk(1), active_at=at(5)),
                ConversationMemory("b", messages=talk(1), updated_at=at(9)),
                ConversationMemory("c", messages=talk(1), active_at=at(9), updated_at=at(5)),
                ConversationMemory("d", messages=talk(1), created_at=at(5)),
            ]
        )
        times = {one.conversation_id: (one.active_at, one.updated_at) async for one in provider.iter_conversations()}
        assert {key: times[key] for key in "abc"} == {"a": (at(5),) * 2, "b": (at(9),) * 2, "c": (at(9),) * 2}
        assert times["d"][0] == times["d"][1] not in times["b"]

    @pytest.mark.parametrize("way", ["one by one", "together", "with an expiry"])
    async def test_a_list_is_the_same_after_a_move(self, store: Store, way: str) -> None:
        """What an import makes keeps its times, and so its place in a list, and filters find it as before."""
        provider = await store.open()
        later: dict[str, Any] = {"expires_at": at(10**9)} if way == "with an expiry" else {}
        sources = [
            ConversationMemory(f"c{n}", "u", talk(2), created_at=at(n), active_at=active, updated_at=updated, **later)
            for n, (active, updated) in enumerate((at(10 + n * 3 % 7), at(20 + n * 5 % 7)) for n in range(7))
        ]
        if way == "one by one":
            for source in sources:
                done(await provider.import_conversation(source))
        else:
            assert [done(result).added for result in await provider.import_conversations(sources)] == [2] * 7
        newest = [f"c{n}" for n in sorted(range(7), key=lambda n: n * 3 % 7, reverse=True)]
        assert await found(provider, user_id="u") == await found(provider) == newest
        assert await found(provider, active_until=at(13)) == newest[-3:]
        assert await found(provider, updated_since=at(24)) == [name for name in newest if name in ("c1", "c4", "c5")]
        assert await paged(provider, MemoryQuery(user_id="u", limit=2)) == newest
        await provider.update_metadata("c0", {"title": "another"})
        assert await found(provider) == newest
        done(await provider.append_messages("c0", talk(1, "n")))
        assert await found(provider) == ["c0", *newest[:-1]]

    @pytest.mark.parametrize("way", ["in parts", "after an interruption", "changed since"])
    async def test_an_import_goes_on(self, store: Store, way: str) -> None:
        """What comes in parts, or is gone on with later, keeps the times of the whole, unless it was changed since."""
        provider = await store.open(max_append_messages=2)
        times = {"created_at": at(0), "active_at": at(1), "updated_at": at(2), "expires_at": at(10**9)}
        whole_one = ConversationMemory("c", "u", talk(5), {"x": 1}, ttl=600, **times)
        if way != "in parts":
            done(await provider.import_conversation(replace(whole_one, messages=tuple(talk(2)))))
        if way == "changed since":
            await provider.update_metadata("c", {"x": 2})
        before = await provider.get_conversation("c")
        await asyncio.sleep(0.002)
        assert done(await provider.import_conversation(whole_one)).message_count == 5
        after = await whole(provider)
        if way != "changed since":
            assert {name: getattr(after, name) for name in times} == times
        else:
            assert before is not None
            assert after.active_at == after.updated_at not in {before.active_at, before.updated_at}
        assert await found(provider, user_id="u") == ["c"]

    async def test_no_time_runs_back_by_an_import(self, store: Store) -> None:
        """What stands keeps its times beside an older copy of it, and is changed now where that one adds messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        await provider.update_metadata("c", {"x": 1})
        before = await whole(provider)
        older = ConversationMemory("c", messages=talk(2), created_at=at(0), active_at=at(1), updated_at=at(2))
        assert done(await provider.import_conversation(older)).added == 0
        assert await whole(provider) == before
        await asyncio.sleep(0.002)
        assert done(await provider.import_conversation(replace(older, messages=tuple(talk(3))))).added == 1
        after = await whole(provider)
        assert after.created_at == before.created_at
        for name in ("active_at", "updated_at"):
            assert getattr(after, name) > getattr(before, name)

    async def test_imports_order(self, store: Store) -> None:
        """Imported conversations are passed in the order of their own creation."""
        provider = await store.open()
        for n in (3, 1, 2):
            done(await provider.import_conversation(ConversationMemory(f"c{n}", created_at=at(n))))
        assert await passed(provider) == ["c1", "c2", "c3"]

    async def test_import_twice(self, store: Store) -> None:
        """Importing the same conversation again adds nothing, and writes nothing."""
        provider = await store.open()
        source = ConversationMemory("c", "u", talk(3), {"x": 1}, created_at=at(0))
        done(await provider.import_conversation(source))
        before = await whole(provider)
        assert done(await provider.import_conversation(source)) == WriteResult(1, 3, 0)
        assert await whole(provider) == before

    async def test_import_goes_on(self, store: Store) -> None:
        """Importing a longer state adds what is missing; other content under a held id is a conflict."""
        provider = await store.open()
        done(await provider.import_conversation(ConversationMemory("c", messages=talk(2))))
        assert done(await provider.import_conversation(ConversationMemory("c", messages=talk(5)))).added == 3
        other = ConversationMemory("c", messages=[said("other", message_id="m1")])
        refused(await provider.import_conversation(other), MemoryConflictError)
        assert list((await whole(provider)).messages) == talk(5)

    async def test_import_long(self, store: Store) -> None:
        """A conversation longer than an append may be is imported whole."""
        provider = await store.open(max_append_messages=10)
        source = ConversationMemory("c", "u", talk(35), {"x": 1}, created_at=at(0))
        result = done(await provider.import_conversation(source))
        assert result.message_count == 35
        assert list((await whole(provider)).messages) == talk(35)
        assert (await whole(provider)).created_at == at(0)

    async def test_same_digest_everywhere(self, store: Store) -> None:
        """A conversation has one digest: here, in memory, and here again after both copies."""
        provider = await store.open()
        other = create_in_memory_provider(InMemoryConfig(max_messages=None))
        values = {name: value for name, value in VALUES.items() if name not in ("wide", "4000-digits")}
        messages = [*rich(), *(said("x", message_id=name, value=value) for name, value in values.items())]
        done(await provider.store_messages("c", messages, {**values, "\0": "\ud800"}, user_id="u"))
        there = digest(await whole(provider))
        done(await other.import_conversation(await whole(provider)))
        assert digest(await whole(other)) == there
        await provider.delete_conversation("c")
        await absent(provider)
        done(await provider.import_conversation(await whole(other)))
        assert digest(await whole(provider)) == there
        await other.close()

    @pytest.mark.parametrize("change", ["order", "content", "type", "owner", "metadata", "field"])
    async def test_digest_sees_every_change(self, store: Store, change: str) -> None:
        """Another owner, metadata, order, content, or type of a number is another digest."""
        provider = await store.open()
        one, two = said("a", message_id="a", value=1), said("b", message_id="b")
        changes: dict[str, tuple[Any, Any, str]] = {
            "order": ([two, one], {"x": 1}, "u"),
            "content": ([one, said("B", message_id="b")], {"x": 1}, "u"),
            "type": ([said("a", message_id="a", value=1.0), two], {"x": 1}, "u"),
            "owner": ([one, two], {"x": 1}, "v"),
            "metadata": ([one, two], {"x": True}, "u"),
            "field": ([one, said("b", message_id="b", name="n")], {"x": 1}, "u"),
        }
        digests = set()
        for key, (messages, metadata, user_id) in {"c": ([one, two], {"x": 1}, "u"), "d": changes[change]}.items():
            done(await provider.store_messages(key, messages, metadata, user_id=user_id))
            digests.add(digest(await whole(provider, key)))
        assert len(digests) == 2

    async def test_digest_is_of_content_only(self, store: Store) -> None:
        """Id, times, version, expiry and the order of keys do not count."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", message_id="m", value={"a": 1, "b": 2})], {"x": 1, "y": 2}))
        done(await provider.store_messages("d", []))
        await provider.set_expiry("d", 600)
        done(await provider.append_messages("d", [said("x", message_id="m", value={"b": 2, "a": 1})], {"y": 2, "x": 1}))
        assert digest(await whole(provider, "c")) == digest(await whole(provider, "d"))
