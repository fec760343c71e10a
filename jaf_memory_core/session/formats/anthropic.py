"""Anthropic's messages: calls and results are blocks; the results of an answer stand in the user's next message.

System messages come first in the view, for the request's `system`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from jaf_memory_core.messages import ContentPart, Message
from jaf_memory_core.session.blocks import Answer, Call, Step, hashed, made_id
from jaf_memory_core.session.formats.contents import (
    NO_RESULT,
    NOTHING,
    TEXTS,
    Parts,
    arguments_object,
    as_text,
    parts_of,
    refusal_of,
    said,
    spoken,
    tool_name,
    written,
)
from jaf_memory_core.session.formats.contents import (
    part as part_of,
)

_DATA_URL = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,(.+)", re.DOTALL)
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _image(url: str) -> dict[str, Any]:
    data = _DATA_URL.fullmatch(url)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}


USER = Parts(frozenset({"text", "image", "document", "search_result", "container_upload"}), image=_image)
RESULT = Parts(frozenset({"text", "image", "document", "search_result"}), image=_image)
PLAIN = Parts(frozenset({"text"}))
SERVER = frozenset({"server_tool_use", "redacted_thinking"})
"""Blocks of an answer that stay as they are, beside those whose type ends with `_tool_result`."""


def render(step: Step) -> tuple[Message, ...]:
    """The messages of a step: what is said, and one user message with the results of its calls."""
    first = step.said[0]
    if step.role in ("system", "developer"):
        message = _content(first, PLAIN)
        message = message if message.role == "system" else replace(message, role="system")
        return (message,) if said(message.content) else ()
    if step.role == "user":
        message = _content(first, USER)
        return (message if said(message.content) else replace(message, content=NOTHING),)
    message = _assistant(step)
    answers = [
        (call, answer)
        for call, answer in zip(step.calls, step.answers, strict=True)
        if answer is not None or not step.open
    ]
    return (message, _results(step, answers)) if answers else (message,)


def _content(message: Message, form: Parts) -> Message:
    after = written(message.content, form)
    return message if after is message.content else replace(message, content=after)


def call_id(call: Call, key: str, number: int) -> str:
    """The call's id, or one of the letters that the endpoint takes."""
    return call.id if _ID.fullmatch(call.id) else f"call_{hashed(call.id, key, number)}"


def _assistant(step: Step) -> Message:
    parts: list[ContentPart] = []
    for message in step.said:
        if isinstance(message.content, tuple):
            parts.extend(block for part in message.content if (block := _block(part)) is not None)
        else:
            text = spoken(message) if message.role is not None else ""
            parts.extend([ContentPart(type="text", text=text)] if text.strip() else [])
        if message.role is not None and message.content is not None and (refusal := refusal_of(message)):
            parts.append(ContentPart(type="text", text=refusal))
    parts.extend(
        part_of(type="tool_use", id=call_id(call, step.key, number), name=_name(call), input=_input(call))
        for number, call in enumerate(step.calls)
        if not isinstance(call.given, ContentPart)
    )
    renamed = {
        call.given_id: call_id(call, step.key, number)
        for number, call in enumerate(step.calls)
        if isinstance(call.given, ContentPart) and call.given_id != call_id(call, step.key, number)
    }
    if renamed or any(isinstance(call.given, ContentPart) for call in step.calls):
        parts = _called(step, parts)
    # The endpoint refuses an answer that says nothing, and one that ends with a thought.
    if not parts or parts[-1].type in ("thinking", "redacted_thinking"):
        parts.append(ContentPart(type="text", text=NOTHING))
    first = step.said[0]
    if len(step.said) == 1 and first.role is not None and tuple(parts) == first.content:
        return first
    if len(step.said) == 1 and isinstance(first.content, str) and len(parts) == 1 and parts[0].text == first.content:
        return first
    return Message(role="assistant", content=parts, message_id=step.key)


