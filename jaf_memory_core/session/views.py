"""What a model is shown of a conversation: pure rules, by which a view is always valid.

Endpoints refuse a result without the call that it answers, and a call that is not answered before anything else is
said. So a conversation is looked at as blocks (a message, or calls with their results), blocks make turns, and a view
takes whole blocks only, whole turns first.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.messages import Message
from jaf_memory_core.session.blocks import MARK, Step, steps_of
from jaf_memory_core.session.formats import AS_STORED, Form, form_of
from jaf_memory_core.session.formats.contents import is_bare, sendable
from jaf_memory_core.session.room import Room, shortened

STAYING = ("system", "developer")
"""Roles whose messages stay in every view, as far as there is room."""


class Block(Struct, frozen=True):
    """Messages that only make sense together: one, or calls with the results that they have.

    Attributes:
        messages: as they are shown, calls first.
        said: as they are stored, without results.
        complete: `False` while a call waits for a result.
        role: who speaks.
        step, form: what they are made of, and how; `None` of what a view makes up.
    """

    messages: tuple[Message, ...]
    said: tuple[Message, ...]
    complete: bool
    role: str
    step: Step | None = None
    form: Form | None = None

    @property
    def key(self) -> str:
        """Id of its first message."""
        return self.said[0].message_id


def blocks_of(messages: Iterable[Message], form: Form | None = None) -> list[Block]:
    """All that can stand in a view, in order; see `steps_of`.

    Args:
        messages: as they are stored.
        form: of the view; that of the messages when absent.
    """
    given = list(messages)
    form = form or form_of(None, given)
    blocks = []
    for step in steps_of(given, unique=form.unique):
        bare = not step.calls and len(step.said) == 1 and is_bare(step.said[0])
        shown = step.said if bare else tuple(map(sendable, form.render(step)))
        if shown:
            blocks.append(Block(shown, step.said, not step.open, step.role, step, form))
    return blocks


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
        left = left.without(messages_of(turn))
        if left.short:
            return [block for whole in reversed(taken) for block in whole] or _part_of(turn, room)
        taken.append(turn)
    return [block for whole in reversed(taken) for block in whole]


def _part_of(turn: list[Block], room: Room) -> list[Block]:
    head = turn[:1] if turn[0].role == "user" else []
    taken: list[Block] = []
    for block in reversed(turn[len(head) :]):
        if not room.takes(messages_of([*head, block, *taken])):
            break
        taken = [block, *taken]
    whole = [*head, *taken]
    return whole if len(taken) + len(head) > 0 and room.takes(messages_of(whole)) else []


def split(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """System and developer messages, which stay, and all others."""
    staying = [block for block in blocks if block.role in STAYING]
    return staying, [block for block in blocks if block.role not in STAYING]


class Fitted(Struct, frozen=True):
    """What a view chooses from, once what it has to show has been made to fit.

    Attributes:
        staying: system and developer messages.
        others: all others, the newest and the newest question shortened where they alone are too large.
        must: keys of those of them that have to be shown.
    """

    staying: list[Block]
    others: list[Block]
    must: frozenset[str] = frozenset()


def fitted(blocks: Sequence[Block], room: Room) -> Fitted | None:
    """Make room for the newest message and the newest question; `None` where they do not fit, however short."""
    staying, others = split(blocks)
    if room.unlimited:
        return Fitted(staying, others)
    staying = _once(staying)
    question = next((block for block in reversed(others) if block.role == "user"), None)
    last = blocks[-1] if blocks else None
    must = [block for block in (question, others[-1] if others else None) if block is not None]
    must = must[:1] if len(must) > 1 and must[0] is must[1] else must
    final = last if last is not None and last.role in STAYING else None
    if not room.takes(messages_of([*staying, *must])):
        tight = _tight(staying, must, final, room)
        if tight is None:
            return None
        staying, must = tight
    by_key = {block.key: block for block in must}
    return Fitted(staying, [by_key.get(block.key, block) for block in others], frozenset(by_key))


def _once(staying: Sequence[Block]) -> list[Block]:
    """Of equal system messages the newest copies."""
    newest_of = {(block.role, block.messages[0].content): block for block in staying}
    return [block for block in staying if newest_of[block.role, block.messages[0].content] is block]


def _tight(
    staying: list[Block], must: list[Block], final: Block | None, room: Room
) -> tuple[list[Block], list[Block]] | None:
    ends = [] if final is None else [final]
    must = _fewer(must, Room(room.messages - len(ends), room.tokens, room.count))
    free = Room(room.messages - len(messages_of(must)), room.tokens, room.count)
    if free.messages < len(ends):
        return None
    costs = room.cost(messages_of(must))
    # What is said to the model in general gives way to what is asked, down to half of the room; to all of it only
    # where nothing else would do.
    for share in (max(room.tokens - costs, room.tokens / 2), 0.0):
        kept = _some(staying, final, Room(free.messages, share, room.count)) if share else []
        if final is not None and not kept:
            continue
        left = room.tokens - room.cost(messages_of(kept))
        short = shortened(messages_of(must), left, room.count)
        if short is not None:
            places = iter(short)
            return kept, [replace(block, messages=tuple(next(places) for _ in block.messages)) for block in must]
    return None


def _some(staying: list[Block], final: Block | None, room: Room) -> list[Block]:
    """System messages within a room: the last where the view ends with it, the first, and the newest."""
    order = [*([] if final is None else [final]), *staying[:1], *reversed(staying[1:])]
    chosen: dict[str, Block] = {}
    left = room
    for whole in order:
        if whole.key in chosen:
            continue
        block, after = whole, left.without(whole.messages)
        if after.short:
            short = shortened(whole.messages, left.tokens, left.count) if not chosen and left.messages > 0 else None
            if short is None:
                continue
            block = replace(whole, messages=tuple(short))
            after = left.without(block.messages)
        chosen[block.key] = block
        left = after
    return [chosen[block.key] for block in staying if block.key in chosen]


def _fewer(must: list[Block], room: Room) -> list[Block]:
    """The blocks with the newest of many parallel calls only, where all of them are more than may be shown."""
    if not must or _can_fit(messages_of(must), room):
        return must
    *before, last = must
    step, form = last.step, last.form
    if step is None or form is None:
        return must

    def since(first: int) -> Block:
        fewer = step.since(first)
        return replace(last, messages=tuple(map(sendable, form.render(fewer))), step=fewer)

    answered = [number for number, answer in enumerate(step.answers) if answer is not None]
    places = range(1, answered[-1] + 1 if answered else len(step.calls))  # the view ends with the newest result
    first = bisect_left(places, 1, key=lambda place: int(_can_fit(messages_of([*before, since(place)]), room)))
    return must if first == len(places) else [*before, since(places[first])]


def _can_fit(messages: Sequence[Message], room: Room) -> bool:
    return len(messages) <= room.messages and shortened(messages, room.tokens, room.count) is not None


def limited(blocks: Sequence[Block], room: Room) -> list[Block]:
    """The view within the room: system and developer messages, and of all others the newest, in their order.

    Empty where not even the newest message and the newest question fit, however they are shortened.
    """
    if room.unlimited:
        return list(blocks)
    fit = fitted(blocks, room)
    if fit is None:
        return []
    return in_order(blocks, [*fit.staying, *newest(fit.others, room.without(messages_of(fit.staying)))])


def first_and_newest(blocks: Sequence[Block], room: Room, unread: int = 0) -> list[Block]:
    """The view above a compression threshold where nothing summarises: the first fifth, a marker, the newest.

    The marker says how many messages are not shown; it counts as one.

    Args:
        blocks: of the whole conversation; of its beginning and its end, where it is long.
        room: for all of it.
        unread: how many messages stand between that beginning and that end.
    """
    if unread == 0 and room.takes(messages_of(blocks)):
        return list(blocks)
    fit = fitted(blocks, room)
    if fit is None:
        return []
    free = room.without(messages_of(fit.staying))
    first: list[Block] = []
    fifth = Room(free.messages // 5, free.tokens // 5 if free.tokens != math.inf else math.inf, room.count)
    for block in fit.others:
        if not block.complete or block.key in fit.must or not fifth.takes(messages_of([*first, block])):
            break
        first.append(block)
    behind_first = fit.others[len(first) :]
    recent = newest(behind_first, free.without(messages_of([*first, marker(0)])))
    # The first fifth has taken the room of what has to be shown: then the newest alone.
    if fit.must - {block.key for block in recent}:
        first, behind_first = [], fit.others
        recent = newest(fit.others, free)
    shown_now = {block.key for block in (*first, *recent)}
    hidden = unread + sum(len(block.messages) for block in fit.others if block.key not in shown_now)
    view = in_order(blocks, [*fit.staying, *first, *recent])
    if not room.takes(messages_of([*view, marker(hidden)])):
        return view
    ids = {block.key for block in first}
    places = [index for index, block in enumerate(view) if block.key in ids]
    behind = places[-1] + 1 if places else len(staying_before(view))
    return [*view[:behind], marker(hidden), *view[behind:]]


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


def cut(kept: Sequence[Message], uncovered: Sequence[Message], room: Room, form: Form | None = None) -> Cut | None:
    """Where to cut so that what follows fits; `None` where no cut would help.

    Args:
        kept: what an earlier summary keeps.
        uncovered: all messages behind it, as they are stored.
        room: for what follows the cut, and for what stays.
        form: of the view.
    """
    blocks = blocks_of([*kept, *uncovered], form)
    fit = fitted(blocks, room)
    if fit is None:
        return None
    others = fit.others
    recent = newest(others, room.without(messages_of(fit.staying)))
    tail = 0
    while tail < min(len(recent), len(others)) and recent[-1 - tail] is others[-1 - tail]:
        tail += 1
    # Nothing would follow the cut, or nothing would stand before it.
    if tail in (0, len(others)):
        return None
    first = others[-tail].key
    end = next((index for index, message in enumerate(uncovered) if message.message_id == first), 0)
    # What follows begins with the first message that no summary covers: there is nothing new to cover.
    if end == 0:
        return None
    heads = [block for block in recent[: len(recent) - tail] if block.complete]
    behind = {message.message_id for message in uncovered[end:]}
    stays = in_order(blocks, [*(block for block in fit.staying if block.key not in behind), *heads])
    stay = {(block.role, block.messages[0].content) for block in fit.staying}
    dropped = [block for block in split(blocks)[0] if (block.role, block.messages[0].content) not in stay]
    gone = in_order(blocks, [*others[: len(others) - tail], *(block for block in dropped if block.key not in behind)])
    kept_messages = tuple(message for block in stays for message in _stored(block))
    return Cut(uncovered[end - 1].message_id, tuple(messages_of(gone)), kept_messages)


def _stored(block: Block) -> tuple[Message, ...]:
    if block.step is None:
        return block.said
    whole = (block.step.whole,) if block.step.whole is not None else block.said
    return (*whole, *(answer.source for answer in block.step.answers if answer is not None))


def marker(hidden: int) -> Block:
    """The message that says how much is left out."""
    return made_up("left-out", f"[{hidden} messages between the first and the newest are not shown]")


def summary(text: str) -> Block:
    """The message that stands in the place of those that a summary covers."""
    return made_up("summary", text)


def with_summary(blocks: Sequence[Block], kept: Sequence[Message], text: str) -> list[Block]:
    """A view with the summary behind what the summary keeps."""
    ids = {message.message_id for message in kept}
    places = [index for index, block in enumerate(blocks) if block.key in ids]
    behind = places[-1] + 1 if places else len(staying_before(blocks))
    return [*blocks[:behind], summary(text), *blocks[behind:]]


def made_up(name: str, text: str) -> Block:
    """A system message that stands in a view only."""
    messages = (Message(role="system", content=text, message_id=MARK + name),)
    return Block(messages, messages, complete=True, role="system")


def is_made_up(message: Message) -> bool:
    """Whether a view made this message up, so that it is never to be stored."""
    return message.message_id.startswith(MARK)


def in_order(blocks: Sequence[Block], chosen: Sequence[Block]) -> list[Block]:
    """The chosen blocks in the conversation's order."""
    wanted = {block.key: block for block in chosen}
    return [wanted[block.key] for block in blocks if block.key in wanted]


def messages_of(blocks: Iterable[Block]) -> list[Message]:
    """The messages of these blocks, as they are shown."""
    return [message for block in blocks for message in block.messages]


def shown(blocks: Iterable[Block], form: Form | None = None) -> list[Message]:
    """The messages of a view, in the order that its form wants."""
    return (form or AS_STORED).arranged(messages_of(blocks))
