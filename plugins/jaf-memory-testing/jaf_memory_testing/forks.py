"""Forks and revised messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Fork, Record, Revise
from jaf_memory_testing.checks import Checks, examples, needs
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.hostile import IDS
from jaf_memory_testing.samples import at, ids, rich, said, talk
from jaf_memory_testing.target import FourMethods, Store

RAISING: dict[str, Callable[[BackendProvider, str], Awaitable[Any]]] = {
    "fork_conversation": lambda provider, key: provider.fork_conversation(key, f"fork of {key}"),
    "revise_messages": lambda provider, key: provider.revise_messages(key, {"m0": said("x", message_id="m0")}),
    "mark_regeneration_point": lambda provider, key: provider.mark_regeneration_point(key, "m0"),
    "store_summary": lambda provider, key: provider.store_summary(key, Summary("x", "m0"), "i"),
}
"""Methods that raise `MemoryNotFoundError` for a missing conversation."""


_Call = Callable[[Backend, str], Awaitable[Any]]

_message_ids = st.sampled_from(("m0", "m1", "m2", "x"))


@st.composite
def branchings(draw: st.DrawFn) -> _Call:
    """A fork or a revision, of one of three conversations whose names begin with what is given later."""
    key, scope = draw(st.sampled_from("aaab")), draw(st.sampled_from((None, None, "u", "v")))
    if draw(st.booleans()):
        new, until = draw(st.sampled_from("abc")), draw(st.none() | _message_ids)
        return lambda backend, name: backend.fork(Fork(f"{name}-{key}", f"{name}-{new}", until, scope))
    olds = tuple(draw(st.lists(_message_ids, min_size=1, max_size=2, unique=True)))
    news = draw(st.lists(_message_ids, min_size=len(olds), max_size=len(olds), unique=True))
    messages = tuple(said(draw(st.sampled_from(("m 0", "m 1", "other"))), message_id=new) for new in news)
    bodies = tuple(map(codec.encode, messages))
    return lambda backend, name: backend.revise(Revise(f"{name}-{key}", olds, messages, bodies, scope))


async def _answer(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except MemoryError as error:
        return type(error)


def _timeless(record: Record) -> Record:
    moment = at(0)
    return replace(record, conversation_id="", incarnation="", created_at=moment, updated_at=moment)


class BranchChecks(Checks):
    """Forks and revised messages."""

    async def test_fork(self, store: Store) -> None:
        """A fork has its parent's messages, metadata, owner and ttl, is another one, and begins at version 1."""
        provider = await store.open()
        done(await provider.store_messages("c", rich(), {"a": 1}, user_id="u"))
        await provider.set_expiry("c", 600)
        assert await provider.fork_conversation("c", "d") == len(rich())
        parent, child = await whole(provider), await whole(provider, "d")
        assert child.messages == parent.messages
        assert child.metadata == parent.metadata
        assert (child.user_id, child.ttl, child.version) == ("u", 600, 1)
        assert child.expires_at is not None
        assert child.incarnation != parent.incarnation
        assert child.message_count == parent.message_count

    async def test_fork_until_a_message(self, store: Store) -> None:
        """With a message's id, the fork has what stands before it, nothing for the first, and no other will do."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        assert await provider.fork_conversation("c", "d", "m3") == 3
        assert ids((await whole(provider, "d")).messages) == ["m0", "m1", "m2"]
        assert await provider.fork_conversation("c", "e", "m0") == 0
        assert (await whole(provider, "e")).messages == ()
        with pytest.raises(MemoryInvalidInputError):
            await provider.fork_conversation("c", "f", "missing")
        await absent(provider, "f")

    async def test_fork_to_what_is_there(self, store: Store) -> None:
        """An id that is in use is a conflict, also for the parent's own and another user's; nothing is changed."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2), user_id="u"))
        done(await provider.store_messages("d", talk(1, "n"), user_id="v"))
        for taken in ("c", "d"):
            with pytest.raises(MemoryConflictError) as caught:
                await provider.for_user("u").fork_conversation("c", taken)
            assert "'v'" not in str(caught.value)
        assert ids((await whole(provider, "d")).messages) == ["n0"]

    async def test_forks_are_independent(self, store: Store) -> None:
        """Parent and fork go on by themselves; deleting one leaves the other; erasing the user erases both."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3), user_id="u"))
        await provider.fork_conversation("c", "d")
        await provider.fork_conversation("d", "e", "m1")
        done(await provider.append_messages("c", talk(1, "n")))
        done(await provider.append_messages("d", talk(1, "o")))
        assert ids(await provider.get_messages("d", limit=2)) == ["m2", "o0"]
        assert await provider.truncate_conversation_after("c", "m1") == 3
        assert await provider.delete_conversation("c") is True
        assert ids((await whole(provider, "d")).messages) == ["m0", "m1", "m2", "o0"]
        assert (await provider.get_stats("u"))["user_messages"] == 5
        assert await provider.clear_user_conversations("u") == 2
        await absent(provider, "d")

    async def test_fork_of_a_trimmed_conversation(self, store: Store) -> None:
        """A fork of what a cap has trimmed is trimmed as well, and pages as its parent does."""
        provider = await store.open(max_messages=4)
        done(await provider.store_messages("c", talk(3)))
        done(await provider.append_messages("c", talk(4, start=3)))
        assert await provider.fork_conversation("c", "d") == 4
        assert done(await provider.append_messages("d", talk(7))).added == 0
        assert list(await provider.get_messages("d", limit=2)) == list(await provider.get_messages("c", limit=2))

    async def test_many_fork_to_one(self, store: Store) -> None:
        """Of many that fork to one id at once, exactly one succeeds."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        answers = await asyncio.gather(
            *(provider.fork_conversation("c", "d") for _ in range(8)), return_exceptions=True
        )
        assert sorted(map(str, map(type, answers))) == sorted(map(str, [int, *[MemoryConflictError] * 7]))
        assert (await whole(provider, "d")).messages == (await whole(provider)).messages

    async def test_forks_beside_an_erasure(self, store: Store) -> None:
        """Forks that run beside the user's erasure leave at most whole forks, and an erasure afterwards takes all."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(50), user_id="u"))
        forks = [provider.fork_conversation("c", f"f{n}") for n in range(8)]
        await asyncio.gather(*forks, provider.clear_user_conversations("u"), return_exceptions=True)
        left = [one async for one in provider.iter_conversations()]
        assert all(one.message_count == 50 and one.user_id == "u" for one in left)
        assert await provider.clear_user_conversations("u") == len(left)
        assert [one async for one in provider.iter_conversations()] == []

    async def test_revise(self, store: Store) -> None:
        """A revised message stands in the place of the old, also under another id; one version more, no other moves."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5), {"a": 1}, user_id="u"))
        new = {"m1": said("approved", "tool", message_id="m1"), "m3": said("done", message_id="other")}
        assert await provider.revise_messages("c", new) == 2
        conversation = await whole(provider)
        assert ids(conversation.messages) == ["m0", "m1", "m2", "other", "m4"]
        assert conversation.messages[1] == new["m1"]
        assert conversation.messages[3] == new["m3"]
        assert (conversation.version, conversation.message_count, conversation.user_id) == (2, 5, "u")
        assert list(await provider.get_messages("c", before=4, limit=2)) == list(conversation.messages[2:4])
        assert (await provider.get_stats())["total_messages"] == 5

    async def test_revised_ids_are_known(self, store: Store) -> None:
        """After a revision appends know the new ids and contents, and no longer the old."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        new = said("x", message_id="n")
        await provider.revise_messages("c", {"m1": new})
        assert done(await provider.append_messages("c", [new])).added == 0
        refused(await provider.append_messages("c", [said("y", message_id="n")]), MemoryConflictError)
        assert await provider.truncate_conversation_after("c", "n") == 1

    async def test_revise_again(self, store: Store) -> None:
        """A revision that is repeated changes nothing, and writes nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        new = {"m1": said("x", message_id="n"), "m2": said("y", message_id="m2")}
        assert await provider.revise_messages("c", new) == 2
        before = await whole(provider)
        assert await provider.revise_messages("c", new) == 2
        assert await whole(provider) == before

    async def test_revise_all_or_nothing(self, store: Store) -> None:
        """A message that is not held, or an id that another message has, refuses the whole revision."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        before = await whole(provider)
        good = said("x", message_id="m0")
        for wrong in ({"m0": good, "missing": said("y")}, {"m0": good, "m1": said("y", message_id="m2")}):
            with pytest.raises(MemoryConflictError):
                await provider.revise_messages("c", wrong)
        with pytest.raises(MemoryInvalidInputError):
            await provider.revise_messages("c", {"m0": good, "m1": good})
        with pytest.raises(MemoryInvalidInputError):
            await provider.revise_messages("c", [good])  # type: ignore[arg-type]
        assert await whole(provider) == before

    async def test_revise_beside_appends(self, store: Store) -> None:
        """Revisions and appends at once lose nothing of each other."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(8)))
        await asyncio.gather(
            *(provider.revise_messages("c", {f"m{n}": said("x", message_id=f"x{n}")}) for n in range(8)),
            *(provider.append_messages("c", talk(2, f"w{n}-")) for n in range(8)),
        )
        messages = (await whole(provider)).messages
        assert ids(messages[:8]) == [f"x{n}" for n in range(8)]
        assert len(messages) == 24
        assert (await whole(provider)).version == 17

    async def test_revised_sizes(self, store: Store) -> None:
        """Statistics count the bytes of what stands there now."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.store_messages("d", [said("x" * 500, message_id="m0")]))
        whole_size = (await provider.get_stats())["total_storage_size"]
        await provider.revise_messages("c", {"m0": said("x" * 500, message_id="m0")})
        grown = (await provider.get_stats())["total_storage_size"]
        await provider.delete_conversation("d")
        assert (await provider.get_stats())["total_storage_size"] * 2 == grown > whole_size

    @needs("backend")
    def test_same_branches(self, store: Store) -> None:
        """Any series of forks and revisions has the same answers, and leaves the same, as the defaults of `Backend`."""
        provider = store.run(store.open())

        @examples(40)
        @given(st.lists(branchings(), min_size=1, max_size=6))
        def agree(series: list[_Call]) -> None:
            store.run(self._compare(store, provider, series))

        agree()

    async def _compare(self, store: Store, provider: BackendProvider, series: list[_Call]) -> None:
        await store.empty(provider)
        left = []
        for name, backend in (("own", provider.backend), ("default", FourMethods(provider.backend))):
            done(await provider.store_messages(f"{name}-a", talk(4), {"a": 1}, user_id="u"))
            answers = [await _answer(call(backend, name)) for call in series]
            records = [await backend.read(f"{name}-{key}") for key in "abc"]
            left.append((answers, [record and _timeless(record) for record in records]))
        assert left[0] == left[1]

    @pytest.mark.parametrize("name", RAISING)
    async def test_missing(self, store: Store, name: str) -> None:
        """A missing conversation, and through a view another's, is a `MemoryNotFoundError`, and none is made."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2), user_id="u"))
        before = await whole(provider)
        for view, key in ((provider, "missing"), (provider.for_user("v"), "c")):
            with pytest.raises(MemoryNotFoundError):
                await RAISING[name](view, key)
        assert [one async for one in provider.iter_conversations()] == [before]

    async def test_hostile_ids(self, store: Store) -> None:
        """Forks and revisions meet their own conversation and message only, whatever the ids hold."""
        provider = await store.open()
        for number, key in enumerate(IDS):
            done(await provider.store_messages(key, [said(str(number), message_id=key)]))
            await provider.revise_messages(key, {key: said(f"new {number}", message_id=key)})
        for number, key in enumerate(IDS):
            assert (await whole(provider, key)).messages[0].content == f"new {number}"
            await provider.delete_conversation(key)
            done(await provider.store_messages("parent", talk(1)))
            await provider.fork_conversation("parent", key)
            await provider.delete_conversation("parent")
            assert ids((await whole(provider, key)).messages) == ["m0"]
