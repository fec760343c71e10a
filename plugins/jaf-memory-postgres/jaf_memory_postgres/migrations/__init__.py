"""Our relations in the database: what stands there, and how it is made and upgraded."""

from __future__ import annotations

import json

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.statements import quoted
from jaf_memory_postgres.connection.connector import TRIGGERLESS
from jaf_memory_postgres.connection.execution import BEGIN, Connection, transaction
from jaf_memory_postgres.migrations import rights
from jaf_memory_postgres.migrations.catalogue import (
    INDEXES,
    KEYS,
    TABLES,
    Found,
    Migration,
    column_names,
    in_the_way,
    key_name,
    look,
    migrations,
)
from jaf_memory_postgres.migrations.older import DOCUMENTED
from jaf_memory_postgres.names import Names

__all__ = ["Found", "Migration", "apply", "check", "locking", "look", "migrations", "prepare", "script"]

OLDEST = 140_000
"""The oldest server that has all that our statements use (`date_bin`), as it numbers itself."""


def check(found: Found, names: Names) -> bool:
    """Whether the layout is the newest that this code knows.

    Raises:
        MemoryConfigurationError: the database is not in UTF-8, the layout is newer than this code, something of
            others stands under our name, or older data is half moved in.
    """
    if found.server < OLDEST:
        raise _refused(
            f"the server is PostgreSQL {found.server // 10_000}; jaf-memory needs {OLDEST // 10_000} or newer"
        )
    if found.encoding != "UTF8":
        raise _refused(
            f"the database's encoding is {found.encoding}; jaf-memory needs one in UTF8, which keeps every text"
        )
    if found.replication == "replica":
        raise _refused(TRIGGERLESS)
    newest = migrations()[-1].version
    if found.version > newest:
        raise _refused(
            f"the tables of {names.table!r} have layout {found.version}, this jaf-memory-postgres knows up to "
            f"{newest}; upgrade it"
        )
    _check_tables(found, names)
    if found.version == 0 and found.standing is not None:
        raise _refused(
            f"{_kind(found)} {names.table!r} stands in schema {names.schema!r} already, and jaf-memory did not make "
            "it; move its conversations in with `jaf-memory adopt`, or set JAF_POSTGRES_TABLE_NAME to another name"
        )
    if found.adopting:
        raise _refused(
            f"conversations are being moved into {names.table!r}, or that was stopped; let `jaf-memory adopt` end it"
        )
    return found.version == newest and not found.missing


def _check_tables(found: Found, names: Names) -> None:
    tables = {names.plain(suffix) for suffix in TABLES}
    if found.version and len(gone := sorted(tables.intersection(found.missing))) == 1:
        raise _refused(
            f"the table {gone[0]!r} is missing in schema {names.schema!r}, and what else jaf-memory made there stands; "
            f"restore it from a backup, or drop {min(tables - {*gone})!r} too, to begin with nothing"
        )
    if found.version and found.standing not in (None, "v"):
        raise _refused(f"{_kind(found)} stands where the view {names.table!r} has to be; rename it")
    if found.version and found.standing and not {*json.loads(found.columns or "{}")} >= DOCUMENTED:
        raise _refused(
            f"a view that jaf-memory did not make stands where its view {names.table!r} has to be; rename that one"
        )
    others = sorted(found.ours - {names.plain("before"), names.plain("adoption"), names.plain("layout")})
    if not found.version and others:
        raise _refused(in_the_way(others[0], names))


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
    # Nearly always all is there; to look takes no lock, so that any number of processes may start at once.
    found = await look(connection, names)
    if check(found, names):
        return found
    if not migrate:
        newest = migrations()[-1].version
        state = f"have layout {found.version} of {newest}" if found.version < newest else f"lack {_listed(found)}"
        raise _refused(
            f"the tables of {names.table!r} {state}, and auto_migrate is off; run `jaf-memory schema --apply`"
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
    await connection.execute(names.sql["no_timeouts"])
    await connection.execute(locking(names))
    # Once more, now under the lock: another process may have done it while this one waited.
    found = await look(connection, names)
    if check(found, names):
        return []
    try:
        return await _make(connection, names, found)
    except asyncpg.InsufficientPrivilegeError:
        right = (
            f"USAGE, CREATE ON SCHEMA {quoted(names.schema)}" if found.has_schema else "CREATE ON DATABASE (its name)"
        )
        raise _refused(
            f"the role {found.role!r} may not make tables in schema {names.schema!r}; have an administrator run what "
            f"`jaf-memory schema` prints, or GRANT {right} TO {quoted(found.role)}"
            if found.version == 0
            else f"the role {found.role!r} may not upgrade the tables of {names.table!r}, which another role owns; "
            "have that one, or an administrator, run `jaf-memory schema --apply`"
        ) from None
    except _IN_THE_WAY as error:
        raise _refused(
            f"something stands in the way of the tables of {names.table!r} in schema {names.schema!r}: a type, "
            f"perhaps, of the name of one of them, or the server keeps that name for itself ({error.sqlstate}); set "
            "JAF_POSTGRES_TABLE_NAME or JAF_POSTGRES_SCHEMA_NAME to another one"
        ) from None


_IN_THE_WAY = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateFunctionError,
    asyncpg.InvalidFunctionDefinitionError,
    asyncpg.InvalidTableDefinitionError,
    asyncpg.ReservedNameError,
)


