"""Our relations in the database: what stands there, and how it is made and upgraded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.statements import quoted
from jaf_memory_postgres.connection.pool import Connection
from jaf_memory_postgres.connection.transaction import BEGIN, transaction
from jaf_memory_postgres.names import Names


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


class Found(NamedTuple):
    """What stands in the database under our names.

    Attributes:
        version: of the newest migration that was applied, 0 for none.
        standing: kind of the relation under the table name (`r` a table, `v` a view), or `None`.
        columns: name → type of that relation's columns, as JSON, or `None`.
        has_schema: whether the schema is there.
        adopting: whether older data was begun to be moved in, and that was not finished.
        encoding, role: the database's encoding, and whom the server takes us for.
        now: the server's time.
    """

    version: int
    standing: str | None
    columns: str | None
    has_schema: bool
    adopting: bool
    encoding: str
    role: str
    now: Any


def migrations() -> tuple[Migration, ...]:
    """All numbered files, in order."""
    folder = resources.files("jaf_memory_postgres.migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    found = []
    for file in files:
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(found)


async def look(connection: Connection, names: Names) -> Found:
    """What stands there; at most three statements, none of which changes or locks anything."""
    ours = {suffix: names.plain(suffix) for suffix in ("layout", "adoption")}
    row = await connection.fetchrow(names.sql["look"], names.schema, list(ours.values()), names.table)
    present = row["ours"] or ()
    version, adopting = 0, False
    if ours["layout"] in present:
        version = await connection.fetchval(names.sql["ledger_version"])
    if ours["adoption"] in present:
        adopting = await connection.fetchval(names.sql["adoption_unfinished"])
    return Found(
        version,
        row["standing"],
        row["columns"],
        row["has_schema"],
        adopting,
        row["encoding"],
        row["role"],
        row["now"],
    )


def check(found: Found, names: Names) -> bool:
    """Whether the layout is the newest that this code knows.

    Raises:
        MemoryConfigurationError: the database is not in UTF-8, the layout is newer than this code, something of
            others stands under our name, or older data is half moved in.
    """
    if found.encoding != "UTF8":
        raise _refused(
            f"the database's encoding is {found.encoding}; jaf-memory needs one in UTF8, which keeps every text"
        )
    newest = migrations()[-1].version
    if found.version > newest:
        raise _refused(
            f"the tables of {names.table!r} have layout {found.version}, this jaf-memory-postgres knows up to "
            f"{newest}; upgrade it"
        )
    if found.version == 0 and found.standing is not None:
        raise _refused(
            f"{_kind(found)} {names.table!r} stands in schema {names.schema!r} already, and jaf-memory did not make "
            "it; move its conversations in with `jaf-memory adopt`, or set JAF_POSTGRES_TABLE_NAME to another name"
        )
    if found.adopting:
        raise _refused(
            f"conversations are being moved into {names.table!r}, or that was stopped; let `jaf-memory adopt` end it"
        )
    return found.version == newest


def _kind(found: Found) -> str:
    return {"r": "a table", "p": "a table", "v": "a view"}.get(found.standing or "", "something")


def _refused(text: str) -> MemoryConfigurationError:
    return MemoryConfigurationError(text, provider="postgres")


async def prepare(connection: Connection, names: Names, *, migrate: bool) -> Found:
    """Make or upgrade the layout where that is needed, and allowed.

    Raises:
        MemoryConfigurationError: as `check` says; or something is missing, and `migrate` is false or the role may
            not make it.
    """
    found = await look(connection, names)
    if check(found, names):
        return found
    if not migrate:
        raise _refused(
            f"the tables of {names.table!r} have layout {found.version} of {migrations()[-1].version}, and "
            "auto_migrate is off; run `jaf-memory schema --apply`"
        )
    await transaction(connection, lambda: apply(connection, names))
    return found


async def apply(connection: Connection, names: Names) -> list[str]:
    """Apply what is missing, inside the caller's transaction and under the lock of this layout.

    Returns:
        the names of the migrations that were applied.

    Raises:
        MemoryConfigurationError: as `check` says, or the role may not make tables.
    """
    await connection.execute(f"SELECT pg_advisory_xact_lock({names.lock})")
    found = await look(connection, names)
    if check(found, names):
        return []
    due = [migration for migration in migrations() if migration.version > found.version]
    try:
        await _make(connection, names, due, found)
    except asyncpg.InsufficientPrivilegeError:
        right = (
            f"USAGE, CREATE ON SCHEMA {quoted(names.schema)}" if found.has_schema else "CREATE ON DATABASE (its name)"
        )
        raise _refused(
            f"the role {found.role!r} may not make tables in schema {names.schema!r}; have an administrator run what "
            f"`jaf-memory schema` prints, or GRANT {right} TO {quoted(found.role)}"
        ) from None
    return [f"{migration.version:04}_{migration.name}" for migration in due]


async def _make(connection: Connection, names: Names, due: list[Migration], found: Found) -> None:
    if not found.has_schema:
        await connection.execute(names.sql["create_schema"])
    if found.version == 0:
        await connection.execute(names.sql["create_ledger"])
    for migration in due:
        await connection.execute(names.fill(migration.template))
        await connection.execute(names.sql["ledger_entry"], migration.version, migration.name)


def script(names: Names, role: str) -> str:
    """What an administrator runs, with psql, to make the layout: all of it or nothing.

    Args:
        names: our names.
        role: whom the provider logs in as; it gets the rights it needs, and no others.
    """
    parts = [
        BEGIN,
        f"SELECT pg_advisory_xact_lock({names.lock})",
        # Every database has `public`, and even IF NOT EXISTS wants the right to make one.
        *([names.fill("CREATE SCHEMA IF NOT EXISTS {schema}")] if names.schema != "public" else []),
        names.sql["create_ledger"],
    ]
    for migration in migrations():
        parts.append(names.fill(migration.template).strip().removesuffix(";"))
        entry = names.sql["ledger_entry"].replace("$1", str(migration.version))
        parts.append(entry.replace("$2", f"'{migration.name}'"))
    parts += [grant + f" TO {quoted(role)}" for grant in map(names.fill, GRANTS)]
    return ";\n\n".join([*parts, "COMMIT"]) + ";\n"


GRANTS = (
    "GRANT USAGE ON SCHEMA {schema}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {header}, {message}",
    "GRANT SELECT ON {layout}, {view}",
)
"""The rights that a provider needs which does not own the tables."""


def is_older(columns: Mapping[str, str]) -> str | None:
    """Which older layout a table's columns are of: `"documented"`, `"jaf-py"`, or `None` for neither.

    Args:
        columns: name → type.
    """
    if not columns.items() >= {"messages": "jsonb", "metadata": "jsonb"}.items():
        return None
    if set(columns) == DOCUMENTED and columns["conversation_id"].startswith(("character varying", "text")):
        return "documented"
    return "jaf-py" if set(columns) == JAF_PY else None


JAF_PY = {"conversation_id", "user_id", "messages", "metadata"}
DOCUMENTED = JAF_PY | {"id", "created_at", "updated_at"}
