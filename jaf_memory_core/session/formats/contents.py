"""What a message says, from the parts of one interface to those of another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import ContentPart, Message, ToolCall
from jaf_memory_core.values import EMPTY, freeze, thaw

NOTHING = "[nothing was said]"
"""Stands where an endpoint wants a text and there is none."""

NO_RESULT = "[there is no result: the call was interrupted, or its result was not kept]"
"""Stands for the result of a call that has none."""

TEXTS = ("text", "input_text", "output_text")
HIDDEN = ("thinking", "redacted_thinking", "tool_use", "tool_result", "reasoning_text", "summary_text")
"""Parts that another interface has no place for, or that are read as calls and results."""


class Parts(Struct, frozen=True):
    """The parts that an endpoint takes from one role.

    Attributes:
        taken: types that are left as they are.
        text: type of a text; `None` where contents are text only.
        image: makes a part of an image's URL; `None` where images have no place.
        refusal: whether refusals have a part of their own.
    """

    taken: frozenset[str]
    text: str | None = "text"
    image: Callable[[str], Mapping[str, Any]] | None = None
    refusal: bool = False


def written(content: str | tuple[ContentPart, ...] | None, form: Parts) -> str | tuple[ContentPart, ...] | None:
    """The content in an endpoint's form, the same object if it is; `None` if nothing is left."""
    if isinstance(content, str) or content is None:
        return content
    parts = tuple(one for given in content if (one := _part(given, form)) is not None)
    if len(parts) == len(content) and all(one is other for one, other in zip(parts, content, strict=True)):
        return content or None
    if form.text is None:
        return "\n".join(one.text or "" for one in parts) or None
    return parts or None


def _part(given: ContentPart, form: Parts) -> ContentPart | None:
    blank = given.type in TEXTS and not (given.text or "").strip()
    lacks_detail = given.type == "input_image" and "detail" not in given.further
    if given.type in form.taken and not blank and not lacks_detail:
        return given
    return None if blank or given.type in HIDDEN else _translated(given, form)


def _translated(given: ContentPart, form: Parts) -> ContentPart:
    refusal = given.further.get("refusal")
    image = image_url(given)
    if given.type in TEXTS:
        return part(type=form.text or "text", text=given.text)
    if given.type == "refusal" and isinstance(refusal, str) and refusal.strip():
        return part(type="refusal", refusal=refusal) if form.refusal else part(type="text", text=refusal)
    if image is not None and form.image is not None:
        return ContentPart(**form.image(image))
    return ContentPart(type=form.text or "text", text=f"[{given.type}: not shown here]")


def image_url(given_part: ContentPart) -> str | None:
    """The address of an image, or its `data:` URL; `None` of anything else."""
    further = given_part.further
    given = further.get("image_url")
    if isinstance(given, Mapping):
        given = given.get("url")
    source = further.get("source")
    if given_part.type == "image" and isinstance(source, Mapping):
        given = source.get("url")
        if source.get("type") == "base64":
            given = f"data:{source.get('media_type')};base64,{source.get('data')}"
    return given if isinstance(given, str) else None


def part(**fields: Any) -> ContentPart:
    """A part of these fields."""
    return ContentPart(**fields)


def item(**fields: Any) -> Message:
    """An item of the Responses interface, or a message, of these fields."""
    return Message(**fields)


def tool_call(**fields: Any) -> ToolCall:
    """A call of these fields."""
    return ToolCall(**fields)


def said(text: Any) -> bool:
    """Whether a content says anything."""
    return bool(text.strip()) if isinstance(text, str) else bool(text)


def as_text(value: Any) -> str:
    """A result as text: what it is, or its JSON; parts by their texts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        fields = [one.dict() if isinstance(one, ContentPart) else one for one in value]
        if all(isinstance(one, Mapping) and isinstance(one.get("type"), str) for one in fields):
            return "\n".join(
                one["text"] if isinstance(one.get("text"), str) else f"[{one['type']}: not shown here]"
                for one in fields
            )
        value = fields
    return json.dumps(thaw(value), ensure_ascii=False)


def parts_of(value: Any) -> tuple[ContentPart, ...] | None:
    """A list of parts, from wherever it comes; `None` of anything else."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(one, ContentPart) for one in value):
        return tuple(value)
    if all(isinstance(one, Mapping) and isinstance(one.get("type"), str) for one in value):
        return tuple(part(**one) for one in value)
    return None


def arguments_text(arguments: Any) -> str:
    """Arguments as the text that endpoints want; `{}` for none."""
    if isinstance(arguments, str):
        return arguments or "{}"
    return "{}" if arguments is None else json.dumps(thaw(arguments), ensure_ascii=False)


def arguments_object(arguments: Any) -> dict[str, Any]:
    """Arguments as an object; what is none, or more than JSON or a message can hold, stands in one."""
    value = _parsed(arguments) if isinstance(arguments, str) else arguments
    found: dict[str, Any] = {} if value is None else value if isinstance(value, dict) else {"arguments": value}
    try:
        freeze([[[found]]])  # so deep stands a block's input in a message
    except MemoryInvalidInputError:
        found = {"arguments": arguments_text(arguments)}
    plain: dict[str, Any] = thaw(found)
    return plain


def _parsed(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_TOOLS = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_IN_NAMES = re.compile(r"[\s<|\\/>]")
LONGEST_NAME = 64


def tool_name(name: str | None) -> str:
    """The name of a tool as endpoints take it: another engine's may hold dots, blanks and slashes."""
    if not name:
        return "unknown"
    return name if _TOOL.fullmatch(name) else _NOT_IN_TOOLS.sub("_", name)[:LONGEST_NAME]


def speaker_name(name: str) -> str | None:
    """The name of who speaks as chat-completions take it; `None` where nothing is left."""
    return _NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME] or None


def sendable(message: Message) -> Message:
    """The message with U+FFFD in the place of lone surrogates, which no request can carry."""
    try:
        _encoder.encode(message)
    except UnicodeEncodeError:
        fields = json.loads(_LONE.sub("\ufffd", json.dumps(message.dict(), ensure_ascii=False)))
        return Message(**fields)
    return message


_LONE = re.compile("[\ud800-\udfff]")
_encoder = msgspec.json.Encoder()


def is_bare(message: Message) -> bool:
    """Whether a message is a user's or an assistant's text and nothing else, which every endpoint takes as it is.

    Most are. To write them in form would cost ten times what reading them does, and change nothing.
    """
    content = message.content
    return (
        message.role in ("user", "assistant")
        and content.__class__ is str
        and content.isascii()  # no surrogate
        and bool(content)
        and not content.isspace()
        and message.further is EMPTY
        and message.tool_calls is None
        and message.name is None
        and message.attachments is None
        and message.tool_call_id is None
    )


def refusal_of(message: Message) -> str | None:
    """What a model answered in the place of an answer."""
    refusal = message.further.get("refusal")
    return refusal if isinstance(refusal, str) and refusal.strip() else None


def spoken(message: Message) -> str:
    """All that a message says, as text."""
    return as_text(message.content) if message.content is not None else refusal_of(message) or ""
