"""What a fuzzer feeds: each target takes bytes, and lets nothing out but what its room promises to raise.

`test_fuzz.py` runs them with Hypothesis in CI; `python3 dev.py fuzz` with atheris, for longer.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

from msgspec import structs

from jaf_memory_core import (
    ConversationMemory,
    Failure,
    InMemoryConfig,
    MemoryError,
    MemoryQuery,
    Message,
    codec,
    create_in_memory_provider,
    documents,
)
from jaf_memory_core.settings import CoreSettings, ProviderConfig, load
from jaf_memory_core.transfer.jsonlines import LineError, read_lines


def parsed(data: bytes) -> Any:
    """JSON of the bytes, or the text that they are."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def intake(data: bytes) -> None:
    """Whatever is accepted as messages and metadata is read back, equal; whatever is not is refused with a sentence."""
    given = parsed(data)
    fields = given if isinstance(given, dict) else {"content": given}

    async def main() -> None:
        provider = create_in_memory_provider()
        forced = structs.replace(
            Message(role="user"), **{key: fields[key] for key in fields if key in Message.__struct_fields__}
        )
        for messages in ([forced], given):
            await provider.append_messages("c", messages, create=True)
        for made in (Message, MemoryQuery, ConversationMemory):
            try:
                made(**{str(key): value for key, value in fields.items()})
            except MemoryError:
                continue
        answer = await provider.store_messages("d", [Message(role="user", content="x")], given)
        if isinstance(given, dict) and not isinstance(answer, Failure):
            kept = await provider.get_conversation("d")
            assert kept is not None
            shown = {key: value for key, value in kept.metadata.items() if key != "user_id"}
            wanted = {key: value for key, value in given.items() if key != "user_id"}
            assert codec.canonical(shown) == codec.canonical(wanted)

    try:
        asyncio.run(main())
    except MemoryError:
        return


def stored(data: bytes) -> None:
    """Whatever stands in a store is read, or is a `MemoryStorageError`."""
    for read in (codec.decode_message, codec.decode_object, documents.decode_record):
        try:
            read(data)
        except MemoryError:
            continue
    try:
        codec.decode_messages([data, data])
    except MemoryError:
        return


def import_lines(data: bytes) -> None:
    """Whatever stands in a file is a conversation, or a `LineError` with the line's number."""
    errors: list[LineError] = []
    for conversation in read_lines(io.BytesIO(data), on_error=errors.append):
        assert isinstance(conversation, ConversationMemory)


def settings(data: bytes) -> None:
    """Whatever the environment holds is a configuration, or an error that names the variable."""
    lines = data.decode("utf-8", "replace").replace("\0", "").splitlines()
    names = [name.upper() for name in (*ProviderConfig.model_fields, *CoreSettings.model_fields)]
    environ = {f"JAF_MEMORY_{name}": line for name, line in zip(names, lines, strict=False)}
    for kind in (CoreSettings, InMemoryConfig):
        told = ""
        try:
            load(kind, environ)
        except MemoryError as error:
            told = str(error)
        assert not told or "JAF_MEMORY_" in told


def command_line(data: bytes) -> None:
    """Whatever is typed ends with a status from 0 to 2, and without a stack trace."""
    from jaf_memory_cli.app import app
    from typer.testing import CliRunner

    arguments = data.decode("utf-8", "replace").replace("\0", "").split("\n")
    if {"import", "export", "copy", "adopt"} & {*arguments}:
        return  # they would read and write files of the machine
    result = CliRunner(env={"JAF_MEMORY_TYPE": "memory"}).invoke(app, arguments, input="")
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


MESSAGE = {
    "role": "assistant",
    "content": [{"type": "text", "text": "x"}],
    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
    "attachments": [{"kind": "image", "url": "u"}],
    "message_id": "m",
    "further": {"a": [1.5]},
}
MOMENTS = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
RECORD = {"conversation_id": "c", "incarnation": "0" * 16, "version": 1, **MOMENTS, "messages": [MESSAGE]}
LINE = {"conversation_id": "c", "user_id": "u", "messages": [MESSAGE], "metadata": {"a": [{}]}, **MOMENTS, "ttl": 5}


def written(*values: Any) -> bytes:
    """Values as lines of JSON."""
    return "\n".join(json.dumps(value, separators=(",", ":")) for value in values).encode()


SEEDS: dict[str, tuple[bytes, ...]] = {
    "intake": (written(MESSAGE), written(LINE), b'"\\ud800"', b'{"user_id":"u","a":-0.0,"b":1e22}'),
    "stored": (written(MESSAGE), written({"format": 1, "record": RECORD}), b'{"a":[1,{"b":null}]}'),
    "import_lines": (written(LINE), written(LINE, LINE), written({"conversation_id": "c", "messages": []})),
    "settings": (b"30\n5\nnone\n1000\nmemory\nredact,encrypt", b"true\n-1\n1e3"),
    "command_line": (b"list\n--user\nu\n--json", b"show\nc", b"--type\nmemory\nstats", b"delete\nc\n--yes"),
}
"""What each target takes as it should be: a coverage-guided fuzzer goes on from there."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (intake, stored, import_lines, settings, command_line)
}
