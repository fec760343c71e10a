"""What is looked for: kinds of values, each with a pattern that takes time in proportion to the text, and a check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from re import Pattern

Span = tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        name: what tokens and counts call it.
        pattern: a regular expression over the folded text (`appearance`); its group `value`, or all of it, is one.
        hints: texts of which one has to occur before the pattern is tried, whatever their case; none: always.
        check: whether what was found is one.
        find: looks by itself, instead of a pattern.
        label: what has to stand before the value, so that it is known; in an object, in the member's name.
        shortest: characters that a value has at least.
        same: what of a value counts: two that differ in nothing else have the same token.
    """

    name: str
    pattern: Pattern[str] | None = None
    hints: tuple[str, ...] = ()
    check: Callable[[str], bool] | None = None
    find: Callable[[str], Iterator[Span]] | None = None
    label: Pattern[str] | None = None
    shortest: int = 1
    same: Callable[[str], str] = str

    def occurs(self, lowered: str) -> bool:
        """Whether a value may stand in a text, which is given in lower case."""
        if len(lowered) < self.shortest:
            return False
        # Plain loops, as every text passes here once for each kind.
        for hint in self.hints:
            if hint in lowered:
                return True
        return not self.hints

    def spans(self, text: str) -> Iterator[Span]:
        """Where the values of this kind stand in a folded text."""
        if self.find is not None:
            yield from self.find(text)
        for match in () if self.pattern is None else self.pattern.finditer(text):
            group = "value" if "value" in self.pattern.groupindex else 0  # type: ignore[union-attr]  # it is there
            start, end = match.span(group)
            if end > start and (self.check is None or self.check(match.group(group))):
                yield start, end


def _is_random(value: str) -> bool:
    """Whether a text looks like a key, and not like words: a key of so many characters has digits and letters."""
    return any(one.isdigit() for one in value) and any(one.isalpha() for one in value)


def _digits(value: str) -> str:
    return "".join(filter(str.isdigit, value))


LOCAL = re.compile(r"[\w.+%&'-]{1,64}")
DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{1,59}|[^\W\d_]{2,63})")


def _addresses(text: str) -> Iterator[Span]:
    """E-mail addresses, looked for from each @ in both directions, and no farther than an address can reach."""
    last, at = 0, text.find("@")
    while at >= 0:
        after = DOMAIN.match(text, at + 1)
        before = LOCAL.match(text[max(last, at - 64) : at][::-1]) if after else None
        local = before.group()[::-1].lstrip(".'") if before else ""
        if local and after:
            yield at - len(local), after.end()
            last = after.end()
        at = text.find("@", max(at + 1, last))


BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
LINES = re.compile(r"(?:(?:\s|\\[rn]){0,4}[A-Za-z0-9+/=]{24,})*")
LONGEST = 1 << 14
"""Characters of a private key."""


def _private_keys(text: str) -> Iterator[Span]:
    """Private keys in PEM; of one whose end is missing, the lines that are there."""
    found = BEGIN.search(text)
    while found:
        place = text.find("-----END", found.end(), found.end() + LONGEST)
        end = END.match(text, place) if place >= 0 else None
        lines = LINES.match(text, found.end())
        stop = end.end() if end else (lines or found).end()
        yield found.start(), stop
        found = BEGIN.search(text, stop)


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


def card_numbers(text: str) -> Iterator[Span]:
    """Where card numbers stand, also in the midst of other numbers that blanks or dashes separate from them.

    Digits of a length that an issuer of that beginning gives out, whose check digit is right (Luhn).
    """
    for group in APART.finditer(text):
        places = [place for place in range(*group.span()) if text[place].isdigit()]
        yield from _within("".join(text[place] for place in places), places, whole=True)
    for run in RUN.finditer(text):
        places = [place for place in range(*run.span()) if text[place] not in " -"]
        whole = not text[run.end() : run.end() + 1].isalpha()
        yield from _within("".join(text[place] for place in places), places, whole=whole)


def _within(digits: str, places: list[int], *, whole: bool) -> Iterator[Span]:
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


def _pattern(text: str) -> Pattern[str]:
    return re.compile(text)


# Each repetition has a bound, is possessive, or is the pattern's end, and what may stand before it is looked at first:
# no text makes any of these look at a character more than so many times.
KINDS: tuple[Kind, ...] = (
    Kind("private-key", shortest=30, find=_private_keys, hints=("private key",)),
    Kind("jwt", shortest=22, pattern=_pattern(r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+"), hints=("eyj",)),
    Kind("anthropic", shortest=27, pattern=_pattern(r"(?<![A-Za-z0-9])sk-ant-[\w-]{20,}+"), hints=("sk-ant-",)),
    Kind(
        "openai",
        shortest=23,
        pattern=_pattern(r"(?<![A-Za-z0-9])sk-(?!ant-)[\w-]{20,}+"),
        hints=("sk-",),
        check=_is_random,
    ),
    Kind(
        "aws",
        shortest=20,
        pattern=_pattern(
            r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        ),
        hints=("akia", "asia", "abia", "acca"),
    ),
    Kind(
        "aws",
        shortest=20,
        pattern=_pattern(
            r"(?i:secret[_-]?access[_-]?key)[\"']?\s{0,4}[=:]{1,2}>?\s{0,4}[\"']?"
            r"(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        hints=("access",),
        label=_pattern(r"(?i:secret[_-]?access[_-]?key)"),
    ),
    Kind(
        "github",
        shortest=26,
        pattern=_pattern(r"(?<![A-Za-z0-9])(?:gh[opsur]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})"),
        hints=("gho_", "ghp_", "ghs_", "ghu_", "ghr_", "github_pat_"),
    ),
    Kind(
        "google",
        shortest=24,
        pattern=_pattern(r"(?<![A-Za-z0-9])(?:AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,}+)"),
        hints=("aiza", "gocspx-", "ya29."),
    ),
    Kind(
        "slack",
        shortest=15,
        pattern=_pattern(
            r"(?<![A-Za-z0-9])(?:xox[a-z]-[A-Za-z0-9-]{10,}+|xapp-\d-[A-Za-z0-9-]{10,}+"
            r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}+)"
        ),
        hints=("xox", "xapp-", "hooks.slack.com"),
    ),
    Kind(
        "stripe",
        shortest=24,
        pattern=_pattern(r"(?<![A-Za-z0-9])(?:[rs]k_(?:live|test)_[A-Za-z0-9]{16,}+|whsec_[A-Za-z0-9+/=]{20,}+)"),
        hints=("k_live_", "k_test_", "whsec_"),
    ),
    Kind("email", find=_addresses, hints=("@",), shortest=6, same=str.casefold),
    Kind("card", find=card_numbers, shortest=12, same=_digits),
    Kind(
        "phone",
        pattern=_pattern(
            r"(?<![\w+])\+\d(?:[ ().\-/]{0,2}\d){7,14}(?!\d)"
            r"|(?<![\w+.-])(?:1[.-]|1 ?(?=\())?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}(?![\w-]|\.\d)"
        ),
        shortest=8,
        same=_digits,
    ),
)
"""What is looked for unless settings say otherwise; where two find the same place, the first has it."""
