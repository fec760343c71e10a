"""Cursors: where a listing goes on, as an opaque text that a web client can keep and hand back."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from jaf_memory_core.errors import MemoryInvalidInputError

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST = 8_192  # an id of 255 emoji takes 4,080
_HIGHEST = (1 << 63) - 1  # that stores count with

Position = tuple[datetime, datetime, str]
"""A conversation's place in both orders: when it was made, when it was active last, its id."""


def written(kind: str, place: Position, *more: int) -> str:
    """A place as a text; `kind` says of which listing."""
    made, active, conversation_id = place
    micros = [(moment - _BEGINNING) // _MICROSECOND for moment in (made, active)]
    told = json.dumps([kind, *micros, conversation_id, *more], separators=(",", ":"))
    return base64.urlsafe_b64encode(told.encode()).rstrip(b"=").decode()


def read(kind: str, text: str, more: int = 0) -> tuple[Position, tuple[int, ...]]:
    """The place that a text stands for, and so many numbers behind it.

    Raises:
        MemoryInvalidInputError: it is none of ours, or one of another listing.
    """
    try:
        return _read(kind, text, more)
    except (ValueError, AttributeError, OverflowError, binascii.Error, RecursionError):
        pass
    # Outside of the handler: what was caught repeats what was given.
    raise MemoryInvalidInputError("the cursor is none that this listing has given; begin with the first page")


def _read(kind: str, text: str, more: int) -> tuple[Position, tuple[int, ...]]:
    if len(text) > _LONGEST:
        raise ValueError("too long")
    told: Any = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if not isinstance(told, list) or len(told) != 4 + more or told[0] != kind:
        raise ValueError("of another listing")
    numbers = [*told[1:3], *told[4:]]
    if not all(type(number) is int and 0 <= number <= _HIGHEST for number in numbers):
        raise ValueError("no moment, or no position")
    made, active = (_BEGINNING + timedelta(microseconds=number) for number in told[1:3])
    conversation_id: str = told[3]
    if not conversation_id.encode() or "\0" in conversation_id:  # no lone surrogates either: a ValueError
        raise ValueError("no id")
    return (made, active, conversation_id), tuple(told[4:])
