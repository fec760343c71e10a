"""`--from openai-agents-sqlite FILE`: what `SQLiteSession` of the OpenAI Agents SDK has stored, and its kin.

A session becomes the conversation of its id. A branch of an `AdvancedSQLiteSession` that is not the main one becomes a
conversation of its own, `SESSION:BRANCH`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from jaf_memory_bridges.readers.databases import sqlite
from jaf_memory_bridges.readers.rows import Gathering, framework, mapping, text
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad, ReaderSpec, hookimpl
from jaf_memory_core.settings.errors import quoted
from jaf_memory_core.statements import load

MAIN = "main"


@hookimpl
def jaf_memory_reader() -> ReaderSpec:
    """Describe the reader `openai-agents-sqlite`."""
    return ReaderSpec("openai-agents-sqlite", read, summary="sessions of the OpenAI Agents SDK in a SQLite file", api=1)


def read(path: str, user_id: str | None, on_bad: OnBad) -> Iterator[ConversationMemory]:
    """Read all sessions of a file.

    Raises:
        MemoryInvalidInputError: it is no file of such sessions.
        MemoryStorageError: it is damaged.
    """
    statements = load(__package__, "openai_agents.sql")
    with sqlite(path) as file:
        tables = {text(name) for (name,) in file.execute(statements["tables"])}
        if not {"agent_sessions", "agent_messages"} <= tables:
            raise MemoryInvalidInputError(
                "the file has no tables agent_sessions and agent_messages, as SQLiteSession makes"
            )
        for session, created, updated in file.execute(statements["sessions"]):
            try:
                key = text(session)
            except ValueError:
                on_bad("a session", "its id is no text")
                continue
            branches: list[Any] = [MAIN]
            if "message_structure" in tables:
                branches = [name for (name,) in file.execute(statements["branches"], (key,))] or branches
            for name in branches:
                try:
                    branch = text(name)
                except ValueError:
                    on_bad(f"{quoted(key)}, a branch", "its id is no text")
                    continue
                own = key if branch == MAIN else f"{key}:{branch}"
                if own != key and file.execute(statements["taken"], {"id": own}).fetchone()[0]:
                    on_bad(f"{quoted(key)}, branch {quoted(branch)}", "would be mixed with the session of its id")
                    continue
                found = Gathering(own, on_bad, "item of the SDK", user_id)
                found.created_at, found.active_at = found.moment(created), found.moment(updated)
                items: Iterable[Any] = ()
                if "message_structure" in tables:
                    items = file.execute(statements["branch_items"], (key, branch)).fetchall()
                for row, data in items or file.execute(statements["items"], (key,)):
                    found.take(f"row {row}", _message, data)
                yield from found.conversations()


def _message(own: str, data: object) -> Message:
    with framework():
        from jaf_memory_bridges.openai_agents import to_message
    item: Any = mapping(json.loads(text(data)))
    if "__enc__" in item:
        raise MemoryInvalidInputError("is encrypted by an EncryptedSession, which alone can read it")
    return replace(to_message(item), message_id=own)
