"""What goes wrong in one state of a conversation, or in one field."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from broken_stores.sound import Paged, Plain, caught_by
from jaf_memory_core import MemoryQuery, Message, WriteResult, codec, forks, rules
from jaf_memory_core.records import Fork, Page, Record, Revise, Stamp, Tail, Write
from jaf_memory_core.values import FrozenDict


@caught_by("test_table[revise]")
class ExpiredIsRevised(Plain):
    """An expired conversation can still be revised."""

    async def revise(self, revise: Revise) -> int:
        standing = await self.read(revise.conversation_id)
        if standing is None or rules.live(standing, self.now()):
            return await super().revise(revise)
        after = forks.revised(standing, revise, self.now())
        await self.write(after, expected=standing.stamp)
        return after.version


@caught_by("test_table[revise]")
class RevisionMovesNoTime(Plain):
    """A revision leaves `updated_at` where it was."""

    async def revise(self, revise: Revise) -> int:
        before = await self.read(revise.conversation_id)
        version = await super().revise(revise)
        after = await self.read(revise.conversation_id)
        assert before is not None
        assert after is not None
        self.records[revise.conversation_id] = replace(after, updated_at=before.updated_at)
        return version


@caught_by("test_table[revise]")
class RevisionKeepsTheSummary(Plain):
    """A summary outlives a revision of what it tells."""

    async def revise(self, revise: Revise) -> int:
        before = await self.read(revise.conversation_id)
        version = await super().revise(revise)
        after = await self.read(revise.conversation_id)
        assert before is not None
        assert after is not None
        self.records[revise.conversation_id] = replace(after, metadata=before.metadata)
        return version


@caught_by("test_table[revise two into each other's places]")
class RevisesOneByOne(Plain):
    """Two messages that change places: the first looks like a conflict with the second."""

    async def revise(self, revise: Revise) -> int:
        version = 0
        for one in zip(revise.ids, revise.messages, revise.bodies, strict=True):
            old, message, body = one
            version = await super().revise(replace(revise, ids=(old,), messages=(message,), bodies=(body,)))
        return version


@caught_by("test_table[amend nothing]")
class HeaderWithMessages(Plain):
    """A header brings the messages along."""

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        return rules.seen(await self.read(conversation_id), self.now(), scope)


@caught_by("test_table[append under a cap]")
class PositionsIn16Bits(Plain):
    """Positions of messages begin again behind 65,535."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return page and replace(page, first=page.first % 65_536)


@caught_by("test_large_batches")
class LooksUpTheFirst(Plain):
    """Of a batch only the first 999 ids are looked up."""

    async def append(self, write: Write) -> WriteResult:
        def change(record: Record | None, write: Write, now: datetime) -> tuple[Record, WriteResult]:
            first = replace(write, messages=write.messages[:999], bodies=write.bodies[:999])
            after, result = rules.written(record, first, now)
            rest = write.messages[999:]
            after = replace(after, messages=after.messages + rest, message_count=after.message_count + len(rest))
            return after, replace_result(result, after, len(rest))

        return await self.by(write, change)


def replace_result(result: WriteResult, after: Record, more: int) -> WriteResult:
    """The answer for some more messages."""
    return WriteResult(result.version, after.message_count, result.added + more)


@caught_by("test_table_of_a_thousand[fork]")
class ForksAThousand(Plain):
    """A copy ends at a thousand messages."""

    async def fork(self, fork: Fork) -> int:
        await super().fork(fork)
        whole = self.records[fork.new_id]
        messages = whole.messages[:1_000]
        self.records[fork.new_id] = replace(whole, messages=messages, message_count=len(messages))
        return len(messages)


@caught_by("test_large_batches")
class ComparesByPlaceInTheBatch(Plain):
    """What is held further on than it comes in the batch is taken for equal, if there are many."""

    async def append(self, write: Write) -> WriteResult:
        def change(record: Record | None, write: Write, now: datetime) -> tuple[Record, WriteResult]:
            held = {one.message_id: at for at, one in enumerate(record.messages)} if record else {}
            given = list(write.messages)
            for at, message in enumerate(given):
                place = held.get(message.message_id, 0)
                if record and place > len(given) > 100:
                    given[at] = record.messages[place]
            same = replace(write, messages=tuple(given), bodies=tuple(map(codec.encode, given)))
            return rules.written(record, same, now)

        return await self.by(write, change)


