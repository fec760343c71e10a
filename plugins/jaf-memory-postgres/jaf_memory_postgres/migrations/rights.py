"""Who may do what: the rights that a provider needs which does not own the tables, and those that others had."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.statements import quoted
from jaf_memory_postgres.connection.execution import BEGIN, Connection
from jaf_memory_postgres.names import SEARCH_TABLES, Names

GRANTS = (
    "GRANT USAGE ON SCHEMA {schema}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {header}, {message}",
    "GRANT SELECT ON {layout}, {view}, {label}",
    # Databases in which nobody may execute a new function are common where security is taken seriously.
    "GRANT EXECUTE ON FUNCTION {shown}(text[]), {labels}(jsonb, text)",
    "GRANT EXECUTE ON FUNCTION {admits}(bigint), {admits_message}(bigint, bigint)",
)
"""The rights that a provider needs which does not own the tables."""

SEARCHING = "GRANT SELECT, INSERT, UPDATE, DELETE ON {search}, {search_waiting}, {search_state}"
"""The rights on the index for searches, where there is one."""

READING = "GRANT SELECT ON {view}"
"""The right of somebody who reads by SQL; where nobody may execute new functions he needs that of `GRANTS`, too."""


class Carried(NamedTuple):
    """What somebody was granted because he had the like on another table.

    Attributes:
        grantee: a role, quoted where it has to be, or PUBLIC.
        writes: whether he may write.
    """

    grantee: str
    writes: bool


def grants(names: Names, role: str) -> list[str]:
    """The statements that give a role all of `GRANTS`."""
    return [f"{names.fill(grant)} TO {quoted(role)}" for grant in GRANTS]


async def give(connection: Connection, names: Names, role: str) -> None:
    """Give a role all of `GRANTS`, and `SEARCHING` where there is an index, or nothing.

    Raises:
        MemoryConfigurationError: there is no such role.
    """
    given = grants(names, role)
    tables = [quoted(names.schema, names.plain(suffix)) for suffix in SEARCH_TABLES]
    if await connection.fetchval(names.sql["search_tables"], tables):
        given.append(f"{names.fill(SEARCHING)} TO {quoted(role)}")
    try:
        await connection.execute("; ".join([BEGIN, *given, "COMMIT"]))
    except asyncpg.UndefinedObjectError:
        await connection.execute("ROLLBACK")
        raise MemoryConfigurationError(f"the server has no role {role!r}", provider="postgres") from None


async def carry(connection: Connection, names: Names, suffix: str) -> list[Carried]:
    """Give who has rights on a table those that are like them on all of ours.

    Args:
        connection: in a transaction.
        names: our names.
        suffix: of the table.
    """
    carried = []
    for row in await connection.fetch(names.sql["rights_on"], quoted(names.schema, names.plain(suffix))):
        given = list(map(names.fill, GRANTS[1:])) if row["writes"] else [names.fill(READING)] if row["reads"] else []
        for grant in given:
            await connection.execute(f"{grant} TO {row['grantee']}")
        if given:
            carried.append(Carried(row["grantee"], row["writes"]))
    return carried
