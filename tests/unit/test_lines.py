"""What a line of an import may hold: nothing twice, nothing of another kind, and nothing is lost in silence."""

import io
import json

import pytest

from jaf_memory_core.transfer import LineError, read_lines

MESSAGE = '{"role": "user", "content": "hello"}'

REFUSED = {
    "messages twice": f'{{"conversation_id": "c", "messages": [{MESSAGE}], "messages": []}}',
    "id twice": f'{{"conversation_id": "c", "conversation_id": "d", "messages": [{MESSAGE}]}}',
    "in metadata": f'{{"conversation_id": "c", "messages": [{MESSAGE}], "metadata": {{"a": 1, "a": 1}}}}',
    "deep in metadata": '{"conversation_id": "c", "messages": [], "metadata": {"a": [{"b": 1, "b": 2}]}}',
    "in a message": '{"conversation_id": "c", "messages": [{"role": "user", "content": "x", "content": "y"}]}',
    "in a name": '{"conversation_id": "c", "messages": [{"role": "assistant", "name": "a", "name": "b"}]}',
    "by an escape": '{"conversation_id": "c", "messages": [], "metadata": {"a": 1, "\\u0061": 2}}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_twice_is_refused(name):
    """A key that stands twice in one object, at whatever depth, is refused with the line's number."""
    with pytest.raises(LineError, match=r"^line 1: has the key '\w+' twice in one object"):
        list(read_lines(io.BytesIO(REFUSED[name].encode() + b"\n")))


def test_a_key_in_two_objects_is_none_twice():
    """The same key in objects beside and within each other is an ordinary one, and so is one inside of a text."""
    metadata = {"a": {"a": [{"a": 1}, {"a": 1}]}, "text": '{"a": 1, "a": 2}'}
    line = json.dumps({"conversation_id": "c", "messages": [], "metadata": metadata})
    (conversation,) = read_lines(io.StringIO(line))
    assert conversation.metadata == metadata


FALSY = [[], 0, 0.0, "", False]
FIELDS = ["metadata", "user_id", "created_at", "expires_at", "digest", "messages", "conversation_id"]


@pytest.mark.parametrize("value", FALSY, ids=repr)
@pytest.mark.parametrize("field", FIELDS)
def test_an_empty_value_of_another_kind_is_refused(field, value):
    """What counts as nothing in Python, and is no value of the field's kind, is refused and not taken for nothing."""
    if (field, value) == ("messages", []):
        return
    message = {"role": "user", "content": "hello", "message_id": "m"}
    fields = {"conversation_id": "c", "messages": [message], field: value}
    with pytest.raises(LineError):
        list(read_lines(io.StringIO(json.dumps(fields))))


@pytest.mark.parametrize("value", [False, True, 0, -1, "60", []], ids=repr)
def test_a_ttl_is_a_number_above_zero(value):
    """A ttl that is none is refused."""
    with pytest.raises(LineError):
        list(read_lines(io.StringIO(json.dumps({"conversation_id": "c", "messages": [], "ttl": value}))))


def test_null_stands_for_nothing():
    """Null, as programs write what they have not, leaves a field out."""
    fields = {"conversation_id": "c", "messages": []}
    absent = dict.fromkeys(["user_id", "metadata", "created_at", "expires_at", "ttl", "digest"])
    (conversation,) = read_lines(io.StringIO(json.dumps(fields | absent)))
    assert (conversation.user_id, conversation.metadata, conversation.ttl) == (None, {}, None)
