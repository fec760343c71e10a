"""Erasing: from which moment on something is gone, and that nothing remains, remembers it, or comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Tail
from jaf_memory_core.results import Success
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, let_expire, refused, whole
from jaf_memory_testing.hostile import IDS
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import FAR, RAISING, at, kept, put, said, talk
from jaf_memory_testing.target import Store


class ErasureChecks(Checks):
    """Deleting one conversation, and clearing a user."""

    async def test_nothing_of_it_is_read(self, store: Store) -> None:
        """After a delete no method shows anything of the conversation."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3), {"x": 1, "trace_id": "t"}, user_id="u"))
        assert await provider.delete_conversation("c") is True
        await absent(provider)
        for query in (
            MemoryQuery(),
            MemoryQuery(conversation_id="c"),
            MemoryQuery(user_id="u"),
            MemoryQuery(trace_id="t"),
            MemoryQuery(metadata={"x": 1}),
            MemoryQuery(include_messages=False),
        ):
            assert await found(provider, query) == await passed(provider, query) == []
        assert (await provider.get_stats("u"))["total_messages"] == 0
        assert await provider.get_conversation_until_message("c", "m1") is None
        for call in RAISING.values():
            with pytest.raises(MemoryNotFoundError):
                await call(provider, "c")
        await absent(provider)

    @needs("dump")
    async def test_nothing_of_it_is_kept(self, store: Store) -> None:
        """After a delete the store is as it was before, indexes included."""
        assert store.target.dump is not None
        provider = await store.open()
        done(await provider.store_messages("other", talk(2), {"x": 1}, user_id="u"))
        before = await store.target.dump()
        done(await provider.store_messages("erased-id", talk(1, "erased"), {"erased": 1}, user_id="erased-user"))
        done(await provider.append_messages("erased-id", talk(1, "erased-again")))
        assert "erased" in repr(await store.target.dump())
        assert await provider.delete_conversation("erased-id") is True
        after = await store.target.dump()
        assert "erased" not in repr(after)
        assert after == before

    @needs("dump")
    async def test_nothing_of_a_user_is_kept(self, store: Store) -> None:
        """After a user was cleared the store is as it was before, indexes included."""
        assert store.target.dump is not None
        provider = await store.open()
        done(await provider.store_messages("other", talk(2), {"x": 1}, user_id="u"))
        before = await store.target.dump()
        for n in range(5):
            done(await provider.store_messages(f"erased{n}", talk(1), {"erased": 1}, user_id="erased-user"))
        # What has expired is the user's, too, and goes without being counted.
        await let_expire(provider, "erased0")
        assert await provider.clear_user_conversations("erased-user") == 4
        after = await store.target.dump()
        assert "erased" not in repr(after)
        assert after == before

    @needs("dump")
    async def test_nothing_of_replaced_is_kept(self, store: Store) -> None:
        """Messages that were replaced, revised or cut off are kept nowhere."""
        assert store.target.dump is not None
        provider = await store.open()
        done(await provider.store_messages("a", talk(3, "erased")))
        done(await provider.store_messages("a", talk(1)))
        done(await provider.store_messages("b", [*talk(1), *talk(2, "erased")]))
        await provider.truncate_conversation_after("b", "erased0")
        done(await provider.append_messages("b", [said("erased", message_id="revised")]))
        await provider.revise_messages("b", {"revised": said("other", message_id="revised")})
        assert "erased" not in repr(await store.target.dump())

    async def test_ids_are_free_again(self, store: Store) -> None:
        """A deleted conversation's message ids may be used again, with other contents."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        assert await provider.delete_conversation("c") is True
        done(await provider.append_messages("c", [said("other", message_id="m1")], create=True))
        assert [message.content for message in (await whole(provider)).messages] == ["other"]

    async def test_clear(self, store: Store) -> None:
        """`clear_user_conversations` removes all of that user, tells how many, and leaves the others."""
        provider = await store.open()
        for n in range(30):
            done(await provider.store_messages(f"c{n:02}", talk(1), user_id="u" if n % 3 else "v"))
        done(await provider.store_messages("nobodys", talk(1), {"about": "u"}))
        assert await provider.clear_user_conversations("u") == 20
        assert sorted(await passed(provider)) == [*(f"c{n:02}" for n in range(0, 30, 3)), "nobodys"]
        assert await found(provider, user_id="u") == []
        assert (await provider.get_stats("u"))["user_conversations"] == 0

    async def test_clear_again(self, store: Store) -> None:
        """Repeating it is safe: it finds what is left, here nothing."""
        provider = await store.open()
        assert await provider.clear_user_conversations("u") == 0
        done(await provider.store_messages("c", talk(1), user_id="u"))
        assert await provider.clear_user_conversations("u") == 1
        assert await provider.clear_user_conversations("u") == 0

    async def test_clear_what_became_theirs(self, store: Store) -> None:
        """It removes conversations whose owner was given later, too."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(1)))
        done(await provider.append_messages("a", talk(1, "n"), user_id="u"))
        done(await provider.store_messages("b", talk(1), {"user_id": "u"}))
        await provider.update_metadata("c", {"user_id": "u"})
        assert await provider.clear_user_conversations("u") == 3
        assert await passed(provider) == []

    async def test_clear_expired(self, store: Store) -> None:
        """It removes expired conversations, too, and does not count them."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(1), user_id="u"))
        await let_expire(provider, "a", "b")
        assert await provider.clear_user_conversations("u") == 1
        assert await provider.purge_expired() == 0

    @pytest.mark.parametrize("end", ["deleted", "expired"])
    async def test_clear_of_the_former_owner(self, store: Store, end: str) -> None:
        """It leaves alone what another made under an id that was that user's."""
        provider = await store.open()
        for name in ("a", "b"):
            done(await provider.store_messages(name, talk(1), user_id="u"))
        if end == "expired":
            await let_expire(provider, "a")
        else:
            assert await provider.delete_conversation("a") is True
        done(await provider.store_messages("a", talk(2), user_id="v"))
        assert await found(provider, user_id="u") == ["b"]
        assert await provider.clear_user_conversations("u") == 1
        assert await found(provider) == await found(provider, user_id="v") == ["a"]
        assert len((await whole(provider, "a")).messages) == 2

    async def test_clear_many(self, store: Store) -> None:
        """It is complete beyond a page of a hundred, and of a thousand in `test_many_of_one_moment`."""
        provider = await store.open()
        await asyncio.gather(*(provider.store_messages(f"c{n}", [], user_id="uv"[n % 2]) for n in range(260)))
        assert await provider.clear_user_conversations("u") == 130
        assert sorted(await passed(provider)) == sorted(f"c{n}" for n in range(1, 260, 2))

    async def test_clear_users_that_look_alike(self, store: Store) -> None:
        """It removes the conversations of exactly that user."""
        provider = await store.open()
        for n, user in enumerate(IDS):
            done(await provider.store_messages(f"c{n}", talk(1), user_id=user))
        for user in IDS[::2]:
            assert await provider.clear_user_conversations(user) == 1, f"the user {user!r} has met another"
        assert sorted(await passed(provider)) == sorted(f"c{n}" for n in range(1, len(IDS), 2))


