"""Texts as a reader sees them: characters that only look different are one, and those that nobody sees are none."""

from __future__ import annotations

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
