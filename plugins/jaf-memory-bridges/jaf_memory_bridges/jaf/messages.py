"""Messages of jaf-py and of jaf-memory, each made from the other without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from jaf.core.types import (
    Attachment,
    ContentRole,
    MessageContentPart,
    MessageId,
    ToolCall,
    ToolCallFunction,
)
from jaf.core.types import Message as JafMessage

from jaf_memory_core import Message
from jaf_memory_core.values import identifier, thaw

ROLES = {role.value: role for role in ContentRole}
PART_FIELDS = ("text", "image_url", "file")
ATTACHMENT_FIELDS = ("kind", "mime_type", "name", "url", "data", "format", "use_litellm_format")


def to_core(message: Any, message_id: str | None = None) -> Message:
    """A message of the engine's as the store keeps it.

    Args:
        message: jaf-py's `Message`.
        message_id: instead of the message's own.

    Raises:
        MemoryInvalidInputError: it holds what JSON cannot.
    """
    content = message.content
    return Message(
        role=getattr(message.role, "value", message.role),
        content=content if content is None or isinstance(content, str) else [_fields(part) for part in content],
        tool_calls=None if message.tool_calls is None else [_call(call) for call in message.tool_calls],
        tool_call_id=message.tool_call_id,
        attachments=None if message.attachments is None else [_fields(one) for one in message.attachments],
        message_id=message_id or str(message.message_id),
    )


def _fields(value: Any) -> dict[str, Any]:
    given = value if isinstance(value, Mapping) else asdict(value)
    return {name: item for name, item in given.items() if item is not None}


def _call(call: Any) -> dict[str, Any]:
    fields = _fields(call)
    function = dict(fields["function"])
    if not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"])  # what a model's interface would take
    return {**fields, "function": function}


def to_jaf(message: Message) -> Any:
    """A stored message as the engine's own; what that cannot hold (`name`, further fields) stays in the store."""
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
        attachments=None
        if attachments is None
        else [Attachment(**_known(one, ATTACHMENT_FIELDS)) for one in attachments],
        message_id=MessageId(message.message_id),
    )


def _known(value: Any, names: Iterable[str]) -> dict[str, Any]:
    fields = value.dict()
    return {name: thaw(fields[name]) for name in names if name in fields}


def _jaf_call(call: Any) -> Any:
    name, arguments = ("", "") if call.function is None else (call.function.name, call.function.arguments)
    return ToolCall(id=call.id, type=call.type, function=ToolCallFunction(name=name, arguments=arguments))


def usable_id(message: Any) -> str | None:
    """The id that the engine gave a message, or `None` where it gave none that can be kept."""
    try:
        return identifier(None if message.message_id is None else str(message.message_id))
    except ValueError:
        return None


def is_halted(message: Any) -> bool:
    """Whether a tool's message only notes that a human is asked; the engine leaves these out of what it loads."""
    if getattr(message.role, "value", message.role) != "tool" or not isinstance(message.content, str):
        return False
    try:
        content = json.loads(message.content)
    except ValueError:
        return False
    if not isinstance(content, dict):
        return False
    return content.get("status") == "halted" or content.get("hitl_status") == "pending_approval"
