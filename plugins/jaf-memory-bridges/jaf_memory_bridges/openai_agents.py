"""The OpenAI Agents SDK on any jaf-memory provider: a `Session` whose items are messages.

    session = JafMemorySession("user-123:chat", provider, user_id="user-123")
    result = await Runner.run(agent, "Hello!", session=session)

What the SDK stores comes back as it was given, and is a conversation like any other: `MemorySession` makes views of it,
`jaf-memory show` prints it, an export or an erasure of its user takes it along.

A compaction by the SDK's `OpenAIResponsesCompactionSession` around this session replaces items in one write.

One thing is the SDK's own doing, whatever stores its items. It hands over items without ids that would tell a
repetition from a second saying of the same, so that only `add_items` itself is safe against a lost answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jaf_memory_bridges import extras

extras.require("openai-agents", module="agents", distribution="openai-agents", versions=">=0.24,<1")

# Without the SDK, the line above says what to do.
from agents.memory.session_settings import SessionSettings, coerce_session_settings, resolve_session_limit

from jaf_memory_bridges.given import ROLES, given_of, said, translated
from jaf_memory_bridges.providers import appended, checked
from jaf_memory_core import (
    ConversationMemory,
    Failure,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryProvider,
    Message,
)
from jaf_memory_core.session.blocks import GIVEN

__all__ = ["JafMemorySession", "to_items", "to_message"]


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


@dataclass(frozen=True)
class Snapshot:
    """The newest items, and what puts others in the place of the last of them, as the SDK's compaction asks for it.

    Attributes:
        items: oldest first.
        complete: whether there are no older ones.
        replace_suffix: takes how many of the items stay, and what follows them; `False` where all of them stay, or
            somebody else has written meanwhile, and then nothing has changed.
    """

    items: list[Any]
    complete: bool
    replace_suffix: Callable[[int, list[Any]], Awaitable[bool]]


class JafMemorySession:
    """A session of the OpenAI Agents SDK: one conversation of a jaf-memory provider.

    Any number of processes may use one conversation at once: a batch of items stays together, and an item is popped by
    one of them only. Closing is the provider's business.

    Args:
        session_id: the conversation's id.
        provider: any provider over a backend, on whichever store.
        user_id: the owner. With it the session sees and writes that user's conversation only, and an erasure of the
            user takes it along.
        session_settings: the SDK's settings, `limit` for one, or a dict of them.

    Attributes:
        session_id: as it was given.
        session_settings: as the SDK reads and replaces them.

    Raises:
        MemoryInvalidInputError: this is no async provider of jaf-memory, or no user id.
        MemoryConfigurationError: the provider lacks what is needed.
    """

    def __init__(
        self,
        session_id: str,
        provider: MemoryProvider,
        *,
        user_id: str | None = None,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = coerce_session_settings(session_settings or {})
        self._provider = checked(provider, user_id, "get_condensed_conversation", "truncate_conversation_after")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._provider!r}>"

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """The items, oldest first; the newest `limit`, or as many as `session_settings` says.

        A limit reads no more than it shows, however long the conversation is.
        """
        most = resolve_session_limit(limit, self.session_settings)
        if most is None:
            found = await self._provider.get_conversation(self.session_id)
            return to_items(found.messages) if found is not None else []
        try:
            messages = await self._provider.get_recent_messages(self.session_id, max(0, most))
        except MemoryNotFoundError:
            return []
        return to_items(messages)

    async def add_items(self, items: Sequence[Any]) -> None:
        """Add items: all or nothing, side by side, and once each, also where an answer of the store was lost.

        Raises:
            MemoryError: the store refused, or could not be reached.
        """
        if items:
            await appended(self._provider, self.session_id, [to_message(item) for item in items])

    async def pop_item(self) -> Any:
        """Remove the newest item and return it; `None` where there is none.

        Of several who pop at once each gets another one, and what is added meanwhile stays.
        """
        while True:
            try:
                found = await self._provider.get_condensed_conversation(self.session_id, 1)
                if found is None or not found.conversation.message_count:
                    return None
                # A summary may stand in the place of the newest message, too.
                shown = found.conversation.messages or await self._provider.get_recent_messages(self.session_id, 1)
                if shown and await self._provider.truncate_conversation_after(
                    self.session_id, shown[-1].message_id, expected_version=found.conversation.version
                ):
                    # Alone, a result that another engine has stored is no item.
                    return (to_items(shown[-1:]) or [shown[-1].dict()])[-1]
            except (MemoryConflictError, MemoryNotFoundError):  # somebody came between: look again
                continue

    async def clear_session(self) -> None:
        """Delete the conversation; nothing of it remains."""
        await self._provider.delete_conversation(self.session_id)

    async def _atomic_replace_items(self, items: Sequence[Any]) -> bool:
        """Put items in the place of all, in one write: what the SDK's compaction does where a session has this.

        Returns:
            `False` in a subclass, which may do more in `add_items`: then the SDK clears and adds.
        """
        if type(self) is not JafMemorySession:
            return False
        result = await self._provider.store_messages(self.session_id, [to_message(item) for item in items])
        result.unwrap()
        return True

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[Any], bool] | None = None
    ) -> Snapshot | None:
        """The newest items, for a compaction that replaces the last of them only, in one write.

        Args:
            limit: at most so many.
            prune_prefix: which of the oldest items go as well, up to the first that does not.

        Returns:
            `None` where items are not one message each, as those of another engine, and in a subclass: then the SDK
            reads them itself.
        """
        if type(self) is not JafMemorySession:
            return None
        found = await self._provider.get_conversation(self.session_id)
        if found is None:
            return Snapshot([], complete=True, replace_suffix=_changed)
        shown = found.messages[-limit:]
        items = to_items(shown)
        if len(items) != len(shown) or [to_items([one]) for one in shown] != [[item] for item in items]:
            return None

        async def replace_suffix(start: int, output: list[Any]) -> bool:
            if start >= len(shown):
                return False  # there is nothing whose place it could take
            return await self._replaced(found, len(found.messages) - len(shown) + start, output, prune_prefix)

        return Snapshot(items, len(shown) == len(found.messages), replace_suffix)

    async def _replaced(
        self, found: ConversationMemory, start: int, output: list[Any], prune: Callable[[Any], bool] | None
    ) -> bool:
        kept = found.messages[:start]
        begin = 0
        while prune is not None and begin < start and all(map(prune, to_items(kept[begin : begin + 1]))):
            begin += 1
        messages: list[Message] = [*kept[begin:], *(to_message(item) for item in output)]
        result = await self._provider.store_messages(self.session_id, messages, expected_version=found.version)
        if isinstance(result, Failure) and isinstance(result.error, MemoryConflictError | MemoryNotFoundError):
            return False
        result.unwrap()
        return True


async def _changed(_start: int, _output: list[Any]) -> bool:
    return False
