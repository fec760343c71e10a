"""What goes wrong when somebody else acts between two steps, or the process is killed there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from broken_stores.sound import Filed, Plain, caught_by
from jaf_memory_core import MemoryQuery, forks, rules
from jaf_memory_core.records import Fork, Record, Stamp


@caught_by("test_killed_and_retried")
class HeaderAfterwards(Filed):
    """Messages are committed in one transaction, and what the header says of them in a second."""

    def swap(self, conversation_id: str, expected: Stamp | None, record: Record | None) -> bool:
        standing = self.load().get(conversation_id)
        if record is not None and standing is not None and standing.stamp == expected:
            self.save([*self._others(conversation_id), replace(standing, messages=record.messages)])
            time.sleep(0.005)
        return super().swap(conversation_id, expected, record)

    def _others(self, conversation_id: str) -> list[Record]:
        return [record for record in self.load().values() if record.conversation_id != conversation_id]


@caught_by("test_table_beside_another_process")
class Unlocked(Filed):
    """Of two processes that write at once, one takes back what the other has written."""

    def swap(self, conversation_id: str, expected: Stamp | None, record: Record | None) -> bool:
        records = self.load()
        standing = records.pop(conversation_id, None)
        if (standing and standing.stamp) != expected:
            return False
        time.sleep(0.001)
        self.save([*records.values(), *([record] if record else [])])
        return True


@caught_by("test_deleted_behind_an_iteration")
class ScanEndsWhereItWas(Plain):
    """A scan in steps ends where the last conversation of a step was deleted meanwhile."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        step = [record async for record in super().scan(query)]
        for start in range(0, len(step), 32):
            if start and step[start - 1].conversation_id not in self.records:
                return
            for record in step[start : start + 32]:
                if record.conversation_id in self.records:
                    yield record


@caught_by("test_renewed_is_not_purged")
class PurgesByAStaleIndex(Plain):
    """The index of expiries keeps the entry of a conversation that was told to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, datetime] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        if record.expires_at is not None:
            self.ends[record.conversation_id] = record.expires_at
        return await super().write(record, expected=expected)

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        if scope is not None:
            return await super().purge(limit, scope=scope)
        due = [key for key, end in self.ends.items() if end <= self.now()][:limit]
        for key in due:
            del self.ends[key]
        return sum([self.records.pop(key, None) is not None for key in due])


@caught_by("test_moments_are_not_mixed")
class TwoMoments(Plain):
    """A search takes the headers, and then, a moment later, the messages."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = []
        for header in await super().find(query):
            for _ in range(5):
                await asyncio.sleep(0)
            now_there = self.records.get(header.conversation_id, header)
            found.append(replace(header, messages=now_there.messages))
        return found


@caught_by("test_deletes_at_once")
class BothDeletesCount(Plain):
    """Of two that delete at once both were there in time."""

    async def remove(self, conversation_id: str, *, scope: str | None = None) -> bool:
        record = rules.seen(await self.read(conversation_id), self.now(), scope)
        if record is None:
            return False
        await asyncio.sleep(0)
        self.records.pop(conversation_id, None)
        return True


@caught_by("test_no_fork_outlives_an_erasure")
class ForkOutlivesTheErasure(Plain):
    """A fork looks at its parent once, and then takes its time."""

    async def fork(self, fork: Fork) -> int:
        parent = rules.live(await self.read(fork.conversation_id), self.now())
        child = forks.forked(parent, rules.live(self.records.get(fork.new_id), self.now()), fork, self.now())
        for _ in range(20):
            await asyncio.sleep(0)
        self.records[fork.new_id] = child
        return child.message_count