def locking(names: Names) -> str:
    """The statement that waits for whoever changes the layout, until the end of the transaction."""
    return "SELECT " + ", ".join(f"pg_advisory_xact_lock({number})" for number in names.locks)


def _listed(found: Found) -> str:
    return ", ".join(map(repr, found.missing))


MADE_AGAIN = (2, 4, 5)
"""The migrations that can be applied again at any time: they make what holds no data of its own."""


async def _make(connection: Connection, names: Names, found: Found) -> list[str]:
    """Apply what is due, and make again what is missing."""
    if not found.has_schema:
        await connection.execute(names.sql["create_schema"])
    if names.plain("layout") not in found.ours:
        await connection.execute(names.sql["create_ledger"])
    version = found.version
    for migration in migrations()[found.listed : version]:
        await connection.execute(names.sql["ledger_entry"], migration.version, migration.name)
    # Somebody dropped both tables, and begins with nothing. One of them gone is damage, which `check` has refused.
    if {names.plain(suffix) for suffix in TABLES} <= {*found.missing}:
        await connection.execute(names.sql["clear_ledger"])
        await connection.execute(names.sql["drop_derived"])
        version = 0
    done = []
    for migration in migrations():
        if migration.version > version:
            await connection.execute(names.fill(migration.template))
            await connection.execute(names.sql["ledger_entry"], migration.version, migration.name)
            done.append(migration.label)
    if done and found.version:
        # Somebody who could write before has to have rights on what is new.
        await rights.carry(connection, names, "header")
        await connection.execute(names.sql["counted_anew"])
        found = await look(connection, names)
    return done + (await _made_again(connection, names, found) if found.missing else [])


async def _made_again(connection: Connection, names: Names, found: Found) -> list[str]:
    columns = [name for name in found.missing if name in column_names(names)]
    if columns:
        raise _refused(f"the column {columns[0]!r} is missing; restore the tables of {names.table!r} from a backup")
    await _keys_again(connection, names, found)
    every = migrations()
    for one in every:
        if one.version in MADE_AGAIN:
            await connection.execute(names.fill(one.template))
    left = (await look(connection, names)).missing
    statements = [part.strip() for one in every for part in one.template.split(";")]
    for suffix in INDEXES:
        if names.plain(suffix) in left:
            # One may stand there that was never finished, as by CREATE INDEX CONCURRENTLY.
            await connection.execute(names.fill(f"DROP INDEX IF EXISTS {{index_of:{suffix}}}"))
            # An index may have been defined anew by a later file.
            starts = tuple(f"CREATE INDEX {some}{{index:{suffix}}} " for some in ("", "IF NOT EXISTS "))
            defined = [part for part in statements if part.startswith(starts)]
            await connection.execute(names.fill(defined[-1]) if defined else "")
    left = (await look(connection, names)).missing
    if left:
        raise _refused(
            f"{', '.join(map(repr, left))} of the tables of {names.table!r} is missing, and holds them together"
        )
    return [f"{name} (again)" for name in found.missing]


async def _keys_again(connection: Connection, names: Names, found: Found) -> None:
    for (table, columns), statement in KEYS.items():
        name = key_name(names, table, columns)
        if name in found.missing:
            try:
                await connection.execute(names.fill(statement))
            except (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError):
                raise _refused(
                    f"the key {name!r} is missing, and what stands there has come to be twice meanwhile; restore the "
                    "tables from a backup"
                ) from None


def script(names: Names, role: str) -> str:
    """What an administrator runs, with psql, to make the layout: all of it or nothing.

    Args:
        names: our names.
        role: whom the provider logs in as; it gets the rights it needs, and no others.
    """
    parts = [
        BEGIN,
        locking(names),
        # Every database has `public`, and even IF NOT EXISTS wants the right to make one.
        *([names.fill("CREATE SCHEMA IF NOT EXISTS {schema}")] if names.schema != "public" else []),
        names.sql["create_ledger"],
    ]
    for migration in migrations():
        parts.append(names.fill(migration.template).strip().removesuffix(";"))
        entry = names.sql["ledger_entry"].replace("$1", str(migration.version))
        parts.append(entry.replace("$2", f"'{migration.name}'"))
    parts += rights.grants(names, role)
    return ";\n\n".join([*parts, "COMMIT"]) + ";\n"
