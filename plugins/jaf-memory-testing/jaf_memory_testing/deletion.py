"""Deleting single messages: the others stay where they are, and whoever pages goes on where it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import MemoryQuery, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.hits import MessageSearch
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, whole
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.target import Store

STRIDE = 6
"""One of so many messages stays of a long conversation: of 9,690 more than 8,000 go, too many for one command."""


async def _thinned(store: Store, count: int = 10, gone: tuple[int, ...] = (0, 3, 4, 9)) -> BackendProvider:
    provider = await store.open()
    done(await provider.store_messages("c", talk(count), {"a": 1}, user_id="u"))
    assert await provider.delete_messages("c", [f"m{n}" for n in gone]) == len(gone)
    return provider


def _left(count: int = 10, gone: tuple[int, ...] = (0, 3, 4, 9)) -> list[str]:
    return [f"m{n}" for n in range(count) if n not in gone]


class DeletionChecks(Checks):
    """`delete_messages`."""

    async def test_delete_messages(self, store: Store) -> None:
        """It removes these messages and nothing else, and tells how many; a repetition writes nothing."""
        provider = await _thinned(store)
        conversation = await whole(provider)
        assert ids(conversation.messages) == _left()
        assert list(conversation.messages) == [talk(10)[n] for n in (1, 2, 5, 6, 7, 8)]
        assert conversation.metadata == {"a": 1, "user_id": "u"}
        assert (conversation.message_count, conversation.version) == (6, 2)
        assert await provider.delete_messages("c", ["m0", "m3", "none"]) == 0
        assert await whole(provider) == conversation
        assert await provider.delete_messages("c", ("m3", "m5", "m5")) == 1
        assert (await whole(provider)).version == 3

    async def test_delete_all_messages(self, store: Store) -> None:
        """Without any message left the conversation stands, and the next one comes behind what was deleted."""
        provider = await _thinned(store, 4, (0, 1, 2, 3))
        conversation = await whole(provider)
        assert (conversation.messages, conversation.message_count) == ((), 0)
        assert await provider.get_recent_messages("c") == []
        page = await provider.get_messages("c", after=-1)
        assert (list(page), page.before, page.after) == ([], None, 3)
        assert done(await provider.append_messages("c", talk(2, "n"))) == WriteResult(3, 2, 2)
        page = await provider.get_messages("c", after=3)
        assert (ids(page), page.before, page.after) == (["n0", "n1"], None, 5)

    async def test_delete_messages_of_nobody(self, store: Store) -> None:
        """A missing conversation raises `MemoryNotFoundError`, as somebody else's does; neither is changed."""
        provider = await _thinned(store)
        before = await whole(provider)
        with pytest.raises(MemoryNotFoundError):
            await provider.delete_messages("missing", ["m1"])
        await absent(provider, "missing")
        for user in ("v", "c"):
            with pytest.raises(MemoryNotFoundError):
                await provider.for_user(user).delete_messages("c", ["m1"])
        done(await provider.store_messages("d", talk(3)))
        with pytest.raises(MemoryNotFoundError):
            await provider.for_user("u").delete_messages("d", ["m1"])
        assert await whole(provider) == before
        assert await provider.for_user("u").delete_messages("c", ["m1"]) == 1
        assert ids((await whole(provider, "d")).messages) == ["m0", "m1", "m2"]

    @pytest.mark.parametrize("version", [0, 1, 3, 2**70])
    async def test_delete_messages_at_a_version(self, store: Store, version: int) -> None:
        """At another version than the expected one it is a conflict, also where nothing would be deleted."""
        provider = await _thinned(store)
        before = await whole(provider)
        for wanted in (["m1"], ["none"], []):
            with pytest.raises(MemoryConflictError) as caught:
                await provider.delete_messages("c", wanted, expected_version=version)
            assert (caught.value.expected_version, caught.value.actual_version) == (version, 2)
        assert await whole(provider) == before
        assert await provider.delete_messages("c", ["m1"], expected_version=2) == 1

    @pytest.mark.parametrize("wanted", ["m1", b"m1", {"m1": 1}, 5, None, ["m1", ""], ["m1", 1], ["m1", "\ud800"]])
    async def test_no_message_ids(self, store: Store, wanted: Any) -> None:
        """What is no list of ids is refused, a single id above all, and nothing is deleted."""
        provider = await _thinned(store)
        before = await whole(provider)
        with pytest.raises(MemoryInvalidInputError):
            await provider.delete_messages("c", wanted)
        limited = await store.open(max_append_messages=2)
        with pytest.raises(MemoryInvalidInputError):
            await limited.delete_messages("c", ["m1", "m2", "m5"])
        assert await whole(provider) == before

    async def test_positions_stay(self, store: Store) -> None:
        """Pages, both ways and of any size, hold what is left, and their places are those from before."""
        provider = await _thinned(store)
        places = {f"m{n}": n for n in range(10)}
        for size in (1, 2, 3, 50):
            found: list[str] = []
            before: int | None = None
            while True:
                page = await provider.get_messages("c", before=before, limit=size)
                found[:0] = ids(page)
                assert page.after == places[page[-1].message_id]
                before = page.before
                if before is None:
                    break
                assert before == places[page[0].message_id]
            assert found == _left()
            found, after = [], -1
            while page := await provider.get_messages("c", after=after, limit=size):
                found += ids(page)
                after = page.after
                assert after == places[page[-1].message_id]
            assert found == _left()
            assert (await provider.get_messages("c", after=after)).after == after
        for n in range(11):
            assert (
                ids(await provider.get_messages("c", before=n, limit=2)) == [m for m in _left() if places[m] < n][-2:]
            )
            assert ids(await provider.get_messages("c", after=n, limit=2)) == [m for m in _left() if places[m] > n][:2]

    async def test_a_place_held_across_a_deletion(self, store: Store) -> None:
        """Who has read up to a message misses nothing and sees nothing twice, whichever messages go meanwhile."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(6)))
        seen = await provider.get_messages("c", after=-1, limit=3)
        older = await provider.get_messages("c", limit=2)
        assert older.after == 5
        # The last one that was seen, one behind it, and the very last of all.
        assert await provider.delete_messages("c", ["m2", "m3", "m5"]) == 3
        done(await provider.append_messages("c", talk(2, "n")))
        following = await provider.get_messages("c", after=seen.after)
        assert ids(following) == ["m4", "n0", "n1"], "the position of a deleted message was given again"
        assert ids(await provider.get_messages("c", after=older.after)) == ["n0", "n1"]
        assert ids(await provider.get_messages("c", after=following.after)) == []
        assert ids(await provider.get_messages("c", before=older.before)) == ["m0", "m1"]
        done(await provider.append_messages("c", talk(1, "o")))
        assert ids(await provider.get_messages("c", after=following.after)) == ["o0"]

    async def test_first_messages_beside_gaps(self, store: Store) -> None:
        """The first messages come along: those before a position that the page does not hold."""
        provider = await _thinned(store)
        places = {f"m{n}": n for n in range(10)}
        for leading in (0, 1, 2, 5, 6, 100):
            for limit in (0, 1, 3, 50):
                page = await provider.get_messages("c", limit=limit, leading=leading)
                rest = _left()[: -limit or None] if limit < 6 else []
                assert ids(page.leading) == [m for m in rest if places[m] < leading]

    async def test_delete_messages_of_a_summary(self, store: Store) -> None:
        """A summary goes with a message that it covers, and stays where only later ones went."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        incarnation = (await whole(provider)).incarnation
        assert await provider.store_summary("c", Summary("so far", "m4"), incarnation) is True
        assert await provider.delete_messages("c", ["m6", "m9"]) == 2
        for limit, shown in ((None, "m5 m7 m8"), (50, "m5 m7 m8"), (2, "m7 m8"), (1, "m8"), (0, "")):
            found = await provider.get_condensed_conversation("c", limit)
            assert found is not None
            assert found.summary is not None
            assert " ".join(ids(found.conversation.messages)) == shown
            assert found.unread == 3 - len(found.conversation.messages)
            if found.unread:
                assert found.before is not None
                unread = await provider.get_messages("c", before=found.before, limit=found.unread)
                assert [*ids(unread), *ids(found.conversation.messages)] == ["m5", "m7", "m8"]
        assert await provider.delete_messages("c", ["m2"]) == 1
        found = await provider.get_condensed_conversation("c", 50)
        assert found is not None
        assert found.summary is None
        assert "so far" not in repr(await provider.backend.read("c")), "what was deleted lives on in a summary"
        assert ids(found.conversation.messages) == ["m0", "m1", "m3", "m4", "m5", "m7", "m8"]
        assert await provider.store_summary("c", Summary("anew", "m3"), incarnation) is True
        found = await provider.get_condensed_conversation("c", 50)
        assert found is not None
        assert ids(found.conversation.messages) == ["m4", "m5", "m7", "m8"]

    async def test_what_counts_and_searches_sees_it_gone(self, store: Store) -> None:
        """A search finds a message no more, at no other place; counts and sizes are those of what is left."""
        provider = await _thinned(store)
        done(await provider.append_messages("c", [said("needle", message_id="x"), said("needle", message_id="y")]))
        hits = await provider.search_messages(MessageSearch("needle"))
        assert [(hit.position, hit.message.message_id) for hit in hits] == [(11, "y"), (10, "x")]
        first = await provider.search_messages(MessageSearch("needle", limit=1))
        assert await provider.delete_messages("c", ["y"]) == 1
        assert [hit.message.message_id for hit in await provider.search_messages(MessageSearch("needle"))] == ["x"]
        again = await provider.search_messages(MessageSearch("needle", cursor=first.cursor))
        assert [hit.message.message_id for hit in again] == ["x"]
        done(await provider.store_messages("d", (await whole(provider)).messages, user_id="v"))
        mine, other = await provider.get_stats("u"), await provider.get_stats("v")
        for name in ("total_messages", "total_storage_size", "user_messages"):
            assert mine[name] == other[name]
        (listed,) = await provider.find_conversations(MemoryQuery(user_id="u", include_messages=False))
        assert (listed.message_count, await provider.get_recent_messages("c", 1)) == (
            7,
            [said("needle", message_id="x")],
        )

    async def test_deleted_messages_sent_again(self, store: Store) -> None:
        """Who sends all of a history again brings nothing back before what stands; a message by itself is news."""
        provider = await _thinned(store)
        assert done(await provider.append_messages("c", [*talk(9), *talk(1, "n")])) == WriteResult(3, 7, 1)
        assert ids((await whole(provider)).messages) == [*_left(), "n0"]
        assert done(await provider.append_messages("c", talk(1, start=3))).added == 1
        assert done(await provider.append_messages("c", [said("other words", message_id="m4")])).added == 1
        assert ids((await whole(provider)).messages)[-3:] == ["n0", "m3", "m4"]
        page = await provider.get_messages("c", after=9)
        assert (ids(page), page.after) == (["n0", "m3", "m4"], 12)

    async def test_copies_of_a_thinned_conversation(self, store: Store) -> None:
        """Forks, imports and replacements hold what is left, and nothing of what was deleted."""
        provider = await _thinned(store)
        source = await whole(provider)
        assert await provider.fork_conversation("c", "fork") == 6
        assert await provider.fork_conversation("c", "part", "m6") == 3
        assert ids((await whole(provider, "part")).messages) == ["m1", "m2", "m5"]
        for key in ("c", "fork"):
            assert (await whole(provider, key)).messages == source.messages
            part = await provider.get_conversation_until_message(key, "m7")
            assert part is not None
            assert ids(part.messages) == ["m1", "m2", "m5", "m6"]
        assert done(await provider.append_messages("part", talk(1, "n"))) == WriteResult(2, 4, 1)
        assert await provider.truncate_conversation_after("fork", "m6") == 3
        done(await provider.append_messages("fork", talk(1, "n")))
        page = await provider.get_messages("fork", after=4)
        assert (ids(page), page.after) == (["m5", "n0"], 6)
        assert digest(await whole(provider)) == digest(source)
        done(await provider.store_messages("c", talk(2, "s")))
        assert (await provider.get_messages("c")).after == 1

    async def test_caps_count_what_is_left(self, store: Store) -> None:
        """A cap removes the oldest of what is left, and the rest stays where it is."""
        provider = await _thinned(store)
        capped = await store.open(max_messages=4)
        assert done(await capped.append_messages("c", talk(1, "n"))) == WriteResult(3, 4, 1)
        page = await provider.get_messages("c")
        assert (ids(page), page.before, page.after) == (["m6", "m7", "m8", "n0"], None, 10)
        assert await provider.delete_messages("c", ["m7"]) == 1
        assert done(await capped.append_messages("c", talk(4, "o"))) == WriteResult(5, 4, 4)
        page = await provider.get_messages("c", limit=1)
        assert (ids(page), page.before, page.after) == (["o3"], 14, 14)

    async def test_revised_beside_gaps(self, store: Store) -> None:
        """A message put in the place of another has its position, wherever others were deleted."""
        provider = await _thinned(store)
        revised = {"m5": said("instead", message_id="r5"), "m8": said("changed", message_id="m8")}
        await provider.revise_messages("c", revised)
        assert ids((await whole(provider)).messages) == ["m1", "m2", "r5", "m6", "m7", "m8"]
        assert ids(await provider.get_messages("c", after=4, limit=1)) == ["r5"]
        assert [one.content for one in await provider.get_messages("c", after=7)] == ["changed"]

    @needs("backend")
    @pytest.mark.parametrize("count", [230, 1_300, 9_690])
    async def test_delete_many_messages(self, store: Store, count: int) -> None:
        """Of a long conversation any number goes at once, and what is left can be paged and appended to."""
        provider, other = await store.open(), await store.open()
        done(await provider.store_messages("c", talk(count)))
        gone = tuple(n for n in range(count) if n % STRIDE)
        assert await provider.delete_messages("c", [f"m{n}" for n in gone]) == len(gone)
        left = _left(count, gone)
        assert ids((await whole(other)).messages) == left
        assert ids(await other.get_messages("c", limit=count)) == left
        assert ids(await other.get_messages("c", limit=len(left) - 5)) == left[5:]
        behind = [f"m{n}" for n in range(0, count, STRIDE) if n > count // 2]
        assert ids(await other.get_messages("c", after=count // 2, limit=300)) == behind[:300]
        done(await other.append_messages("c", [*talk(count - (count - 1) % STRIDE), *talk(300, "n")]))
        assert ids((await whole(provider)).messages) == [*left, *ids(talk(300, "n"))]

    @needs("backend")
    async def test_two_delete_at_once(self, store: Store) -> None:
        """Of two who delete the same at once each message is counted once, and what both leave is right."""
        provider, other = await store.open(), await store.open()
        await other.open()
        for round_ in range(8):
            key = f"c{round_}"
            done(await provider.store_messages(key, talk(12)))
            wanted = [f"m{n}" for n in range(2, 10)]
            counts = await asyncio.gather(
                *(one.delete_messages(key, wanted[start : start + 5]) for one in (provider, other) for start in (0, 3))
            )
            assert sum(counts) == len(wanted)
            assert ids((await whole(other, key)).messages) == ["m0", "m1", "m10", "m11"]

    @needs("backend")
    async def test_delete_beside_appends(self, store: Store) -> None:
        """Beside appends every message that stays is there once, in order, and never at another position."""
        provider, other = await store.open(), await store.open()
        await other.open()
        done(await provider.store_messages("c", talk(20)))
        places: dict[str, int] = {}

        async def append(name: str) -> None:
            for n in range(6):
                done(await other.append_messages("c", talk(2, f"{name}{n}-")))

        async def delete(start: int) -> None:
            for n in range(start, 20, 2):
                assert await provider.delete_messages("c", [f"m{n}"]) == 1

        async def look() -> None:
            for _ in range(4):
                after = -1
                while one := await other.get_messages("c", after=after, limit=1):
                    (message,), after = one, one.after
                    assert places.setdefault(message.message_id, after) == after, "a message has another position"

        await asyncio.gather(append("a"), append("b"), delete(0), delete(1), look())
        names = ids((await whole(provider)).messages)
        for writer in ("a", "b"):
            assert [one for one in names if one.startswith(writer)] == [
                f"{writer}{n}-{i}" for n in range(6) for i in (0, 1)
            ]
        assert len(names) == 24
