"""`--from adk ADDRESS`: what session services of Google ADK have stored, in SQLite or PostgreSQL.

The address is SQLAlchemy's (`sqlite:///file.db`, `postgresql+asyncpg://…`), or the path of a SQLite file. What comes of
it is what `JafMemorySessionService` reads: sessions with their events and state, and the states of users and apps.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from jaf_memory_bridges.readers.databases import is_postgres, postgres, sqlite
from jaf_memory_bridges.readers.rows import WRONG, Gathering, framework, mapping, text
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad, ReaderSpec, hookimpl
from jaf_memory_core.statements import load

Rows = Callable[..., AsyncIterator[Sequence[Any]]]
"""The rows of a statement, by its name and values."""

STATEMENTS = load(__package__, "adk.sql")


@hookimpl
def jaf_memory_reader() -> ReaderSpec:
    """Describe the reader `adk`."""
    summary = "sessions and states of Google ADK in SQLite or PostgreSQL"
    return ReaderSpec("adk", read, source="address", owned=True, summary=summary, api=1)


async def read(address: str, _user_id: str | None, on_bad: OnBad) -> AsyncIterator[ConversationMemory]:
    """Read all sessions and states of a database; their owners are ADK's own.

    Raises:
        MemoryInvalidInputError: this is no address, or no database of ADK's present layout.
        MemoryConnectionError: the server could not be reached.
        MemoryStorageError: the database is damaged, or the server refused.
    """
    async with (_server if is_postgres(address) else _file)(address) as rows:
        if not [count async for (count,) in rows("layout") if count]:
            raise MemoryInvalidInputError(
                "the database has no table `events` of ADK's present layout; an older one is brought there by "
                "`adk migrate session`"
            )
        with framework():
            from jaf_memory_bridges.adk import key_of, keys_of
        async for app, user, key, state, created, updated in rows("sessions"):
            names = _names(on_bad, "a session", app, user, key)
            if names is None:
                continue
            found = Gathering(key_of(*names), on_bad, "event of ADK", names[1])
            found.created_at, found.active_at = found.moment(created), found.moment(updated)
            at = found.active_at.timestamp() if found.active_at is not None else 0.0
            found.metadata = {"engine": "adk", "app": names[0], "session": names[2], "at": at}
            found.metadata |= keys_of(_state(found, state))
            async for event in rows("events", *names):
                found.take(_place(event[0]), _message, *event)
            for conversation in found.conversations():
                yield conversation
        for kind in ("user_states", "app_states"):
            async for app, user, state, updated in rows(kind):
                names = _names(on_bad, "a state", app, *(() if user is None else (user,)))
                if names is None:
                    continue
                found = Gathering(key_of(*names), on_bad, "state of ADK", names[1] if user is not None else None)
                found.created_at = found.active_at = found.moment(updated)
                found.metadata = keys_of(_state(found, state))
                for conversation in found.conversations():
                    yield conversation


def _names(on_bad: OnBad, what: str, *names: object) -> tuple[str, ...] | None:
    try:
        return tuple(map(text, names))
    except ValueError:
        on_bad(what, "one of its names is no text")
        return None


def _place(key: object) -> str:
    try:
        return f"event {text(key)}"
    except ValueError:
        return "an event"


def _state(found: Gathering, state: object) -> dict[str, Any]:
    try:
        return dict(mapping(json.loads(text(state))))
    except WRONG as error:
        found.bad("its state", f"is no object of JSON ({type(error).__name__}), and is left out")
        return {}


def _message(_own: str, key: object, invocation: object, at: object, data: object) -> Message:
    from google.adk.events import Event

    from jaf_memory_bridges.adk import to_message

    fields: Any = dict(mapping(json.loads(text(data))))
    names = {"id": text(key), "invocation_id": text(invocation)}
    return to_message(Event.model_validate({"timestamp": _seconds(at), **fields, **names}))


def _seconds(at: object) -> float:
    """Seconds of a time that is a number already, or in UTC without an offset."""
    if isinstance(at, int | float):
        return float(at)
    found = at if isinstance(at, datetime) else datetime.fromisoformat(text(at))
    return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).timestamp()


@asynccontextmanager
async def _file(address: str) -> AsyncIterator[Rows]:
    scheme, separator, rest = address.partition("://")
    if separator and not (scheme.partition("+")[0] == "sqlite" and rest.startswith("/")):
        raise MemoryInvalidInputError("what is read is sqlite:///PATH, postgresql://…, or the path of a SQLite file")
    with sqlite(unquote(rest[1:].partition("?")[0]) if separator else address) as file:

        async def rows(name: str, *values: str) -> AsyncIterator[Sequence[Any]]:
            for row in file.execute(STATEMENTS[name], values):
                yield row

        yield rows


@asynccontextmanager
async def _server(address: str) -> AsyncIterator[Rows]:
    async with postgres(address) as connection:

        async def rows(name: str, *values: str) -> AsyncIterator[Sequence[Any]]:
            own = f"{name}_on_server"
            async for row in connection.cursor(STATEMENTS[own if own in STATEMENTS else name], *values):
                yield tuple(row)

        yield rows
