r"""Texts as a reader sees them: characters that only look different are one, and those that nobody sees are none.

What JSON, an address of the web or HTML writes in another way (`\u0040`, `%40`, `&#64;`) is what it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
UNSEEN = frozenset({"Cf", "Mn", "Me"})
"""Categories: marks of direction, joiners, spaces without width, marks above and below others."""

FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")


class _Folded(dict[int, str]):
    """For each character what stands for it; made as they are met."""

    def __missing__(self, code: int) -> str:
        one = chr(code)
        folded = self[code] = _folded(one)
        return folded


def _folded(one: str) -> str:
    if one.isascii():
        return one
    if one in FILLERS or unicodedata.category(one) in UNSEEN:
        return ""
    if one in DASHES:
        return "-"
    if one.isspace():
        return " "
    digit = unicodedata.decimal(one, None)
    if digit is not None:
        return str(digit)
    return "".join(part for part in unicodedata.normalize("NFKC", one) if unicodedata.category(part) not in UNSEEN)


TABLE = _Folded()


WRITTEN = re.compile(r"\\u00([2-7][0-9A-Fa-f])|%([2-7][0-9A-Fa-f])|&#[xX]0{0,4}([2-7][0-9A-Fa-f]);|&#0{0,4}(\d{2,3});")
"""Printable ASCII, as it is written where it may not stand itself."""

SIGNS = ("\\u00", "%", "&#")


def _read(match: re.Match[str]) -> str:
    decimal = match[4]
    code = int(decimal) if decimal else int(match[1] or match[2] or match[3], 16)
    return chr(code) if code in range(32, 127) else match[0]


def plain(text: str) -> str:
    """The text without other ways to write."""
    # The signs first, as nearly all texts have none.
    return WRITTEN.sub(_read, text) if any(sign in text for sign in SIGNS) else text


def plain_places(text: str) -> Sequence[int]:
    """For each character of the plain text, and for its end, where in the text it stands."""
    found: list[int] = []
    last = 0
    for match in WRITTEN.finditer(text):
        begin, end = match.span()
        found += range(last, begin)
        found += range(begin, begin + len(_read(match)))
        last = end
    return [*found, *range(last, len(text) + 1)]


def folded(text: str) -> str:
    """The text as it is looked through."""
    return text if text.isascii() else text.translate(TABLE)


def places(text: str) -> Sequence[int]:
    """For each character of the folded text, and for its end, where in the text it stands."""
    if text.isascii():
        return range(len(text) + 1)
    found = [0] * (sum(map(len, map(TABLE.__getitem__, map(ord, text)))) + 1)
    ends = accumulate(len(TABLE[ord(one)]) for one in text)
    before = 0
    for index, end in enumerate(ends):
        for place in range(before, end):
            found[place] = index
        before = end
    found[-1] = len(text)
    return found