class FinalChecks(Checks):
    """Erasure is final, whatever was under way."""

    async def test_late_append(self, store: Store) -> None:
        """An append that comes after a delete, a retry for one, finds nothing and makes nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(2)))
        assert await provider.delete_conversation("c") is True
        refused(await provider.append_messages("c", talk(2)), MemoryNotFoundError)
        await absent(provider)

    @pytest.mark.parametrize("way", ["delete", "clear"])
    async def test_writers_under_way(self, store: Store, way: str) -> None:
        """Writers that run beside an erasure cannot bring a conversation back."""
        provider, other = await store.open(), await store.open()

        async def erase(after: float) -> None:
            await asyncio.sleep(after)
            if way == "delete":
                assert await other.delete_conversation("c") is True
            else:
                assert await other.clear_user_conversations("u") == 1

        for round_ in range(5):
            done(await provider.store_messages("c", talk(1), user_id="u"))
            writes: list[Any] = [provider.append_messages("c", talk(2, f"w{n}-")) for n in range(8)]
            writes += [provider.update_metadata("c", {f"k{n}": 1}) for n in range(4)]
            writes += [provider.set_expiry("c", 600), provider.truncate_conversation_after("c", "m0")]
            reads: list[Any] = [provider.get_conversation("c") for _ in range(4)]
            # In each round the erasure comes at another moment of the writes.
            answers = await asyncio.gather(erase(0.001 * round_), *writes, *reads, return_exceptions=True)
            for answer in answers:
                assert not isinstance(answer, BaseException) or isinstance(answer, MemoryError), repr(answer)
            await absent(provider)
            await absent(other)
            assert await found(provider) == await passed(provider) == await found(provider, user_id="u") == []
            assert (await provider.get_stats())["total_messages"] == 0

    async def test_clear_beside_writers(self, store: Store) -> None:
        """Clearing a user is complete beside writers who append to that user's conversations at the same time."""
        provider, other = await store.open(), await store.open()
        names = [f"c{n}" for n in range(20)]
        for name in names:
            done(await provider.store_messages(name, talk(1), user_id="u"))
        writes: list[Any] = [provider.append_messages(name, talk(2, f"n{n}-")) for name in names for n in range(3)]
        writes += [provider.update_metadata(name, {"x": 1}) for name in names]
        cleared, *answers = await asyncio.gather(other.clear_user_conversations("u"), *writes, return_exceptions=True)
        assert cleared == 20
        for answer in answers:
            assert not isinstance(answer, BaseException) or isinstance(answer, MemoryNotFoundError), repr(answer)
        assert await passed(provider) == await found(provider, user_id="u") == []

    async def test_clear_beside_other_users(self, store: Store) -> None:
        """Clearing a user beside writers of others loses nothing of theirs."""
        provider = await store.open()
        for n in range(20):
            done(await provider.store_messages(f"u{n}", talk(1), user_id="u"))
            done(await provider.store_messages(f"v{n}", talk(1), user_id="v"))
        answers = await asyncio.gather(
            provider.clear_user_conversations("u"),
            *(provider.append_messages(f"v{n}", talk(2)) for n in range(20)),
            *(provider.store_messages(f"w{n}", talk(2), user_id="v") for n in range(20)),
        )
        assert answers[0] == 20
        assert all(isinstance(answer, Success) for answer in answers[1:])
        stats = await provider.get_stats("v")
        assert (stats["user_conversations"], stats["user_messages"]) == (40, 80)

    async def test_made_again_at_once(self, store: Store) -> None:
        """When deletes and creations of one id run at once, each read sees one whole conversation or none."""
        provider = await store.open()

        async def make() -> None:
            for n in range(10):
                await provider.store_messages("c", talk(4, f"n{n}."), {"n": n}, user_id="u")

        async def erase() -> None:
            for _ in range(20):
                await provider.delete_conversation("c")
                await asyncio.sleep(0)

        async def read() -> None:
            for _ in range(20):
                conversation = await provider.get_conversation("c")
                if conversation is not None:
                    n = conversation.metadata["n"]
                    assert list(conversation.messages) == talk(4, f"n{n}.")
                await asyncio.sleep(0)

        await asyncio.gather(make(), erase(), read(), read())
        await provider.delete_conversation("c")
        await absent(provider)


