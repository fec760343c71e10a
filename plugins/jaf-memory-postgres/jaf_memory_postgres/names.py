"""Names of our relations: quoted, within the server's 63 bytes, and never the same for two table names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

LONGEST = 63
"""Bytes of an identifier; the server cuts what is longer, and so makes two names one."""

DIGEST = 12
"""Hexadecimal digits that stand for what had to be cut."""


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


def quoted(*names: str) -> str:
    """An identifier as it stands in SQL, qualified if there are several names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def derived(table: str, suffix: str) -> str:
    """A further name for a table name: cut where it is too long, with a digest of the whole."""
    name = f"{table}__{suffix}"
    if len(name.encode()) <= LONGEST:
        return name
    tail = f"~{hashlib.sha256(table.encode()).hexdigest()[:DIGEST]}__{suffix}"
    return table.encode()[: LONGEST - len(tail)].decode(errors="ignore") + tail


PLACE = re.compile(r"\{([a-z_:]+)\}")
RELATIONS = ("header", "message", "layout", "adoption", "before", "shown", "labels")
INDEXES = ("before", "user_id", "created_at", "updated_at", "expires_at", "metadata", "message_id")


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
        return _filled(self, template)

    @property
    def lock(self) -> int:
        """The number of the advisory lock under which the layout changes."""
        digest = hashlib.sha256(f"jaf-memory\0{self.schema}\0{self.table}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


@lru_cache(maxsize=512)
def _filled(names: Names, template: str) -> str:
    known = _places(names)
    # In one pass, because a name may itself hold what looks like a place for one.
    return PLACE.sub(lambda place: known[place[1]], template)


@lru_cache(maxsize=64)
def _places(names: Names) -> Mapping[str, str]:
    """What stands in a template → what it is replaced by."""
    known = {"view": quoted(names.schema, names.table), "schema": quoted(names.schema)}
    known |= {suffix: quoted(names.schema, names.plain(suffix)) for suffix in RELATIONS}
    return known | {f"index:{suffix}": quoted(names.plain(suffix)) for suffix in INDEXES}
