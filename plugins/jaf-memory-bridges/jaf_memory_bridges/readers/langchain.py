"""`--from langchain-postgres ADDRESS`: what chat message histories of LangChain have stored in PostgreSQL.

A table is found by its columns. Where several are alike, `#TABLE` behind the address says which. A session becomes the
conversation of its id.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from jaf_memory_bridges.readers.databases import postgres
from jaf_memory_bridges.readers.rows import Gathering, framework, mapping
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad, ReaderSpec, hookimpl
from jaf_memory_core.statements import load

AT_ONCE = 500
"""Rows that the server is asked for at once."""


@hookimpl
def jaf_memory_reader() -> ReaderSpec:
    """Describe the reader `langchain-postgres`."""
    summary = "chat message histories of LangChain in PostgreSQL"
    return ReaderSpec("langchain-postgres", read, source="address", summary=summary, api=1)


async def read(address: str, user_id: str | None, on_bad: OnBad) -> AsyncIterator[ConversationMemory]:
    """Read all sessions of a table.

    Raises:
        MemoryInvalidInputError: this is no address, or the database has no such table, or several.
        MemoryConnectionError: the server could not be reached.
        MemoryStorageError: it refused.
    """
    address, _, named = address.partition("#")
    async with postgres(address) as connection:
        table, dated = await _table(connection, named or None)
        statement = load(__package__, "langchain.sql", table=table)["dated" if dated else "undated"]
        found: Gathering | None = None
        async for session, row, message, at in connection.cursor(statement, prefetch=AT_ONCE):
            if session is None:
                on_bad(f"row {row}", "it has no session_id")
                continue
            if found is None or found.key != session:
                for conversation in found.conversations() if found is not None else ():
                    yield conversation
                found = Gathering(session, on_bad, "message of LangChain", user_id)
                found.created_at = found.moment(at)
            found.active_at = found.moment(at)
            found.take(f"row {row}", _message, message)
        for conversation in found.conversations() if found is not None else ():
            yield conversation


async def _table(connection: Any, named: str | None) -> tuple[tuple[str, str], bool]:
    rows = await connection.fetch(load(__package__, "langchain.sql", table="any")["tables"], named)
    if not rows:
        which = "that table, with" if named else "a table with"
        raise MemoryInvalidInputError(f"the database has not {which} the columns id, session_id and message")
    if len(rows) > 1:
        names = ", ".join(sorted({row["table_name"] for row in rows}))
        raise MemoryInvalidInputError(
            f"several tables may be meant ({names}); say which: put #TABLE behind the address"
        )
    return (rows[0]["table_schema"], rows[0]["table_name"]), rows[0]["dated"]


def _message(own: str, data: object) -> Message:
    with framework():
        from langchain_core.messages import messages_from_dict

        from jaf_memory_bridges.langchain import to_message
    given: Any = mapping(json.loads(str(data)))
    (held,) = messages_from_dict([given])
    message = to_message(held)
    return message if held.id is not None else replace(message, message_id=own)
