"""What an adoption has kept: the older table under its other name, what stands in it, and its end."""

from __future__ import annotations

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError, MemoryStorageError
from jaf_memory_core.statements import quoted
from jaf_memory_postgres.connection.execution import Connection
from jaf_memory_postgres.names import Names


async def described(connection: Connection, names: Names) -> str | None:
    """What stands in the older table that was set aside, or `None` if there is none.

    Raises:
        MemoryConfigurationError: its conversations are not all moved in yet.
    """
    before = names.plain("before")
    if not await connection.fetchval(names.sql["adoption_stands"], names.schema, before):
        return None
    is_ours = await connection.fetchval(names.sql["adoption_stands"], names.schema, names.plain("adoption"))
    if not is_ours or await connection.fetchval(names.sql["adoption_unfinished"]):
        raise MemoryConfigurationError(
            f"the older table {before!r} is not yet moved in; let `jaf-memory adopt` end that first",
            provider="postgres",
        )
    total, only, size = await connection.fetchrow(names.sql["before_holds"], quoted(names.schema, before))
    return (
        f"the older table {before!r} in schema {names.schema!r} holds {total:,} conversations, "
        f"{only:,} of which stand nowhere else ({size})"
    )


async def drop(connection: Connection, names: Names) -> str:
    """Remove the older table; what went, as a sentence.

    Raises:
        MemoryStorageError: something of the application's refers to it; nothing was changed.
    """
    before = names.plain("before")
    found = await connection.fetch(names.sql["older_followers"], quoted(names.schema, before))
    try:
        await connection.execute(names.sql["drop_before"])
    except asyncpg.DependentObjectsStillExistError:
        raise MemoryStorageError(
            f"the older table {before!r} stays, because of the {', the '.join(row['follower'] for row in found)}; drop "
            "these, or let them use another table",
            operation="adopt",
        ) from None
    return f"the older table {before!r} was removed"
