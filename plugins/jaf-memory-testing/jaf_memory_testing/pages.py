"""Parts of a conversation: pages of messages, what stands before one, cutting off, and caps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jaf_memory_core.conversations import Summary
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, whole
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.target import Store


class PageChecks(Checks):
    """`get_messages`, backwards and forwards by position."""

    async def test_last_page(self, store: Store) -> None:
        """Without `before` it gives the last messages, oldest first, and the way to those before."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        page = await provider.get_messages("c", limit=4)
        assert list(page) == talk(4, start=6)
        assert page.before == 6

    async def test_default_page(self, store: Store) -> None:
        """It gives 50 when nothing is said."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(60)))
        page = await provider.get_messages("c")
        assert list(page) == talk(50, start=10)
        assert page.before == 10

    @pytest.mark.parametrize("size", [1, 3, 10, 11])
    async def test_all_pages(self, store: Store, size: int) -> None:
        """The pages together are the conversation, and the first one says that nothing is older."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        page = await provider.get_messages("c", limit=size)
        messages = list(page)
        while page.before is not None:
            page = await provider.get_messages("c", before=page.before, limit=size)
            assert 0 < len(page) <= size
            assert len(messages) < 10, "the pages do not end"
            messages = [*page, *messages]
        assert messages == talk(10)

    async def test_pages_stand_still(self, store: Store) -> None:
        """Appends between two pages neither repeat nor skip a message."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        first = await provider.get_messages("c", limit=4)
        done(await provider.append_messages("c", talk(3, "n")))
        assert list(await provider.get_messages("c", before=first.before, limit=4)) == talk(4, start=2)

    async def test_any_position(self, store: Store) -> None:
        """`before` is a position: 0 gives nothing, one beyond the end gives the last page."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        for before in range(8):
            page = await provider.get_messages("c", before=before, limit=2)
            end = min(before, 5)
            assert list(page) == talk(5)[max(0, end - 2) : end]
            assert page.before == (max(0, end - 2) or None)

    async def test_forwards(self, store: Store) -> None:
        """With `after` come the first messages behind a position; a page's `after` leads on, now and later."""
        provider = await store.open(max_messages=8)
        done(await provider.store_messages("c", talk(5)))
        for size in (1, 2, 5, 50):
            page = await provider.get_messages("c", after=-1, limit=size)
            found: list[Message] = []
            while page:
                assert len(found) < 5, "the pages do not end"
                assert page.before == (len(found) or None)
                found += page
                page = await provider.get_messages("c", after=page.after, limit=size)
            assert found == talk(5)
            assert page.after == 4
        last = await provider.get_messages("c", limit=2)
        assert (last.after, last.before) == (4, 3)
        done(await provider.append_messages("c", talk(4, start=5)))
        assert list(await provider.get_messages("c", after=last.after, limit=3)) == talk(3, start=5)
        assert list(await provider.get_messages("c", after=4, before=7)) == talk(2, start=5)
        capped = await provider.get_messages("c", after=-1, limit=2, leading=2)
        assert (list(capped), capped.after, capped.before) == (talk(2, start=1), 2, None), "a cap has removed the first"
        beside = await provider.get_messages("c", after=5, limit=1, leading=2)
        assert (list(beside), list(beside.leading)) == (talk(1, start=6), talk(1, start=1))

    async def test_forwards_from_nowhere(self, store: Store) -> None:
        """Behind the end there is nothing, and its `after` is where the conversation ends; missing is missing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5), user_id="u"))
        await provider.truncate_conversation_after("c", "m2")
        for after in (1, 4, 2**70):
            page = await provider.get_messages("c", after=after)
            assert (list(page), page.after) == ([], 1)
        done(await provider.store_messages("empty", []))
        assert (await provider.get_messages("empty", after=-1)).after == -1
        with pytest.raises(MemoryNotFoundError):
            await provider.get_messages("missing", after=-1)
        with pytest.raises(MemoryNotFoundError):
            await provider.for_user("v").get_messages("c", after=-1)

    async def test_first_messages_beside_a_page(self, store: Store) -> None:
        """With `leading` the first messages come along: those before that position, and none that the page holds."""
        provider = await store.open(max_messages=8)
        done(await provider.store_messages("c", talk(8)))
        for before in (None, 0, 3, 6, 100):
            for leading in (0, 1, 3, 100):
                page = await provider.get_messages("c", before=before, limit=4, leading=leading)
                end = 8 if before is None else min(before, 8)
                first = max(0, end - 4)
                assert list(page) == talk(8)[first:end]
                assert list(page.leading) == talk(8)[: min(first, leading)]
        done(await provider.append_messages("c", talk(2, start=8)))
        page = await provider.get_messages("c", limit=4, leading=3)
        assert list(page.leading) == talk(1, start=2), "a cap has removed the first two"

    async def test_the_newest_of_a_condensed_conversation(self, store: Store) -> None:
        """With a limit, the newest that no summary covers, how many are left out, and the first messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10), {"a": 1}, user_id="u"))
        incarnation = (await whole(provider)).incarnation
        for covered, summary in ((0, None), (3, "m2"), (7, "m6")):
            if summary is not None:
                assert await provider.store_summary("c", Summary("so far", summary), incarnation) is True
            for limit in (0, 1, 5, 100):
                found = await provider.get_condensed_conversation("c", limit, leading=2)
                assert found is not None
                left = talk(10)[covered:]
                shown = left[max(0, len(left) - limit) :]
                assert list(found.conversation.messages) == shown
                assert found.unread == len(left) - len(shown)
                assert found.before == (10 - len(shown) if found.unread else None)
                assert (found.summary is None) == (summary is None)
                assert list(found.leading) == talk(min(2, max(0, 10 - limit)))
                assert (found.conversation.message_count, found.conversation.user_id) == (10, "u")
                assert found.conversation.metadata == {"a": 1, "user_id": "u"}
        assert await provider.get_condensed_conversation("nobody", 5) is None
        assert await provider.for_user("v").get_condensed_conversation("c", 5, leading=2) is None

    async def test_no_messages_asked(self, store: Store) -> None:
        """`limit=0` gives none."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        assert list(await provider.get_messages("c", limit=0)) == []

    async def test_page_of_missing(self, store: Store) -> None:
        """A missing conversation raises `MemoryNotFoundError`; an empty one gives an empty page."""
        provider = await store.open()
        with pytest.raises(MemoryNotFoundError):
            await provider.get_messages("c")
        done(await provider.store_messages("c", []))
        page = await provider.get_messages("c")
        assert list(page) == []
        assert page.before is None

    @pytest.mark.parametrize("number", [-1, 1.0, True, "1"])
    async def test_no_number_of_messages(self, store: Store, number: Any) -> None:
        """What is no whole number from 0 is neither a limit nor a position."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        with pytest.raises(MemoryInvalidInputError):
            await provider.get_messages("c", limit=number)
        with pytest.raises(MemoryInvalidInputError):
            await provider.get_messages("c", before=number)
        with pytest.raises(MemoryInvalidInputError):
            await provider.get_messages("c", after=-2 if number == -1 else number)
        with pytest.raises(MemoryInvalidInputError):
            await provider.get_messages("c", leading=number)
        with pytest.raises(MemoryInvalidInputError):
            await provider.get_recent_messages("c", limit=number)

    async def test_many_at_once(self, store: Store) -> None:
        """Of many who read and append at the same moment, each in another conversation, each gets its own answer."""
        provider = await store.open()
        names = [f"c{number}" for number in range(24)]
        for name in names:
            done(await provider.store_messages(name, [said(name)]))
        for turn in range(3):
            appended = await asyncio.gather(
                *(provider.append_messages(name, [said(f"{name} {turn}")]) for name in names)
            )
            assert [done(answer).message_count for answer in appended] == [turn + 2] * 24
            read = await asyncio.gather(*(provider.get_recent_messages(name, turn + 2) for name in names))
            for name, messages in zip(names, read, strict=True):
                assert [one.content for one in messages] == [name, *(f"{name} {past}" for past in range(turn + 1))]


