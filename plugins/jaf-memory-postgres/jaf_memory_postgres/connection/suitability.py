"""Whether a connection of the application does for us: its encoding, its codecs, and what stands behind it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_postgres.connection.connector import copied, is_behind_pooler
from jaf_memory_postgres.connection.execution import Connection

KINDS: Mapping[str, Any] = {
    "text": " \u00e9\U0001f642\t\\\"'{}\n ",
    "varchar": " V\u00e9\U0001f642 ",
    "int4": 4,
    "int8": 1 << 40,
    "float8": 0.5,
    "bool": True,
    "record": 7,
    "timestamptz": datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
}
"""Types of what we send and read, each with a value that has to come back as it is."""

_ASKED = {"record": "SELECT ROW($1::int4)"}
"""What is asked of a type that cannot be sent."""


async def check(connection: Connection) -> None:
    """Look whether a connection of the application does for us.

    Raises:
        MemoryConfigurationError: it decodes a type that we need in a way of its own, or it keeps prepared statements
            while a pooler between it and the server mixes sessions.
    """
    encoding = connection.get_settings().client_encoding
    # As the server has it, or as the driver wrote it, where a pooler repeats that.
    if "".join(filter(str.isalnum, encoding)).upper() != "UTF8":
        raise MemoryConfigurationError(
            f"the application's connection has client_encoding {encoding}, in which not every text can be sent; leave "
            "it at UTF8",
            provider="postgres",
        )
    for kind, value in KINDS.items():
        if not await _comes_back(connection, kind, value):
            raise MemoryConfigurationError(
                f"the application's connection has a codec of its own for {kind} (set_type_codec), which would change "
                "what is stored; give the provider a connection or a pool without it (one for jsonb or json is fine)",
                provider="postgres",
            )
    if await is_behind_pooler(connection) and await _keeps_statements(connection):
        raise MemoryConfigurationError(
            "a pooler stands between the application's connection and the server, and prepared statements are kept; "
            "make the connection or the pool with statement_cache_size=0",
            provider="postgres",
        )


async def _comes_back(connection: Connection, kind: str, value: Any) -> bool:
    try:
        found = await connection.fetchval(_ASKED.get(kind, f"SELECT $1::{kind}"), value)
        again = found[0] if kind in _ASKED else found
    except (asyncpg.DataError, asyncpg.InterfaceError):
        return False
    except asyncpg.PostgresError:
        raise
    except Exception:  # noqa: BLE001  (whatever a codec of the application's raises)
        return False
    return type(again) is type(value) and bool(again == value)


MARKED = "SELECT 1 AS jaf_memory_{}"
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name <> '' AND statement = '{}'"


async def _keeps_statements(connection: Connection) -> bool:
    """Whether a statement stands among the prepared ones after it was run, in a transaction and so in one session."""
    marked = MARKED.format(secrets.token_hex(8))
    # In a transaction a pooler leaves the session as it is, so that what was just prepared must be there.
    async with connection.transaction():
        await connection.fetchval(marked)
        return await copied(connection, PREPARED.format(marked)) != ["0"]
