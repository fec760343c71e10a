"""Who owns a conversation: owner and metadata, and `for_user`, one user's view."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, let_expire, refused, same_values, whole
from jaf_memory_testing.hostile import IDS
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import RAISING, talk
from jaf_memory_testing.target import Store


class LabelChecks(Checks):
    """Who owns a conversation, and how metadata is merged."""

    async def test_owner_by_keyword(self, store: Store) -> None:
        """The owner that `user_id=` names is shown in `user_id` and in metadata."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}, user_id="u"))
        conversation = await whole(provider)
        assert conversation.user_id == "u"
        assert conversation.metadata == {"a": 1, "user_id": "u"}

    async def test_owner_in_metadata(self, store: Store) -> None:
        """The owner that `metadata["user_id"]` names is the owner, as the document's export and import need it."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1, "user_id": "u"}))
        conversation = await whole(provider)
        assert conversation.user_id == "u"
        assert conversation.metadata == {"a": 1, "user_id": "u"}

    async def test_owner_said_twice(self, store: Store) -> None:
        """Both may say the same owner; different ones are refused, and nothing is applied."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"user_id": "u"}, user_id="u"))
        for write in (provider.store_messages, provider.append_messages):
            refused(await write("c", talk(1, "n"), {"user_id": "u"}, user_id="v"), MemoryInvalidInputError)
            refused(await write("d", talk(1, "n"), {"user_id": "u"}, user_id="v"), MemoryInvalidInputError)
        assert list((await whole(provider)).messages) == talk(1)
        await absent(provider, "d")

    @pytest.mark.parametrize("way", ["store", "append", "append-metadata", "update"])
    async def test_owner_given_later(self, store: Store, way: str) -> None:
        """A later write may give an owner to a conversation that has none."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}))
        if way == "store":
            done(await provider.store_messages("c", talk(1), user_id="u"))
        elif way == "append":
            done(await provider.append_messages("c", talk(1, "n"), user_id="u"))
        elif way == "append-metadata":
            done(await provider.append_messages("c", talk(1, "n"), {"user_id": "u"}))
        else:
            await provider.update_metadata("c", {"user_id": "u"})
        conversation = await whole(provider)
        assert conversation.user_id == "u"
        assert conversation.metadata == {"a": 1, "user_id": "u"}

    async def test_owner_stays(self, store: Store) -> None:
        """A write that names no owner, or the same, leaves the owner."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), user_id="u"))
        done(await provider.append_messages("c", talk(1, "n")))
        done(await provider.append_messages("c", talk(1, "o"), user_id="u"))
        done(await provider.store_messages("c", talk(2), {"a": 1}))
        await provider.update_metadata("c", {"b": 2})
        assert (await whole(provider)).user_id == "u"

    async def test_owner_never_changes(self, store: Store) -> None:
        """Another owner is a `MemoryConflictError` that names nobody, and nothing is applied."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}, user_id="first-owner"))
        before = await whole(provider)
        for write in (provider.store_messages, provider.append_messages):
            error = refused(await write("c", talk(1, "n"), {"a": 2}, user_id="second-owner"), MemoryConflictError)
            assert "first-owner" not in str(error)
            refused(await write("c", talk(1, "n"), {"a": 2, "user_id": "second-owner"}), MemoryConflictError)
        with pytest.raises(MemoryConflictError) as caught:
            await provider.update_metadata("c", {"a": 2, "user_id": "second-owner"})
        assert "first-owner" not in str(caught.value)
        assert await whole(provider) == before

    async def test_another_owner_of_what_was_deleted(self, store: Store) -> None:
        """A deleted conversation's id may be given to anybody."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), user_id="u"))
        assert await provider.delete_conversation("c") is True
        done(await provider.store_messages("c", talk(1), user_id="v"))
        assert (await whole(provider)).user_id == "v"

    async def test_merged_by_top_level_key(self, store: Store) -> None:
        """Each write merges metadata by top-level key: the new value stands in the place of the old, whole."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"kept": 1, "deep": {"x": 1, "y": [1, 2]}}))
        done(await provider.store_messages("c", talk(1), {"deep": {"z": 3}, "stored": True}))
        done(await provider.append_messages("c", talk(1, "n"), {"appended": [1]}))
        await provider.update_metadata("c", {"updated": "x", "stored": None})
        assert (await whole(provider)).metadata == {
            "kept": 1,
            "deep": {"z": 3},
            "stored": None,
            "appended": [1],
            "updated": "x",
        }

    async def test_no_metadata_leaves_it(self, store: Store) -> None:
        """A write without metadata, or with an empty one, leaves metadata as it is."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}))
        done(await provider.store_messages("c", talk(2)))
        done(await provider.store_messages("c", talk(2), {}))
        done(await provider.append_messages("c", talk(1, "n"), {}))
        await provider.set_expiry("c", 600)
        assert (await whole(provider)).metadata == {"a": 1}

    async def test_merged_value_type_is_exact(self, store: Store) -> None:
        """A value that is merged takes the new one's type: 1, 1.0 and True differ."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}))
        for value in (1.0, True, 1, "1", None, [1], {"a": 1}):
            await provider.update_metadata("c", {"a": value})
            same_values((await whole(provider)).metadata["a"], value)

    async def test_update_answers_the_version(self, store: Store) -> None:
        """`update_metadata` gives the new version, and touches no message."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3), {"a": 1}))
        assert await provider.update_metadata("c", {"b": 2}) == 2
        conversation = await whole(provider)
        assert conversation.version == 2
        assert conversation.metadata == {"a": 1, "b": 2}
        assert list(conversation.messages) == talk(3)

    async def test_keys_taken_out(self, store: Store) -> None:
        """`remove` takes top-level keys out beside the patch, and out of what queries find; all others stay."""
        provider = await store.open()
        labels = {"a": 1, "ä:b": [1], "A": None, "trace_id": "t"}
        done(await provider.store_messages("c", talk(2), labels, user_id="u"))
        assert await provider.update_metadata("c", {"b": 2}, ["a", "ä:b", "none", "a"]) == 2
        assert (await whole(provider)).metadata == {"b": 2, "A": None, "trace_id": "t", "user_id": "u"}
        assert await provider.update_metadata("c", {}, remove=("trace_id",), expected_version=2) == 3
        assert await provider.find_conversations(MemoryQuery(trace_id="t")) == []
        assert await provider.find_conversations(MemoryQuery(metadata={"a": 1})) == []
        assert len(await provider.find_conversations(MemoryQuery(metadata={"b": 2}))) == 1
        assert list((await whole(provider)).messages) == talk(2)

    async def test_keys_that_stay(self, store: Store) -> None:
        """An owner, a key that is set at once, and what is no list of keys are refused, and nothing is applied."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"a": 1}, user_id="u"))
        wrong: list[Any] = [["user_id"], ["a", "b"], "a", b"a", None, 5, [5], ["jaf-memory:summary"]]
        for remove in wrong:
            with pytest.raises(MemoryInvalidInputError):
                await provider.update_metadata("c", {"b": 2}, remove)
        assert (await whole(provider)).metadata == {"a": 1, "user_id": "u"}

    async def test_update_of_missing(self, store: Store) -> None:
        """`update_metadata` of a missing conversation raises `MemoryNotFoundError`, and makes none."""
        provider = await store.open()
        with pytest.raises(MemoryNotFoundError):
            await provider.update_metadata("c", {"a": 1})
        await absent(provider)

    async def test_concurrent_updates_all_stay(self, store: Store) -> None:
        """Updates of different keys by many tasks at once all stay."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        versions = await asyncio.gather(*(provider.update_metadata("c", {f"k{n}": n}) for n in range(16)))
        assert sorted(versions) == list(range(2, 18))
        assert (await whole(provider)).metadata == {f"k{n}": n for n in range(16)}

    async def test_updates_beside_appends(self, store: Store) -> None:
        """Updates of metadata and appends at once lose nothing of each other."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        await asyncio.gather(
            *(provider.update_metadata("c", {f"k{n}": n}) for n in range(8)),
            *(provider.append_messages("c", talk(2, f"w{n}-"), {f"m{n}": n}) for n in range(8)),
        )
        conversation = await whole(provider)
        assert len(conversation.messages) == 16
        assert len(conversation.metadata) == 16
        assert conversation.version == 17


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
