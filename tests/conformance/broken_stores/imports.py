"""Imports of many conversations that lose, double, mix or overwrite some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from broken_stores.sound import Plain, Provider, caught_by
from jaf_memory_core import ConversationMemory, MemoryError, Result, WriteResult, rules
from jaf_memory_core.records import Write

MOVES = ("active_at", "updated_at")

Outcomes = Sequence[WriteResult | MemoryError | None]


@caught_by("test_import_many")
class LosesTheLast(Plain):
    """Says of the last of many that it was done."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        if len(writes) == 1:
            return await super().append_many(writes)
        done = await super().append_many(writes[:-1])
        return [*done, WriteResult(1, len(writes[-1].messages), len(writes[-1].messages))]


@caught_by("test_import_none")
class NothingIsNone(Provider):
    """Answers nothing where there is nothing to do."""

    async def import_conversations(
        self, conversations: Sequence[ConversationMemory], *, only_missing: bool = False
    ) -> list[Result]:
        return await super().import_conversations(conversations, only_missing=only_missing) or None  # type: ignore[return-value]


@caught_by("test_import_many")
class AnswersInAnotherOrder(Plain):
    """Sorts what it is asked, and answers in that order."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many(sorted(writes, key=lambda write: write.conversation_id))


@caught_by("test_import_many_times")
class OneExpiryForAll(Plain):
    """Takes the times of the first for all."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many([replace(write, origin=writes[0].origin) for write in writes])


@caught_by("test_import_many_again")
class MakesAllAnew(Plain):
    """Stores where it should append."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return [await self.store(replace(write, replace=True)) for write in writes]


@caught_by("test_import_without_messages")
class TakesMetadataAnyway(Plain):
    """Merges what an import without messages brings, whatever stands there."""

    async def append(self, write: Write) -> WriteResult:
        if write.origin is not None and not write.messages:
            write = replace(write, expected_version=None)
        return await super().append(write)


@caught_by("test_import_many_adds_the_rest")
class PassesOverWhatStands(Plain):
    """Takes a conversation that stands for one that is whole."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        outcomes: list[WriteResult | MemoryError | None] = []
        for write in writes:
            standing = await self.read(write.conversation_id)
            outcomes += (
                await super().append_many([write])
                if standing is None
                else [WriteResult(standing.version, standing.message_count, 0)]
            )
        return outcomes


@caught_by("test_import_one_id_twice")
class LastOfOneId(Plain):
    """Does only the last of several to one conversation."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        last = {write.conversation_id: write for write in writes}
        answers = dict(zip(last, await super().append_many(list(last.values())), strict=True))
        return [answers[write.conversation_id] for write in writes]


@caught_by("test_one_refusal_among_many")
class OneForAll(Plain):
    """Does none if one is refused."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        before = dict(self.records)
        outcomes = await super().append_many(writes)
        refusal = next((outcome for outcome in outcomes if isinstance(outcome, MemoryError)), None)
        if refusal is None:
            return outcomes
        self.records = before
        return [refusal] * len(writes)


@caught_by("test_import_many_for_one_user")
class ImportsIntoAnothers(Plain):
    """Forgets in bulk whose view it is."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many([replace(write, scope=None) for write in writes])


@caught_by("test_import_long_among_short")
class CutsLongOnes(Provider):
    """Imports only the first call's worth of each."""

    async def import_conversations(
        self, conversations: Sequence[ConversationMemory], *, only_missing: bool = False
    ) -> list[Result]:
        most = self.config.max_append_messages
        cut = [replace(one, messages=one.messages[:most]) for one in conversations]
        return await super().import_conversations(cut, only_missing=only_missing)


@caught_by("test_import_many_capped")
class ForgetsThatItCut(Plain):
    """Does not note in bulk that a cap has left out messages."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many([replace(write, dropped=0) for write in writes])


@caught_by("test_import_only_missing")
class AddsToWhatStands(Plain):
    """Passes over the expected version in bulk."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many([replace(write, expected_version=None) for write in writes])


class _Looks(Plain):
    """Looks what is there, and goes by that a little later."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        missing = [write.conversation_id not in self.records for write in writes]
        await asyncio.sleep(0.02)  # whoever began at the same time has looked, too
        outcomes: list[WriteResult | MemoryError | None] = []
        for write, new in zip(writes, missing, strict=True):
            if new:
                self.records[write.conversation_id], result = rules.written(None, write, self.now())
                outcomes.append(result)
            else:
                outcomes += await super().append_many([write])
        return outcomes


@caught_by("test_concurrent_imports")
class BothMakeIt(_Looks):
    """Makes what another has made meanwhile."""


@caught_by("test_import_beside_appends")
class MakesOverAnAppend(_Looks):
    """Makes what an append has made meanwhile."""


@caught_by("test_same_appends")
class OtherInBulk(Plain):
    """Makes in bulk what an append alone would not find."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        if not any(write.conversation_id in self.records for write in writes):
            writes = [replace(write, create=True) for write in writes]
        return await super().append_many(writes)


def _of_now(write: Write) -> Write:
    return write if write.origin is None else replace(write, origin=replace(write.origin, **dict.fromkeys(MOVES)))


@caught_by("test_a_list_is_the_same_after_a_move[one by one]")
class ImportsAreOfNow(Plain):
    """What is imported counts as active now."""

    async def append(self, write: Write) -> WriteResult:
        return await super().append(_of_now(write))


@caught_by("test_a_list_is_the_same_after_a_move[together]")
class ManyImportsAreOfNow(Plain):
    """What is imported together counts as active now."""

    async def append_many(self, writes: Sequence[Write]) -> Outcomes:
        return await super().append_many(list(map(_of_now, writes)))


@caught_by("test_a_list_is_the_same_after_a_move[with an expiry]")
class EndingImportsAreOfNow(Plain):
    """What is imported with an expiry counts as active now."""

    async def append(self, write: Write) -> WriteResult:
        return await super().append(_of_now(write) if write.origin and write.origin.expires_at else write)


@caught_by("test_import_of_one_time")
class NeedsBothTimes(Plain):
    """Keeps the times of an import only where both are given."""

    async def append(self, write: Write) -> WriteResult:
        origin = write.origin
        whole = origin is not None and None not in (origin.active_at, origin.updated_at)
        return await super().append(write if whole else _of_now(write))


@caught_by("test_no_time_runs_back_by_an_import")
class ImportsTurnTimesBack(Plain):
    """An import gives its times to what stands there, too."""

    async def append(self, write: Write) -> WriteResult:
        standing = write.conversation_id in self.records
        answer = await super().append(write)
        times = rules.times_of(write.origin)
        if standing and times:
            record = self.records[write.conversation_id]
            self.records[write.conversation_id] = replace(record, active_at=times[0], updated_at=times[1])
        return answer


@caught_by("test_an_import_goes_on[in parts]")
class PartsAreOfNow(Plain):
    """Of an import in several parts only the first has its times; the others are of now."""

    async def append(self, write: Write) -> WriteResult:
        return await super().append(_of_now(write) if write.conversation_id in self.records else write)


@caught_by("test_an_import_goes_on[changed since]")
class PartsAreAlwaysOfThen(Plain):
    """An import that goes on leaves the times, whoever has written meanwhile."""

    async def append(self, write: Write) -> WriteResult:
        before = self.records.get(write.conversation_id)
        answer = await super().append(write)
        if before is not None and write.origin is not None:
            record = self.records[write.conversation_id]
            times = {name: getattr(before, name) for name in MOVES}
            self.records[write.conversation_id] = replace(record, **times)
        return answer
