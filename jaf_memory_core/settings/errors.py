"""How a setting is shown to people: what it may hold, what it holds, and nothing that may be a secret."""

from __future__ import annotations

import re
import string
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import unquote

from pydantic import Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

MASK = "********"
SHORT = 3
"""Characters in a row that tell something of a secret."""

LONGEST_ADDRESS = 2_000
"""Characters of a text beyond which an @ in it is enough to hide it."""

LONGEST = 100
"""Characters of a value that a message shows."""

_SECRET_KEY = r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api_?key)"  # noqa: S105  (a pattern)
# A URL may have been taken for a path, which makes one slash of two; and somebody may have left out the scheme. Blanks
# that a password should have had in their % form count behind a whole `://` only.
_LOGIN = re.compile(r"://[^@]*@|:/+[^\s@]*@|(?<![^\s/@:])[^\s/@:]+:[^\s/@]+@[\w\[]")
_SECRET_WORD = re.compile(rf"{_SECRET_KEY}\s{{0,9}}[=:]", re.IGNORECASE)
_ALPHABET = string.ascii_letters + string.digits
_OTHERS = str.maketrans(_ALPHABET, _ALPHABET[13:] + _ALPHABET[:13])
_SECRET_PARAMETER = re.compile(rf"{_SECRET_KEY}=([^&\s]*)", re.IGNORECASE)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
_BOUNDS = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "{} or more characters",
    "max_length": "up to {} characters",
    "pattern": "of the form {}",
}


def has_credentials(text: str) -> bool:
    """Whether a text looks as if it held a password: a URL with a user in it, or `password=` and the like."""
    # No address is as long as that, and to look for one would take long.
    login = "@" in text and (len(text) > LONGEST_ADDRESS or _LOGIN.search(text) is not None)
    return login or _SECRET_WORD.search(text) is not None


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's values are secrets: `SecretStr` or its kin, alone or within another type."""
    return any(
        isinstance(kind, type) and issubclass(kind, (SecretStr, SecretBytes, Secret))
        for kind in _kinds(field.annotation)
    )


def shown(field: FieldInfo, text: str) -> str:
    """What a variable holds, as an error may show it."""
    return "a secret (not shown)" if is_secret(field) else quoted(text)


def quoted(text: str) -> str:
    """A text that came from outside as an error may show it: quoted and cut to 100 characters, or not at all."""
    if has_credentials(text):
        return "a value with credentials (not shown)"
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def masked(field: FieldInfo, text: str) -> str:
    """A variable's text as a table may show it: whole, or stars."""
    return MASK if is_secret(field) or has_credentials(text) else text


def repeats_secret(message: str, text: str) -> bool:
    """Whether a message repeats three characters in a row of a secret, or all of a shorter one.

    Drivers cut a URL at an unescaped `/`, `#` or `:` in its password, and then quote what they found there.

    Args:
        message: what would be shown.
        text: a password, or a URL whose user and password are the secret.
    """
    _, is_url, rest = text.partition("://")
    secrets = [rest.rpartition("@")[0], *_SECRET_PARAMETER.findall(rest)] if is_url else [text]
    forms = {form for secret in secrets for form in (secret, unquote(secret)) if form}
    return any(
        form[start : start + SHORT] in message for form in forms for start in range(max(1, len(form) - SHORT + 1))
    )


def disguised(text: str) -> str:
    """The text with other secrets of the same length in the place of its own: what is said of both alike tells nothing.

    Args:
        text: a password, or a URL whose user and password are the secret.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return _disguise(text)
    login, at, place = rest.rpartition("@")
    secrets = [login, *login.partition(":")[::2], *_SECRET_PARAMETER.findall(place)]
    place = _SECRET_PARAMETER.sub(lambda found: found[0][: -len(found[1]) or None] + _disguise(found[1]), place)
    for secret in secrets:
        if len(secret) >= SHORT:  # wherever it stands once more
            place = place.replace(secret, _disguise(secret))
    return scheme + mark + _disguise(login) + at + place


def _disguise(text: str) -> str:
    return "".join(letter.translate(_OTHERS) if letter.isascii() else "x" for letter in text)


def allowed(field: FieldInfo) -> str:
    """What a variable may hold, in words: `a whole number, at least 1, or none`."""
    kinds = list(_kinds(field.annotation))
    choices = [repr(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    words = [*(_WORDS[kind] for kind in kinds if kind in _WORDS), *choices] or ["text"]
    return ", ".join([" or ".join(words), *_bounds(field), *["or none"] * takes_none(field)])


def takes_none(field: FieldInfo) -> bool:
    """Whether the word `none` can stand for no value: for numbers, where it cannot be mistaken for one."""
    kinds = set(_kinds(field.annotation))
    return type(None) in kinds and bool(kinds & {int, float}) and str not in kinds


def _bounds(field: FieldInfo) -> Iterator[str]:
    for name, wording in _BOUNDS.items():
        for constraint in field.metadata:
            bound = getattr(constraint, name, None)
            if bound is not None:
                yield wording.format(f"{bound:.12g}" if isinstance(bound, float) else bound)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of, `Literal`s whole."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple, list, dict):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation
