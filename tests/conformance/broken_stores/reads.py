"""Reads, searches and counts that give something else, or write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from jaf_memory_testing import FourMethods
from msgspec.structs import replace

from broken_stores.sound import Plain, Provider, caught_by
from jaf_memory_core import (
    ConversationMemory,
    MemoryQuery,
    rules,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.records import Page, Record, Stamp, Stats, Tail, Truncate


@caught_by("test_recent_are_the_last")
class RecentFromTheStart(Plain):
    """Gives the first messages as the recent ones."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(replace(tail, limit=10**6))
        return page and Page(page.messages[: tail.limit], page.first, more=False)


@caught_by("test_recent_are_the_last")
class TailTurnedRound(Plain):
    """Gives the newest first."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return page and Page(page.messages[::-1], page.first, more=page.more)


@caught_by("test_many_at_once")
class LastAsked(Plain):
    """Answers whoever waits with what was asked for last."""

    async def tail(self, tail: Tail) -> Page | None:
        self.asked = tail
        await asyncio.sleep(0)
        return await super().tail(self.asked)


@caught_by("test_pages_stand_still")
class PagesFromTheEnd(Plain):
    """Counts pages from the end, which moves."""

    async def tail(self, tail: Tail) -> Page | None:
        record = self.records.get(tail.conversation_id)
        if record and tail.before is not None:
            tail = replace(tail, before=max(0, record.message_count - 4))
        return await super().tail(tail)


@caught_by("test_first_messages_beside_a_page")
class FirstTwice(Plain):
    """Gives the first messages beside a page also where they stand in it."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        record = self.records.get(tail.conversation_id)
        return page and record and replace(page, leading=record.messages[: tail.leading])


@caught_by("test_first_messages_beside_a_page")
class FirstByPlace(Plain):
    """Counts the first messages from the oldest that a cap has left."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        record = self.records.get(tail.conversation_id)
        before = page.first - record.first_position if page and record else 0
        return page and record and replace(page, leading=record.messages[: min(before, tail.leading)])


@caught_by("test_the_newest_of_a_condensed_conversation")
class HeaderOfThePage(Plain):
    """Gives a header that counts the messages of the page, and not those of the conversation."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        if page is None or page.header is None:
            return page
        return replace(page, header=replace(page.header, message_count=len(page.messages)))


@caught_by("test_same_reads")
class PageWithAllInItsHeader(Plain):
    """Brings the whole conversation in the header."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return (page and page.header and replace(page, header=self.records[tail.conversation_id])) or page


@caught_by("test_reads_change_nothing")
class ReadsTouch(Plain):
    """Keeps the time of the last read as activity."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        if record:
            self.records[conversation_id] = replace(record, updated_at=self.now())
        return record


@caught_by("test_reads_renew_no_expiry")
class ReadsRenew(Plain):
    """Renews the expiry on a read."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        if record and record.expires_at and record.ttl:
            renewed = self.now() + timedelta(seconds=record.ttl)
            self.records[conversation_id] = replace(record, expires_at=renewed)
        return record


@caught_by("test_two_providers_see_the_same")
class Caches(Plain):
    """Lets each provider keep what it has read."""

    def connection(self) -> Backend:
        return _Cached(self)


class _Cached(FourMethods):
    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._cache: dict[str, Record | None] = {}

    async def read(self, conversation_id: str) -> Record | None:
        if conversation_id not in self._cache:
            self._cache[conversation_id] = await super().read(conversation_id)
        return self._cache[conversation_id]

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self._cache.pop(record.conversation_id, None)
        return await super().write(record, expected=expected)


@caught_by("test_ties")
class TiesByCreation(Plain):
    """Orders conversations of one time as they were made."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(replace(query, limit=None, offset=0))
        found = sorted(found, key=lambda record: record.active_at, reverse=True)
        return sorted(found, key=lambda record: (record.active_at, record.created_at), reverse=True)


