"""Closing, loops, cancelling, processes, and classes with just six methods."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Filed, Plain, Provider, Six, caught_by
from jaf_memory_core import (
    ConversationMemory,
    MemoryQuery,
    MemoryStorageError,
    Message,
    Result,
    WriteResult,
    documents,
    rules,
)
from jaf_memory_core.records import Amend, Record, Stamp, Truncate, Write
from jaf_memory_core.values import FrozenDict


@caught_by("test_closed[get_conversation]")
class ClosedStillWorks(Provider):
    """Goes on after `close`."""

    async def close(self) -> None:
        return


@caught_by("test_close_twice")
class ClosesOnce(Provider):
    """Fails when it is closed a second time."""

    async def close(self) -> None:
        assert not self._guard._closed, "closed already"
        await super().close()


@caught_by("test_closing_a_view")
class ViewsClose(Provider):
    """Closes with a view of it."""

    async def close(self) -> None:
        await self._guard.close()


@caught_by("test_one_loop_after_another")
class BoundToALoop(Plain):
    """Has a connection that belongs to its first loop, and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, conversation_id: str) -> Record | None:
        self._loop = self._loop or asyncio.get_running_loop()
        assert self._loop is asyncio.get_running_loop(), "attached to a different loop"
        return await super().read(conversation_id)


@caught_by("test_cancelled_write[append_messages]")
class SwallowsCancelling(Plain):
    """Ends a cancelled append as if nothing had happened."""

    async def append(self, write: Write) -> WriteResult:
        try:
            return await super().append(write)
        except asyncio.CancelledError:
            return WriteResult(0, 0, 0)


@caught_by("test_cancelled_write[append_messages]")
class HalfWhenCancelled(Plain):
    """Writes messages first, and metadata afterwards."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(replace(write, metadata=FrozenDict()))
        await asyncio.sleep(0)
        record = self.records[write.conversation_id]
        metadata = rules.merged(record.metadata, write.metadata)
        self.records[write.conversation_id] = replace(record, metadata=metadata)
        return answer


@caught_by("test_nothing_of_content_is_told")
class LogsContent(Plain):
    """Logs what it stores."""

    async def store(self, write: Write) -> WriteResult:
        logging.getLogger("broken").debug("storing %s", write.bodies)
        return await super().store(write)


@caught_by("test_import_makes")
class ImportedNow(Provider):
    """Dates what is imported from now."""

    async def import_conversation(self, conversation: ConversationMemory) -> Result:
        return await super().import_conversation(replace(conversation, created_at=None))


@caught_by("test_same_writes")
class FasterAndOther(Plain):
    """Overrides `amend` for speed, and forgets the metadata of what has no owner."""

    async def amend(self, amend: Amend) -> int:
        record = self.records.get(amend.conversation_id)
        if record and record.user_id is None and amend.user_id is None:
            amend = replace(amend, metadata=FrozenDict())
        return await super().amend(amend)


@caught_by("test_random_histories")
class WrongInARareCase(Plain):
    """Cuts one message too few from a conversation that has been written to often."""

    async def truncate(self, truncate: Truncate) -> int:
        record = self.records.get(truncate.conversation_id)
        if record is None or record.version < 4:
            return await super().truncate(truncate)
        names = [message.message_id for message in record.messages]
        if truncate.message_id not in names[:-1]:
            return await super().truncate(truncate)
        return await super().truncate(replace(truncate, message_id=names[names.index(truncate.message_id) + 1]))


@caught_by("test_appends_of_many_processes")
class UnlockedBetweenProcesses(Filed):
    """Looks, and writes whatever another process has written meanwhile."""

    def swap(self, conversation_id: str, expected: Stamp | None, record: Record | None) -> bool:
        records = self.load()
        standing = records.pop(conversation_id, None)
        if (standing and standing.stamp) != expected:
            return False
        time.sleep(0.005)  # the others look as well meanwhile, on one processor, too
        fresh = self.file.with_name(f"{os.getpid()}.fresh")
        fresh.write_bytes(b"\n".join(map(documents.encode_record, [*records.values(), *([record] if record else [])])))
        fresh.replace(self.file)
        return True


@caught_by("test_opened_again")
class ForgetsAtClose(Plain):
    """Loses everything with the provider."""

    async def close(self) -> None:
        self.records.clear()


@caught_by("test_retry_adds_nothing")
class SixThatDouble(Six):
    """Six methods, of which `append_messages` adds what it holds already."""

    async def append_messages(
        self, conversation_id: str, messages: list[Message], metadata: dict[str, Any] | None = None
    ) -> Result:
        fresh = [
            replace(message, message_id=message.message_id + "'" * len(self.kept[conversation_id].messages))
            for message in messages
        ]
        return await super().append_messages(conversation_id, fresh, metadata)


@caught_by("test_recent_of_missing")
class SixThatGiveNothing(Six):
    """Six methods, of which `get_recent_messages` gives nothing where it should say that nothing is there."""

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        return await super().get_recent_messages(conversation_id, limit) if conversation_id in self.kept else []


@caught_by("test_recent_zero")
class SixThatGiveAll(Six):
    """Six methods, of which `get_recent_messages` gives all for `limit=0`."""

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        return list(self.kept[conversation_id].messages[-limit:])


@caught_by("test_ends_in_time[append_messages]")
class HoldsOn(Plain):
    """Does not let itself be cancelled while it waits for an answer."""

    async def append(self, write: Write) -> WriteResult:
        try:
            return await super().append(write)
        except asyncio.CancelledError:
            for _ in range(50):  # so many steps, each as late as the machine is: the check takes off what is late
                await asyncio.sleep(0.02)
            raise


@caught_by("test_scans_end_in_time")
class ScansAgain(Plain):
    """Begins a scan that was ended at its deadline once more."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        try:
            found = [one async for one in super().scan(query)]
        except asyncio.CancelledError:
            # Nothing would end it a second time, and the check would only tell that something hangs.
            found = []
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    found = [one async for one in super().scan(query)]
        for record in found:
            yield record


@caught_by("test_away")
class AwayIsAnError(Plain):
    """Takes a store that cannot be reached for one that answered."""

    async def read(self, conversation_id: str) -> Record | None:
        if self.away:
            raise MemoryStorageError("the store failed", operation="read")
        return await super().read(conversation_id)


@caught_by("test_recovers")
class NeverRecovers(Plain):
    """Stays away once it was."""

    def __init__(self) -> None:
        super().__init__()
        self._was_away = False

    async def reach(self) -> None:
        self._was_away = self.away = self.away or self._was_away
        await super().reach()


@caught_by("test_reads_store_nothing")
class ReadsLeaveTraces(Plain):
    """Notes who read what."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, int] = {}

    async def read(self, conversation_id: str) -> Record | None:
        self._seen[conversation_id] = self._seen.get(conversation_id, 0) + 1
        return await super().read(conversation_id)
