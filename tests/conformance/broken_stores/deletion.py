"""Deletions of single messages that take too much or too little, or move what stays."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from broken_stores.upkeep import Upset
from jaf_memory_core import WriteResult, rules
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Page, Record, Stamp, Tail, Truncate, Write


class Thinning(Upset):
    """Says what becomes of a conversation from which messages were deleted."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        before = self.records.get(delete.conversation_id)
        removed = await super().delete_messages(delete)
        if removed and before is not None:
            self.records[delete.conversation_id] = self.left(before, self.records[delete.conversation_id])
        return removed

    def left(self, before: Record, after: Record) -> Record:
        """What stands behind the deletion."""
        raise NotImplementedError


@caught_by("test_positions_stay")
class MovesUp(Thinning):
    """What stands behind a deleted message moves into its place."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, gaps=0, positions=())


@caught_by("test_a_place_held_across_a_deletion")
class GivesPositionsAgain(Thinning):
    """The position of a deleted last message is given to the next one."""

    def left(self, before: Record, after: Record) -> Record:
        if not after.messages:
            return after
        end = rules.positions_of(after)[-1] + 1
        header = rules.ends_at(after, after.message_count, end)
        return rules.placed(header, after.messages, rules.positions_of(after))


@caught_by("test_delete_all_messages")
class BeginsAnewWhenEmpty(Thinning):
    """A conversation whose messages were all deleted counts its positions from 0 again."""

    def left(self, before: Record, after: Record) -> Record:
        return after if after.messages else replace(after, first_position=0)


@caught_by("test_delete_messages_of_a_summary")
class SummaryOfTheDeletedStays(Thinning):
    """A summary stays, though it tells what a deleted message said."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, metadata=before.metadata)


@caught_by("test_delete_messages_of_a_summary")
class AnySummaryGoes(Thinning):
    """A summary goes with a message that it does not cover."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, metadata=rules.unsummarised(after.metadata))


@caught_by("test_deleted_messages_sent_again")
class BringsTheDeletedBack(Thinning):
    """Who sends a whole history again brings back at its end what was deleted."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, trimmed=before.trimmed)


@caught_by("test_messages_move_a_list[delete messages]")
class DeletionsMoveNoList(Thinning):
    """A deletion of messages is no activity."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, active_at=before.active_at)


@caught_by("test_table[delete messages]")
class DeletionRenewsNothing(Thinning):
    """A deletion of messages leaves the expiry where it was."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, expires_at=before.expires_at)


@caught_by("test_table[delete messages]")
class DeletionKeepsTheCount(Thinning):
    """`message_count` stays after a deletion of messages."""

    def left(self, before: Record, after: Record) -> Record:
        return replace(after, message_count=before.message_count)


class Asking(Plain):
    """Asks for something else than it was asked for."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        """What is deleted."""
        raise NotImplementedError

    async def delete_messages(self, delete: DeleteMessages) -> int:
        return await super().delete_messages(self.asked(delete, self.records.get(delete.conversation_id)))


@caught_by("test_delete_messages")
class DeletesAllBehind(Asking):
    """All behind the first of the messages go, as with a truncation."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        ids = [message.message_id for message in record.messages] if record else []
        first = min((ids.index(one) for one in delete.ids if one in ids), default=len(ids))
        return replace(delete, ids=tuple(ids[first:]))


@caught_by("test_delete_messages")
class DeletesTheFirstOnly(Asking):
    """Of several messages only the first goes."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        return replace(delete, ids=delete.ids[:1])


@caught_by("test_delete_many_messages[9690]")
class DeletesFewOfMany(Asking):
    """Of very many messages those go that one command takes."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        return replace(delete, ids=delete.ids[:8_000])


@caught_by("test_table[delete messages, of which some are there]")
class AllOrNoneOfThem(Asking):
    """Where one of the messages is not held, none goes."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        held = {message.message_id for message in record.messages} if record else set()
        return delete if held.issuperset(delete.ids) else replace(delete, ids=())


@caught_by("test_delete_messages_at_a_version[1]")
class DeletionExpectsNothing(Asking):
    """A deletion of messages is done at whatever version stands."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        return replace(delete, expected_version=None)


@caught_by("test_delete_messages_of_nobody")
class DeletesOfAnybody(Asking):
    """Messages of another user's conversation go."""

    def asked(self, delete: DeleteMessages, record: Record | None) -> DeleteMessages:
        return replace(delete, scope=None)


@caught_by("test_delete_messages")
class DeletingNothingIsAWrite(Plain):
    """A deletion of messages that are not there raises the version."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        removed = await super().delete_messages(delete)
        if not removed:
            await self.amend(Amend(delete.conversation_id))
        return removed


@caught_by("test_delete_messages")
class CountsWhatWasAskedFor(Plain):
    """The answer is how many were asked for, and not how many there were."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        await super().delete_messages(delete)
        return len(delete.ids)


