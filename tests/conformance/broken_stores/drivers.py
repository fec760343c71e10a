"""What only an author writes, done wrong: errors of the driver, closing, costs; and what a dump still holds."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from broken_stores.erasure import Remembering
from broken_stores.sound import Filed, Paged, Plain, caught_by
from jaf_memory_core import MemoryError, MemoryQuery, MemoryStorageError, WriteResult, codec, documents, pages, rules
from jaf_memory_core.records import Damaged, Page, Record, Revise, Stamp, Tail, Write


@caught_by("test_driver_errors_are_named")
class NamesNoErrors(Plain):
    """`driver_errors` names nothing."""

    driver_errors = ()


@caught_by("test_driver_errors_are_named")
class NamesAllErrors(Plain):
    """Every bug is taken for the driver's error."""

    driver_errors = (Exception,)


@caught_by("test_translate")
class RepeatsTheDriver(Plain):
    """`translate` repeats what the driver says."""

    def translate(self, error: Exception, operation: str) -> MemoryError:
        return MemoryStorageError(f"the driver says: {error}", operation=operation)


@caught_by("test_translate")
class TranslateFails(Plain):
    """`translate` counts on an argument that not every error has."""

    def translate(self, error: Exception, operation: str) -> MemoryError:
        return MemoryStorageError(f"the driver failed with {error.args[0] and 'a reason'}", operation=operation)


@caught_by("test_nothing_grows")
class LetsGoOfNothing(Filed):
    """`close` leaves the file open."""

    async def open(self) -> None:
        os.open(os.devnull, os.O_RDONLY)


@caught_by("test_the_loop_goes_on")
class ReadsOnTheLoop(Plain):
    """Reads give nobody else a turn."""

    async def reach(self) -> None:
        if self.stalled or self.away:
            await super().reach()


class _AtOnce(Paged):
    """Some requests are done on the loop, and give nobody else a turn."""

    at_once = False

    async def reach(self) -> None:
        if not self.at_once:
            await super().reach()

    @contextmanager
    def on_the_loop(self, *, at_once: bool) -> Iterator[None]:
        """One request that is, where that holds of it."""
        self.at_once = at_once
        try:
            yield
        finally:
            self.at_once = False


@caught_by("test_the_loop_goes_on_whatever_has_grown[revise]")
class ForgetsHowLarge(_AtOnce):
    """A page of what is small is read on the loop, and by a revision nothing becomes large."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[str, int] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self.largest[record.conversation_id] = max((len(codec.encode(one)) for one in record.messages), default=0)
        return await super().write(record, expected=expected)

    async def revise(self, revise: Revise) -> int:
        largest = self.largest[revise.conversation_id]
        version = await super().revise(revise)
        self.largest[revise.conversation_id] = largest
        return version

    async def tail(self, tail: Tail) -> Page | None:
        with self.on_the_loop(at_once=self.largest.get(tail.conversation_id, 0) * tail.limit < 100_000):
            return await super().tail(tail)


@caught_by("test_the_loop_goes_on_beside_a_cap")
class CutsOnTheLoop(_AtOnce):
    """An append of few messages is done on the loop, however many it takes away."""

    async def append(self, write: Write) -> WriteResult:
        with self.on_the_loop(at_once=len(write.messages) < 10):
            return await super().append(write)


@caught_by("test_the_loop_goes_on_beside_heavy_labels")
class ListsOnTheLoop(_AtOnce):
    """A short list is read on the loop, however large the metadata in it."""

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        with self.on_the_loop(at_once=query.limit is not None and query.limit < 10):
            return await super().find(query)


@caught_by("test_reads_no_more_than_it_needs[tail]")
class PageReadsAll(Paged):
    """A page is cut from the whole conversation."""

    async def tail(self, tail: Tail) -> Page | None:
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        return pages.page(documents.decode_record(documents.encode_record(record)), tail) if record else None


@caught_by("test_reads_no_more_than_it_needs[tail with first messages]")
class FirstReadAll(Paged):
    """A page is a page, but what is asked for beside it is cut from the whole conversation."""

    async def tail(self, tail: Tail) -> Page | None:
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        if record is not None and (tail.leading or tail.with_header):
            record = documents.decode_record(documents.encode_record(record))
        return pages.page(record, tail) if record else None


@caught_by("test_reads_no_more_than_it_needs[revise]")
class RevisesByCopying(Paged):
    """A revision writes the whole conversation anew."""

    async def revise(self, revise: Revise) -> int:
        version = await super().revise(revise)
        documents.encode_record(self.records[revise.conversation_id])
        return version


@caught_by("test_a_scan_goes_step_by_step")
class ScanReadsAll(Plain):
    """A scan reads everything before it gives the first."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        everything = [documents.encode_record(record) async for record in super().scan(query)]
        for body in everything:
            yield documents.decode_record(body)


@caught_by("test_table[append under a cap]")
class KeepsWhatACapRemoved(Remembering):
    """What a cap has removed lies about."""

    async def append(self, write: Write) -> WriteResult:
        before = self.records.get(write.conversation_id)
        result = await super().append(write)
        after = self.records.get(write.conversation_id)
        if before is not None and after is not None and after.first_position > before.first_position:
            self._copies.append(replace(before))
        return result


@caught_by("test_table_of_the_whole[purge]")
class KeepsThePurged(Remembering):
    """What a purge has removed lies about."""

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        before = dict(self.records)
        removed = await super().purge(limit, scope=scope)
        self._copies += [record for key, record in before.items() if key not in self.records]
        return removed


@caught_by("test_table[store]")
class KeepsTheExpired(Remembering):
    """What stood expired under an id that is stored anew lies about."""

    async def store(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        if standing is not None and rules.live(standing, self.now()) is None:
            self._copies.append(standing)
        return await super().store(write)
