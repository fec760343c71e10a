"""Values and ids: what was stored comes back equal, or was refused; any text is an id, and means itself."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expectations import absent, done, refused, same_values, whole
from jaf_memory_testing.hostile import IDS, NAMES, REFUSED_IDS, VALUES
from jaf_memory_testing.samples import ids, nested, said, talk
from jaf_memory_testing.target import Store

every_value = pytest.mark.parametrize("name", list(VALUES))


class ValueChecks(Checks):
    """Hostile values; asks for no more than the six documented methods."""

    @every_value
    async def test_value_in_a_message(self, store: Store, name: str) -> None:
        """A further field of a message comes back equal, in every value, type and inner order."""
        provider = await store.open()
        message = said("x", message_id="m", value=VALUES[name])
        done(await provider.store_messages("c", [message]))
        done(await provider.append_messages("c", [message, said("y", message_id="n", value=VALUES[name])]))
        for read in (list((await whole(provider)).messages), await provider.get_recent_messages("c")):
            assert len(read) == 2
            for one in read:
                same_values(one.dict()["value"], VALUES[name])

    @every_value
    async def test_value_in_metadata(self, store: Store, name: str) -> None:
        """A value in metadata comes back equal, in every value, type and inner order."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"stored": VALUES[name]}))
        done(await provider.append_messages("c", talk(1, "n"), {"appended": VALUES[name]}))
        metadata = (await whole(provider)).metadata
        same_values(metadata["stored"], VALUES[name])
        same_values(metadata["appended"], VALUES[name])

    @pytest.mark.parametrize("name", [name for name, value in VALUES.items() if isinstance(value, str)])
    async def test_text_everywhere(self, store: Store, name: str) -> None:
        """Any text is kept as content, as a part, in tool calls and attachments, and as a key of metadata."""
        provider = await store.open()
        text = VALUES[name]
        messages = [
            said(text, message_id="m0", name=text),
            Message(role="user", content=[{"type": "text", "text": text}], message_id="m1"),
            Message(
                role="assistant",
                tool_calls=[{"id": text, "function": {"name": text, "arguments": text}}],
                attachments=[{"kind": "file", "data": text, "name": text}],
                message_id="m2",
            ),
            Message(role="tool", content=text, tool_call_id=text, message_id="m3"),
        ]
        done(await provider.store_messages("c", messages, {text: text}))
        conversation = await whole(provider)
        assert list(conversation.messages) == messages
        assert conversation.metadata == {text: text}

    async def test_names_that_stores_use(self, store: Store) -> None:
        """A key of metadata, and a further field of a message, may have any name that a store has for its own."""
        provider = await store.open()
        further: dict[str, Any] = {name: [1] for name in NAMES if name not in Message.__struct_fields__}
        metadata = {name: {"n": number} for number, name in enumerate(NAMES)}
        one, other = (Message(role="user", content="x", message_id=name, **further) for name in "mn")
        done(await provider.store_messages("c", [one], metadata))
        done(await provider.append_messages("c", [other], {"more": 1}))
        conversation = await whole(provider)
        assert conversation.metadata == {**metadata, "more": 1}
        for message in conversation.messages:
            kept = message.dict()
            assert {name: kept.get(name) for name in further} == further

    async def test_ten_megabytes(self, store: Store) -> None:
        """A message of 10 MB is kept."""
        provider = await store.open()
        large = said("0123456789" * 1_000_000 + "end", message_id="large")
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", [large]))
        assert (await provider.get_recent_messages("c", limit=1))[0] == large

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e400], ids=["nan", "inf", "-1e400"])
    async def test_no_number(self, store: Store, value: float) -> None:
        """NaN and infinity are refused, and nothing is applied."""
        provider = await store.open()
        with pytest.raises(MemoryInvalidInputError):
            said("x", value=[value])
        refused(await provider.store_messages("c", talk(1), {"value": {"inner": value}}), MemoryInvalidInputError)
        await absent(provider)

    @pytest.mark.parametrize("digits", [4001, 5001])
    async def test_too_long_integer(self, store: Store, digits: int) -> None:
        """Integers of more than 4,000 digits are refused: Python could not read them back."""
        provider = await store.open()
        value = 10 ** (digits - 1)
        done(await provider.store_messages("c", talk(1)))
        for messages, metadata in (([said("x", value=[-value])], None), (talk(1, "n"), {"value": {"inner": value}})):
            refused(await provider.append_messages("c", messages, metadata), MemoryInvalidInputError)
            refused(await provider.store_messages("c", messages, metadata), MemoryInvalidInputError)
        assert list((await whole(provider)).messages) == talk(1)

    @pytest.mark.parametrize("depth", [101, 150])
    async def test_too_deep(self, store: Store, depth: int) -> None:
        """Values nested more than 100 deep are refused, in messages and in metadata."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        for messages, metadata in (([said("x", value=nested(depth))], None), (talk(1, "n"), {"value": nested(depth)})):
            refused(await provider.append_messages("c", messages, metadata), MemoryInvalidInputError)
        assert list((await whole(provider)).messages) == talk(1)

    async def test_far_too_deep(self, store: Store) -> None:
        """5,000 levels are refused as invalid input, not with an error of recursion."""
        provider = await store.open()
        with pytest.raises(MemoryInvalidInputError):
            said("x", value=nested(5000))
        refused(await provider.store_messages("c", talk(1), {"value": nested(5000)}), MemoryInvalidInputError)
        await absent(provider)

    @pytest.mark.parametrize(
        "value",
        [object(), {1, 2}, b"bytes", 1j, {1: "number as key"}],
        ids=["object", "set", "bytes", "complex", "key"],
    )
    async def test_no_json(self, store: Store, value: Any) -> None:
        """What JSON cannot hold is refused instead of being turned into something else."""
        provider = await store.open()
        with pytest.raises(MemoryInvalidInputError):
            said("x", value=value)
        refused(await provider.store_messages("c", talk(1), {"value": value}), MemoryInvalidInputError)
        await absent(provider)

    async def test_datetimes_in_metadata(self, store: Store) -> None:
        """Datetimes in metadata become ISO 8601 strings."""
        provider = await store.open()
        moment = datetime(2024, 1, 15, 10, 0, 0, 5, tzinfo=UTC)
        done(await provider.store_messages("c", talk(1), {"at": moment, "in": [{"deep": moment}]}))
        text = "2024-01-15T10:00:00.000005+00:00"
        assert (await whole(provider)).metadata == {"at": text, "in": [{"deep": text}]}

    async def test_other_mappings_in_metadata(self, store: Store) -> None:
        """Any mapping and any tuple is stored as the JSON object or array that it is."""
        provider = await store.open()
        given = MappingProxyType({"a": OrderedDict(z=1, y=(1, 2))})
        done(await provider.store_messages("c", talk(1), given))
        same_values((await whole(provider)).metadata["a"], {"z": 1, "y": [1, 2]})

    async def test_callers_objects_are_left_alone(self, store: Store) -> None:
        """Lists and dicts that the caller gave are not changed, and may be changed afterwards without effect."""
        provider = await store.open()
        messages, metadata = talk(2), {"user_id": "u", "list": [1, {"a": 2}]}
        done(await provider.store_messages("c", messages, metadata))
        assert messages == talk(2)
        assert metadata == {"user_id": "u", "list": [1, {"a": 2}]}
        messages.clear()
        metadata["list"][1]["a"] = 3  # type: ignore[index]
        conversation = await whole(provider)
        assert list(conversation.messages) == talk(2)
        assert conversation.metadata["list"] == [1, {"a": 2}]

    async def test_what_is_returned_is_read_only(self, store: Store) -> None:
        """Messages are a tuple, metadata a read-only dict, all the way down."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", value={"list": [1]})], {"a": {"b": [1]}}))
        conversation = await whole(provider)
        assert isinstance(conversation.messages, tuple)
        assert isinstance(conversation.metadata, dict)
        metadata, value = conversation.metadata, conversation.messages[0].value
        for things, change, arguments in (
            (metadata, "update", [{"c": 1}]),
            (metadata["a"], "clear", []),
            (metadata["a"]["b"], "append", [2]),
            (value["list"], "append", [2]),
            (value, "pop", ["list"]),
        ):
            with pytest.raises(TypeError):
                getattr(things, change)(*arguments)
        with pytest.raises(AttributeError):
            conversation.user_id = "other"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            conversation.messages[0].content = "other"  # type: ignore[misc]
        again = await whole(provider)
        assert again.metadata == {"a": {"b": [1]}}
        assert again.messages[0].value == {"list": [1]}

    async def test_changing_a_list_of_recent_messages(self, store: Store) -> None:
        """The list that `get_recent_messages` gives is the caller's own."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        (await provider.get_recent_messages("c")).clear()
        assert await provider.get_recent_messages("c") == talk(3)

    async def test_returned_goes_through_json(self, store: Store) -> None:
        """`json.dumps` takes metadata and `Message.dict()` as they are returned."""
        provider = await store.open()
        done(await provider.store_messages("c", [said("x", value={"a": [1]})], {"a": {"b": [1, None]}}))
        conversation = await whole(provider)
        assert json.loads(json.dumps(conversation.metadata)) == {"a": {"b": [1, None]}}
        assert json.loads(json.dumps(conversation.messages[0].dict()))["value"] == {"a": [1]}

    async def test_many_messages_in_one_store(self, store: Store) -> None:
        """Ten thousand messages in one call are kept, in order."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(10_000)))
        assert list((await whole(provider)).messages) == talk(10_000)


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
