"""Messages of Pydantic AI as ours, and back as they were given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from jaf_memory_bridges.given import given_of, said, translated
from jaf_memory_core import Message

ENGINE = "pydantic-ai"


def to_messages(messages: Sequence[ModelMessage]) -> list[Message]:
    """Messages that say what Pydantic AI's say, and from which `to_history` makes them again.

    They come back as from Pydantic AI's own `ModelMessagesTypeAdapter`: what its JSON keeps.

    Raises:
        MemoryInvalidInputError: one holds what JSON cannot.
    """
    return [to_message(one) for one in messages]


def to_message(message: ModelMessage, **beside: Any) -> Message:
    """One message; `beside` are further fields of what is kept beside it, and an `id` that becomes the message's."""
    (dumped,) = ModelMessagesTypeAdapter.dump_python([message], mode="json")
    known = {"message_id": beside.pop("id")} if "id" in beside else {}
    role, parts = "assistant" if dumped["kind"] == "response" else "user", [*_parts(dumped["parts"])]
    if not parts and role == "user":
        prompts = [part["content"] for part in dumped["parts"] if part["part_kind"] == "system-prompt"]
        role, parts = "system" if prompts else "user", [{"type": "text", "text": prompt} for prompt in prompts]
    plain = len(parts) == 1 and parts[0]["type"] == "text"
    whole = {**known, "role": role, "content": parts[0]["text"] if plain else parts or None}
    return said(ENGINE, {**beside, "message": dumped}, whole, {**known, "role": role})


def _parts(parts: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What a person said or read, calls, and their results, as Anthropic's blocks: several stand in one message."""
    for part in parts:
        kind, content = part["part_kind"], part.get("content")
        if kind == "text":
            yield {"type": "text", "text": content}
        elif kind == "user-prompt":
            yield from map(_prompt, [content] if isinstance(content, str) else content or ())
        elif kind == "tool-call":
            yield {"type": "tool_use", "id": part["tool_call_id"], "name": part["tool_name"], "input": part["args"]}
        elif kind in ("tool-return", "retry-prompt", "retry-feedback"):
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            if part.get("tool_name") is None:
                yield {"type": "text", "text": text}
            else:
                yield {"type": "tool_result", "tool_use_id": part["tool_call_id"], "content": text}


def _prompt(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.get("kind") == "image-url":
        return {"type": "image_url", "image_url": {"url": part["url"]}}
    if isinstance(part.get("content"), str):
        return {"type": "text", "text": part["content"]}
    return {"type": str(part.get("kind"))}


def to_history(messages: Iterable[Message]) -> list[ModelMessage]:
    """The `message_history` that messages were made of; those of another engine as Pydantic AI would have them."""
    history: list[ModelMessage] = []
    pairs = [(given_of(ENGINE, message), message) for message in messages]
    for own, run in groupby(pairs, lambda pair: pair[0] is not None):
        if own:
            dumped = [given["message"] for given, _ in run if given is not None]
            history.extend(ModelMessagesTypeAdapter.validate_python(dumped))
        else:
            history.extend(_others(translated((message for _, message in run), "chat")))
    return history


def _others(messages: Iterable[Mapping[str, Any]]) -> Iterator[ModelMessage]:
    names: dict[str, str] = {}
    for message in messages:
        role, text = message["role"], _text(message["content"])
        if role == "assistant":
            called = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
            names.update((key, function["name"]) for key, function in called)
            calls = [ToolCallPart(one["name"], one["arguments"], tool_call_id=key) for key, one in called]
            yield ModelResponse([*([TextPart(text)] if text else []), *calls])
        elif role == "tool":
            key = message["tool_call_id"]
            yield ModelRequest([ToolReturnPart(names.get(key, "unknown"), text, tool_call_id=key)])
        else:
            yield ModelRequest([UserPromptPart(text) if role == "user" else SystemPromptPart(text)])


def _text(content: Any) -> str:
    if isinstance(content, str) or not content:
        return content or ""
    return "\n".join(part.get("text") or f"[{part['type']}]" for part in content)
