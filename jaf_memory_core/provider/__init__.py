"""`BackendProvider`: every public method, once, over any `Backend`."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from jaf_memory_core import validation
from jaf_memory_core.conversations import HealthMetrics, MemoryHealth, MemoryStats
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.provider.base import configured as configured
from jaf_memory_core.provider.forks import Forks
from jaf_memory_core.provider.imports import Imports
from jaf_memory_core.provider.leases import Leases
from jaf_memory_core.provider.reads import Reads
from jaf_memory_core.provider.search import Searches
from jaf_memory_core.provider.summaries import Summaries
from jaf_memory_core.provider.users import Users
from jaf_memory_core.records import Amend, DeleteMessages, Stats, Truncate, Write
from jaf_memory_core.results import Result, Success

logger = logging.getLogger("jaf_memory_core")

UNSEARCHED = (
    "search=index is of no use beside processors: what they change, or seal, tells the store nothing, "
    "so that searches go through all messages; set it to scan"
)

PURGE_STEP = 1_000
"""Expired conversations removed by one statement, so that each stays within the deadline."""


class BackendProvider(Reads, Searches, Users, Imports, Forks, Leases, Summaries):
    """Conversation memory over a backend: what applications hold.

    Args:
        backend: where conversations are kept.
        config: limits, caps and the deadline; the backend's own when absent.
        processors: applied in this order to all that is stored, and in reverse to all that is read.
        observers: called with an `OperationEvent` after each operation; they must not block.

    `store_messages` and `append_messages` return `Success` or `Failure`; every other method returns its value or raises
    a `MemoryError`. A store that cannot be reached raises `MemoryConnectionError` from all of them. Use it as
    `async with`, or call `close()`.

    Raises:
        MemoryConfigurationError: one of the arguments is something else, or a processor or observer cannot work.
    """

    def __repr__(self) -> str:
        view = " for one user" if self._scope is not None else ""
        return f"<{type(self).__name__} over {self.name}{view}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> BackendProvider:
        """Connect now rather than at the first operation; returns the provider itself."""
        # Tried once, unless the server is still starting: what is wrong at the start is told at the start.
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

        Example:
            theirs = provider.for_user("user-456")
            print(await theirs.get_conversation("user-123:chat"))  # None
        """
        self._guard.check()
        scope = validation.checked_id(user_id, "user_id")
        if self._scope not in (None, scope):
            raise MemoryInvalidInputError("this is one user's view already; make another's from the whole provider")
        # Guard and backend are shared: one set of connections, and one end for all views.
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

        Example:
            hello = [Message("user", "Hello!")]
            result = await provider.store_messages("user-123:new", hello, {"topic": "orders"}, user_id="user-123")
            print(result.unwrap().version)  # 1
        """

        def write(owner: Any) -> list[Write]:
            chain = self._passing("store_messages", conversation_id, metadata, owner)
            batch = validation.batch(messages, self.config, chain)
            labels = self._labels(metadata, owner, chain)
            return [self._write(conversation_id, batch, labels, expected_version, replace=True, create=True)]

        return await self._result("store_messages", write, self.backend.store, (conversation_id, metadata, user_id))

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

        Example:
            answer = Message("assistant", "It should be with you on Thursday.")
            match await provider.append_messages("user-123:chat", [answer], create=True, user_id="user-123"):
                case Success(data):
                    print(data.message_count)  # 3
                case Failure(error):
                    print(error)
        """
        operation = "append_messages"
        # As `_result` has it, and in one step less: nothing is written more often.
        try:
            owner = user_id
            if self._chain.needs_owner:
                owner = await self._owner(operation, conversation_id, metadata, user_id)
            chain = self._passing(operation, conversation_id, metadata, owner)
            batch = validation.batch(messages, self.config, chain, longest=self.config.max_append_messages)
            labels = self._labels(metadata, owner, chain)
            write = self._write(conversation_id, batch, labels, expected_version, create=create, ttl=ttl)
            # With `create` a repetition could bring back what was deleted behind the first try.
            send = partial(self.backend.append, write)
            return Success(await self._guard.run(operation, send, write, repeatable=not create))
        except MemoryError as error:
            return self._answered(error)

    async def update_metadata(
        self,
        conversation_id: str,
        patch: Mapping[str, Any],
        remove: Collection[str] = (),
        expected_version: int | None = None,
    ) -> int:
        """Merge `patch` into the metadata by top-level key, and take the keys in `remove` out; the new version.

        Args:
            conversation_id: 1 to 255 characters.
            patch: what is merged.
            remove: what goes; a key that is not there is no error. An owner is never taken away.
            expected_version: refuse unless the conversation is at this version.

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: the patch names another owner, or the conversation is at another version.

        Example:
            version = await provider.update_metadata("user-123:chat", {"title": "Order 8812"}, remove=["draft"])
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        owner = await self._owner("update_metadata", key, validation.checked_mapping(patch, "patch"), None)
        chain = self._passing("update_metadata", key, patch, owner)
        labels = validation.labels(patch, owner, self.config, chain)
        amend = Amend(
            key,
            labels.metadata,
            labels.user_id,
            self._scope,
            max_metadata_bytes=self.config.max_metadata_bytes,
            removed=validation.removed_keys(remove, patch, labels.metadata, chain),
            expected_version=validation.checked_version(expected_version),
        )
        return await self._guard.run("update_metadata", lambda: self.backend.amend(amend), amend)

    async def set_expiry(self, conversation_id: str, ttl: float | None) -> int:
        """Let the conversation expire `ttl` seconds from now, and from each later write; `None` for never.

        Returns:
            The new version.

        Raises:
            MemoryNotFoundError: there is no such conversation.

        Example:
            await provider.set_expiry("user-123:chat", 30 * 86_400)
        """
        amend = Amend(
            validation.checked_id(conversation_id, "conversation_id"),
            scope=self._scope,
            ttl=validation.checked_ttl(ttl),
        )
        return await self._guard.run("set_expiry", lambda: self.backend.amend(amend), amend)

    async def truncate_conversation_after(
        self, conversation_id: str, message_id: str, *, expected_version: int | None = None
    ) -> int:
        """Remove that message and all after it; how many (0 if there is no such message).

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: it is not at `expected_version`, where one is given.

        Example:
            print(await provider.truncate_conversation_after("user-123:chat", "m2"))  # 1
        """
        truncate = Truncate(
            validation.checked_id(conversation_id, "conversation_id"),
            validation.checked_id(message_id, "message_id"),
            self._scope,
            validation.checked_version(expected_version),
        )
        return await self._guard.run("truncate_conversation_after", lambda: self._truncate(truncate), truncate)

    async def delete_messages(
        self, conversation_id: str, message_ids: Collection[str], *, expected_version: int | None = None
    ) -> int:
        """Remove these messages and nothing else, all or nothing; how many of them there were.

        All others keep their positions, and no position is given again, so that whoever pages goes on where it was. A
        summary that covers one of them goes, too. Where the conversation holds none of them, nothing is written.

        Args:
            conversation_id: 1 to 255 characters.
            message_ids: at most `max_append_messages`; those that are not held are passed over.
            expected_version: refuse unless the conversation is at this version.

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: it is not at `expected_version`, where one is given.

        Example:
            print(await provider.delete_messages("user-123:chat", ["m1"]))  # 1
        """
        delete = DeleteMessages(
            validation.checked_id(conversation_id, "conversation_id"),
            validation.checked_ids(message_ids, "message_ids", self.config.max_append_messages),
            self._scope,
            validation.checked_version(expected_version),
        )
        return await self._guard.run("delete_messages", lambda: self.backend.delete_messages(delete), delete)

    # Erasing.

    async def delete_conversation(self, conversation_id: str, *, expected_version: int | None = None) -> bool:
        """Delete the conversation; `True` if it was there. Nothing of it remains.

        Raises:
            MemoryConflictError: it is there, and not at `expected_version`, where one is given.

        Example:
            print(await provider.delete_conversation("user-123:chat"))  # True
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        remove = partial(self.backend.remove, key, scope=self._scope)
        # Only where it is asked for: a backend may have been written before there was such a thing.
        if validation.checked_version(expected_version) is not None:
            remove = partial(remove, expected_version=expected_version)
        return await self._guard.run("delete_conversation", remove, key)

    async def clear_user_conversations(self, user_id: str) -> int:
        """Delete every conversation of the user; how many. Safe beside writers, and safe to repeat.

        Example:
            print(await provider.clear_user_conversations("user-123"))  # 1
        """
        user = validation.checked_id(user_id, "user_id")
        if self._scope not in (None, user):
            self._guard.check()
            return 0
        return await self._guard.run("clear_user_conversations", lambda: self.backend.forget_user(user))

    async def purge_expired(self) -> int:
        """Remove what has expired; how many conversations. Any number of processes may run it at once.

        Example:
            print(await provider.purge_expired())  # 0
        """
        removed = 0
        while True:
            try:
                step = await self._guard.run("purge_expired", lambda: self.backend.purge(PURGE_STEP, scope=self._scope))
            except MemoryError as error:
                if removed:
                    error.outcome = "unknown"  # the steps before stand
                raise
            removed += step
            if step < PURGE_STEP:
                return removed

    # Telling.

    async def get_stats(self, user_id: str | None = None) -> MemoryStats:
        """Counts over all conversations, or, with a user, over that user's.

        Example:
            stats = await provider.get_stats("user-123")
            print(stats["user_conversations"], stats["total_storage_size"])
        """
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
        """How the provider and its store are. Never raises a `MemoryError`: it answers `healthy: False`, `error`.

        Example:
            health = await provider.health_check()
            print(health["healthy"], health["warnings"])
        """
        started = time.perf_counter()
        metrics = HealthMetrics(active_connections=0, memory_usage=0, avg_response_time=0.0)
        health = MemoryHealth(
            healthy=False, provider=self.name, latency_ms=0.0, warnings=[], metrics=metrics, details={}
        )
        try:
            seconds = min(self.config.health_timeout, self.config.operation_timeout)
            ping = await self._guard.run("health_check", self.backend.ping, retry=False, seconds=seconds)
        except MemoryError as error:
            health["error"] = str(error)
        else:
            health["healthy"] = True
            health["message"] = ping.message
            health["warnings"] = list(ping.warnings)
            if self._chain and getattr(self.config, "search", None) == "index":
                health["warnings"].append(UNSEARCHED)
            health["details"] = dict(ping.details)
            metrics.update(cast("HealthMetrics", ping.metrics))
        metrics["avg_response_time"] = self._guard.average_seconds * 1000
        health["latency_ms"] = (time.perf_counter() - started) * 1000
        return health


async def opened(provider: BackendProvider) -> BackendProvider:
    """Open a provider that nobody uses yet, or close it: no thread and no connection is left behind."""
    try:
        await provider.open()
    except BaseException:
        await provider.close()
        raise
    if logger.isEnabledFor(logging.INFO):
        _tell_start(provider)
    return provider


def _tell_start(provider: BackendProvider) -> None:
    """Tell the log what was opened: who brings it, in which version, and how durable it is."""
    from jaf_memory_core import registry  # late: an application that logs no INFO need not wait for it

    try:
        entry, spec = registry.find(provider.name), registry.load(provider.name)
        durable = spec.persistence_of(provider.config)
    except MemoryConfigurationError:  # made in code, of a backend that no distribution offers
        logger.info("memory provider %s is open", provider.name)
    else:
        logger.info("memory provider %s is open: %s %s; %s", entry.name, entry.distribution, entry.version, durable)
