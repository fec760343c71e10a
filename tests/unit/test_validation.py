"""What a caller gives is checked before any I/O."""

import asyncio
import copy
import pickle

import pytest
from jaf_memory_testing.hostile import REFUSED_IDS
from jaf_memory_testing.samples import ids, nested, said, talk
from msgspec import structs

from jaf_memory_core import (
    Attachment,
    BackendProvider,
    ContentPart,
    ConversationMemory,
    Failure,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryQuery,
    Message,
    Processor,
    ProviderConfig,
    Success,
    Summary,
    ToolCall,
    codec,
    create_in_memory_provider,
    validation,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.processors import Chain

NO_CHAIN = Chain(())


class Untouchable(Backend):
    """A store that must not be asked."""

    async def _refuse(self, *_arguments, **_keywords):
        raise AssertionError("the store was asked, though the input is wrong")

    open = read = write = delete = scan = _refuse


def provider(**settings):
    """A provider whose store must not be asked."""
    return BackendProvider(Untouchable(), ProviderConfig(**settings))


class TestBeforeAnyIO:
    """Nothing that is refused has reached the store."""

    @pytest.mark.parametrize(
        ("settings", "messages", "metadata", "options"),
        [
            ({}, "text", None, {}),
            ({}, [{"role": "user"}], None, {}),
            ({}, [said("x", value=nested(150))], None, {}),
            ({}, [said("x", value=10**4000)], None, {}),
            ({}, [said("a", message_id="m"), said("b", message_id="m")], None, {}),
            ({}, talk(1), {"x": float("nan")}, {}),
            ({}, talk(1), {"x": nested(5000)}, {}),
            ({}, talk(1), "text", {}),
            ({}, talk(1), {"user_id": "u"}, {"user_id": "v"}),
            ({}, talk(1), {"user_id": 5}, {}),
            ({}, talk(1), None, {"user_id": ""}),
            ({}, talk(1), None, {"expected_version": -1}),
            ({"max_message_bytes": 100}, [said("x" * 100)], None, {}),
            ({"max_call_bytes": 100}, talk(3), None, {}),
            ({"max_metadata_bytes": 10}, talk(1), {"x": "y" * 10}, {}),
            ({"max_nesting": 3}, [said("x", value=nested(4))], None, {}),
            ({"max_integer_digits": 5}, talk(1), {"x": [123456]}, {}),
        ],
    )
    def test_writes(self, settings, messages, metadata, options):
        """A write that is refused is a `Failure`, and asks the store for nothing."""
        for method in (provider(**settings).store_messages, provider(**settings).append_messages):
            result = asyncio.run(method("c", messages, metadata, **options))
            assert isinstance(result, Failure)
            assert isinstance(result.error, MemoryInvalidInputError | MemoryConflictError)
            assert result.error.provider == "custom"

    def test_number_of_appended_messages(self):
        """An append of too many messages is refused."""
        result = asyncio.run(provider(max_append_messages=2).append_messages("c", talk(3)))
        assert isinstance(result.error, MemoryInvalidInputError)
        assert "allowed are 2" in str(result.error)

    @pytest.mark.parametrize("name", list(REFUSED_IDS))
    def test_ids(self, name):
        """What is no id reaches no store, by any method."""
        key = REFUSED_IDS[name]
        refusing = provider()
        for call in (
            lambda: refusing.get_conversation(key),
            lambda: refusing.get_recent_messages(key),
            lambda: refusing.get_messages(key),
            lambda: refusing.get_conversation_until_message("c", key),
            lambda: refusing.truncate_conversation_after("c", key),
            lambda: refusing.truncate_conversation_after(key, "m"),
            lambda: refusing.update_metadata(key, {}),
            lambda: refusing.set_expiry(key, 60),
            lambda: refusing.delete_conversation(key),
            lambda: refusing.clear_user_conversations(key),
        ):
            with pytest.raises(MemoryInvalidInputError):
                asyncio.run(call())
        for write in (refusing.store_messages, refusing.append_messages):
            assert isinstance(asyncio.run(write(key, talk(1))).error, MemoryInvalidInputError)

    @pytest.mark.parametrize("ttl", [0, -1, True, "60", float("nan"), float("inf"), 10**10])
    def test_ttl(self, ttl):
        """What is no time to live reaches no store."""
        with pytest.raises(MemoryInvalidInputError, match="ttl must be seconds above 0"):
            asyncio.run(provider().set_expiry("c", ttl))

    @pytest.mark.parametrize("number", [-1, 1.5, True, None, "1"])
    def test_limits(self, number):
        """What is no whole number from 0 reaches no store."""
        with pytest.raises(MemoryInvalidInputError, match="whole number from 0"):
            asyncio.run(provider().get_recent_messages("c", limit=number))

    def test_queries(self):
        """What is no query reaches no store; a query that asks for none needs none."""
        with pytest.raises(MemoryInvalidInputError, match="MemoryQuery"):
            asyncio.run(provider().find_conversations({"user_id": "u"}))
        assert asyncio.run(provider().find_conversations(MemoryQuery(limit=0))) == []


def by_replace(message, field, value):
    """As a processor does it."""
    return structs.replace(message, **{field: value})


def by_force(message, field, value):
    """As nobody should do it."""
    changed = copy.deepcopy(structs.replace(message))
    structs.force_setattr(changed, field, value)
    return changed


def by_unpickling(message, field, value):
    """As a queue of jobs may give it."""
    return pickle.loads(pickle.dumps(by_replace(message, field, value)))


class Mine(Message, frozen=True):
    """A subclass, which nobody has checked for us."""


def by_subclass(message, field, value):
    """As an application may have it."""
    return structs.replace(Mine(**message.dict()), **{field: value})


WAYS = [by_replace, by_force, by_unpickling, by_subclass]

WRONG = [
    ("role", "hacker"),
    ("role", 5),
    ("role", ["user"]),
    ("content", 5),
    ("content", ["a"]),
    ("content", {"a": 1}),
    ("content", float("nan")),
    ("content", b"bytes"),
    ("content", [{"text": "no type"}]),
    ("message_id", ""),
    ("message_id", "x" * 3000),
    ("message_id", "a\0b"),
    ("message_id", "\ud800"),
    ("message_id", None),
    ("message_id", 5),
    ("name", 5),
    ("tool_call_id", ["a"]),
    ("tool_calls", [5]),
    ("tool_calls", (structs.replace(ToolCall(id="1"), id=5),)),
    ("tool_calls", (structs.replace(ToolCall(id="1"), function="f"),)),
    ("attachments", (structs.replace(Attachment(kind="image"), kind=None),)),
    ("content", (structs.replace(ContentPart(type="text", text="x"), text=b"x"),)),
    ("content", (structs.replace(ContentPart(type="text"), further={"x": {1, 2}}),)),
    ("further", None),
    ("further", {"x": float("inf")}),
    ("further", {"x": {1, 2}}),
    ("further", {"x": {5: 1}}),
    ("further", {5: 1}),
    ("further", {"x": b"y"}),
    ("further", {"role": "system"}),
]


class TestHoweverItCameToBe:
    """What is checked is the value, not its type."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(("field", "value"), WRONG)
    def test_messages(self, way, field, value):
        """A message that its constructor would refuse is refused by each way into the store, and named."""
        wrong = way(said("x", message_id="m1"), field, value)
        for write in (provider().store_messages, provider().append_messages):
            result = asyncio.run(write("c", [*talk(1), wrong]))
            assert isinstance(result.error, MemoryInvalidInputError)
            assert "messages[1]" in str(result.error)
        conversation = structs.replace(ConversationMemory("c"), messages=(wrong,))
        assert isinstance(asyncio.run(provider().import_conversation(conversation)).error, MemoryInvalidInputError)
        (result,) = asyncio.run(provider().import_conversations([conversation]))
        assert isinstance(result.error, MemoryInvalidInputError)
        with pytest.raises(MemoryInvalidInputError):
            asyncio.run(provider().revise_messages("c", {"m0": wrong}))
        with pytest.raises(MemoryInvalidInputError):
            asyncio.run(provider().store_summary("c", Summary("s", "m0", (wrong,)), "i"))
        with pytest.raises(MemoryInvalidInputError):
            ConversationMemory("c", messages=[wrong])

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("content", [{"type": "text", "text": "x"}]),
            ("tool_calls", [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]),
            ("further", {"x": [1, {"y": 2**70}]}),
            ("name", "n"),
        ],
    )
    def test_what_the_constructor_takes(self, way, field, value):
        """What the constructor would take is stored as it would be, and what the caller changes later stays out."""
        given = copy.deepcopy(value)
        changed = way(said("x", message_id="m"), field, given)
        memory = create_in_memory_provider()
        assert isinstance(asyncio.run(memory.store_messages("c", [changed])), Success)
        wanted = {"role": "user", "content": "x", "message_id": "m"}
        wanted = Message(**{**wanted, **(value if field == "further" else {field: value})})
        given.clear() if isinstance(given, list | dict) else None
        (stored,) = asyncio.run(memory.get_recent_messages("c"))
        assert stored == wanted
        assert type(stored) is Message

    def test_unchanged(self):
        """What is right already is stored as it is, and costs no copy."""
        messages = talk(3)
        kept = validation.batch(messages, ProviderConfig(), NO_CHAIN).messages
        assert all(one is other for one, other in zip(kept, messages, strict=True))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("limit", -1),
            ("limit", "5"),
            ("offset", None),
            ("user_id", ""),
            ("conversation_id", 5),
            ("since", "yesterday"),
            ("metadata", {"x": {1}}),
            ("metadata", "x"),
            ("cursor", (1, 2, 3)),
            ("trace_id", 5),
            ("until", 5),
            ("active_since", "yesterday"),
            ("active_until", 5),
            ("updated_since", "yesterday"),
            ("updated_until", 5),
            ("include_messages", 1),
            ("limit", True),
        ],
    )
    def test_queries(self, field, value):
        """A query that its constructor would refuse asks the store for nothing."""
        query = structs.replace(MemoryQuery(), **{field: value})

        async def iterate():
            return [one async for one in provider().iter_conversations(query)]

        with pytest.raises(MemoryInvalidInputError, match=field):
            asyncio.run(provider().find_conversations(query))
        with pytest.raises(MemoryInvalidInputError, match=field):
            asyncio.run(iterate())

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("conversation_id", ""),
            ("user_id", ""),
            ("user_id", "a\0"),
            ("user_id", 5),
            ("metadata", {"x": b"y"}),
            ("created_at", "2020"),
            ("updated_at", 5.0),
            ("active_at", "2020"),
            ("expires_at", 5),
            ("ttl", -1),
            ("version", -1),
            ("version", True),
            ("incarnation", None),
        ],
    )
    def test_conversations(self, field, value):
        """A conversation that its constructor would refuse is not imported."""
        wrong = structs.replace(ConversationMemory("c", messages=talk(1)), **{field: value})
        assert isinstance(asyncio.run(provider().import_conversation(wrong)).error, MemoryInvalidInputError)
        (result,) = asyncio.run(provider().import_conversations([wrong]))
        assert isinstance(result.error, MemoryInvalidInputError)


class TestBatch:
    """Messages of one call."""

    def test_keeps_order(self):
        """Messages keep their order, and each has its body."""
        batch = validation.batch(talk(3), ProviderConfig(), NO_CHAIN)
        assert batch.messages == tuple(talk(3))
        assert list(map(codec.decode_message, batch.bodies)) == talk(3)
        assert batch.dropped == 0

    def test_equal_ids_are_one(self):
        """Equal messages are one, in the place of the first."""
        one, two = talk(2)
        assert validation.batch([one, two, one], ProviderConfig(), NO_CHAIN).messages == (one, two)

    def test_cut_to_the_cap(self):
        """A batch beyond the cap is cut to its newest, after equal ones were joined."""
        batch = validation.batch([*talk(4), *talk(4)], ProviderConfig(max_messages=3), NO_CHAIN)
        assert ids(batch.messages) == ["m1", "m2", "m3"]
        assert batch.dropped == 1

    def test_callers_list_is_left_alone(self):
        """The list that was given is not changed."""
        given = talk(3)
        validation.batch(given, ProviderConfig(max_messages=1), NO_CHAIN)
        assert given == talk(3)

    def test_processed_before_it_is_measured(self):
        """Limits hold for what is stored, not for what was given."""

        class Doubling(Processor):
            def outgoing(self, message, _context):
                return Message(**{**message.dict(), "content": message.content * 2})

        with pytest.raises(MemoryInvalidInputError, match="bytes"):
            validation.batch([said("x" * 80)], ProviderConfig(max_message_bytes=200), Chain([Doubling()]))


class TestLabels:
    """Metadata, and the owner in it."""

    def test_owner_is_taken_out(self):
        """The owner is no part of what is stored as metadata."""
        assert validation.labels({"a": 1, "user_id": "u"}, None, ProviderConfig(), NO_CHAIN) == ({"a": 1}, "u")
        assert validation.labels(None, "u", ProviderConfig(), NO_CHAIN) == ({}, "u")
        assert validation.labels({}, None, ProviderConfig(), NO_CHAIN) == ({}, None)

    def test_nobody(self):
        """`None` as owner in metadata names nobody."""
        assert validation.labels({"user_id": None}, None, ProviderConfig(), NO_CHAIN).user_id is None
        assert validation.labels({"user_id": None}, "u", ProviderConfig(), NO_CHAIN).user_id == "u"

    def test_scope_is_the_owner(self):
        """Through a view, its user is the owner, and no other can be named."""
        assert validation.labels(None, None, ProviderConfig(), NO_CHAIN, scope="u").user_id == "u"
        for metadata, owner in (({"user_id": "v"}, None), (None, "v")):
            with pytest.raises(MemoryInvalidInputError, match="two different owners"):
                validation.labels(metadata, owner, ProviderConfig(), NO_CHAIN, scope="u")

    def test_limits_count_the_containers(self):
        """Nesting counts containers within a value, whether the last is empty or not."""
        config = ProviderConfig(max_nesting=2)
        for value in ([], {}, [[]], [{}], {"a": [1]}, [[1]]):
            validation.check_shape([value], "x", config)
        for value in ([[[]]], [{"a": []}], {"a": [[1]]}):
            with pytest.raises(MemoryInvalidInputError, match="more than 2 deep"):
                validation.check_shape([value], "x", config)


def test_a_message_of_an_engine_is_told_from_ours():
    """A class of the same name gets a sentence that says whose it is, and what takes it."""
    foreign = type("Message", (), {"__module__": "engine.types"})()
    failure = asyncio.run(create_in_memory_provider().store_messages("c", [foreign]))
    assert "not a engine.types.Message; a bridge of jaf_memory_bridges" in str(failure.error)
    with pytest.raises(MemoryInvalidInputError, match=r"not engine\.types\.Message"):
        ConversationMemory("c", messages=[foreign])


def test_errors_quote_nothing():
    """No refusal quotes what was given."""
    config = ProviderConfig(max_message_bytes=200, max_metadata_bytes=20)
    for call in (
        lambda: validation.batch([said("SENTINEL" * 50)], config, NO_CHAIN),
        lambda: validation.batch(["SENTINEL"], config, NO_CHAIN),
        lambda: validation.batch([said("SENTINEL", message_id="m"), said("x", message_id="m")], config, NO_CHAIN),
        lambda: validation.labels({"SENTINEL": "SENTINEL" * 5}, None, config, NO_CHAIN),
        lambda: validation.labels({"SENTINEL": object()}, None, config, NO_CHAIN),
        lambda: validation.checked_id("SENTINEL\0", "conversation_id"),
        lambda: validation.checked_count("SENTINEL", "limit"),
        lambda: ConversationMemory("c", metadata={"a": {"SENTINEL"}}),
        lambda: Message(role="user", content="SENTINEL", name=5),
    ):
        with pytest.raises((MemoryInvalidInputError, MemoryConflictError)) as caught:
            call()
        assert "SENTINEL" not in str(caught.value)
