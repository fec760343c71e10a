"""The rule of search, in plain Python: what is a word, and whether a message says what is looked for.

Every store goes by it: an index may propose messages, and this decides. No input and no output, and no clock.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jaf_memory_core.messages import Message

EXCERPT = 160
"""Characters of a message that an excerpt shows, about."""

_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_CHUNK = re.compile(r"\S+")
# What has no width of its own (joiners, soft hyphens, the choice between two looks of a character) is left out of
# words, as Unicode leaves it out where it compares without case. https://www.unicode.org/reports/tr44/#NFKC_Casefold
_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_MARKS = 30
# More in a row stand on no letter, and are left out, as Unicode bounds them for streams: marks are put in order in a
# time that grows with the square of how many there are. https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format
_HEAPED = re.compile(rf"[\W\uff9e\uff9f]{{{_MARKS + 1},}}")

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x302F),
    (0x3031, 0x303C),
    (0x3040, 0x31BF),  # kana, bopomofo, Hangul
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFD),
)
"""Scripts without spaces between words, or, as Hangul, with endings that hang on: each character stands for itself."""


RULE = f"1 of Unicode {unicodedata.unidata_version}"
"""Which words a text has: an index by another rule, or by a Python of another Unicode, proposes too few."""

LONGEST_TERM = 64
"""Characters of a word that an index keeps. Who looks for a longer word looks for its beginning."""

OVERFULL = "\ue000"
"""Stands in an index for all words of a message that has too many of them, or cannot be read. No text has this word."""

_MOST_TERMS = 1 << 17
_SHORTEST_BEGINNING = 3
_ASKED_TERMS = 8


class Term(NamedTuple):
    """What a message that is looked for has in an index.

    Attributes:
        text: a word, cut as `LONGEST_TERM` says.
        open: whether it is only the beginning of one.
    """

    text: str
    open: bool = False


class Phrase(NamedTuple):
    """Words that must stand one behind the other.

    Attributes:
        words: at least one.
        open: whether the last of them need only be the beginning of a word.
    """

    words: tuple[str, ...]
    open: bool = False


def folded(text: str) -> str:
    """A text as it is compared: NFKC-normalised, case-folded, without what has no width."""
    if text.isascii():
        return text.lower()
    seen = _HEAPED.sub(_levelled, _UNSEEN.sub("", text))
    # Twice: folding the case of what was composed may leave what can be composed again.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def _levelled(heap: re.Match[str]) -> str:
    """The same without the marks that stand on too many others; two half-width letters are normalised to marks."""
    kept: list[str] = []
    marks = 0
    for character in heap.group():
        is_mark = unicodedata.category(character)[0] == "M" or character in "\uff9e\uff9f"
        marks = marks + 1 if is_mark else 0
        if marks <= _MARKS:
            kept.append(character)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """What a folded character is: part of a `word`, a word by itself (`one`), or nothing of either."""
    category = unicodedata.category(character)
    if category == "So" or "\U0001f3fb" <= character <= "\U0001f3ff":
        return "one"
    if category[0] not in "LNM":
        return ""
    code = ord(character)
    return "one" if code >= _UNSPACED[0][0] and any(first <= code <= last for first, last in _UNSPACED) else "word"


def words_of(text: str) -> list[str]:
    """The words of a text, folded, in their order: runs of letters, digits and marks, or characters by themselves."""
    plain = folded(text)
    if plain.isascii():
        return _ASCII_WORD.findall(plain)
    words: list[str] = []
    start: int | None = None  # of the word that this is within; one that grew by letters would be copied for each
    for index, character in enumerate(plain):
        kind = _kind(character)
        if kind == "word":
            start = index if start is None else start
            continue
        if start is not None:
            words.append(plain[start:index])
            start = None
        if kind:
            words.append(character)
    if start is not None:
        words.append(plain[start:])
    return words


def phrases(text: str) -> tuple[Phrase, ...]:
    """What a query asks for: each of its words; words in double quotes, and characters without spaces, together.

    The last word need only be the beginning of one, unless a quote closes behind it. A quote that nothing closes opens
    a phrase that is still being written.
    """
    asked: list[Phrase] = []
    quoted = False
    pieces = text.split('"')
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        if quoted:
            words = words_of(piece)
            asked += [Phrase(tuple(words), last)] if words else []
        else:
            asked += [phrase for chunk in _CHUNK.findall(piece) for phrase in _apart(chunk)]
        quoted = not quoted
    if asked and not (len(pieces) % 2 and not words_of(pieces[-1])):
        asked[-1] = asked[-1]._replace(open=True)
    return tuple(dict.fromkeys(asked))


def _apart(chunk: str) -> Iterator[Phrase]:
    """The words of what was written without a space: each by itself, but those of one character each together."""
    together: list[str] = []
    for word in words_of(chunk):
        if len(word) == 1 and _kind(word) == "one":
            together.append(word)
            continue
        if together:
            yield Phrase(tuple(together))
            together = []
        yield Phrase((word,))
    if together:
        yield Phrase(tuple(together))


def texts_of(message: Message, *, in_calls: bool = False) -> list[str]:
    """What a person said or read in a message: its text, or its text parts; with `in_calls` also arguments of calls."""
    content = message.content
    texts = [content] if isinstance(content, str) else []
    parts = content if isinstance(content, tuple) else ()
    texts += [part.text for part in parts if part.text is not None and part.type in _TEXT_PARTS]
    if in_calls:
        called = [call.function.arguments for call in message.tool_calls or () if call.function is not None]
        called += [message.further.get("arguments"), *(part.further.get("input") for part in parts)]
        texts += [_plain(one) for one in called if one is not None]
    return texts


def terms_of(message: Message) -> set[str]:
    """What an index keeps of a message: its words, each once, or `OVERFULL` alone."""
    terms: set[str] = set()
    for text in texts_of(message):
        # Chunk by chunk, as the rule goes: a mark behind white space belongs to nothing before it.
        for chunk in _CHUNK.findall(text):
            terms.update(word[:LONGEST_TERM] for word in words_of(chunk))
    return terms if sum(map(len, terms)) <= _MOST_TERMS else {OVERFULL}


def terms_asked(asked: Sequence[Phrase]) -> tuple[Term, ...]:
    """Terms that stand in the index for each message that says it; none where an index would not be of use.

    A beginning of one or two letters is left out: too many words begin like that.
    """
    terms: dict[str, Term] = {}
    for phrase in asked:
        last = len(phrase.words) - 1
        for index, word in enumerate(phrase.words):
            alone = len(word) == 1 and _kind(word) == "one"
            is_open = phrase.open and index == last and not alone
            if not is_open or len(word) >= _SHORTEST_BEGINNING:
                term = Term(word[:LONGEST_TERM], is_open)
                terms.setdefault(term.text, term)
    return tuple(sorted(terms.values(), key=lambda term: len(term.text), reverse=True)[:_ASKED_TERMS])


def _plain(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)  # with words as they were given


def excerpt(asked: Sequence[Phrase], message: Message, *, in_calls: bool = False) -> str | None:
    """Where the message says all that is asked for, as the surroundings of the first of it; `None` where it does not.

    Nothing asked for is said nowhere.
    """
    texts = texts_of(message, in_calls=in_calls)
    if not asked or not _may_say(asked, texts):
        return None
    place = _first_place(asked, texts)
    return None if place is None else _surroundings(texts[place[0]], place[1])


def _may_say(asked: Sequence[Phrase], texts: Sequence[str]) -> bool:
    """Whether each word stands there as letters at least: much cheaper to see, and nearly always the answer."""
    plain = [folded(text) for text in texts]
    return all(any(word in text for text in plain) for phrase in asked for word in phrase.words)


def _first_place(asked: Sequence[Phrase], texts: Sequence[str]) -> tuple[int, int] | None:
    """In which text, and where in it, the first of the phrases stands; `None` unless all of them stand somewhere."""
    left = set(asked)
    # By the word that ends it: each word of the text is held against few of them.
    ending: dict[str, list[Phrase]] = {}
    for phrase in asked:
        ending.setdefault("" if phrase.open else phrase.words[-1], []).append(phrase)
    beginnings = ending.pop("", [])
    places: list[tuple[int, int]] = []
    longest = max(len(phrase.words) for phrase in asked)
    for which, text in enumerate(texts):
        # The last words only: a message may be long, and no word reaches across white space.
        words: deque[str] = deque(maxlen=longest)
        starts: deque[int] = deque(maxlen=longest)
        for chunk in _CHUNK.finditer(text):
            for word in words_of(chunk.group()):
                words.append(word)
                starts.append(chunk.start())
                for phrase in (*ending.get(word, ()), *beginnings):
                    if phrase in left and _ends_here(phrase, words):
                        left.remove(phrase)
                        places.append((which, starts[-len(phrase.words)]))
            if not left:
                return min(places)
    return None


def _ends_here(phrase: Phrase, words: deque[str]) -> bool:
    *before, last = phrase.words
    if not (words[-1].startswith(last) if phrase.open else words[-1] == last):
        return False
    return not before or list(words)[-len(phrase.words) : -1] == before


def _surroundings(text: str, at: int) -> str:
    """The text around a place on one line, with a mark where it goes on."""
    end = min(len(text), max(0, at - EXCERPT // 4) + EXCERPT)
    start = max(0, min(at, end - EXCERPT))
    shown = " ".join(text[start:end].split())
    return "… " * (start > 0) + shown + " …" * (end < len(text))
