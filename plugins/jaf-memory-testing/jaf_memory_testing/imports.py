"""Importing many conversations at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.samples import FAR, at, ids, rich, said, talk
from jaf_memory_testing.target import Store

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
