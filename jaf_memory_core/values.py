"""Frozen values: read-only containers for free JSON, and `Value`, the base of all our types.

msgspec holds and decodes the values (a stored message costs 0.13 µs to read); pydantic checks what a caller gives
to a constructor. `docs/decisions/0002-types.md` has the measurements behind that pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, StructMeta
from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import SchemaValidator, core_schema

from jaf_memory_core.errors import MemoryInvalidInputError

DEEPEST = 200
"""Containers within containers beyond this are refused whatever the settings say: JSON readers recurse."""


def _read_only(*_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError("what jaf-memory returns is read-only; make a copy with dict(...) or list(...) and change that")


class FrozenDict(dict[str, Any]):
    """A read-only `dict`: compares, iterates and goes through `json.dumps` like any other."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _read_only
    clear = pop = popitem = setdefault = update = _read_only

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, _memo: object) -> dict[str, Any]:
        plain: dict[str, Any] = thaw(self)  # whoever copies in depth wants to change the copy
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """A read-only `list`: compares, iterates and goes through `json.dumps` like any other."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _read_only
    append = clear = extend = insert = pop = remove = reverse = sort = _read_only

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self))

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, _memo: object) -> list[Any]:
        plain: list[Any] = thaw(self)
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)


EMPTY = FrozenDict()

TEXT = frozenset({str, type(None)})
"""The exact types of a field that is a text or absent."""


def freeze(value: Any, *, where: str = "value", datetimes: bool = False, _room: int = DEEPEST) -> Any:
    """Copy a JSON value into read-only containers.

    Args:
        value: `None`, bool, int, finite float, str, or lists, tuples and mappings (with string keys) of these.
        where: how an error names the value.
        datetimes: turn datetimes into ISO 8601 strings instead of refusing them.

    Returns:
        An equal value that cannot be changed.

    Raises:
        MemoryInvalidInputError: for anything that JSON cannot hold.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, Mapping | list | tuple):
        if _room == 0:
            raise MemoryInvalidInputError(f"{where} is nested more than {DEEPEST} deep; store it as a string instead")
        if not isinstance(value, Mapping):
            return FrozenList([freeze(item, where=where, datetimes=datetimes, _room=_room - 1) for item in value])
        return FrozenDict(
            {
                _key(key, where): freeze(item, where=where, datetimes=datetimes, _room=_room - 1)
                for key, item in value.items()
            }
        )
    return _scalar(value, where, datetimes=datetimes)


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise MemoryInvalidInputError(f"{where} has a key of type {type(key).__name__}; keys are strings in JSON")


def _scalar(value: Any, where: str, *, datetimes: bool) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise MemoryInvalidInputError(f"{where} holds {float(value)!r}, which JSON cannot hold; give a number or None")
    # Enum members and other subclasses are stored as the plain value that they are.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if datetimes and isinstance(value, datetime):
        return value.isoformat()
    raise MemoryInvalidInputError(
        f"{where} holds a {type(value).__name__}, which JSON cannot hold; "
        "allowed are None, bool, int, float, str, and lists and dicts of these"
    )


def thaw(value: Any) -> Any:
    """Copy a frozen JSON value into plain, changeable dicts and lists."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


class _ExactStr:
    """pydantic's own `str` refuses lone surrogates; a message may hold them."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(str)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


def identifier(value: Any) -> str:
    """Check an id; a `ValueError` says what is wrong with it."""
    if not isinstance(value, str):
        raise ValueError(f"must be a str, not {type(value).__name__}")  # noqa: TRY004  (pydantic collects ValueErrors)
    plain: str = str.__str__(value)  # of an Enum's member or another subclass, the plain value
    if not 1 <= len(plain) <= 255:
        raise ValueError(f"must have 1 to 255 characters, not {len(plain)}")
    if "\0" in plain:
        raise ValueError("must not contain NUL")
    if not plain.isascii() and any("\ud800" <= char <= "\udfff" for char in plain):
        raise ValueError("must not contain lone surrogates")
    return plain


def is_plain_id(value: Any) -> bool:
    """Whether it is certain at a glance that `identifier` gives it back as it is."""
    return type(value) is str and 0 < len(value) <= 255 and value.isascii() and "\0" not in value


Text = Annotated[str, _ExactStr()]
"""Any string, lone surrogates and NUL included."""

Identifier = Annotated[str, PlainValidator(identifier, json_schema_input_type=str)]
"""1 to 255 characters, any Unicode but NUL and lone surrogates."""


def _metadata(value: Any) -> FrozenDict:
    if isinstance(value, Mapping):
        frozen: FrozenDict = freeze(value, where="metadata", datetimes=True)
        return frozen
    raise ValueError(f"must be a dict, not {type(value).__name__}")


Json = Annotated[FrozenDict, PlainValidator(_metadata, json_schema_input_type=dict[str, Any])]
"""A JSON object; datetimes in it become ISO 8601 strings."""

