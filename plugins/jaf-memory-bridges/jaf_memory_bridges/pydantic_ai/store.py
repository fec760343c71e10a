"""`JafMemoryConversationStore`: Pydantic AI's `ConversationStore` over a provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import ModelMessagesTypeAdapter

from jaf_memory_bridges.given import given_of
from jaf_memory_bridges.providers import checked
from jaf_memory_bridges.pydantic_ai.messages import ENGINE, to_message
from jaf_memory_core import (
    ConversationMemory,
    Failure,
    MemoryConflictError,
    MemoryNotFoundError,
    MemoryProvider,
    MemoryQuery,
    Message,
    Result,
)
from jaf_memory_core.values import thaw

RECORD = f"{ENGINE}:record"
"""Metadata key of what Pydantic AI keeps for a conversation."""

PAGE = 100
"""Entries that are read at once where a history is longer than what is asked for."""

MOST = 10_000
"""Entries of which the store remembers in which conversation they are."""

records: TypeAdapter[ConversationRecord] = TypeAdapter(ConversationRecord)


class JafMemoryConversationStore(ConversationStore):
    """A durable `ConversationStore` of Pydantic AI, over any backend of jaf-memory.

    A record and its new entries are one atomic write, checked by compare-and-swap in the store. The `scope` is the
    conversation's owner: an erasure of that user takes all of it along.

    What Pydantic AI leaves to its stores:

    - A fork *copies* the history that it keeps. So it outlives its parent, and belongs to its own scope only.
    - Deleting a conversation deletes all of its entries at once, those of branches it has left too.
    - An entry is looked for where this store has met it, and in all conversations where it has not: `read_entry` in a
      new process reads until it has found it. Histories are read by pages, backwards, and no further than asked.
    - Newest first in a listing is by the time of the store's last write, of equal ones by Pydantic AI's own.

    Args:
        provider: any provider over a backend, on whichever store.

    Raises:
        MemoryInvalidInputError: this is no async provider of jaf-memory.
        MemoryConfigurationError: the provider lacks what is needed.
    """

    def __init__(self, provider: MemoryProvider) -> None:
        self._provider = checked(provider, None, "find_conversations", "iter_conversations", "get_messages")
        self._places: dict[str, str] = {}

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation, or `None`."""
        return self._record(await self._header(conversation_id))

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The stored records, or those of a scope, newest first."""
        query = MemoryQuery(user_id=scope, metadata={"engine": ENGINE}, limit=limit, include_messages=False)
        found = [self._record(header) for header in await self._provider.find_conversations(query)]
        return sorted((one for one in found if one is not None), key=lambda one: one.updated_at, reverse=True)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and the entries that its history adds, all or nothing."""
        key = record.conversation_id
        header = await self._header(key)
        held = self._record(header)
        foreign = header is not None and RECORD not in header.metadata
        if foreign or (held.revision if held is not None else None) != expected_revision:
            raise ConversationConflict(key)
        root = record.head_id if record.head_id not in {entry.id for entry in new_entries} else new_entries[0].parent_id
        before: list[ConversationEntry] = []
        if root is not None and (held is None or root != held.head_id):
            before = await self._inherited(key, root)
        messages = [_message(entry) for entry in (*before, *new_entries)]
        metadata = labels_of(record)
        version = header.version if header is not None else 0
        # Of a fork all is new, and may be more than an append takes.
        write = self._provider.append_messages if header is not None else self._provider.store_messages
        result = await write(key, messages, metadata, user_id=record.scope, expected_version=version)
        _unwrap(result, key)
        self._note(key, record.head_id, *(message.message_id for message in messages))

    async def _inherited(self, conversation_id: str, root: str) -> list[ConversationEntry]:
        """What a history begins with and the conversation does not hold: entries of the one that it was forked from."""
        try:
            found = await self._provider.get_conversation(conversation_id)
            line = await self.read_history(root)
        except LookupError:
            raise ConversationConflict(conversation_id) from None
        held = {message.message_id for message in found.messages} if found is not None else set()
        return [entry for entry in line if entry.id not in held]

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation with all its entries; nothing of it remains."""
        header = await self._header(conversation_id)
        held = self._record(header)
        if header is None or held is None or held.revision != expected_revision:
            raise ConversationConflict(conversation_id)
        try:
            gone = await self._provider.delete_conversation(conversation_id, expected_version=header.version)
        except MemoryConflictError as error:
            raise ConversationConflict(conversation_id) from error
        if not gone:
            raise ConversationConflict(conversation_id)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry with this identifier; looked for everywhere if this store has not met it."""
        (entry,) = await self.read_history(entry_id, limit=1)
        return entry

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries from the first one up to `head_id`, or only the last `limit` of them."""
        if head_id is None or limit == 0:
            return []
        place = self._places.get(head_id)
        line = await self._line(place, head_id, limit) if place is not None else None
        if line is None:
            place = await self._found(head_id)
            line = await self._line(place, head_id, limit)
        if line is None:
            raise KeyError(head_id)
        self._note(place, *(entry.id for entry in line))
        return line

    async def _line(self, conversation_id: str, head_id: str, limit: int | None) -> list[ConversationEntry] | None:
        """A history backwards, by pages: an entry stands behind its parent, and those of branches between them."""
        line: list[ConversationEntry] = []
        wanted: str | None = head_id
        before, more = None, True
        while wanted is not None and len(line) != limit and more:
            size = PAGE if limit is None else min(PAGE, limit - len(line))
            try:
                page = await self._provider.get_messages(conversation_id, before, size)
            except MemoryNotFoundError:
                return None
            for message in reversed(page):
                if message.message_id == wanted and len(line) != limit:
                    line.append(_entry(message))
                    wanted = line[-1].parent_id
            before, more = page.before, page.before is not None
        return line[::-1] if wanted is None or len(line) == limit else None

    async def _found(self, entry_id: str) -> str:
        async for conversation in self._provider.iter_conversations(MemoryQuery(metadata={"engine": ENGINE})):
            if any(message.message_id == entry_id for message in conversation.messages):
                return conversation.conversation_id
        raise KeyError(entry_id)

    async def _header(self, conversation_id: str) -> ConversationMemory | None:
        query = MemoryQuery(conversation_id=conversation_id, include_messages=False)
        return next(iter(await self._provider.find_conversations(query)), None)

    def _record(self, header: ConversationMemory | None) -> ConversationRecord | None:
        dumped = header.metadata.get(RECORD) if header is not None else None
        if header is None or dumped is None:
            return None
        record = records.validate_python(thaw(dumped))
        self._note(header.conversation_id, record.head_id, *record.branches)
        return record

    def _note(self, conversation_id: str | None, *entries: str | None) -> None:
        if len(self._places) > MOST:
            self._places.clear()
        self._places.update((entry, conversation_id) for entry in entries if entry is not None and conversation_id)


def labels_of(record: ConversationRecord) -> dict[str, Any]:
    """A record as the metadata of its conversation."""
    return {"engine": ENGINE, RECORD: records.dump_python(record, mode="json")}


def _unwrap(result: Result, conversation_id: str) -> None:
    if isinstance(result, Failure) and isinstance(result.error, MemoryConflictError | MemoryNotFoundError):
        raise ConversationConflict(conversation_id) from result.error
    result.unwrap()


def _message(entry: ConversationEntry) -> Message:
    return to_message(entry.message, id=entry.id, parent_id=entry.parent_id, kind=entry.kind)


def _entry(message: Message) -> ConversationEntry:
    given: dict[str, Any] = given_of(ENGINE, message) or {}
    (held,) = ModelMessagesTypeAdapter.validate_python([given["message"]])
    return ConversationEntry(id=message.message_id, parent_id=given["parent_id"], message=held, kind=given["kind"])
