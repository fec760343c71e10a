"""What cannot be read, dealt with wrongly: not named, read in part, in everybody's way, or there for ever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jaf_memory_testing import Target
from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryQuery, MemoryStorageError, WriteResult, documents, rules
from jaf_memory_core.records import Damaged, Fork, Page, Record, Stamp, Stats, Tail, Write


class Documents(Plain):
    """A dict of documents, each of which can be damaged, and an index of owners."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, bytes] = {}
        self.owned_by: dict[str, str | None] = {}

    @classmethod
    def target(cls, _folder: Path) -> Target:
        store = cls()
        damage = {
            "a message": partial(store.spoil, b'"role":"user"', b'"role":5'),
            "cut off": partial(store.spoil, b"}}", b""),
            "a newer format": partial(store.spoil, b'"format":', b'"format":3'),
        }
        return Target(open=partial(cls._open, store), dump=store.dump, damage=damage, newer=damage["a newer format"])

    async def spoil(self, old: bytes, new: bytes, conversation_id: str) -> None:
        """Damage a document, behind everybody's back."""
        self.bodies[conversation_id] = new.join(self.bodies[conversation_id].rsplit(old, 1))

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        """Read a document."""
        return documents.decode_record(body, conversation_id)

    def standing(self, conversation_id: str) -> Record | None:
        """What stands there."""
        body = self.bodies.get(conversation_id)
        return None if body is None else self.decode(body, conversation_id)

    async def read(self, conversation_id: str) -> Record | None:
        await self.reach()
        return self.standing(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        await self.reach()
        standing = self.standing(record.conversation_id)
        if (standing and standing.stamp) != expected:
            return False
        self.bodies[record.conversation_id] = documents.encode_record(record)
        self.owned_by[record.conversation_id] = record.user_id
        return True

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        await self.reach()
        standing = self.standing(conversation_id)
        if standing is None or standing.stamp != expected:
            return False
        self.drop(conversation_id)
        return True

    def drop(self, conversation_id: str) -> None:
        """Take a document out, whatever it holds."""
        del self.bodies[conversation_id], self.owned_by[conversation_id]

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        await self.reach()
        above = rules.creation_cursor(query)
        found = [self.found(key) for key in self.bodies]
        for one in sorted(filter(None, found), key=_place):
            if above is None or _place(one) > above:
                yield one

    def found(self, conversation_id: str) -> Record | Damaged | None:
        """What a listing has of it."""
        try:
            return self.standing(conversation_id)
        except MemoryStorageError as error:
            return Damaged(error)

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        await self.reach()
        if conversation_id not in self.bodies or scope not in (None, self.owned_by[conversation_id]):
            return False
        found = self.found(conversation_id)
        if isinstance(found, Record) and rules.live(found, self.now()) is not None:
            rules.expect_version(conversation_id, expected_version, found.version)
        self.drop(conversation_id)
        return isinstance(found, Damaged) or rules.live(found, self.now()) is not None

    async def forget_user(self, user_id: str) -> int:
        owned = [key for key, owner in self.owned_by.items() if owner == user_id]
        return sum([await self.remove(key) for key in owned])


def _place(one: Record | Damaged) -> tuple[datetime, str]:
    if isinstance(one, Damaged):
        return datetime.min.replace(tzinfo=UTC), one.error.conversation_id or ""
    return rules.creation_key(one)


@caught_by("test_table_of_the_damaged[store]")
class UnnamedDamage(Documents):
    """An error that does not say which conversation is damaged."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        return documents.decode_record(body)


@caught_by("test_table_of_the_damaged[amend]")
class TellsTheDamaged(Documents):
    """An error that shows what cannot be read."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        try:
            return documents.decode_record(body, conversation_id)
        except MemoryStorageError:
            raise MemoryStorageError(f"cannot be read: {body!r}", conversation_id=conversation_id) from None


@caught_by("test_table_of_the_damaged[remove]")
class DriversErrorOfTheDamaged(Documents):
    """What a decoder raises reaches the caller as it is."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        json.loads(body)
        return documents.decode_record(body, conversation_id)


@caught_by("test_table_of_the_damaged[truncate]")
class ReadsInPart(Documents):
    """A conversation whose messages cannot all be read is shown as a shorter one."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        try:
            return documents.decode_record(body, conversation_id)
        except MemoryStorageError:
            if not body.endswith(b"}}"):
                raise
        whole = json.loads(body)
        messages = [one for one in whole["record"]["messages"] if isinstance(one["role"], str)]
        whole["record"].update(messages=messages, message_count=len(messages))
        return documents.decode_record(json.dumps(whole), conversation_id)


@caught_by("test_table_of_the_damaged[fork]")
class DamagedIsMissing(Documents):
    """What cannot be read is not there."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        try:
            return documents.decode_record(body, conversation_id)
        except MemoryStorageError:
            return None


@caught_by("test_table_of_the_damaged[append]")
class AppendBeginsAnew(Documents):
    """An append to what cannot be read makes a conversation of the new messages alone."""

    async def append(self, write: Write) -> WriteResult:
        if isinstance(self.found(write.conversation_id), Damaged):
            self.drop(write.conversation_id)
            return await super().append(replace(write, create=True))
        return await super().append(write)


@caught_by("test_table_of_the_damaged[revise]")
class BlamesTheCaller(Documents):
    """What is damaged looks like a conflict, which another try would mend."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        try:
            return documents.decode_record(body, conversation_id)
        except MemoryStorageError as error:
            error.retryable = True
            raise


@caught_by("test_table_of_the_thinned_and_damaged[fork]")
class ForksWhatIsLeft(Documents):
    """Where single messages were deleted, a copy leaves out what cannot be read, as if that had gone as well."""

    forking = False

    async def fork(self, fork: Fork) -> int:
        self.forking = True
        try:
            return await super().fork(fork)
        finally:
            self.forking = False

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        record = documents.decode_record(body.replace(b'"role":5', b'"role":"user"'), conversation_id)
        if not self.forking or b'"role":5' not in body or not record.gaps:
            return super().decode(body, conversation_id)
        header = rules.ends_at(record, record.message_count - 1, record.end)
        return rules.placed(header, record.messages[:-1], record.positions[:-1])


@caught_by("test_listings_go_on")
class ScanEndsAtDamage(Documents):
    """A scan ends at what it cannot read."""

    def found(self, conversation_id: str) -> Record | Damaged | None:
        return self.standing(conversation_id)


@caught_by("test_listings_go_on")
class ScanLeavesDamageOut(Documents):
    """A scan leaves what it cannot read out without a word."""

    def found(self, conversation_id: str) -> Record | Damaged | None:
        try:
            return self.standing(conversation_id)
        except MemoryStorageError:
            return None


@caught_by("test_listings_go_on")
class ScanEndsBehindDamage(Documents):
    """A scan tells of the damage, and does not go on behind it."""

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        async for one in super().scan(query):
            yield one
            if isinstance(one, Damaged):
                return


@caught_by("test_damage_is_in_nobodys_way")
class CountsTheReadable(Documents):
    """What cannot be read is left out of the counts."""

    async def stats(self, user_id: str | None) -> Stats:
        kept = dict(self.bodies)
        self.bodies = {key: body for key, body in kept.items() if isinstance(self.found(key), Record)}
        counted = await super().stats(user_id)
        self.bodies = kept
        return counted


@caught_by("test_damage_is_in_nobodys_way")
class PurgeEndsAtDamage(Documents):
    """A purge ends at what it cannot read."""

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        for key in self.bodies:
            self.standing(key)
        return await super().purge(limit, scope=scope)


@caught_by("test_damage_is_in_nobodys_way")
class ErasureEndsAtDamage(Documents):
    """An erasure ends at the first conversation that it cannot read; those behind it stay."""

    async def forget_user(self, user_id: str) -> int:
        owned = [key for key, owner in self.owned_by.items() if owner == user_id]
        for key in owned:
            self.standing(key)
            self.drop(key)
        return len(owned)


@caught_by("test_damage_can_be_erased")
class DamageStays(Documents):
    """What cannot be read cannot be deleted."""

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        await self.read(conversation_id)
        return await super().remove(conversation_id, scope=scope, expected_version=expected_version)


@caught_by("test_damage_can_be_erased")
class ErasureLeavesDamage(Documents):
    """An erasure leaves what it cannot read, without a word."""

    async def forget_user(self, user_id: str) -> int:
        owned = [key for key, owner in self.owned_by.items() if owner == user_id]
        return sum([await self.remove(key) for key in owned if isinstance(self.found(key), Record)])


@caught_by("test_a_newer_format")
class ReadsTheNewer(Documents):
    """A newer format is read as if it were ours."""

    def decode(self, body: bytes, conversation_id: str) -> Record | None:
        return documents.decode_record(body.replace(b'{"format":3', b'{"format":', 1), conversation_id)


@caught_by("test_a_newer_format")
class ReplacesTheNewer(Documents):
    """A store in the place of what a newer version wrote."""

    async def store(self, write: Write) -> WriteResult:
        if isinstance(self.found(write.conversation_id), Damaged):
            self.drop(write.conversation_id)
        return await super().store(write)


@caught_by("test_last_messages_go_on")
class OneEndsTheLot(Documents):
    """Pages of several are read at once, and one that is damaged ends all of it."""

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        return [await self.tail(tail) for tail in tails]
