"""Every field of messages, records and queries, one at a time; which there are, the types say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Record, new_incarnation
from jaf_memory_core.values import freeze
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, refused, same_values, whole
from jaf_memory_testing.model import Model
from jaf_memory_testing.samples import ids, said, talk
from jaf_memory_testing.target import Store

LENGTHS = (255, 256, 65_535, 65_536, 70_000, 300_000)
"""Characters: at the bounds of what stores and drivers give a text by default."""

_CALL = {"id": "call", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
_OTHER_CALL = {"id": "call", "type": "function", "function": {"name": "look", "arguments": '{"at": "it "}'}}

CANDIDATES: tuple[Any, ...] = (
    *("user", "assistant", "x", "x ", "X", "é", "e\u0301", "1", ""),
    *(None, 1, 1.0, True, False, 0, 0.0, -0.0, 2**63, 1e22, 0.1, 1e-7),
    *([], [None], {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": None}),
    *([_CALL], [_OTHER_CALL], [_CALL, _CALL], [{"type": "text", "text": "x"}], [{"type": "text", "text": "y"}]),
    *([{"kind": "file", "name": "a"}], [{"kind": "file", "name": "b"}], [{"kind": "file", "data": "YQ=="}]),
)
"""Values that a field may have; a field's own type says which of them it takes."""

MESSAGE_FIELDS = (*(field for field in Message.__struct_fields__ if field not in ("message_id", "further")), "anything")
"""The fields of a message, and one that no type knows."""


def accepted(field: str) -> list[Message]:
    """Messages of one id that differ in that field alone."""
    found: dict[bytes, Message] = {}
    for value in CANDIDATES:
        try:
            message = Message(**{"role": "user", "content": "x", "message_id": "m", field: value})
        except (MemoryInvalidInputError, TypeError):
            continue
        # By bytes: values that come to the same message are one.
        found.setdefault(codec.encode(message), message)
    return list(found.values())


def _places(text: str) -> dict[str, Message]:
    function = {"name": "look", "arguments": text}
    return {
        "content": said(text, message_id="content"),
        "a part": said([{"type": "text", "text": text}], message_id="part"),  # type: ignore[arg-type]
        "name": said("x", name=text, message_id="name"),
        "arguments": said("x", "assistant", tool_calls=[{**_CALL, "function": function}], message_id="arguments"),
        "a call's id": said("x", "assistant", tool_calls=[{**_CALL, "id": text}], message_id="call"),
        "tool_call_id": said("x", "tool", tool_call_id=text, message_id="tool"),
        "an attachment": said("x", attachments=[{"kind": "file", "data": text}], message_id="attachment"),
        "anything": said("x", anything={"deep": [text]}, message_id="anything"),
        "a key": said("x", anything={text: 1}, message_id="key"),
    }


_BASE = datetime(2024, 1, 15, 10, 0, 0, 1, tzinfo=UTC)

RECORD_VALUES: Mapping[str, tuple[Any, ...]] = {
    "version": (1, 2**31 - 1, 2**31, 2**40),
    "created_at": (datetime(1901, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), _BASE),
    "active_at": (datetime(1901, 1, 1, tzinfo=UTC), _BASE - timedelta(microseconds=1), _BASE),
    "updated_at": (datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2999, 1, 1, 0, 0, 0, 7, UTC)),
    "user_id": (None, "u", "U", "u" * 255, "ü:{}*'\"/\\ "),
    "messages": ((), tuple(talk(3))),
    "metadata": ({}, {"a": "x" * 70_000}, {"k" * 300: [1, 1.0, -0.0, None, {"b": [], "a": {}}]}),
    "expires_at": (None, datetime(9998, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2100, 1, 1, 0, 0, 0, 1, UTC)),
    "ttl": (None, 0.001, 1e9, 600.5),
    "first_position": (0, 65_535, 65_536, 2**31),
    "trimmed": (False, True),
}
"""Values of each field of a record that a store must keep."""

DERIVED = {"conversation_id", "incarnation", "message_count", "gaps", "positions"}
"""Fields of a record that follow from the others here; the table has conversations with gaps."""


def _record(name: str, **fields: Any) -> Record:
    made: dict[str, Any] = {"version": 1, "created_at": _BASE, "updated_at": _BASE, **fields}
    made["metadata"] = freeze(made.get("metadata", {}))
    return Record(name, new_incarnation(), message_count=len(made.get("messages", ())), **made)


