"""How an engine uses a provider: `MemoryConfig`, and `MemorySession` for any engine or plain script."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, Self

from msgspec.structs import replace
from pydantic import Field, PlainValidator

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryConnectionError, MemoryInvalidInputError
from jaf_memory_core.hits import MessageHits
from jaf_memory_core.messages import Message, Role
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.results import WriteResult
from jaf_memory_core.session import reconciliation, storage, views
from jaf_memory_core.session.drafts import Draft, DraftStore
from jaf_memory_core.session.formats import ViewFormat, checked_format, request_of
from jaf_memory_core.session.leases import SessionLease
from jaf_memory_core.session.reconciliation import Edited, Reconciliation
from jaf_memory_core.session.room import Counter, Room
from jaf_memory_core.session.summaries import Compression, Summarize
from jaf_memory_core.validation import checked_text
from jaf_memory_core.values import Value

logger = logging.getLogger("jaf_memory_core")


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

    Example:
        config = MemoryConfig(provider=provider, max_messages=50, compression_threshold=100)
    """

    provider: Annotated[MemoryProvider, PlainValidator(_provider)]
    auto_store: bool = True
    max_messages: Annotated[int, Field(ge=1)] | None = None
    ttl: Annotated[float, Field(gt=0)] | None = None
    compression_threshold: Annotated[int, Field(ge=1)] | None = None


