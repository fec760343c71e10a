"""`Message` and its parts, in the form of the chat-completions interface that every agent engine speaks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from msgspec import StructMeta, field
from msgspec.structs import force_setattr
from pydantic import PlainValidator

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.values import (
    EMPTY,
    Checked,
    FrozenDict,
    Identifier,
    Items,
    OpenValue,
    Plain,
    Text,
    as_dict,
    freeze,
    is_plain_id,
)

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

_ROLES = frozenset(get_args(Role))


def new_message_id() -> str:
    """32 hexadecimal digits: the time to the millisecond, then 80 random bits.

    It exists before the first attempt to store, so that a retry is safe. It begins with the time so that a store's
    index of ids grows at its end: random ones touch, and split, pages all over it.
    """
    try:
        random = _random.pop()
    except IndexError:
        several = os.urandom(10 * _AT_ONCE)
        _random.extend([several[place : place + 10] for place in range(10, 10 * _AT_ONCE, 10)])
        random = several[:10]
    return ((time.time_ns() >> 20).to_bytes(6, "big") + random).hex()


_AT_ONCE = 64
"""Ids for which the system is asked for random bits at once: each time costs as much as all else of an id."""

_random: list[bytes] = []
"""Random bits, each taken once: of a list every thread takes another item."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)  # its parent takes the same


def _arguments(value: Any) -> Any:
    return freeze(value, where="arguments")


class FunctionCall(OpenValue, frozen=True, omit_defaults=True):
    """Which function the model calls, with the arguments as the model gave them.

    Attributes:
        name: of the function.
        arguments: JSON text, or what some engines give in its place: an object, or `None`.
    """

    _always: ClassVar[frozenset[str]] = frozenset({"arguments"})

    name: Text
    arguments: Annotated[Any, PlainValidator(_arguments)] = None
    further: FrozenDict = EMPTY

    def __post_init__(self) -> None:
        if self.arguments.__class__ in (dict, list):  # read from a store
            force_setattr(self, "arguments", freeze(self.arguments, where="arguments"))


class ToolCall(OpenValue, frozen=True, omit_defaults=True):
    """One call that an assistant message makes; the tool's message answers with the same `tool_call_id`.

    Some engines give no `id`: then results answer calls in their order.

    Attributes:
        id: what the tool's message names.
        type: `"function"`, or what else an engine calls.
        function: which one, with its arguments.
    """

    _always: ClassVar[frozenset[str]] = frozenset({"type"})

    id: Text | None = None
    type: Text = "function"
    function: FunctionCall | None = None
    further: FrozenDict = EMPTY

    def __post_init__(self) -> None:
        # msgspec leaves out what *is* the default, not what equals it; equal calls are to have equal bytes.
        if self.type == "function":
            force_setattr(self, "type", "function")


class ContentPart(OpenValue, frozen=True, omit_defaults=True):
    """One part of a multi-part content: `type` says which (`"text"`, `"image_url"`, `"input_audio"`, `"file"`, …).

    Whatever belongs to a type is kept as a further field: `part.image_url["url"]`.

    Attributes:
        type: of the part.
        text: of a part that is text.
    """

    type: Text
    text: Text | None = None
    further: FrozenDict = EMPTY


class Attachment(OpenValue, frozen=True, omit_defaults=True):
    """A file beside the text: a `url`, or base64 `data`, with its `mime_type` and `name`.

    Attributes:
        kind: `"image"`, `"document"`, or what else an engine knows.
        mime_type: such as `"image/png"`.
        name: of the file.
        url: where it is.
        data: the file itself, in base64.
        format: of the file, where an engine says it so.
    """

    kind: Text
    mime_type: Text | None = None
    name: Text | None = None
    url: Text | None = None
    data: Text | None = None
    format: Text | None = None
    further: FrozenDict = EMPTY


_make: Any = StructMeta.__call__
"""What `trusted` calls; by itself it takes two thirds of that."""


class _Quick(Checked):
    """Spares a message that is a role and a text the constructor's checks, which take half of what making one takes."""

    def __call__(cls, /, *args: Any, **fields: Any) -> Any:  # noqa: N805  (of a metaclass)
        if len(args) == 2:
            role, content = args
            further = len(fields)
        else:
            role, content = fields.get("role"), fields.get("content")
            further = len(fields) - (0 if args else 2)
        # Nothing else is given, and nothing twice; or an id beside it.
        if (
            cls is Message
            and type(role) is str
            and role in _ROLES
            and type(content) is str
            and (further == 0 or (further == 1 and is_plain_id(fields.get("message_id"))))
        ):
            return _make(cls, *args, **fields)
        return super().__call__(*args, **fields)


