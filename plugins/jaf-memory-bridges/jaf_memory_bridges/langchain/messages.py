"""Messages of LangChain as ours, and back as they were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages, message_to_dict, messages_from_dict

from jaf_memory_bridges.given import ROLES, given_of, said, translated
from jaf_memory_core import Message

ENGINE = "langchain"

SPEAKERS = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "function"}
"""LangChain's type → our role."""


def to_message(message: BaseMessage) -> Message:
    """A message that says what LangChain's says, and from which `to_langchain` makes it again.

    What LangChain's own stores keep of a message stays beside ours, without the content where that is the very same.

    Raises:
        MemoryInvalidInputError: it holds what JSON cannot.
    """
    given = message_to_dict(message)
    data = given["data"]
    fields = _fields(message, given["type"])
    known = {} if message.id is None else {"message_id": message.id}
    least = {**known, "role": fields["role"], "content": str(message.text)}
    without = {**given, "data": {name: value for name, value in data.items() if name != "content"}}
    whole = said(ENGINE, without, {**known, **fields, "content": data["content"]}, least)
    if (_given(whole) or {}).get("data") == data:
        return whole
    return said(ENGINE, given, {**known, **fields, "content": str(message.text)}, least)


def _fields(message: BaseMessage, kind: str) -> dict[str, Any]:
    """Who speaks, what is called, and which call is answered."""
    kind = kind.removesuffix("MessageChunk").lower()
    role = getattr(message, "role", None) if kind == "chat" else SPEAKERS.get(kind)
    fields: dict[str, Any] = {"role": role if role in ROLES else "user"}
    if message.name:
        fields["name"] = message.name
    if fields["role"] == "tool":
        fields["tool_call_id"] = getattr(message, "tool_call_id", None)
    # What Anthropic's blocks call already, is not called a second time.
    parts = [part for part in message.content if isinstance(part, Mapping)]
    blocks = {part.get("id") for part in parts if part.get("type") == "tool_use"}
    calls = [call for call in getattr(message, "tool_calls", ()) if call["id"] not in blocks]
    if calls:
        fields["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}} for call in calls
        ]
    return fields


def _given(message: Message) -> dict[str, Any] | None:
    """What LangChain's own stores keep of a message, whole; `None` of another engine's."""
    given = given_of(ENGINE, message)
    data = given.get("data") if given is not None else None
    if given is None or not isinstance(data, dict):
        return None
    if "content" not in data:
        content = message.content
        data["content"] = content if content is None or isinstance(content, str) else message.dict()["content"]
    return given


def to_langchain(messages: Iterable[Message]) -> list[BaseMessage]:
    """The messages of LangChain that ours were made of; those of another engine as LangChain would have them."""
    made: list[BaseMessage] = []
    pairs = [(_given(message), message) for message in messages]
    for own, run in groupby(pairs, lambda pair: pair[0] is not None):
        if own:
            made.extend(messages_from_dict([given for given, _ in run if given is not None]))
        else:
            made.extend(convert_to_messages(translated((message for _, message in run), "chat")))
    return made
