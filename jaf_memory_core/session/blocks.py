"""A conversation as blocks, whatever interface its messages come from: one message, or calls with their results.

Chat-completions, Anthropic's blocks and the items of the Responses interface say the same in three ways. Here they are
read; `session.formats` writes them in the form of one endpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.messages import ContentPart, Message, ToolCall
from jaf_memory_core.values import EMPTY

MARK = "jaf-memory:view:"
"""Ids of messages that a view makes up, which are never stored, begin so."""

ITEM_CALLS = {"mcp_approval_request": "mcp_approval_response", "tool_search_call": "tool_search_output"}
"""Responses items that wait for another one, where the answer's type is not the call's with `_output` behind it."""

GIVEN = "jaf-memory:given"
"""Field of a message that has what an engine gave, where the message says it in other fields; no model is shown it."""

DRAFT = "unfinished"
"""Field of an answer that is not finished: it is still being streamed, or its process died."""


class Call(Struct, frozen=True):
    """One call of a tool.

    Attributes:
        id: as it is shown: what the engine gave, unless that is empty, or of two calls of one message.
        name: of the function.
        arguments: JSON text, an object, or `None`; of a custom tool, its text.
        given: what was stored: a `ToolCall`, a part, an item, or the message of an older function call.
        given_id: the id that was given, `""` for none.
    """

    id: str
    name: str
    arguments: Any
    given: ToolCall | ContentPart | Message
    given_id: str

    @property
    def legacy(self) -> bool:
        """Whether it is a call of the older interface, which a `function` message answers."""
        return isinstance(self.given, Message) and self.given.role is not None

    @property
    def custom(self) -> bool:
        """Whether the tool takes free text."""
        if isinstance(self.given, ToolCall):
            return self.given.type == "custom"
        return isinstance(self.given, Message) and self.given.further.get("type") == "custom_tool_call"


class Answer(Struct, frozen=True):
    """What a tool gave.

    Attributes:
        content: text, parts, or any JSON.
        source: the message that it stands in.
        part: the part of that message, where it is one.
        number: of several answers and a text in one message, which; 0 keeps the message's id.
    """

    content: Any
    source: Message
    part: ContentPart | None = None
    number: int = 0


class Step(Struct, frozen=True):
    """A block before it is written in the form of an endpoint.

    Attributes:
        said: the stored messages, without results that stand in them; several of the Responses interface.
        calls: what is called.
        answers: the result of each call; `None` where there is none.
        open: whether calls still wait for their results.
        whole: of a user's message that brought results too, all of it.
    """

    said: tuple[Message, ...]
    calls: tuple[Call, ...] = ()
    answers: tuple[Answer | None, ...] = ()
    open: bool = False
    whole: Message | None = None

    @property
    def role(self) -> str:
        """Who speaks."""
        return self.said[0].role or "assistant"

    @property
    def key(self) -> str:
        """Id of its first message."""
        return self.said[0].message_id

    def since(self, first: int) -> Step:
        """The step without its calls before that one."""
        gone = [call.given for call in self.calls[:first]]
        said = tuple(
            _without(message, gone) for message in self.said if message.role is not None or message not in gone
        )
        return replace(self, said=said or self.said[-1:], calls=self.calls[first:], answers=self.answers[first:])


def _without(message: Message, gone: Sequence[object]) -> Message:
    if not isinstance(message.content, tuple):
        return message
    content = tuple(part for part in message.content if part not in gone)
    return message if len(content) == len(message.content) else replace(message, content=content)


def made_id(*words: object) -> str:
    """An id for a message that a view makes up, the same each time."""
    return MARK + hashed(*words)


def hashed(*words: object) -> str:
    """24 hexadecimal digits that stand for these words."""
    return hashlib.sha256("\0".join(map(str, words)).encode(errors="surrogatepass")).hexdigest()[:24]


def steps_of(messages: Iterable[Message], *, unique: bool = False) -> list[Step]:
    """All that a conversation says, in order; results stand at their calls, wherever they came in.

    Left out are results without a call, and a message whose id was there before. Of several results for one call the
    last counts. Where calls have no ids, or twice the same, results answer them in their order.

    Args:
        messages: as they are stored.
        unique: whether each id of a call is to be there once in all of them, and not only in its message.
    """
    reader = _Reader(set() if unique else None)
    for message in messages:
        reader.take(message)
    steps = [draft.step() for draft in reader.drafts]
    # A call may wait at the very end only (docs/decisions/0009).
    return [
        replace(step, open=False) if step.open and index < len(steps) - 1 else step for index, step in enumerate(steps)
    ]


class _Draft:
    """A step, and the results of its calls as they are found."""

    def __init__(
        self, message: Message, taken: set[str] | None = None, *, items: bool = False, whole: Message | None = None
    ) -> None:
        self.said = [message]
        self._taken = set() if taken is None else taken
        self.items = items
        self.whole = whole
        self.calls: list[Call] = []
        self.answers: list[Answer | None] = []

    def add(self, name: object, arguments: Any, given: Any, given_id: object) -> None:
        key = given_id if isinstance(given_id, str) else ""
        fresh = bool(key) and key not in self._taken and _carried(key)
        shown = key if fresh else f"call_{hashed(self.said[0].message_id, len(self.calls))}"
        self._taken.add(shown)
        self.calls.append(Call(shown, name if isinstance(name, str) else "", arguments, given, key))
        self.answers.append(None)

    def place(self, key: str | None, name: str | None) -> int | None:
        """Which call a result answers: the first of that id without one, or, for ids that are one call's, that one."""
        fits = [n for n, call in enumerate(self.calls) if call.given_id == key or (key is None and not call.legacy)]
        waiting = [n for n in fits if self.answers[n] is None]
        named = [n for n in waiting if name and self.calls[n].name == name] if not key else []
        # A second result for an id that is one call's replaces the first; of two calls' nobody knows whose it is.
        again = fits[-1] if key and len(fits) == 1 else None
        return next(iter(named or waiting), again)

    def step(self) -> Step:
        if not self.calls:
            return Step(tuple(self.said), whole=self.whole)
        waits = any(answer is None for answer in self.answers)
        return Step(tuple(self.said), tuple(self.calls), tuple(self.answers), waits, self.whole)


