"""What others see, and what outlives its end: users, deletes, expiry, caps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from broken_stores.sound import Plain, Provider, caught_by
from jaf_memory_core import (
    ConversationMemory,
    MemoryQuery,
    WriteResult,
    codec,
    rules,
)
from jaf_memory_core.records import Amend, Page, Record, Stamp, Stats, Tail, Write
from jaf_memory_core.values import FrozenDict


@caught_by("test_by_user")
class LeakBetweenUsers(Provider):
    """Finds anybody's conversations."""

    async def find_conversations(self, query: MemoryQuery) -> list[ConversationMemory]:
        return await super().find_conversations(replace(query, user_id=None))


@caught_by("test_users_never_meet")
class UsersFolded(Plain):
    """Compares users without their case, and knows one of them."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(replace(query, user_id=None))
        user = (query.user_id or "").casefold()
        return [record for record in found if user in ("", (record.user_id or "").casefold())][:1]


@caught_by("test_others_are_not_there[theirs]")
class ScopeForgotten(Plain):
    """Shows recent messages to anybody."""

    async def tail(self, tail: Tail) -> Page | None:
        return await super().tail(replace(tail, scope=None))


@caught_by("test_storing_anothers_is_a_conflict[theirs]")
class ScopeCheckedAfterwards(Plain):
    """Writes, and then looks whose conversation it is."""

    async def store(self, write: Write) -> WriteResult:
        record = await self.read(write.conversation_id)
        answer = await super().store(replace(write, scope=None, user_id=None if record else write.user_id))
        if record and write.scope not in (None, record.user_id):
            raise rules.other_owner(write.conversation_id)
        return answer


@caught_by("test_owner_given_later_is_found")
class IndexForgotten(Plain):
    """Enters a conversation into the index of users when it is made, and never again."""

    def __init__(self) -> None:
        super().__init__()
        self._index: dict[str, str | None] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self._index.setdefault(record.conversation_id, record.user_id)
        return await super().write(record, expected=expected)

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = await super().find(query)
        return [record for record in found if query.user_id in (None, self._index[record.conversation_id])]


@caught_by("test_gone_is_not_found")
class IndexNotCleared(Plain):
    """Finds what was deleted."""

    def __init__(self) -> None:
        super().__init__()
        self._gone: list[Record] = []

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        record = self.records.get(conversation_id)
        deleted = await super().delete(conversation_id, expected=expected)
        self._gone += [record] if record and deleted else []
        return deleted

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return [*await super().find(query), *self._gone]


@caught_by("test_made_again_starts_empty")
class MetadataOutlives(Plain):
    """Leaves metadata behind when it deletes, and finds it again."""

    def __init__(self) -> None:
        super().__init__()
        self._metadata: dict[str, FrozenDict] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        merged = rules.merged(self._metadata.get(record.conversation_id, FrozenDict()), record.metadata)
        self._metadata[record.conversation_id] = merged
        return await super().write(replace(record, metadata=merged), expected=expected)


@caught_by("test_many_of_one_moment")
class ClearsOnePage(Plain):
    """Clears the first thousand."""

    async def forget_user(self, user_id: str) -> int:
        owned = [key for key, record in self.records.items() if record.user_id == user_id][:1000]
        return sum([await self.remove(key) for key in owned])


@caught_by("test_clear_of_the_former_owner[deleted]")
class ClearsWhatWasTheirs(Plain):
    """Clears by an index of users that nothing is ever taken out of."""

    def __init__(self) -> None:
        super().__init__()
        self._of_user: dict[str, dict[str, None]] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        if record.user_id is not None:
            self._of_user.setdefault(record.user_id, {})[record.conversation_id] = None
        return await super().write(record, expected=expected)

    async def forget_user(self, user_id: str) -> int:
        return sum([await self.remove(key) for key in self._of_user.get(user_id, ()) if key in self.records])


@caught_by("test_users")
class UsersOfWhatAllLives(Plain):
    """Leaves out a user one of whose conversations has expired."""

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        now = self.now()
        owners = {record.user_id for record in self.records.values() if record.user_id is not None}
        gone = {record.user_id for record in self.records.values() if not rules.live(record, now)}
        return sorted(one for one in owners - gone if one > after)[:limit]


@caught_by("test_clear_expired")
class ClearLeavesExpired(Plain):
    """Leaves what has expired when it clears a user."""

    async def forget_user(self, user_id: str) -> int:
        now = self.now()
        owned = [key for key, record in self.records.items() if record.user_id == user_id and rules.live(record, now)]
        return sum([await self.remove(key) for key in owned])


@caught_by("test_writers_under_way[delete]")
class Resurrects(Plain):
    """Lets a write that was under way bring back what was deleted."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        await asyncio.sleep(0.005)  # longer than the check waits before it deletes: it always meets one under way
        if expected is not None and record.conversation_id not in self.records:
            self.records[record.conversation_id] = record
            return True
        return await super().write(record, expected=expected)


