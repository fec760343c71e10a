"""Damaged data: one error that names the conversation, shows nothing of it, and need not end a listing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from jaf_memory_core import (
    BackendProvider,
    MemoryInvalidInputError,
    MemoryQuery,
    MemoryStorageError,
    Message,
    MessageSearch,
    Processor,
    codec,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.documents import decode_record, encode_record
from jaf_memory_core.records import Damaged, Record, Stamp

SECRET = "the text of a message"
BODY = codec.encode(Message("user", SECRET, message_id="m"))
RECORD = Record("c", "0" * 16, 1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), message_count=0)


def spoilt(body: bytes) -> list[object]:
    """The body cut at each place, with odd bytes in it, of other types, and of other shapes."""
    cuts: list[object] = [body[:end] for end in range(len(body))]
    odd = [body.replace(b"text", bytes(4)), body.replace(b"text", b"\xff\xfe"), b"[" * 100_000, bytes(len(body))]
    shapes = [b"[]", b"1", b'""', b"null", b'{"role": 5}', b"1" * 5_000, b'{"role":"user","content":[5]}']
    return [*cuts, *odd, *shapes, None, 5, 1.5, []]


def assert_told(error: MemoryStorageError) -> None:
    """The error names the conversation, says what to do, and neither it nor what came before shows content."""
    assert "'c'" in str(error)
    assert "restore it from a backup, or delete it" in str(error)
    assert error.conversation_id == "c"
    assert (error.__cause__, error.__context__) == (None, None)
    assert "text" not in str(error)


@pytest.mark.parametrize(
    "decode",
    [
        lambda body: codec.decode_message(body, "c"),
        lambda body: codec.decode_messages([BODY, body], "c"),
        lambda body: codec.decode_joined(body, "c"),
        lambda body: codec.decode_object(body, "c"),
        lambda body: decode_record(body, "c"),
    ],
    ids=["message", "messages", "joined", "object", "record"],
)
def test_whatever_is_damaged_is_told_alike(decode):
    """Each way of reading answers damage with the same error, or with a value of its own type, and never otherwise."""
    told = 0
    for body in spoilt(BODY):
        try:
            decode(body)
        except MemoryStorageError as error:
            assert_told(error)
            told += 1
    assert told > len(BODY) / 2


def test_another_conversations_document_is_damage():
    """A document that lies under another id is not shown as that one's."""
    assert decode_record(encode_record(RECORD), "c") == RECORD
    with pytest.raises(MemoryStorageError, match="conversation 'd' is damaged"):
        decode_record(encode_record(RECORD), "d")


@pytest.mark.parametrize(
    "document", [b'{"format":3,"record":{}}', b'{"format":3}', b'{"format":3,"record":"\xed\xa0"}']
)
def test_a_newer_format_is_told_as_such(document):
    """Whatever a newer format holds, it is called newer, and not damaged."""
    with pytest.raises(MemoryStorageError, match=r"conversation 'c' has format 3.*upgrade"):
        decode_record(document, "c")


class Half(Backend):
    """A store of four conversations, two of which cannot be read."""

    name = "half"

    async def read(self, conversation_id: str) -> Record | None:
        """One of them."""
        if conversation_id in "bd":
            raise codec.damaged(conversation_id)
        return named(conversation_id) if conversation_id in "ac" else None

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Nothing changes."""
        return record is expected

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Nothing changes."""
        return conversation_id in "ac" and expected is not None

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """All four."""
        assert query is not None
        for name in "abcd":
            yield named(name) if name in "ac" else Damaged(codec.damaged(name))


def named(name: str) -> Record:
    """A record of that id, of the user `u`."""
    return Record(name, "0" * 16, 1, RECORD.created_at, RECORD.updated_at, user_id="u")


async def found(provider: BackendProvider, **options: object) -> list[str]:
    """Ids that `find_conversations` gives."""
    return [one.conversation_id for one in await provider.find_conversations(MemoryQuery(), **options)]


async def passed(provider: BackendProvider, **options: object) -> list[str]:
    """Ids that `iter_conversations` gives."""
    return [one.conversation_id async for one in provider.iter_conversations(**options)]