LEAVING: dict[str, Callable[[BackendProvider], Awaitable[Any]]] = {
    "delete": lambda provider: provider.delete_conversation("c"),
    "clear": lambda provider: provider.clear_user_conversations("u"),
    "expiry": lambda provider: let_expire(provider, "c"),
    "store": lambda provider: provider.store_messages("c", []),
    "truncate": lambda provider: provider.truncate_conversation_after("c", "m1"),
    "delete messages": lambda provider: provider.delete_messages("c", ["m1"]),
    "revise": lambda provider: provider.revise_messages("c", {"m1": said("instead", message_id="r1")}),
}
"""Every way in which a message leaves a conversation, but for a cap, which remembers."""

CHANGES: dict[str, Callable[[BackendProvider, str], Awaitable[Any]]] = {
    "append": lambda provider, key: provider.append_messages(key, talk(1, "n"), {"a": 2}),
    "store": lambda provider, key: provider.store_messages(key, talk(1, "n"), {"a": 2}),
    "import": lambda provider, key: provider.import_conversation(ConversationMemory(key, messages=talk(4))),
    "update": lambda provider, key: provider.update_metadata(key, {"a": 2}),
    "expiry": lambda provider, key: provider.set_expiry(key, 60),
    "revise": lambda provider, key: provider.revise_messages(key, {"m1": said("revised", message_id="m1")}),
    "truncate": lambda provider, key: provider.truncate_conversation_after(key, "m1"),
    "delete messages": lambda provider, key: provider.delete_messages(key, ["m1"]),
    "delete": lambda provider, key: provider.delete_conversation(key),
}
"""Every write of one conversation."""


