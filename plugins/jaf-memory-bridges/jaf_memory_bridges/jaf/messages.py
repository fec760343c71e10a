"""Messages of jaf-py and of jaf-memory, each made from the other without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, cast
from uuid import UUID

from jaf.core.types import (
    Attachment,
    ContentRole,
    MessageContentPart,
    MessageId,
    ToolCall,
    ToolCallFunction,
)
from jaf.core.types import Message as JafMessage

from jaf_memory_core import MemoryInvalidInputError, Message
from jaf_memory_core.values import identifier, thaw

ROLES = {role.value: role for role in ContentRole}
PART_FIELDS = ("text", "image_url", "file")
ATTACHMENT_FIELDS = ("kind", "mime_type", "name", "url", "data", "format", "use_litellm_format")

NAMES = (str, int, UUID)
"""What the engine and its applications have as ids."""


def named(value: Any, what: str) -> str:
    """An id as the engine may have it: a text, or a number or UUID for one.

    Raises:
        MemoryInvalidInputError: it is something else.
    """
    if isinstance(value, NAMES):
        return str(value)
    raise MemoryInvalidInputError(f"{what} must be a str, not a {type(value).__name__}")


def to_core(message: Any, message_id: str | None = None) -> Message:
    """A message of the engine's as the store keeps it.

    Args:
        message: jaf-py's `Message`, or one of ours, which is taken as it is.
        message_id: instead of the message's own.

    Raises:
        MemoryInvalidInputError: it holds what JSON cannot.
    """
    if isinstance(message, Message):
        return message
    content = message.content
    return Message(
        role=getattr(message.role, "value", message.role),
        content=[_fields(part) for part in content] if isinstance(content, list | tuple) else content,
        tool_calls=None if message.tool_calls is None else [_call(call) for call in message.tool_calls],
        tool_call_id=message.tool_call_id,
        attachments=None if message.attachments is None else [_fields(one) for one in message.attachments],
        message_id=message_id or str(message.message_id),
    )


def is_message(value: object) -> bool:
    """Whether the bridge can store it: a message of jaf-py's, or one of ours."""
    return isinstance(value, JafMessage | Message)


def _fields(value: Any) -> Any:
    if not is_dataclass(value) and not isinstance(value, Mapping):
        return value  # a callback's, which the message's own check refuses
    given = value if isinstance(value, Mapping) else asdict(cast("Any", value))
    return {name: item for name, item in given.items() if item is not None}


def _call(call: Any) -> Any:
    fields = _fields(call)
    if not isinstance(fields, dict) or not isinstance(fields.get("function"), Mapping):
        return fields
    function = dict(fields["function"])
    if not isinstance(function.get("arguments", ""), str):
        function["arguments"] = json.dumps(function["arguments"])  # what a model's interface would take
    return {**fields, "function": function}


def to_jaf(message: Message) -> Any:
    """A stored message as the engine's own; what that cannot hold (`name`, further fields) stays in the store.

    It never fails: an attachment without a `url` or `data`, which the engine refuses to make, is left out of the copy.
    """
    content: Any = message.content
    if isinstance(content, tuple):
        content = [MessageContentPart(type=part.type, **_known(part, PART_FIELDS)) for part in content]
    calls: Iterable[Any] | None = message.tool_calls
    attachments: Iterable[Any] | None = message.attachments
    return JafMessage(
        role=ROLES.get(message.role, message.role),
        content=content,
        tool_calls=None if calls is None else [_jaf_call(call) for call in calls],
        tool_call_id=message.tool_call_id,
        attachments=None if attachments is None else [*_jaf_attachments(attachments)],
        message_id=MessageId(message.message_id),
    )


def _known(value: Any, names: Iterable[str]) -> dict[str, Any]:
    fields = value.dict()
    return {name: thaw(fields[name]) for name in names if name in fields}


def _jaf_attachments(attachments: Iterable[Any]) -> Iterator[Any]:
    for one in attachments:
        known = _known(one, ATTACHMENT_FIELDS)
        if known.get("url") is not None or known.get("data") is not None:
            yield Attachment(**{"kind": None, **known})


