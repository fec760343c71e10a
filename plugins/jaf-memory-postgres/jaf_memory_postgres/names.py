"""Names of our relations: quoted, within the server's 63 bytes, and never the same for two table names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from jaf_memory_core import statements

LONGEST = 63
"""Bytes of an identifier; the server cuts what is longer, and so makes two names one."""

DIGEST = 12
"""Hexadecimal digits that stand for what had to be cut."""


FUNCTIONS = ("shown", "labels", "admits", "admits_message", "refuses", "keeps")
TRIGGERS = ("refuses", "refuses_row", "keeps_made", "keeps_changed", "keeps_erased")


def checked_name(name: str) -> str:
    """A name that the server keeps as it is.

    Raises:
        ValueError: it is empty, too long, or holds NUL or a lone surrogate.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= LONGEST or "\0" in name:
        raise ValueError(f"a name has 1 to {LONGEST} bytes in UTF-8, and no NUL")
    return name


def derived(table: str, suffix: str) -> str:
    """A further name for a table name: cut where it is too long, with a digest of the whole."""
    name = f"{table}__{suffix}"
    if len(name.encode()) <= LONGEST:
        return name
    tail = f"~{hashlib.sha256(table.encode()).hexdigest()[:DIGEST]}__{suffix}"
    return table.encode()[: LONGEST - len(tail)].decode(errors="ignore") + tail


SEARCH_TABLES = ("search", "search_waiting", "search_state")
SEARCH = (*SEARCH_TABLES, "search_notes")
SEARCH_TRIGGERS = ("search_added", "search_changed", "search_dropped")
RELATIONS = ("header", "message", "label", "layout", "adoption", "before", *FUNCTIONS, *SEARCH)
TIMES = ("created_at", "updated_at", "amended_at", "expires_at")
SEARCH_INDEXES = ("search_place", "search_words", *SEARCH_TRIGGERS)
INDEXES = ("before", "user_id", *TIMES, "metadata", "message_id", *TRIGGERS, *SEARCH_INDEXES)


class Names(NamedTuple):
    """The relations of one table name.

    Attributes:
        schema, table: as the settings give them.
    """

    schema: str
    table: str

    def plain(self, suffix: str) -> str:
        """The name of a relation of ours, as the catalogue has it."""
        return derived(self.table, suffix)

    def fill(self, template: str) -> str:
        """SQL with the names in it: `{view}`, `{schema}`, `{header}`, `{message}`, … are replaced, quoted."""
        return statements.fill(template, _places(self))

    @property
    def sql(self) -> Mapping[str, str]:
        """The statements of `statements.sql`, with the names in them."""
        return _loaded(self)

    @property
    def lock(self) -> int:
        """The number of the advisory lock under which the layout changes."""
        return _number(f"{self.schema}\0{self.table}")

    @property
    def locks(self) -> tuple[int, int]:
        """The numbers of all advisory locks under which the layout changes, in the order in which they are taken.

        The first is one for all tables of a schema: what they share, the schema itself, is made by one of them.
        """
        return _number(self.schema), self.lock


def _number(text: str) -> int:
    digest = hashlib.sha256(f"jaf-memory\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@lru_cache(maxsize=64)
def _loaded(names: Names) -> Mapping[str, str]:
    return statements.load("jaf_memory_postgres", "statements.sql", **_places(names))


def _places(names: Names) -> Mapping[str, str | Sequence[str]]:
    """What stands in a template → what it is replaced by."""
    places: dict[str, str | Sequence[str]] = {"view": (names.schema, names.table), "schema": names.schema}
    places |= {suffix: (names.schema, names.plain(suffix)) for suffix in RELATIONS}
    places |= {f"index_of:{suffix}": (names.schema, names.plain(suffix)) for suffix in INDEXES}
    return places | {f"index:{suffix}": names.plain(suffix) for suffix in INDEXES}
