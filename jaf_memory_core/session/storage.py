"""What a session does with its provider: reading, appending, the conversation's expiry.

A provider with just the six documented methods will do; what it does not offer is said, not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.conversations import LONGEST_TTL, CondensedConversation, Lease, MessagePage, Summary
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.errors import MemoryNotFoundError as NotFound
from jaf_memory_core.hits import MessageHits, MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.protocol import ManagedMemoryProvider, MemoryProvider
from jaf_memory_core.results import Failure, WriteResult
from jaf_memory_core.validation import checked_id, checked_ttl

logger = logging.getLogger("jaf_memory_core")

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for which a cancelled caller waits for a provider that keeps no deadline itself."""

LACKING = {
    "create": "append_messages(create=True): two sessions that begin one conversation at once may lose a turn",
    "set_expiry": "set_expiry: the session's ttl has no effect",
    "get_condensed_conversation": "get_condensed_conversation: summaries are made, and not kept",
    "revise_messages": "revise_messages: a growing answer is stored when it is finished, and not before",
    "acquire_lease": "acquire_lease: a session of this provider cannot hold a lease",
    "search_messages": "search_messages: a session of this provider cannot search",
}
"""What a session can use beyond the six documented methods, and what happens without it."""


def checked_seconds(value: Any, what: str, *, none: bool = False) -> float:
    """Seconds above 0; `none`: or 0.

    Raises:
        MemoryInvalidInputError: something else was given.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (0 < value <= LONGEST_TTL or (none and value == 0)):
        return float(value)
    given = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
    raise MemoryInvalidInputError(f"{what} must be seconds {'from' if none else 'above'} 0, not {given}")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Let work come to its end even if the caller is cancelled meanwhile; the cancellation goes on afterwards."""
    task = _begun(work)
    if task.done():
        return task.result()
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ends = time.monotonic() + PATIENCE
        while not task.done() and time.monotonic() < ends:
            with contextlib.suppress(asyncio.CancelledError):  # it is passed on below
                await asyncio.wait({task}, timeout=ends - time.monotonic())
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # it is known; the caller is past hearing of it
        raise


def _begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for the work, begun at once where Python can do that: what waits for nothing is then done already."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(work)


class Excerpt(Struct, frozen=True):
    """What was read of a conversation.

    Attributes:
        messages: the newest, without a gap.
        before: position of the first of them, where there are older ones; else `None`.
        unread: how many older ones no summary covers; `None` where nobody counted.
        summary: what covers the others.
        leading: the first messages of the conversation, where there are older ones; none of those that were read.
        count: how many messages are stored, where that was asked for.
        incarnation, version: of the conversation, where they were asked for.
    """

    messages: tuple[Message, ...]
    before: int | None = None
    unread: int | None = None
    summary: Summary | None = None
    count: int = 0
    incarnation: str = ""
    version: int = 0
    leading: tuple[Message, ...] = ()


