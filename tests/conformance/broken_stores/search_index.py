"""Stores that keep an index for their searches, and forget to at one occasion or other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core.records import Damaged, Look, Page, Record, Revise, Stamp, Stretch, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_core.search import Term, terms_asked, terms_of

Entries = dict[tuple[str, str], set[str]]


class Indexed(Plain):
    """A plain store with words by message, made anew at each write; it proposes what has all words that are asked for.

    Attributes:
        blind: what it does not hear of: `"append"`, `"truncate"`, `"revise"`, `"delete"`.
    """

    blind: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.entries: Entries = {}
        self.hears = True

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        done = await super().write(record, expected=expected)
        if done and self.hears:
            self.forget(record.conversation_id)
            for message in record.messages:
                self.entries[record.conversation_id, message.message_id] = self.kept(terms_of(message))
        return done

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        done = await super().delete(conversation_id, expected=expected)
        if done and self.blind != "delete":
            self.forget(conversation_id)
        return done

    def forget(self, conversation_id: str) -> None:
        for key in [key for key in self.entries if key[0] == conversation_id]:
            del self.entries[key]

    def kept(self, terms: set[str]) -> set[str]:
        return terms

    def asked(self, terms: Sequence[Term]) -> Sequence[Term]:
        return terms

    async def append(self, write: Write) -> WriteResult:
        self.hears = self.blind != "append" or write.conversation_id not in self.records
        try:
            return await super().append(write)
        finally:
            self.hears = True

    async def revise(self, revise: Revise) -> int:
        self.hears = self.blind != "revise"
        try:
            return await super().revise(revise)
        finally:
            self.hears = True

    async def look_through(self, look: Look) -> Stretch:
        stretch = await super().look_through(look)
        terms = self.asked(terms_asked(look.asked))
        if not terms:
            return stretch
        parts: list[tuple[Record, Page] | Damaged] = []
        for part in stretch.parts:
            if isinstance(part, Damaged):
                parts.append(part)
                continue
            header, page = part
            for index in range(len(page.messages) - 1, -1, -1):
                message, position = page.messages[index], page.position(index)
                if self.stands(header, position) and self.proposes(header, message.message_id, terms):
                    parts.append((header, replace(page, messages=(message,), first=position, positions=())))
        return replace(stretch, parts=tuple(parts))

    def stands(self, header: Record, position: int) -> bool:
        return True

    def proposes(self, header: Record, message_id: str, terms: Sequence[Term]) -> bool:
        words = self.entries.get((header.conversation_id, message_id), set())
        return all(
            any(word.startswith(term.text) if term.open else word == term.text for word in words) for term in terms
        )


@caught_by("test_search_behind_changes")
class IndexWithoutAppends(Indexed):
    """Does not hear of what is added to a conversation that stands."""

    blind = "append"


@caught_by("test_search_behind_changes")
class IndexWithoutRevisions(Indexed):
    """Does not hear of messages that take the places of others."""

    blind = "revise"


@caught_by("test_search_behind_changes")
class IndexUpToTheCount(Indexed):
    """Takes what stands behind as many positions as there are messages for gone."""

    def stands(self, header: Record, position: int) -> bool:
        return position < header.first_position + header.message_count


@caught_by("test_search_each_word")
class IndexOfLetters(Indexed):
    """Keeps words without their accents, and looks for them as they are."""

    def kept(self, terms: set[str]) -> set[str]:
        return {term.replace("é", "e") for term in terms}


@caught_by("test_search_each_word")
class IndexOfWholeWords(Indexed):
    """Knows no beginnings of words."""

    def asked(self, terms: Sequence[Term]) -> Sequence[Term]:
        return [term._replace(open=False) for term in terms]


@caught_by("test_search_each_word")
class IndexOfPlainWords(Indexed):
    """Keeps none of the words that have letters of other scripts."""

    def kept(self, terms: set[str]) -> set[str]:
        return {term for term in terms if term.isascii()}


@caught_by("test_search_each_word")
class IndexOfLongWords(Indexed):
    """Leaves out words of one letter, as many indexes do, and looks for them."""

    def kept(self, terms: set[str]) -> set[str]:
        return {term for term in terms if len(term) > 1}


@caught_by("test_search_by_the_rule")
class IndexOfFirstMessages(Indexed):
    """Keeps the first three messages of a conversation."""

    def proposes(self, header: Record, message_id: str, terms: Sequence[Term]) -> bool:
        return message_id not in ("m3", "m4") and super().proposes(header, message_id, terms)


@caught_by("test_search_behind_changes")
class IndexOfTheLast(Indexed):
    """Takes the entries of all others for outdated at each write."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self.entries.clear()
        return await super().write(record, expected=expected)


class Answering(Indexed):
    """Shows what its index kept, and not what stands: messages as they were when they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, Record] = {}

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        done = await super().write(record, expected=expected)
        if done and self.hears:
            self.shown[record.conversation_id] = record
        return done

    async def look_through(self, look: Look) -> Stretch:
        standing = self.records
        self.records = {**standing, **{key: one for key, one in self.shown.items() if self.still(key, standing)}}
        try:
            return await Plain.look_through(self, look)
        finally:
            self.records = standing

    def still(self, key: str, standing: dict[str, Record]) -> bool:
        return key in standing


@caught_by("test_search_behind_changes")
class IndexShowsTheErased(Answering):
    """Goes on finding what was deleted."""

    def still(self, key: str, standing: dict[str, Record]) -> bool:
        return True


@caught_by("test_search_behind_changes")
class IndexShowsTheRevised(Answering):
    """Goes on finding what stood there before a revision."""

    blind = "revise"


@caught_by("test_search_behind_changes")
class IndexShowsTheCutOff(Answering):
    """Goes on finding what was cut off."""

    async def truncate(self, truncate: Truncate) -> int:
        self.hears = False
        try:
            return await super().truncate(truncate)
        finally:
            self.hears = True