def population() -> list[Record]:
    """Conversations that differ in what queries ask for, the newest of which match least."""
    minute = timedelta(minutes=1)
    made = []
    users = ("u", "u", "v", None)
    metadatas: tuple[dict[str, Any], ...] = ({"a": 1, "trace_id": "t"}, {"a": 1.0}, {"a": True, "trace_id": "T"}, {})
    for n, (user, metadata) in enumerate(itertools.product(users, metadatas)):
        active = _BASE + (n % 5) * minute + n // 4 * minute
        # Every third was changed since.
        updated = active + (n % 3 == 0) * (16 - n) * minute
        times = {"created_at": _BASE + (n // 2) * minute, "active_at": active, "updated_at": updated}
        made.append(_record(f"c{n}", user_id=user, metadata=metadata, messages=tuple(talk(n % 3)), **times))
    made.append(_record("gone", user_id="u", metadata={"a": 1}, expires_at=_BASE, updated_at=_BASE + 60 * minute))
    return made


def filters() -> Iterator[dict[str, Any]]:
    """Each filter of `MemoryQuery` alone, and each two together."""
    minute = timedelta(minutes=1)
    values: dict[str, tuple[Any, ...]] = {
        "conversation_id": ("c0", "c5", "c9", "c15", "gone", "none"),
        "user_id": ("u", "v", "none"),
        "trace_id": ("t", "none"),
        "metadata": (
            {"a": 1},
            {"a": 1.0},
            {"user_id": "u"},
            {"a": 1, "trace_id": "t"},
            {"a": 1, "trace_id": "T"},
            {"none": None},
        ),
    }
    for field in MemoryQuery.__struct_fields__:
        if field.endswith(("since", "until")):
            values[field] = (_BASE + 2 * minute, _BASE + 2 * minute + timedelta(microseconds=1))
    missing = set(MemoryQuery.__struct_fields__) - set(values) - {"limit", "offset", "include_messages", "cursor"}
    assert not missing, f"MemoryQuery has filters that the kit does not know: {missing}"
    yield {}
    for field, those in values.items():
        yield from ({field: value} for value in those)
    for (one, first), (other, second) in itertools.combinations(values.items(), 2):
        yield {one: first[0], other: second[0]}


class FieldChecks(Checks):
    """One field at a time."""

    @pytest.mark.parametrize("field", MESSAGE_FIELDS)
    async def test_other_field_is_a_conflict(self, store: Store, field: str) -> None:
        """A held id with a message that differs in this field only is a conflict; with an equal one it is no news."""
        provider = await store.open()
        messages = accepted(field)
        assert len(messages) > 1, f"the kit knows no two values of {field!r}"
        for number, message in enumerate(messages):
            other = messages[number - 1]
            done(await provider.store_messages("c", [said("before", message_id="b"), message]))
            done(await provider.append_messages("c", [said("behind", message_id="n")]))
            held = (await whole(provider)).messages
            assert codec.encode(held[1]) == codec.encode(message), f"it came back as {held[1]!r}"
            result = await provider.append_messages("c", [said("news", message_id="news"), other])
            refused(result, MemoryConflictError)
            assert done(await provider.append_messages("c", [message])).added == 0
            assert (await whole(provider)).messages == held

    @pytest.mark.parametrize("length", LENGTHS)
    async def test_long_text_everywhere(self, store: Store, length: int) -> None:
        """A text of this length comes back whole from every place that holds a text, in messages and in metadata."""
        provider = await store.open()
        text = "x" * (length - 1) + "é"
        messages = _places(text)
        metadata = {"a": text, "deep": [{"b": text}], text: 1}
        done(await provider.store_messages("c", list(messages.values()), metadata))
        found = await whole(provider)
        for place, message in zip(messages, found.messages, strict=True):
            assert message == messages[place], f"{place}: the text came back otherwise"
        same_values(found.metadata["a"], text)
        assert found.metadata == metadata

    @needs("backend")
    @pytest.mark.parametrize("field", sorted(set(Record.__struct_fields__) - DERIVED))
    async def test_record_field(self, store: Store, field: str) -> None:
        """A record comes back with this field as it was, from `read`, `header` and `scan`, whatever its value."""
        provider = await store.open()
        await provider.open()
        values = RECORD_VALUES.get(field) or (_BASE, _BASE + timedelta(microseconds=1))
        for number, value in enumerate(values):
            record = _record(f"c{number}", **{field: value})
            assert await provider.backend.write(record, expected=None) is True
            read = await provider.backend.read(record.conversation_id)
            assert read == record
            times = [getattr(read, name) for name in ("created_at", "active_at", "updated_at", "expires_at")]
            assert {time.utcoffset() for time in times if time} == {timedelta()}, "times are in UTC"
            header = await provider.backend.header(record.conversation_id)
            assert header is not None
            assert replace(header, messages=()) == replace(record, messages=())
        passed = {
            one.conversation_id: one async for one in provider.backend.scan(MemoryQuery()) if isinstance(one, Record)
        }
        assert len(passed) == len(values)
        for number, value in enumerate(values):
            assert getattr(passed[f"c{number}"], field) == _record("c", **{field: value}).__getattribute__(field)

    @needs("backend")
    async def test_filters_alone_and_together(self, store: Store) -> None:
        """Each filter, and each two, with and without limit, offset and cursor, finds what the rules say; no more."""
        provider = await store.open()
        await provider.open()
        model, records = Model(), population()
        for record in records:
            assert await provider.backend.write(record, expected=None) is True
            await model.write(record, expected=None)
        middle = records[9]
        cursor = (middle.created_at, middle.active_at, middle.conversation_id)
        paging: tuple[dict[str, Any], ...] = (
            *({}, {"limit": 1}, {"limit": 1, "offset": 1}, {"limit": 0}, {"cursor": cursor}),
            *({"cursor": cursor, "limit": 1}, {"cursor": cursor, "limit": 1, "offset": 1}),
            {"include_messages": False, "limit": 2},
        )
        for wanted, page in itertools.product(filters(), paging):
            query = MemoryQuery(**wanted, **page)
            expected = [_plain(one, query) for one in await model.find(query) if isinstance(one, Record)]
            given = [_plain(one, query) for one in await provider.backend.find(query) if isinstance(one, Record)]
            assert given == expected, f"find({wanted}, {page}) gives {_names(given)}, must give {_names(expected)}"
        for wanted in filters():
            query = MemoryQuery(**wanted, cursor=cursor)
            passed = [one.conversation_id async for one in provider.iter_conversations(query)]
            assert passed == _passed(records, query), f"iter_conversations({wanted}) behind {middle.conversation_id}"

    async def test_large_batches(self, store: Store) -> None:
        """A batch of more than a thousand messages is added once, known whole, refused whole, and read whole."""
        provider = await store.open()
        batch = talk(1_203)
        assert done(await provider.store_messages("c", batch[:2])).added == 2
        assert done(await provider.append_messages("c", batch)).added == 1_201
        assert done(await provider.append_messages("c", [*batch, *talk(1, "n")])).added == 1
        wrong = [*talk(1, "o"), *batch[:1_100], said("other", message_id="m1100"), *batch[1_101:]]
        refused(await provider.append_messages("c", wrong), MemoryConflictError)
        # What is held stands far from where it comes in the batch.
        wrong = [*batch[-300:-1], said("other", message_id="m1202")]
        refused(await provider.append_messages("c", wrong), MemoryConflictError)
        assert done(await provider.append_messages("c", batch[-300:])).added == 0
        found = await whole(provider)
        assert ids(found.messages) == [*ids(batch), "n0"]
        assert found.message_count in (None, 1_204)
        assert ids(await provider.get_recent_messages("c", limit=1_100)) == ids(found.messages)[-1_100:]
        if hasattr(provider, "iter_conversations"):
            passed = [one async for one in provider.iter_conversations()]
            assert [len(one.messages) for one in passed] == [1_204]
            (one,) = await provider.find_conversations(MemoryQuery())
            assert one.messages == found.messages


def _plain(record: Record, query: MemoryQuery) -> Record:
    return record if query.include_messages else replace(record, messages=())


def _names(records: list[Record]) -> list[str]:
    return [record.conversation_id for record in records]


def _passed(records: list[Record], query: MemoryQuery) -> list[str]:
    above = rules.creation_cursor(query)
    now = datetime.now(UTC)
    return [
        record.conversation_id
        for record in sorted(records, key=rules.creation_key)
        if rules.live(record, now)
        and rules.matches(record, query)
        and (above is None or rules.creation_key(record) > above)
    ]
