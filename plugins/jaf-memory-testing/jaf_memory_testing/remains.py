"""What is gone: from which moment on it is, and that nothing remembers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Tail
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, let_expire, refused, whole
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import FAR, RAISING, at, kept, put, said, talk
from jaf_memory_testing.target import Store

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
