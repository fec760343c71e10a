"""Whole lists: what a client or an engine sends, laid over what is stored, and what of it is new."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.results import WriteResult
from jaf_memory_core.session.blocks import MARK, hashed
from jaf_memory_core.session.storage import StoredConversation

NAMESPACE = uuid.UUID("5b0cbf0e-7f6c-5e0e-9d5c-2f6c3b7f4a11")

Edited = Literal["refuse", "revise", "fork"]
"""What becomes of a list in which a stored message reads otherwise."""


class Reconciliation(Struct, frozen=True):
    """What has become of a whole list.

    Attributes:
        conversation_id: where it stands now: the session's conversation, or the fork.
        added, revised: how many messages.
        result: what the store answered to the last write; `None` where nothing was written.
    """

    conversation_id: str
    added: int = 0
    revised: int = 0
    result: WriteResult | None = None


class Given(Struct, frozen=True):
    """A message of the list.

    Attributes:
        fields: as they were given, without an id.
        message_id: the id that it was given, or `None`.
    """

    fields: Mapping[str, Any]
    message_id: str | None

    def same(self, stored: Message) -> bool:
        """Whether it says what a stored message says; fields that hold nothing count as absent."""
        return content_of(self.fields) == content_of(stored.dict())

    def message(self, message_id: str) -> Message:
        """The message under an id."""
        return Message(**{**self.fields, "message_id": self.message_id or message_id})


class Overlap(Struct, frozen=True):
    """How a list lies over what is stored.

    Attributes:
        place: place in the list from which on it differs, or has more.
        stored: the messages from there on, of those that are stored.
    """

    place: int
    stored: tuple[Message, ...]


def given_of(messages: Any, id_from: str | None) -> list[Given]:
    """The messages of a list, as dicts or as `Message`s.

    Args:
        messages: the list.
        id_from: a field of the sender's that serves as `message_id` where there is none.

    Raises:
        MemoryInvalidInputError: something else was given, or what is no message.
    """
    if not isinstance(messages, list | tuple):
        raise MemoryInvalidInputError(f"messages must be a list of Messages or dicts, not a {type(messages).__name__}")
    given = []
    for place, one in enumerate(messages):
        if not isinstance(one, Message | Mapping):
            raise MemoryInvalidInputError(f"messages[{place}] must be a Message or a dict, not a {type(one).__name__}")
        message_id = own_id(one, id_from)
        message = one if isinstance(one, Message) else Message(**{**one, "message_id": message_id})
        fields = message.dict()
        del fields["message_id"]
        given.append(Given(fields, message_id))
    return given


def own_id(one: Message | Mapping[str, Any], id_from: str | None) -> str | None:
    """The id that a sender gave a message: its `message_id`, or the field that serves as one."""
    fields: Mapping[str, Any] = one.further if isinstance(one, Message) else one
    if id_from is not None and isinstance(fields.get(id_from), str) and fields[id_from]:
        found: str = fields[id_from]
        return found
    if isinstance(one, Message):
        return one.message_id
    stated = one.get("message_id")
    return None if stated is None else str(stated)


def checked_edited(value: Any) -> Edited:
    """What is to become of an edited message.

    Raises:
        MemoryInvalidInputError: neither of those that there are.
    """
    if value in get_args(Edited):
        found: Edited = value
        return found
    raise MemoryInvalidInputError(f"edited must be one of {', '.join(map(repr, get_args(Edited)))}")


def content_of(fields: Mapping[str, Any]) -> str:
    """All that a message says, in one form: without its id, and without what is empty."""
    return codec.canonical(_bare({name: value for name, value in fields.items() if name != "message_id"}))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if item is not None and item not in ([], {})}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


def overlap(given: Sequence[Given], stored: Sequence[Message], view: Sequence[Message]) -> Overlap:
    """Lay a list over what is stored: from the beginning, over the view that was loaded, or over the end.

    Args:
        given: the list.
        stored: all messages, or the newest.
        view: what was shown last; it may begin with a summary, and hold shortened messages.
    """
    ids = {message.message_id for message in stored}
    common = _common(given, stored)
    if common == len(stored) or common == len(given):
        return Overlap(common, tuple(stored[common:]))
    if view and len(given) >= len(view) and _common(given, view) == len(view):
        return Overlap(len(view), ())
    # The longest first: the same messages may stand in a conversation more than once.
    for size in range(min(len(stored), len(given)), 0, -1):
        end = stored[len(stored) - size :]
        if _is(given[0], end[0], ids) and _common(given, end) == size:
            return Overlap(size, ())
    return Overlap(common, tuple(stored[common:]))


def _common(given: Sequence[Given], others: Sequence[Message]) -> int:
    ids = {message.message_id for message in others}
    common = 0
    for one, other in zip(given, others, strict=False):
        if not _is(one, other, ids):
            break
        common += 1
    return common


def _is(one: Given, other: Message, ids: set[str]) -> bool:
    """Whether they are one message: a held id decides, and what is said where there is none."""
    if one.message_id in ids and one.message_id != other.message_id:
        return False
    return one.same(other)


def new_messages(given: Sequence[Given], first: int, conversation_id: str) -> list[Message]:
    """Messages for what is new; those without an id get one that is the same whenever the list is sent again."""
    made = []
    for place, one in enumerate(given[first:], start=first):
        if one.message_id is not None and one.message_id.startswith(MARK):
            continue
        text = f"{len(conversation_id)}:{conversation_id}:{place}:{hashed(content_of(one.fields))}"
        made.append(one.message(uuid.uuid5(NAMESPACE, text).hex))
    return made


async def reconciled(
    stored: StoredConversation, given: Sequence[Given], view: Sequence[Message], edited: Edited
) -> Reconciliation:
    """Store what of a list is new; see `MemorySession.reconcile`."""
    excerpt = await stored.read(condensed=False)
    held = () if excerpt is None else excerpt.messages
    lies = overlap(given, held, view)
    key = stored.conversation_id
    if not lies.stored or lies.place == len(given):
        fresh = new_messages(given, lies.place, key)
        result = await stored.append(tuple(fresh)) if fresh else None
        return Reconciliation(key, 0 if result is None else result.added, 0, result)
    if edited == "refuse":
        raise MemoryConflictError(
            f"message {lies.place} of the list reads otherwise than what conversation {key!r} holds there; "
            "give edited='revise' or edited='fork' to take the list as it is"
        )
    if edited == "fork":
        return await _forked(stored, given, lies)
    return await _revised(stored, given, lies)


async def _forked(stored: StoredConversation, given: Sequence[Given], lies: Overlap) -> Reconciliation:
    text = "\0".join([stored.conversation_id, *(content_of(one.fields) for one in given[: lies.place + 1])])
    new_id = uuid.uuid5(NAMESPACE, hashed(text)).hex  # the same list makes the same fork
    # What stands under that id is this very fork, which an earlier try has made.
    with contextlib.suppress(MemoryConflictError):
        await stored.provider.fork_conversation(stored.conversation_id, new_id, lies.stored[0].message_id)
    branch = stored.of(new_id)
    return await reconciled(branch, given, (), "refuse")


async def _revised(stored: StoredConversation, given: Sequence[Given], lies: Overlap) -> Reconciliation:
    rest = given[lies.place :]
    pairs = list(zip(rest, lies.stored, strict=False))
    changed = [(one, other) for one, other in pairs if not one.same(other)]
    if len(rest) >= len(lies.stored) and len(changed) == 1:
        one, other = changed[0]
        await stored.revise({other.message_id: replace(one.message(other.message_id), message_id=other.message_id)})
        done = await reconciled(stored, given, (), "refuse")
        return replace(done, revised=1)
    # A process that is killed behind this leaves the beginning; the same list, sent again, brings the rest.
    await stored.provider.truncate_conversation_after(stored.conversation_id, lies.stored[0].message_id)
    done = await reconciled(stored, given, (), "refuse")
    return replace(done, revised=len(changed))