class RemainsChecks(Checks):
    """What has expired, has left, or belongs to a copy, has no say."""

    @needs("backend")
    async def test_at_its_very_end(self, store: Store) -> None:
        """At the moment at which it expires, to the microsecond, a conversation is absent for every operation."""
        provider = await store.open()
        ending = kept("c", messages=talk(2), metadata={"x": 1}, user_id="u", expires_at=at(100), version=3)
        await put(provider, ending, kept("d", messages=talk(1), user_id="u", expires_at=FAR))
        # What goes by a clock of the store's own finds it expired as well: the moment is long past.
        _stop_clock(provider, at(100))
        await absent(provider)
        assert await provider.backend.header("c") is None
        assert await provider.backend.tail(Tail("c", 10)) is None
        assert await found(provider) == await found(provider, user_id="u") == await passed(provider) == ["d"]
        assert await found(provider, conversation_id="c") == await found(provider, metadata={"x": 1}) == []
        for user in (None, "u"):
            assert (await provider.get_stats(user))["total_messages"] == 1
        assert await provider.purge_expired() == 1
        assert await provider.backend.write(ending, expected=None) is True
        for call in RAISING.values():
            with pytest.raises(MemoryNotFoundError):
                await call(provider, "c")
        refused(await provider.append_messages("c", talk(1, "n")), MemoryNotFoundError)
        for erase, counted in ((provider.delete_conversation, False), (provider.clear_user_conversations, 1)):
            # A write that has met it may have taken it away.
            await provider.purge_expired()
            assert await provider.backend.write(ending, expected=None) is True
            assert await erase("c" if counted is False else "u") == counted
        assert await provider.purge_expired() == 0

    @pytest.mark.parametrize("way", LEAVING)
    async def test_what_left_may_come_again(self, store: Store, way: str) -> None:
        """A message that has left may be said again under its id, in the same words or in others: it is news."""
        provider = await store.open()
        for again in (talk(2)[1], said("in other words", message_id="m1")):
            for made in (False, True):
                done(await provider.store_messages("c", talk(2), user_id="u"))
                await LEAVING[way](provider)
                # Where nothing stands any more, the append makes it, or another store has.
                if made and await provider.get_conversation("c") is None:
                    done(await provider.store_messages("c", [], user_id="u"))
                result = await provider.append_messages("c", [again], create=True, user_id="u")
                assert done(result).added == 1, f"after {way}, the id of what has left counts as held"
                assert (await whole(provider)).messages[-1] == again
                await provider.delete_conversation("c")

    @pytest.mark.parametrize("way", CHANGES)
    async def test_copies_are_apart(self, store: Store, way: str) -> None:
        """A write to a conversation changes no fork of it, and a write to a fork neither its parent nor another."""
        provider = await store.open()
        names = ("parent", "one", "two")
        for changed in names:
            for name in names:
                await provider.delete_conversation(name)
            done(await provider.store_messages("parent", talk(3), {"a": 1}, user_id="u"))
            await provider.fork_conversation("parent", "one")
            await provider.fork_conversation("parent", "two")
            before = {name: await whole(provider, name) for name in names}
            await CHANGES[way](provider, changed)
            for name in names:
                if name != changed:
                    assert await whole(provider, name) == before[name], f"{way} of {changed} has changed {name}"
            assert await provider.get_conversation(changed) != before[changed]
        assert len(await provider.find_conversations(MemoryQuery(user_id="u"))) >= 2


def _stop_clock(provider: BackendProvider, moment: datetime) -> None:
    with suppress(AttributeError):  # it may have slots
        provider.backend.now = lambda: moment  # type: ignore[method-assign]