class MemorySession:
    """One conversation, as an engine or a script uses it.

    Args:
        config: the provider, and how it is used.
        conversation_id: 1 to 255 characters.
        user_id: the owner; without one, an erasure by user does not find the conversation.
        summarize: from older messages (valid in themselves, an earlier summary first) to a text; sync, and then it runs
            in a thread, or async. Without it, above the threshold, older messages are left out of views.
        summarize_timeout: seconds that `summarize` may take. One that fails, takes longer, or gives nothing or too much
            leaves the view without a summary, and is not asked again for a while.
        view_format: whose rules a view keeps: `"chat"` (chat-completions), `"anthropic"` or `"responses"`, whatever
            the messages come from; when absent, those of the interface that they come from.
        id_from: a field of the senders', such as `"id"`, that serves as `message_id` of what is recorded.
        max_tokens: how many tokens a view may cost, as `count_tokens` counts them.
        count_tokens: from a `Message` to its tokens.
        lease: seconds for which the session holds the conversation's lease, renewed as long as it is open; `None` takes
            none. Entering a session whose conversation another holds is a `MemoryConflictError`.
        lease_wait: seconds to wait for a lease that another holds.

    A view is valid for its endpoint: see `jaf_memory_core.session.views`. The store keeps every message as
    it was given.

    Raises:
        MemoryInvalidInputError: one of `max_tokens` and `count_tokens` without the other, no seconds, no such format.

    Example:
        config = MemoryConfig(provider=provider, max_messages=50)
        async with MemorySession(config, conversation_id="user-123:chat", user_id="user-123") as session:
            view = await session.load()  # what the model should see
            turn = [Message("user", "And when?"), Message("assistant", "On Thursday.")]
            await session.record([*view, *turn])  # only what is new is stored
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        conversation_id: str,
        user_id: str | None = None,
        summarize: Summarize | None = None,
        summarize_timeout: float = 60.0,
        view_format: ViewFormat | None = None,
        id_from: str | None = None,
        max_tokens: int | None = None,
        count_tokens: Counter | None = None,
        lease: float | None = None,
        lease_wait: float = 0.0,
    ) -> None:
        _check(config, max_tokens, count_tokens, summarize, summarize_timeout)
        storage.checked_seconds(lease_wait, "lease_wait", none=True)
        self.config = config
        self.conversation_id = conversation_id
        self._format = checked_format(view_format)
        self._id_from = None if id_from is None else checked_text(id_from, "id_from")
        self._stored = storage.StoredConversation(config.provider, conversation_id, user_id, config.ttl)
        self._compression = Compression(
            self._stored,
            Room(
                math.inf if config.max_messages is None else config.max_messages,
                math.inf if max_tokens is None else max_tokens,
                count_tokens,
            ),
            config.compression_threshold,
            summarize,
            timeout=summarize_timeout,
            view_format=self._format,
        )
        self._lease = SessionLease(self._stored, lease, lease_wait) if lease is not None else None
        self._loaded: Sequence[Message] = ()
        self._view: Sequence[Message] = ()
        self._known: dict[str, Message] | None = None  # made of these where it is asked for: not every load is recorded
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
        if self._unsaved:
            logger.warning(
                "a session of conversation %r was left with %d messages that were recorded and not stored; call save()",
                self.conversation_id,
                len(self._unsaved),
            )
        if self._lease is not None:
            await self._lease.leave()

    async def load(self) -> list[Message]:
        """What the model should see: a valid view within the limits, with what was recorded and not yet stored.

        Raises:
            MemoryConnectionError: the store could not be reached.
        """
        found = await self._compression.read()
        self._loaded, self._known = found.messages, None
        view = self._compression.view(found, self.unsaved if self._unsaved else ())
        if not view and (self._loaded or self._unsaved):
            logger.warning(
                "the view of conversation %r is empty: not even its newest message and its newest question fit into "
                "max_messages and max_tokens",
                self.conversation_id,
            )
        self._view = tuple(view)
        return view

    def request(self, view: Sequence[Message]) -> dict[str, Any]:
        """A view as arguments for the client of its endpoint, without what that does not know.

        Returns:
            `messages` for chat-completions; `messages`, and `system` where there is any, for Anthropic; `input` for the
            Responses interface.
        """
        return request_of(self._stored.checked(view), self._format or "chat")

    async def record(self, messages: Sequence[Message]) -> WriteResult | None:
        """Add what is new of these messages, in order: what was loaded or recorded before is known by its `message_id`.

        The conversation is made when there is none; one that was there when it was loaded, and was deleted since, is
        not made again. Cancelled, it finishes what it began to store, within the provider's deadline. With
        `auto_store=False` nothing is written until `save()`.

        Args:
            messages: whatever the turn has brought so far; a whole list that begins with the view will do, too, also
                one whose messages have lost their ids on the way through an engine.

        Returns:
            What the store answered; `None` when nothing was written.

        Raises:
            MemoryError: the store refused, could not be reached, or the lease was lost; see `append_messages`.
        """
        given = [self._identified(message) for message in self._stored.checked(messages)]
        for message in given[self._repeated(given) :]:
            if not views.is_made_up(message) and not self._knows(message):
                self._unsaved[message.message_id] = message
        return await self.save() if self.config.auto_store else None

    def _identified(self, message: Message) -> Message:
        own = reconciliation.own_id(message, self._id_from)
        return message if own in (None, message.message_id) else replace(message, message_id=own)

    def _known_by_id(self) -> dict[str, Message]:
        """What is known to be stored."""
        if self._known is None:
            self._known = {message.message_id: message for message in self._loaded}
        return self._known

    def _knows(self, message: Message) -> bool:
        key = message.message_id
        places = (self._known_by_id(), self._unsaved)
        same = [place[key] for place in places if key in place]
        same += [one for one in self._view if one.message_id == key]
        return any(one is message or _equal(one, message) for one in same)

    def _repeated(self, given: Sequence[Message]) -> int:
        """How many messages at the beginning of a list are the view that was loaded, under other ids."""
        view = self._view
        if not view or len(given) <= len(view):
            return 0
        shown = {one.message_id for one in view}
        if any(one.message_id in shown for one in given):
            return 0
        pairs = zip(given, view, strict=False)
        contents = (
            (reconciliation.content_of(one.dict()), reconciliation.content_of(other.dict())) for one, other in pairs
        )
        return len(view) if all(one == other for one, other in contents) else 0

    async def reconcile(
        self, messages: Sequence[Message | Mapping[str, Any]], *, edited: Edited = "refuse", id_from: str | None = None
    ) -> Reconciliation:
        """Take the whole list that a client or an engine sends, and store what of it is new.

        The list is laid over what is stored: what goes on behind it is appended; the same list twice adds nothing.
        Messages are known by their ids, and by what they say where they have none.

        Args:
            messages: `Message`s or plain dicts, from the first one on, or from the view that was loaded.
            edited: of a list in which a stored message reads otherwise: `"refuse"` raises; `"revise"` puts the edited
                message into its place, and, where the list goes on otherwise too, all of the list from there on;
                `"fork"` leaves the conversation as it is, and makes another one with the list.
            id_from: as the session's own.

        Returns:
            Where the list stands now, and what was written.

        Raises:
            MemoryConflictError: a stored message reads otherwise, and `edited` is `"refuse"`.
            MemoryError: as `record`.

        Example:
            config = MemoryConfig(provider=provider)
            session = MemorySession(config, conversation_id="user-123:chat", user_id="user-123")
            sent = [*await session.load(), {"role": "user", "content": "And when?"}]
            await session.reconcile(sent)
        """
        own_id = self._id_from if id_from is None else checked_text(id_from, "id_from")
        given = reconciliation.given_of(messages, own_id)
        how = reconciliation.checked_edited(edited)
        if self._lease is not None:
            await self._lease.confirm()
        done = await storage.finished(reconciliation.reconciled(self._stored, given, self._view, how))
        # What the list has changed is not known here: the next `load` reads it.
        self._loaded, self._known, self._view = (), None, ()
        return done

    async def search(
        self,
        text: str,
        *,
        everywhere: bool = False,
        roles: Sequence[Role] | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> MessageHits:
        """Stored messages of the conversation that say `text`, the newest first, whether a view shows them or not.

        Args:
            text: as of a `MessageSearch`.
            everywhere: of all conversations of the session's user.
            roles: only of these.
            limit: at most so many.
            cursor: of the page before.

        Raises:
            MemoryInvalidInputError: there is no word in the text; or `everywhere` in a session without a `user_id`.
        """
        asked = {"roles": roles, "limit": limit, "cursor": cursor}
        return await self._stored.search(text, everywhere=everywhere, asked=asked)

    def draft(self, *, interval: float = 1.0, **fields: Any) -> Draft:
        """A growing answer, kept while it is streamed; see `Draft`.

        Args:
            interval: seconds between two writes.
            fields: of the message, beside its text; its role is assistant unless another one is given.
        """
        revise = self._revise if self.config.auto_store and self._stored.offers("revise_messages") else None
        return Draft(DraftStore(lambda message: self.record([message]), revise), interval, fields)

    async def _revise(self, message: Message) -> None:
        if self._lease is not None:
            await self._lease.confirm()
        await storage.finished(self._stored.revise({message.message_id: message}))
        self._known_by_id()[message.message_id] = message

    async def save(self) -> WriteResult | None:
        """Store what was recorded and is not stored yet; `None` when there is nothing.

        Raises:
            MemoryError: as `record`. What was refused is in `unsaved` no longer; what could not be sent still is.
        """
        if not self._unsaved:
            return None
        if self._lease is not None:
            await self._lease.confirm()
        # A copy: what is recorded while this is under way must not be dropped along with it.
        return await storage.finished(self._save(dict(self._unsaved)))

    async def _save(self, batch: dict[str, Message]) -> WriteResult:
        try:
            result = await self._stored.append(tuple(batch.values()))
            self._known_by_id().update(batch)
        except MemoryConnectionError:
            batch = {}  # to be tried again: a message that did get there is not added twice
            raise
        finally:
            # What was refused would be refused again, and hold up all that comes behind it.
            for key in batch:
                self._unsaved.pop(key, None)
        return result


def _equal(one: Message, other: Message) -> bool:
    """Whether two messages are equal in every value: 1, 1.0 and true differ."""
    return one == other and codec.canonical(one.dict()) == codec.canonical(other.dict())


def _check(config: Any, max_tokens: Any, count_tokens: Any, summarize: Any, summarize_timeout: Any) -> None:
    if not isinstance(config, MemoryConfig):
        raise MemoryInvalidInputError(f"a session takes a MemoryConfig(provider=...), not a {type(config).__name__}")
    if (max_tokens is None) != (count_tokens is None):
        raise MemoryInvalidInputError("max_tokens and count_tokens belong together; give both or neither")
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        given = repr(max_tokens) if isinstance(max_tokens, int | float) else f"a {type(max_tokens).__name__}"
        raise MemoryInvalidInputError(f"max_tokens must be a whole number from 1, not {given}")
    for name, function in (("count_tokens", count_tokens), ("summarize", summarize)):
        if function is not None and not callable(function):
            raise MemoryInvalidInputError(f"{name} must be a function, not a {type(function).__name__}")
    storage.checked_seconds(summarize_timeout, "summarize_timeout")
