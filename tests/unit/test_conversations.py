"""Conversations, queries and pages."""

import asyncio
import copy
import dataclasses
import os
import pickle
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from jaf_memory_testing.samples import talk

from jaf_memory_core import (
    ConversationMemory,
    MemoryInvalidInputError,
    MemoryQuery,
    Message,
    MessagePage,
    create_in_memory_provider,
)

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)


class TestConversation:
    """`ConversationMemory`."""

    def test_as_in_the_document(self):
        """It is made from an id, an owner, messages and metadata."""
        conversation = ConversationMemory(
            conversation_id="c", user_id="u", messages=talk(2), metadata={"session_start": "2024-01-15T10:00:00Z"}
        )
        assert conversation.messages == tuple(talk(2))
        assert conversation.metadata == {"session_start": "2024-01-15T10:00:00Z"}
        assert (conversation.version, conversation.incarnation, conversation.message_count) == (0, "", 2)
        assert conversation.created_at is conversation.updated_at is conversation.expires_at is None
        assert conversation.active_at is None

    def test_messages_as_dicts(self):
        """Messages may be given as dicts."""
        assert ConversationMemory("c", messages=[{"role": "user", "content": "x"}]).messages[0].content == "x"

    def test_frozen(self):
        """It is frozen all the way down."""
        conversation = ConversationMemory("c", messages=talk(1), metadata={"a": [1]})
        with pytest.raises(AttributeError):
            conversation.user_id = "u"
        with pytest.raises(TypeError):
            conversation.metadata["b"] = 1
        with pytest.raises(TypeError):
            conversation.metadata["a"].append(2)

    def test_datetimes_in_metadata(self):
        """Datetimes in metadata become ISO 8601 strings."""
        assert ConversationMemory("c", metadata={"at": NOON}).metadata == {"at": "2024-01-15T12:00:00+00:00"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"conversation_id": ""},
            {"conversation_id": None},
            {"user_id": "a\0"},
            {"messages": "text"},
            {"messages": [1]},
            {"metadata": [1]},
            {"metadata": {"a": {1}}},
            {"version": -1},
            {"ttl": 0},
            {"ttl": float("inf")},
            {"ttl": 1e300},
            {"created_at": "2024-01-15"},
            {"unknown": 1},
        ],
        ids=str,
    )
    def test_wrong_fields(self, fields):
        """A wrong field is refused by its name."""
        with pytest.raises(MemoryInvalidInputError, match=next(iter(fields))):
            ConversationMemory(**{"conversation_id": "c", **fields})

    def test_pickle(self):
        """It travels between processes."""
        conversation = ConversationMemory("c", "u", talk(2), {"a": [1]}, created_at=NOON, ttl=5.0)
        assert pickle.loads(pickle.dumps(conversation)) == conversation


