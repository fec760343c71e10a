"""Lists that move where they must not, or stay where they must move; times that follow the wrong changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec import UNSET
from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from broken_stores.upkeep import Upset
from jaf_memory_core import MemoryQuery, WriteResult, rules
from jaf_memory_core.records import Amend, Damaged, Fork, Record, Revise, Stamp, Truncate, Write


class _Touching(Upset):
    """Takes some changes of what stands beside the messages for activity."""

    def touches(self, amend: Amend) -> bool:
        """Whether this one."""
        raise NotImplementedError

    async def amend(self, amend: Amend) -> int:
        version = await super().amend(amend)
        if self.touches(amend):
            self.upset(amend.conversation_id, active_at=self.records[amend.conversation_id].updated_at)
        return version


@caught_by("test_nothing_else_moves_a_list[metadata]")
class TitlesMoveAList(_Touching):
    """A change of the application's metadata counts as activity."""

    def touches(self, amend: Amend) -> bool:
        return bool(rules.applications(amend.metadata))


@caught_by("test_nothing_else_moves_a_list[an expiry]")
class ExpiriesMoveAList(_Touching):
    """A change of the expiry counts as activity."""

    def touches(self, amend: Amend) -> bool:
        return amend.ttl is not UNSET and amend.ttl is not None


@caught_by("test_nothing_else_moves_a_list[no expiry]")
class StayingMovesAList(_Touching):
    """To take the expiry away counts as activity."""

    def touches(self, amend: Amend) -> bool:
        return amend.ttl is None


@caught_by("test_nothing_else_moves_a_list[a lease]")
class LeasesMoveAList(_Touching):
    """A lease counts as activity: it is taken before each turn, also before one that fails."""

    def touches(self, amend: Amend) -> bool:
        return any("lease" in key for key in amend.metadata)


@caught_by("test_nothing_else_moves_a_list[a summary]")
class SummariesMoveAList(_Touching):
    """A summary counts as activity."""

    def touches(self, amend: Amend) -> bool:
        return rules.SUMMARY in amend.metadata


@caught_by("test_nothing_else_moves_a_list[a regeneration point]")
class RegenerationsMoveAList(_Touching):
    """A note of a regeneration counts as activity, and the messages that follow it come later."""

    def touches(self, amend: Amend) -> bool:
        return "regeneration_points" in amend.metadata


class _Labelling(Upset):
    async def append(self, write: Write) -> WriteResult:
        before = self.records.get(write.conversation_id)
        answer = await super().append(write)
        after = self.records[write.conversation_id]
        if before is not None and not write.messages and self.touches(before, after):
            self.upset(write.conversation_id, active_at=after.updated_at)
        return answer

    def touches(self, before: Record, after: Record) -> bool:
        """Whether such an append counts as activity."""
        raise NotImplementedError


@caught_by("test_nothing_else_moves_a_list[metadata by an append]")
class EmptyAppendsMoveAList(_Labelling):
    """An append of metadata alone counts as activity."""

    def touches(self, before: Record, after: Record) -> bool:
        return before.metadata != after.metadata


@caught_by("test_nothing_else_moves_a_list[a first owner]")
class OwnersMoveAList(_Labelling):
    """To be given an owner counts as activity."""

    def touches(self, before: Record, after: Record) -> bool:
        return before.user_id != after.user_id


@caught_by("test_messages_move_a_list[truncate]")
class TruncationsMoveNoList(Upset):
    """A truncation is no activity."""

    async def truncate(self, truncate: Truncate) -> int:
        before = self.records[truncate.conversation_id].active_at
        removed = await super().truncate(truncate)
        self.upset(truncate.conversation_id, active_at=before)
        return removed


@caught_by("test_messages_move_a_list[revise]")
class RevisionsMoveNoList(Upset):
    """A revision is no activity."""

    async def revise(self, revise: Revise) -> int:
        before = self.records[revise.conversation_id].active_at
        version = await super().revise(revise)
        self.upset(revise.conversation_id, active_at=before)
        return version


class _Still(Upset):
    """Takes some writes of messages for none."""

    async def store(self, write: Write) -> WriteResult:
        return await self._still(write, super().store)

    async def append(self, write: Write) -> WriteResult:
        return await self._still(write, super().append)

    async def _still(self, write: Write, send: object) -> WriteResult:
        before = self.records.get(write.conversation_id)
        answer: WriteResult = await send(write)  # type: ignore[operator]
        if before is not None and self.is_none(before, self.records[write.conversation_id], write):
            self.upset(write.conversation_id, active_at=before.active_at)
        return answer

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        """Whether such a write changes no list."""
        raise NotImplementedError


