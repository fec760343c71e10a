"""How much a view may hold, and how what is larger is shortened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import ContentPart, Message
from jaf_memory_core.values import FrozenDict, FrozenList, freeze

Counter = Callable[[Message], int]
"""How many tokens a message costs, as the application's model counts them."""

SHORTENED = "\n[… shortened …]\n"
BARELY = "[…]"
"""What stands where a text was shortened; the short form where there is next to no room."""

ENOUGH = 100
"""Characters from which on a shortened text bears the longer mark."""

TEXT_FIELDS = ("output", "arguments", "input")
"""Fields of Responses items that hold long texts."""


class Room(Struct, frozen=True):
    """How much a view may hold.

    Attributes:
        messages, tokens: how many at most; `math.inf` for any number.
        count: counts tokens; needed only where they are limited.
    """

    messages: float = math.inf
    tokens: float = math.inf
    count: Counter | None = None

    @property
    def unlimited(self) -> bool:
        """Whether everything fits."""
        return self.messages == self.tokens == math.inf

    def cost(self, messages: Iterable[Message]) -> float:
        """Tokens of these messages; 0 where nothing limits them."""
        if self.count is None or self.tokens == math.inf:
            return 0
        return sum(_counted(self.count, message) for message in messages)

    def without(self, messages: Sequence[Message]) -> Room:
        """What is left behind these messages; it may be less than nothing."""
        return Room(self.messages - len(messages), self.tokens - self.cost(messages), self.count)

    def takes(self, messages: Sequence[Message]) -> bool:
        """Whether these messages fit."""
        return not self.without(messages).short

    @property
    def short(self) -> bool:
        """Whether more was put in than fits."""
        return self.messages < 0 or self.tokens < 0


def _counted(count: Counter, message: Message) -> float:
    tokens: Any = count(message)
    if isinstance(tokens, int | float) and tokens >= 0:
        return tokens
    what = repr(tokens) if isinstance(tokens, int | float) else f"a {type(tokens).__name__}"
    raise MemoryInvalidInputError(f"count_tokens must give the tokens of a message, a number from 0, not {what}")


def shortened(messages: Sequence[Message], tokens: float, count: Counter | None) -> list[Message] | None:
    """The messages within so many tokens, the longest of them shortened; `None` where marks alone are too much."""
    if count is None or tokens == math.inf:
        return list(messages)
    costs = [_counted(count, message) for message in messages]
    after: dict[int, Message] = {}
    left, waiting = tokens, sorted(range(len(messages)), key=costs.__getitem__)
    while waiting:
        # The cheapest first: what it does not need of its share is the others'.
        place = waiting.pop(0)
        share = left / (len(waiting) + 1)
        message = messages[place] if costs[place] <= share else _within(messages[place], share, count)
        if message is None:
            return None
        after[place] = message
        left -= _counted(count, message)
    return [after[place] for place in range(len(messages))]


def _within(message: Message, tokens: float, count: Counter) -> Message | None:
    """The message with as much of its text as fits."""
    low, high = 0, _longest(message)
    best: Message | None = None
    while low <= high:
        keep = (low + high) // 2
        candidate = with_texts(message, keep)
        if _counted(count, candidate) <= tokens:
            best, low = candidate, keep + 1
        else:
            high = keep - 1
    return best


def _longest(message: Message) -> int:
    return len(json.dumps(message.dict()))


def with_texts(message: Message, keep: int) -> Message:
    """The message with no more than so many characters of each of its texts, and with nothing but texts."""
    content = message.content
    calls = message.tool_calls
    if isinstance(content, str):
        content = cut_text(content, keep)
    elif content is not None:
        content = tuple(part for given in content if (part := _part(given, keep)) is not None) or BARELY
    if calls is not None:
        calls = tuple(
            call
            if call.function is None
            else replace(call, function=replace(call.function, arguments=_arguments(call.function.arguments, keep)))
            for call in calls
        )
    further = message.further
    if message.role is None:
        kind = further.get("type")
        fields = {name: _field(name, value, keep, kind) for name, value in further.items()}
        further = FrozenDict(fields) if fields != further else further
    elif any(isinstance(value, str) for value in (further.get("refusal"), further.get("reasoning_content"))):
        texts = {name: value for name, value in further.items() if name in ("refusal", "reasoning_content")}
        texts = {name: cut_text(value, keep) for name, value in texts.items() if isinstance(value, str)}
        further = FrozenDict({**further, **texts})
    return replace(message, content=content, tool_calls=calls, further=further)


def cut_text(text: str, keep: int) -> str:
    """The beginning and the end of a text, with a mark between them, where it is longer than so many characters."""
    if len(text) <= keep or len(text) <= len(BARELY):
        return text
    mark = SHORTENED if keep >= ENOUGH else BARELY
    head = max(0, keep - len(mark)) * 2 // 3
    tail = max(0, keep - len(mark) - head)
    return text[:head] + mark + (text[-tail:] if tail else "")


def _part(part: ContentPart, keep: int) -> ContentPart | None:
    if part.text is not None:
        return part if len(part.text) <= keep else replace(part, text=cut_text(part.text, keep))
    return part if _small(part, keep) else _cut_part(part, keep)


def _cut_part(part: ContentPart, keep: int) -> ContentPart | None:
    further = part.further
    if part.type == "tool_use":
        return replace(part, further=_with(further, "input", _arguments_object(further.get("input"), keep)))
    if part.type == "tool_result":
        text = cut_text(_plain(further.get("content") or ""), keep)
        return replace(part, further=_with(further, "content", text or BARELY))
    if part.type == "refusal":
        return replace(part, further=_with(further, "refusal", cut_text(str(further.get("refusal")), keep)))
    if part.type in ("thinking", "redacted_thinking"):  # signed: whole, or not at all
        return None
    text = "input_text" if part.type.startswith("input_") else "text"
    return ContentPart(type=text, text=BARELY)


def _small(part: ContentPart, keep: int) -> bool:
    return len(json.dumps(part.dict())) <= keep


def _with(further: FrozenDict, name: str, value: Any) -> FrozenDict:
    return FrozenDict({**further, name: freeze(value)})


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "\n".join(texts) or BARELY
    return json.dumps(value, ensure_ascii=False)


def _arguments(arguments: Any, keep: int) -> Any:
    if not isinstance(arguments, str):
        return _arguments_object(arguments, keep)
    return arguments if len(arguments) <= max(keep, len("{}")) else json.dumps({BARELY: cut_text(arguments, keep)})


def _arguments_object(arguments: Any, keep: int) -> Any:
    text = json.dumps(arguments, ensure_ascii=False)
    return arguments if len(text) <= max(keep, len("{}")) else FrozenDict({BARELY: cut_text(text, keep)})


def _field(name: str, value: Any, keep: int, kind: object) -> Any:
    if name not in TEXT_FIELDS:
        return value
    if name == "arguments":
        return _arguments(value, keep)
    if isinstance(value, str):
        return cut_text(value, keep)
    if kind == "function_call_output" and isinstance(value, FrozenList) and len(json.dumps(value)) > keep:
        return cut_text(_plain(value), keep)
    return value
