"""A whole conversation as one JSON document, for a store that keeps each in one piece."""

from __future__ import annotations

import json
from operator import lt

import msgspec

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.messages import check_roles
from jaf_memory_core.records import Damaged, Record


class _Document(msgspec.Struct):
    format: int
    record: msgspec.Raw = msgspec.Raw()


_document = msgspec.json.Decoder(_Document)
_record = msgspec.json.Decoder(Record, dec_hook=codec.freeze_hook)


def encode_record(record: Record) -> bytes:
    """A whole conversation as one JSON document, with its format version."""
    text = codec.encode(record)
    # The last field; where it says nothing, the document is as code wrote it that did not know it.
    active = b',"active_at":%b}' % codec.encode(record.updated_at)
    if text.endswith(active):
        text = text[: -len(active)] + b"}"
    return b'{"format":%d,"record":%b}' % (codec.WITH_GAPS if record.gaps else codec.FORMAT, text)


def decode_record(text: bytes | str, conversation_id: str | None = None) -> Record:
    """Read what `encode_record` wrote.

    Args:
        text: the document.
        conversation_id: under which it is stored, for errors; another conversation's document is damage, too.

    Raises:
        MemoryStorageError: for a newer format than this code knows, or for something else than a record.
    """
    try:
        record = _decode_record(text, conversation_id)
        check_roles(record.messages)
        if conversation_id in (None, record.conversation_id) and _is_placed(record):
            return record
    except codec.UNREADABLE:
        pass
    raise codec.damaged(conversation_id)


def listed_record(text: bytes | str, conversation_id: str | None) -> Record | Damaged:
    """The same for a listing, which goes on behind what it cannot read."""
    try:
        return decode_record(text, conversation_id)
    except MemoryStorageError as error:
        return Damaged(error)


def _is_placed(record: Record) -> bool:
    """Whether the positions are as many as the messages, in order, and lie where the rest says."""
    if not (record.gaps or record.positions):
        return True
    places = record.positions
    if len(places) != len(record.messages) or len(places) != record.message_count or record.gaps < 1 or not places:
        return False
    return places[0] == record.first_position and places[-1] < record.end and all(map(lt, places, places[1:]))


def _decode_record(text: bytes | str, conversation_id: str | None) -> Record:
    try:
        document = _document.decode(text)
        # Before the record is looked at: in a newer format it may be anything.
        codec.check_format(document.format, conversation_id)
        return _record.decode(document.record)
    except msgspec.DecodeError:
        plain = json.loads(text)
        codec.check_format(plain["format"], conversation_id)
        return codec.converted(plain["record"], Record)
