"""`--from pydantic-ai FILE`: histories and conversations that Pydantic AI has written as JSON.

The file holds what `ModelMessagesTypeAdapter` writes (a list of messages) or `ConversationTypeAdapter` (a
conversation), or several of them, one a line. `JafMemoryConversationStore` goes on with what comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaf_memory_bridges.readers.rows import WRONG, Gathering, framework
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad, ReaderSpec, hookimpl
from jaf_memory_core.transfer.jsonlines import LONGEST, derived_id


@hookimpl
def jaf_memory_reader() -> ReaderSpec:
    """Describe the reader `pydantic-ai`."""
    return ReaderSpec("pydantic-ai", read, summary="histories and conversations of Pydantic AI as JSON", api=1)


def read(path: str, user_id: str | None, on_bad: OnBad) -> Iterator[ConversationMemory]:
    """Read all conversations of a file; the `scope` of each is its owner.

    Raises:
        OSError: it cannot be read.
        MemoryInvalidInputError: it is no JSON.
    """
    values = [*_values(Path(path))]
    for number, value in values:
        place = Path(path).stem if len(values) == 1 else f"{Path(path).stem}:{number}"
        whole: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        rows = whole.get("messages") if whole else value
        if not isinstance(rows, list):
            on_bad(f"line {number}", "is neither a list of messages nor a conversation of Pydantic AI")
            continue
        named = whole.get("conversation_id") or next(
            (row["conversation_id"] for row in rows if isinstance(row, Mapping) and row.get("conversation_id")), None
        )
        found = Gathering(named if isinstance(named, str) else place, on_bad, "message of Pydantic AI", user_id)
        entries: list[str] = []
        for position, row in enumerate(rows):
            found.take(f"message {position}", _entry, row, entries, found)
        found.metadata = _record(found, whole, entries[-1] if entries else None)
        yield from found.conversations()


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise MemoryInvalidInputError(f"the file is longer than {LONGEST} bytes; give one conversation a file")
    try:
        text = content.decode("utf-8-sig")
        try:
            yield 1, json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
            # Texts within may hold other characters that end lines.
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    yield number, json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MemoryInvalidInputError(f"the file is no JSON in UTF-8 ({type(error).__name__})") from None


def _entry(own: str, row: Any, entries: list[str], found: Gathering) -> Message:
    with framework():
        from pydantic_ai.messages import ModelMessagesTypeAdapter

        from jaf_memory_bridges.pydantic_ai.messages import to_message
    (message,) = ModelMessagesTypeAdapter.validate_python([row])
    made = to_message(message, id=own, parent_id=entries[-1] if entries else None, kind="message")
    entries.append(own)
    at = found.moment(getattr(message, "timestamp", None))
    found.created_at = found.created_at or at
    found.active_at = at or found.active_at
    return made


def _record(found: Gathering, whole: Mapping[str, Any], head: str | None) -> dict[str, Any]:
    """What Pydantic AI's store keeps of a conversation; nothing where the release has no store."""
    with framework():
        from jaf_memory_bridges import extras, pydantic_ai  # noqa: F401  (says what to do where it is missing)
    if not extras.is_there("pydantic_ai.conversation_store"):
        return {}
    from pydantic_ai.conversation_store import ConversationRecord

    from jaf_memory_bridges.pydantic_ai.store import labels_of, records

    fields: dict[str, Any] = {
        "conversation_id": found.key,
        "head_id": head,
        "scope": found.user_id,
        # The same each time, and another one where the source has grown.
        "revision": derived_id(found.key, f"revision {head}"),
    }
    if found.active_at is not None:
        fields["updated_at"] = found.active_at
    further = {name: whole[name] for name in ("usage", "deferred_tool_requests") if whole.get(name) is not None}
    record: ConversationRecord
    try:
        record = records.validate_python(fields | further)
    except WRONG as error:
        found.bad("its usage or requests", f"cannot be read ({type(error).__name__}), and are left out")
        record = ConversationRecord(**fields)
    return labels_of(record)