def _called(step: Step, parts: list[ContentPart]) -> list[ContentPart]:
    """The blocks with the ids of their calls as the view shows them, and with an object of arguments."""
    calls = [(number, call) for number, call in enumerate(step.calls) if isinstance(call.given, ContentPart)]
    after = []
    for part in parts:
        if part.type != "tool_use" or not calls or part is not calls[0][1].given:
            after.append(part)
            continue
        number, call = calls.pop(0)
        fields = part.dict()
        right = {"id": call_id(call, step.key, number), "name": _name(call), "input": _input(call)}
        after.append(part if right.items() <= fields.items() else part_of(**{**fields, **right}))
    return after


def _block(part: ContentPart) -> ContentPart | None:
    # A thought without its signature is refused.
    signed = part.type == "thinking" and isinstance(part.further.get("signature"), str)
    if signed or part.type == "tool_use" or part.type in SERVER or part.type.endswith("_tool_result"):
        return part
    after = written((part,), PLAIN)
    return after[0] if isinstance(after, tuple) else None


def _name(call: Call) -> str:
    return tool_name(call.name)


def _input(call: Call) -> dict[str, Any]:
    return {"input": call.arguments} if call.custom else arguments_object(call.arguments)


def _results(step: Step, answers: Sequence[tuple[Call, Answer | None]]) -> Message:
    numbers = {id(call): number for number, call in enumerate(step.calls)}
    parts = [_result(call_id(call, step.key, numbers[id(call)]), answer) for call, answer in answers]
    brought = [answer for _, answer in answers if answer is not None]
    sources = {answer.source.message_id for answer in brought}
    given = next(iter(brought), None)
    if given is None:
        return Message(role="user", content=parts, message_id=made_id("no result", step.key))
    whole = given.source
    if len(sources) == 1 and tuple(parts) == whole.content:
        return whole
    message_id = whole.message_id if given.number == 0 else made_id(whole.message_id, given.number)
    return Message(role="user", content=parts, message_id=message_id)


def _result(shown_id: str, answer: Answer | None) -> ContentPart:
    if answer is None:
        return part_of(type="tool_result", tool_use_id=shown_id, content=NO_RESULT, is_error=True)
    parts = parts_of(answer.content)
    content = written(parts, RESULT) if parts is not None else None
    if answer.part is not None:
        same = answer.part.further.get("tool_use_id") == shown_id
        untouched = isinstance(answer.content, str) or (parts is not None and content == parts) or not answer.content
        if same and untouched and answer.part.text is None and "content" not in answer.part.further:
            return answer.part
        if same and untouched and answer.content is not None and answer.content != []:
            return answer.part
    fields: dict[str, Any] = {"type": "tool_result", "tool_use_id": shown_id}
    failed = (answer.part or answer.source).further.get("is_error")
    if failed is True:
        fields["is_error"] = True
    if isinstance(content, tuple):
        return part_of(**fields, content=[part.dict() for part in content])
    text = as_text(answer.content)
    return part_of(**fields, content=text) if text.strip() else part_of(**fields)


def arranged(messages: Sequence[Message]) -> list[Message]:
    """System messages first; what came in one message stands in one again; no text at the end but a text's end."""
    system = [message for message in messages if message.role == "system"]
    talk: list[Message] = []
    for message in messages:
        if message.role == "system":
            continue
        if talk and _two_of_one(talk[-1], message):
            talk[-1] = replace(message, content=(*_blocks(talk[-1]), *_blocks(message)))
        else:
            talk.append(message)
    if talk and talk[-1].role == "assistant":
        talk[-1] = _stripped(talk[-1])
    return [*system, *talk]


def _two_of_one(results: Message, rest: Message) -> bool:
    brought = results.role == rest.role == "user" and results.message_id == made_id(rest.message_id, 1)
    return brought and isinstance(results.content, tuple)


def _blocks(message: Message) -> tuple[ContentPart, ...]:
    if isinstance(message.content, tuple):
        return message.content
    return (ContentPart(type="text", text=message.content),)


def _stripped(message: Message) -> Message:
    """The endpoint refuses white space at the end of what the model is to go on with."""
    if isinstance(message.content, str):
        text = message.content.rstrip()
        return message if text == message.content else replace(message, content=text)
    last = _blocks(message)[-1]
    if last.type not in TEXTS or last.text is None or last.text == last.text.rstrip():
        return message
    return replace(message, content=(*_blocks(message)[:-1], replace(last, text=last.text.rstrip())))
