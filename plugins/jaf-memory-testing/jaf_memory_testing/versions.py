"""What a write answers: versions, incarnations, optimistic locking; and times, which place a conversation in a list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure, Success, WriteResult
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.target import Store

SKEW = timedelta(minutes=5)
"""By how much the clock of a server may differ from ours."""


class VersionChecks(Checks):
    """Versions, `expected_version`, `create`, and what a write answers."""

    async def test_write_result(self, store: Store) -> None:
        """`Success.data` tells the version, how many messages there are, and how many were added."""
        provider = await store.open()
        assert done(await provider.store_messages("c", talk(3))) == WriteResult(1, 3, 3)
        assert done(await provider.append_messages("c", talk(2, start=2))) == WriteResult(2, 4, 1)
        assert done(await provider.append_messages("c", talk(4))) == WriteResult(2, 4, 0)
        assert done(await provider.store_messages("c", talk(1))) == WriteResult(3, 1, 1)
        assert done(await provider.store_messages("c", [])) == WriteResult(4, 0, 0)

    async def test_results_are_frozen(self, store: Store) -> None:
        """`Success`, `Failure` and `WriteResult` cannot be changed."""
        provider = await store.open()
        success = await provider.store_messages("c", talk(1))
        failure = await provider.append_messages("missing", talk(1))
        assert isinstance(success, Success)
        assert isinstance(failure, Failure)
        for thing, field in ((success, "data"), (success.data, "version"), (failure, "error")):
            with pytest.raises(AttributeError):
                setattr(thing, field, None)

    async def test_each_write_is_one_version(self, store: Store) -> None:
        """The version grows by one with each write, of whatever kind, and is shown."""
        provider = await store.open()
        assert done(await provider.store_messages("c", talk(3))).version == 1
        assert done(await provider.append_messages("c", talk(3, "n"))).version == 2
        assert await provider.update_metadata("c", {"a": 1}) == 3
        assert await provider.set_expiry("c", 600) == 4
        assert await provider.truncate_conversation_after("c", "n1") == 2
        assert (await whole(provider)).version == 5
        assert done(await provider.store_messages("c", talk(1))).version == 6
        assert (await whole(provider)).version == 6

    async def test_all_held_writes_nothing(self, store: Store) -> None:
        """An append all of whose messages are held writes nothing: not metadata, version, time or expiry."""
        provider = await store.open(ttl=600)
        done(await provider.store_messages("c", talk(3), {"a": 1}))
        before = await whole(provider)
        assert done(await provider.append_messages("c", talk(2), {"a": 2})).added == 0
        assert await whole(provider) == before

    async def test_empty_append_writes_nothing(self, store: Store) -> None:
        """An append of nothing writes nothing; with metadata or a first owner it writes these."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        before = await whole(provider)
        done(await provider.append_messages("c", []))
        assert await whole(provider) == before
        assert done(await provider.append_messages("c", [], {"a": 1})) == WriteResult(2, 1, 0)
        assert done(await provider.append_messages("c", [], user_id="u")) == WriteResult(3, 1, 0)
        assert (await whole(provider)).metadata == {"a": 1, "user_id": "u"}

    async def test_created_at_stays(self, store: Store) -> None:
        """Every write keeps `created_at` and the incarnation, and moves `updated_at` on."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        before = await whole(provider)
        for write in (
            lambda: provider.append_messages("c", talk(1, "n")),
            lambda: provider.update_metadata("c", {"a": 1}),
            lambda: provider.truncate_conversation_after("c", "n0"),
            lambda: provider.store_messages("c", talk(2)),
        ):
            # Longer than a millisecond, since a store may keep no more than these.
            await asyncio.sleep(0.002)
            await write()
            after = await whole(provider)
            assert after.created_at == before.created_at
            assert after.incarnation == before.incarnation
            assert after.updated_at is not None
            assert before.updated_at is not None
            assert after.updated_at > before.updated_at
            before = after

    async def test_times_are_utc_and_the_stores(self, store: Store) -> None:
        """`created_at` and `updated_at` are aware, in UTC, and the time of the write."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        conversation = await whole(provider)
        for moment in (conversation.created_at, conversation.updated_at):
            assert moment is not None
            assert moment.utcoffset() == timedelta(0)
            assert abs(datetime.now(UTC) - moment) < SKEW
        assert conversation.created_at == conversation.updated_at

    async def test_another_incarnation(self, store: Store) -> None:
        """A conversation that is made again under an old id is another one, and begins at version 1."""
        provider = await store.open()
        found = set()
        for _ in range(4):
            assert done(await provider.store_messages("c", talk(1))).version == 1
            found.add((await whole(provider)).incarnation)
            assert await provider.delete_conversation("c") is True
        assert len(found) == 4
        assert "" not in found

    async def test_expected_version_that_stands(self, store: Store) -> None:
        """With the version at which the conversation stands, writes go through."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        assert done(await provider.append_messages("c", talk(1, "n"), expected_version=1)).version == 2
        assert done(await provider.store_messages("c", talk(3), expected_version=2)).version == 3

    @pytest.mark.parametrize("version", [0, 1, 3, 2**70])
    async def test_expected_version_that_does_not_stand(self, store: Store, version: int) -> None:
        """With any other version, writes are a `MemoryConflictError` that tells both, and nothing is applied."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(1, "n")))
        before = await whole(provider)
        for write in (provider.store_messages, provider.append_messages):
            error = refused(
                await write("c", talk(2, "o"), {"a": 1}, user_id="u", expected_version=version), MemoryConflictError
            )
            assert (error.expected_version, error.actual_version) == (version, 2)
        assert await whole(provider) == before

    async def test_expected_version_zero(self, store: Store) -> None:
        """`expected_version=0` means that the conversation does not exist."""
        provider = await store.open()
        assert done(await provider.store_messages("c", talk(1), expected_version=0)).version == 1
        refused(await provider.store_messages("c", talk(2), expected_version=0), MemoryConflictError)
        done(await provider.append_messages("d", talk(1), expected_version=0, create=True))
        assert list((await whole(provider)).messages) == talk(1)

    async def test_expected_version_of_missing(self, store: Store) -> None:
        """A version above 0 is a conflict for a missing conversation, which stays missing."""
        provider = await store.open()
        error = refused(await provider.store_messages("c", talk(1), expected_version=3), MemoryConflictError)
        assert error.actual_version == 0
        refused(await provider.append_messages("c", talk(1), expected_version=3, create=True), MemoryConflictError)
        refused(await provider.append_messages("c", talk(1), expected_version=3), MemoryNotFoundError)
        await absent(provider)

    async def test_idempotence_is_looked_at_first(self, store: Store) -> None:
        """An append all of whose messages are held succeeds at any expected version: it may be a retry."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        batch = talk(2, "n")
        done(await provider.append_messages("c", batch, expected_version=1))
        assert done(await provider.append_messages("c", batch, expected_version=1)) == WriteResult(2, 3, 0)
        batch.append(said("new", message_id="new"))
        refused(await provider.append_messages("c", batch, expected_version=1), MemoryConflictError)
        assert len((await whole(provider)).messages) == 3

    @pytest.mark.parametrize("version", [0, 1, 3, 2**70])
    async def test_changes_expect_a_version(self, store: Store, version: int) -> None:
        """A patch, a truncation and a deletion are conflicts at any other version than the one that stands."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(4), {"a": 1}, user_id="u"))
        done(await provider.append_messages("c", talk(1, "n")))
        before = await whole(provider)
        for view in (provider, provider.for_user("u")):
            for change in (
                view.update_metadata("c", {"a": 2}, expected_version=version),
                view.truncate_conversation_after("c", "m2", expected_version=version),
                view.truncate_conversation_after("c", "none", expected_version=version),
                view.delete_conversation("c", expected_version=version),
            ):
                with pytest.raises(MemoryConflictError) as caught:
                    await change
                assert (caught.value.expected_version, caught.value.actual_version) == (version, 2)
        assert await whole(provider) == before
        assert await provider.update_metadata("c", {"a": 2}, expected_version=2) == 3
        assert await provider.truncate_conversation_after("c", "m2", expected_version=3) == 3
        # Who may not see it is told of no version.
        assert await provider.for_user("v").delete_conversation("c", expected_version=version) is False
        assert await provider.delete_conversation("c", expected_version=4) is True
        assert await provider.delete_conversation("c", expected_version=4) is False

    @pytest.mark.parametrize("version", [-1, 1.0, True, "1"])
    async def test_no_version(self, store: Store, version: Any) -> None:
        """What is no whole number from 0 is no version."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        for write in (provider.store_messages, provider.append_messages):
            refused(await write("c", talk(1, "n"), expected_version=version), MemoryInvalidInputError)
        for change in (
            provider.update_metadata("c", {}, expected_version=version),
            provider.truncate_conversation_after("c", "m0", expected_version=version),
            provider.delete_conversation("c", expected_version=version),
        ):
            with pytest.raises(MemoryInvalidInputError):
                await change

    async def test_create(self, store: Store) -> None:
        """An append with `create=True` makes a missing conversation, and appends to one that is there."""
        provider = await store.open()
        first = await provider.append_messages("c", talk(2), {"a": 1}, user_id="u", create=True)
        assert done(first) == WriteResult(1, 2, 2)
        assert done(await provider.append_messages("c", talk(3), create=True)) == WriteResult(2, 3, 1)
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(3)
        assert conversation.metadata == {"a": 1, "user_id": "u"}

    async def test_twice_in_one_store(self, store: Store) -> None:
        """Two equal messages within one store are one; one id with two contents is a conflict."""
        provider = await store.open()
        one, two = talk(2)
        assert done(await provider.store_messages("c", [one, two, one])) == WriteResult(1, 2, 2)
        other = said("other", message_id="m0")
        refused(await provider.store_messages("c", [one, other]), MemoryConflictError)
        assert list((await whole(provider)).messages) == [one, two]

    async def test_only_one_of_many_creates(self, store: Store) -> None:
        """Of many tasks that store with `expected_version=0` at once, exactly one succeeds."""
        provider = await store.open()
        answers = await asyncio.gather(
            *(provider.store_messages("c", talk(1, f"w{n}-"), expected_version=0) for n in range(16))
        )
        winners = [n for n, answer in enumerate(answers) if isinstance(answer, Success)]
        assert len(winners) == 1
        assert ids((await whole(provider)).messages) == [f"w{winners[0]}-0"]

    async def test_only_one_of_many_at_a_version(self, store: Store) -> None:
        """Of many tasks that append at the same version at once, exactly one succeeds."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        answers = await asyncio.gather(
            *(provider.append_messages("c", talk(1, f"w{n}-"), expected_version=1) for n in range(16))
        )
        assert sum(isinstance(answer, Success) for answer in answers) == 1
        assert len((await whole(provider)).messages) == 1

    async def test_many_create_one(self, store: Store) -> None:
        """Of many tasks that append with `create=True` at once, all succeed, on one conversation."""
        provider = await store.open()
        answers = await asyncio.gather(
            *(provider.append_messages("c", talk(2, f"w{n}-"), create=True) for n in range(16))
        )
        assert sorted(done(answer).version for answer in answers) == list(range(1, 17))
        assert len((await whole(provider)).messages) == 32


