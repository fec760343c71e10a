"""Items of the OpenAI Agents SDK as messages, and back as they were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from jaf_memory_bridges.given import ROLES, given_of, said, translated
from jaf_memory_core import MemoryInvalidInputError, Message
from jaf_memory_core.session.blocks import GIVEN

ENGINE = "openai-agents"


def to_message(item: Mapping[str, Any]) -> Message:
    """A message that says what an item says, and from which `to_items` makes the item again.

    Nearly every item is a message as it stands: the Responses interface's own have a place in the core. Of others, with
    a `null` or a part that we read otherwise, the item stays beside it whole.

    Raises:
        MemoryInvalidInputError: it holds what JSON cannot.
    """
    if "message_id" not in item:
        try:
            message = Message(**item)
        except MemoryInvalidInputError:
            pass
        else:
            if _is_item(message) and _item(message) == item:
                return message
    role, kind, content = item.get("role"), item.get("type"), item.get("content")
    who = {"role": role} if role in ROLES else {"type": kind if isinstance(kind, str) else "item"}
    least = {**who, "content": content if isinstance(content, str) else None}
    filled = {name: value for name, value in item.items() if value is not None and name != "message_id"}
    return said(ENGINE, item, filled, least)


def to_items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The items that messages were made of; those of another engine as the SDK would have them."""
    items: list[dict[str, Any]] = []
    for own, run in groupby(messages, _is_item):
        if own:
            items.extend(map(_item, run))
        else:
            items.extend(translated(run, "responses"))
    return items


def _is_item(message: Message) -> bool:
    """Whether a message stands as an item does; those of chat interfaces have calls in them, and results of a role."""
    if GIVEN in message.further:
        return given_of(ENGINE, message) is not None
    return message.role is None or (message.tool_calls is None and message.role not in ("tool", "function"))


def _item(message: Message) -> dict[str, Any]:
    given = given_of(ENGINE, message)
    if given is not None:
        return given
    fields = message.dict()
    del fields["message_id"]
    return fields
