"""Times that are cut, shifted or compared at the wrong side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryQuery, pages
from jaf_memory_core.records import Page, Record, Stamp, Stats, Tail

INDIA = timezone(timedelta(hours=5, minutes=30))


def _cut(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@caught_by("test_record_field[created_at]")
class Milliseconds(Plain):
    """Times are kept in milliseconds."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        created, updated = _cut(record.created_at), _cut(record.updated_at)
        assert created
        assert updated
        cut = replace(record, created_at=created, updated_at=updated, expires_at=_cut(record.expires_at))
        return await super().write(cut, expected=expected)


@caught_by("test_record_field[created_at]")
class TimesWithoutAZone(Plain):
    """Times come back naive."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        return record and replace(record, created_at=record.created_at.replace(tzinfo=None))


@caught_by("test_record_field[created_at]")
class TimesOfAnotherZone(Plain):
    """Times come back in local time: the same moments, with another offset."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        if record is None:
            return None
        return replace(
            record, created_at=record.created_at.astimezone(INDIA), updated_at=record.updated_at.astimezone(INDIA)
        )


@caught_by("test_record_field[updated_at]")
class TimesAreFloats(Plain):
    """Times are kept as seconds in a float, which cannot hold all microseconds of distant years."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        updated = datetime.fromtimestamp(record.updated_at.timestamp(), UTC)
        return await super().write(replace(record, updated_at=updated), expected=expected)


@caught_by("test_record_field[ttl]")
class TtlInWholeSeconds(Plain):
    """A time to live is kept in whole seconds."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        ttl = None if record.ttl is None else float(int(record.ttl))
        return await super().write(replace(record, ttl=ttl), expected=expected)


@caught_by("test_record_field[expires_at]")
class EndsIn2038(Plain):
    """Seconds since 1970 in 32 bits: what expires later expires in 2038."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        last = datetime.fromtimestamp(2**31 - 1, UTC)
        expires = record.expires_at and min(record.expires_at, last)
        return await super().write(replace(record, expires_at=expires), expected=expected)


@caught_by("test_record_field[expires_at]")
class LiveAtItsEnd(Plain):
    """A conversation is still there at the very moment at which it expires."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        if record is None or record.expires_at is None:
            return record
        return replace(record, expires_at=record.expires_at + timedelta(microseconds=1))


@caught_by("test_at_its_very_end")
class FoundAtItsEnd(Plain):
    """A search finds what expires at this very moment."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        late = {key: one for key, one in self.records.items() if one.expires_at}
        try:
            for key, one in late.items():
                assert one.expires_at
                self.records[key] = replace(one, expires_at=one.expires_at + timedelta(microseconds=1))
            return [self.records[key] for key in [one.conversation_id for one in await super().find(query)]]
        finally:
            self.records.update(late)


@caught_by("test_at_its_very_end")
class CountedAtItsEnd(Plain):
    """The counts have what expires at this very moment."""

    async def stats(self, user_id: str | None) -> Stats:
        class Later(Plain):
            async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
                for one in records:
                    later = one.expires_at and one.expires_at + timedelta(microseconds=1)
                    yield replace(one, expires_at=later)

        records, counted = list(self.records.values()), Later()
        counted.now = self.now  # type: ignore[method-assign]
        return await counted.stats(user_id)


@caught_by("test_at_its_very_end")
class PurgedAfterItsEnd(Plain):
    """A purge leaves what expires at this very moment."""

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        now = self.now()
        held = {key: one for key, one in self.records.items() if one.expires_at == now}
        for key in held:
            del self.records[key]
        self_now, self.now = self.now, lambda: now  # type: ignore[method-assign]
        try:
            return await super().purge(limit, scope=scope)
        finally:
            self.now = self_now  # type: ignore[method-assign]
            self.records.update(held)


@caught_by("test_at_its_very_end")
class ReadAtItsEnd(Plain):
    """A page shows what expires at this very moment."""

    async def tail(self, tail: Tail) -> Page | None:
        record, now = await self.read(tail.conversation_id), self.now()
        if record is None or (tail.scope is not None and record.user_id != tail.scope):
            return None
        return None if record.expires_at is not None and record.expires_at < now else pages.page(record, tail)