@pytest.mark.parametrize("listed", [found, passed])
def test_a_listing_ends_at_damage_unless_told_otherwise(listed, caplog):
    """By default a listing raises the error of the first that is damaged."""
    with pytest.raises(MemoryStorageError) as caught:
        asyncio.run(listed(BackendProvider(Half())))
    assert (caught.value.conversation_id, caught.value.provider, caplog.text) == ("b", "half", "")


@pytest.mark.parametrize("listed", [found, passed])
def test_a_listing_can_go_on_behind_damage(listed, caplog):
    """With "skip" all others come, and one warning at the end names what was left out."""
    caplog.set_level(logging.WARNING)
    assert sorted(asyncio.run(listed(BackendProvider(Half()), on_damaged="skip"))) == ["a", "c"]
    assert [record.getMessage() for record in caplog.records] == ["2 damaged conversations were left out: 'b', 'd'"]


@pytest.mark.parametrize("listed", [found, passed])
def test_a_program_can_collect_what_is_damaged(listed, caplog):
    """A function is called with the error of each, and nothing is logged: that is the program's own to tell."""
    errors: list[MemoryStorageError] = []
    assert sorted(asyncio.run(listed(BackendProvider(Half()), on_damaged=errors.append))) == ["a", "c"]
    assert [error.conversation_id for error in errors] == ["b", "d"]
    assert caplog.text == ""


async def hits(provider: BackendProvider, **options: object) -> list[str]:
    """Conversations in which `search_messages` finds something."""
    return [one.conversation_id for one in await provider.search_messages(MessageSearch("hello"), **options)]


@pytest.mark.parametrize("listed", [found, passed, hits])
def test_what_a_processor_cannot_read_is_damaged_too(listed, caplog):
    """What a processor refuses, for its key is gone, ends a listing or is left out and named, as damage is."""

    class Sealed(Processor):
        reason = "b"

        def incoming(self, message, context):
            if context.conversation_id == "b":
                raise MemoryStorageError("its key is gone", conversation_id=self.reason)
            return message

    async def main():
        sealed = Sealed()
        provider = BackendProvider(InMemoryBackend(), processors=[sealed])
        for name in "abc":
            await provider.store_messages(name, [Message(role="user", content="hello")] * 3)
        with pytest.raises(MemoryStorageError, match="its key is gone") as caught:
            await listed(provider)
        assert (caught.value.conversation_id, caught.value.provider, caplog.text) == ("b", "memory", "")
        assert sorted(set(await listed(provider, on_damaged="skip"))) == ["a", "c"]
        assert [one.getMessage() for one in caplog.records] == ["1 damaged conversations were left out: 'b'"]
        sealed.reason = None  # all keys are away, and not this conversation's only
        with pytest.raises(MemoryStorageError, match="its key is gone"):
            await listed(provider, on_damaged="skip")

    asyncio.run(main())


@pytest.mark.parametrize("listed", [found, passed])
def test_other_wishes_are_refused(listed):
    """What is neither of these is told, with what is allowed."""
    with pytest.raises(MemoryInvalidInputError, match="on_damaged must be 'raise', 'skip' or a function"):
        asyncio.run(listed(BackendProvider(Half()), on_damaged="ignore"))


def test_an_erasure_deletes_what_it_can_read_and_tells_the_rest():
    """Whose a damaged record is nobody knows: all that is known to be the user's goes, then the error is raised."""

    class Emptied(Half):
        def __init__(self):
            self.gone = set()

        async def read(self, conversation_id):
            return None if conversation_id in self.gone else await super().read(conversation_id)

        async def delete(self, conversation_id, *, expected):
            self.gone.add(conversation_id)
            return expected is not None

        async def scan(self, query):
            async for one in super().scan(query):
                if isinstance(one, Damaged) or one.conversation_id not in self.gone:
                    yield one

    backend = Emptied()
    with pytest.raises(MemoryStorageError, match=r"conversation '[bd]'"):
        asyncio.run(BackendProvider(backend).clear_user_conversations("u"))
    assert backend.gone == {"a", "c"}
