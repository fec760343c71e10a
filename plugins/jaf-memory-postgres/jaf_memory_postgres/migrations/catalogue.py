"""What stands in the database under our names: the catalogue is believed, and the ledger only says what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_postgres.connection.execution import Connection
from jaf_memory_postgres.names import FUNCTIONS, TRIGGERS, Names


class Migration(NamedTuple):
    """One numbered file of SQL.

    Attributes:
        version: its number.
        name: what it is called.
        template: its text, with places for our names.
    """

    version: int
    name: str
    template: str

    @property
    def label(self) -> str:
        """The number and the name, as people read them."""
        return f"{self.version:04}_{self.name}"


def migrations() -> tuple[Migration, ...]:
    """All numbered files, in order."""
    folder = resources.files("jaf_memory_postgres.migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    found = []
    for file in files:
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(found)


class Found(NamedTuple):
    """What stands in the database under our names.

    Attributes:
        version: of the newest migration that was applied, 0 for none.
        listed: the same by the ledger; what it has lost is written anew.
        standing: kind of the relation under the table name (`r` a table, `v` a view), or `None`.
        columns: name → type of that relation's columns, as JSON, or `None`.
        missing: what a layout of that version has and this database has not.
        ours: what of the relations that we name stands there.
        has_schema: whether the schema is there.
        adopting: whether older data was begun to be moved in, and that was not finished.
        encoding, replication, role, server: the database's, the session's, whom the server takes us for, its version.
        now: the server's time.
    """

    version: int
    listed: int
    standing: str | None
    columns: str | None
    missing: tuple[str, ...]
    ours: frozenset[str]
    has_schema: bool
    adopting: bool
    encoding: str
    replication: str
    role: str
    server: int
    now: Any


LABEL = "label"
TABLES: Mapping[str, frozenset[str]] = {
    "header": frozenset(
        (
            *("id", "conversation_id", "user_id", "incarnation", "version", "metadata", "first_position"),
            *("message_count", "size", "trimmed", "ttl", "expires_at", "created_at", "updated_at"),
        )
    ),
    "message": frozenset(("conversation", "position", "message_id", "body")),
}
"""The tables that hold the data, with their columns."""

COLUMNS: Mapping[str, frozenset[str]] = {
    **TABLES,
    "header": TABLES["header"] | {"active_span", "expiry_span", "amended_at", "gaps"},
    LABEL: frozenset(("conversation", "metadata")),
}
"""All columns of the newest layout."""

INDEXES = ("user_id", "created_at", "updated_at", "amended_at", "expires_at", "metadata")

KEYS: Mapping[tuple[str, str], str] = {
    ("header", "id"): "ALTER TABLE {header} ADD PRIMARY KEY (id)",
    ("header", "conversation_id"): "ALTER TABLE {header} ADD UNIQUE (conversation_id)",
    ("message", "conversation,position"): "ALTER TABLE {message} ADD PRIMARY KEY (conversation, position)",
    ("message", "conversation,message_id"): (
        "ALTER TABLE {message} ADD CONSTRAINT {index:message_id} UNIQUE (conversation, message_id)"
    ),
    (LABEL, "conversation"): "ALTER TABLE {label} ADD PRIMARY KEY (conversation)",
}
"""(table, columns) → what makes a key again that was lost, as by a restore that was not finished."""


_LEDGERS: Mapping[str, frozenset[str]] = {
    "layout": frozenset(("version", "name")),
    "adoption": frozenset(("source", "total", "last", "moved", "refused", "done")),
}
"""The tables that say how far something has come, with their columns."""


def in_the_way(relation: str, names: Names) -> str:
    """What is said of something of others under one of our names."""
    return (
        f"{relation!r} stands in schema {names.schema!r} already, and jaf-memory did not make it; rename it, or set "
        "JAF_POSTGRES_TABLE_NAME to another name"
    )


def key_name(names: Names, table: str, columns: str) -> str:
    """How a key is called to people, whatever its name in the catalogue."""
    return f"{names.plain(table)} ({columns.replace(',', ', ')})"


def column_names(names: Names) -> dict[str, tuple[str, str]]:
    """How each column is called to people → its table and its own name."""
    places = [(names.plain(suffix), one) for suffix, columns in COLUMNS.items() for one in sorted(columns)]
    return {f"{table}.{column}": (table, column) for table, column in places}


async def look(connection: Connection, names: Names) -> Found:
    """What stands there; at most three statements, none of which changes or locks anything.

    Raises:
        MemoryConfigurationError: a table of others stands where one of ours says how far something has come.
    """
    relations = {suffix: names.plain(suffix) for suffix in ("layout", "adoption", "before", *TABLES, LABEL, *INDEXES)}
    functions, triggers = ([names.plain(suffix) for suffix in suffixes] for suffixes in (FUNCTIONS, TRIGGERS))
    tables = [names.plain(suffix) for suffix in (*COLUMNS, *_LEDGERS)]
    row = await connection.fetchrow(
        names.sql["look"], names.schema, [*relations.values()], names.table, functions, triggers, tables
    )
    ours = frozenset(row["ours"] or ())
    held = json.loads(row["held"] or "{}")
    for suffix, columns in _LEDGERS.items():
        if relations[suffix] in ours and not columns <= {*held.get(relations[suffix], ())}:
            raise MemoryConfigurationError(in_the_way(relations[suffix], names), provider="postgres")
    adopting = relations["adoption"] in ours and await connection.fetchval(names.sql["adoption_unfinished"])
    listed = await connection.fetchval(names.sql["ledger_version"]) if relations["layout"] in ours else 0
    version = max(listed, _version(names, held))
    lost = _lost(names, row, held, ours, version) if version else []
    if listed < version:
        lost.append(relations["layout"])
    return Found(
        version,
        listed,
        row["standing"],
        row["columns"],
        tuple(dict.fromkeys(lost)),
        ours,
        row["has_schema"],
        adopting,
        *(row["encoding"], row["replication"], row["role"], row["server"], row["now"]),
    )


def _version(names: Names, held: Mapping[str, list[str]]) -> int:
    """Which layout the tables themselves are of, at least: the ledger may have been lost."""
    if any(not columns <= {*held.get(names.plain(suffix), ())} for suffix, columns in TABLES.items()):
        return 0
    if names.plain(LABEL) in held:
        columns = held[names.plain("header")]
        return migrations()[-1].version if "gaps" in columns else 5 if "amended_at" in columns else 4
    # The second one can be applied again at any time.
    return 3 if "active_span" in held[names.plain("header")] else 1


def _lost(names: Names, row: Any, held: Mapping[str, list[str]], ours: frozenset[str], version: int) -> list[str]:
    wanted = [names.plain(suffix) for suffix in (*TABLES, *INDEXES)]
    if version < migrations()[-1].version:  # an older layout has less
        lost = [name for name in wanted if name not in ours]
        return lost if row["standing"] is not None else [*lost, names.table]
    lost = [name for name in (*wanted, names.plain(LABEL)) if name not in ours]
    for group, kind in ((FUNCTIONS, "functions"), (TRIGGERS, "triggers")):
        lost += [names.plain(suffix) for suffix in group if names.plain(suffix) not in (row[kind] or ())]
    keys = row["keys"] or ()
    lost += [name for name, (table, column) in column_names(names).items() if column not in held.get(table, (column,))]
    lost += [
        key_name(names, suffix, columns)
        for suffix, columns in KEYS
        if names.plain(suffix) in held and f"{names.plain(suffix)} {columns}" not in keys
    ]
    return lost if row["standing"] is not None else [*lost, names.table]
