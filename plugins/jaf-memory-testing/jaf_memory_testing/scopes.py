"""`for_user`: one user's view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, let_expire, refused, whole
from jaf_memory_testing.hostile import IDS
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import RAISING, talk
from jaf_memory_testing.target import Store


class ScopeChecks(Checks):
    """A view that sees and writes one user's conversations only."""

    async def _two_users(self, store: Store) -> tuple[BackendProvider, BackendProvider]:
        provider = await store.open()
        for name, owner in (("mine", "me"), ("theirs", "them"), ("nobodys", None)):
            done(await provider.store_messages(name, talk(3, name[0]), {"of": name}, user_id=owner))
        return provider, provider.for_user("me")

    async def test_own(self, store: Store) -> None:
        """A view reads and writes its user's conversations as the provider does."""
        provider, view = await self._two_users(store)
        assert await whole(view, "mine") == await whole(provider, "mine")
        done(await view.append_messages("mine", talk(1, "n")))
        assert await view.update_metadata("mine", {"x": 1}) == 3
        assert await view.set_expiry("mine", 600) == 4
        assert await view.truncate_conversation_after("mine", "m2") == 2
        assert len(await view.get_recent_messages("mine")) == 2
        assert len(await view.get_messages("mine")) == 2
        assert await view.get_conversation_until_message("mine", "m1") is not None
        assert await view.delete_conversation("mine") is True
        await absent(provider, "mine")

    async def test_what_a_view_makes_is_the_users(self, store: Store) -> None:
        """Conversations that are made through a view belong to its user, without saying so."""
        provider, view = await self._two_users(store)
        done(await view.store_messages("a", talk(1)))
        done(await view.append_messages("b", talk(1), create=True))
        done(await view.store_messages("c", talk(1), {"user_id": "me"}, user_id="me"))
        for name in "abc":
            assert (await whole(provider, name)).user_id == "me"

    async def test_naming_another_owner(self, store: Store) -> None:
        """A view cannot make, or give away, conversations of another user."""
        provider, view = await self._two_users(store)
        refused(await view.store_messages("new", talk(1), user_id="them"), MemoryInvalidInputError)
        refused(await view.append_messages("mine", talk(1), {"user_id": "them"}), MemoryInvalidInputError)
        with pytest.raises((MemoryConflictError, MemoryInvalidInputError)):
            await view.update_metadata("mine", {"user_id": "them"})
        await absent(provider, "new")
        assert (await whole(provider, "mine")).version == 1

    @pytest.mark.parametrize("name", ["theirs", "nobodys"])
    async def test_others_are_not_there(self, store: Store, name: str) -> None:
        """Another's conversation, or nobody's, is not found by any method, and stays as it is."""
        provider, view = await self._two_users(store)
        before = await whole(provider, name)
        await absent(view, name)
        assert await view.get_conversation_until_message(name, f"{name[0]}1") is None
        for call in RAISING.values():
            with pytest.raises(MemoryNotFoundError):
                await call(view, name)
        refused(await view.append_messages(name, talk(1)), MemoryNotFoundError)
        refused(await view.append_messages(name, talk(1), expected_version=1), MemoryNotFoundError)
        assert await view.delete_conversation(name) is False
        assert await whole(provider, name) == before

    @pytest.mark.parametrize("name", ["theirs", "nobodys"])
    async def test_storing_anothers_is_a_conflict(self, store: Store, name: str) -> None:
        """Storing under another's id is a conflict that names nobody, and nothing is applied, not even for a moment."""
        provider, view = await self._two_users(store)
        before = await whole(provider, name)
        writes: list[Callable[[], Awaitable[Any]]] = [
            lambda: view.store_messages(name, talk(1), {"x": 1}),
            lambda: view.append_messages(name, talk(1), {"x": 1}, create=True),
            lambda: view.append_messages(name, talk(3, name[0]), create=True),
            lambda: view.store_messages(name, talk(1), expected_version=1),
            lambda: view.store_messages(name, talk(1), expected_version=0),
            lambda: view.import_conversation(ConversationMemory(name, messages=talk(1))),
        ]
        for write in writes:
            error = refused(await write(), MemoryConflictError)
            assert "them" not in str(error)
            assert error.actual_version is None
        assert await whole(provider, name) == before

    async def test_finding(self, store: Store) -> None:
        """Queries and iterations through a view give its user's conversations only."""
        _, view = await self._two_users(store)
        assert await found(view) == await passed(view) == ["mine"]
        assert await found(view, user_id="me") == await passed(view, user_id="me") == ["mine"]
        assert await found(view, user_id="them") == await passed(view, user_id="them") == []
        assert await found(view, conversation_id="theirs") == await passed(view, conversation_id="theirs") == []
        assert await found(view, metadata={"user_id": "them"}) == []

    async def test_counting(self, store: Store) -> None:
        """Statistics through a view are its user's; of another user it knows nothing."""
        provider, view = await self._two_users(store)
        assert await view.get_stats() == await view.get_stats("me") == await provider.get_stats("me")
        assert (await view.get_stats("them"))["user_conversations"] == 0
        assert (await view.get_stats("them"))["total_storage_size"] == 0

    async def test_clearing(self, store: Store) -> None:
        """A view clears its own user, and nobody else."""
        provider, view = await self._two_users(store)
        assert await view.clear_user_conversations("them") == 0
        assert await view.clear_user_conversations("me") == 1
        assert sorted(await passed(provider)) == ["nobodys", "theirs"]

    async def test_purging(self, store: Store) -> None:
        """A view purges its user's expired conversations only."""
        provider, view = await self._two_users(store)
        await let_expire(provider, "mine", "theirs", "nobodys")
        assert await view.purge_expired() == 1
        assert await provider.purge_expired() == 2

    async def test_anothers_expired_id_is_free(self, store: Store) -> None:
        """An id whose conversation has expired may be stored by anybody."""
        provider, view = await self._two_users(store)
        await let_expire(provider, "theirs")
        done(await view.store_messages("theirs", talk(1)))
        conversation = await whole(view, "theirs")
        assert conversation.user_id == "me"
        assert conversation.metadata == {"user_id": "me"}

    async def test_closing_a_view(self, store: Store) -> None:
        """Closing a view, also as a context manager, closes nothing."""
        provider, view = await self._two_users(store)
        async with view:
            pass
        await view.close()
        await whole(view, "mine")
        await whole(provider, "mine")

    async def test_view_of_a_view(self, store: Store) -> None:
        """A view gives itself for its own user, and refuses another."""
        _, view = await self._two_users(store)
        await whole(view.for_user("me"), "mine")
        with pytest.raises(MemoryInvalidInputError):
            view.for_user("them")
        await whole(view, "mine")

    async def test_views_never_meet(self, store: Store) -> None:
        """Views of users whose ids look alike see nothing of each other."""
        provider = await store.open()
        for n, user in enumerate(IDS):
            done(await provider.for_user(user).store_messages(f"c{n}", talk(1)))
        for n, user in enumerate(IDS):
            view = provider.for_user(user)
            assert [one.conversation_id for one in await view.find_conversations(MemoryQuery())] == [f"c{n}"]
            await absent(view, f"c{(n + 1) % len(IDS)}")

    async def test_no_user(self, store: Store) -> None:
        """What is no id is no user."""
        provider = await store.open()
        nobody: Any = None
        for user in ("", "a\0", "\ud800", "x" * 256, nobody):
            with pytest.raises(MemoryInvalidInputError):
                provider.for_user(user)
            with pytest.raises(MemoryInvalidInputError):
                await provider.clear_user_conversations(user)