class CutChecks(Checks):
    """`get_conversation_until_message` and `truncate_conversation_after`."""

    async def test_until(self, store: Store) -> None:
        """It gives the conversation up to, without, that message, and writes nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5), {"a": 1}, user_id="u"))
        before = await whole(provider)
        for n in range(5):
            part = await provider.get_conversation_until_message("c", f"m{n}")
            assert part is not None
            assert list(part.messages) == talk(n)
            assert (part.user_id, part.metadata, part.version) == ("u", before.metadata, 1)
        assert await whole(provider) == before

    async def test_until_missing(self, store: Store) -> None:
        """It gives `None` if there is no such message, or no such conversation."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        done(await provider.store_messages("d", [said("x", message_id="other")]))
        for key, message_id in (("c", "m2"), ("c", "other"), ("c", "M0"), ("c", "m"), ("missing", "m0")):
            assert await provider.get_conversation_until_message(key, message_id) is None

    async def test_truncate(self, store: Store) -> None:
        """It removes that message and all after it, and tells how many."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(6), {"a": 1}, user_id="u"))
        assert await provider.truncate_conversation_after("c", "m4") == 2
        assert await provider.truncate_conversation_after("c", "m1") == 3
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(1)
        assert conversation.metadata == {"a": 1, "user_id": "u"}
        assert conversation.version == 3

    async def test_truncate_all(self, store: Store) -> None:
        """Truncated at its first message, a conversation stands without messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        assert await provider.truncate_conversation_after("c", "m0") == 3
        conversation = await whole(provider)
        assert conversation.messages == ()
        assert conversation.message_count == 0
        assert await provider.get_recent_messages("c") == []

    async def test_truncate_at_nothing(self, store: Store) -> None:
        """Without such a message it removes none, and writes nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        before = await whole(provider)
        for message_id in ("m3", "M1", "m", "*"):
            assert await provider.truncate_conversation_after("c", message_id) == 0
        assert await whole(provider) == before

    async def test_truncate_missing(self, store: Store) -> None:
        """A missing conversation raises `MemoryNotFoundError`, and stays missing."""
        provider = await store.open()
        with pytest.raises(MemoryNotFoundError):
            await provider.truncate_conversation_after("c", "m0")
        await absent(provider)

    async def test_truncated_comes_again(self, store: Store) -> None:
        """What was cut off is held no longer: the same ids may come again, with other content, too."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(4)))
        await provider.truncate_conversation_after("c", "m2")
        assert done(await provider.append_messages("c", [said("other", message_id="m3"), *talk(3)])) == WriteResult(
            3, 4, 2
        )
        conversation = await whole(provider)
        assert ids(conversation.messages) == ["m0", "m1", "m3", "m2"]
        assert conversation.messages[2].content == "other"


