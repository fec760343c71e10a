"""Counters, sizes, versions and times that one of the writes forgets, or that one moves too many."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import WriteResult, codec, rules
from jaf_memory_core.records import Amend, Fork, Record, Revise, Stamp, Stats, Truncate, Write
from jaf_memory_core.values import FrozenDict


class Counting(Plain):
    """Keeps the size of each conversation beside it, and sums these."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}

    def measure(self, record: Record) -> None:
        """Keep the size."""
        self.sizes[record.conversation_id] = codec.size(map(codec.encode, record.messages))

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        done = await super().write(record, expected=expected)
        if done:
            self.measure(record)
        return done

    async def stats(self, user_id: str | None) -> Stats:
        now = self.now()
        counted = [one for one in self.records.values() if rules.live(one, now) and user_id in (None, one.user_id)]
        size = sum(self.sizes[one.conversation_id] for one in counted)
        return replace(await super().stats(user_id), size=size)

    async def unmeasured(self, key: str, request: Any) -> Any:
        """Answer a request without keeping the size that it leaves."""
        before = self.sizes.get(key)
        answer = await request
        if before is not None:
            self.sizes[key] = before
        return answer


@caught_by("test_table[revise]")
class RevisionIsNotMeasured(Counting):
    """A revision leaves the size as it was."""

    async def revise(self, revise: Revise) -> int:
        version: int = await self.unmeasured(revise.conversation_id, super().revise(revise))
        return version


@caught_by("test_table[truncate]")
class TruncationIsNotMeasured(Counting):
    """A truncation leaves the size as it was."""

    async def truncate(self, truncate: Truncate) -> int:
        removed: int = await self.unmeasured(truncate.conversation_id, super().truncate(truncate))
        return removed


@caught_by("test_table[append under a cap]")
class CapIsNotMeasured(Counting):
    """What a cap removes stays in the size."""

    async def append(self, write: Write) -> WriteResult:
        before = self.sizes.get(write.conversation_id, 0)
        answer = await super().append(write)
        if write.max_messages is not None and answer.added:
            self.sizes[write.conversation_id] = before + codec.size(write.bodies)
        return answer


@caught_by("test_table[fork]")
class ForkIsNotMeasured(Counting):
    """A copy has no size until it is written to."""

    async def fork(self, fork: Fork) -> int:
        count = await super().fork(fork)
        self.sizes[fork.new_id] = 0
        return count


@caught_by("test_of_all")
class OldestByItsLastWrite(Plain):
    """The oldest conversation is the one that nobody wrote to for the longest time."""

    async def stats(self, user_id: str | None) -> Stats:
        stats, now = await super().stats(user_id), self.now()
        counted = [one for one in self.records.values() if rules.live(one, now) and user_id in (None, one.user_id)]
        return replace(stats, oldest=min((one.updated_at for one in counted), default=None))


class Upset(Plain):
    """Changes the record that one kind of request leaves."""

    def upset(self, key: str, **fields: Any) -> None:
        """Change fields behind everybody's back."""
        self.records[key] = replace(self.records[key], **fields)


@caught_by("test_table[truncate]")
class TruncationKeepsTheCount(Upset):
    """`message_count` stays after a truncation."""

    async def truncate(self, truncate: Truncate) -> int:
        removed = await super().truncate(truncate)
        if removed:
            self.upset(
                truncate.conversation_id, message_count=self.records[truncate.conversation_id].message_count + removed
            )
        return removed


@caught_by("test_table[truncate]")
class TruncationRenewsNothing(Upset):
    """A truncation leaves the expiry where it was."""

    async def truncate(self, truncate: Truncate) -> int:
        before = await self.read(truncate.conversation_id)
        removed = await super().truncate(truncate)
        if removed and before:
            self.upset(truncate.conversation_id, expires_at=before.expires_at)
        return removed


@caught_by("test_table[truncate at what is not there]")
class NothingTruncatedIsAWrite(Upset):
    """A truncation at a message that is not there raises the version."""

    async def truncate(self, truncate: Truncate) -> int:
        removed = await super().truncate(truncate)
        if not removed:
            await self.amend(Amend(truncate.conversation_id))
        return removed


