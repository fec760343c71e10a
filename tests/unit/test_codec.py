"""Encoding, decoding, digests."""

import hashlib
import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaf_memory_testing.hostile import VALUES
from jaf_memory_testing.samples import at, kept, rich, said, talk
from msgspec.structs import replace

from jaf_memory_core import ConversationMemory, MemoryStorageError, Message, codec, digest, documents
from jaf_memory_core.records import Record
from jaf_memory_core.transfer.jsonlines import write_line
from jaf_memory_core.values import FrozenDict, freeze

SNAPSHOT = (
    b'{"format":1,"record":{"conversation_id":"c","incarnation":"0123456789abcdef","version":7,'
    b'"created_at":"2024-01-15T10:00:00Z","updated_at":"2024-01-15T10:00:01.500000Z","user_id":"u",'
    b'"messages":[{"role":"user","content":"x","message_id":"m","further":{"value":[1,1.0,-0.0]}}],'
    b'"metadata":{"b":1,"a":{"z":1,"y":2}},"expires_at":"2024-01-15T10:10:00Z","ttl":600.0,'
    b'"first_position":3,"trimmed":true,"message_count":1}}'
)
"""The stored form of format 1. What is stored by a release has to be read by every later one."""

STORED = Record(
    conversation_id="c",
    incarnation="0123456789abcdef",
    version=7,
    created_at=at(0),
    updated_at=at(1.5),
    user_id="u",
    messages=(Message(role="user", content="x", message_id="m", value=[1, 1.0, -0.0]),),
    metadata=freeze({"b": 1, "a": {"z": 1, "y": 2}}),
    expires_at=at(600),
    ttl=600.0,
    first_position=3,
    trimmed=True,
    message_count=1,
)

texts = st.text(st.characters(), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


class TestMessages:
    """One message, and many."""

    @pytest.mark.parametrize("name", list(VALUES))
    def test_hostile_values(self, name):
        """Each hostile value comes back equal, in type and inner order."""
        message = said("x", message_id="m", value=VALUES[name])
        again = codec.decode_message(codec.encode(message))
        assert json.dumps(again.dict()) == json.dumps(message.dict())

    @given(st.dictionaries(texts, values, max_size=3), texts)
    def test_random_values(self, value, text):
        """So does any JSON, surrogates included."""
        message = said(text, message_id="m", value=value)
        again = codec.decode_message(codec.encode(message))
        assert json.dumps(again.dict()) == json.dumps(message.dict())

    def test_many(self):
        """Many bodies are read in one go, also when one of them needs the slower way."""
        messages = (*rich(), said("\ud800", message_id="s"), *talk(3))
        assert codec.decode_messages([codec.encode(message) for message in messages]) == messages
        assert codec.decode_messages([]) == ()

    def test_what_is_read_is_frozen(self):
        """Further fields are read-only after reading, on both ways."""
        for text in ("x", "\ud800"):
            again = codec.decode_message(codec.encode(said(text, value={"a": [1]})))
            assert type(again.value) is FrozenDict
            with pytest.raises(TypeError):
                again.value["a"].append(2)

    def test_is_utf8_json(self):
        """What is written is JSON in UTF-8, with surrogates and NUL escaped."""
        body = codec.encode(said("é\0\ud800", message_id="m"))
        assert b"\0" not in body
        assert json.loads(body.decode("utf-8"))["content"] == "é\0\ud800"

    def test_same_body(self):
        """Bodies are the same when all values are, however they were written."""
        one = codec.encode(said("x", message_id="m", value={"a": 1, "b": [1.0]}))
        assert codec.same_body(one, one)
        assert codec.same_body(one, codec.encode(said("x", message_id="m", value={"b": [1.0], "a": 1})))
        assert codec.same_body(one, json.dumps(json.loads(one), indent=2).encode())
        for other in ({"a": 1, "b": [1]}, {"a": True, "b": [1.0]}, {"a": 1}, {"a": 1, "b": [1.0], "c": None}):
            assert not codec.same_body(one, codec.encode(said("x", message_id="m", value=other)))

    def test_object(self):
        """An object is read into a read-only dict, in its order."""
        for text in ('{"b": 1, "a": [2]}', b'{"b": 1, "a": ["\\ud800"]}'):
            read = codec.decode_object(text)
            assert list(read) == ["b", "a"]
            assert type(read) is FrozenDict


class TestRecords:
    """Whole conversations."""

    def test_snapshot(self):
        """The stored form stays what it is: another one is another format."""
        assert documents.encode_record(STORED) == SNAPSHOT
        assert documents.decode_record(SNAPSHOT) == STORED
        assert documents.decode_record(SNAPSHOT.decode()) == STORED
        amended = replace(STORED, active_at=at(1))
        assert documents.encode_record(amended) == SNAPSHOT[:-2] + b',"active_at":"2024-01-15T10:00:01Z"}}'
        assert documents.decode_record(documents.encode_record(amended)) == amended

    def test_all_kinds_of_records(self):
        """Any record comes back equal, by the fast way and by the slower one."""
        for record in (
            kept("c"),
            kept("\uffff", messages=rich(), metadata={"x": None}, user_id="u", expires_at=at(5), ttl=0.25),
            kept("c", messages=[said("\ud800", message_id="m")], metadata={"\0": "\udfff", "empty": {}}),
            kept("c", metadata=dict(VALUES.items())),
        ):
            assert documents.decode_record(documents.encode_record(record)) == record

    def test_unknown_fields(self):
        """A field that a later release adds within the format is passed over."""
        assert documents.decode_record(SNAPSHOT.replace(b'"version":7', b'"version":7,"added_later":{"x":1}')) == STORED

    @pytest.mark.parametrize("ending", ["", "\\ud800"])
    def test_newer_format(self, ending):
        """A newer format is refused with both numbers, never misread."""
        newer = SNAPSHOT.replace(b'"format":1', b'"format":3').replace(
            b'"content":"x', b'"content":"x' + ending.encode()
        )
        with pytest.raises(MemoryStorageError, match=r"format 3.*reads formats up to 2; upgrade jaf-memory"):
            documents.decode_record(newer)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"SENTINEL",
            b"[]",
            b"null",
            b"{}",
            b'{"format":"1"}',
            b'{"format":1}',
            b'{"format":1,"record":{}}',
            b'{"format":1,"record":"SENTINEL"}',
            SNAPSHOT[:-20],
            SNAPSHOT.replace(b'"role":"user"', b'"role":7'),
            SNAPSHOT.replace(b'"role":"user",', b""),
            SNAPSHOT.replace(b"2024-01-15T10:00:00Z", b"SENTINEL"),
            SNAPSHOT.replace(b'"content":"x"', b'"content":"\xff"'),
            SNAPSHOT.replace(b'"value":[1', b'"value":[NaN'),
        ],
    )
    def test_something_else(self, text):
        """Anything else is refused as such, and its content is not quoted."""
        with pytest.raises(MemoryStorageError) as caught:
            documents.decode_record(text)
        assert caught.value.operation == ""  # whose operation failed the guard says
        shown = "".join(traceback.format_exception(caught.value))
        assert "SENTINEL" not in shown.replace(repr(text), "")

    @pytest.mark.parametrize("content", ["x", "\\ud800"])
    @pytest.mark.parametrize(
        "read",
        [codec.decode_message, lambda body: codec.decode_messages([body]), codec.decode_joined],
        ids=["one", "many", "joined"],
    )
    def test_no_role(self, read, content):
        """A stored message that has no role is damage, but for an item of the Responses interface, which has a type."""
        body = f'{{"content":"{content}","message_id":"m","further":{{"%s":"reasoning"}}}}'
        with pytest.raises(MemoryStorageError, match="damaged"):
            read((body % "kind").encode())
        read((body % "type").encode())


