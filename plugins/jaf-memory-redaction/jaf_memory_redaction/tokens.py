"""Tokens: what stands in the place of a value, and that none of our patterns finds again."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable

from jaf_memory_redaction.kinds import Kind

LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
"""No digits: a token must not look like a number."""

NUMBERED = re.compile(r"\[([a-z-]{1,40}):(\d{1,9})\]")


class Tokens:
    """Tokens of one message, or of one value of metadata.

    Args:
        secret: the key of the tokens that are the same for a value everywhere; without it they are numbers that hold
            within this message, in the order in which the values stand.
        about: gives all of the message, whose own tokens are from an earlier pass and stay what they are.
    """

    def __init__(self, secret: bytes | None, about: Callable[[], str]) -> None:
        self._secret = secret
        self._about = about
        self._given: dict[tuple[str, str], str] = {}
        self._last: Counter[str] | None = None
        self.counts: Counter[str] = Counter()

    def of(self, kind: Kind, value: str) -> str:
        """What stands in a value's place."""
        self.counts[kind.name] += 1
        value = kind.same(value)
        given = self._given.get((kind.name, value))
        if given is None:
            mark = self._number(kind) if self._secret is None else self._keyed(self._secret, kind, value)
            given = self._given[kind.name, value] = f"[{kind.name}:{mark}]"
        return given

    @staticmethod
    def _keyed(secret: bytes, kind: Kind, value: str) -> str:
        # With the name of the kind: the digits of a card are no phone number.
        said = f"{kind.name}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.digest(secret, said, hashlib.sha256)[:10].hex().translate(LETTERS)

    def _number(self, kind: Kind) -> str:
        if self._last is None:
            self._last = Counter()
            for name, number in NUMBERED.findall(self._about()):
                self._last[name] = max(self._last[name], int(number))
        self._last[kind.name] += 1
        return str(self._last[kind.name])
