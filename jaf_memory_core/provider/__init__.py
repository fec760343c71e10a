"""`BackendProvider`: every public method, once, over any `Backend`."""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec.structs import replace

from jaf_memory_core import rules, validation
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import (
    ConversationMemory,
    MemoryHealth,
    MemoryQuery,
    MemoryStats,
    MessagePage,
)
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConnectionError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
)
from jaf_memory_core.guard import Guard, Observer
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain, Processor
from jaf_memory_core.provider.forks import Continuing
from jaf_memory_core.provider.imports import Importing
from jaf_memory_core.records import Amend, Origin, Page, Record, Stats, Tail, Truncate, Write, new_incarnation
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import FrozenDict

T = TypeVar("T")

PURGE_STEP = 1_000
"""Expired conversations removed by one statement, so that each stays within the deadline."""


class BackendProvider(Importing, Continuing):
    """Conversation memory over a backend: what applications hold.

    Args:
        backend: where conversations are kept.
        config: limits, caps and the deadline; the defaults when absent.
        processors: applied in this order to all that is stored, and in reverse to all that is read.
        observers: called with an `OperationEvent` after each operation; they must not block.

    `store_messages` and `append_messages` return `Success` or `Failure`; every other method returns its value or raises
    a `MemoryError`. A store that cannot be reached raises `MemoryConnectionError` from all of them. Use it as
    `async with`, or call `close()`.
    """

    def __init__(
        self,
        backend: Backend,
        config: ProviderConfig | None = None,
        *,
        processors: Sequence[Processor] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        self.backend = backend
        self.config = config or ProviderConfig()
        self._guard = Guard(backend, operation_timeout=self.config.operation_timeout, observers=observers)
        self._chain = Chain(processors)
        self._scope: str | None = None

    def __repr__(self) -> str:
        view = " for one user" if self._scope is not None else ""
        return f"<{type(self).__name__} over {self.name}{view}>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.backend.name

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> BackendProvider:
        """Connect now rather than at the first operation; returns the provider itself."""
        await self._guard.run("open", self._nothing, retry=False)
        return self

    async def _nothing(self) -> None:
        return None

    async def close(self) -> None:
        """Let go of the store. Idempotent; on a `for_user` view it does nothing."""
        if self._scope is None:
            await self._guard.close()

    def for_user(self, user_id: str) -> BackendProvider:
        """A provider that sees and writes that user's conversations only.

        Another's conversation is not found; storing one is a conflict that names nobody. Closing it closes nothing.
        """
        self._guard.check()
        scope = validation.checked_id(user_id, "user_id")
        if self._scope not in (None, scope):
            raise MemoryInvalidInputError("this is one user's view already; make another's from the whole provider")
        view = copy.copy(self)
        view._scope = scope  # noqa: SLF001  (our own copy)
        return view

    # Writing.

    async def store_messages(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        expected_version: int | None = None,
    ) -> Result:
        """Create the conversation, or replace all its messages; `created_at` stays. All or nothing.

        Args:
            conversation_id: 1 to 255 characters.
            messages: all of them, oldest first.
            metadata: merged by top-level key into what is there.
            user_id: the owner; `metadata["user_id"]` says the same.
            expected_version: refuse unless the conversation is at this version (0: does not exist).

        Returns:
            `Success(WriteResult)`, or `Failure` with a `MemoryConflictError`, `MemoryInvalidInputError` or
            `MemoryStorageError`.

        Raises:
            MemoryConnectionError: `outcome="unknown"` if the answer was lost.
        """

        def write() -> list[Write]:
            batch = validation.batch(messages, self.config, self._chain)
            return [self._write(conversation_id, batch, metadata, user_id, expected_version, replace=True, create=True)]

        return await self._result("store_messages", write, self.backend.store)

    async def append_messages(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        expected_version: int | None = None,
        create: bool = False,
        ttl: float | None = None,
    ) -> Result:
        """Add messages: contiguous, in order, atomic, and idempotent by `message_id`.

        A message whose id the conversation holds is not added again, so a retry is always safe; the same id with
        other content is a conflict, and then nothing is applied. When all are held, nothing is written.

        Args:
            conversation_id: 1 to 255 characters.
            messages: at most `max_append_messages`.
            metadata: merged by top-level key into what is there.
            user_id: the owner; `metadata["user_id"]` says the same.
            expected_version: refuse unless the conversation is at this version.
            create: make the conversation if there is none, instead of `Failure(MemoryNotFoundError)`.
            ttl: seconds for a conversation that is made; the provider's own when absent.

        Returns:
            `Success(WriteResult)` or `Failure`.

        Raises:
            MemoryConnectionError: the store could not be reached, or did not answer in time.
        """

        def write() -> list[Write]:
            batch = validation.batch(messages, self.config, self._chain, longest=self.config.max_append_messages)
            return [self._write(conversation_id, batch, metadata, user_id, expected_version, create=create, ttl=ttl)]

        return await self._result("append_messages", write, self.backend.append, repeatable=not create)

    def _write(
        self,
        conversation_id: str,
        batch: validation.Batch,
        metadata: Mapping[str, Any] | None,
        user_id: str | None,
        expected_version: int | None = None,
        *,
        replace: bool = False,
        create: bool = False,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> Write:
        labels = validation.labels(metadata, user_id, self.config, self._chain, scope=self._scope)
        if expected_version is not None:
            validation.checked_count(expected_version, "expected_version")
        return Write(
            conversation_id=validation.checked_id(conversation_id, "conversation_id"),
            messages=batch.messages,
            bodies=batch.bodies,
            metadata=labels.metadata,
            user_id=labels.user_id,
            scope=self._scope,
            replace=replace,
            create=create,
            expected_version=expected_version,
            ttl=self.config.ttl if ttl is None else validation.checked_ttl(ttl),
            max_messages=self.config.max_messages,
            dropped=batch.dropped,
            incarnation=new_incarnation() if create else "",
            origin=origin,
        )

    async def _result(
        self,
        operation: str,
        write: Callable[[], list[Write]],
        send: Callable[[Write], Awaitable[WriteResult]],
        *,
        repeatable: bool | None = None,
    ) -> Result:
        try:
            first, *further = write()
            result = await self._guard.run(operation, partial(send, first), repeatable=repeatable)
            for request in further:
                added = result.added
                result = await self._guard.run(operation, partial(send, request), repeatable=repeatable)
                result = replace(result, added=added + result.added)
            return Success(result)
        except (MemoryConnectionError, MemoryConfigurationError):
            raise
        except MemoryError as error:
            error.provider = error.provider or self.name
            return Failure(error)

    async def update_metadata(self, conversation_id: str, patch: Mapping[str, Any]) -> int:
        """Merge `patch` into the metadata by top-level key; the new version.

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: the patch names another owner.
        """
        labels = validation.labels(patch, None, self.config, self._chain)
        amend = Amend(
            validation.checked_id(conversation_id, "conversation_id"), labels.metadata, labels.user_id, self._scope
        )
        return await self._guard.run("update_metadata", lambda: self.backend.amend(amend))

    async def set_expiry(self, conversation_id: str, ttl: float | None) -> int:
        """Let the conversation expire `ttl` seconds from now, and from each later write; `None` for never.

        Returns:
            The new version.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        amend = Amend(
            validation.checked_id(conversation_id, "conversation_id"),
            scope=self._scope,
            ttl=validation.checked_ttl(ttl),
        )
        return await self._guard.run("set_expiry", lambda: self.backend.amend(amend))

    async def truncate_conversation_after(self, conversation_id: str, message_id: str) -> int:
        """Remove that message and all after it; how many (0 if there is no such message).

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        truncate = Truncate(
            validation.checked_id(conversation_id, "conversation_id"),
            validation.checked_id(message_id, "message_id"),
            self._scope,
        )
        return await self._guard.run("truncate_conversation_after", lambda: self._truncate(truncate))

    # Erasing.

    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete the conversation; `True` if it was there. Nothing of it remains."""
        key = validation.checked_id(conversation_id, "conversation_id")
        return await self._guard.run("delete_conversation", lambda: self.backend.remove(key, scope=self._scope))

    async def clear_user_conversations(self, user_id: str) -> int:
        """Delete every conversation of the user; how many. Safe beside writers, and safe to repeat."""
        user = validation.checked_id(user_id, "user_id")
        if self._scope not in (None, user):
            self._guard.check()
            return 0
        return await self._guard.run("clear_user_conversations", lambda: self.backend.forget_user(user))

    async def purge_expired(self) -> int:
        """Remove what has expired; how many conversations. Any number of processes may run it at once."""
        removed = 0
        while True:
            step = await self._guard.run("purge_expired", lambda: self.backend.purge(PURGE_STEP, scope=self._scope))
            removed += step
            if step < PURGE_STEP:
                return removed

    # Reading.

    async def get_conversation(self, conversation_id: str) -> ConversationMemory | None:
        """The whole conversation, or `None`."""
        record = await self._read("get_conversation", conversation_id)
        return self._shown(record) if record else None

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> ConversationMemory | None:
        """The conversation up to, without, that message; `None` if there is no such conversation or message."""
        validation.checked_id(message_id, "message_id")
        record = await self._read("get_conversation_until_message", conversation_id)
        for index, message in enumerate(record.messages if record else ()):
            if message.message_id == message_id and record is not None:
                return self._shown(replace(record, messages=record.messages[:index], message_count=index))
        return None

    async def _read(self, operation: str, conversation_id: str) -> Record | None:
        key = validation.checked_id(conversation_id, "conversation_id")
        record = await self._guard.run(operation, lambda: self.backend.read(key))
        return rules.seen(record, self.backend.now(), self._scope)

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        """The last `limit` messages, oldest first.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        page = await self._page("get_recent_messages", conversation_id, None, limit)
        return list(self._chain.incoming(page.messages))

    async def get_messages(self, conversation_id: str, before: int | None = None, limit: int = 50) -> MessagePage:
        """A page of at most `limit` messages, oldest first: the last ones, or the last before position `before`.

        Positions count from 0 at the first message ever stored; a page's `before` leads to the page before it.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        if before is not None:
            validation.checked_count(before, "before")
        page = await self._page("get_messages", conversation_id, before, limit)
        return MessagePage(self._chain.incoming(page.messages), before=page.first if page.more else None)

    async def _page(self, operation: str, conversation_id: str, before: int | None, limit: int) -> Page:
        key = validation.checked_id(conversation_id, "conversation_id")
        tail = Tail(key, validation.checked_count(limit, "limit"), before, self._scope)
        page = await self._guard.run(operation, lambda: self.backend.tail(tail))
        if page is None:
            raise MemoryNotFoundError(key, provider=self.name)
        return page

    async def find_conversations(self, query: MemoryQuery) -> list[ConversationMemory]:
        """Conversations that pass every filter, newest `updated_at` first, ties by id descending."""
        scoped = self._scoped(validation.checked_query(query))
        if scoped is None or scoped.limit == 0:
            self._guard.check()
            return []
        found = await self._guard.run("find_conversations", lambda: self.backend.find(scoped))
        # A store that let another user's conversation through must not show it.
        return [self._shown(_asked_for(record, scoped)) for record in found if rules.matches(record, scoped)]

    async def iter_conversations(self, query: MemoryQuery | None = None) -> AsyncGenerator[ConversationMemory, None]:
        """Conversations that pass every filter, in (`created_at`, id) order, in bounded memory.

        Misses nothing that stood throughout. The deadline counts for each conversation.
        """
        scoped = self._scoped(validation.checked_query(query if query is not None else MemoryQuery()))
        if scoped is None:
            return
        skip, left = scoped.offset, scoped.limit
        async for record in self._guard.iterate("iter_conversations", replace(scoped, offset=0, limit=None)):
            if left == 0:
                return
            if not rules.live(record, self.backend.now()) or not rules.matches(record, scoped):
                continue
            if skip:
                skip -= 1
                continue
            left = None if left is None else left - 1
            yield self._shown(_asked_for(record, scoped))

    def _scoped(self, query: MemoryQuery) -> MemoryQuery | None:
        if query.metadata is not None and self._chain:
            query = replace(query, metadata=self._chain.outgoing_metadata(query.metadata))
        if self._scope is None:
            return query
        return replace(query, user_id=self._scope) if query.user_id in (None, self._scope) else None

    def _shown(self, record: Record) -> ConversationMemory:
        if self._chain:
            record = replace(
                record,
                messages=self._chain.incoming(record.messages),
                metadata=FrozenDict(self._chain.incoming_metadata(dict(rules.applications(record.metadata)))),
            )
        shown: ConversationMemory = ConversationMemory.trusted(
            conversation_id=record.conversation_id,
            user_id=record.user_id,
            messages=record.messages,
            metadata=rules.shown_metadata(record),
            created_at=record.created_at,
            updated_at=record.updated_at,
            expires_at=record.expires_at,
            ttl=record.ttl,
            version=record.version,
            incarnation=record.incarnation,
            message_count=record.message_count,
        )
        return shown

    # Telling.

    async def get_stats(self, user_id: str | None = None) -> MemoryStats:
        """Counts over all conversations, or, with a user, over that user's."""
        user = self._scope if user_id is None else validation.checked_id(user_id, "user_id")
        if self._scope in (None, user):
            found = await self._guard.run("get_stats", lambda: self.backend.stats(user))
        else:
            self._guard.check()
            found = Stats()
        stats = MemoryStats(
            total_conversations=found.conversations,
            total_messages=found.messages,
            avg_messages_per_conversation=found.messages / found.conversations if found.conversations else 0.0,
            total_storage_size=found.size,
            oldest_conversation=found.oldest,
            newest_conversation=found.newest,
        )
        if user is not None:
            stats["user_conversations"] = found.conversations
            stats["user_messages"] = found.messages
        return stats

    async def health_check(self) -> MemoryHealth:
        """How the provider and its store are. Never raises a `MemoryError`: it answers `healthy: False`, `error`."""
        started = time.perf_counter()
        health = MemoryHealth(healthy=False, provider=self.name, latency_ms=0.0, warnings=[], metrics={}, details={})
        try:
            ping = await self._guard.run("health_check", self.backend.ping, retry=False)
        except MemoryError as error:
            health["error"] = str(error)
        else:
            health["healthy"] = True
            health["message"] = ping.message
            health["warnings"] = list(ping.warnings)
            health["details"] = dict(ping.details)
            health["metrics"] = dict(ping.metrics)
        health["metrics"].setdefault("active_connections", 0)
        health["metrics"].setdefault("memory_usage", 0)
        health["metrics"]["avg_response_time"] = self._guard.average_seconds * 1000
        health["latency_ms"] = (time.perf_counter() - started) * 1000
        return health


def _asked_for(record: Record, query: MemoryQuery) -> Record:
    # A scan may give more than was asked for.
    return record if query.include_messages or not record.messages else replace(record, messages=())


async def opened(provider: BackendProvider) -> BackendProvider:
    """Open a provider that nobody uses yet, or close it: no thread and no connection is left behind."""
    try:
        return await provider.open()
    except BaseException:
        await provider.close()
        raise
