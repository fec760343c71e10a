"""Chat-completions: results are messages of their own, contents are texts, and parts of a few types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from jaf_memory_core.messages import Message, ToolCall
from jaf_memory_core.session.blocks import DRAFT, Answer, Call, Step, made_id
from jaf_memory_core.session.formats.contents import (
    NO_RESULT,
    NOTHING,
    Parts,
    arguments_text,
    as_text,
    parts_of,
    refusal_of,
    said,
    speaker_name,
    tool_call,
    tool_name,
    written,
)
from jaf_memory_core.values import EMPTY, FrozenDict


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


USER = Parts(frozenset({"text", "image_url", "input_audio", "file"}), image=_image)
ASSISTANT = Parts(frozenset({"text", "refusal"}), refusal=True)
PLAIN = Parts(frozenset({"text"}))


def render(step: Step, *, strict: bool) -> tuple[Message, ...]:
    """The messages of a step.

    Args:
        step: what is said.
        strict: only what the endpoint's own rules name; otherwise parts of other types, which carry signatures for
            one, stay where no rule is broken by them.
    """
    first = step.said[0]
    if step.role != "assistant":
        message = _content(first, USER if step.role == "user" else PLAIN, strict=strict)
        message = _named(message) if strict else message
        return (_spoken(message),) if step.role == "user" or said(message.content) else ()
    message = _assistant(step, strict=strict)
    results = [
        _result(call, answer, step.key, number)
        for number, (call, answer) in enumerate(zip(step.calls, step.answers, strict=True))
        if answer is not None or not step.open
    ]
    return tuple(map(_named, (message, *results))) if strict else (message, *results)


def _named(message: Message) -> Message:
    """The message with names that the endpoint takes, of who speaks and of what is called."""
    if message.name is not None:
        tool = message.role in ("tool", "function")
        name = tool_name(message.name) if tool else speaker_name(message.name)
        message = message if name == message.name else replace(message, name=name)
    calls = message.tool_calls
    if calls and any(
        call.function is not None and tool_name(call.function.name) != call.function.name for call in calls
    ):
        message = replace(message, tool_calls=tuple(map(_named_call, calls)))
    called = message.further.get("function_call")
    if isinstance(called, dict) and tool_name(called.get("name")) != called.get("name"):
        called = FrozenDict({**called, "name": tool_name(called.get("name"))})
        message = replace(message, further=FrozenDict({**message.further, "function_call": called}))
    return message


def _named_call(call: ToolCall) -> ToolCall:
    function = call.function
    if function is None or tool_name(function.name) == function.name:
        return call
    return replace(call, function=replace(function, name=tool_name(function.name)))


def _spoken(message: Message) -> Message:
    return message if message.content is not None else replace(message, content=NOTHING)


def _content(message: Message, form: Parts, *, strict: bool) -> Message:
    content = message.content
    if not strict and isinstance(content, tuple) and content:
        taken = {part.type for part in content if part.further or part.text} - {"tool_use"}
        form = replace(form, taken=form.taken | taken)
        kept = tuple(part for part in content if part.further and part.type == "text" and not (part.text or "").strip())
        if kept:  # an empty text that carries a signature
            rest = written(tuple(part for part in content if part not in kept), form) or ()
            parts = tuple(part for part in content if part in kept or part in rest)
            return message if len(parts) == len(content) else replace(message, content=parts)
    after = written(content, form)
    return message if after is content else replace(message, content=after)


def _assistant(step: Step, *, strict: bool) -> Message:
    first = step.said[0]
    if len(step.said) > 1 or first.role is None:
        first = _of_items(step)
    message = _content(first, ASSISTANT, strict=strict)
    if step.said[0].role is not None and DRAFT in message.further:
        message = replace(message, further=_without(message.further, DRAFT))
    calls = tuple(_call(call) for call in step.calls if not call.legacy) or None
    if calls != message.tool_calls:
        message = replace(message, tool_calls=calls)
    legacy = [call for call in step.calls if call.legacy]
    if legacy and not isinstance(message.further["function_call"].get("arguments"), str):
        called = FrozenDict({**message.further["function_call"], "arguments": arguments_text(legacy[0].arguments)})
        message = replace(message, further=FrozenDict({**message.further, "function_call": called}))
    if not said(message.content) and not step.calls and not _speaks(message):
        return replace(message, content=NOTHING)
    return message


def _speaks(message: Message) -> bool:
    return refusal_of(message) is not None or isinstance(message.further.get("audio"), dict)


def _without(fields: FrozenDict, name: str) -> FrozenDict:
    return FrozenDict({key: value for key, value in fields.items() if key != name}) if len(fields) > 1 else EMPTY


def _of_items(step: Step) -> Message:
    """One message of the items that a model of the Responses interface gave."""
    texts = [as_text(item.content) for item in step.said if item.further.get("type") == "message"]
    called = {call.given.message_id for call in step.calls if isinstance(call.given, Message)}
    others = [
        f"[{item.further['type']}]"
        for item in step.said
        if item.message_id not in called and item.further.get("type") not in ("message", "reasoning")
    ]
    return Message(role="assistant", content="\n".join([*texts, *others]) or None, message_id=step.key)


def _call(call: Call) -> ToolCall:
    given = call.given
    if isinstance(given, ToolCall):
        if call.id != given.id:
            given = replace(given, id=call.id)
        if given.function is None and given.type == "function":
            function = {"name": call.name or "unknown", "arguments": arguments_text(call.arguments)}
            return tool_call(id=call.id, function=function)
        if given.function is not None and not (isinstance(call.arguments, str) and call.arguments):
            given = replace(given, function=replace(given.function, arguments=arguments_text(call.arguments)))
        return given
    if call.custom:
        return tool_call(id=call.id, type="custom", custom={"name": call.name, "input": arguments_text(call.arguments)})
    return tool_call(id=call.id, function={"name": call.name or "unknown", "arguments": arguments_text(call.arguments)})


def _result(call: Call, answer: Answer | None, key: str, number: int) -> Message:
    if answer is None:
        message_id = made_id("no result", key, number)
        if call.legacy:
            return Message(role="function", name=call.name or "unknown", content=NO_RESULT, message_id=message_id)
        return Message(role="tool", content=NO_RESULT, tool_call_id=call.id, message_id=message_id)
    source = answer.source
    if source.role in ("tool", "function"):
        message = source if call.legacy or source.tool_call_id == call.id else replace(source, tool_call_id=call.id)
        content = written(message.content, PLAIN)
        content = "" if content is None else content
        return message if content is message.content else replace(message, content=content)
    message_id = source.message_id if answer.number == 0 else made_id(source.message_id, answer.number)
    return Message(role="tool", content=_result_text(answer), tool_call_id=call.id, message_id=message_id)


def _result_text(answer: Answer) -> str:
    parts = parts_of(answer.content)
    return as_text(answer.content if parts is None else parts)


def arranged(messages: Sequence[Message]) -> list[Message]:
    """The view as it stands: chat-completions takes system messages anywhere."""
    return list(messages)