class TestQuery:
    """`MemoryQuery`."""

    def test_default_is_all(self):
        """Without arguments it has no filter and no limit."""
        query = MemoryQuery()
        assert query.limit is query.user_id is query.metadata is query.since is None
        assert query.offset == 0
        assert query.include_messages is True

    @pytest.mark.parametrize(
        "fields",
        [
            {"limit": -1},
            {"limit": True},
            {"limit": 1.0},
            {"limit": "1"},
            {"offset": -1},
            {"offset": None},
            {"since": "2024-01-15"},
            {"until": 5},
            {"user_id": ""},
            {"conversation_id": "x" * 256},
            {"metadata": {"a": float("nan")}},
            {"metadata": "a"},
            {"trace_id": 5},
            {"include_messages": 1},
            {"users": "u"},
        ],
        ids=str,
    )
    def test_wrong_fields(self, fields):
        """A wrong field is refused by its name: a filter that is passed over would find too much."""
        with pytest.raises(MemoryInvalidInputError, match=next(iter(fields))):
            MemoryQuery(**fields)

    def test_times_are_utc(self):
        """Aware times are turned to UTC, whatever zone they are in."""
        east = datetime(2024, 1, 15, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        since = MemoryQuery(since=east).since
        assert since == NOON
        assert since.utcoffset() == timedelta(0)

    def test_naive_times_are_local(self, monkeypatch):
        """Naive times are local time, summer time included."""
        monkeypatch.setitem(os.environ, "TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        try:
            winter = MemoryQuery(since=datetime(2024, 1, 15, 13)).since
            summer = MemoryQuery(since=datetime(2024, 7, 15, 14)).since
        finally:
            monkeypatch.undo()
            time.tzset()
        assert winter == NOON
        assert summer == datetime(2024, 7, 15, 12, tzinfo=UTC)

    def test_extreme_times(self):
        """The first and the last datetimes are taken."""
        query = MemoryQuery(since=datetime.min, until=datetime.max)
        assert query.since.year == 1
        assert query.until.year == 9999

    def test_after(self):
        """`after` remembers the place, and forgets the offset."""
        last = ConversationMemory("c", created_at=NOON, active_at=NOON + timedelta(1), updated_at=NOON + timedelta(2))
        query = MemoryQuery(user_id="u", limit=3, offset=2).after(last)
        assert query.cursor == (NOON, NOON + timedelta(1), "c")
        assert (query.user_id, query.limit, query.offset) == ("u", 3, 0)
        assert MemoryQuery().after(dataclasses.replace(last, active_at=None)).cursor == (NOON, last.updated_at, "c")

    def test_after_what_was_never_stored(self):
        """A conversation that was never stored has no place."""
        with pytest.raises(ValueError, match="never stored"):
            MemoryQuery().after(ConversationMemory("c"))


class TestPage:
    """`MessagePage`."""

    def test_is_a_tuple(self):
        """A page is a tuple of messages that knows what stands before it."""
        page = MessagePage(talk(2), before=7)
        assert page == tuple(talk(2))
        assert page.before == 7
        assert MessagePage().before is None

    def test_pickle(self):
        """It travels between processes with its place."""
        page = pickle.loads(pickle.dumps(MessagePage([Message("user", "x")], before=3)))
        assert page.before == 3
        assert page[0].content == "x"


def test_a_dataclass_as_the_document_says():
    """`dataclasses.replace`, `asdict` and `fields` take a conversation; what they make passes the constructor."""
    there = ConversationMemory("c", "u", [Message(role="user", content="x", message_id="m")], {"a": [1]})
    assert dataclasses.replace(there, user_id="v") == ConversationMemory("c", "v", there.messages, {"a": [1]})
    assert dataclasses.asdict(there)["metadata"] == {"a": [1]}
    assert [field.name for field in dataclasses.fields(there)][:2] == ["conversation_id", "user_id"]
    with pytest.raises(MemoryInvalidInputError):
        dataclasses.replace(there, user_id="")


def test_deep_copies_can_be_changed():
    """What is returned is read-only; a deep copy of it is the caller's own."""
    there = ConversationMemory("c", metadata={"a": [1, {"b": 2}]})
    copied = copy.deepcopy(there.metadata)
    copied["a"][1]["b"] = 3
    copied["a"].append(4)
    assert there.metadata == {"a": [1, {"b": 2}]}
    assert copied == {"a": [1, {"b": 3}, 4]}


@pytest.mark.parametrize("number", [2**61, 2**63, 2**70])
def test_huge_limits(number):
    """A limit or an offset beyond what a store can count is as good as none."""

    async def main():
        provider = create_in_memory_provider()
        await provider.store_messages("c", [], {"a": 1})
        for query, found in (
            (MemoryQuery(limit=number), 1),
            (MemoryQuery(limit=number, metadata={"a": 1}), 1),
            (MemoryQuery(offset=number), 0),
            (MemoryQuery(offset=number, limit=number), 0),
        ):
            assert len(await provider.find_conversations(query)) == found
            assert len([one async for one in provider.iter_conversations(query)]) == found

    asyncio.run(main())
