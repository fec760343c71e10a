"""Bounds of pages, limits and cursors that are wrong by one, and values that count as none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from msgspec.structs import replace

from broken_stores.sound import Paged, Plain, caught_by
from jaf_memory_core import MemoryQuery, rules
from jaf_memory_core.records import Page, Record, Tail


@caught_by("test_table[amend nothing]")
class BeforeIsInclusive(Paged):
    """A page before a position begins with the message at it."""

    async def tail(self, tail: Tail) -> Page | None:
        return await super().tail(tail if tail.before is None else replace(tail, before=tail.before + 1))


@caught_by("test_table[amend nothing]")
class BeforeZeroIsNone(Paged):
    """The page before position 0 is the newest one: 0 counts as not given."""

    async def tail(self, tail: Tail) -> Page | None:
        return await super().tail(replace(tail, before=tail.before or None))


@caught_by("test_forwards")
class AfterIsInclusive(Paged):
    """A page behind a position begins with the message at it."""

    async def tail(self, tail: Tail) -> Page | None:
        return await super().tail(tail if tail.after is None else replace(tail, after=max(-1, tail.after - 1)))


@caught_by("test_forwards")
class AfterTheNewest(Paged):
    """Behind a position it gives the newest messages, and not those that come next."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        if page is None or tail.after is None or page.end is None:
            return page
        first = max(page.first, page.end - tail.limit)
        newest = await super().tail(replace(tail, after=first - 1))
        return newest and replace(newest, first=page.first)


@caught_by("test_forwards_from_nowhere")
class AfterTheEndAnything(Paged):
    """Behind the end of the conversation it gives the last page."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        if page is None or tail.after is None or page.messages:
            return page
        last = await super().tail(replace(tail, after=None))
        return last and replace(last, end=page.end)


@caught_by("test_table[amend nothing]")
class AfterACap(Paged):
    """A position is taken for a place among the messages that a cap has left, when it looks forwards."""

    async def tail(self, tail: Tail) -> Page | None:
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        if record is None or tail.after is None:
            return await super().tail(tail)
        return await super().tail(replace(tail, after=tail.after + record.first_position))


@caught_by("test_table[amend nothing]")
class BeforeIsAnIndex(Paged):
    """A position is taken for a place among the messages that a cap has left."""

    async def tail(self, tail: Tail) -> Page | None:
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        if record is None or tail.before is None:
            return await super().tail(tail)
        return await super().tail(replace(tail, before=tail.before + record.first_position))


@caught_by("test_table[amend nothing]")
class BeforeTheEndAlone(Paged):
    """A page before a position beyond the end is empty."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        end = page and page.first + len(page.messages)
        return page if page is None or tail.before is None or end == tail.before else replace(page, messages=())


@caught_by("test_table[amend nothing]")
class MoreAtTheBeginning(Paged):
    """A page that is full says that more stands before it, though it begins with the first message."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return page and replace(page, more=page.more or (len(page.messages) == tail.limit > 0))


@caught_by("test_table[amend nothing]")
class MoreBeforeACap(Paged):
    """What a cap has removed counts as older messages that stand there."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return page and replace(page, more=page.first > 0)


@caught_by("test_table[amend nothing]")
class AllButOne(Paged):
    """A page as long as the conversation lacks the oldest message."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        if page is None or page.more or len(page.messages) != tail.limit:
            return page
        return replace(page, messages=page.messages[1:], first=page.first + 1)


@caught_by("test_large_batches")
class PageOfAHundred(Paged):
    """No page is longer than a hundred messages, whatever is asked for."""

    async def tail(self, tail: Tail) -> Page | None:
        return await super().tail(replace(tail, limit=min(tail.limit, 100)))


@caught_by("test_filters_alone_and_together")
class NoLimitIsAll(Plain):
    """A search with `limit=0` finds all."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(replace(query, limit=query.limit or None))


@caught_by("test_filters_alone_and_together")
class OneMoreThanTheLimit(Plain):
    """A search gives one more, by which its author knows whether there is a next page."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(query if query.limit is None else replace(query, limit=query.limit + 1))


@caught_by("test_filters_alone_and_together")
class CursorSkipsTies(Plain):
    """The next page begins below the time of the last conversation; others of that time are in none."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        below = rules.activity_cursor(query)
        found = await super().find(query)
        return [record for record in found if below is None or record.active_at < below[0]]


@caught_by("test_filters_alone_and_together")
class OffsetBehindTheCursor(Plain):
    """Where a cursor is given, the offset is passed over."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(query if query.cursor is None else replace(query, offset=0))


@caught_by("test_ties")
class TiesAscend(Plain):
    """Conversations of one time come by id ascending."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        if query.cursor is not None:
            return await super().find(query)
        found = await super().find(replace(query, limit=None, offset=0))
        found = sorted(sorted(found, key=lambda one: one.conversation_id), key=lambda one: one.active_at, reverse=True)
        return found[query.offset :][: query.limit]


@caught_by("test_ties_of_creation")
class IdsOfATieWithoutCase(Plain):
    """A scan orders ids of one time as a collation does, without their case."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        found = [record async for record in super().scan(query)]
        for record in sorted(found, key=lambda one: (one.created_at, one.conversation_id.lower())):
            yield record


@caught_by("test_made_again_ahead")
class TellsWhatStandsThereByNow(Plain):
    """A scan takes the ids first, and gives whatever bears them when it is their turn."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        for name in [record.conversation_id async for record in super().scan(query)]:
            record = await self.read(name)
            if record is not None:
                yield record


@caught_by("test_scan")
class ScanBeginsAtTheCursor(Plain):
    """A scan from a cursor on gives that conversation again."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        above = rules.creation_cursor(query)
        async for record in super().scan(replace(query, cursor=None)):
            if above is None or rules.creation_key(record) >= above:
                yield record


@caught_by("test_scan")
class ScanSkipsTies(Plain):
    """A scan from a cursor on leaves out what was created at the same moment."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        above = rules.creation_cursor(query)
        async for record in super().scan(query):
            if above is None or record.created_at > above[0]:
                yield record


@caught_by("test_misses_nothing_that_stood")
class ScanPassesTwice(Plain):
    """A scan in steps, of a store where what is written moves to the end: it is passed again."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        first = [record async for record in super().scan(query)]
        for record in first:
            yield record
        for record in first:
            standing = self.records.get(record.conversation_id)
            if standing is not None and standing.stamp != record.stamp:
                yield standing
