"""Filters that take other values for equal, as query languages do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryQuery, rules
from jaf_memory_core.records import Record


class Loose(Plain):
    """Finds by metadata and owner in a way of its own."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        """Whether two values of metadata are taken for equal."""
        return rules.codec.canonical(kept) == rules.codec.canonical(wanted)

    def holds(self, metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Whether metadata is taken to have what is wanted."""
        return all(key in metadata and self.same(metadata[key], wanted[key]) for key in wanted)

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        rest = replace(query, metadata=None, limit=None, offset=0)
        wanted = query.metadata or {}
        found = [one for one in await super().find(rest) if self.holds(rules.shown_metadata(one), wanted)]
        return found[query.offset : None if query.limit is None else query.offset + query.limit]


@caught_by("test_metadata_equality_is_type_exact")
class TrueIsOne(Loose):
    """Values are compared as Python does: `True == 1 == 1.0`."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        return bool(kept == wanted)


@caught_by("test_metadata_equality_is_type_exact")
class TrueIsOneInside(Loose):
    """Types are compared at the top, and what is within lists and objects as Python does."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        return type(kept) is type(wanted) and bool(kept == wanted)


@caught_by("test_metadata_equality_is_type_exact")
class AbsentIsNull(Loose):
    """What has no such key is found by `None`."""

    def holds(self, metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        return all(self.same(metadata.get(key), wanted[key]) for key in wanted)


@caught_by("test_metadata_equality_is_type_exact")
class NullIsUnknown(Loose):
    """Nothing is found by `None`, as in SQL nothing equals NULL."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        return kept is not None and Loose.same(kept, wanted)


@caught_by("test_metadata_equality_is_type_exact")
class ContainmentIsEquality(Loose):
    """An object is found by a part of it, and a list by any of its items, as `@>` does."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        if isinstance(kept, dict) and isinstance(wanted, dict):
            return all(key in kept and ContainmentIsEquality.same(kept[key], wanted[key]) for key in wanted)
        if isinstance(kept, list | tuple) and isinstance(wanted, list | tuple):
            return all(any(ContainmentIsEquality.same(one, item) for one in kept) for item in wanted)
        return Loose.same(kept, wanted)


@caught_by("test_metadata_order_of_keys")
class KeysAreText(Loose):
    """Keys of objects within metadata are compared in their order, as text of JSON is."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        return repr(kept) == repr(wanted)


@caught_by("test_metadata_equality_is_type_exact")
class TextIsAPattern(Loose):
    """A text is a pattern of LIKE."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        if not isinstance(kept, str) or not isinstance(wanted, str):
            return Loose.same(kept, wanted)
        pattern = re.escape(wanted).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, kept, re.DOTALL) is not None


@caught_by("test_metadata_equality_is_type_exact")
class TextWithoutCase(Loose):
    """Texts are compared without their case."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        both = isinstance(kept, str) and isinstance(wanted, str)
        return kept.lower() == wanted.lower() if both else Loose.same(kept, wanted)


@caught_by("test_metadata_equality_is_type_exact")
class TextByItsBeginning(Loose):
    """Of a long text only the first 255 characters are in the index, which decides."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        both = isinstance(kept, str) and isinstance(wanted, str)
        return kept[:255] == wanted[:255] if both else Loose.same(kept, wanted)


@caught_by("test_metadata_equality_is_type_exact")
class LongTextIsNotInTheIndex(Loose):
    """A text of more than 1,000 characters has no place in the index, and is never found."""

    @staticmethod
    def same(kept: Any, wanted: Any) -> bool:
        return not (isinstance(kept, str) and len(kept) > 1_000) and Loose.same(kept, wanted)


@caught_by("test_metadata_keys")
class DotsArePaths(Loose):
    """A key with a dot is a path into an object."""

    def holds(self, metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        return all(self.same(_at(metadata, key), wanted[key]) for key in wanted)


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return "nothing there"
        value = value[part]
    return value


@caught_by("test_by_trace")
class TraceIsAnyText(Plain):
    """A trace is found by what it reads as: 1 is "1"."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        if query.trace_id is None:
            return await super().find(query)
        found = await super().find(replace(query, trace_id=None, limit=None, offset=0))
        found = [one for one in found if str(one.metadata.get("trace_id")) == query.trace_id]
        return found[query.offset : None if query.limit is None else query.offset + query.limit]


@caught_by("test_users_never_meet")
class UsersByPrefix(Plain):
    """An index of users is searched by the beginning of its keys, `user:conversation`."""

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        if query.user_id is None:
            return await super().find(query)
        found = await super().find(replace(query, user_id=None, limit=None, offset=0))
        found = [one for one in found if f"{one.user_id}:{one.conversation_id}".startswith(f"{query.user_id}:")]
        return found[query.offset : None if query.limit is None else query.offset + query.limit]