class TestDigest:
    """The digest."""

    def test_snapshot(self):
        """It is SHA-256 over sorted, ASCII, type-exact JSON, and stays what it is."""
        conversation = ConversationMemory(
            "c", "u", [Message("user", "é", message_id="m", n=[1, 1.0])], {"b": 1, "a": None}
        )
        text = (
            '{"messages":[{"content":"\\u00e9","message_id":"m","n":[1,1.0],"role":"user"}],'
            '"metadata":{"a":null,"b":1,"user_id":"u"},"user_id":"u"}'
        )
        assert digest(conversation) == hashlib.sha256(text.encode()).hexdigest()
        assert digest(conversation) == "c48a0de58d4abcdf5345f82043ad25d96c5706332e5b994debee388eaf0a6682"

    @pytest.mark.parametrize(
        "text", ["".join(map(chr, range(127))), *map(chr, range(256)), "\ud800", "\U0001f600\u2028"]
    )
    def test_plain_messages(self, text):
        """Messages that are nothing but texts have the digest, and the line, of their chat form, whatever the text."""
        for fields in ({}, {"name": text}, {"tool_call_id": text}, {"score": [1e22, text]}):
            given = [Message("user", text, message_id="m", **fields), Message("assistant", "", message_id="n")]
            conversation = ConversationMemory("c", "u", given, {text: [text, 1.0]})
            messages = [message.dict() for message in given]
            content = {"messages": messages, "metadata": {text: [text, 1.0], "user_id": "u"}, "user_id": "u"}
            line = json.loads(write_line(conversation))
            assert line["messages"] == messages
            assert digest(conversation) == line["digest"]
            assert digest(conversation) == hashlib.sha256(codec.canonical(content).encode()).hexdigest()

    def test_messages_without_content(self):
        """A message of no content keeps its null, which is left out of what is stored."""
        conversation = ConversationMemory("c", None, [Message("assistant", None, message_id="m")])
        assert json.loads(write_line(conversation))["messages"] == [
            {"role": "assistant", "content": None, "message_id": "m"}
        ]

    def test_owner_counts_once(self):
        """An owner in metadata, as it is shown, makes no difference to one that is not."""
        assert digest(ConversationMemory("c", "u", (), {})) == digest(
            ConversationMemory("c", "u", (), {"user_id": "u"})
        )

    def test_what_does_not_count(self):
        """Id, times, version, incarnation and ttl do not count."""
        one = ConversationMemory("c", "u", talk(2), {"a": 1})
        assert digest(one) == digest(
            replace(one, conversation_id="d", version=9, incarnation="x", ttl=5.0, created_at=at(0))
        )

    def test_canonical(self):
        """Keys are sorted by code points, text is ASCII, numbers keep their type."""
        assert codec.canonical({"é": 1, "b": [1.0, True, None, -0.0, 1e22], "a": "\ud800"}) == (
            '{"a":"\\ud800","b":[1.0,true,null,-0.0,1e+22],"\\u00e9":1}'
        )

    def test_no_nan(self):
        """What JSON cannot hold has no canonical form."""
        with pytest.raises(ValueError, match="not JSON compliant"):
            codec.canonical(float("nan"))


def test_size():
    """The size is the bytes of the bodies."""
    assert codec.size([b"123", b"45"]) == 5


def test_other_bugs_stay_bugs():
    """What cannot be encoded is no storage error: it was never let in."""
    with pytest.raises(TypeError):
        codec.encode(object())