Change = Callable[[BackendProvider], Awaitable[Any]]


async def _annotated(provider: BackendProvider) -> None:
    held = await provider.acquire_lease("a", 600)
    await provider.renew_lease(held, 600)
    await provider.release_lease(held)


async def _summarised(provider: BackendProvider) -> None:
    conversation = await whole(provider, "a")
    assert await provider.store_summary("a", Summary("what was said", "m1"), conversation.incarnation)


MOVES: Mapping[str, Change] = {
    "append": lambda provider: provider.append_messages("a", talk(1, "n"), {"x": 1}),
    "append beside what is held": lambda provider: provider.append_messages("a", [*talk(1), *talk(1, "n")]),
    "append that makes room": lambda provider: provider.append_messages("a", talk(3, "n")),
    "store": lambda provider: provider.store_messages("a", talk(1)),
    "store what stands": lambda provider: provider.store_messages("a", talk(3)),
    "truncate": lambda provider: provider.truncate_conversation_after("a", "m2"),
    "delete messages": lambda provider: provider.delete_messages("a", ["m1"]),
    "revise": lambda provider: provider.revise_messages("a", {"m1": said("revised", message_id="m1")}),
}
"""Changes of the messages of `a`, which has three and takes four."""

STAYS: Mapping[str, Change] = {
    "metadata": lambda provider: provider.update_metadata("a", {"title": "another"}),
    "metadata by an append": lambda provider: provider.append_messages("a", [], {"title": "another"}),
    "a first owner": lambda provider: provider.append_messages("a", [], user_id="u"),
    "an expiry": lambda provider: provider.set_expiry("a", 600),
    "no expiry": lambda provider: provider.set_expiry("a", None),
    "a lease": _annotated,
    "a summary": _summarised,
    "a regeneration point": lambda provider: provider.mark_regeneration_point("a", "m1"),
}
"""Changes of what stands beside the messages."""