Count = Annotated[int, Field(ge=0)]

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Strict(strict=False)]
"""A tuple; a caller may give a list."""

Plain = dict[str, Any]
"""Plain dicts and lists all the way down."""


class Checked(StructMeta):
    """Lets pydantic check the arguments of a constructor; decoding from a store does not come through here."""

    def __call__(cls, /, *args: Any, **fields: Any) -> Any:  # noqa: N805  (of a metaclass)
        """Make one of what a caller gives, which is checked."""
        # Its own, and not an inherited one: a subclass has further fields.
        check = cls.__dict__.get("_check") or _build_check(cls)
        if args:
            fields = _named(cls, args, fields)
        if fields.get("message_id", "") is None:
            del fields["message_id"]  # other engines write `None` where there is no id yet
        try:
            fields = check(fields)
        except ValidationError as error:
            # pydantic's error keeps what was given, which may be the content of a message.
            raise _invalid(cls, error) from None
        for name, value in fields.items():
            if value.__class__ is not str and isinstance(value, str):
                fields[name] = str.__str__(value)  # JSON writers refuse subclasses of str
        known = cls._known  # type: ignore[attr-defined]
        if not fields.keys() <= known:
            # Sorted, so that equal messages have equal bytes: a message's own fields have no order.
            extra = {name: freeze(fields.pop(name), where=name) for name in sorted(fields.keys() - known)}
            fields["further"] = FrozenDict(extra)
        made = super().__call__(**fields)
        made._check_whole()  # noqa: SLF001  (of its classes)
        return made

    def trusted(cls, /, *values: Any, **fields: Any) -> Any:  # noqa: N805  (of a metaclass)
        """Make one without any check, from what is known to be right."""
        return super().__call__(*values, **fields)


