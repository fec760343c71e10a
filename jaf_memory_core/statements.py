"""SQL in `.sql` files: named statements, and places for the names of tables. For authors of SQL stores.

    -- name: header
    -- What follows the name says why, and is not sent.
    SELECT {columns} FROM {conversation} WHERE conversation_id = ?

A statement begins below the line that names it, and ends where the next is named. `{…}` is the place of an identifier,
which is quoted, or of another statement of the same file, which stands there as it is. Values are bound, and never
filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

PLACE = re.compile(r"\{([a-z][a-z0-9_:]*)\}")

Identifier = str | Sequence[str]
"""A name, or a qualified one: `("schema", "table")`."""

_NAME = re.compile(r"^-- name: *(\S+) *\n", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*(?:\n|\Z)", re.MULTILINE)


def quoted(*names: str) -> str:
    """An identifier as it stands in SQL, qualified if there are several names.

    Raises:
        ValueError: a name is empty, or holds NUL.
    """
    if not names or any(not name or "\0" in name for name in names):
        raise ValueError("a name in SQL has at least one character, and no NUL")
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def fill(text: str, identifiers: Mapping[str, Identifier]) -> str:
    """SQL with identifiers in their places, quoted; comments stay. For migrations, which have no names.

    Raises:
        ValueError: a place for which there is no identifier.
    """
    known = {place: _quoted(identifier) for place, identifier in identifiers.items()}
    return _filled(text, known, "the text")


def load(package: str, file: str, **identifiers: Identifier) -> Mapping[str, str]:
    """The statements of a file, by name.

    Args:
        package: where the file lies.
        file: its name there.
        identifiers: what stands in the places of the file: a name, or several for a qualified one.

    Raises:
        ValueError: a statement is named twice, or has a place that nothing fills, or that leads back to itself.
    """
    sections = _sections(package, file)
    known = {place: _quoted(identifier) for place, identifier in identifiers.items()}
    return MappingProxyType({name: _statement(name, sections, known, ()) for name in sections})


def _quoted(identifier: Identifier) -> str:
    return quoted(identifier) if isinstance(identifier, str) else quoted(*identifier)


@lru_cache(maxsize=64)
def _sections(package: str, file: str) -> Mapping[str, str]:
    """Name → text, with its places still empty, without comments."""
    text = (resources.files(package) / file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    names = parts[::2]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{package}/{file} names a statement twice: {', '.join(sorted(twice))}")
    return {name: _COMMENT.sub("", body).strip() for name, body in zip(names, parts[1::2], strict=True)}


def _statement(name: str, sections: Mapping[str, str], known: Mapping[str, str], within: tuple[str, ...]) -> str:
    if name in within:
        raise ValueError(f"the statement {name} holds itself: {' in '.join((name, *reversed(within)))}")
    text = sections[name]
    pieces = {place for place in PLACE.findall(text) if place in sections and place not in known}
    inner = {piece: _statement(piece, sections, known, (*within, name)) for piece in pieces}
    return _filled(text, {**known, **inner}, f"the statement {name}")


def _filled(text: str, known: Mapping[str, str], where: str) -> str:
    missing = set(PLACE.findall(text)) - known.keys()
    if missing:
        raise ValueError(f"{where} has places that nothing fills: {', '.join(sorted(missing))}")
    # In one pass, because a name may itself hold what looks like a place for one.
    return PLACE.sub(lambda place: known[place[1]], text)
