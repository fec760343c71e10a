"""Ids: any text means itself, whatever the store makes of such characters."""

from __future__ import annotations

from typing import Any

import pytest

from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expect import absent, done, refused, whole
from jaf_memory_testing.hostile import IDS, REFUSED_IDS
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.store import Store


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
        done(await provider.store_messages("c", messages[:3]))
        done(await provider.append_messages("c", messages))
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