@caught_by("test_large_batches")
class ScansAThousand(Plain):
    """A scan leaves out messages beyond the thousandth."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        async for record in super().scan(query):
            yield replace(record, messages=record.messages[:1_000])


@caught_by("test_many_of_one_moment")
class FindsAThousand(Plain):
    """A search ends at a thousand conversations."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(replace(query, limit=None))
        return found[:1_000][: query.limit]


@caught_by("test_other_field_is_a_conflict[tool_calls]")
class ToolCallsNotCompared(Plain):
    """A held id whose message differs in its calls alone is taken for the same."""

    async def append(self, write: Write) -> WriteResult:
        standing = await self.read(write.conversation_id)
        held = {message.message_id: message for message in standing.messages} if standing else {}
        messages = tuple(_with_calls_of(message, held.get(message.message_id)) for message in write.messages)
        return await super().append(replace(write, messages=messages, bodies=tuple(map(codec.encode, messages))))


def _with_calls_of(message: Message, held: Message | None) -> Message:
    return message if held is None else replace(message, tool_calls=held.tool_calls)


@caught_by("test_long_text_everywhere[65536]")
class TextsInMetadataCut(Plain):
    """Texts in metadata end at 65,535 characters."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        cut = {key: value[:65_535] if isinstance(value, str) else value for key, value in record.metadata.items()}
        return await super().write(replace(record, metadata=FrozenDict(cut)), expected=expected)


@caught_by("test_record_field[created_at]")
class BeginsIn1970(Plain):
    """Times before 1970 are 1970."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return await super().write(replace(record, created_at=max(record.created_at, epoch)), expected=expected)


@caught_by("test_filters_alone_and_together")
class FilterTooWide(Plain):
    """Only the first key of metadata is looked at before `limit` is."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        metadata = dict(list((query.metadata or {}).items())[:1])
        return await super().find(replace(query, metadata=FrozenDict(metadata) if metadata else None))


@caught_by("test_filters_alone_and_together")
class CursorForgottenById(Plain):
    """A search by id goes on nowhere."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(replace(query, cursor=None) if query.conversation_id else query)


@caught_by("test_times_are_utc")
class LocalTimeIsUtc(Plain):
    """The local time of day is taken for UTC's."""

    def now(self) -> datetime:
        return super().now().astimezone().replace(tzinfo=UTC)


class _Ways(Plain):
    """Some appends go a way of their own."""

    def goes(self, write: Write) -> bool:
        """Whether this one does."""
        raise NotImplementedError

    def less(self, before: Record, after: Record) -> Record:
        """What that way leaves."""
        raise NotImplementedError

    async def append(self, write: Write) -> WriteResult:
        before = self.records.get(write.conversation_id)
        answer = await super().append(write)
        if before is not None and self.goes(write):
            self.records[write.conversation_id] = self.less(before, self.records[write.conversation_id])
        return answer


@caught_by("test_table[append 4]")
class FewRenewNothing(_Ways):
    """Four messages go a way of their own, where nobody thought of the expiry."""

    def goes(self, write: Write) -> bool:
        return len(write.messages) == 4

    def less(self, before: Record, after: Record) -> Record:
        return replace(after, expires_at=before.expires_at)


@caught_by("test_table[append 3, 20,000 characters each]")
class LongLeaveTheTime(_Ways):
    """Long messages go a way of their own, where nobody thought of the times."""

    def goes(self, write: Write) -> bool:
        return sum(map(len, write.bodies)) > 16_384

    def less(self, before: Record, after: Record) -> Record:
        return replace(after, updated_at=before.updated_at, active_at=before.active_at)


@caught_by("test_table[delete no messages]")
class FirstByCounting(Paged):
    """The first messages beside a page are counted, also where positions between them are empty."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        record = self.records.get(tail.conversation_id)
        if page is None or record is None or not (tail.leading and record.gaps):
            return page
        return replace(page, leading=record.messages[: tail.leading])