def _named(cls: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> dict[str, Any]:
    names = cls._names
    named = dict(zip(names, args, strict=False))
    if len(args) > len(names) or not fields.keys().isdisjoint(named):
        raise TypeError(f"{cls.__name__}() takes each of {', '.join(names)} once")
    named.update(fields)
    return named


def _build_check(cls: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    # Built at first use: it keeps `import jaf_memory_core` fast.
    hints = get_type_hints(cls, include_extras=True)
    fields = {
        field.name: core_schema.typed_dict_field(TypeAdapter(hints[field.name]).core_schema, required=field.required)
        for field in msgspec.structs.fields(cls)
        if field.name != "further"
    }
    schema = core_schema.typed_dict_schema(
        fields,
        extra_behavior="allow" if issubclass(cls, OpenValue) else "forbid",
        config=core_schema.CoreConfig(strict=True, hide_input_in_errors=True),
    )
    check = SchemaValidator(schema).validate_python
    type.__setattr__(cls, "_names", tuple(fields))
    type.__setattr__(cls, "_known", frozenset(fields))
    type.__setattr__(cls, "_check", staticmethod(check))
    return check


SAID_OTHERWISE = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant"}
"""Roles, as other libraries call them."""


def _invalid(cls: Any, error: ValidationError) -> MemoryInvalidInputError:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        steps = map(str, problem["loc"])
        path = ".".join(step for step in steps if not step.startswith(("function-", "is-", "tuple[")))
        text = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        shown = repr(given) if path == "role" and isinstance(given, str) and len(given) < 40 else None
        if path == "content" and problem["type"] != "value_error":
            if isinstance(given, list | tuple):
                continue  # which of its parts it is, another problem says
            text = "must be a str, None, or a list of parts"
        if problem["type"] == "extra_forbidden":
            text = f"there is no such field; allowed are {', '.join(cls._names)}"
        text += _hint(path, given, problem["type"], cls._names)
        if problem["type"] == "missing":
            problems.append(f"{path} is missing")
        elif " is not valid: " in text:  # of a part, which has said what it was given
            problems.append(f"{path}: {text}")
        else:
            problems.append(f"{path}: {text} (given: {shown or 'a ' + type(given).__name__})")
    return MemoryInvalidInputError(f"{cls.__name__} is not valid: " + "; ".join(dict.fromkeys(problems)))


def _hint(path: str, given: Any, kind: str, names: Sequence[str]) -> str:
    """What was meant, where that can be told."""
    if path == "role" and isinstance(given, str):
        meant = SAID_OTHERWISE.get(given.lower(), given.lower())
        return f", did you mean {meant!r}?" if meant in {"user", "assistant", "system", "tool"} else ""
    near = [name for name in names if name.startswith(path)] if kind == "extra_forbidden" else []
    return f"; did you mean {near[0]}?" if near else ""


def _fields_of(model: Any) -> dict[str, Any]:
    """Fields of a pydantic model: what was set, and what is something by default."""
    by_default: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**by_default, **model.model_dump(mode="json", by_alias=True, exclude_unset=True)}


V = TypeVar("V", bound="Value")


class Value(Struct, frozen=True, omit_defaults=True, metaclass=Checked):
    """Base of our types: frozen, checked at construction, understood by msgspec and by pydantic."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), {name: getattr(self, name) for name in self.__struct_fields__})

    def _check_whole(self) -> None:
        """Refuse fields that do not go together; each by itself is checked already."""

    @classmethod
    def _is_exact(cls, _given: Any) -> bool:
        """Whether it is certain, at a glance, that the constructor would make just this of it."""
        return False

    @classmethod
    def _coerce(cls, given: Any) -> Self:
        if isinstance(given, cls):
            return checked(cls, given)
        if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
            return cls(**given)
        kind = type(given)
        if callable(getattr(kind, "model_dump", None)):  # what the models' own libraries answer, taken by value
            return cls(**_fields_of(given))
        named = f"{kind.__module__}.{kind.__name__}" if kind.__name__ == cls.__name__ else kind.__name__
        raise ValueError(f"must be a {cls.__name__} or a dict of its fields, not {named}")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._coerce,
            serialization=core_schema.plain_serializer_function_ser_schema(as_dict),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object", "title": cls.__name__}


class OpenValue(Value, frozen=True, omit_defaults=True):
    """A value that keeps every further JSON field it is given, and shows it as an attribute."""

    _always: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _is_exact(cls, given: Any) -> bool:
        if type(given) is not cls:
            return False
        kept: Any = cls
        for name, kinds, item_kind in _exact_kinds(kept):
            item = getattr(given, name)
            kind: Any = type(item)
            if kind in TEXT or item is EMPTY:
                if kind not in kinds:
                    return False
            elif kind is tuple and item_kind is not None:
                if not all(map(item_kind._is_exact, item)):
                    return False
            elif kind not in kinds or not issubclass(kind, OpenValue) or not kind._is_exact(item):
                return False  # or free JSON, which takes more than a glance
        return True

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are no fields of the class.
        if name != "further" and name in self.further:
            return self.further[name]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def dict(self) -> Plain:
        """The value as plain dicts and lists, in the chat-completions form; `Class(**value.dict())` equals it."""
        return as_dict(self)


def as_dict(value: Any) -> Plain:
    """A value's fields as plain dicts and lists; a `None` is left out unless the class always shows that field."""
    always: frozenset[str] = getattr(type(value), "_always", frozenset())
    shown: Plain = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if name == "further":
            shown.update(thaw(item))
        elif item is not None or name in always:
            shown[name] = _plain(item)
    return shown


def _plain(item: Any) -> Any:
    if isinstance(item, Value):
        return as_dict(item)
    if isinstance(item, tuple):
        return [_plain(each) for each in item]
    return thaw(item)


@cache
def _exact_kinds(cls: Any) -> tuple[tuple[str, frozenset[Any], Any], ...]:
    """Of each field its name, its exact types, and what a tuple in it holds."""
    hints = get_type_hints(cls)
    table = []
    for name in cls.__struct_fields__:
        hint = hints[name]
        choices = get_args(hint) or (hint,)
        items = [get_args(one)[0] for one in choices if get_origin(one) is tuple]
        kinds = TEXT if hint is Any else frozenset(str if get_origin(one) is Literal else one for one in choices)
        table.append((name, kinds, items[0] if items else None))
    return tuple(table)


def checked(kind: type[V], given: V) -> V:
    """A value with every field checked, however it came to be.

    `replace`, unpickling, subclasses and `object.__setattr__` pass no constructor: so it is made anew by one, unless it
    is certain at a glance that this would change nothing.

    Raises:
        MemoryInvalidInputError: it holds what the constructor of `kind` refuses.
    """
    return given if is_exact(kind, given) else remade(kind, given)


def is_exact(kind: type[Value], given: Any) -> bool:
    """Whether it is certain at a glance, and without any free JSON, that the constructor would make just this of it."""
    return kind._is_exact(given)


def remade(kind: type[V], given: V) -> V:
    """What the constructor makes of a value's fields."""
    fields = {name: getattr(given, name) for name in given.__struct_fields__}
    further = fields.pop("further", EMPTY)
    if further is not EMPTY:
        if not isinstance(further, Mapping):
            raise MemoryInvalidInputError(f"{kind.__name__}.further must be a dict, not a {type(further).__name__}")
        further = freeze(further, where=f"{kind.__name__}.further")
        if twice := ", ".join(sorted(fields.keys() & further)):
            raise MemoryInvalidInputError(f"{kind.__name__}.further holds what are fields by themselves: {twice}")
        fields.update(further)
    if fields.get("message_id", "") is None:
        raise MemoryInvalidInputError("message_id must be a str, not None: a retry would store the message twice")
    return kind(**fields)


def _restore(cls: Any, fields: dict[str, Any]) -> Any:
    return cls.trusted(**fields)
