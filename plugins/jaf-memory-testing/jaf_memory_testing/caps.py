"""`max_messages`: a conversation keeps the newest."""

from __future__ import annotations

import asyncio

import pytest

from jaf_memory_core.results import WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expect import done, whole
from jaf_memory_testing.samples import ids, talk
from jaf_memory_testing.store import Store


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
        assert all(one.endswith(end) for one, end in zip(reversed(last), "21021", strict=False))
