"""The Responses interface: calls, results and reasoning are items of their own, beside messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from jaf_memory_core.messages import Message
from jaf_memory_core.session.blocks import ITEM_CALLS, Answer, Call, Step, hashed, made_id
from jaf_memory_core.session.formats.contents import (
    NO_RESULT,
    NOTHING,
    Parts,
    arguments_text,
    as_text,
    parts_of,
    said,
    spoken,
    tool_name,
    written,
)
from jaf_memory_core.session.formats.contents import (
    item as item_of,
)
from jaf_memory_core.values import FrozenDict

LONGEST_ID = 64


def _image(url: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


INPUT = Parts(frozenset({"input_text", "input_image", "input_file"}), text="input_text", image=_image)
OUTPUT = Parts(frozenset({"output_text", "refusal"}), text="output_text", refusal=True)


def render(step: Step) -> tuple[Message, ...]:
    """The items of a step."""
    if step.role != "assistant":
        message = step.said[0]
        after = written(message.content, INPUT)
        message = message if after is message.content else replace(message, content=after)
        if said(message.content):
            return (message,)
        return (replace(message, content=NOTHING),) if step.role == "user" else ()
    items = _items(step)
    # The interface refuses reasoning without what it has led to.
    while items and items[-1].further.get("type") == "reasoning":
        items.pop()
    if not items:
        return ()
    return (*items, *_results(step))


def _items(step: Step) -> list[Message]:
    calls = {id(call.given): (number, call) for number, call in enumerate(step.calls)}
    items: list[Message] = []
    for message in step.said:
        if message.role is None:
            number, call = calls.get(id(message), (0, None))
            items.append(_item(message, None if call is None else call_id(call, step.key, number)))
        else:
            items.extend(_message(message, step))
    made = [
        _called(call, step.key, number)
        for number, call in enumerate(step.calls)
        if not (isinstance(call.given, Message) and call.given.role is None)
    ]
    if made and not items:  # the first of them stands for the message
        made[0] = replace(made[0], message_id=step.key)
    return [*items, *made]


def _message(message: Message, step: Step) -> list[Message]:
    if message.further.get("type") == "message" and isinstance(message.content, tuple):
        after = written(message.content, OUTPUT)
        whole = isinstance(message.further.get("id"), str) and isinstance(message.further.get("status"), str)
        if isinstance(after, tuple) and whole:
            return [message if after is message.content else replace(message, content=after)]
    text = spoken(message)
    if isinstance(message.content, tuple):
        shown = written(message.content, replace(INPUT, taken=frozenset(), text=None, image=None))
        text = shown if isinstance(shown, str) else ""
    if not text.strip():
        return [] if step.calls else [Message(role="assistant", content=NOTHING, message_id=message.message_id)]
    if text == message.content and message.tool_calls is None and "function_call" not in message.further:
        return [message]
    return [Message(role="assistant", content=text, message_id=message.message_id)]


def _item(item: Message, shown_id: str | None) -> Message:
    """An item in the endpoint's form: no empty fields, arguments as text."""
    fields = {name: value for name, value in item.further.items() if value is not None}
    kind = fields.get("type")
    if kind == "reasoning":
        fields.setdefault("summary", [])
    if kind == "function_call":
        fields["arguments"] = arguments_text(fields.get("arguments"))
    if shown_id is not None and kind not in ITEM_CALLS:
        fields["call_id"] = shown_id
    name = tool_name(item.name) if kind in ("function_call", "custom_tool_call") else item.name
    content = item.content or None
    if fields == item.further and name == item.name and content is item.content:
        return item
    return replace(item, name=name, content=content, further=FrozenDict(fields))


def call_id(call: Call, key: str, number: int) -> str:
    """The call's id, or a shorter one."""
    return call.id if len(call.id) <= LONGEST_ID else f"call_{hashed(call.id, key, number)}"


def _called(call: Call, key: str, number: int) -> Message:
    fields = {"call_id": call_id(call, key, number), "message_id": made_id("call", key, number)}
    name = tool_name(call.name)
    if call.custom:
        return item_of(type="custom_tool_call", name=name, input=as_text(call.arguments), **fields)
    return item_of(type="function_call", name=name, arguments=arguments_text(call.arguments), **fields)


def _results(step: Step) -> list[Message]:
    answered = [
        (number, call, answer)
        for number, (call, answer) in enumerate(zip(step.calls, step.answers, strict=True))
        if answer is not None or not step.open
    ]
    return [_result(call, answer, step.key, number) for number, call, answer in answered]


def _result(call: Call, answer: Answer | None, key: str, number: int) -> Message:
    shown_id = call_id(call, key, number)
    if answer is not None and answer.source.role is None:
        source = answer.source
        kind = str(source.further.get("type"))
        given = {name: value for name, value in source.further.items() if value is not None}
        if kind not in ITEM_CALLS.values():
            given["call_id"] = shown_id
        if kind == "function_call_output" and not isinstance(given.get("output"), str):
            given["output"] = _output(answer)
        return source if given == source.further else replace(source, further=FrozenDict(given))
    kind = str(call.given.further.get("type")) if isinstance(call.given, Message) else ""
    fields: dict[str, Any] = {"call_id": shown_id, "output": NO_RESULT if answer is None else _output(answer)}
    if kind in ITEM_CALLS or (kind.endswith("_call") and kind not in ("function_call", "custom_tool_call")):
        return _unanswered(call, kind, key, number)
    fields["type"] = "custom_tool_call_output" if call.custom else "function_call_output"
    if answer is None:
        return item_of(message_id=made_id("no result", key, number), **fields)
    source_id = answer.source.message_id
    return item_of(message_id=source_id if answer.number == 0 else made_id(source_id, answer.number), **fields)


def _unanswered(call: Call, kind: str, key: str, number: int) -> Message:
    message_id = made_id("no result", key, number)
    if kind == "mcp_approval_request":
        return item_of(type=ITEM_CALLS[kind], approval_request_id=call.given_id, approve=False, message_id=message_id)
    if kind == "tool_search_call":
        return item_of(type=ITEM_CALLS[kind], call_id=call.given_id or None, tools=[], message_id=message_id)
    outputs: dict[str, dict[str, Any]] = {
        "shell_call": {
            "output": [{"stdout": "", "stderr": NO_RESULT, "outcome": {"type": "timeout"}}],
        },
        "apply_patch_call": {"status": "failed", "output": NO_RESULT},
        "local_shell_call": {"output": NO_RESULT, "id": call.given_id},
    }
    fields = outputs.get(kind, {"output": NO_RESULT})
    return item_of(type=f"{kind}_output", call_id=call.given_id, message_id=message_id, **fields)


def _output(answer: Answer) -> Any:
    parts = parts_of(answer.content)
    if parts is None:
        return as_text(answer.content)
    after = written(parts, INPUT)
    return [part.dict() for part in after] if isinstance(after, tuple) else ""


def arranged(messages: Sequence[Message]) -> list[Message]:
    """The items as they stand: the interface takes system messages anywhere."""
    return list(messages)
