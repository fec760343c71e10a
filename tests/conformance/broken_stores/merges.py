"""Metadata and owners that are merged by other rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryInvalidInputError, WriteResult, rules
from jaf_memory_core.records import Amend, Record, Stamp, Write
from jaf_memory_core.values import FrozenDict


class Labelled(Plain):
    """Merges metadata in a way of its own."""

    @staticmethod
    def labels(patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is merged in."""
        return patch

    async def amend(self, amend: Amend) -> int:
        patch = self.labels(amend.metadata)
        return await super().amend(replace(amend, metadata=FrozenDict(patch)))

    async def append(self, write: Write) -> WriteResult:
        patch = self.labels(write.metadata)
        return await super().append(replace(write, metadata=FrozenDict(patch)))


@caught_by("test_table[amend metadata]")
class NullIsNotMerged(Labelled):
    """A patch leaves a key alone where its value is null."""

    @staticmethod
    def labels(patch: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: value for key, value in patch.items() if value is not None}


@caught_by("test_table[amend to empty values]")
class EmptyIsNotMerged(Labelled):
    """A patch leaves a key alone where its value is empty."""

    @staticmethod
    def labels(patch: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: value for key, value in patch.items() if value or value is None or isinstance(value, int | float)}


@caught_by("test_bytes_of_metadata")
class CountsMetadataItself(Plain):
    """Metadata that is too large is refused, and the error does not say by which limit."""

    async def amend(self, amend: Amend) -> int:
        try:
            return await super().amend(amend)
        except MemoryInvalidInputError as error:
            raise MemoryInvalidInputError(str(error)) from None


@caught_by("test_table[amend metadata]")
class NullRemovesAKey(Plain):
    """A null in a patch removes the key, as in a merge patch."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        if expected is None:
            return await super().write(record, expected=expected)
        rest = {key: value for key, value in record.metadata.items() if value is not None}
        return await super().write(replace(record, metadata=FrozenDict(rest)), expected=expected)


class Storing(Plain):
    """A store of which the header is not what it should be."""

    @staticmethod
    def changed(after: Record, write: Write) -> Record:
        """What stands in the place of the record."""
        raise NotImplementedError

    async def store(self, write: Write) -> WriteResult:
        def change(record: Record | None, write: Write, now: datetime) -> tuple[Record, WriteResult]:
            after, answer = rules.written(record, write, now)
            return self.changed(after, write), answer

        return await self.by(write, change)


@caught_by("test_table[store]")
class StoreMergesNothing(Storing):
    """A store over what stands takes away its metadata."""

    @staticmethod
    def changed(after: Record, write: Write) -> Record:
        return replace(after, metadata=write.metadata)


@caught_by("test_table[store]")
class StoreTakesTheOwner(Storing):
    """A store that names no owner leaves the conversation to nobody."""

    @staticmethod
    def changed(after: Record, write: Write) -> Record:
        return replace(after, user_id=write.user_id)
