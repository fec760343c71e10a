"""How an engine uses a provider: `MemoryConfig`, and `MemorySession` for any engine or plain script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator

from jaf_memory_core.errors import MemoryConnectionError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import WriteResult
from jaf_memory_core.session import storage
from jaf_memory_core.session import views as views
from jaf_memory_core.session.leases import SessionLease
from jaf_memory_core.session.summaries import Summarize, SummarizedHistory
from jaf_memory_core.values import Value


def _provider(value: Any) -> MemoryProvider:
    if isinstance(value, MemoryProvider):
        return value
    raise ValueError(
        f"must be a memory provider with the six documented methods, not a {type(value).__name__}; "
        "if it came from an async create_… function, await that first"
    )


class MemoryConfig(Value, frozen=True, omit_defaults=True):
    """How an engine uses a provider.

    Attributes:
        provider: any object with the six documented methods.
        auto_store: whether an engine stores what a run adds.
        max_messages: how many messages an engine loads at most; the store keeps them all.
        ttl: seconds by which each store renews a conversation's expiry; `None` leaves it to the provider.
        compression_threshold: number of messages above which older ones are summarised for the model.
    """

    provider: Annotated[MemoryProvider, PlainValidator(_provider)]
    auto_store: bool = True
    max_messages: Annotated[int, Field(ge=1)] | None = None
    ttl: Annotated[float, Field(gt=0)] | None = None
    compression_threshold: Annotated[int, Field(ge=1)] | None = None


class MemorySession:
    """One conversation, as an engine or a script uses it.

        async with MemorySession(config, conversation_id="user-123:chat", user_id="user-123") as session:
            context = await session.load()          # what the model should see
            ...
            await session.record(new_messages)      # only what is new

    Args:
        config: the provider, and how it is used.
        conversation_id: 1 to 255 characters.
        user_id: the owner; without one, an erasure by user does not find the conversation.
        summarize: from older messages (valid in themselves, an earlier summary first) to a text; sync, and then it runs
            in a thread, or async. Without it, above the threshold, older messages are left out of views.
        max_tokens: how many tokens a view may cost, as `count_tokens` counts them.
        count_tokens: from a `Message` to its tokens.
        lease: seconds for which the session holds the conversation's lease, renewed as long as it is open; `None` takes
            none. Entering a session whose conversation another holds is a `MemoryConflictError`.
        lease_wait: seconds to wait for a lease that another holds.

    A view is valid for chat-completions interfaces: see `jaf_memory_core.session.views`. The store keeps
    every message as it was given.

    Raises:
        MemoryInvalidInputError: one of `max_tokens` and `count_tokens` without the other, or no seconds.
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        conversation_id: str,
        user_id: str | None = None,
        summarize: Summarize | None = None,
        max_tokens: int | None = None,
        count_tokens: views.Counter | None = None,
        lease: float | None = None,
        lease_wait: float = 0.0,
    ) -> None:
        if (max_tokens is None) != (count_tokens is None):
            raise MemoryInvalidInputError("max_tokens and count_tokens belong together; give both or neither")
        self.config = config
        self.conversation_id = conversation_id
        self._stored = storage.StoredConversation(config.provider, conversation_id, user_id, config.ttl)
        self._room = views.Room(
            math.inf if config.max_messages is None else config.max_messages,
            math.inf if max_tokens is None else max_tokens,
            count_tokens,
        )
        self._history = SummarizedHistory(self._stored, self._room, config.compression_threshold, summarize)
        self._lease = SessionLease(self._stored, lease, lease_wait) if lease is not None else None
        self._known: dict[str, Message] = {}
        self._unsaved: dict[str, Message] = {}

    def __repr__(self) -> str:
        return f"<MemorySession of {self.conversation_id!r}>"

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the provider does not offer of all that a session can use, in plain sentences."""
        return self._stored.lacks

    @property
    def unsaved(self) -> tuple[Message, ...]:
        """What was recorded and not yet stored, because `auto_store` is off."""
        return tuple(self._unsaved.values())

    async def __aenter__(self) -> Self:
        self._stored.tell_lacks()
        if self._lease is not None:
            await self._lease.enter()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            await self._lease.leave()

    async def load(self) -> list[Message]:
        """What the model should see: a valid view within the limits, with what was recorded and not yet stored.

        Raises:
            MemoryConnectionError: the store could not be reached.
        """
        found = await self._history.read()
        self._known = {message.message_id: message for message in found.messages}
        return self._history.view(found, self.unsaved)

    async def record(self, messages: Sequence[Message]) -> WriteResult | None:
        """Add what is new of these messages, in order: what was loaded or recorded before is known by its `message_id`.

        The conversation is made when there is none; one that was there when it was loaded, and was deleted since, is
        not made again. Cancelled, it finishes what it began to store, within the provider's deadline. With
        `auto_store=False` nothing is written until `save()`.

        Args:
            messages: whatever the turn has brought so far; a whole list that begins with the view will do, too.

        Returns:
            What the store answered; `None` when nothing was written.

        Raises:
            MemoryError: the store refused, could not be reached, or the lease was lost; see `append_messages`.
        """
        for message in self._stored.checked(messages):
            known = self._known.get(message.message_id) or self._unsaved.get(message.message_id)
            if not views.is_made_up(message) and known != message:
                self._unsaved[message.message_id] = message
        return await self.save() if self.config.auto_store else None

    async def save(self) -> WriteResult | None:
        """Store what was recorded and is not stored yet; `None` when there is nothing.

        Raises:
            MemoryError: as `record`. What was refused is in `unsaved` no longer; what could not be sent still is.
        """
        if not self._unsaved:
            return None
        if self._lease is not None:
            await self._lease.confirm()
        return await storage.finished(self._save(dict(self._unsaved)))

    async def _save(self, batch: dict[str, Message]) -> WriteResult:
        try:
            result = await self._stored.append(tuple(batch.values()))
            self._known.update(batch)
        except MemoryConnectionError:
            batch = {}  # to be tried again: a message that did get there is not added twice
            raise
        finally:
            for key in batch:
                self._unsaved.pop(key, None)
        return result
