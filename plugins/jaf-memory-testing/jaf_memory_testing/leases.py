"""Regeneration points, leases and summaries: what engines need beside the messages."""

from __future__ import annotations

import asyncio

import pytest

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import Lease, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.records import Amend, Stamp
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.target import Store


class LeaseChecks(Checks):
    """Regeneration points, leases and summaries: what stands beside the messages."""

    async def test_mark(self, store: Store) -> None:
        """Each regeneration point is noted, in order, with its time; many at once all stay."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2), {"a": 1}))
        assert await provider.mark_regeneration_point("c", "m1", {"why": "test"}) == 2
        await asyncio.gather(*(provider.mark_regeneration_point("c", "m0", {"n": n}) for n in range(8)))
        metadata = (await whole(provider)).metadata
        points = metadata["regeneration_points"]
        assert (points[0]["message_id"], points[0]["why"]) == ("m1", "test")
        assert sorted(point["n"] for point in points[1:]) == list(range(8))
        assert metadata["last_regeneration"] == points[-1]
        assert metadata["regeneration_count"] == 9
        assert metadata["a"] == 1

    async def test_marks_within_the_limit(self, store: Store) -> None:
        """Where notes of regeneration points would take the metadata beyond its limit, the oldest of them go."""
        provider = await store.open(max_metadata_bytes=2_000)
        done(await provider.store_messages("c", talk(2), {"a": "x" * 300}, user_id="u"))
        kept: list[int] = []
        for number in range(40):
            await provider.mark_regeneration_point("c", "m1", {"n": number, "why": "\u00e9" * 20})
            metadata = (await whole(provider)).metadata
            kept = [point["n"] for point in metadata["regeneration_points"]]
            assert kept == list(range(number + 1))[-len(kept) :]
            assert (metadata["last_regeneration"]["n"], metadata["regeneration_count"]) == (number, number + 1)
            labels = {key: value for key, value in metadata.items() if key != "user_id"}
            assert len(codec.encode(labels)) <= 2_000
            assert metadata["a"] == "x" * 300
        assert 1 < len(kept) < 40
        before = await whole(provider)
        with pytest.raises(MemoryInvalidInputError):
            await provider.mark_regeneration_point("c", "m1", {"why": "x" * 2_000})
        assert await whole(provider) == before
        # What stands can be changed, and be stored anew as it is.
        assert await provider.update_metadata("c", {"a": 1}) == before.version + 1
        done(await provider.store_messages("d", talk(1), dict((await whole(provider)).metadata)))

    @needs("backend")
    async def test_amend_at_a_state(self, store: Store) -> None:
        """`amend` with an expected state is a conflict at any other, and then nothing is changed."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}))
        before = await whole(provider)
        for wrong in (Stamp(before.incarnation, 2), Stamp("f" * 16, 1), Stamp(before.incarnation, 0)):
            with pytest.raises(MemoryConflictError):
                await provider.backend.amend(Amend("c", rules.merged(before.metadata, {"a": 2}), expected=wrong))
        assert await whole(provider) == before
        right = Stamp(before.incarnation, before.version)
        assert await provider.backend.amend(Amend("c", rules.merged(before.metadata, {"a": 2}), expected=right)) == 2

    async def test_lease(self, store: Store) -> None:
        """One holder at a time, who may renew and give back; each holder's number is greater; nobody sees it."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), user_id="u"))
        one = await provider.acquire_lease("c", 600)
        with pytest.raises(MemoryConflictError):
            await provider.acquire_lease("c", 600)
        # The retry of a lost answer is no other holder.
        assert (await provider.acquire_lease("c", 600, token=one.token)).number == one.number
        renewed = await provider.renew_lease(one, 900)
        assert renewed.expires_at > one.expires_at
        assert await provider.release_lease(renewed) is True
        assert await provider.release_lease(renewed) is False
        with pytest.raises(MemoryConflictError):
            await provider.renew_lease(one, 900)
        two = await provider.acquire_lease("c", 0.05)
        assert two.number > one.number
        await asyncio.sleep(0.1)
        three = await provider.acquire_lease("c", 600)
        assert three.number > two.number
        assert await provider.release_lease(two) is False
        assert (await whole(provider)).metadata == {"user_id": "u"}

    async def test_lease_of_a_new_conversation(self, store: Store) -> None:
        """Of many that ask for a conversation that is not there, one gets it; it is made empty, with its owner."""
        provider = await store.open()
        answers = await asyncio.gather(
            *(provider.acquire_lease("c", 600, user_id="u") for _ in range(8)), return_exceptions=True
        )
        assert sorted(map(str, map(type, answers))) == sorted(map(str, [Lease, *[MemoryConflictError] * 7]))
        conversation = await whole(provider)
        assert (conversation.messages, conversation.user_id) == ((), "u")
        (lease,) = (answer for answer in answers if isinstance(answer, Lease))
        for view in (provider.for_user("v"), provider):
            if view is provider:
                await provider.delete_conversation("c")
            with pytest.raises(MemoryNotFoundError):
                await view.renew_lease(lease, 600)
            assert await view.release_lease(lease) is False

    async def test_summary(self, store: Store) -> None:
        """A summary is kept beside the messages, unseen; what it covers is not read again, what comes later is."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10), {"a": 1}))
        before = await whole(provider)
        kept = (said("be kind", "system", message_id="s"),)
        assert await provider.store_summary("c", Summary("so far", "m3", kept), before.incarnation) is True
        done(await provider.append_messages("c", talk(2, "n")))
        condensed = await provider.get_condensed_conversation("c")
        assert condensed is not None
        assert condensed.summary == Summary("so far", "m3", kept)
        assert ids(condensed.conversation.messages) == [*ids(talk(6, start=4)), "n0", "n1"]
        assert condensed.conversation.message_count == 12
        conversation = await whole(provider)
        assert ids(conversation.messages) == [*ids(talk(10)), "n0", "n1"]
        assert conversation.metadata == {"a": 1}

    async def test_a_summary_is_made_once(self, store: Store) -> None:
        """One that reaches no further than what is there is dropped; one that reaches further takes its place."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        incarnation = (await whole(provider)).incarnation
        made = [await provider.store_summary("c", Summary(f"to {m}", m), incarnation) for m in ("m3", "m3", "m2", "m5")]
        assert made == [True, False, False, True]
        condensed = await provider.get_condensed_conversation("c")
        assert condensed is not None
        assert condensed.summary == Summary("to m5", "m5")

    async def test_a_summary_that_comes_too_late(self, store: Store) -> None:
        """Nothing is kept of a summary whose last message was removed, or whose conversation was made again."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        incarnation = (await whole(provider)).incarnation
        await provider.truncate_conversation_after("c", "m3")
        assert await provider.store_summary("c", Summary("x", "m3"), incarnation) is False
        await provider.delete_conversation("c")
        with pytest.raises(MemoryNotFoundError):
            await provider.store_summary("c", Summary("x", "m1"), incarnation)
        assert await provider.get_condensed_conversation("c") is None
        done(await provider.store_messages("c", talk(10)))
        before = await whole(provider)
        with pytest.raises(MemoryNotFoundError):
            await provider.store_summary("c", Summary("x", "m1"), incarnation)
        assert await whole(provider) == before
        done(await provider.append_messages("c", talk(1, start=10)))
        now = await whole(provider)
        with pytest.raises(MemoryConflictError):
            await provider.store_summary("c", Summary("x", "m1"), now.incarnation, expected_version=before.version)
        assert await whole(provider) == now
        assert await provider.store_summary("c", Summary("x", "m1"), now.incarnation, expected_version=now.version)

    async def test_a_summary_of_other_messages(self, store: Store) -> None:
        """A summary whose last message is not where it was covers nothing: all messages are there."""
        provider = await store.open()
        for change in (
            lambda: provider.truncate_conversation_after("c", "m2"),
            lambda: provider.store_messages("c", talk(8, "n")),
        ):
            done(await provider.store_messages("c", talk(10)))
            incarnation = (await whole(provider)).incarnation
            assert await provider.store_summary("c", Summary("x", "m5"), incarnation) is True
            await change()
            condensed = await provider.get_condensed_conversation("c")
            assert condensed is not None
            assert condensed.summary is None
            assert condensed.conversation == await whole(provider)
            await provider.delete_conversation("c")

    async def test_a_stale_summary_makes_room(self, store: Store) -> None:
        """One that covers nothing any more does not stand in the way of the next, however far it reached."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        incarnation = (await whole(provider)).incarnation
        assert await provider.store_summary("c", Summary("x", "m8"), incarnation) is True
        done(await provider.store_messages("c", talk(10, "n")))
        assert await provider.store_summary("c", Summary("y", "n3"), incarnation) is True
        condensed = await provider.get_condensed_conversation("c")
        assert condensed is not None
        assert condensed.summary == Summary("y", "n3")

    async def test_a_summary_outlives_a_cap(self, store: Store) -> None:
        """When a cap has removed all that a summary covers, it still stands for that."""
        provider = await store.open(max_messages=4)
        done(await provider.store_messages("c", talk(4)))
        assert await provider.store_summary("c", Summary("x", "m2"), (await whole(provider)).incarnation) is True
        done(await provider.append_messages("c", talk(4, start=4)))
        condensed = await provider.get_condensed_conversation("c")
        assert condensed is not None
        assert condensed.summary == Summary("x", "m2")
        assert ids(condensed.conversation.messages) == ["m4", "m5", "m6", "m7"]

    @needs("backend")
    async def test_a_truncated_summary_is_gone(self, store: Store) -> None:
        """What a truncation removes is in no summary any more, not even unseen."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        assert await provider.store_summary("c", Summary("x", "m8"), (await whole(provider)).incarnation) is True
        assert await provider.truncate_conversation_after("c", "m5") == 5
        record = await provider.backend.read("c")
        assert record is not None
        assert not record.metadata.get(rules.SUMMARY)

    async def test_reserved_metadata(self, store: Store) -> None:
        """Keys that begin with the provider's own prefix are taken from nobody."""
        provider = await store.open()
        refused(await provider.store_messages("c", talk(1), {"jaf-memory:summary": 1}), MemoryInvalidInputError)
        await absent(provider)
        done(await provider.store_messages("c", talk(1)))
        with pytest.raises(MemoryInvalidInputError):
            await provider.update_metadata("c", {"jaf-memory:lease": None})
