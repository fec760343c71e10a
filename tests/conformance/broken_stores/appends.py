"""Appends that lose, double, tear or mistake messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import (
    MemoryConflictError,
    MemoryNotFoundError,
    Message,
    WriteResult,
    rules,
)
from jaf_memory_core.records import Record, Stamp, Write


def _standing(record: Record | None, write: Write) -> Record:
    if record is None:
        raise MemoryNotFoundError(write.conversation_id)
    return record


def _with(record: Record, messages: Sequence[Message], now: datetime, **fields: Any) -> tuple[Record, WriteResult]:
    after = replace(rules.touched(record, now), messages=tuple(messages), message_count=len(messages), **fields)
    return after, WriteResult(after.version, len(messages), len(messages) - len(record.messages))


@caught_by("test_concurrent_appends_all_stay")
class LostUpdate(Plain):
    """Reads, changes, and writes whatever came between."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:  # that is the fault
        await asyncio.sleep(0)
        self.records[record.conversation_id] = record
        return True


@caught_by("test_retry_adds_nothing")
class DuplicateOnRetry(Plain):
    """Adds what it holds already."""

    async def append(self, write: Write) -> WriteResult:
        return await self.by(write, self._add)

    def _add(self, record: Record | None, write: Write, now: datetime) -> tuple[Record, WriteResult]:
        record = _standing(record, write)
        return _with(record, record.messages + write.messages, now)


@caught_by("test_partial_retry_adds_the_rest")
class PartialRetryIsAll(Plain):
    """Takes a batch for held when its first message is."""

    async def append(self, write: Write) -> WriteResult:
        record = await self.read(write.conversation_id)
        held = {message.message_id for message in record.messages} if record else set()
        if record and write.messages and write.messages[0].message_id in held:
            return WriteResult(record.version, record.message_count, 0)
        return await super().append(write)


@caught_by("test_batches_are_contiguous")
class TornBatch(Plain):
    """Appends message by message."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(replace(write, messages=write.messages[:1], bodies=write.bodies[:1]))
        for message, body in list(zip(write.messages, write.bodies, strict=True))[1:]:
            await asyncio.sleep(0.005)  # longer than others who lost against it wait before they try again
            answer = await super().append(replace(write, messages=(message,), bodies=(body,)))
        return answer


@caught_by("test_conflict_applies_nothing")
class HalfAConflict(Plain):
    """Adds what stands before the conflict."""

    async def append(self, write: Write) -> WriteResult:
        try:
            return await super().append(write)
        except MemoryConflictError:
            await super().append(replace(write, messages=write.messages[:2], bodies=write.bodies[:2]))
            raise


@caught_by("test_other_content_is_a_conflict")
class ConflictPassedOver(Plain):
    """Takes any message under a held id for the same."""

    async def append(self, write: Write) -> WriteResult:
        record = await self.read(write.conversation_id)
        held = {message.message_id for message in record.messages} if record else set()
        fresh = [index for index, message in enumerate(write.messages) if message.message_id not in held]
        messages = tuple(write.messages[index] for index in fresh)
        return await super().append(
            replace(write, messages=messages, bodies=tuple(write.bodies[index] for index in fresh))
        )


@caught_by("test_same_ids_in_two_conversations")
class GlobalMessageIds(Plain):
    """Holds message ids unique over all conversations."""

    async def append(self, write: Write) -> WriteResult:
        others = [record for key, record in self.records.items() if key != write.conversation_id]
        taken = {message.message_id for record in others for message in record.messages}
        if taken & {message.message_id for message in write.messages}:
            raise MemoryConflictError("taken")
        return await super().append(write)


@caught_by("test_append_to_missing")
class CreatesWithoutBeingAsked(Plain):
    """Makes a conversation where an append finds none."""

    async def append(self, write: Write) -> WriteResult:
        return await super().append(replace(write, create=True))


@caught_by("test_write_result")
class CountsTheBatch(Plain):
    """Tells the size of the batch as what was added."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(write)
        return WriteResult(answer.version, answer.message_count, len(write.messages))
