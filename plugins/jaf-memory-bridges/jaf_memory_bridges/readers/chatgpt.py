"""`--from chatgpt-export FILE`: the archive that ChatGPT sends its users, or the `conversations.json` in it.

A conversation there is a tree, of which ChatGPT shows one branch: that one becomes the conversation of the same id.
Each other end of the tree becomes a conversation of its own, `ID:NODE`, whose metadata says `branch_of`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from jaf_memory_bridges.given import ROLES, said
from jaf_memory_bridges.readers.rows import WRONG, Gathering, mapping
from jaf_memory_core import ConversationMemory, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad, ReaderSpec, hookimpl
from jaf_memory_core.settings.errors import quoted

ENGINE = "chatgpt"

FILE = "conversations.json"

MOST = 100
"""Branches of a conversation beside the one that is shown; each repeats what stands before it."""

ROOM = 50_000
"""Messages that all these branches may have together."""

TEXTS = ("text", "result", "content")
"""Where a content without parts has its text."""


@hookimpl
def jaf_memory_reader() -> ReaderSpec:
    """Describe the reader `chatgpt-export`."""
    return ReaderSpec(
        "chatgpt-export", read, summary="the export of a ChatGPT account (ZIP or conversations.json)", api=1
    )


def read(path: str, user_id: str | None, on_bad: OnBad) -> Iterator[ConversationMemory]:
    """Read all conversations of an export, one at a time.

    Raises:
        OSError: it cannot be read.
        MemoryInvalidInputError: it is no such export.
    """
    with _opened(Path(path)) as stream:
        for number, element in enumerate(elements(stream), 1):
            place = f"conversation {number}"
            if element is None:
                on_bad(place, "is longer than 256 MB")
                continue
            try:
                conversation = mapping(json.loads(element.decode()))
                nodes = mapping(conversation["mapping"])
            except WRONG as error:
                on_bad(place, f"is no conversation of an export ({type(error).__name__})")
                continue
            key = conversation.get("conversation_id") or conversation.get("id")
            if not isinstance(key, str):
                on_bad(place, "has no id")
                continue
            yield from _conversations(key, conversation, nodes, user_id, on_bad)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            file.seek(0)
            yield file
            return
        try:
            with zipfile.ZipFile(file) as archive:
                name = next((one for one in archive.namelist() if Path(one).name == FILE), None)
                if name is None:
                    raise MemoryInvalidInputError(f"the archive holds no {FILE}")
                with archive.open(name) as stream:
                    yield stream
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise MemoryInvalidInputError(f"the archive is damaged or encrypted ({type(error).__name__})") from None


def _conversations(
    key: str, conversation: Mapping[str, Any], nodes: Mapping[str, Any], user_id: str | None, on_bad: OnBad
) -> Iterator[ConversationMemory]:
    parents = {_parent(node) for node in nodes.values()}
    ends = [name for name in nodes if name not in parents]
    shown = conversation.get("current_node")
    if not isinstance(shown, str) or shown not in nodes:
        shown = ends[-1] if ends else None
        on_bad(f"{quoted(key)}, current_node", "is not in the tree; the newest end is shown")
    others = [end for end in ends if end != shown]
    title, room = conversation.get("title"), ROOM
    for number, end in enumerate([shown, *reversed(others)]):
        if number > MOST or room < 0:
            on_bad(f"{quoted(key)}, branches", f"are too many; the {len(others) - number + 1} oldest are left out")
            break
        aside = end != shown
        found = Gathering(f"{key}:{end}" if aside else key, on_bad, "message of ChatGPT", user_id)
        found.metadata = {"engine": ENGINE}
        if isinstance(title, str) and title:
            found.metadata["title"] = title
        if aside:
            found.metadata["branch_of"] = key
        _take(found, _line(found, nodes, end))
        if aside:
            room -= len(found.messages)
        else:
            found.created_at = found.moment(_number(conversation.get("create_time"))) or found.created_at
            found.active_at = found.moment(_number(conversation.get("update_time"))) or found.active_at
        yield from found.conversations()


def _parent(node: object) -> object:
    parent = node.get("parent") if isinstance(node, Mapping) else None
    return parent if isinstance(parent, str) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _line(found: Gathering, nodes: Mapping[str, Any], end: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """The messages from the root of the tree to an end."""
    line: list[tuple[str, Mapping[str, Any]]] = []
    met: set[str] = set()
    while end is not None:
        node = nodes.get(end)
        if end in met or not isinstance(node, Mapping):
            found.bad(f"node {end[:80]}", "leads back to itself" if end in met else "is missing, with all before it")
            break
        met.add(end)
        message = node.get("message")
        if isinstance(message, Mapping):
            line.append((end, message))
        elif message is not None:
            found.bad(f"node {end[:80]}", "holds no message")
        end = cast("str | None", _parent(node))
    return line[::-1]


def _take(found: Gathering, line: list[tuple[str, Mapping[str, Any]]]) -> None:
    open_call: list[str] = []
    for node, message in line:
        at = found.moment(_number(message.get("create_time")))
        found.created_at = found.created_at or at
        found.active_at = at or found.active_at
        found.take(f"node {node[:80]}", _message, message, open_call)


def _message(own: str, message: Mapping[str, Any], open_call: list[str]) -> Message:
    """A message; who calls a tool writes to it, and the next message of a tool answers the call."""
    author, content = mapping(message["author"]), mapping(message["content"])
    key, role = message.get("id"), author.get("role")
    fields: dict[str, Any] = {
        "message_id": key if isinstance(key, str) and 0 < len(key) <= 255 else own,
        "role": role if role in ROLES else "user",
    }
    if isinstance(author.get("name"), str) and author["name"]:
        fields["name"] = author["name"]
    parts = [*_parts(content)]
    plain = all(part["type"] == "text" for part in parts)
    text = "\n".join(part["text"] for part in parts) if plain else None
    recipient = message.get("recipient")
    if fields["role"] == "assistant" and isinstance(recipient, str) and recipient not in ("all", ""):
        open_call[:] = [fields["message_id"]]
        call = {
            "id": fields["message_id"],
            "function": {"name": recipient, "arguments": json.dumps({"input": text or ""})},
        }
        return said(ENGINE, message, {**fields, "content": None, "tool_calls": [call]})
    if fields["role"] == "tool":
        if open_call:
            fields["tool_call_id"] = open_call.pop()
        else:
            fields["role"] = "assistant"  # what nobody called for is shown, and answers nothing
    hidden = content.get("content_type") in ("thoughts", "reasoning_recap")
    least = {**fields, "content": None if hidden else text or ""}
    if plain and not hidden and len(parts) == 1:
        # The text stands in the message already.
        return said(ENGINE, {name: value for name, value in message.items() if name != "content"}, least)
    return said(ENGINE, message, {**fields, "content": None if hidden else parts or ""}, least)


def _parts(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    parts = content.get("parts")
    if not isinstance(parts, list):
        texts = [content[name] for name in TEXTS if isinstance(content.get(name), str) and content[name]]
        parts = texts[:1]
    for part in parts:
        if isinstance(part, str):
            yield {"type": "text", "text": part}
        elif isinstance(part, Mapping):
            kind = part.get("content_type")
            text = part.get("text")
            if isinstance(text, str):  # what was said aloud
                yield {"type": "text", "text": text}
            else:
                yield {"type": kind if isinstance(kind, str) and kind else "part"}


CHUNK = 1 << 20
"""Bytes that are read at once."""

LONGEST = 256 << 20
"""Bytes of one element; what is longer is passed over by `elements`, and given as `None`."""

_MARK = re.compile(rb'["\[\]{},]')
_QUOTE = re.compile(rb'["\\]')
_BLANK = b" \t\r\n"


class _Marks:
    """Where an array's elements end, found chunk by chunk."""

    def __init__(self) -> None:
        self.depth = 0
        self._quoted = False
        self._escaped = False

    def ends(self, chunk: bytes, place: int) -> Iterator[int]:
        """The places of the commas between elements in a chunk, and of the bracket that closes the array."""
        if self._escaped and chunk:
            place, self._escaped = place + 1, False
        while mark := (_QUOTE if self._quoted else _MARK).search(chunk, place):
            place = mark.end()
            if mark[0] == b"\\":
                place += 1
                self._escaped = place > len(chunk)
            elif mark[0] == b'"':
                self._quoted = not self._quoted
            else:
                self.depth += (mark[0] in b"[{") - (mark[0] in b"]}")
                if not self.depth or (mark[0] == b"," and self.depth == 1):
                    yield mark.start()
                if not self.depth:
                    return


def elements(stream: IO[bytes]) -> Iterator[bytes | None]:
    """The bytes of each element of the array that a stream holds; whether they are JSON is not looked at.

    Yields:
        an element; `None` in the place of one that is longer than 256 MB.

    Raises:
        MemoryInvalidInputError: the stream holds no array, or ends within it.
    """
    marks, element, too_long = _Marks(), bytearray(), False
    chunk = stream.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)
    begun = 0
    if chunk.startswith(b"["):
        marks.depth = begun = 1
    while chunk and marks.depth:
        for end in marks.ends(chunk, begun):
            element += chunk[begun:end]
            if too_long or element.strip(_BLANK):
                yield None if too_long else bytes(element)
            element, too_long, begun = bytearray(), False, end + 1
        element += chunk[begun:]
        if len(element) > LONGEST:
            element, too_long = bytearray(), True
        if marks.depth:
            chunk, begun = stream.read(CHUNK), 0
    if not chunk:
        raise MemoryInvalidInputError("the file ends within its array of JSON, or holds none")
    if not begun:
        raise MemoryInvalidInputError("the file holds no array of JSON")
