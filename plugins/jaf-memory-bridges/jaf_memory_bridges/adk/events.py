"""Events of Google ADK as messages, and back as they were given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.adk.events import Event

from jaf_memory_bridges.given import given_of, said
from jaf_memory_core import Message

ENGINE = "adk"


def to_message(event: Event) -> Message:
    """A message that says what an event says, under the event's id, and from which `to_event` makes it again.

    Calls and results stand in it as blocks, because one event may hold several. An event without content, which changes
    state only, says nothing to a model.
    """
    fields: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    parts = [*_parts(event.id, (fields.get("content") or {}).get("parts") or ())]
    if not parts:
        role = "system"  # which a view leaves out where it is empty
    else:
        answers = any(part["type"] == "tool_result" for part in parts)
        role = "user" if event.author == "user" or answers else "assistant"
    plain = len(parts) == 1 and parts[0]["type"] == "text"
    known = {"role": role, "message_id": event.id}
    content = parts[0]["text"] if plain else parts or None
    return said(ENGINE, fields, {**known, "content": content}, known)


def _parts(event: str, parts: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(parts):
        call, answer = part.get("function_call"), part.get("function_response")
        if call is not None:
            key = call.get("id") or f"{event}:{number}"
            yield {"type": "tool_use", "id": key, "name": call.get("name") or "", "input": call.get("args") or {}}
        elif answer is not None:
            text = json.dumps(answer.get("response"), ensure_ascii=False)
            yield {"type": "tool_result", "tool_use_id": answer.get("id") or "", "content": text}
        elif part.get("text") is not None:
            if not part.get("thought"):
                yield {"type": "text", "text": part["text"]}
        else:
            yield from ({"type": name} for name in part if name not in ("thought", "thought_signature"))


def to_event(message: Message) -> Event | None:
    """The event that a message was made of; `None` of another engine's message."""
    given = given_of(ENGINE, message)
    return None if given is None else Event.model_validate(given)


def since_of(events: Sequence[Event], moment: float) -> list[Event]:
    """The newest events, from behind the last that is older than a moment."""
    older = [place for place, event in enumerate(events) if event.timestamp < moment]
    return [*events[older[-1] + 1 if older else 0 :]]


def oldest_since(messages: Sequence[Message], moment: float) -> bool:
    """Whether none of the messages is an event from before a moment, so that there may be others before them."""
    return all((given_of(ENGINE, message) or {}).get("timestamp", moment) >= moment for message in messages)