@caught_by("test_table[truncate all]")
class TruncatedToNothingBeginsAt0(Upset):
    """A conversation that is cut to nothing counts its positions from 0 again."""

    async def truncate(self, truncate: Truncate) -> int:
        removed = await super().truncate(truncate)
        if removed and not self.records[truncate.conversation_id].messages:
            self.upset(truncate.conversation_id, first_position=0, trimmed=False)
        return removed


@caught_by("test_table[truncate]")
class TruncationKeepsTheSummary(Upset):
    """A summary of what was cut stays."""

    async def truncate(self, truncate: Truncate) -> int:
        before = await self.read(truncate.conversation_id)
        removed = await super().truncate(truncate)
        if removed and before:
            self.upset(truncate.conversation_id, metadata=before.metadata)
        return removed


@caught_by("test_table[store]")
class StoreKeepsTheSummary(Upset):
    """A summary outlives the messages that it was made of."""

    async def store(self, write: Write) -> WriteResult:
        before = rules.live(await self.read(write.conversation_id), self.now())
        answer = await super().store(write)
        if before and rules.SUMMARY in before.metadata:
            now = self.records[write.conversation_id].metadata
            self.upset(
                write.conversation_id, metadata=FrozenDict({**now, rules.SUMMARY: before.metadata[rules.SUMMARY]})
            )
        return answer


@caught_by("test_table[append what is held]")
class RetryMovesTheTime(Upset):
    """An append of what is held moves `updated_at`, and no version."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(write)
        if not answer.added:
            self.upset(write.conversation_id, updated_at=self.now())
        return answer


@caught_by("test_table[append what is held]")
class RetryRenews(Upset):
    """An append of what is held renews the expiry."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(write)
        ttl = self.records[write.conversation_id].ttl
        if not answer.added and ttl is not None:
            self.upset(write.conversation_id, expires_at=self.now() + timedelta(seconds=ttl))
        return answer


@caught_by("test_all_held_writes_nothing")
class RetryMergesMetadata(Upset):
    """An append of what is held merges its metadata again, over what somebody wrote since."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(write)
        if not answer.added and write.metadata:
            metadata = self.records[write.conversation_id].metadata
            self.upset(write.conversation_id, metadata=rules.merged(metadata, write.metadata))
        return answer


@caught_by("test_table[amend metadata]")
class TimesRunBack(Upset):
    """`updated_at` is the clock's, also where that stands behind the last write."""

    async def amend(self, amend: Amend) -> int:
        version = await super().amend(amend)
        self.upset(amend.conversation_id, updated_at=self.now())
        return version


@caught_by("test_table[amend nothing]")
class NothingAmendedIsNoWrite(Plain):
    """A patch that changes nothing is no write."""

    async def amend(self, amend: Amend) -> int:
        standing = rules.seen(await self.read(amend.conversation_id), self.now(), amend.scope)
        if standing and not amend.metadata and amend.ttl is rules.UNSET and amend.expected is None:
            return standing.version
        return await super().amend(amend)


@caught_by("test_table[amend to what stands]")
class EqualPatchIsNoWrite(Plain):
    """A patch of values that stand there already is no write."""

    async def amend(self, amend: Amend) -> int:
        standing = rules.seen(await self.read(amend.conversation_id), self.now(), amend.scope)
        if standing and amend.metadata and rules.merged(standing.metadata, amend.metadata) == standing.metadata:
            return standing.version
        return await super().amend(amend)


@caught_by("test_table[amend to stay]")
class ToStayIsNotGiven(Plain):
    """An expiry of `None` counts as not given."""

    async def amend(self, amend: Amend) -> int:
        return await super().amend(amend if amend.ttl else replace(amend, ttl=rules.UNSET))


@caught_by("test_table[amend metadata]")
class AmendMakes(Plain):
    """A patch for what is not there makes it."""

    async def amend(self, amend: Amend) -> int:
        if rules.live(await self.read(amend.conversation_id), self.now()) is None and amend.scope is None:
            await self.store(Write(amend.conversation_id, replace=True, create=True))
        return await super().amend(amend)


@caught_by("test_table[store where none is]")
class VersionZeroIsNone(Plain):
    """`expected_version=0` counts as not given."""

    async def store(self, write: Write) -> WriteResult:
        return await super().store(replace(write, expected_version=write.expected_version or None))

    async def append(self, write: Write) -> WriteResult:
        return await super().append(replace(write, expected_version=write.expected_version or None))