@caught_by("test_written_comes_first[append]")
class OrderedByCreation(Plain):
    """Orders conversations by their creation."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return sorted(await super().find(query), key=rules.creation_key, reverse=True)


@caught_by("test_bounds[created]")
class SinceExclusive(Plain):
    """Leaves out what was created at the very bound."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return [record for record in await super().find(query) if record.created_at != query.since]


@caught_by("test_bounds[active]")
class UntilInclusive(Provider):
    """Takes in what was written at the very end."""

    async def find_conversations(self, query: MemoryQuery) -> list[ConversationMemory]:
        until = query.active_until and query.active_until + timedelta(microseconds=1)
        return await super().find_conversations(replace(query, active_until=until))


@caught_by("test_naive_is_local")
class NaiveIsUtc(Provider):
    """Takes naive times for UTC."""

    async def find_conversations(self, query: MemoryQuery) -> list[ConversationMemory]:
        def shifted(moment: datetime | None) -> datetime | None:
            offset = moment.astimezone().utcoffset() if moment else None
            return moment + offset if moment and offset else moment

        return await super().find_conversations(replace(query, since=shifted(query.since), until=shifted(query.until)))


@caught_by("test_offset")
class OffsetIgnored(Plain):
    """Begins at the first conversation, whatever the offset."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(replace(query, offset=0))


@caught_by("test_random_queries")
class LimitBeforeFilter(Plain):
    """Takes the newest first, and filters these."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        newest = await super().find(MemoryQuery(limit=query.limit, offset=query.offset))
        below = rules.activity_cursor(query)
        return [
            record
            for record in newest
            if rules.matches(record, query) and (below is None or rules.activity_key(record) < below)
        ]


@caught_by("test_after[1]")
class AfterRepeats(Plain):
    """Goes on at the last conversation instead of behind it."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        if query.cursor is None:
            return await super().find(query)
        created, updated, key = query.cursor
        found = await super().find(replace(query, cursor=(created, updated, key + "\0")))
        return found[:1] if len(found) == 1 and found[0].conversation_id == key else found


@caught_by("test_without_messages")
class CountLost(Plain):
    """Forgets how many messages there are when it leaves them out."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(query)
        return found if query.include_messages else [replace(record, messages=(), message_count=0) for record in found]


@caught_by("test_order_of_creation")
class IteratesByActivity(Plain):
    """Iterates in the order of the last writes."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        for record in sorted(self.records.values(), key=rules.activity_key):
            yield record


@caught_by("test_misses_nothing_that_stood")
class IterationMisses(Plain):
    """Pages by a number of records, and so skips where some were deleted."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        above = rules.creation_cursor(query)
        offset = 0
        while page := sorted(self.records.values(), key=rules.creation_key)[offset : offset + 10]:
            for record in page:
                if above is None or rules.creation_key(record) > above:
                    yield record
            offset += 10


@caught_by("test_of_a_user")
class CountsForAll(Plain):
    """Counts everybody's conversations for a user."""

    async def stats(self, user_id: str | None) -> Stats:
        return await super().stats(user_id and None)


@caught_by("test_size")
class CountsCharacters(Plain):
    """Counts characters of contents instead of bytes of messages."""

    async def stats(self, user_id: str | None) -> Stats:
        stats = await super().stats(user_id)
        texts = [str(message.content) for record in self.records.values() for message in record.messages]
        return replace(stats, size=len("".join(texts)))


@caught_by("test_until")
class UntilWithTheMessage(Provider):
    """Gives the conversation with the message up to which it was asked for."""

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> ConversationMemory | None:
        part = await super().get_conversation_until_message(conversation_id, message_id)
        every = await self.get_conversation(conversation_id)
        if part is None or every is None:
            return None
        return replace(part, messages=every.messages[: len(part.messages) + 1])


@caught_by("test_truncate")
class TruncatesBehind(Plain):
    """Leaves the message at which it was to cut."""

    async def truncate(self, truncate: Truncate) -> int:
        messages = self.records[truncate.conversation_id].messages
        names = [message.message_id for message in messages]
        if truncate.message_id not in names[:-1]:
            return 0
        return await super().truncate(replace(truncate, message_id=names[names.index(truncate.message_id) + 1]))
