"""Owner and metadata."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, same_values, whole
from jaf_memory_testing.samples import talk
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
