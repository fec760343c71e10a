"""What a model is shown of a conversation: pure rules, by which a view is always valid.

A chat-completions interface refuses a tool's message without the call that it answers, and a call that is not answered
before anything else is said. So a conversation is looked at as blocks (a message, or a call with its results), blocks
make turns, and a view takes whole blocks only, whole turns first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from jaf_memory_core.messages import Message

Counter = Callable[[Message], int]
"""How many tokens a message costs, as the application's model counts them."""

MARK = "jaf-memory:view:"
"""Ids of messages that a view makes up, which are never stored, begin so."""

STAYING = ("system", "developer")
"""Roles whose messages stay in every view."""


class Block(Struct, frozen=True):
    """Messages that only make sense together: one, or a call with the results that it has.

    Attributes:
        messages: the call first.
        complete: `False` while a call waits for a result.
    """

    messages: tuple[Message, ...]
    complete: bool = True

    @property
    def role(self) -> str | None:
        """The role of its first message."""
        return self.messages[0].role


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

    def without(self, blocks: Iterable[Block]) -> Room:
        """What is left behind these blocks; it may be less than nothing."""
        shown = [message for block in blocks for message in block.messages]
        tokens = sum(map(self.count, shown)) if self.count is not None and self.tokens != math.inf else 0
        return Room(self.messages - len(shown), self.tokens - tokens, self.count)

    def takes(self, blocks: Iterable[Block]) -> bool:
        """Whether these blocks fit."""
        return not self.without(blocks).short

    @property
    def short(self) -> bool:
        """Whether more was put in than fits."""
        return self.messages < 0 or self.tokens < 0


def blocks_of(messages: Iterable[Message]) -> list[Block]:
    """All that can stand in a view, in order; results stand behind their call, wherever they came in.

    Left out are: results without a call, a message whose id was there before, a message that makes two calls with one
    id, and calls without all their results, unless such a call is the very last that happened. The last of several
    results for one call counts.
    """
    drafts: list[_Draft] = []
    waiting: dict[str, _Draft] = {}
    seen: set[str] = set()
    for message in messages:
        if message.message_id in seen:
            continue
        seen.add(message.message_id)
        if message.role in ("tool", "function"):
            key = message.tool_call_id if message.role == "tool" else _legacy(message.name)
            if key is not None and key in waiting:
                waiting[key].results[key] = message
            continue
        draft = _Draft(message)
        if len(set(draft.calls)) == len(draft.calls):
            drafts.append(draft)
        waiting.update(dict.fromkeys(draft.calls, draft))
    blocks = [draft.block() for draft in drafts]
    return [block for index, block in enumerate(blocks) if block.complete or index == len(blocks) - 1]


