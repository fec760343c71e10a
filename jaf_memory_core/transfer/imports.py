"""Conversations into a provider, in batches that travel together where it takes many at once.

A batch is large enough to be quick, and small enough for bounded memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.messages import Message
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_core.rules import other_content
from jaf_memory_core.transfer.reports import Imported

Step = Callable[[ConversationMemory], None]
"""Called with each conversation, to show progress."""

MOST = 1_024
"""Conversations in one batch."""

BYTES = 8 << 20
"""Bytes of messages, about, in one batch, unless one conversation has more."""

FRAME = 100
"""Bytes that a message is larger than its text, about."""


async def import_conversations(
    provider: MemoryProvider,
    conversations: Iterable[ConversationMemory] | AsyncIterable[ConversationMemory],
    *,
    report: Imported | None = None,
    on_step: Step | None = None,
) -> Imported:
    """Put conversations into a provider. Messages that it holds are not added again.

    Args:
        provider: any provider. Without `import_conversation` its six documented methods have to do, and times and
            expiry are not kept. With `import_conversations`, up to 1,024 conversations or 8 MB of messages
            travel together.
        conversations: from `read_lines` or a reader, for two; a source that waits is an async iterable.
        report: filled as the work goes on, batch by batch, so that it tells how far it came even if an error ends it.
        on_step: called with each conversation, once its batch is done.

    Returns:
        the report; what the provider refused stands in it, and is not raised.

    Raises:
        LineError: from `read_lines`; run the import again once the line is mended.
        MemoryConnectionError: the store could not be reached; run the import again later.
        MemoryStorageError: the store failed, since it is full, for one; run the import again once that is mended.
    """
    report = report if report is not None else Imported()
    async with (
        aclosing(one_by_one(conversations)) as source,
        aclosing(in_batches(source, at_once(provider))) as batches,
    ):
        async for batch in batches:
            await import_batch(provider, batch, report)
            tell(on_step, batch)
    return report


def at_once(provider: MemoryProvider) -> int:
    """How many conversations it takes together."""
    return MOST if callable(getattr(provider, "import_conversations", None)) else 1


class Batch:
    """Conversations that are collected."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.conversations: list[ConversationMemory] = []
        self._room = BYTES

    def add(self, conversation: ConversationMemory) -> bool:
        """Take one more; whether that is enough."""
        self.conversations.append(conversation)
        self._room -= _weight(conversation)
        return self._room <= 0 or len(self.conversations) >= self._most


def _weight(conversation: ConversationMemory) -> int:
    weight = 0
    for message in conversation.messages:
        text = message.content
        if type(text) is str and not (message.further or message.tool_calls or message.attachments):
            # A guess will do here; to encode every message twice would cost more than it is worth.
            weight += FRAME + len(text)
        else:
            weight += len(codec.encode(message))
    return weight


async def in_batches(
    conversations: AsyncIterator[ConversationMemory], most: int
) -> AsyncGenerator[list[ConversationMemory], None]:
    """Collect conversations; an error of their source is raised once those before it were passed on."""
    batch = Batch(most)
    problem: Exception | None = None
    try:
        async for conversation in conversations:
            if batch.add(conversation):
                yield batch.conversations
                batch = Batch(most)
    except Exception as error:  # noqa: BLE001  (it is raised as it is, a little later)
        problem = error
    if batch.conversations:
        yield batch.conversations
    if problem is not None:
        raise problem


async def one_by_one(
    conversations: Iterable[ConversationMemory] | AsyncIterable[ConversationMemory],
) -> AsyncGenerator[ConversationMemory, None]:
    """Any source as one that may wait; it is closed where nobody reads on."""
    source: Any = conversations
    try:
        if isinstance(conversations, AsyncIterable):
            async for conversation in conversations:
                yield conversation
        else:
            for conversation in conversations:
                yield conversation
    finally:
        if callable(getattr(source, "aclose", None)):
            await source.aclose()
        elif callable(getattr(source, "close", None)):
            source.close()


def tell(on_step: Step | None, batch: Sequence[ConversationMemory]) -> None:
    """Call with each conversation of a batch that is done."""
    if on_step:
        for conversation in batch:
            on_step(conversation)


async def import_batch(provider: MemoryProvider, batch: Sequence[ConversationMemory], report: Imported) -> None:
    """Import conversations, and note in the report what became of each."""
    now = datetime.now(UTC)
    # What has expired would be as absent there as it is here (docs/decisions/0003).
    live = [one for one in batch if one.expires_at is None or one.expires_at > now]
    report.expired += len(batch) - len(live)
    results = await _results(provider, live, report)
    # A batch of one may have failed for that one alone.
    end = failed_from(results) if at_once(provider) > 1 else len(results)
    for conversation, result in zip(live[:end], results[:end], strict=True):
        note(report, conversation, result)
    if end < len(results):
        results[end].unwrap()


def failed_from(results: Sequence[Result]) -> int:
    """From where on the store failed for all of a batch, as one that is full does: for the next it would fail, too."""
    end = len(results)
    while end and _tells_of_the_store(results[end - 1]):
        end -= 1
    return end


def _tells_of_the_store(result: Result) -> bool:
    error = result.error if isinstance(result, Failure) else None
    # One that names a conversation is about that one alone.
    return isinstance(error, MemoryStorageError) and error.conversation_id is None


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
    # Between the look and the write somebody else may come: the six methods promise no more.
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
