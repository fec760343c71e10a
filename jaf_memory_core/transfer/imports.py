"""Putting conversations into a provider, many at once where it offers that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.messages import Message
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_core.rules import other_content
from jaf_memory_core.transfer.batches import MOST
from jaf_memory_core.transfer.reports import Imported


def at_once(provider: MemoryProvider) -> int:
    """How many conversations it takes together."""
    return MOST if callable(getattr(provider, "import_conversations", None)) else 1


async def import_batch(provider: MemoryProvider, batch: Sequence[ConversationMemory], report: Imported) -> None:
    """Import conversations, and note in the report what became of each."""
    now = datetime.now(UTC)
    live = [one for one in batch if one.expires_at is None or one.expires_at > now]
    report.expired += len(batch) - len(live)
    for conversation, result in zip(live, await _results(provider, live, report), strict=True):
        note(report, conversation, result)


async def _results(
    provider: MemoryProvider, conversations: Sequence[ConversationMemory], report: Imported
) -> Sequence[Result]:
    together: Any = getattr(provider, "import_conversations", None)
    if callable(together):
        results: Sequence[Result] = await together(conversations)
        return results
    return [await _import(provider, conversation, report) for conversation in conversations]


async def import_one(provider: MemoryProvider, conversation: ConversationMemory, report: Imported) -> None:
    """Import a conversation, and note in the report what became of it."""
    note(report, conversation, await _import(provider, conversation, report))


async def _import(provider: MemoryProvider, conversation: ConversationMemory, report: Imported) -> Result:
    importing = getattr(provider, "import_conversation", None)
    if importing is None:
        report.times_kept = False
        importing = partial(_import_by_six, provider)
    result: Result = await importing(conversation)
    return result


def note(report: Imported, conversation: ConversationMemory, result: Result) -> int:
    """Count what became of a conversation; how many messages the destination's cap left out."""
    if isinstance(result, Failure):
        report.refused.add(conversation.conversation_id, str(result.error))
        return 0
    given, done = len(conversation.messages), result.data
    trimmed = max(0, given - done.message_count)
    report.conversations += 1
    report.messages_added += done.added
    report.messages_trimmed += trimmed
    report.messages_held += max(0, given - done.added - trimmed)
    return trimmed


async def _import_by_six(provider: MemoryProvider, conversation: ConversationMemory) -> Result:
    """Import with the six documented methods: what stands there is read first, so that nothing is doubled."""
    key = conversation.conversation_id
    standing = await provider.get_conversation(key)
    held = {message.message_id: message for message in (standing.messages if standing is not None else ())}
    fresh = [message for message in conversation.messages if message.message_id not in held]
    for message in conversation.messages:
        if message.message_id in held and not same(held[message.message_id], message):
            return Failure(other_content(key, message.message_id))
    metadata = dict(conversation.metadata)
    if conversation.user_id is not None:
        metadata["user_id"] = conversation.user_id
    result: Any = None
    if standing is None:
        result = await provider.store_messages(key, fresh, metadata)
    elif fresh:
        result = await provider.append_messages(key, fresh, metadata)
    if isinstance(result, Failure):
        return result
    return Success(WriteResult(version=0, message_count=len(held) + len(fresh), added=len(fresh)))


def same(one: Message, other: Message) -> bool:
    """Whether two messages are equal in every value."""
    return codec.same_body(codec.encode(one), codec.encode(other))