@caught_by("test_reads_find_nothing")
class ExpiredIsFound(Plain):
    """Finds what has expired."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        found = [record async for record in self.scan(query) if rules.matches(record, query)]
        return sorted(found, key=rules.activity_key, reverse=True)[query.offset :][: query.limit]


@caught_by("test_writes_find_nothing")
class ExpiredIsAppendedTo(Plain):
    """Appends to what has expired."""

    async def append(self, write: Write) -> WriteResult:
        record = self.records.get(write.conversation_id)
        if record and record.expires_at:
            self.records[write.conversation_id] = replace(record, expires_at=None)
        return await super().append(write)


@caught_by("test_starts_anew[store]")
class ExpiredIsReplaced(Plain):
    """Stores over what has expired, as if it stood there."""

    async def store(self, write: Write) -> WriteResult:
        record = self.records.get(write.conversation_id)
        if record and record.expires_at:
            self.records[write.conversation_id] = replace(record, expires_at=None, user_id=write.user_id)
            write = replace(write, expected_version=None)
        return await super().store(write)


@caught_by("test_expired_does_not_count")
class ExpiredIsCounted(Plain):
    """Counts what has expired."""

    async def stats(self, user_id: str | None) -> Stats:
        records = [record for record in self.records.values() if user_id in (None, record.user_id)]
        created = [record.created_at for record in records]
        return Stats(
            conversations=len(records),
            messages=sum(record.message_count for record in records),
            size=codec.size(codec.encode(message) for record in records for message in record.messages),
            oldest=min(created, default=None),
            newest=max(created, default=None),
        )


@caught_by("test_writes_renew[update]")
class MetadataRenewsNothing(Plain):
    """Leaves the expiry as it is when metadata changes."""

    async def amend(self, amend: Amend) -> int:
        before = self.records.get(amend.conversation_id)
        version = await super().amend(amend)
        if before and amend.metadata:
            after = self.records[amend.conversation_id]
            self.records[amend.conversation_id] = replace(after, expires_at=before.expires_at)
        return version


@caught_by("test_purge")
class PurgesAll(Plain):
    """Purges whatever has an expiry."""

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        doomed = [key for key, record in self.records.items() if record.expires_at and scope in (None, record.user_id)]
        for key in doomed[:limit]:
            del self.records[key]
        return len(doomed[:limit])


@caught_by("test_append_drops_the_oldest")
class CapKeepsTheOldest(Plain):
    """Keeps the oldest messages under a cap."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(replace(write, max_messages=None))
        record = self.records[write.conversation_id]
        kept = record.messages[: write.max_messages]
        self.records[write.conversation_id] = replace(record, messages=kept, message_count=len(kept))
        return WriteResult(answer.version, len(kept), answer.added)


@caught_by("test_old_before_held")
class CapForgets(Plain):
    """Adds again what a cap has removed."""

    async def append(self, write: Write) -> WriteResult:
        record = self.records.get(write.conversation_id)
        if record:
            self.records[write.conversation_id] = replace(record, trimmed=False)
        return await super().append(write)


class Remembering(Plain):
    """Keeps copies where it should keep none."""

    def __init__(self) -> None:
        super().__init__()
        self._copies: list[Record] = []


@caught_by("test_nothing_of_it_is_kept")
class KeepsTheDeleted(Remembering):
    """Moves what is deleted to a place of its own."""

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        self._copies += [self.records[conversation_id]] if conversation_id in self.records else []
        return await super().delete(conversation_id, expected=expected)


@caught_by("test_nothing_of_a_user_is_kept")
class KeepsTheCleared(Remembering):
    """Moves what is cleared to a place of its own."""

    async def forget_user(self, user_id: str) -> int:
        self._copies += [record for record in self.records.values() if record.user_id == user_id]
        return await super().forget_user(user_id)


@caught_by("test_nothing_of_replaced_is_kept")
class KeepsTheReplaced(Remembering):
    """Keeps every version."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self._copies.append(record)
        return await super().write(record, expected=expected)


@caught_by("test_clear_beside_writers")
class ClearsWhatStoodStill(Plain):
    """Clears what nobody writes to at that moment."""

    async def forget_user(self, user_id: str) -> int:
        owned = [record for record in self.records.values() if record.user_id == user_id]
        await asyncio.sleep(0)
        return sum([await self.delete(record.conversation_id, expected=record.stamp) for record in owned])