class StoredConversation:
    """One conversation in its provider.

    Attributes:
        provider: the provider.
        conversation_id: the conversation's id.
        knows_leading: whether the provider brings the first messages along with the newest.
    """

    def __init__(self, provider: MemoryProvider, conversation_id: str, user_id: str | None, ttl: float | None) -> None:
        self.provider = cast("ManagedMemoryProvider", provider)
        self.conversation_id = checked_id(conversation_id, "conversation_id")
        self._user_id = None if user_id is None else checked_id(user_id, "user_id")
        self._ttl = checked_ttl(ttl)
        self._keywords = _keywords(provider.append_messages)
        self.knows_leading = brings_leading(provider)
        self._found = False
        self._expires = ttl is None

    def of(self, conversation_id: str) -> StoredConversation:
        """Another conversation of the same owner, in the same provider."""
        return StoredConversation(self.provider, conversation_id, self._user_id, self._ttl)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the provider does not offer, in plain sentences."""
        return tuple(text for name, text in LACKING.items() if not self.offers(name))

    def offers(self, name: str) -> bool:
        """Whether the provider has a method, or `append_messages` the keyword `create`."""
        return "create" in self._keywords if name == "create" else callable(getattr(self.provider, name, None))

    def tell_lacks(self) -> None:
        """Log once what the provider does not offer."""
        for text in self.lacks:
            logger.info("provider %s has no %s", type(self.provider).__name__, text)

    def checked(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages, if they are some.

        Raises:
            MemoryInvalidInputError: something else was given.
        """
        if not isinstance(messages, list | tuple) or not all(isinstance(one, Message) for one in messages):
            raise MemoryInvalidInputError("record takes a list of Message objects; make one with Message(**data)")
        return messages

    @property
    def pages(self) -> bool:
        """Whether the provider gives a conversation in pages."""
        return self.offers("get_messages") and self.offers("get_condensed_conversation")

    async def read(self, *, condensed: bool) -> Excerpt | None:
        """The conversation as it stands; `condensed`: without what a stored summary covers."""
        if condensed and self.offers("get_condensed_conversation"):
            return self._excerpt(await self.provider.get_condensed_conversation(self.conversation_id))
        conversation = await self.provider.get_conversation(self.conversation_id)
        return self._excerpt(None if conversation is None else CondensedConversation(conversation))

    async def newest(self, limit: int, *, leading: int, condensed: bool) -> Excerpt | None:
        """The newest messages, and the first ones: in one call of a provider that knows of that.

        Args:
            limit: how many of the newest at most.
            leading: how many of the first.
            condensed: whether the summary and the count are asked for; without them, one small page is read.
        """
        at_once = self.knows_leading
        asked = {"leading": leading} if at_once else {}
        if condensed or (self._ttl is not None and not self._expires):
            found = await self.provider.get_condensed_conversation(self.conversation_id, limit=limit, **asked)
            excerpt = self._excerpt(found)
        else:
            try:
                page = await self.provider.get_messages(self.conversation_id, limit=limit, **asked)
            except NotFound:
                self._found = False
                return None
            self._found = True
            excerpt = Excerpt(page, page.before, leading=page.leading if at_once else ())
        if at_once or excerpt is None or excerpt.before is None or excerpt.summary is not None:
            return excerpt
        end = min(leading, excerpt.before)
        return replace(excerpt, leading=tuple(await self.page(end, end)))

    async def page(self, before: int, limit: int) -> MessagePage:
        """The messages before that position."""
        return await self.provider.get_messages(self.conversation_id, before=before, limit=limit)

    def _excerpt(self, found: CondensedConversation | None) -> Excerpt | None:
        self._found = found is not None
        if found is None:
            self._expires = self._ttl is None
            return None
        conversation = found.conversation
        self._expires = self._ttl is None or conversation.ttl == self._ttl
        count = conversation.message_count or 0
        return Excerpt(
            conversation.messages,
            found.before,
            found.unread,
            found.summary,
            count,
            conversation.incarnation,
            conversation.version or 0,
            # An author's own class may be older than the field.
            getattr(found, "leading", ()),
        )

    async def keep(self, summary: Summary, incarnation: str, version: int) -> bool:
        """Keep a summary of what stood in that state.

        Raises:
            MemoryConflictError: the state is another one; from an author's own class that knows no versions, never.
        """
        known = "expected_version" in _keywords(self.provider.store_summary)
        asked = {"expected_version": version} if known else {}
        return await self.provider.store_summary(self.conversation_id, summary, incarnation, **asked)

    async def acquire(self, seconds: float, token: str) -> Lease:
        """Take the conversation's lease under a token that the caller chose."""
        return await self.provider.acquire_lease(self.conversation_id, seconds, user_id=self._user_id, token=token)

    async def append(self, messages: tuple[Message, ...]) -> WriteResult:
        """Store new messages; make the conversation, unless it was there before.

        Raises:
            MemoryError: what the provider refused with, or raised.
        """
        # Before the append: a process that is killed in between leaves no messages that outlive their time.
        if self._found and not self._expires and self.offers("set_expiry"):
            await self.provider.set_expiry(self.conversation_id, self._ttl)
            self._expires = True
        result = await self._appended(messages)
        self._found = True
        if not self._expires and self.offers("set_expiry"):
            # At version 1 this append has made it, and given it the ttl.
            if result.version > 1 or "ttl" not in self._keywords:
                await self.provider.set_expiry(self.conversation_id, self._ttl)
            self._expires = True
        return result

    async def revise(self, revised: Mapping[str, Message]) -> int:
        """Put messages into the places of others, by their ids."""
        return await self.provider.revise_messages(self.conversation_id, revised)

    async def search(self, text: str, *, everywhere: bool, asked: Mapping[str, Any]) -> MessageHits:
        """Messages of the conversation, or of all of its owner's, that say a text.

        Raises:
            MemoryInvalidInputError: the provider cannot search, or nobody owns the conversation.
        """
        if not self.offers("search_messages"):
            raise MemoryInvalidInputError(f"{type(self.provider).__name__} has no {LACKING['search_messages']}")
        if everywhere and self._user_id is None:
            raise MemoryInvalidInputError("a session without a user_id searches its own conversation, and no other")
        where = None if everywhere else self.conversation_id
        search = MessageSearch(text, user_id=self._user_id, conversation_id=where, **asked)
        return await self.provider.search_messages(search)

    async def _appended(self, messages: tuple[Message, ...]) -> WriteResult:
        metadata: dict[str, Any] | None = None if self._user_id is None else {"user_id": self._user_id}
        asked: dict[str, Any] = {}
        if "user_id" in self._keywords:
            asked["user_id"] = self._user_id
        # Not once it was found: deleted since, it must not be made again by a turn under way (docs/decisions/0009).
        create = "create" in self._keywords and not self._found
        if create:
            asked["create"] = True
        if create and "ttl" in self._keywords:
            asked["ttl"] = self._ttl
        labels = None if "user_id" in asked else metadata
        result = await self.provider.append_messages(self.conversation_id, list(messages), labels, **asked)
        missing = isinstance(result, Failure) and isinstance(result.error, NotFound)
        # `store_messages` replaces what stands: it is for a conversation that nobody has made yet.
        if missing and not self._found and not create:
            result = await self.provider.store_messages(self.conversation_id, list(messages), metadata)
        if isinstance(result, Failure):
            raise result.error
        return result.data


def brings_leading(provider: MemoryProvider) -> bool:
    """Whether a provider brings the first messages along with the newest."""
    page, condensed = getattr(provider, "get_messages", None), getattr(provider, "get_condensed_conversation", None)
    return "leading" in _keywords(page) and "leading" in _keywords(condensed)


def _keywords(method: Callable[..., Any] | None) -> frozenset[str]:
    return _parameters(getattr(method, "__func__", method))


@lru_cache(maxsize=64)  # a session is made for every turn, and asks each time
def _parameters(function: Callable[..., Any] | None) -> frozenset[str]:
    if function is None:
        return frozenset()
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a callable that tells nothing about itself
        return frozenset()
