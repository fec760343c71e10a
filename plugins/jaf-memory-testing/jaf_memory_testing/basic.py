"""The six methods of the user's document, and ids: any text means itself, whatever the store makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import Success
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.hostile import IDS, REFUSED_IDS
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


class IdentifierChecks(Checks):
    """Ids of conversations and messages; asks for no more than the six documented methods."""

    async def test_ids_never_meet(self, store: Store) -> None:
        """Conversations under ids that differ in case, space, normal form or wildcards only are different ones."""
        provider = await store.open()
        for n, key in enumerate(IDS):
            done(await provider.store_messages(key, [said(f"of {n}", message_id="m")], {"n": n}))
        for n, key in enumerate(IDS):
            conversation = await whole(provider, key)
            assert conversation.conversation_id == key
            assert conversation.metadata == {"n": n}, f"{key!r} has met another id"
            assert [message.content for message in conversation.messages] == [f"of {n}"]

    async def test_appends_never_meet(self, store: Store) -> None:
        """An append reaches the conversation of exactly that id."""
        provider = await store.open()
        for key in IDS:
            done(await provider.store_messages(key, []))
        for n, key in enumerate(IDS):
            done(await provider.append_messages(key, [said(f"of {n}", message_id="m")]))
        for n, key in enumerate(IDS):
            assert [message.content for message in await provider.get_recent_messages(key)] == [f"of {n}"]

    async def test_deletes_never_meet(self, store: Store) -> None:
        """A delete removes the conversation of exactly that id."""
        provider = await store.open()
        for key in IDS:
            done(await provider.store_messages(key, talk(1)))
        for key in IDS[::2]:
            assert await provider.delete_conversation(key) is True
        for n, key in enumerate(IDS):
            assert (await provider.get_conversation(key) is None) == (n % 2 == 0), f"{key!r} has met another id"

    async def test_ids_that_are_missing(self, store: Store) -> None:
        """An id that could match others as a pattern matches nothing."""
        provider = await store.open()
        done(await provider.store_messages("abc", talk(1)))
        for key in ("*", "a*", "%", "a%", "a_c", "a?c", "[a]bc", "ABC", "abc ", " abc", "ab", "abcd"):
            await absent(provider, key)
            assert await provider.delete_conversation(key) is False
        await whole(provider, "abc")

    async def test_message_ids_never_meet(self, store: Store) -> None:
        """Messages under ids that look alike are different ones."""
        provider = await store.open()
        messages = [said("x", message_id=key) for key in IDS]
        done(await provider.store_messages("c", []))
        for message in messages:
            done(await provider.append_messages("c", [message]))
        # All are held by now: what is added once more was not known.
        done(await provider.append_messages("c", messages[::-1]))
        assert ids((await whole(provider)).messages) == list(IDS)

    @pytest.mark.parametrize("name", list(REFUSED_IDS))
    async def test_refused_conversation_id(self, store: Store, name: str) -> None:
        """What is no id is refused: by writes as `Failure`, by the others with `MemoryInvalidInputError`."""
        provider = await store.open()
        key: Any = REFUSED_IDS[name]
        refused(await provider.store_messages(key, talk(1)), MemoryInvalidInputError)
        refused(await provider.append_messages(key, talk(1)), MemoryInvalidInputError)
        for call in (provider.get_conversation, provider.get_recent_messages, provider.delete_conversation):
            with pytest.raises(MemoryInvalidInputError):
                await call(key)

    @pytest.mark.parametrize("name", [name for name in REFUSED_IDS if name != "none"])
    async def test_refused_user_id_in_metadata(self, store: Store, name: str) -> None:
        """What is no id is no owner."""
        provider = await store.open()
        refused(await provider.store_messages("c", talk(1), {"user_id": REFUSED_IDS[name]}), MemoryInvalidInputError)
        await absent(provider)

    @pytest.mark.parametrize("name", [name for name in REFUSED_IDS if name != "none"])
    def test_refused_message_id(self, name: str) -> None:
        """What is no id is no `message_id`."""
        with pytest.raises(MemoryInvalidInputError):
            said("x", message_id=REFUSED_IDS[name])

    async def test_longest_ids_at_once(self, store: Store) -> None:
        """Conversation, owner and message may all have ids of 255 characters outside ASCII."""
        provider = await store.open()
        key = "😀" * 255
        done(await provider.store_messages(key, [said("x", message_id=key)], {"user_id": key}))
        done(await provider.append_messages(key, [said("y", message_id=key[:-1])]))
        conversation = await whole(provider, key)
        assert conversation.user_id == key
        assert ids(conversation.messages) == [key, key[:-1]]
        assert await provider.delete_conversation(key) is True
        with pytest.raises(MemoryNotFoundError):
            await provider.get_recent_messages(key)
