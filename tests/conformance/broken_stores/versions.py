"""Versions, incarnations, owners and metadata that go wrong."""

from __future__ import annotations

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import (
    MemoryConflictError,
    WriteResult,
    rules,
)
from jaf_memory_core.records import Amend, Record, Stamp, Truncate, Write
from jaf_memory_core.values import FrozenDict


@caught_by("test_all_held_writes_nothing")
class RetryWrites(Plain):
    """Counts a version for a retry."""

    async def append(self, write: Write) -> WriteResult:
        answer = await super().append(write)
        if not answer.added:
            await self.amend(Amend(write.conversation_id))
        return answer


@caught_by("test_each_write_is_one_version")
class VersionStandsStill(Plain):
    """Forgets the version when metadata changes."""

    async def amend(self, amend: Amend) -> int:
        version = await super().amend(amend)
        self.records[amend.conversation_id] = replace(self.records[amend.conversation_id], version=version - 1)
        return version - 1


@caught_by("test_expected_version_that_does_not_stand[3]")
class VersionNotLookedAt(Plain):
    """Writes at any version."""

    async def store(self, write: Write) -> WriteResult:
        return await super().store(replace(write, expected_version=None))


@caught_by("test_changes_expect_a_version[3]")
class VersionOfAmendsNotLookedAt(Plain):
    """Changes metadata at any version."""

    async def amend(self, amend: Amend) -> int:
        return await super().amend(replace(amend, expected_version=None))


@caught_by("test_changes_expect_a_version[3]")
class VersionOfCutsNotLookedAt(Plain):
    """Cuts off at any version."""

    async def truncate(self, truncate: Truncate) -> int:
        return await super().truncate(replace(truncate, expected_version=None))


@caught_by("test_changes_expect_a_version[3]")
class VersionOfRemovalsNotLookedAt(Plain):
    """Deletes at any version."""

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        del expected_version
        return await super().remove(conversation_id, scope=scope)


@caught_by("test_changes_expect_a_version[0]")
class VersionToldToAnybody(Plain):
    """Tells of the version also whom the conversation does not concern."""

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        record = await self.read(conversation_id)
        if record is not None:
            rules.expect_version(conversation_id, expected_version, record.version)
        return await super().remove(conversation_id, scope=scope, expected_version=expected_version)


@caught_by("test_keys_taken_out")
class KeysStay(Plain):
    """Takes no key out of metadata."""

    async def amend(self, amend: Amend) -> int:
        return await super().amend(replace(amend, removed=()))


@caught_by("test_keys_taken_out")
class KeysWithoutCase(Plain):
    """Takes out keys that differ in case, too."""

    async def amend(self, amend: Amend) -> int:
        gone = {key.casefold() for key in amend.removed}
        record = await self.read(amend.conversation_id)
        alike = [key for key in (record.metadata if record else ()) if key.casefold() in gone]
        return await super().amend(replace(amend, removed=(*amend.removed, *alike)))


@caught_by("test_idempotence_is_looked_at_first")
class VersionLookedAtFirst(Plain):
    """Refuses the retry of an append that went through."""

    async def append(self, write: Write) -> WriteResult:
        record = await self.read(write.conversation_id)
        if record and write.expected_version not in (None, record.version):
            raise MemoryConflictError("other version")
        return await super().append(write)


@caught_by("test_another_incarnation")
class IncarnationOfTheId(Plain):
    """Derives the incarnation from the id."""

    async def store(self, write: Write) -> WriteResult:
        return await super().store(replace(write, incarnation=write.conversation_id.encode().hex()))


@caught_by("test_write_expects")
class WriteByVersion(Plain):
    """Compares the version alone before it writes."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        standing = self.records.get(record.conversation_id)
        if (standing and standing.version) != (expected and expected.version):
            return False
        self.records[record.conversation_id] = record
        return True


@caught_by("test_delete_expects")
class DeleteByVersion(Plain):
    """Compares the version alone before it deletes."""

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        standing = self.records.get(conversation_id)
        if standing is None or standing.version != expected.version:
            return False
        del self.records[conversation_id]
        return True


@caught_by("test_created_at_stays")
class CreatedAnew(Plain):
    """Moves `created_at` when a conversation is stored again."""

    async def store(self, write: Write) -> WriteResult:
        answer = await super().store(write)
        record = self.records[write.conversation_id]
        self.records[write.conversation_id] = replace(record, created_at=record.updated_at)
        return answer


@caught_by("test_merged_by_top_level_key")
class MetadataReplaced(Plain):
    """Puts new metadata in the place of all of the old."""

    async def store(self, write: Write) -> WriteResult:
        answer = await super().store(write)
        if write.metadata:
            record = self.records[write.conversation_id]
            self.records[write.conversation_id] = replace(record, metadata=write.metadata)
        return answer


@caught_by("test_merged_by_top_level_key")
class MetadataMergedDeep(Plain):
    """Merges objects within metadata."""

    async def store(self, write: Write) -> WriteResult:
        record = await self.read(write.conversation_id)
        old = record.metadata if record else {}
        deep = {
            key: FrozenDict({**old[key], **value})
            if isinstance(value, dict) and isinstance(old.get(key), dict)
            else value
            for key, value in write.metadata.items()
        }
        return await super().store(replace(write, metadata=FrozenDict(deep)))


@caught_by("test_owner_never_changes")
class OwnerChanges(Plain):
    """Gives a conversation to whoever writes."""

    async def store(self, write: Write) -> WriteResult:
        record = self.records.get(write.conversation_id)
        if record and write.user_id and write.scope is None:
            self.records[write.conversation_id] = replace(record, user_id=write.user_id)
        return await super().store(write)


@caught_by("test_owner_given_later[append]")
class OwnerOfTheFirstWrite(Plain):
    """Takes an owner at creation only."""

    async def append(self, write: Write) -> WriteResult:
        known = write.conversation_id in self.records
        return await super().append(replace(write, user_id=None) if known and write.scope is None else write)
