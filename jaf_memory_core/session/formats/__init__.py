"""The form of a view: what a conversation says, as one endpoint's rules want it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

from msgspec import Struct

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.session.blocks import GIVEN, Step
from jaf_memory_core.session.formats import anthropic, chat, responses

ViewFormat = Literal["chat", "anthropic", "responses"]
"""Whose rules a view keeps: OpenAI's chat-completions, Anthropic's messages, or OpenAI's Responses."""


class Form(Struct, frozen=True):
    """How views are written.

    Attributes:
        render: makes messages of a step.
        arranged: puts a whole view in order.
        unique: whether an id of a call may be there only once in a view.
    """

    render: Callable[[Step], tuple[Message, ...]]
    arranged: Callable[[Sequence[Message]], list[Message]]
    unique: bool = False


FORMS = {
    "chat": Form(partial(chat.render, strict=True), chat.arranged),
    "anthropic": Form(anthropic.render, anthropic.arranged, unique=True),
    "responses": Form(responses.render, responses.arranged, unique=True),
}

KNOWN = {
    "chat": frozenset(("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call")),
    "anthropic": frozenset(("role", "content")),
    "responses": frozenset(("role", "content", "type", "id", "status", "phase")),
}
"""Fields that an endpoint knows of a message; others it refuses."""

AS_STORED = Form(partial(chat.render, strict=False), chat.arranged)
"""Chat-completions, with what other engines put into its messages left where it does no harm."""


def checked_format(value: Any) -> ViewFormat | None:
    """The format, or `None` for that in which a conversation is stored.

    Raises:
        MemoryInvalidInputError: there is no such format.
    """
    if value is None or (isinstance(value, str) and value in get_args(ViewFormat)):
        return cast("ViewFormat | None", value)
    allowed = ", ".join(map(repr, get_args(ViewFormat)))
    raise MemoryInvalidInputError(f"view_format must be one of {allowed}, or None for that of what is stored")


def form_of(view_format: ViewFormat | None, messages: Iterable[Message]) -> Form:
    """The form of a view; without a format, that of the interface which the messages come from."""
    if view_format is not None:
        return FORMS[view_format]
    blocks = calls = False
    for message in messages:
        if message.role is None:
            return FORMS["responses"]
        calls = calls or bool(message.tool_calls) or message.role == "tool"
        if not blocks and isinstance(message.content, tuple):
            blocks = any(part.type in ("tool_use", "tool_result") for part in message.content)
    return FORMS["anthropic"] if blocks and not calls else AS_STORED


def request_of(view: Sequence[Message], view_format: ViewFormat) -> dict[str, Any]:
    """A view as arguments of the endpoint's client, without what it does not know.

    Returns:
        `messages` for chat-completions; `messages`, and `system` where there is any, for Anthropic; `input` for the
        Responses interface.
    """
    bodies = [_body(message, KNOWN[view_format]) for message in view]
    if view_format == "responses":
        return {"input": bodies}
    if view_format == "chat":
        return {"messages": bodies}
    system = [body["content"] for body in bodies if body["role"] == "system"]
    texts: list[dict[str, Any]] = []
    for content in system:
        texts.extend([{"type": "text", "text": content}] if isinstance(content, str) else content)
    request: dict[str, Any] = {"messages": [body for body in bodies if body["role"] != "system"]}
    return {**request, "system": texts} if texts else request


def _body(message: Message, known: frozenset[str]) -> dict[str, Any]:
    body = message.dict()
    if message.role is None:
        return {name: value for name, value in body.items() if name not in ("message_id", GIVEN) and value is not None}
    return {name: value for name, value in body.items() if name in known and (value is not None or name == "content")}
