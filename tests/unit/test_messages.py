"""Messages and their parts."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import warnings

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaf_memory_testing.hostile import IDS, REFUSED_IDS, VALUES
from jaf_memory_testing.samples import rich
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from jaf_memory_core import (
    Attachment,
    ContentPart,
    FunctionCall,
    MemoryInvalidInputError,
    MemoryQuery,
    Message,
    ToolCall,
    codec,
    create_in_memory_provider,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def test_plain_message():
    """A role and a text make a message, with a fresh id."""
    one, other = Message(role="user", content="Hello!"), Message("user", "Hello!")
    assert (one.role, one.content) == (other.role, other.content) == ("user", "Hello!")
    assert one.name is one.tool_calls is one.tool_call_id is one.attachments is None
    assert len(one.message_id) == 32
    assert one.message_id != other.message_id


@pytest.mark.parametrize("role", ROLES)
def test_roles(role):
    """The six roles are taken."""
    assert Message(role=role, content="x").role == role


class Text(str):
    """A text that is more than one."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (("user", "x"), {"message_id": "m"}),
        ((), {"role": "user", "content": "x", "message_id": "m"}),
        (("user",), {"content": "x", "message_id": "m"}),
        (("user", Text("x")), {"message_id": Text("m")}),
        ((), {"message_id": "m", "content": Text("x"), "role": "user", "name": None}),
    ],
)
def test_ways_to_make_one(given, fields):
    """However a role and a text are given, they make the same message, of plain texts."""
    message = Message(*given, **fields)
    assert codec.encode(message) == b'{"role":"user","content":"x","message_id":"m"}'
    assert {type(text) for text in (message.role, message.content, message.message_id)} == {str}


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (("user", "x"), {"message_id": ""}),
        (("user", "x"), {"message_id": "m\0"}),
        (("user", "x"), {"message_id": "\ud800"}),
        (("user", "x"), {"message_id": 5}),
        (("bot", "x"), {}),
        (("user", 5), {}),
    ],
)
def test_what_makes_none(given, fields):
    """One of them that is wrong is refused, however little else is given."""
    with pytest.raises(MemoryInvalidInputError):
        Message(*given, **fields)


@pytest.mark.parametrize("fields", [{"role": "user"}, {"content": "y"}, {"role": "user", "message_id": "m"}])
def test_nothing_twice(fields):
    """What is given by its place and by its name is an error of the caller's."""
    with pytest.raises(TypeError, match="once"):
        Message("user", "x", **fields)


def test_an_id_that_is_none():
    """`None` for an id makes one, as other engines mean it."""
    assert len(Message("user", "x", message_id=None).message_id) == 32


@pytest.mark.parametrize("role", ["bot", "User", "", None, 1])
def test_other_roles(role):
    """Another role is refused; the error names those that there are."""
    with pytest.raises(MemoryInvalidInputError, match="'assistant', 'tool' or 'function'"):
        Message(role=role, content="x")


def test_role_is_needed():
    """A message without a role is refused."""
    with pytest.raises(MemoryInvalidInputError, match="role is missing"):
        Message(content="x")


def test_id_of_other_engines():
    """`message_id=None` is an absent one, as other engines write it."""
    assert len(Message(role="user", content="x", message_id=None).message_id) == 32


@pytest.mark.parametrize("name", [name for name in REFUSED_IDS if name != "none"])
def test_refused_ids(name):
    """What is no id is refused."""
    with pytest.raises(MemoryInvalidInputError, match="message_id"):
        Message(role="user", content="x", message_id=REFUSED_IDS[name])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ids_behind_a_fork():
    """A forked child makes other ids than its parent, though both began with the same random bits."""
    script = (
        "import os\n"
        "from jaf_memory_core import Message\n"
        "Message('user', 'x')\n"
        "os.fork()\n"
        "os.write(1, ''.join(Message('user', 'x').message_id[12:] + '\\n' for _ in range(3)).encode())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
    assert len(set(ended.stdout.split())) == 6


def test_all_ids():
    """Any id is kept as it is."""
    assert [Message(role="user", message_id=key).message_id for key in IDS] == list(IDS)


def test_parts_from_dicts():
    """Parts may be given as dicts or as objects; they are kept as a tuple of objects."""
    message = Message(
        role="user", content=[{"type": "text", "text": "x"}, ContentPart(type="image_url", image_url={"url": "u"})]
    )
    assert isinstance(message.content, tuple)
    assert message.content[0] == ContentPart(type="text", text="x")
    assert message.content[1].image_url["url"] == "u"


def test_tool_calls_from_dicts():
    """So may tool calls; their type is `function` when nothing is said."""
    message = Message(role="assistant", tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}])
    assert message.tool_calls == (ToolCall(id="1", function=FunctionCall(name="f", arguments="{}")),)
    assert message.tool_calls[0].type == "function"
    assert message.content is None