class Message(OpenValue, frozen=True, omit_defaults=True, metaclass=_Quick):
    """One message of a conversation. Frozen all the way down; every further JSON field is kept.

    Args:
        role: system, developer, user, assistant, tool or function. Items of the Responses interface have none; their
            `type` says what they are.
        content: the text, a list of parts, or `None`. Parts, calls and attachments may be dicts, or objects of the
            models' own libraries (pydantic models), which are taken by value.
        name: name of the participant or tool.
        tool_calls: the calls that an assistant makes, as `ToolCall`s or dicts.
        tool_call_id: the call that a tool's message answers.
        attachments: files beside the text, as `Attachment`s or dicts.
        message_id: 1 to 255 characters; made when absent. Storing the same id again never doubles the message.

    Raises:
        MemoryInvalidInputError: with what was given and what is allowed.

    Example:
        question = Message("user", "Where is my order?")
        call = ToolCall(id="call-1", function=FunctionCall(name="find", arguments='{"number": 8812}'))
        answer = Message("assistant", None, tool_calls=[call])
        result = Message("tool", "on its way", tool_call_id="call-1")
    """

    _always: ClassVar[frozenset[str]] = frozenset({"content"})

    role: Role | None = None
    content: Text | Items[ContentPart] | None = None
    name: Text | None = None
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: Text | None = None
    attachments: Items[Attachment] | None = None
    message_id: Identifier = field(default_factory=new_message_id)
    further: FrozenDict = EMPTY

    if TYPE_CHECKING:

        def __init__(
            self,
            role: Role | None = None,
            content: str | Sequence[ContentPart | Mapping[str, Any]] | None = None,
            *,
            name: str | None = None,
            tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = None,
            tool_call_id: str | None = None,
            attachments: Sequence[Attachment | Mapping[str, Any]] | None = None,
            message_id: str = ...,
            **further: Any,
        ) -> None: ...

    def _check_whole(self) -> None:
        if self.role is None and not isinstance(self.further.get("type"), str):
            raise MemoryInvalidInputError(
                "Message is not valid: role is missing: give 'system', 'developer', 'user', 'assistant', 'tool' or "
                "'function', or the type of an item of the Responses interface, which has no role"
            )

    def dict(self) -> Plain:
        """The message as plain dicts and lists, as it was given; `Message(**message.dict())` equals it."""
        shown = as_dict(self)
        if self.role is None and self.content is None:
            del shown["content"]  # an item has no content unless it was given one
        return shown

    @classmethod
    def _is_exact(cls, given: Any) -> bool:
        plain = plain_from_start((given,)) == 1
        return plain or (type(given) is cls and _has_role_and_id(given) and super()._is_exact(given))


def check_roles(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Messages that no constructor made, each with a role, or an item of the Responses interface.

    12 ns each; a `__post_init__`, which msgspec calls for each that it reads, is a quarter of what reading one costs.

    Raises:
        MemoryInvalidInputError: it is no message.
    """
    for message in messages:
        if message.role is None:
            message._check_whole()  # noqa: SLF001  (of this module)
    return messages


def plain_from_start(messages: Iterable[Any]) -> int:
    """How many of the first messages are nothing but valid texts, and so need no other check (0.2 µs each)."""
    count = 0
    kind: Any = Message  # what a field says of its type holds for what a constructor made, and is looked at here
    # All in one loop, by what an interpreter does quickest: every append pays for this, and most messages are plain.
    for message in messages:
        if (
            type(message) is not kind
            or message.further is not EMPTY
            or message.tool_calls is not None
            or message.attachments is not None
        ):
            break
        role, content, key = message.role, message.content, message.message_id
        if not (
            (type(content) is str or content is None)
            and (message.name is None or type(message.name) is str)
            and (message.tool_call_id is None or type(message.tool_call_id) is str)
            and type(role) is str
            and role in _ROLES
            and type(key) is str
            and key.isascii()
            and 0 < len(key) <= 255
            and "\0" not in key
        ):
            break
        count += 1
    return count


def are_plain_texts(messages: Iterable[Message]) -> bool:
    """Whether a writer of JSON makes of each what it makes of its chat form: a text, and nothing in parts (0.1 µs)."""
    kind: Any = Message
    for message in messages:
        if (
            type(message) is not kind
            or type(message.content) is not str
            or message.further is not EMPTY
            or message.tool_calls is not None
            or message.attachments is not None
        ):
            return False
    return True


def _has_role_and_id(message: Any) -> bool:
    role, key = message.role, message.message_id
    return (
        type(role) is str
        and role in _ROLES
        and type(key) is str
        and 0 < len(key) <= 255
        and key.isascii()
        and "\0" not in key
    )
