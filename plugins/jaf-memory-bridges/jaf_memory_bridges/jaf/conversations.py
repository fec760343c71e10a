"""Conversations of ours as jaf-py's, with its metadata, and its queries as ours."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from jaf.memory import types as jaf

from jaf_memory_bridges.jaf.history import History
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, MemoryQuery
from jaf_memory_core.values import thaw


def to_jaf_conversation(found: ConversationMemory, origin: str, threshold: int | None = None, unread: int = 0) -> Any:
    """A conversation as jaf-py's, the last so many of whose messages are a valid view.

    Args:
        found: one of ours.
        origin: the store that it is in.
        threshold: number of messages above which views leave out.
        unread: how many messages are not there, between the first and the newest.
    """
    metadata: dict[str, Any] = thaw(found.metadata) | _derived(found)
    conversation = jaf.ConversationMemory(found.conversation_id, found.user_id, [], metadata)
    # jaf-py would make a plain tuple of it.
    object.__setattr__(conversation, "messages", History.of(found, metadata, origin, threshold, unread))
    return conversation


def to_core_query(query: Any) -> MemoryQuery:
    """What a query says to us.

    Raises:
        MemoryInvalidInputError: it is no query, or says what cannot be asked here.
    """
    if isinstance(query, MemoryQuery):
        return query
    if not isinstance(query, jaf.MemoryQuery):
        raise MemoryInvalidInputError(f"a MemoryQuery is needed, not a {type(query).__name__}")
    names = {field.name for field in fields(jaf.MemoryQuery)}
    given = {name: value for name, value in vars(query).items() if value is not None}
    unknown = sorted(given.keys() - names)
    if unknown:
        raise MemoryInvalidInputError(
            f"the query's {', '.join(unknown)} would not be looked at; jaf_memory_core.MemoryQuery can also ask for "
            "metadata, active_since and active_until"
        )
    asked: dict[str, Any] = {name: str(value) if name.endswith("_id") else value for name, value in given.items()}
    return MemoryQuery(**asked)


def _derived(found: ConversationMemory) -> dict[str, Any]:
    """What jaf-py keeps in the metadata, in its form, which is local time without a zone."""
    active = getattr(found, "active_at", None) or found.updated_at
    moments = {"created_at": found.created_at, "updated_at": found.updated_at, "last_activity": active}
    times = {name: moment.astimezone().replace(tzinfo=None) for name, moment in moments.items() if moment is not None}
    count = found.message_count or len(found.messages)
    return {**times, "total_messages": count}
