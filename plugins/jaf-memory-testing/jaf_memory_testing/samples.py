"""Messages, values and records that checks store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jaf_memory_core.messages import Message, Role
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Record, new_incarnation
from jaf_memory_core.values import freeze


def said(text: str, role: Role = "user", **fields: Any) -> Message:
    """One message."""
    return Message(role=role, content=text, **fields)


def talk(count: int, name: str = "m", start: int = 0) -> list[Message]:
    """Messages that alternate between two roles, with the ids `m0`, `m1` and so on."""
    roles: tuple[Role, Role] = ("user", "assistant")
    return [said(f"{name} {n}", roles[n % 2], message_id=f"{name}{n}") for n in range(start, start + count)]


def ids(messages: Sequence[Message]) -> list[str]:
    """Their ids, in order."""
    return [message.message_id for message in messages]


def nested(depth: int) -> Any:
    """A JSON value of so many lists within each other, 1 for `[]`."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def rich() -> list[Message]:
    """A conversation that uses every field of a message."""
    return [
        Message(role="system", content="Be brief.", message_id="rich-0"),
        Message(role="developer", content="Answer in verse.", name="dev", message_id="rich-1"),
        Message(
            role="user",
            content=[
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            ],
            attachments=[
                {"kind": "document", "mime_type": "text/plain", "name": "a.txt", "data": "YQ==", "format": "txt"}
            ],
            message_id="rich-2",
        ),
        Message(
            role="assistant",
            content=None,
            tool_calls=[
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at":  "it" }', "strict": True},
                    "index": 0,
                }
            ],
            refusal=None,
            message_id="rich-3",
        ),
        Message(role="tool", content="a cat", tool_call_id="call-1", message_id="rich-4"),
        Message(role="function", content="", name="look", message_id="rich-5"),
        Message(role="assistant", content="A cat, so flat.", usage={"tokens": [5, 7.0]}, message_id="rich-6"),
    ]


START = datetime(2024, 1, 15, 10, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A moment, so many seconds after a fixed one."""
    return START + timedelta(seconds=seconds)


FAR = at(10**9)
"""A moment that no check sees."""


def kept(
    conversation_id: str,
    *,
    created: float = 0,
    updated: float | None = None,
    messages: Sequence[Message] = (),
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """A record that was created and updated at those seconds."""
    return Record(
        conversation_id=conversation_id,
        incarnation=new_incarnation(),
        version=fields.pop("version", 1),
        created_at=at(created),
        updated_at=at(created if updated is None else updated),
        messages=tuple(messages),
        message_count=len(messages),
        metadata=freeze(metadata or {}),
        **fields,
    )


async def put(provider: BackendProvider, *records: Record) -> None:
    """Write the records where nothing stands yet."""
    await provider.open()
    for record in records:
        assert await provider.backend.write(record, expected=None) is True