async def _two(store: Store) -> tuple[BackendProvider, ConversationMemory]:
    """`a`, and `b` that is newer."""
    provider = await store.open(max_messages=4)
    for name in ("a", "b"):
        done(await provider.store_messages(name, talk(3)))
        # Longer than a millisecond, since a store may keep no more than these.
        await asyncio.sleep(0.002)
    assert await found(provider) == ["b", "a"]
    return provider, await whole(provider, "a")


def _times(conversation: ConversationMemory) -> tuple[Any, Any]:
    assert conversation.active_at is not None
    assert conversation.updated_at is not None
    assert conversation.active_at <= conversation.updated_at
    return conversation.active_at, conversation.updated_at


class ActivityChecks(Checks):
    """`active_at` and `updated_at`, and the order of lists."""

    @pytest.mark.parametrize("way", MOVES)
    async def test_messages_move_a_list(self, store: Store, way: str) -> None:
        """What changes messages moves both times, and brings its conversation to the front."""
        provider, before = await _two(store)
        await MOVES[way](provider)
        active, updated = _times(await whole(provider, "a"))
        assert active > _times(before)[0], f"{way}: active_at stands still"
        assert updated > _times(before)[1], f"{way}: updated_at stands still"
        assert await found(provider) == ["a", "b"]
        assert await found(provider, active_since=active) == ["a"]

    @pytest.mark.parametrize("way", STAYS)
    async def test_nothing_else_moves_a_list(self, store: Store, way: str) -> None:
        """What changes no message moves `updated_at` alone, and leaves its conversation where it is in a list."""
        provider, before = await _two(store)
        await STAYS[way](provider)
        after = await whole(provider, "a")
        active, updated = _times(after)
        assert active == _times(before)[0], f"{way}: active_at has moved"
        assert updated > _times(before)[1], f"{way}: updated_at stands still"
        assert await found(provider) == ["b", "a"]
        assert await found(provider, active_since=(await whole(provider, "b")).active_at) == ["b"]
        assert await found(provider, updated_since=updated) == ["a"]
        assert await found(provider, updated_until=updated) == ["b"]
        (first,) = await provider.find_conversations(MemoryQuery(limit=1))
        assert await found(provider, MemoryQuery().after(first)) == ["a"]
        if after.user_id is not None:
            done(await provider.store_messages("c", talk(1), user_id=after.user_id))
            assert await found(provider, user_id=after.user_id) == ["c", "a"]

    async def test_an_owner_given_later(self, store: Store) -> None:
        """One that becomes a user's has the place in the user's list that its activity gives it."""
        provider = await store.open()
        for name, user in (("0", None), ("a", None), ("b", "u"), ("c", None)):
            done(await provider.store_messages(name, talk(1), user_id=user))
            await asyncio.sleep(0.002)
        done(await provider.append_messages("a", [], user_id="u"))
        assert await found(provider, user_id="u") == ["b", "a"]
        done(await provider.append_messages("c", [], user_id="u"))
        assert await found(provider, user_id="u") == ["c", "b", "a"]
        assert await found(provider, user_id="u", limit=1) == ["c"]
        await provider.update_metadata("0", {"user_id": "u"})
        assert await found(provider, user_id="u") == ["c", "b", "a", "0"]

    async def test_activity_goes_on_behind_a_change(self, store: Store) -> None:
        """An append behind a change of metadata moves both times again, to one moment."""
        provider, before = await _two(store)
        await provider.update_metadata("a", {"title": "another"})
        _, changed = _times(await whole(provider, "a"))
        await asyncio.sleep(0.002)
        done(await provider.append_messages("a", talk(1, "n")))
        active, updated = _times(await whole(provider, "a"))
        assert active == updated > changed > _times(before)[1]
        assert await found(provider, updated_since=changed) == ["a"]
        assert await found(provider, updated_until=updated) == ["b"]

    async def test_a_fork_is_new(self, store: Store) -> None:
        """A fork is made now, and its parent stays where it is in a list."""
        provider, before = await _two(store)
        await provider.update_metadata("a", {"title": "another"})
        assert await provider.fork_conversation("a", "c") == 3
        made = await whole(provider, "c")
        assert made.active_at == made.updated_at
        assert (await whole(provider, "a")).active_at == before.active_at
        assert await found(provider) == ["c", "b", "a"]

    async def test_a_clock_that_was_ahead(self, store: Store) -> None:
        """What was active at a time that is still to come keeps its place in lists when it is written to."""
        provider = await store.open()
        ahead = datetime.now(UTC) + timedelta(hours=1)
        for minutes, name in enumerate(("b", "a")):
            active = ahead + timedelta(minutes=minutes)
            made = ConversationMemory(name, user_id="u", messages=talk(2), created_at=ahead, updated_at=active)
            done(await provider.import_conversation(replace(made, active_at=active)))
        done(await provider.store_messages("c", talk(1), user_id="u"))
        for name in ("b", "a", "b"):
            done(await provider.append_messages(name, talk(2, f"{name}-{len((await whole(provider, name)).messages)}")))
            assert await found(provider) == ["a", "b", "c"]
            assert await found(provider, user_id="u", limit=2) == ["a", "b"]
            assert await found(provider, active_since=ahead) == ["a", "b"]
