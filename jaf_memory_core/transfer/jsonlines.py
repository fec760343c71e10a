"""Conversations as JSON Lines: one a line, messages in the chat form, a digest with each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

import msgspec

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import Message

TIMES = ("created_at", "active_at", "updated_at", "expires_at")

FIELDS = (
    "conversation_id",
    "user_id",
    "messages",
    "metadata",
    *TIMES,
    "ttl",
    "digest",
)
"""All that a line may hold; `conversation_id` and `messages` are needed, and null stands for nothing elsewhere."""

NEEDED = ("conversation_id", "messages")

LONGEST = 1 << 30
"""Bytes of one line, line feed included: what is longer is no conversation, and would fill the memory."""

DERIVED_IDS = uuid.UUID("211c1ae9-1356-49f0-885c-0e129f61dd04")
"""Namespace of the ids that are derived for messages without one. It never changes: importing again adds nothing."""

_KINDS: Mapping[str, type] = {
    "conversation_id": str,
    "messages": list,
    "user_id": str,
    "metadata": dict,
    **dict.fromkeys((*TIMES, "digest"), str),
}
_WORDS = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}


class LineError(MemoryInvalidInputError):
    """A line that is no conversation. The text says what is wrong, and repeats nothing of the content.

    Attributes:
        line: its number, from 1.
    """

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line = line


class Readable(Protocol):
    """A file, in binary or text mode."""

    def readline(self, size: int, /) -> bytes | str:
        """The next line, cut to `size`; empty at the end."""


def write_line(conversation: ConversationMemory) -> bytes:
    """A conversation as one line of UTF-8, line feed included.

    Args:
        conversation: with its messages. Times and ttl are written where it has them.

    Returns:
        the line; its `digest` is that of `jaf_memory_core.digest`.
    """
    messages, digest = codec.written_messages(conversation)
    before = codec.encode({"conversation_id": conversation.conversation_id, "user_id": conversation.user_id})
    metadata = codec.encode(conversation.metadata)
    behind: dict[str, Any] = {} if conversation.ttl is None else {"ttl": conversation.ttl}
    behind["digest"] = digest
    parts = (before[:-1], messages, metadata, _times(conversation), codec.encode(behind)[1:])
    return b'%b,"messages":%b,"metadata":%b,%b%b\n' % parts


def _times(conversation: ConversationMemory) -> bytes:
    """Those that it has, as fields with a comma behind each."""
    times: dict[str, Any] = {}
    for name in TIMES:
        moment: datetime | None = getattr(conversation, name)
        if moment is not None:
            # Each takes `isoformat` 0.8 µs; of UTC it makes the same as msgspec, but for the name of the zone.
            times[name] = moment if moment.tzinfo is UTC else moment.isoformat()
    return codec.encode(times)[1:-1].replace(b'Z"', b'+00:00"') + b"," if times else b""


def read_lines(
    stream: Readable, *, on_error: Callable[[LineError], None] | None = None
) -> Iterator[ConversationMemory]:
    """Read conversations, one line at a time.

    A message without an id gets one derived from the conversation's id and its position, so that reading the same
    line again gives the same ids. A `digest` in the line is verified if all its messages brought their ids.

    Args:
        stream: a file of UTF-8 (binary) or of text; empty lines are passed over.
        on_error: takes a bad line's error, and the reading goes on behind it; without it the error is raised.

    Yields:
        conversations, in the order of the lines.

    Raises:
        LineError: a line is not JSON, lacks something, has something unknown, or differs from its digest.
    """
    for number, line in _numbered(stream):
        try:
            yield _conversation(number, line)
        except LineError as error:
            if on_error is None:
                raise
            on_error(error)


def _numbered(stream: Readable) -> Iterator[tuple[int, bytes | str]]:
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise LineError(number, f"longer than {LONGEST} bytes; this is no file of conversations")
        if number == 1:
            # A byte order mark, as editors on Windows write it; to `json` it would be the beginning of no value.
            line = line.removeprefix("\ufeff") if isinstance(line, str) else line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def _conversation(number: int, line: bytes | str) -> ConversationMemory:
    fields = _fields(number, line)
    key = fields["conversation_id"]
    bodies = fields["messages"]
    times: dict[str, Any] = {name: _moment(number, name, fields) for name in TIMES}
    try:
        conversation = ConversationMemory(
            conversation_id=key,
            user_id=fields.get("user_id"),
            metadata=fields.get("metadata") or {},
            **times,
            ttl=fields.get("ttl"),
        )
    except MemoryInvalidInputError as error:
        raise LineError(number, _without_class(error)) from None
    messages = tuple(_message(number, key, position, body) for position, body in enumerate(bodies))
    conversation = msgspec.structs.replace(conversation, messages=messages, message_count=len(messages))
    stated = fields.get("digest")
    whole = all(body.get("message_id") is not None for body in bodies)
    if stated is not None and whole and stated != codec.digest(conversation):
        raise LineError(number, f"conversation {key!r} is not what its digest says; the line was changed or damaged")
    return conversation


def _fields(number: int, line: bytes | str) -> dict[str, Any]:
    fields = _parsed(number, line)
    if not isinstance(fields, dict):
        raise LineError(number, f"must be a JSON object, not {_kind(fields)}; {_hint(fields)}")
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        hint = _hint(fields) if "conversations" in fields else f"allowed are {', '.join(FIELDS)}"
        raise LineError(number, f"has the unknown field {unknown[0][:40]!r}{more}; {hint}")
    for name, kind in _KINDS.items():
        if not isinstance(fields.get(name), kind) and (name in NEEDED or fields.get(name) is not None):
            found = f"is {_kind(fields[name])}" if name in fields else "is missing"
            raise LineError(number, f"{name} {found}; it must be {_WORDS[kind]}")
    return fields


def _parsed(number: int, line: bytes | str) -> Any:
    try:
        # Not json.loads on bytes: it would guess at UTF-16, and take raw surrogates for UTF-8.
        text = line if isinstance(line, str) else line.decode()
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise LineError(number, f"is not UTF-8, from byte {error.start + 1} on") from None
    except json.JSONDecodeError as error:
        raise LineError(number, f"is not JSON: {error.msg[:60]} (column {error.colno})") from None
    except RecursionError:
        raise LineError(number, "is nested too deep") from None
    except MemoryInvalidInputError as error:
        raise LineError(number, str(error)) from None
    except ValueError:
        # All that is left: Python's limit against integers that take minutes to read.
        raise LineError(number, "holds an integer of more than 4300 digits; write it as a string") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Of two equal keys one would be lost, whichever the reader prefers."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MemoryInvalidInputError(f"has the key {twice[:40]!r} twice in one object; keep the one that is meant")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise MemoryInvalidInputError(f"holds {name}, which JSON cannot hold; give a number or null")


def _hint(value: object) -> str:
    if isinstance(value, Mapping):
        return "this is a whole export; give one conversation a line (jq -c '.conversations[]' makes them)"
    if isinstance(value, list):
        return "give one conversation a line (jq -c '.[]' makes them of an array)"
    return "give one conversation a line"


def _message(number: int, conversation_id: str, position: int, body: Any) -> Message:
    if not isinstance(body, dict):
        raise LineError(number, f"messages[{position}] is {_kind(body)}; it must be an object")
    if body.get("message_id") is None:
        body = {**body, "message_id": derived_id(conversation_id, position)}
    try:
        return Message(**body)
    except MemoryInvalidInputError as error:
        raise LineError(number, f"messages[{position}]: {_without_class(error)}") from None


def derived_id(conversation_id: str, position: int | str) -> str:
    """The id of a message that came without one: the same for the same place in the same conversation.

    Args:
        conversation_id: of the conversation.
        position: in a line, from 0; or what else says the place of one message for good, such as the key of a row.
    """
    return uuid.uuid5(DERIVED_IDS, f"{conversation_id}\0{position}").hex


def _moment(number: int, name: str, fields: Mapping[str, Any]) -> datetime | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise LineError(number, f"{name} is no time; write it as 2024-05-15T15:00:00+00:00") from None
    if moment.tzinfo is None:
        raise LineError(number, f"{name} has no offset from UTC, and could mean any time zone; add Z or +00:00")
    return moment


def _without_class(error: MemoryInvalidInputError) -> str:
    return str(error).partition(" is not valid: ")[2] or str(error)


def _kind(value: object) -> str:
    return _WORDS.get(type(value), "a number")
