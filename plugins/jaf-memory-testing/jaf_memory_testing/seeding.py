"""Conversations with times of the check's own choice, written past the provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Record, new_incarnation
from jaf_memory_core.values import freeze

START = datetime(2024, 1, 15, 10, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A moment, so many seconds after a fixed one."""
    return START + timedelta(seconds=seconds)


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
