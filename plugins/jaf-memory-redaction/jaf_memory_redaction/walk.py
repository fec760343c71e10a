"""Everywhere in a message: texts, JSON within texts, objects and lists, numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaf_memory_redaction.appearance import folded, places, plain, plain_places
from jaf_memory_redaction.kinds import Kind, Span
from jaf_memory_redaction.tokens import Tokens

FIXED = frozenset(
    {
        "call_id",
        "encrypted_content",
        "id",
        "message_id",
        "role",
        "signature",
        "tool_call_id",
        "tool_use_id",
        "type",
    }
)
"""What holds a message together, or is signed by who made it; not so within the arguments of a call."""

FREE = frozenset({"arguments", "input"})
"""What a model wrote for a tool: nothing in it holds the message together."""

BINARY = re.compile(r"data:[^,\s]{0,200};base64,[A-Za-z0-9+/_=%-]*+\Z|(?![\d-]*+\Z)[A-Za-z0-9+/_-]{512,}+={0,2}\Z")
"""Files and images, and nothing behind them. Digits and dashes alone are a list of numbers."""

JSON = re.compile(r"\s*+[\[{]")
LITERAL = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\d[\d.eE+-]*+', re.DOTALL)
LEAST, MOST = 10**11, 10**19
"""Card numbers as integers: Python refuses to write those of many digits."""

NESTED = 8
"""JSON within texts of JSON is read so many times; beyond that it is a text."""


class Walk:
    """Puts tokens into the places of what the kinds find; what has none is given back as it is."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = kinds
        self._labelled = [kind for kind in kinds if kind.label is not None]

    def structure(self, value: Any, tokens: Tokens) -> Any:
        """A message, or a part of it: what holds it together stays."""
        return self._any(value, tokens, free=False)

    def member(self, name: str, value: Any, tokens: Tokens) -> Any:
        """A member of an object, which is free."""
        return self._member(name, value, tokens, free=True)

    def _any(self, value: Any, tokens: Tokens, *, free: bool) -> Any:
        if isinstance(value, str):
            return self.text(value, tokens)
        if isinstance(value, dict):
            return self._object(value, tokens, free=free)
        if isinstance(value, list):
            after = [self._any(one, tokens, free=free) for one in value]
            return after if any(new is not old for new, old in zip(after, value, strict=True)) else value
        if type(value) in (int, float) and LEAST <= value < MOST and value == int(value):
            return self._number(value, str(int(value)), tokens)
        return value

    def _object(self, value: dict[str, Any], tokens: Tokens, *, free: bool) -> dict[str, Any]:
        # In the order of their names: equal objects get equal numbers, however their members stand.
        changed = {}
        for name in sorted(value):
            if not free and name in FIXED and isinstance(value[name], str):
                continue
            after = self._member(name, value[name], tokens, free=free or name in FREE)
            new = self._plain(name, tokens) if free else name
            if after is not value[name] or new != name:
                changed[name] = (new, after)
        if not changed:
            return value
        whole: dict[str, Any] = {}
        same: Counter[str] = Counter()
        for name, old in value.items():
            token, after = changed.get(name, (name, old))
            new = token
            while new in whole or (new != name and new in value):
                same[token] += 1  # two names that are the same value
                new = f"{token}_{same[token]}"
            whole[new] = after
        return whole

    def _member(self, name: str, value: Any, tokens: Tokens, *, free: bool) -> Any:
        if isinstance(value, str):
            for kind in self._labelled:
                said = f"{name}={value}"
                if kind.occurs(said.lower()) and next(kind.spans(said), None) == (len(name) + 1, len(said)):
                    return tokens.of(kind, value)
        return self._any(value, tokens, free=free)

    def text(self, text: str, tokens: Tokens, depth: int = 0) -> str:
        """A text; one that is JSON stays JSON."""
        if BINARY.match(text):
            return text
        if depth < NESTED and JSON.match(text) and _is_json(text):
            return self._json(text, tokens, depth)
        return self._plain(text, tokens)

    def _json(self, text: str, tokens: Tokens, depth: int) -> str:
        def literal(match: re.Match[str]) -> str:
            raw = match.group()
            if raw[0] != '"':
                after = self._number(raw, raw, tokens)
                return raw if after is raw else json.dumps(after)
            value = json.loads(raw, strict=False) if "\\" in raw else raw[1:-1]
            after = self.text(value, tokens, depth + 1)
            return raw if after is value else json.dumps(after, ensure_ascii=raw.isascii())

        after = LITERAL.sub(literal, self._replaced(text, tokens, self._labelled))
        return text if after == text else after

    def _number(self, value: Any, digits: str, tokens: Tokens) -> Any:
        # Tables that were read as numbers write one as `4111111111111111.0`.
        digits = digits.removesuffix(".0")
        if 11 < len(digits) < 20 and digits.isdecimal():
            after = self._replaced(digits, tokens, [kind for kind in self.kinds if kind.name == "card"])
            return value if after is digits else after
        return value

    def _plain(self, text: str, tokens: Tokens) -> str:
        return self._replaced(text, tokens, self.kinds)

    @staticmethod
    def _replaced(text: str, tokens: Tokens, kinds: Sequence[Kind]) -> str:
        if not kinds or not text:
            return text
        found = _found(text, kinds)
        read = plain(text)
        if read != text:
            at = plain_places(text)
            found += [((at[start], at[end]), kind) for (start, end), kind in _found(read, kinds)]
        if not found:
            return text
        pieces, last = [], 0
        for (start, end), kind in _apart(found):
            begins = max(last, start)
            # What nobody sees behind the last character goes, too.
            ends = max(begins, end)
            pieces += [text[last:begins], tokens.of(kind, folded(plain(text[begins:ends])))]
            last = ends
        return "".join((*pieces, text[last:]))


def _found(text: str, kinds: Sequence[Kind]) -> list[tuple[Span, Kind]]:
    """What the kinds find, and where in the text."""
    looked = folded(text)
    lowered = looked.lower()
    found = [(span, kind) for kind in kinds if kind.occurs(lowered) for span in kind.spans(looked)]
    if not found:
        return []
    at = places(text)
    return [((at[start], at[end]), kind) for (start, end), kind in found]


def _apart(found: list[tuple[Span, Kind]]) -> list[tuple[Span, Kind]]:
    """Of those that overlap the one that begins first, as far as any of them reaches; in their order in the text."""
    kept: list[tuple[Span, Kind]] = []
    for (start, end), kind in sorted(found, key=lambda one: one[0][0]):  # stable: kinds stand in their order
        if kept and start < kept[-1][0][1]:
            (before, until), first = kept[-1]
            kept[-1] = ((before, max(until, end)), first)  # nothing of either stays
        else:
            kept.append(((start, end), kind))
    return kept


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=_unread, parse_float=_unread)
    except (ValueError, RecursionError):
        return False
    return True


def _unread(_text: str) -> None:
    """Nothing of a number: Python refuses to read integers of many digits."""