class _Draft:
    """A message, and the results of its calls as they are found."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.calls: list[str] = []
        self.results: dict[str, Message] = {}
        if message.role == "assistant":
            self.calls = [call.id or "" for call in message.tool_calls or ()]
            legacy = message.further.get("function_call")
            if isinstance(legacy, dict):
                self.calls.append(_legacy(legacy.get("name")))

    def block(self) -> Block:
        results = tuple(self.results[call] for call in self.calls if call in self.results)
        return Block((self.message, *results), complete=len(results) == len(self.calls))


def _legacy(name: object) -> str:
    # Function messages of the older interface answer by name; no tool call's id meets such a key.
    return f"\0function:{name}"


def turns_of(blocks: Iterable[Block]) -> list[list[Block]]:
    """Turns, oldest first: each begins with a user message; what stands before the first is one, too."""
    turns: list[list[Block]] = []
    for block in blocks:
        if block.role == "user" or not turns:
            turns.append([])
        turns[-1].append(block)
    return turns


def newest(blocks: Sequence[Block], room: Room) -> list[Block]:
    """The newest whole turns that fit; of a newest turn that does not fit, its user message and its newest blocks."""
    taken: list[list[Block]] = []
    left = room
    for turn in reversed(turns_of(blocks)):
        left = left.without(turn)
        if left.short:
            return [block for whole in reversed(taken) for block in whole] or _part_of(turn, room)
        taken.append(turn)
    return [block for whole in reversed(taken) for block in whole]


def _part_of(turn: list[Block], room: Room) -> list[Block]:
    head = turn[:1] if turn[0].role == "user" else []
    rest = turn[len(head) :]
    if not rest or not room.takes([*head, rest[-1]]):
        # Rather the newest call without its question than the question without what came of it.
        head, rest = ([], rest) if rest and room.takes(rest[-1:]) else (head, [])
    taken: list[Block] = []
    for block in reversed(rest):
        if not room.takes([*head, block, *taken]):
            break
        taken = [block, *taken]
    return [*head, *taken] if room.takes([*head, *taken]) else []


def split(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """System and developer messages, which stay, and all others."""
    staying = [block for block in blocks if block.role in STAYING]
    return staying, [block for block in blocks if block.role not in STAYING]


def limited(blocks: Sequence[Block], room: Room) -> list[Block]:
    """The view within the room: system and developer messages, and of all others the newest, in their order."""
    if room.unlimited:
        return list(blocks)
    staying, others = split(blocks)
    return in_order(blocks, [*staying, *newest(others, room.without(staying))])


def first_and_newest(blocks: Sequence[Block], room: Room) -> list[Block]:
    """The view above a compression threshold where nothing summarises: the first fifth, a marker, the newest.

    The marker says how many messages are not shown; it counts as one.
    """
    if room.takes(blocks):
        return list(blocks)
    staying, others = split(blocks)
    free = room.without(staying)
    first: list[Block] = []
    fifth = Room(free.messages // 5, free.tokens // 5 if free.tokens != math.inf else math.inf, room.count)
    for block in others:
        if not block.complete or not fifth.takes([*first, block]):
            break
        first.append(block)
    recent = newest(others[len(first) :], free.without([*first, marker(0)]))
    hidden = sum(len(block.messages) for block in others[len(first) : len(others) - len(recent)])
    shown = in_order(blocks, [*staying, *first, *recent])
    if not room.takes([*shown, marker(hidden)]):
        return shown
    ids = {block.messages[0].message_id for block in first}
    places = [index for index, block in enumerate(shown) if block.messages[0].message_id in ids]
    behind = places[-1] + 1 if places else len(staying_before(shown))
    return [*shown[:behind], marker(hidden), *shown[behind:]]


def staying_before(blocks: Sequence[Block]) -> list[Block]:
    """The system and developer messages with which a view begins."""
    end = next((index for index, block in enumerate(blocks) if block.role not in STAYING), len(blocks))
    return list(blocks[:end])


class Cut(Struct, frozen=True):
    """Where a summary is to end.

    Attributes:
        message_id: the last message, in stored order, that it covers.
        covered: what is to be summarised, in valid form, without what stays.
        kept: messages that it covers and that stay in views as they are: system messages, and the question of a turn
            that is so long that its beginning has to go.
    """

    message_id: str
    covered: tuple[Message, ...]
    kept: tuple[Message, ...]


def cut(kept: Sequence[Message], uncovered: Sequence[Message], room: Room) -> Cut | None:
    """Where to cut so that what follows fits; `None` where no cut would help.

    Args:
        kept: what an earlier summary keeps.
        uncovered: all messages behind it, as they are stored.
        room: for what follows the cut, and for what stays.
    """
    blocks = blocks_of([*kept, *uncovered])
    staying, others = split(blocks)
    recent = newest(others, room.without(staying))
    tail = 0
    while tail < min(len(recent), len(others)) and recent[-1 - tail] is others[-1 - tail]:
        tail += 1
    if tail in (0, len(others)):
        return None
    first = others[-tail].messages[0].message_id
    end = next((index for index, message in enumerate(uncovered) if message.message_id == first), 0)
    if end == 0:
        return None
    heads = [block for block in recent[: len(recent) - tail] if block.complete]
    behind = {message.message_id for message in uncovered[end:]}
    stays = in_order(blocks, [*(block for block in staying if block.messages[0].message_id not in behind), *heads])
    gone = others[: len(others) - tail]
    return Cut(uncovered[end - 1].message_id, tuple(shown(gone)), tuple(shown(stays)))


def marker(hidden: int) -> Block:
    """The message that says how much is left out."""
    return made_up("left-out", f"[{hidden} messages between the first and the newest are not shown]")


def summary(text: str) -> Block:
    """The message that stands in the place of those that a summary covers."""
    return made_up("summary", text)


def with_summary(blocks: Sequence[Block], kept: Sequence[Message], text: str) -> list[Block]:
    """A view with the summary behind what the summary keeps."""
    ids = {message.message_id for message in kept}
    places = [index for index, block in enumerate(blocks) if block.messages[0].message_id in ids]
    behind = places[-1] + 1 if places else len(staying_before(blocks))
    return [*blocks[:behind], summary(text), *blocks[behind:]]


def made_up(name: str, text: str) -> Block:
    """A system message that stands in a view only."""
    return Block((Message(role="system", content=text, message_id=MARK + name),))


def is_made_up(message: Message) -> bool:
    """Whether a view made this message up, so that it is never to be stored."""
    return message.message_id.startswith(MARK)


def in_order(blocks: Sequence[Block], chosen: Sequence[Block]) -> list[Block]:
    """The chosen blocks in the conversation's order."""
    wanted = {block.messages[0].message_id for block in chosen}
    return [block for block in blocks if block.messages[0].message_id in wanted]


def shown(blocks: Iterable[Block]) -> list[Message]:
    """The messages of a view."""
    return [message for block in blocks for message in block.messages]
