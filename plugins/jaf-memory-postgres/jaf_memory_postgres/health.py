"""How the server is: what `health_check` tells."""

from __future__ import annotations

from jaf_memory_core.records import Ping
from jaf_memory_core.statements import quoted
from jaf_memory_core.values import FrozenDict
from jaf_memory_postgres.connection.address import Address
from jaf_memory_postgres.connection.execution import Connection
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations.search import Index
from jaf_memory_postgres.settings import unverified

CROWDED = 0.9
"""Share of the server's connections from which on it is worth a word."""


async def ping(connection: Connection, names: Names, address: Address, count: int, *, by_index: bool = False) -> Ping:
    """Ask the server, in one statement, and about an index for searches where there is one.

    Args:
        connection: any.
        names: our relations, whose size is told.
        address: how the line is secured.
        count: connections of this provider.
        by_index: whether searches are to go by an index.
    """
    tables = [quoted(names.schema, names.plain(suffix)) for suffix in ("header", "message", "label")]
    index = Index(names)
    row = await connection.fetchrow(names.sql["health"], tables, index.state)
    searching = await index.described(connection) if row["indexed"] else "scan"
    role = "standby" if row["standby"] else "primary"
    commit = row["synchronous_commit"]
    warnings = []
    if commit == "off":
        warnings.append("synchronous_commit is off: a crash of the server may lose what was acknowledged just before")
    if row["fsync"] != "on":
        warnings.append("fsync is off: a crash of the server's computer may destroy the database")
    if row["full_page_writes"] != "on":
        warnings.append("full_page_writes is off: a crash of the server's computer may damage pages")
    if row["standby"]:
        warnings.append("the server is a standby: it answers reads, and refuses writes")
    if row["connections"] >= CROWDED * row["most"]:
        warnings.append(f"the server has {row['connections']} of its {row['most']} connections open")
    if by_index and not searching.startswith("index"):
        warnings.append(f"searches go through all messages: {searching}")
    tls = unverified(address)
    return Ping(
        f"PostgreSQL {row['version']} answers, as a {role}",
        warnings=tuple(warnings + ([tls] if tls else [])),
        metrics=FrozenDict(
            {
                "active_connections": count,
                "memory_usage": row["size"] or 0,
                "server_connections": row["connections"],
                "database_connections": row["connections_here"],
            }
        ),
        details=FrozenDict(
            {
                "version": row["version"],
                "role": role,
                "durability": f"committed with synchronous_commit={commit}",
                "synchronous_commit": commit,
                "fsync": row["fsync"],
                "tls": bool(row["tls"]),
                "table": names.table,
                "schema": names.schema,
                "search": searching,
                "size_bytes": row["size"] or 0,
                "max_connections": row["most"],
            }
        ),
    )
