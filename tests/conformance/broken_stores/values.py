"""Values and ids that are changed on their way."""

from __future__ import annotations

import unicodedata
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import (
    Message,
)
from jaf_memory_core.records import Amend, Record, Stamp
from jaf_memory_core.values import FrozenDict


class Changed(Plain):
    """Changes values on their way into the store."""

    @staticmethod
    def change(value: Any) -> Any:
        return value

    def _deep(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self.change({self.change(key): self._deep(item) for key, item in value.items()})
        if isinstance(value, list | tuple):
            return [self._deep(item) for item in value]
        return self.change(value)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        messages = tuple(Message(**self._deep(message.dict())) for message in record.messages)
        metadata = FrozenDict(self._deep(dict(record.metadata)))
        return await super().write(replace(record, messages=messages, metadata=metadata), expected=expected)


@caught_by("test_value_in_a_message[whole-floats]")
class WholeFloatsAreIntegers(Changed):
    """Turns 1.0 into 1."""

    @staticmethod
    def change(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value


@caught_by("test_value_in_metadata[minus-zero]")
class MinusZeroIsZero(Changed):
    """Turns -0.0 into 0.0."""

    @staticmethod
    def change(value: Any) -> Any:
        return value + 0.0 if isinstance(value, float) else value


@caught_by("test_value_in_metadata[key-order]")
class KeysSorted(Changed):
    """Sorts the keys of objects."""

    @staticmethod
    def change(value: Any) -> Any:
        return dict(sorted(value.items())) if isinstance(value, dict) else value


@caught_by("test_value_in_a_message[nul]")
class NulLeftOut(Changed):
    """Leaves out NUL."""

    @staticmethod
    def change(value: Any) -> Any:
        return value.replace("\0", "") if isinstance(value, str) else value


@caught_by("test_value_in_a_message[high-surrogate]")
class SurrogatesReplaced(Changed):
    """Replaces what UTF-8 cannot encode."""

    @staticmethod
    def change(value: Any) -> Any:
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@caught_by("test_value_in_metadata[two-normal-forms]")
class Normalized(Changed):
    """Normalizes texts."""

    @staticmethod
    def change(value: Any) -> Any:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


@caught_by("test_value_in_metadata[2^70]")
class IntegersAsFloats(Changed):
    """Keeps large integers as floats."""

    @staticmethod
    def change(value: Any) -> Any:
        large = type(value) is int and 2**64 < abs(value) < 2**1000
        return float(value) if large else value


@caught_by("test_every_field_is_kept")
class FurtherFieldsDropped(Plain):
    """Keeps the fields that it knows."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        known = [replace(message, further=FrozenDict()) for message in record.messages]
        return await super().write(replace(record, messages=tuple(known)), expected=expected)


@caught_by("test_what_is_returned_is_read_only")
class ShowsItsOwnDict(Plain):
    """Hands out metadata that can be changed."""

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(conversation_id)
        return record and replace(record, metadata=dict(record.metadata))  # type: ignore[arg-type]


@caught_by("test_marks_within_the_limit")
class MergesLists(Plain):
    """Adds to a list in the metadata, where a patch takes its place."""

    async def amend(self, amend: Amend) -> int:
        stood = await self.read(amend.conversation_id)
        held = {} if stood is None else stood.metadata
        grown = {
            key: [*held[key], *value]
            for key, value in amend.metadata.items()
            if isinstance(value, list) and isinstance(held.get(key), list)
        }
        return await super().amend(replace(amend, metadata=FrozenDict({**amend.metadata, **grown})))


class Folded(Plain):
    """Keeps conversations under something else than their very id."""

    @staticmethod
    def fold(conversation_id: str) -> str:
        return conversation_id

    async def read(self, conversation_id: str) -> Record | None:
        return await super().read(self.fold(conversation_id))

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        key = self.fold(record.conversation_id)
        return await super().write(replace(record, conversation_id=key), expected=expected)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        return await super().delete(self.fold(conversation_id), expected=expected)


@caught_by("test_ids_never_meet")
class CaseFolded(Folded):
    """Folds case."""

    fold = staticmethod(str.casefold)


@caught_by("test_appends_never_meet")
class Stripped(Folded):
    """Strips white space, as CHAR columns do."""

    fold = staticmethod(str.strip)


@caught_by("test_ids_never_meet")
class CutShort(Folded):
    """Cuts long ids."""

    @staticmethod
    def fold(conversation_id: str) -> str:
        return conversation_id[:63]


@caught_by("test_ids_that_are_missing")
class Globs(Plain):
    """Takes an id for a pattern."""

    async def read(self, conversation_id: str) -> Record | None:
        if conversation_id.endswith("*"):
            matching = [key for key in self.records if key.startswith(conversation_id[:-1])]
            return self.records[matching[0]] if matching else None
        return await super().read(conversation_id)


@caught_by("test_clear_users_that_look_alike")
class ClearsByPrefix(Plain):
    """Clears every user whose id begins so."""

    async def forget_user(self, user_id: str) -> int:
        users = {record.user_id for record in self.records.values() if (record.user_id or "").startswith(user_id)}
        return sum([await super(ClearsByPrefix, self).forget_user(user) for user in users if user])