def _jaf_call(call: Any) -> Any:
    name, arguments = ("", "") if call.function is None else (call.function.name, call.function.arguments)
    if not isinstance(arguments, str):
        arguments = json.dumps(thaw(arguments))  # the engine parses a text
    return ToolCall(id=call.id, type=call.type, function=ToolCallFunction(name=name, arguments=arguments))


def merged(held: Message, after: Message, shown: Message | None = None) -> Message:
    """What has become of a stored message whose copy in the engine came back as another object.

    The engine's copy is poorer than what is stored, and so a difference between the two is no edit. An edit is what
    differs from the copy that the engine was given; all else stays, down to the fields of parts and calls.

    Args:
        held: the message as it is stored.
        after: what came back, with the same id.
        shown: the message as the engine was given it, where a view has brought it into another form.
    """
    given = held
    for source in (held,) if shown is None else (held, shown):
        copy = to_jaf(source)
        given = to_core(copy)
        if after in (given, to_core(bearable(copy))):
            return held
    return Message(**_edited(held.dict(), given.dict(), after.dict()))


def _edited(held: Any, given: Any, after: Any) -> Any:
    """Carry the difference between two JSON values over to a third, of which the first is a poorer copy."""
    if after == given:
        return held
    if isinstance(held, Mapping) and isinstance(given, Mapping) and isinstance(after, Mapping):
        changed = {name: value for name, value in after.items() if name not in given or given[name] != value}
        kept = {name: value for name, value in held.items() if name in after or name not in given}
        return kept | {name: _edited(held.get(name), given.get(name), value) for name, value in changed.items()}
    lists = [one for one in (held, given, after) if isinstance(one, list | tuple)]
    if len(lists) == 3:  # all three are lists
        by_id = [_by_id(one) for one in lists]
        if all(by_id):
            return _edited_calls(*by_id)
        if len({len(one) for one in lists}) == 1:
            return [_edited(*three) for three in zip(held, given, after, strict=True)]
    return after


def _by_id(calls: Iterable[Any]) -> dict[str, Any]:
    """Calls by their ids; nothing where one has none, or two share one."""
    found: dict[str, Any] = {str(call.get("id") or ""): call for call in calls if isinstance(call, Mapping)}
    return found if all(found) and len(found) == len([*calls]) else {}


def _edited_calls(held: dict[str, Any], given: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    """Carry an edit over to a list of calls, of which a view may have shown some only: what it left out stays."""
    kept = {name: call for name, call in held.items() if name in after or name not in given}
    changed = {name: _edited(held.get(name), given.get(name), call) for name, call in after.items()}
    return [*(kept | changed).values()]


def usable_id(message: Any) -> str | None:
    """The id that the engine gave a message, or `None` where it gave none that can be kept."""
    try:
        return identifier(None if message.message_id is None else str(message.message_id))
    except ValueError:
        return None


def is_halted(message: Any) -> bool:
    """Whether a tool's message only notes that a human is asked; the engine leaves these out of what it loads."""
    if getattr(message.role, "value", message.role) != "tool":
        return False
    content = object_in(message.content)
    return content is not None and (
        content.get("status") == "halted" or content.get("hitl_status") == "pending_approval"
    )


def object_in(content: Any) -> dict[str, Any] | None:
    """The JSON object that a tool's result is, or `None`."""
    if not isinstance(content, str) or not content.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # also an integer too long, or nested too deeply, for Python
        return None
    return found if isinstance(found, dict) else None


def bearable(message: Any) -> Any:
    """The message, or its text as a part: the engine takes a tool's JSON for an object that it can read."""
    if getattr(message.role, "value", message.role) != "tool" or not isinstance(message.content, str):
        return message
    try:
        if isinstance(json.loads(message.content), dict):
            return message
    except json.JSONDecodeError:
        return message
    except (ValueError, RecursionError):  # an integer too long, or nested too deeply, for Python
        pass
    return replace(message, content=[MessageContentPart(type="text", text=message.content)])
