"""Ids that become keys in a way of which two give one, and names that collide."""

from __future__ import annotations

import contextlib
import unicodedata
import urllib.parse
from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import WriteResult, codec
from jaf_memory_core.records import Record, Stamp, Write
from jaf_memory_core.values import FrozenDict


class Keyed(Plain):
    """Keeps each conversation under a key that it makes of the id."""

    @staticmethod
    def key(conversation_id: str) -> str:
        """The key."""
        return conversation_id

    async def read(self, conversation_id: str) -> Record | None:
        record = await super().read(self.key(conversation_id))
        return record and replace(record, conversation_id=conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        return await super().write(replace(record, conversation_id=self.key(record.conversation_id)), expected=expected)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        return await super().delete(self.key(conversation_id), expected=expected)


@caught_by("test_ids_never_meet")
class KeysNormalized(Keyed):
    """Ids are keys in a normal form of Unicode."""

    @staticmethod
    def key(conversation_id: str) -> str:
        return unicodedata.normalize("NFC", conversation_id)


@caught_by("test_ids_never_meet")
class SlashesReplaced(Keyed):
    """What no file's name may have becomes an underscore."""

    @staticmethod
    def key(conversation_id: str) -> str:
        return conversation_id.replace("/", "_").replace(":", "_")


@caught_by("test_ids_never_meet")
class KeysUnquoted(Keyed):
    """Ids are unquoted, as a web framework does with a path."""

    @staticmethod
    def key(conversation_id: str) -> str:
        return urllib.parse.unquote(conversation_id)


@caught_by("test_ids_never_meet")
class KeysAreNumbers(Keyed):
    """An id that looks like a number is kept as one: `00` is `0`."""

    @staticmethod
    def key(conversation_id: str) -> str:
        with contextlib.suppress(ValueError):
            return str(int(conversation_id))
        return conversation_id


@caught_by("test_ids_never_meet")
class KeysWithoutTheInvisible(Keyed):
    """Characters that nobody sees are left out."""

    @staticmethod
    def key(conversation_id: str) -> str:
        return "".join(one for one in conversation_id if unicodedata.category(one) not in ("Cf", "Cc"))


@caught_by("test_ids_never_meet")
class KeysInBytes(Keyed):
    """Ids end at 255 bytes."""

    @staticmethod
    def key(conversation_id: str) -> str:
        return conversation_id.encode()[:255].decode(errors="ignore")


@caught_by("test_users_never_meet")
class NobodyIsNone(Plain):
    """The owner is kept as text, so that nobody and the user `None` are one."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        owner = None if record.user_id == "None" else record.user_id
        return await super().write(replace(record, user_id=owner), expected=expected)


class Known(Plain):
    """Tells messages apart in a way of its own."""

    @staticmethod
    def key(message_id: str) -> str:
        """What two messages must differ in."""
        return message_id

    async def append(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        held = {self.key(one.message_id): one.message_id for one in standing.messages} if standing else {}
        names = [held.get(self.key(one.message_id), one.message_id) for one in write.messages]
        messages = tuple(replace(one, message_id=name) for one, name in zip(write.messages, names, strict=True))
        return await super().append(replace(write, messages=messages, bodies=tuple(map(codec.encode, messages))))


@caught_by("test_message_ids_never_meet")
class MessagesWithoutCase(Known):
    """Ids of messages are compared without their case."""

    @staticmethod
    def key(message_id: str) -> str:
        return message_id.lower()


@caught_by("test_message_ids_never_meet")
class MessagesOf64(Known):
    """Ids of messages are compared in their first 64 characters."""

    @staticmethod
    def key(message_id: str) -> str:
        return message_id[:64]


@caught_by("test_message_ids_never_meet")
class MessagesOfTrimmedIds(Known):
    """Ids of messages are compared without white space around them."""

    @staticmethod
    def key(message_id: str) -> str:
        return message_id.strip()


@caught_by("test_message_ids_never_meet")
class SameTextOnce(Plain):
    """Messages are told apart by a digest of what they say, so that the same thing is said once."""

    async def append(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        seen = {(one.role, str(one.content)) for one in standing.messages} if standing else set()
        kept = [index for index, one in enumerate(write.messages) if (one.role, str(one.content)) not in seen]
        messages, bodies = ([part[index] for index in kept] for part in (write.messages, write.bodies))
        return await super().append(replace(write, messages=tuple(messages), bodies=tuple(bodies)))  # type: ignore[arg-type]


class Columned(Plain):
    """Keeps metadata beside its own columns."""

    COLUMNS: frozenset[str] = frozenset()

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        rest = {key: value for key, value in record.metadata.items() if key not in self.COLUMNS}
        return await super().write(replace(record, metadata=FrozenDict(rest)), expected=expected)


@caught_by("test_names_that_stores_use")
class MetadataInColumns(Columned):
    """Metadata stands beside the columns of the row, and loses where it has the name of one."""

    COLUMNS = frozenset(Record.__struct_fields__) - {"user_id"}


@caught_by("test_names_that_stores_use")
class MetadataWithAnId(Columned):
    """Metadata is a document that has an `_id` of its own."""

    COLUMNS = frozenset({"_id"})


@caught_by("test_names_that_stores_use")
class MessagesInColumns(Plain):
    """A further field of a message has no place where it has the name of a column."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        def stripped(further: Any) -> FrozenDict:
            return FrozenDict({key: one for key, one in further.items() if key not in ("position", "body", "id")})

        messages = tuple(replace(one, further=stripped(one.further)) for one in record.messages)
        return await super().write(replace(record, messages=messages), expected=expected)
