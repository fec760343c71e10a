"""Messages, values and records that checks store, and one call of each method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jaf_memory_core.conversations import ConversationMemory, Lease, MemoryQuery, Summary
from jaf_memory_core.hits import MessageSearch
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
    active: float | None = None,
    messages: Sequence[Message] = (),
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """A record that was created, updated and active at those seconds."""
    if active is not None:
        fields["active_at"] = at(active)
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


async def _iterated(provider: BackendProvider) -> list[ConversationMemory]:
    return [conversation async for conversation in provider.iter_conversations()]


async def _users(provider: BackendProvider) -> list[str]:
    return [user async for user in provider.iter_users()]


OPERATIONS: dict[str, Callable[[BackendProvider], Awaitable[Any]]] = {
    "open": lambda provider: provider.open(),
    "store_messages": lambda provider: provider.store_messages("c", talk(1)),
    "append_messages": lambda provider: provider.append_messages("c", talk(1)),
    "import_conversation": lambda provider: provider.import_conversation(ConversationMemory("c")),
    "import_conversations": lambda provider: provider.import_conversations([ConversationMemory("c")]),
    "get_conversation": lambda provider: provider.get_conversation("c"),
    "get_conversation_until_message": lambda provider: provider.get_conversation_until_message("c", "m0"),
    "get_recent_messages": lambda provider: provider.get_recent_messages("c"),
    "get_messages": lambda provider: provider.get_messages("c"),
    "get_last_messages": lambda provider: provider.get_last_messages(["c"]),
    "find_conversations": lambda provider: provider.find_conversations(MemoryQuery()),
    "iter_conversations": _iterated,
    "search_messages": lambda provider: provider.search_messages(MessageSearch("m")),
    "iter_users": _users,
    "get_condensed_conversation": lambda provider: provider.get_condensed_conversation("c"),
    "get_stats": lambda provider: provider.get_stats(),
    "update_metadata": lambda provider: provider.update_metadata("c", {"a": 1}),
    "set_expiry": lambda provider: provider.set_expiry("c", 60),
    "fork_conversation": lambda provider: provider.fork_conversation("c", "fork"),
    "revise_messages": lambda provider: provider.revise_messages("c", {"m0": said("x", message_id="m0")}),
    "mark_regeneration_point": lambda provider: provider.mark_regeneration_point("c", "m0"),
    "acquire_lease": lambda provider: provider.acquire_lease("c", 60),
    "renew_lease": lambda provider: provider.renew_lease(Lease("c", "token", 1, at(0)), 60),
    "release_lease": lambda provider: provider.release_lease(Lease("c", "token", 1, at(0))),
    "store_summary": lambda provider: provider.store_summary("c", Summary("x", "m0"), "incarnation"),
    "truncate_conversation_after": lambda provider: provider.truncate_conversation_after("c", "m0"),
    "delete_messages": lambda provider: provider.delete_messages("c", ["m0"]),
    "delete_conversation": lambda provider: provider.delete_conversation("c"),
    "clear_user_conversations": lambda provider: provider.clear_user_conversations("u"),
    "purge_expired": lambda provider: provider.purge_expired(),
}
"""One call of each method that asks the store."""

RAISING: dict[str, Callable[[BackendProvider, str], Awaitable[Any]]] = {
    "get_recent_messages": lambda view, key: view.get_recent_messages(key),
    "get_messages": lambda view, key: view.get_messages(key),
    "update_metadata": lambda view, key: view.update_metadata(key, {"x": 1}),
    "set_expiry": lambda view, key: view.set_expiry(key, 60),
    "fork_conversation": lambda view, key: view.fork_conversation(key, "fork"),
    "revise_messages": lambda view, key: view.revise_messages(key, {"m0": said("x", message_id="m0")}),
    "mark_regeneration_point": lambda view, key: view.mark_regeneration_point(key, "m0"),
    "truncate_conversation_after": lambda view, key: view.truncate_conversation_after(key, "m0"),
    "delete_messages": lambda view, key: view.delete_messages(key, ["m0"]),
}
"""Methods that raise `MemoryNotFoundError` for a missing conversation."""