@caught_by("test_messages_move_a_list[store what stands]")
class EqualStoresMoveNoList(_Still):
    """To store what stands already is no activity."""

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        return write.replace and before.messages == after.messages


@caught_by("test_messages_move_a_list[append that makes room]")
class TrimsMoveNoList(_Still):
    """An append that lets old messages go is no activity."""

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        return after.first_position > before.first_position


@caught_by("test_messages_move_a_list[append]")
class LabelledAppendsMoveNoList(_Still):
    """An append that brings metadata is no activity."""

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        return bool(write.metadata)


@caught_by("test_messages_move_a_list[append beside what is held]")
class RetriesMoveNoList(_Still):
    """An append some of whose messages are held is no activity, though it adds others."""

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        held = {message.message_id for message in before.messages}
        return not write.replace and any(message.message_id in held for message in write.messages)


@caught_by("test_activity_goes_on_behind_a_change")
class ActivityEndsWithAChange(_Still):
    """Once something else was changed, messages are no activity any more."""

    def is_none(self, before: Record, after: Record, write: Write) -> bool:
        return before.active_at < before.updated_at


@caught_by("test_a_clock_that_was_ahead")
class AppendsComeBackFromTheFuture(Upset):
    """An append is active now, also where what it adds to was active at a time that is still to come."""

    async def append(self, write: Write) -> WriteResult:
        result = await super().append(write)
        now = self.now()
        if write.messages and self.records[write.conversation_id].active_at > now:
            self.upset(write.conversation_id, active_at=now)
        return result


@caught_by("test_a_fork_is_new")
class ForksMoveTheirParent(Upset):
    """A fork is activity of its parent."""

    async def fork(self, fork: Fork) -> int:
        count = await super().fork(fork)
        self.upset(fork.conversation_id, active_at=self.records[fork.conversation_id].updated_at)
        return count


@caught_by("test_record_field[active_at]")
class ForgetsActivity(Plain):
    """Keeps no activity, and takes the last change for it."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        return await super().write(replace(record, active_at=record.updated_at), expected=expected)


@caught_by("test_ties")
class ListsByLastChange(Plain):
    """Orders a list by the last change, of whatever."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(replace(query, limit=None, offset=0))
        found = sorted(found, key=lambda one: (one.updated_at, one.conversation_id), reverse=True)
        return found[query.offset :][: query.limit]


class _Refiltered(Plain):
    """Filters by other bounds than were asked."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        """The bounds that it takes."""
        raise NotImplementedError

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await super().find(self.other(query))


@caught_by("test_bounds[updated]")
class UpdatedMeansActive(_Refiltered):
    """`updated_since` and `updated_until` go by the activity."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        bounds = {"active_since": query.updated_since, "active_until": query.updated_until}
        return replace(query, **bounds, updated_since=None, updated_until=None)


@caught_by("test_bounds[active]")
class ActiveMeansUpdated(_Refiltered):
    """`active_since` and `active_until` go by the last change."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        bounds = {"updated_since": query.active_since, "updated_until": query.active_until}
        return replace(query, **bounds, active_since=None, active_until=None)


@caught_by("test_bounds[updated]")
class UpdatedSinceExclusive(_Refiltered):
    """Leaves out what was changed at the very bound."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        since = query.updated_since and query.updated_since + timedelta(microseconds=1)
        return replace(query, updated_since=since)


@caught_by("test_bounds[updated]")
class UpdatedUntilInclusive(_Refiltered):
    """Takes in what was changed at the very end."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        until = query.updated_until and query.updated_until + timedelta(microseconds=1)
        return replace(query, updated_until=until)


@caught_by("test_bounds[active]")
class ActiveSinceExclusive(_Refiltered):
    """Leaves out what was active at the very bound."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        since = query.active_since and query.active_since + timedelta(microseconds=1)
        return replace(query, active_since=since)


@caught_by("test_filters_alone_and_together")
class UpdatedSinceIgnored(_Refiltered):
    """Knows nothing of `updated_since` where an owner is asked for."""

    def other(self, query: MemoryQuery) -> MemoryQuery:
        return query if query.user_id is None else replace(query, updated_since=None)


@caught_by("test_an_owner_given_later")
class LaterOwnersComeFirst(Plain):
    """Puts a conversation that becomes a user's before all others of that user."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[str] = []

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        before = self.records.get(record.conversation_id)
        done = await super().write(record, expected=expected)
        if done and before is not None and before.user_id != record.user_id:
            self.later.insert(0, record.conversation_id)
        return done

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        listed = await super().find(query)
        if query.user_id is None:
            return listed
        return sorted(listed, key=lambda one: isinstance(one, Damaged) or one.conversation_id not in self.later)