def test_attachments_from_dicts():
    """So may attachments."""
    message = Message(role="user", content="x", attachments=[{"kind": "image", "url": "u", "size": 3}])
    assert message.attachments == (Attachment(kind="image", url="u", size=3),)
    assert message.attachments[0].size == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"content": 1},
        {"content": b"x"},
        {"content": [{"text": "no type"}]},
        {"content": ["x"]},
        {"tool_calls": {"id": "1"}},
        {"tool_calls": [{"id": 1, "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": {1}}}}]},
        {"attachments": [{"url": "u"}]},
        {"name": 1},
        {"tool_call_id": 1},
    ],
    ids=str,
)
def test_wrong_fields(fields):
    """A field of the wrong kind is refused by its name, and what it held is not told."""
    with pytest.raises(MemoryInvalidInputError, match=next(iter(fields))) as caught:
        Message(role="user", **fields, secret="SENTINEL")
    assert isinstance(caught.value, ValueError)
    assert "SENTINEL" not in str(caught.value)


def test_further_fields():
    """Every further field is kept, shown as an attribute, and in `dict()`."""
    message = Message(role="user", content="x", usage={"tokens": 3}, further="further", dict="d")
    assert message.usage == {"tokens": 3}
    assert message.dict()["further"] == "further"
    assert message.dict()["dict"] == "d"
    with pytest.raises(AttributeError, match="no field 'other'"):
        _ = message.other


@pytest.mark.parametrize("name", list(VALUES))
def test_further_values(name):
    """A further field may hold any JSON value."""
    message = Message(role="user", content="x", value=VALUES[name], message_id="m")
    assert codec.decode_message(codec.encode(message)) == message


def test_frozen():
    """Nothing about a message can be changed, down to its parts."""
    message = rich()[2]
    for thing, field in ((message, "content"), (message, "new"), (message.content[0], "text")):
        with pytest.raises(AttributeError):
            setattr(thing, field, "x")
    with pytest.raises(TypeError):
        message.content[1].image_url["url"] = "x"


def test_dict_and_back():
    """`Message(**message.dict())` equals it, as the document's import has it, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for message in rich():
            assert Message(**message.dict()) == message


def test_dict_is_plain():
    """`dict()` gives plain, changeable dicts and lists, content always among them, and no other absent field."""
    shown = rich()[3].dict()
    assert shown == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call-1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"at":  "it" }', "strict": True},
                "index": 0,
            }
        ],
        "refusal": None,
        "message_id": "rich-3",
    }
    shown["tool_calls"][0]["function"]["name"] = "changed"
    assert rich()[3].tool_calls[0].function.name == "look"


def test_order_of_fields():
    """A message's own fields have no order: neither equality nor bytes depend on it."""
    one = Message(role="user", content="x", message_id="m", a=1, b=2)
    other = Message(b=2, a=1, message_id="m", content="x", role="user")
    assert one == other
    assert hash(one) == hash(other)
    assert codec.encode(one) == codec.encode(other)


def test_repr_shows_content():
    """The `repr` shows content: it is the user's own object."""
    assert "Hello" in repr(Message(role="user", content="Hello"))


def test_pickle():
    """Messages travel between processes."""
    for message in rich():
        assert pickle.loads(pickle.dumps(message)) == message


def test_in_a_pydantic_model():
    """A pydantic model may have messages as fields: given as objects or dicts, dumped as dicts."""

    class Turn(BaseModel):
        messages: list[Message]

    turn = Turn(messages=[{"role": "user", "content": "x", "message_id": "m"}, rich()[3]])
    assert turn.messages[0] == Message(role="user", content="x", message_id="m")
    assert turn.model_dump()["messages"][1] == rich()[3].dict()
    assert Turn.model_validate_json(turn.model_dump_json()) == turn
    with pytest.raises(ValueError, match="role"):
        Turn(messages=[{"role": "bot"}])
    assert Turn.model_json_schema()["properties"]["messages"]["items"]["title"] == "Message"


def test_a_lone_surrogate_in_a_pydantic_model():
    """Pydantic writes no JSON of a lone surrogate, and says so without the text; as Python objects it passes."""

    class Turn(BaseModel):
        message: Message

    turn = Turn(message=Message("user", "a\ud800 SECRET"))
    with pytest.raises(PydanticSerializationError, match="surrogates not allowed") as caught:
        turn.model_dump_json()
    assert "SECRET" not in str(caught.value)
    assert Turn.model_validate(turn.model_dump()) == turn
    assert Message(**json.loads(json.dumps(turn.message.dict()))) == turn.message


def test_decoded_by_msgspec():
    """Msgspec reads a message, too."""
    assert msgspec.json.decode(b'{"role":"user","content":"x","message_id":"m"}', type=Message).content == "x"


def test_equal_calls_have_equal_bytes():
    """A type that was given, read or left out makes no difference to the bytes."""
    calls = [
        {"id": "1", "type": codec.decode_object('{"type": "function"}')["type"]},
        {"id": "1"},
        {"id": "1", "type": "function"},
    ]
    bodies = {codec.encode(Message(role="assistant", tool_calls=[call], message_id="m")) for call in calls}
    assert len(bodies) == 1
    body = bodies.pop()
    assert codec.encode(codec.decode_message(body)) == body


