"""Import of one conversation and of many at once, and the digest that is equal everywhere."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core.backends.in_memory import InMemoryConfig, create_in_memory_provider
from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.hostile import VALUES
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found, paged
from jaf_memory_testing.samples import FAR, at, ids, rich, said, talk
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


MANY = 300
"""Conversations: more than one step holds."""


def _source(n: int) -> ConversationMemory:
    return ConversationMemory(f"c{n}", f"u{n % 7}", talk(n % 5), {"n": n}, created_at=at(n))


class ImportChecks(Checks):
    """`import_conversations`, which large imports go by, and `append_many` below it."""

    async def test_import_many(self, store: Store) -> None:
        """Each of many conversations is imported whole, and its result stands in its place."""
        provider = await store.open()
        sources = [_source(n) for n in range(MANY)]
        results = await provider.import_conversations(sources)
        assert [done(result) for result in results] == [WriteResult(1, n % 5, n % 5) for n in range(MANY)]
        found = [conversation async for conversation in provider.iter_conversations()]
        assert [one.conversation_id for one in found] == [one.conversation_id for one in sources]
        for one, source in zip(found, sources, strict=True):
            assert (one.messages, one.user_id, one.created_at) == (source.messages, source.user_id, source.created_at)
            assert one.metadata == {"n": source.metadata["n"], "user_id": source.user_id}
            assert one.message_count == len(source.messages)
            assert one.expires_at is None
        assert (await provider.get_stats("u3"))["user_conversations"] == len(range(3, MANY, 7))
        query = MemoryQuery(user_id="u3", include_messages=False)
        assert {one.conversation_id for one in await provider.find_conversations(query)} == {
            f"c{n}" for n in range(3, MANY, 7)
        }
        assert await provider.clear_user_conversations("u3") == len(range(3, MANY, 7))
        assert len(await provider.find_conversations(MemoryQuery(include_messages=False))) == MANY - len(
            range(3, MANY, 7)
        )

    async def test_import_none(self, store: Store) -> None:
        """No conversations give no results."""
        provider = await store.open()
        assert await provider.import_conversations([]) == []

    async def test_import_many_times(self, store: Store) -> None:
        """Each keeps its own creation and expiry; one without times takes the provider's expiry."""
        provider = await store.open(ttl=5)
        await provider.import_conversations(
            [
                ConversationMemory("dated", "u", talk(1), created_at=at(3), active_at=at(7), updated_at=at(8)),
                ConversationMemory("ends", "u", talk(1), created_at=at(4), expires_at=FAR),
                ConversationMemory("renewed", "u", talk(1), created_at=at(5), expires_at=FAR, ttl=600),
                ConversationMemory("leased", messages=talk(1), ttl=600),
                ConversationMemory("now", messages=talk(1)),
                ConversationMemory("other", messages=rich(), created_at=at(6)),
            ]
        )
        found = {one.conversation_id: one async for one in provider.iter_conversations()}
        assert {key: found[key].created_at for key in ("dated", "ends", "renewed", "other")} == {
            "dated": at(3), "ends": at(4), "renewed": at(5), "other": at(6),
        }  # fmt: skip
        assert {key: one.ttl for key, one in found.items()} == {
            "dated": None, "ends": None, "renewed": 600, "leased": 600, "now": 5, "other": None,
        }  # fmt: skip
        assert (found["dated"].active_at, found["dated"].updated_at) == (at(7), at(8))
        ends = {key: one.expires_at for key, one in found.items() if one.expires_at is not None}
        assert set(ends) == {"ends", "renewed", "leased", "now"}
        for key in ("ends", "renewed"):
            assert abs(ends[key] - FAR) < timedelta(milliseconds=2)
        for key, ttl in (("leased", 600), ("now", 5)):
            made = found[key].updated_at
            assert made is not None
            assert abs(ends[key] - made - timedelta(seconds=ttl)) < timedelta(seconds=1)
            assert found[key].created_at == found[key].updated_at
        assert list(found["other"].messages) == rich()

    async def test_import_many_again(self, store: Store) -> None:
        """Importing the same again adds nothing, and writes nothing."""
        provider = await store.open()
        sources = [_source(n) for n in range(20)]
        await provider.import_conversations(sources)
        before = [one async for one in provider.iter_conversations()]
        again = await provider.import_conversations([source for source in sources if source.messages])
        assert {done(result).added for result in again} == {0}
        assert {done(result).version for result in again} == {1}
        after = [one async for one in provider.iter_conversations()]
        assert [one for one in after if one.messages] == [one for one in before if one.messages]

    async def test_import_many_adds_the_rest(self, store: Store) -> None:
        """What stands there in part gets what it lacks, and keeps all else."""
        provider = await store.open()
        done(await provider.store_messages("c1", talk(2), {"mine": 1}, user_id="u"))
        created = (await whole(provider, "c1")).created_at
        sources = [ConversationMemory(f"c{n}", "u", talk(5), {"x": 1}, created_at=at(n)) for n in range(3)]
        results = await provider.import_conversations(sources)
        assert [done(result).added for result in results] == [5, 3, 5]
        grown = await whole(provider, "c1")
        assert list(grown.messages) == talk(5)
        assert grown.metadata == {"mine": 1, "x": 1, "user_id": "u"}
        assert grown.created_at == created
        assert grown.version == 2

    async def test_import_one_id_twice(self, store: Store) -> None:
        """Conversations that come more than once in a call are imported in their order."""
        provider = await store.open()
        sources = [
            ConversationMemory("a", "u", talk(2), {"x": 1, "y": 1}),
            ConversationMemory("b", None, talk(1)),
            ConversationMemory("a", "u", talk(4), {"x": 2}),
            ConversationMemory("b", "u", talk(1, "other")),
            ConversationMemory("a", "v", talk(6)),
            ConversationMemory("a", None, talk(5)),
        ]
        results = await provider.import_conversations(sources)
        refused(results[4], MemoryConflictError)
        assert [done(result).added for result in results if result is not results[4]] == [2, 1, 2, 1, 1]
        assert list((await whole(provider, "a")).messages) == talk(5)
        assert (await whole(provider, "a")).metadata == {"x": 2, "y": 1, "user_id": "u"}
        assert ids((await whole(provider, "b")).messages) == ["m0", "other0"]
        assert (await whole(provider, "b")).user_id == "u"

    async def test_one_refusal_among_many(self, store: Store) -> None:
        """What is refused is refused alone: nothing of it is applied, and all others are imported."""
        provider = await store.open(max_message_bytes=1_000)
        done(await provider.store_messages("theirs", talk(1), user_id="them"))
        done(await provider.store_messages("differs", talk(1)))
        before = [await whole(provider, key) for key in ("theirs", "differs")]
        bad: dict[str, tuple[type[MemoryError], list[Message]]] = {
            "large": (MemoryInvalidInputError, [*talk(1), said("x" * 2_000)]),
            "twins": (MemoryConflictError, [said("a", message_id="m"), said("b", message_id="m")]),
            "theirs": (MemoryConflictError, talk(3)),
            "differs": (MemoryConflictError, [*talk(3, "n"), said("other", message_id="m0")]),
        }
        names = ["good0", "large", "theirs", "good1", "good2", "differs", "good3", "twins", "good4", "good5"]
        sources = [ConversationMemory(name, "me", bad[name][1] if name in bad else talk(2)) for name in names]
        results = await provider.import_conversations(sources)
        for source, result in zip(sources, results, strict=True):
            if source.conversation_id in bad:
                refused(result, bad[source.conversation_id][0])
            else:
                assert done(result) == WriteResult(1, 2, 2)
                assert list((await whole(provider, source.conversation_id)).messages) == talk(2)
        assert [await whole(provider, key) for key in ("theirs", "differs")] == before
        await absent(provider, "large")
        await absent(provider, "twins")

    async def test_import_many_for_one_user(self, store: Store) -> None:
        """Through a user's view all become that user's, and another's is refused."""
        provider = await store.open()
        done(await provider.store_messages("theirs", talk(1), user_id="them"))
        done(await provider.store_messages("nobodys", talk(1)))
        view = provider.for_user("me")
        sources = [ConversationMemory(key, messages=talk(2)) for key in ("a", "theirs", "b", "nobodys")]
        results = await view.import_conversations([*sources, ConversationMemory("c", "them", talk(1))])
        for index, kind in ((1, MemoryConflictError), (3, MemoryConflictError), (4, MemoryInvalidInputError)):
            refused(results[index], kind)
        assert [(await whole(provider, key)).user_id for key in ("a", "b")] == ["me", "me"]
        assert [(await whole(provider, key)).message_count for key in ("theirs", "nobodys")] == [1, 1]
        await absent(provider, "c")

    async def test_import_long_among_short(self, store: Store) -> None:
        """A conversation longer than a call may be is imported whole among others."""
        provider = await store.open(max_append_messages=10)
        sources = [ConversationMemory(f"c{n}", "u", talk(35 if n == 2 else 3), created_at=at(n)) for n in range(5)]
        results = await provider.import_conversations(sources)
        assert [done(result).added for result in results] == [3, 3, 35, 3, 3]
        for source in sources:
            assert (await whole(provider, source.conversation_id)).messages == source.messages

    async def test_import_many_capped(self, store: Store) -> None:
        """A cap keeps the newest messages of each."""
        provider = await store.open(max_messages=3)
        results = await provider.import_conversations([ConversationMemory(f"c{n}", messages=talk(n)) for n in range(6)])
        assert [done(result).message_count for result in results] == [0, 1, 2, 3, 3, 3]
        assert ids((await whole(provider, "c5")).messages) == ["m2", "m3", "m4"]
        # What stands before a message that is held was there once.
        again = await provider.import_conversations([ConversationMemory("c5", messages=talk(n)) for n in (3, 5)])
        assert [done(result) for result in again] == [WriteResult(1, 3, 0)] * 2

    async def test_import_without_messages(self, store: Store) -> None:
        """A conversation without messages is made once: again, it brings back no metadata that were changed since."""
        provider = await store.open()
        source = ConversationMemory("c", "u", metadata={"k": 1, "other": 1}, created_at=at(1))
        assert done(await provider.import_conversation(source)).added == 0
        await provider.update_metadata("c", {"k": 2}, remove=["other"])
        before = await whole(provider, "c")
        assert (before.user_id, before.metadata["k"], before.created_at) == ("u", 2, at(1))
        done(await provider.import_conversation(source))
        (again,) = await provider.import_conversations([source])
        assert done(again).added == 0
        assert await whole(provider, "c") == before
        (refusal,) = await provider.import_conversations([ConversationMemory("c", "another", metadata={"k": 3})])
        refused(refusal, MemoryConflictError)

    async def test_import_only_missing(self, store: Store) -> None:
        """With `only_missing` nothing that stands there is changed."""
        provider = await store.open()
        for key in ("equal", "part", "other"):
            done(await provider.store_messages(key, talk(2), {"x": 1}))
        before = {key: await whole(provider, key) for key in ("equal", "part", "other")}
        sources = [
            ConversationMemory("new", messages=talk(3)),
            ConversationMemory("equal", messages=talk(2), metadata={"x": 2}),
            ConversationMemory("part", messages=talk(3)),
            ConversationMemory("other", messages=talk(2, "other")),
        ]
        results = await provider.import_conversations(sources, only_missing=True)
        assert done(results[0]).added == 3
        assert done(results[1]).added == 0
        refused(results[2], MemoryConflictError)
        refused(results[3], MemoryConflictError)
        assert {key: await whole(provider, key) for key in before} == before
        assert list((await whole(provider, "new")).messages) == talk(3)

    async def test_concurrent_imports(self, store: Store) -> None:
        """Two providers that import the same at once, in two orders, lose and double nothing."""
        one, other = await store.open(), await store.open()
        sources = [ConversationMemory(f"c{n}", f"u{n % 3}", talk(4), created_at=at(n)) for n in range(24)]
        # In two orders: who locks what comes as it comes would wait in a circle.
        answers = await asyncio.gather(
            one.import_conversations(sources), other.import_conversations(list(reversed(sources)))
        )
        assert sum(done(result).added for answer in answers for result in answer) == 4 * len(sources)
        found = [conversation async for conversation in one.iter_conversations()]
        assert [conversation.conversation_id for conversation in found] == [f"c{n}" for n in range(24)]
        for conversation in found:
            assert ids(conversation.messages) == ["m0", "m1", "m2", "m3"]
            assert conversation.version == 1

    async def test_import_beside_appends(self, store: Store) -> None:
        """Appends to conversations while they are imported all stay, and an import's messages stay in one piece."""
        one, other = await store.open(), await store.open()
        sources = [ConversationMemory(f"c{n}", None, talk(4)) for n in range(20)]
        importing = asyncio.ensure_future(one.import_conversations(sources))
        appended: list[str] = []
        # Once at least, however quick the import is.
        while not importing.done() or not appended:
            message = said("x", message_id=f"other{len(appended)}")
            for source in sources:
                done(await other.append_messages(source.conversation_id, [message], create=True))
            appended.append(message.message_id)
            await asyncio.sleep(0)  # a store that waits for nothing lets nobody else have a turn
        for result in await importing:
            assert done(result).added == 4
        for source in sources:
            found = ids((await whole(one, source.conversation_id)).messages)
            assert [one for one in found if one.startswith("other")] == appended
            first = found.index("m0")
            assert found[first : first + 4] == ["m0", "m1", "m2", "m3"]
            assert len(found) == 4 + len(appended)
