"""A conversation as people read it: who said what, with the calls of tools folded to a line each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jaf_memory_cli.output import count, heading, moment, shortened, size
from jaf_memory_cli.terminal import safe
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.messages import ContentPart, Message, ToolCall

STYLES = {
    "system": "magenta",
    "developer": "magenta",
    "user": "bold cyan",
    "assistant": "bold green",
    "tool": "yellow",
    "function": "yellow",
}
LABEL = 10
"""Columns of the roles, `assistant` and `developer` being the longest, with a margin."""

_SAYING = ("arguments", "input", "output", "summary", "action", "error", "results")
"""Fields in which items of the Responses interface say something, beside their content."""

_FOLDED = ("system", "developer", "tool", "function")


def header(conversation: ConversationMemory) -> Iterator[RenderableType]:
    """Id, owner, size and times, and the metadata."""
    yield heading(conversation.conversation_id)
    facts = [
        safe(conversation.user_id) if conversation.user_id is not None else "nobody's",
        count(conversation.message_count or 0, "message"),
    ]
    for name, value in (
        ("created", conversation.created_at),
        ("last written", conversation.updated_at),
        ("expires", conversation.expires_at),
    ):
        if value is not None:
            facts.append(f"{name} {moment(value)}")
    yield Text("  ".join(facts), style="dim")
    metadata = [
        f"{safe(key)}: {safe(shortened(_json(value), 60))}"
        for key, value in conversation.metadata.items()
        if key != "user_id"
    ]
    if metadata:
        yield Text("  ".join(metadata), style="dim")


def transcript(messages: Sequence[Message], *, width: int, full: bool) -> Iterator[RenderableType]:
    """The messages, one renderable each; a turn begins with an empty line.

    Args:
        messages: oldest first.
        width: columns of the terminal; folded lines are cut to them.
        full: unfold system prompts, calls of tools and their results.
    """
    room = max(20, width - LABEL - 2)
    for message in messages:
        if message.role in ("user", "system", "developer"):
            yield Text("")
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(justify="right", width=LABEL, no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        role = message.role or safe(str(message.further["type"]))
        label = Text(shortened(role, LABEL), style=STYLES.get(role, ""))
        for line in _body(message, room, full=full):
            grid.add_row(label, line)
            label = Text("")
        yield grid


def _body(message: Message, room: int, *, full: bool) -> Iterator[Text]:
    text = _content(message)
    if message.role in _FOLDED and not full:
        yield _folded(message, text, room)
    else:
        name = f"{safe(message.name)}: " if message.name else ""
        if text or not message.tool_calls:
            shown = _pretty(text) if message.role in ("tool", "function") else text
            yield Text.assemble((name, "dim"), safe(shown, one_line=False))
    for call in message.tool_calls or ():
        yield from _unfolded(call) if full else (_called(call, room),)
    for attachment in message.attachments or ():
        about = " ".join(filter(None, (attachment.kind, attachment.name, attachment.mime_type)))
        yield Text(f"+ {safe(about)}", style="dim")


def _content(message: Message) -> str:
    further = message.further
    refused = [f"[refused] {further['refusal']}"] if isinstance(further.get("refusal"), str) else []
    said = [message.content] if isinstance(message.content, str) else map(_part, message.content or ())
    # An item of the Responses interface says what it is in fields of its own.
    fields = further if message.role is None else {}
    items = [f"{name}: {_json(value)}" for name, value in fields.items() if name in _SAYING and value]
    return "\n".join([*filter(None, said), *refused, *items])


def _part(part: ContentPart) -> str:
    refusal = part.further.get("refusal")
    if part.type == "refusal" and isinstance(refusal, str):
        return f"[refused] {refusal}"
    return part.text if part.text is not None else f"[{part.type}]"


def _folded(message: Message, text: str, room: int) -> Text:
    """One line: what a tool answered, or how a prompt begins, and how long it is."""
    name = f"← {safe(message.name)} " if message.name else "← " if message.role in ("tool", "function") else ""
    length = f"  {size(len(text.encode(errors='surrogatepass')))}"
    shown = safe(shortened(text, max(10, room - len(name) - len(length))))
    if shown.endswith("…"):
        return Text.assemble(
            (name, "yellow"), (shown, "dim"), (length, "dim italic"), no_wrap=True, overflow="ellipsis"
        )
    return Text.assemble((name, "yellow"), (shown, "dim"), no_wrap=True, overflow="ellipsis")


def _called(call: ToolCall, room: int) -> Text:
    if call.function is None:
        return Text(f"→ [{safe(call.type)}]", style="yellow")
    name = safe(call.function.name)
    arguments = safe(shortened(_arguments(call.function.arguments), max(10, room - len(name) - 4)))
    return Text.assemble(
        ("→ ", "yellow"), (name, "yellow"), (f"({arguments})", "dim"), no_wrap=True, overflow="ellipsis"
    )


def _arguments(given: Any) -> str:
    """`user_id="mia", flights=[…]`, where the arguments are an object, as they should be."""
    value = _parsed(given) if isinstance(given, str) else given
    if not isinstance(value, dict):
        return "" if given is None else _json(given)
    return ", ".join(f"{key}={json.dumps(item, ensure_ascii=False)}" for key, item in value.items())


def _unfolded(call: ToolCall) -> Iterator[Text]:
    if call.function is None:
        yield Text(safe(_pretty(_json(call.dict())), one_line=False), style="dim")
        return
    yield Text.assemble(("→ ", "yellow"), (safe(call.function.name), "yellow"), (f"  {safe(call.id or '')}", "dim"))
    yield Text(safe(_pretty(_json(call.function.arguments)), one_line=False), style="dim")


def _pretty(text: str) -> str:
    value = _parsed(text)
    return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, (dict, list)) else text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
