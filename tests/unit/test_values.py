"""Frozen values: read-only, copied, checked."""

import copy
import enum
import json
import pickle
from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaf_memory_core import ContentPart, MemoryInvalidInputError, Message
from jaf_memory_core.values import EMPTY, FrozenDict, FrozenList, freeze, identifier, thaw

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=12
)


class Color(enum.StrEnum):
    """A text that is a member, too."""

    RED = "red"


class Word(str):
    """A text of another class."""

    __slots__ = ()


class TestFrozen:
    """The containers."""

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("__setitem__", ("a", 1)),
            ("__delitem__", ("a",)),
            ("__ior__", ({"b": 1},)),
            ("clear", ()),
            ("pop", ("a",)),
            ("popitem", ()),
            ("setdefault", ("b", 1)),
            ("update", ({"b": 1},)),
        ],
    )
    def test_dict_is_read_only(self, name, arguments):
        """Nothing changes a frozen dict, and the error says how to get a copy."""
        frozen = FrozenDict(a=1)
        with pytest.raises(TypeError, match="make a copy with dict"):
            getattr(frozen, name)(*arguments)
        assert frozen == {"a": 1}

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("__setitem__", (0, 1)),
            ("__delitem__", (0,)),
            ("__iadd__", ([1],)),
            ("__imul__", (2,)),
            ("append", (1,)),
            ("clear", ()),
            ("extend", ([1],)),
            ("insert", (0, 1)),
            ("pop", ()),
            ("remove", (3,)),
            ("reverse", ()),
            ("sort", ()),
        ],
    )
    def test_list_is_read_only(self, name, arguments):
        """Nothing changes a frozen list."""
        frozen = FrozenList([3, 2])
        with pytest.raises(TypeError, match="read-only"):
            getattr(frozen, name)(*arguments)
        assert frozen == [3, 2]

    def test_every_changing_method_is_closed(self):
        """No method of `dict` or `list` that changes in place was forgotten."""
        reading = {"copy", "fromkeys", "get", "items", "keys", "values", "count", "index"}
        for kind, base in ((FrozenDict, dict), (FrozenList, list)):
            public = {name for name in vars(base) if not name.startswith("_")} - reading
            assert [name for name in public if getattr(kind, name) is getattr(base, name)] == []

    def test_copies(self):
        """A copy is the same object, a deep copy an equal plain one; pickling keeps it frozen."""
        frozen = freeze({"a": [1, {"b": 2}]})
        assert copy.copy(frozen) is frozen
        assert copy.deepcopy(frozen) == frozen
        again = pickle.loads(pickle.dumps(frozen))
        assert again == frozen
        assert type(again) is FrozenDict
        assert type(again["a"]) is FrozenList

    def test_hash(self):
        """Equal frozen values have one hash."""
        one, other = freeze({"a": [1], "b": 2}), freeze({"b": 2, "a": [1]})
        assert one == other
        assert hash(one) == hash(other)

    def test_behave_like_their_bases(self):
        """They compare, unpack and go through `json.dumps` as any dict or list."""
        frozen = freeze({"a": [1, 2]})
        assert frozen == {"a": [1, 2]}
        assert {**frozen} == {"a": [1, 2]}
        assert json.dumps(frozen) == '{"a": [1, 2]}'
        assert dict(frozen) | {"b": 1} == {"a": [1, 2], "b": 1}


class TestFreeze:
    """Taking in what a caller gives."""

    @given(json_values)
    def test_keeps_every_value(self, value):
        """Any JSON value is kept, in type and order, and thaws to itself."""
        frozen = freeze(value)
        assert json.dumps(frozen) == json.dumps(value)
        thawed = thaw(frozen)
        assert json.dumps(thawed) == json.dumps(value)
        assert type(thawed) is type(value)

    def test_is_a_copy(self):
        """What the caller changes afterwards has no effect."""
        given = {"a": [1]}
        frozen = freeze(given)
        given["a"].append(2)
        assert frozen == {"a": [1]}

    def test_mappings_tuples_and_members(self):
        """Other mappings, tuples, and subclasses of text and numbers become plain."""
        frozen = freeze(
            MappingProxyType({"a": OrderedDict(z=(1, 2)), Word("b"): Color.RED, "c": enum.IntEnum("N", "ONE").ONE})
        )
        assert frozen == {"a": {"z": [1, 2]}, "b": "red", "c": 1}
        assert type(frozen["b"]) is str
        assert type(frozen["c"]) is int
        assert [type(key) for key in frozen] == [str, str, str]

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), -float("inf"), {1}, b"", object(), 1j, {1: 2}, {None: 1}]
    )
    def test_no_json(self, value):
        """What JSON cannot hold is refused, named by its place."""
        with pytest.raises(MemoryInvalidInputError, match=r"^there "):
            freeze({"deep": [value]}, where="there")

    def test_datetimes(self):
        """Datetimes are taken where that is asked for, and refused elsewhere."""
        moment = datetime(2024, 1, 15, tzinfo=UTC)
        assert freeze([moment], datetimes=True) == ["2024-01-15T00:00:00+00:00"]
        with pytest.raises(MemoryInvalidInputError, match="datetime"):
            freeze([moment])

    def test_depth(self):
        """What is too deep to be read is refused, and not with an error of recursion."""
        value = []
        for _ in range(5000):
            value = [value]
        with pytest.raises(MemoryInvalidInputError, match="nested more than"):
            freeze(value)

    def test_content_is_not_told(self):
        """No error quotes what was given."""
        with pytest.raises(MemoryInvalidInputError) as caught:
            freeze({"secret key": object(), "x": "secret"})
        assert "secret" not in str(caught.value)


class TestIdentifier:
    """Ids."""

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255))
    def test_any_text(self, text):
        """Any text of 1 to 255 characters, without NUL and lone surrogates, is an id, unchanged."""
        assert identifier(text) == text

    @pytest.mark.parametrize("value", ["", "x" * 256, "a\0", "\ud800", "a\udfff", 1, None, b"a", ["a"]])
    def test_refused(self, value):
        """Anything else is not."""
        with pytest.raises(ValueError, match="must"):
            identifier(value)

    @pytest.mark.parametrize("value", [Color.RED, Word("red")])
    def test_is_plain(self, value):
        """Of a member or another subclass, the plain text is taken."""
        assert type(identifier(value)) is str
        assert identifier(value) == "red"


class TestValue:
    """The constructor of our types."""

    def test_by_position_or_name(self):
        """Fields may be given by position or by name, each once."""
        assert ContentPart("text", "x") == ContentPart(type="text", text="x")
        for arguments, fields in ((("a", "b", "c", "d"), {}), (("text",), {"type": "text"})):
            with pytest.raises(TypeError, match="once"):
                ContentPart(*arguments, **fields)

    def test_texts_are_plain(self):
        """A text of another class is kept as the plain text that it is."""
        message = Message(role=Word("user"), content=Color.RED, name=Word("n"), message_id=Word("m"), more=Word("x"))
        for value in (message.role, message.content, message.name, message.message_id, message.more):
            assert type(value) is str

    def test_copies_are_the_same(self):
        """A frozen value is its own copy."""
        message = Message(role="user", content="x", more={"a": 1})
        assert copy.copy(message) is message
        assert copy.deepcopy(message) is message

    def test_empty(self):
        """The one empty dict is frozen."""
        with pytest.raises(TypeError):
            EMPTY["a"] = 1
