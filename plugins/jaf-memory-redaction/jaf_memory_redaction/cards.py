"""Card numbers: digits of a length that an issuer of that beginning gives out, whose check digit is right (Luhn)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

RUN = re.compile(r"(?<![A-Za-z\d])(?<!\d\.)\d(?:[ -]?\d){11,}+")
"""Digits, each with at most one blank or dash behind it. Not those behind a point: they are a number's."""

APART = re.compile(
    r"(?<![A-Za-z\d])\d{4}(?P<apart> {2,3}| {0,2}[-./_] {0,2})(?:\d{4}(?P=apart)\d{4}(?P=apart)\d{4}"
    r"|\d{6}(?P=apart)\d{5})(?![A-Za-z\d])"
)
"""Digits in the groups of a card, with something else between them, which is the same each time."""

ISSUERS = re.compile(
    r"(?P<visa>4)"
    r"|(?P<mastercard>5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)"
    r"|(?P<amex>3[47])"
    r"|(?P<diners>30[0-59]|3[689])"
    r"|(?P<mir>220[0-4])"
    r"|(?P<maestro>5018|5020|5038|5893|6304|6759|676[1-3])"
    r"|(?P<others>6011|64[4-9]|65|62|81|35(?:2[89]|[3-8]))"
)
LENGTHS = {
    "visa": (19, 16, 13),
    "mastercard": (16,),
    "amex": (15,),
    "diners": (19, 18, 17, 16, 14),
    "mir": (19, 18, 17, 16),
    "maestro": (19, 18, 17, 16, 15, 14, 13, 12),
    "others": (19, 18, 17, 16),
}
DOUBLED = bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9))


def card_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Where card numbers stand, also in the midst of other numbers that blanks or dashes separate from them."""
    for group in APART.finditer(text):
        places = [place for place in range(*group.span()) if text[place].isdigit()]
        yield from _within("".join(text[place] for place in places), places, whole=True)
    for run in RUN.finditer(text):
        places = [place for place in range(*run.span()) if text[place] not in " -"]
        whole = not text[run.end() : run.end() + 1].isalpha()
        yield from _within("".join(text[place] for place in places), places, whole=whole)


def _within(digits: str, places: list[int], *, whole: bool) -> Iterator[tuple[int, int]]:
    """Those of one run of digits, which stand at these places of the text; `whole` if no letter stands behind it."""
    most = len(digits)
    # A number begins behind a separator, or the run's beginning, and ends in the same way.
    starts = [0, *(index for index in range(1, most) if places[index] > places[index - 1] + 1)]
    bounds = {*starts, most} if whole else {*starts}
    plain = [ord(digit) - 48 for digit in digits]
    # Sums up to each place, of which either the digits of even or those of odd places are doubled: of every stretch
    # the sum is then a difference, and a text of digits alone takes no longer for having many stretches.
    even = [0, *accumulate(DOUBLED[one] if index % 2 == 0 else one for index, one in enumerate(plain))]
    odd = [0, *accumulate(DOUBLED[one] if index % 2 else one for index, one in enumerate(plain))]
    behind = 0
    for start in starts:
        issuer = ISSUERS.match(digits, start) if start >= behind else None
        for length in LENGTHS[issuer.lastgroup or ""] if issuer else ():
            end = start + length
            if end not in bounds:
                continue
            # The last digit is not doubled, the one before it is.
            sums = even if (end - 2) % 2 == 0 else odd
            if (sums[end] - sums[start]) % 10 == 0:
                yield places[start], places[end - 1] + 1
                behind = end
                break
