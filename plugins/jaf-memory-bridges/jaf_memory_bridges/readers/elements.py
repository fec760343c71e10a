"""The elements of one long array of JSON, one at a time: an export may be larger than memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from jaf_memory_core import MemoryInvalidInputError

CHUNK = 1 << 20
"""Bytes that are read at once."""

LONGEST = 256 << 20
"""Bytes of one element; what is longer is passed over by `elements`, and given as `None`."""

_MARK = re.compile(rb'["\[\]{},]')
_QUOTE = re.compile(rb'["\\]')
_BLANK = b" \t\r\n"


class _Marks:
    """Where an array's elements end, found chunk by chunk."""

    def __init__(self) -> None:
        self.depth = 0
        self._quoted = False
        self._escaped = False

    def ends(self, chunk: bytes, place: int) -> Iterator[int]:
        """The places of the commas between elements in a chunk, and of the bracket that closes the array."""
        if self._escaped and chunk:
            place, self._escaped = place + 1, False
        while mark := (_QUOTE if self._quoted else _MARK).search(chunk, place):
            place = mark.end()
            if mark[0] == b"\\":
                place += 1
                self._escaped = place > len(chunk)
            elif mark[0] == b'"':
                self._quoted = not self._quoted
            else:
                self.depth += (mark[0] in b"[{") - (mark[0] in b"]}")
                if not self.depth or (mark[0] == b"," and self.depth == 1):
                    yield mark.start()
                if not self.depth:
                    return


def elements(stream: IO[bytes]) -> Iterator[bytes | None]:
    """The bytes of each element of the array that a stream holds; whether they are JSON is not looked at.

    Yields:
        an element; `None` in the place of one that is longer than 256 MB.

    Raises:
        MemoryInvalidInputError: the stream holds no array, or ends within it.
    """
    marks, element, too_long = _Marks(), bytearray(), False
    chunk = stream.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)
    begun = 0
    if chunk.startswith(b"["):
        marks.depth = begun = 1
    while chunk and marks.depth:
        for end in marks.ends(chunk, begun):
            element += chunk[begun:end]
            if too_long or element.strip(_BLANK):
                yield None if too_long else bytes(element)
            element, too_long, begun = bytearray(), False, end + 1
        element += chunk[begun:]
        if len(element) > LONGEST:
            element, too_long = bytearray(), True
        if marks.depth:
            chunk, begun = stream.read(CHUNK), 0
    if not chunk:
        raise MemoryInvalidInputError("the file ends within its array of JSON, or holds none")
    if not begun:
        raise MemoryInvalidInputError("the file holds no array of JSON")