class _Reader:
    """Reads messages of all three interfaces, one after the other."""

    def __init__(self, taken: set[str] | None) -> None:
        self.drafts: list[_Draft] = []
        self._taken = taken
        self._by_call: dict[str, _Draft] = {}
        self._seen: set[str] = set()

    def take(self, message: Message) -> None:
        if message.message_id in self._seen:
            return
        self._seen.add(message.message_id)
        if message.role in ("tool", "function"):
            self._result(message)
        elif message.role == "user":
            self._user(message)
        elif message.role is None or (message.role == "assistant" and message.further.get("type") == "message"):
            self._item(message)
        else:
            self._said(message)

    def _said(self, message: Message) -> None:
        draft = _Draft(message, self._taken)
        self.drafts.append(draft)
        silent = message.tool_calls is None and message.further is EMPTY and message.content.__class__ is str
        if silent or message.role != "assistant":
            return
        for call in message.tool_calls or ():
            draft.add(*_called(call), call, call.id)
        legacy = message.further.get("function_call")
        if isinstance(legacy, dict):
            draft.add(legacy.get("name"), legacy.get("arguments"), message, _legacy(legacy.get("name")))
        for part in message.content if isinstance(message.content, tuple) else ():
            if part.type == "tool_use":
                draft.add(part.further.get("name"), part.further.get("input"), part, part.further.get("id"))
        self._register(draft)

    def _register(self, draft: _Draft) -> None:
        self._by_call.update((call.given_id, draft) for call in draft.calls)

    def _user(self, message: Message) -> None:
        parts = message.content if isinstance(message.content, tuple) else ()
        results = [part for part in parts if part.type == "tool_result"]
        if not results:
            self.drafts.append(_Draft(message))
            return
        rest = tuple(part for part in parts if part.type != "tool_result")
        for number, part in enumerate(results, start=bool(rest)):
            answer = Answer(part.further.get("content", part.text), message, part, number)
            self._answer(part.further.get("tool_use_id"), answer, None)
        if rest:
            self.drafts.append(_Draft(replace(message, content=rest), whole=message))

    def _item(self, message: Message) -> None:
        kind = str(message.further.get("type"))
        fields = message.further
        item = fields.get("id")
        if isinstance(item, str) and item:  # the interface refuses an item that is there twice
            if f"\0{item}" in self._seen:
                return
            # With a NUL, which no message id holds, so that the two kinds never meet.
            self._seen.add(f"\0{item}")
        if kind.endswith("_output") or kind in ITEM_CALLS.values():
            key = fields.get("call_id", fields.get("approval_request_id"))
            self._answer(key, Answer(fields.get("output", message.content), message), message.name)
            return
        last = self.drafts[-1] if self.drafts else None
        if last is None or not last.items or any(last.answers) or not _goes_on(last, kind):
            last = _Draft(message, self._taken, items=True)
            self.drafts.append(last)
        else:
            last.said.append(message)
        if "call_id" in fields or kind in ("function_call", "custom_tool_call", *ITEM_CALLS):
            arguments = fields.get("arguments", fields.get("input", fields.get("action")))
            given_id = fields.get("id") if kind == "mcp_approval_request" else fields.get("call_id")
            last.add(message.name or kind, arguments, message, given_id)
            self._register(last)

    def _result(self, message: Message) -> None:
        if message.role == "function":
            self._answer(_legacy(message.name), Answer(message.content, message), None)
            return
        name = message.name or message.further.get("tool_name")
        self._answer(message.tool_call_id, Answer(message.content, message), name)

    def _answer(self, key: object, answer: Answer, name: object) -> None:
        given = key if isinstance(key, str) else None
        if given:
            draft = self._by_call.get(given)
        else:
            waiting = (one for one in reversed(self.drafts) if one.place(given, None) is not None)
            draft = next(waiting, None)
        place = draft.place(given, name if isinstance(name, str) else None) if draft is not None else None
        if draft is not None and place is not None:
            draft.answers[place] = answer


def _carried(key: str) -> bool:
    """Whether a request can carry an id: it has no lone surrogates."""
    try:
        return key.isascii() or bool(key.encode())
    except UnicodeEncodeError:
        return False


def _goes_on(draft: _Draft, kind: str) -> bool:
    """Whether an item belongs to the same answer of the model as those before it."""
    kinds = {str(one.further.get("type")) for one in draft.said}
    if kind == "reasoning":  # it belongs to what follows it
        return kinds == {"reasoning"} or bool(draft.calls)
    return kind != "message" or kinds == {"reasoning"}


def _called(call: ToolCall) -> tuple[object, Any]:
    if call.function is not None:
        return call.function.name, call.function.arguments
    custom = call.further.get("custom")
    if isinstance(custom, dict):
        return custom.get("name"), custom.get("input")
    # What LangChain calls `name` and `args` stands beside the id.
    return call.further.get("name"), call.further.get("args", call.further.get("arguments"))


def _legacy(name: object) -> str:
    # Function messages of the older interface answer by name; no tool call's id meets such a key.
    return f"\0function:{name}"
