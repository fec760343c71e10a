"""A conversation as HTML, as notebooks show it: escaped, shortened, and without a request to anybody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.messages import ContentPart, Message

FIRST, LAST = 4, 16
"""How many messages of a long conversation are shown."""

LONGEST = 1_000
"""Characters of a message, or of anything else, that are shown."""

_ROW = '<tr><td style="text-align:right;vertical-align:top;opacity:.6">{}</td>'
_CELL = '<td dir="auto" style="text-align:left;vertical-align:top;white-space:pre-wrap">{}</td></tr>'
# Lone surrogates cannot be sent to a browser, and a control character is not to be seen there.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def html_of(conversation: ConversationMemory) -> str:
    """The conversation's id, title, owner, count and times, and its first and last messages as a table.

    Metadata is not shown, but for the title: there may be anything in it.
    """
    rows = "".join(_rows(conversation))
    return f"<div>{' · '.join(_facts(conversation))}</div>" + (f"<table>{rows}</table>" if rows else "")


def _facts(conversation: ConversationMemory) -> Iterator[str]:
    yield f"<b><bdi>{_shown(conversation.conversation_id)}</bdi></b>"
    title = conversation.metadata.get("title")
    if isinstance(title, str) and title:
        yield f"<bdi>{_shown(title)}</bdi>"
    if conversation.user_id is not None:
        yield f"of <bdi>{_shown(conversation.user_id)}</bdi>"
    count, read = conversation.message_count or 0, len(conversation.messages)
    yield f"{count:,} message{'s' * (count != 1)}" + (f", {read:,} of them here" if read < count else "")
    if conversation.active_at is not None:
        yield f"active {conversation.active_at:%Y-%m-%d %H:%M} UTC"
    if conversation.expires_at is not None:
        yield f"expires {conversation.expires_at:%Y-%m-%d %H:%M} UTC"


def _rows(conversation: ConversationMemory) -> Iterator[str]:
    messages = conversation.messages
    left_out = len(messages) - FIRST - LAST
    if left_out <= 1:  # the line that says so would take as much room
        yield from map(_row, messages)
        return
    yield from map(_row, messages[:FIRST])
    yield _ROW.format("") + _CELL.format(f"… {left_out:,} more …")
    yield from map(_row, messages[-LAST:])


def _row(message: Message) -> str:
    role = message.role or str(message.further.get("type"))
    name = f" {message.name}" if message.name else ""
    return _ROW.format(_shown(role + name)) + _CELL.format(_shown("\n".join(_said(message))))


def _said(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from map(_part, message.content or ())
    for call in message.tool_calls or ():
        called = call.function
        yield f"→ [{call.type}]" if called is None else f"→ {called.name}({_arguments(called.arguments)})"
    for attachment in message.attachments or ():
        yield " ".join(("+", attachment.kind, attachment.name or ""))


def _part(part: ContentPart) -> str:
    return part.text if part.text is not None else f"[{part.type}]"


def _arguments(given: object) -> str:
    return given if isinstance(given, str) else codec.encode(given).decode()


def _shown(text: str) -> str:
    """Text that can stand in HTML, cut where it is long."""
    cut = f"{text[:LONGEST]} … {len(text):,} characters" if len(text) > LONGEST else text
    return escape(_UNSEEN.sub("\ufffd", cut))
