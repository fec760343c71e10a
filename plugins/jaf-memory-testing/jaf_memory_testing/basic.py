"""The six methods of the user's document: what each does, and appends, idempotent, all or nothing, contiguous."""

from __future__ import annotations

import asyncio

import pytest

from jaf_memory_core.errors import MemoryConflictError, MemoryNotFoundError
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import Success
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.samples import ids, rich, said, talk
from jaf_memory_testing.target import Store


class BasicChecks(Checks):
    """Storing, reading, appending, deleting; asks for no more than the six documented methods."""

    async def test_smoke(self, store: Store) -> None:
        """Two providers on one store: what one writes, the other reads, adds to and deletes. Mend this first."""
        one, other = await store.open(), await store.open()
        done(await one.store_messages("c", talk(2), {"a": 1}))
        assert list((await whole(other)).messages) == talk(2)
        done(await other.append_messages("c", talk(1, start=2)))
        assert ids(await one.get_recent_messages("c")) == ["m0", "m1", "m2"]
        assert await one.delete_conversation("c") is True
        await absent(other)

    async def test_has_the_six_methods(self, store: Store) -> None:
        """A provider satisfies the `MemoryProvider` protocol, whatever its base class."""
        assert isinstance(await store.open(), MemoryProvider)

    async def test_store_answers_success(self, store: Store) -> None:
        """`store_messages` answers `Success`."""
        provider = await store.open()
        assert isinstance(await provider.store_messages("c", talk(2)), Success)

    async def test_stored_is_read(self, store: Store) -> None:
        """`get_conversation` gives the messages that were stored, equal and in order."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5)))
        conversation = await whole(provider)
        assert conversation.conversation_id == "c"
        assert list(conversation.messages) == talk(5)

    async def test_every_field_is_kept(self, store: Store) -> None:
        """Roles, names, tool calls, parts, attachments and further fields come back equal."""
        provider = await store.open()
        done(await provider.store_messages("c", rich()))
        assert [message.dict() for message in (await whole(provider)).messages] == [one.dict() for one in rich()]

    async def test_missing_is_none(self, store: Store) -> None:
        """`get_conversation` gives `None` for what was never stored."""
        await absent(await store.open(), "nothing")

    async def test_metadata_is_read(self, store: Store) -> None:
        """Metadata that was stored is shown."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"topic": "weather", "tags": ["a", "b"]}))
        assert (await whole(provider)).metadata == {"topic": "weather", "tags": ["a", "b"]}

    async def test_named_arguments(self, store: Store) -> None:
        """All arguments can be given by the names that the document has."""
        provider = await store.open()
        done(await provider.store_messages(conversation_id="c", messages=talk(1), metadata={"topic": "x"}))
        done(await provider.append_messages(conversation_id="c", messages=talk(1, start=1), metadata=None))
        conversation = await provider.get_conversation(conversation_id="c")
        assert conversation is not None
        assert ids(conversation.messages) == ["m0", "m1"]
        assert ids(await provider.get_recent_messages(conversation_id="c", limit=1)) == ["m1"]
        assert await provider.delete_conversation(conversation_id="c") is True

    async def test_store_replaces(self, store: Store) -> None:
        """Storing again replaces all messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(5, "old")))
        done(await provider.store_messages("c", talk(2, "new")))
        assert list((await whole(provider)).messages) == talk(2, "new")

    async def test_store_again_with_held_ids(self, store: Store) -> None:
        """Storing again takes the new order and the new content of messages that were there."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        changed = [said("other", message_id="m2"), said("more", message_id="m0")]
        done(await provider.store_messages("c", changed))
        assert list((await whole(provider)).messages) == changed

    async def test_store_nothing(self, store: Store) -> None:
        """A conversation may be stored without messages."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        assert len((await whole(provider)).messages) == 0
        assert await provider.get_recent_messages("c") == []

    async def test_append_adds_behind(self, store: Store) -> None:
        """Appended messages stand behind those that are there, in order."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        done(await provider.append_messages("c", talk(2, start=2)))
        done(await provider.append_messages("c", talk(1, start=4)))
        assert list((await whole(provider)).messages) == talk(5)

    async def test_append_to_missing(self, store: Store) -> None:
        """Appending to a missing conversation fails with `MemoryNotFoundError`, and makes nothing."""
        provider = await store.open()
        error = refused(await provider.append_messages("c", talk(1)), MemoryNotFoundError)
        assert error.conversation_id == "c"
        await absent(provider)

    async def test_recent_are_the_last(self, store: Store) -> None:
        """`get_recent_messages` gives the last `limit`, oldest first, as a list."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10)))
        recent = await provider.get_recent_messages("c", limit=3)
        assert type(recent) is list
        assert recent == talk(3, start=7)

    async def test_recent_default(self, store: Store) -> None:
        """`get_recent_messages` gives 50 when nothing is said."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(60)))
        assert await provider.get_recent_messages("c") == talk(50, start=10)

    async def test_recent_zero(self, store: Store) -> None:
        """`limit=0` gives no messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        assert await provider.get_recent_messages("c", limit=0) == []

    async def test_recent_beyond_the_first(self, store: Store) -> None:
        """A `limit` above the number of messages gives them all."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        assert await provider.get_recent_messages("c", limit=1000) == talk(3)

    async def test_recent_of_missing(self, store: Store) -> None:
        """`get_recent_messages` of a missing conversation raises `MemoryNotFoundError`, whatever the limit."""
        provider = await store.open()
        for limit in (0, 50):
            with pytest.raises(MemoryNotFoundError) as caught:
                await provider.get_recent_messages("c", limit=limit)
            assert caught.value.conversation_id == "c"

    async def test_delete(self, store: Store) -> None:
        """`delete_conversation` gives `True`, and the conversation is gone."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        assert await provider.delete_conversation("c") is True
        await absent(provider)
        refused(await provider.append_messages("c", talk(1)), MemoryNotFoundError)
        with pytest.raises(MemoryNotFoundError):
            await provider.get_recent_messages("c")

    async def test_delete_missing(self, store: Store) -> None:
        """`delete_conversation` gives `False` for what is not there, or no longer."""
        provider = await store.open()
        assert await provider.delete_conversation("c") is False
        done(await provider.store_messages("c", talk(1)))
        assert await provider.delete_conversation("c") is True
        assert await provider.delete_conversation("c") is False

    async def test_made_again_starts_empty(self, store: Store) -> None:
        """A conversation that is made again under a deleted one's id has nothing of that one."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3, "old"), {"old": 1, "user_id": "somebody"}))
        assert await provider.delete_conversation("c") is True
        done(await provider.store_messages("c", talk(1, "new"), {"new": 2}))
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(1, "new")
        assert conversation.metadata == {"new": 2}
        assert conversation.user_id is None

    async def test_conversations_do_not_mix(self, store: Store) -> None:
        """What is done to one conversation leaves every other as it is."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(2, name), {"name": name}))
        done(await provider.append_messages("b", talk(1, "b", start=2)))
        assert await provider.delete_conversation("a") is True
        assert list((await whole(provider, "b")).messages) == talk(3, "b")
        assert list((await whole(provider, "c")).messages) == talk(2, "c")
        assert (await whole(provider, "c")).metadata == {"name": "c"}

    async def test_health(self, store: Store) -> None:
        """`health_check` of a store that answers says so."""
        provider = await store.open()
        health = await provider.health_check()
        assert health["healthy"] is True
        assert not health.get("error")


class AppendChecks(Checks):
    """Appends from one task and from many; asks for no more than the six documented methods."""

    async def test_retry_adds_nothing(self, store: Store) -> None:
        """An append that is repeated, as after a lost answer, succeeds and adds nothing."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        for _ in range(3):
            done(await provider.append_messages("c", talk(3, "n")))
        assert ids((await whole(provider)).messages) == ["m0", "n0", "n1", "n2"]

    async def test_retry_of_what_was_stored(self, store: Store) -> None:
        """A message that `store_messages` brought counts as held, too."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        done(await provider.append_messages("c", talk(3)))
        assert list((await whole(provider)).messages) == talk(3)

    async def test_partial_retry_adds_the_rest(self, store: Store) -> None:
        """Of a batch of which some messages are held, the others are added, in order."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(2, "n")))
        done(await provider.append_messages("c", talk(4, "n")))
        assert ids((await whole(provider)).messages) == ["m0", "n0", "n1", "n2", "n3"]

    async def test_held_in_between(self, store: Store) -> None:
        """Held messages in the middle of a batch are passed over."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        new = talk(3, "n")
        done(await provider.append_messages("c", [new[0], *talk(1), new[1], *talk(1, start=1), new[2]]))
        assert ids((await whole(provider)).messages) == ["m0", "m1", "n0", "n1", "n2"]

    async def test_twice_in_one_batch(self, store: Store) -> None:
        """Two equal messages within one batch are one."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        one, two = talk(2, "n")
        done(await provider.append_messages("c", [one, two, one, two]))
        assert ids((await whole(provider)).messages) == ["m0", "n0", "n1"]

    async def test_other_content_is_a_conflict(self, store: Store) -> None:
        """The same `message_id` with other content is refused as a conflict."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        refused(await provider.append_messages("c", [said("other", message_id="m1")]), MemoryConflictError)
        assert list((await whole(provider)).messages) == talk(2)

    async def test_other_role_is_a_conflict(self, store: Store) -> None:
        """Any other field is other content, too."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", message_id="m")]))
        for other in (
            said("x", "assistant", message_id="m"),
            said("x", name="n", message_id="m"),
            said("x", further=1, message_id="m"),
        ):
            refused(await provider.append_messages("c", [other]), MemoryConflictError)
        assert list((await whole(provider)).messages) == [said("x", message_id="m")]

    async def test_other_number_type_is_a_conflict(self, store: Store) -> None:
        """1, 1.0 and True are different contents of a further field."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", message_id="m", value=1)]))
        for value in (1.0, True, "1"):
            other = said("x", message_id="m", value=value)
            refused(await provider.append_messages("c", [other]), MemoryConflictError)
        done(await provider.append_messages("c", [said("x", message_id="m", value=1)]))

    async def test_order_of_keys_is_no_conflict(self, store: Store) -> None:
        """A message whose inner keys come in another order is the same message."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", message_id="m", value={"a": 1, "b": 2})]))
        done(await provider.append_messages("c", [said("x", message_id="m", value={"b": 2, "a": 1})]))
        assert len((await whole(provider)).messages) == 1

    async def test_conflict_applies_nothing(self, store: Store) -> None:
        """When one message of a batch is in conflict, none of the batch is added, nor its metadata."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2), {"a": 1}))
        batch = [*talk(2, "n"), said("other", message_id="m0"), *talk(2, "o")]
        refused(await provider.append_messages("c", batch, {"a": 2, "b": 3}), MemoryConflictError)
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(2)
        assert conversation.metadata == {"a": 1}

    async def test_conflict_within_a_batch(self, store: Store) -> None:
        """One id with two contents within a batch is a conflict, and nothing is added."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        batch = [said("one", message_id="n"), said("two", message_id="n")]
        refused(await provider.append_messages("c", batch), MemoryConflictError)
        assert list((await whole(provider)).messages) == talk(1)

    async def test_same_ids_in_two_conversations(self, store: Store) -> None:
        """A `message_id` means something within its conversation only."""
        provider = await store.open()
        done(await provider.store_messages("a", [said("one", message_id="m")]))
        done(await provider.store_messages("b", talk(1)))
        done(await provider.append_messages("b", [said("two", message_id="m")]))
        assert (await whole(provider, "a")).messages[0].content == "one"
        assert ids((await whole(provider, "b")).messages) == ["m0", "m"]

    async def test_equal_contents_are_two_messages(self, store: Store) -> None:
        """Messages with equal content and different ids are all kept."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("ok"), said("ok")]))
        done(await provider.append_messages("c", [said("ok"), said("ok")]))
        assert [message.content for message in (await whole(provider)).messages] == ["ok"] * 4

    async def test_append_nothing(self, store: Store) -> None:
        """An append of no messages succeeds, and changes none."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(2)))
        done(await provider.append_messages("c", []))
        assert list((await whole(provider)).messages) == talk(2)

    async def test_append_merges_metadata(self, store: Store) -> None:
        """Metadata of an append is merged by top-level key."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"kept": 1, "changed": {"x": 1, "y": 2}}))
        done(await provider.append_messages("c", talk(1, "n"), {"changed": {"z": 3}, "new": None}))
        assert (await whole(provider)).metadata == {"kept": 1, "changed": {"z": 3}, "new": None}

    async def test_concurrent_appends_all_stay(self, store: Store) -> None:
        """Appends of many tasks at once all stay, once each, and none is refused."""
        provider = await store.open()
        done(await provider.store_messages("c", []))

        async def writer(name: str) -> None:
            for n in range(5):
                done(await provider.append_messages("c", talk(1, name, start=n)))

        names = [f"w{n}-" for n in range(16)]
        await asyncio.gather(*map(writer, names))
        found = ids((await whole(provider)).messages)
        assert sorted(found) == sorted(f"{name}{n}" for name in names for n in range(5))
        for name in names:
            own = [one for one in found if one.startswith(name)]
            assert own == [f"{name}{n}" for n in range(5)], "a task's appends are out of order"

    async def test_batches_are_contiguous(self, store: Store) -> None:
        """A batch stays together and in order beside those of other tasks."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        names = [f"w{n}-" for n in range(16)]
        await asyncio.gather(*(provider.append_messages("c", talk(7, name)) for name in names))
        found = ids((await whole(provider)).messages)
        assert len(found) == 16 * 7
        for start in range(0, len(found), 7):
            name = found[start].removesuffix("0")
            assert found[start : start + 7] == ids(talk(7, name))

    async def test_one_append_sent_many_times_at_once(self, store: Store) -> None:
        """The same append from many tasks at once adds its messages once."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        answers = await asyncio.gather(*(provider.append_messages("c", talk(3)) for _ in range(16)))
        for answer in answers:
            done(answer)
        assert list((await whole(provider)).messages) == talk(3)
