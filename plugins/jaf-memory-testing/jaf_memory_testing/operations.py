"""One call of each method, for what holds of them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from jaf_memory_core.conversations import ConversationMemory, Lease, MemoryQuery, Summary
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.samples import at, said, talk


async def _iterated(provider: BackendProvider) -> list[ConversationMemory]:
    return [conversation async for conversation in provider.iter_conversations()]


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
    "find_conversations": lambda provider: provider.find_conversations(MemoryQuery()),
    "iter_conversations": _iterated,
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
}
"""Methods that raise `MemoryNotFoundError` for a missing conversation."""