@given(st.text(st.characters()), st.sampled_from(ROLES))
def test_any_text_survives(text, role):
    """Any text, surrogates and NUL included, is the same after encoding and decoding."""
    message = Message(role=role, content=text, name=text, message_id="m", more={text: [text]})
    body = codec.encode(message)
    assert body.decode("utf-8")
    assert codec.decode_message(body) == message


@pytest.mark.parametrize("fields", [{"content": []}, {"tool_calls": []}, {"attachments": []}], ids=str)
def test_empty_is_not_absent(fields):
    """An empty list stays one."""
    message = Message(role="assistant", message_id="m", **fields)
    again = codec.decode_message(codec.encode(message))
    assert again == message
    assert again.dict()[next(iter(fields))] == []


ITEMS = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc+/=="},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": None},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "42"}]},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["type"])
def test_items_of_the_responses_interface_have_no_role(item):
    """An item without a role is kept, and comes back as it was given, with nothing added but the id."""
    message = Message(**item)
    assert message.role is None
    assert codec.decode_message(codec.encode(message)) == message
    assert {**message.dict(), "message_id": None} == {**item, "message_id": None}


@pytest.mark.parametrize(
    "arguments", [{"a": 1.0, "b": [True, {"c": None}], "big": 2**70}, {}, [], None, "", "{broken", 7, "\ud800"]
)
def test_arguments_are_kept_as_the_model_gave_them(arguments):
    """Arguments may be text, an object or nothing, a call may lack its id: the same comes back, read-only."""
    call = {"function": {"name": "f", "arguments": arguments}}
    for text in ("said", "\ud800"):
        message = Message(role="assistant", content=text, tool_calls=[call])
        again = codec.decode_message(codec.encode(message))
        assert again == message
        assert codec.encode(again) == codec.encode(message)
        assert again.dict()["tool_calls"] == [{"type": "function", **call}]
        assert again.tool_calls[0].id is None
        if isinstance(arguments, dict):
            with pytest.raises(TypeError, match="read-only"):
                again.tool_calls[0].function.arguments["more"] = 1


def test_an_error_says_once_what_was_given():
    """What is wrong deep inside a message is said once, with the way to it."""
    with pytest.raises(MemoryInvalidInputError, match="arguments holds") as caught:
        Message(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": {"x": object()}}}])
    assert str(caught.value).count("given") == 1


@pytest.mark.parametrize(
    ("role", "meant"), [("human", "user"), ("ai", "assistant"), ("Bot", "assistant"), ("User", "user")]
)
def test_a_role_said_otherwise_gets_a_hint(role, meant):
    """A role as other libraries call it, or in capitals, is refused with what was meant; nothing is guessed."""
    with pytest.raises(MemoryInvalidInputError, match=f"did you mean '{meant}'"):
        Message(role=role, content="x")


@pytest.mark.parametrize("content", [5, 1.5, {"a": 1}, b"x"])
def test_a_wrong_content_says_what_it_may_be(content):
    """Not the name of a type within."""
    with pytest.raises(MemoryInvalidInputError, match="content: must be a str, None, or a list of parts") as caught:
        Message(role="user", content=content)
    assert "tuple" not in str(caught.value)


def test_a_wrong_part_is_told_by_its_place():
    """And the list around it is not."""
    with pytest.raises(MemoryInvalidInputError) as caught:
        Message(role="user", content=[{"type": "text", "text": "x"}, {"text": "y"}])
    assert str(caught.value) == "Message is not valid: content.1: ContentPart is not valid: type is missing"


def test_a_wrong_field_of_a_query_gets_a_hint():
    """A filter that does not exist would let everything through."""
    with pytest.raises(MemoryInvalidInputError, match=r"user: there is no such field; .* did you mean user_id"):
        MemoryQuery(user="u")


def test_objects_of_the_models_libraries():
    """Calls and parts are taken by value, with what was set and what they are by default; a message gets the way."""
    from anthropic.types import TextBlock, ToolUseBlock
    from openai.types.chat import ChatCompletionMessage

    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    answer = ChatCompletionMessage.model_validate({"role": "assistant", "tool_calls": [call]})
    made = Message("assistant", tool_calls=answer.tool_calls)
    assert made.tool_calls == (ToolCall(id="1", function=FunctionCall(name="f", arguments="")),)
    blocks = [TextBlock(type="text", text="x"), ToolUseBlock(type="tool_use", id="1", name="f", input={"a": [1]})]
    assert Message("assistant", blocks).dict()["content"] == [
        {"type": "text", "text": "x"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": [1]}},
    ]
    refused = asyncio.run(create_in_memory_provider().store_messages("c", [answer])).error
    assert "a ChatCompletionMessage; make one with Message(**data.model_dump(exclude_unset=True))" in str(refused)
    assert Message(**answer.model_dump(exclude_unset=True)).tool_calls == made.tool_calls