@caught_by("test_two_delete_at_once")
class EachCountsThemAll(Plain):
    """Two who delete at once count the same messages."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        record = rules.deletable(rules.seen(self.records.get(delete.conversation_id), self.now(), delete.scope), delete)
        held = sum(message.message_id in delete.ids for message in record.messages)
        for one in delete.ids:
            await super().delete_messages(replace(delete, ids=(one,)))
        return held


class Deciding(Plain):
    """Changes what a write decides about a conversation with gaps."""

    async def append(self, write: Write) -> WriteResult:
        result = await super().append(write)
        record = self.records.get(write.conversation_id)
        if record is not None and record.gaps and result.added:
            self.records[write.conversation_id] = self.appended(record, result.added)
        return result

    def appended(self, record: Record, added: int) -> Record:
        """What stands behind an append."""
        return record


@caught_by("test_table[append]")
class AppendsIntoGaps(Deciding):
    """The next message comes to as many positions behind the first as there are messages."""

    def appended(self, record: Record, added: int) -> Record:
        kept = record.positions[:-added]
        end = kept[-1] + 1 if kept else record.first_position
        header = rules.ends_at(record, record.message_count, end + added)
        return rules.placed(header, record.messages, (*kept, *range(end, end + added)))


@caught_by("test_caps_count_what_is_left")
class CapsByPosition(Plain):
    """A cap counts positions, and not messages."""

    def _capped(self, write: Write) -> Write:
        record = self.records.get(write.conversation_id)
        if write.max_messages is None or record is None:
            return write
        return replace(write, max_messages=max(1, write.max_messages - record.gaps))

    async def append(self, write: Write) -> WriteResult:
        return await super().append(self._capped(write))


@caught_by("test_table[fork]")
class ForksWithoutGaps(Plain):
    """A copy counts its positions without gaps."""

    async def fork(self, fork: Fork) -> int:
        count = await super().fork(fork)
        self.records[fork.new_id] = replace(self.records[fork.new_id], gaps=0, positions=())
        return count


@caught_by("test_table[truncate]")
class TruncatesByPlace(Plain):
    """What a truncation leaves ends behind as many positions as there are messages."""

    async def truncate(self, truncate: Truncate) -> int:
        removed = await super().truncate(truncate)
        record = self.records.get(truncate.conversation_id)
        if removed and record is not None:
            self.records[truncate.conversation_id] = replace(record, gaps=0, positions=())
        return removed


@caught_by("test_first_messages_beside_gaps")
class LeadingByCount(Plain):
    """The first messages beside a page are so many, and not those before a position."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        record = self.records.get(tail.conversation_id)
        if page is None or record is None or not record.gaps or page.leading is None:
            return page
        stop = sum(one < page.first for one in record.positions)
        return replace(page, leading=record.messages[: min(stop, tail.leading)])


@caught_by("test_delete_many_messages[1300]")
class LongPagesFromTheFirst(Plain):
    """A long page of a conversation with gaps has all up to its end, and not so many as were asked for."""

    async def tail(self, tail: Tail) -> Page | None:
        record = self.records.get(tail.conversation_id)
        long = record is not None and record.gaps and tail.after is None and tail.limit > 100
        return await super().tail(replace(tail, limit=10_000) if long else tail)


@caught_by("test_what_counts_and_searches_sees_it_gone")
class PagesWithoutPositions(Plain):
    """A page of a conversation with gaps does not tell where its messages stand."""

    async def tail(self, tail: Tail) -> Page | None:
        page = await super().tail(tail)
        return page and replace(page, positions=())


@caught_by("test_copies_are_apart[delete messages]")
class ForksShare(Plain):
    """A deletion reaches the forks of a conversation."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        removed = await super().delete_messages(delete)
        for key in ("one", "two"):
            if delete.conversation_id == "parent" and key in self.records:
                await super().delete_messages(replace(delete, conversation_id=key))
        return removed


@caught_by("test_what_left_may_come_again[delete messages]")
class RemembersTheDeleted(Plain):
    """What was deleted counts as held for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[str, set[str]] = {}

    async def delete_messages(self, delete: DeleteMessages) -> int:
        removed = await super().delete_messages(delete)
        self.gone.setdefault(delete.conversation_id, set()).update(delete.ids)
        return removed

    async def append(self, write: Write) -> WriteResult:
        gone = self.gone.get(write.conversation_id, set())
        at = [index for index, message in enumerate(write.messages) if message.message_id not in gone]
        kept = replace(
            write, messages=tuple(write.messages[one] for one in at), bodies=tuple(write.bodies[one] for one in at)
        )
        return await super().append(kept)


@caught_by("test_delete_messages")
class DeletesByHalves(Plain):
    """A deletion is as many writes as there are messages."""

    async def delete_messages(self, delete: DeleteMessages) -> int:
        return sum(
            [await super(DeletesByHalves, self).delete_messages(replace(delete, ids=(one,))) for one in delete.ids]
        )


@caught_by("test_table[delete messages]")
class RunsBackwards(Plain):
    """A deletion takes the moment of the creation for the moment of the change."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        standing = self.records.get(record.conversation_id)
        if standing is not None and record.trimmed and len(record.messages) < len(standing.messages):
            moment: datetime = record.created_at
            record = replace(record, updated_at=moment, active_at=moment)
        return await super().write(record, expected=expected)
