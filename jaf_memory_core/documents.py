"""A whole conversation as one JSON document, for a store that keeps each in one piece."""

from __future__ import annotations

import json

import msgspec

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Record


class _Document(msgspec.Struct):
    format: int
    record: msgspec.Raw = msgspec.Raw()


_document = msgspec.json.Decoder(_Document)
_record = msgspec.json.Decoder(Record, dec_hook=codec.freeze_hook)


def encode_record(record: Record) -> bytes:
    """A whole conversation as one JSON document, with its format version."""
    return b'{"format":%d,"record":%b}' % (codec.FORMAT, codec.encode(record))


def decode_record(text: bytes | str) -> Record:
    """Read what `encode_record` wrote.

    Raises:
        MemoryStorageError: for a newer format than this code knows, or for something else than a record.
    """
    try:
        return _decode_record(text)
    except (ValueError, KeyError, TypeError):
        # The decoder's own text could quote what is stored, so it is not chained.
        raise MemoryStorageError(
            "what is stored is not a conversation that jaf-memory wrote; restore it from a backup, or remove it",
            operation="read",
        ) from None


def _decode_record(text: bytes | str) -> Record:
    try:
        document = _document.decode(text)
        codec.check_format(document.format)
        return _record.decode(document.record)
    except msgspec.DecodeError:
        plain = json.loads(text)
        codec.check_format(plain["format"])
        return codec.converted(plain["record"], Record)