class CapChecks(Checks):
    """What a cap keeps, and what it leaves out."""

    async def test_store_keeps_the_newest(self, store: Store) -> None:
        """Of a store beyond the cap the newest messages stay."""
        provider = await store.open(max_messages=3)
        assert done(await provider.store_messages("c", talk(5))) == WriteResult(1, 3, 3)
        assert list((await whole(provider)).messages) == talk(3, start=2)

    async def test_append_drops_the_oldest(self, store: Store) -> None:
        """An append beyond the cap removes the oldest messages."""
        provider = await store.open(max_messages=3)
        done(await provider.store_messages("c", talk(2)))
        assert done(await provider.append_messages("c", talk(2, start=2))) == WriteResult(2, 3, 2)
        assert list((await whole(provider)).messages) == talk(3, start=1)
        assert await provider.get_recent_messages("c", limit=10) == talk(3, start=1)
        assert (await provider.get_stats())["total_messages"] == 3

    async def test_batch_is_cut_first(self, store: Store) -> None:
        """A batch above the cap is cut to its newest, and takes the place of all that was there."""
        provider = await store.open(max_messages=3)
        done(await provider.store_messages("c", talk(2)))
        assert done(await provider.append_messages("c", talk(8, "n"))) == WriteResult(2, 3, 3)
        assert list((await whole(provider)).messages) == talk(3, "n", start=5)

    async def test_cap_of_one(self, store: Store) -> None:
        """With a cap of one the last message stays."""
        provider = await store.open(max_messages=1)
        for n in range(4):
            done(await provider.append_messages("c", talk(2, start=2 * n), create=True))
            assert list((await whole(provider)).messages) == talk(1, start=2 * n + 1)

    async def test_exactly_at_the_cap(self, store: Store) -> None:
        """A conversation of exactly as many messages as the cap keeps them all."""
        provider = await store.open(max_messages=3)
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(3)))
        assert list((await whole(provider)).messages) == talk(3)

    async def test_retry_under_a_cap(self, store: Store) -> None:
        """A batch that is sent again adds nothing, though the cap has removed a part of it."""
        provider = await store.open(max_messages=3)
        done(await provider.store_messages("c", talk(2)))
        done(await provider.append_messages("c", talk(3, start=1)))
        before = await whole(provider)
        for batch in (talk(3, start=1), talk(4), talk(3), talk(2), talk(2, start=2)):
            assert done(await provider.append_messages("c", batch)).added == 0
        assert await whole(provider) == before

    async def test_old_before_held(self, store: Store) -> None:
        """On a trimmed conversation, what stands in a batch before a held message is old, and is not added."""
        provider = await store.open(max_messages=4)
        done(await provider.store_messages("c", talk(6)))
        assert ids((await whole(provider)).messages) == ["m2", "m3", "m4", "m5"]
        batch = [*talk(1, start=1), *talk(1, start=4), *talk(2, start=6)]
        assert done(await provider.append_messages("c", batch)).added == 2
        assert list((await whole(provider)).messages) == talk(4, start=4)

    async def test_old_before_held_of_a_later_cap(self, store: Store) -> None:
        """Where a cap once cut, this holds for a provider without a cap, too; where none did, all is added."""
        capped, free = await store.open(max_messages=2), await store.open()
        done(await capped.store_messages("c", talk(4)))
        done(await free.append_messages("c", talk(5)))
        assert list((await whole(free)).messages) == talk(3, start=2)
        done(await free.store_messages("d", talk(1, start=3)))
        done(await free.append_messages("d", talk(5)))
        assert ids((await whole(free, "d")).messages) == ["m3", "m0", "m1", "m2", "m4"]

    async def test_cap_takes_hold_at_the_next_write(self, store: Store) -> None:
        """A smaller cap cuts at the next append that adds something; reads show all until then."""
        free, capped = await store.open(), await store.open(max_messages=2)
        done(await free.store_messages("c", talk(5)))
        assert list((await whole(capped)).messages) == talk(5)
        done(await capped.append_messages("c", talk(1, start=5)))
        assert list((await whole(free)).messages) == talk(2, start=4)

    async def test_positions_go_on(self, store: Store) -> None:
        """Positions count from the first message ever stored, so that a page stays where it was."""
        provider = await store.open(max_messages=5)
        done(await provider.store_messages("c", talk(5)))
        page = await provider.get_messages("c", limit=2)
        assert page.before == 3
        done(await provider.append_messages("c", talk(2, start=5)))
        older = await provider.get_messages("c", before=page.before, limit=2)
        assert list(older) == talk(1, start=2)
        assert older.before is None
        last = await provider.get_messages("c", limit=2)
        assert (list(last), last.before) == (talk(2, start=5), 5)

    async def test_store_starts_positions_anew(self, store: Store) -> None:
        """Storing again begins at position 0, and forgets that a cap ever cut."""
        provider = await store.open(max_messages=3)
        done(await provider.store_messages("c", talk(2)))
        done(await provider.append_messages("c", talk(3, "n")))
        done(await provider.store_messages("c", talk(2)))
        assert (await provider.get_messages("c", limit=1)).before == 1
        done(await provider.append_messages("c", [*talk(1, "o"), *talk(1)]))
        assert ids((await whole(provider)).messages) == ["m0", "m1", "o0"]

    @pytest.mark.parametrize("cap", [1, 5])
    async def test_many_tasks_under_a_cap(self, store: Store, cap: int) -> None:
        """Beside each other, tasks never leave more than the cap, and never less."""
        provider = await store.open(max_messages=cap)
        done(await provider.store_messages("c", []))
        answers = await asyncio.gather(*(provider.append_messages("c", talk(3, f"w{n}-")) for n in range(16)))
        assert {done(answer).added for answer in answers} == {min(3, cap)}
        conversation = await whole(provider)
        assert conversation.version == 17
        last = ids(conversation.messages)
        assert len(last) == cap
        # From the end: a whole batch of three, and the end of the one before.
        assert all(one.endswith(end) for one, end in zip(reversed(last), "21021", strict=False))
