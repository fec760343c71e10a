"""The short way for the usual case: texts, and calls with their results behind them, within a number of messages.

Reading steps and writing them in form costs ten times what reading the messages does. Where nothing is to be brought
into form, a view is a slice; `views` gives the same, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaf_memory_core.messages import Message
from jaf_memory_core.session.formats.contents import sendable, tool_name
from jaf_memory_core.session.room import Room
from jaf_memory_core.values import EMPTY

SPEAKING = ("user", "assistant")


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether chat-completions take these messages as they are, but for results at their beginning."""
    waiting: list[str | None] = []
    begun = False
    for message in messages:
        role, content, calls = message.role, message.content, message.tool_calls
        usual = content.__class__ is str and content.isascii() and message.name is None and calls is None
        if message.further is not EMPTY or message.attachments is not None or not (usual or _carried(message)):
            return False
        if calls is None and role in SPEAKING:
            # Most are of this kind, and each load looks at all of its messages.
            if waiting or content.__class__ is not str or not content or content.isspace():
                return False
            begun = True
            continue
        if role == "tool":
            if begun and (not waiting or message.tool_call_id != waiting.pop(0) or content.__class__ is not str):
                return False
            continue
        begun = True
        if waiting or calls is None or role != "assistant":
            return False
        waiting = _calls(message)
        if not waiting or (content is not None and (content.__class__ is not str or not content)):
            return False
    return True


def _carried(message: Message) -> bool:
    """Whether an endpoint takes the texts and names of a message as they are."""
    if message.name is not None and tool_name(message.name) != message.name:
        return False
    return sendable(message) is message


def _calls(message: Message) -> list[str | None]:
    ids: list[str | None] = []
    for call in message.tool_calls or ():
        function = call.function
        if not call.id or call.id in ids or call.type != "function" or function is None:
            return []
        if tool_name(function.name) != function.name or not isinstance(function.arguments, str):
            return []
        if not function.arguments:
            return []
        ids.append(call.id)
    return ids


def plain_view(kept: Sequence[Message], read: Sequence[Message], room: Room) -> list[Message] | None:
    """The view of plain messages: the instructions, and the newest whole turns; `None` where it takes more thought.

    Args:
        kept: system messages that stand before the others.
        read: plain messages.
        room: limited by a number of messages.
    """
    if kept and not _are_instructions(kept):
        return None
    left = room.messages - len(kept)
    if left < 1:
        return None
    first = int(len(read) - left) if left < len(read) else 0
    for begin in range(first, len(read)):
        if read[begin].role == "user":
            # A turn that begins before what fits, or before what was read, wants its question looked for.
            return None if first == 0 and begin > 0 else [*kept, *read[begin:]]
    return None


def _are_instructions(kept: Sequence[Message]) -> bool:
    plain = all(
        one.role == "system" and isinstance(one.content, str) and one.content.strip() and _carried(one) for one in kept
    )
    # Of equal ones only the newest stays, which the longer way sees to.
    return plain and len({one.content for one in kept}) == len(kept)
