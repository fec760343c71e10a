"""`ProviderBase`: what all parts of a provider share: requests made from arguments, answers made from records."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from jaf_memory_core import codec, pages, rules, validation
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryStorageError,
)
from jaf_memory_core.guard import Guard
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Chain, Processor
from jaf_memory_core.records import Amend, Origin, Page, Record, Tail, Write, new_incarnation
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import EMPTY, FrozenDict, freeze

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend

C = TypeVar("C", bound=ProviderConfig)

MOST = 1 << 61
"""Beyond this a limit or an offset is as good as none."""

Change = Callable[[Record, datetime], Mapping[str, Any] | None]
"""From a header and the time to what is to be merged into its metadata; `None` to leave it."""


class ProviderBase:
    """A backend behind its guard, with the configuration and the processors; `for_user` narrows it to a scope."""

    def __init__(
        self,
        backend: Backend,
        config: ProviderConfig | None = None,
        *,
        processors: Sequence[Processor] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        from jaf_memory_core.backend import Backend  # late: authors import it, and nothing else here needs it

        if not isinstance(backend, Backend):
            raise MemoryConfigurationError(f"a provider is made over a Backend, not over a {type(backend).__name__}")
        self.backend = backend
        self.config = configured(ProviderConfig, config if config is not None else backend.config, backend.name)
        self._guard = Guard(backend, self.config, observers)
        self._chain = Chain(processors)
        self._scope: str | None = None

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.backend.name

    # Requests and answers.

    def _passing(self, operation: str, conversation_id: str, metadata: Any, user_id: Any) -> Chain:
        """The processors, told where what passes them belongs."""
        if not self._chain.steps:
            return self._chain
        key = validation.checked_id(conversation_id, "conversation_id")
        return self._chain.within(operation, key, validation.stated_owner(metadata, user_id, self._scope))

    async def _owner(self, operation: str, conversation_id: Any, metadata: Any, user_id: Any) -> Any:
        """The owner that a write states; where a processor has to know one and none is stated, whose it is.

        As the stated owner it goes into the write, which the store refuses if it is somebody else's by then.
        """
        if not self._chain.needs_owner:
            return user_id
        owner = validation.stated_owner(metadata, user_id, self._scope)
        key = validation.checked_id(conversation_id, "conversation_id")
        if owner is None:
            header = await self._guard.run(operation, lambda: self.backend.header(key), key, repeatable=True)
            owner = None if header is None else header.user_id
        await self._chain.prepare(operation, key, owner, writing=True)
        return owner

    def _labels(self, metadata: Any, user_id: Any, chain: Chain) -> validation.Labels:
        if metadata is None and user_id is None:
            return validation.NO_LABELS if self._scope is None else validation.Labels(EMPTY, self._scope)
        return validation.labels(metadata, user_id, self.config, chain, scope=self._scope)

    def _write(
        self,
        conversation_id: str,
        batch: validation.Batch,
        labels: validation.Labels,
        expected_version: int | None = None,
        *,
        replace: bool = False,
        create: bool = False,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> Write:
        # By place, which takes less: every write makes one.
        return Write(
            validation.checked_id(conversation_id, "conversation_id"),
            batch.messages,
            batch.bodies,
            labels.metadata,
            labels.user_id,
            self._scope,
            replace,
            create,
            None if expected_version is None else validation.checked_version(expected_version),
            self.config.ttl if ttl is None else validation.checked_ttl(ttl),
            self.config.max_messages,
            self.config.max_metadata_bytes,
            batch.dropped,
            new_incarnation() if create else "",
            origin,
        )

    async def _result(
        self,
        operation: str,
        write: Callable[[Any], list[Write]],
        send: Callable[[Write], Awaitable[WriteResult]],
        about: tuple[Any, Any, Any],
        *,
        repeatable: bool | None = None,
    ) -> Result:
        """Make the requests of a write, given its owner, and send them; `about` is id, metadata and owner as given."""
        try:
            owner = await self._owner(operation, *about) if self._chain.needs_owner else about[2]
            first, *further = write(owner)
            result = await self._guard.run(operation, partial(send, first), first, repeatable=repeatable)
            # What stands of the parts stays: importing it again adds what is missing.
            for request in further:
                added = result.added
                result = await self._guard.run(operation, partial(send, request), request, repeatable=repeatable)
                result = replace(result, added=added + result.added)
            return Success(result)
        except MemoryError as error:
            return self._answered(error)

    def _scoped(self, query: MemoryQuery, operation: str) -> MemoryQuery | None:
        """The query as the store is asked it; `None` where nothing can match."""
        if self._scope is not None and query.user_id not in (None, self._scope):
            return None
        if self._scope is not None:
            query = replace(query, user_id=self._scope)
        if query.offset > MOST or (query.limit or 0) > MOST:
            # Stores count in 64 bits; nobody has so many.
            query = replace(query, offset=min(query.offset, MOST), limit=query.limit and min(query.limit, MOST))
        return self._processed(query, operation) if self._chain else query

    def _processed(self, query: MemoryQuery, operation: str) -> MemoryQuery | None:
        wanted = dict(query.metadata or {})
        if query.trace_id is not None and wanted.setdefault("trace_id", query.trace_id) != query.trace_id:
            return None
        chain = self._chain.within(operation, query.conversation_id, query.user_id)
        stored = validation.processed(FrozenDict(wanted), chain)
        # What a processor takes out is never stored: a filter without it would let everything through.
        return replace(query, trace_id=None, metadata=stored or None) if len(stored) >= len(wanted) else None

    async def _prepared(self, operation: str, record: Record, *, writing: bool = False) -> None:
        """Let processors fetch what they need for a conversation that was read."""
        if self._chain.needs_owner:
            await self._chain.prepare(operation, record.conversation_id, record.user_id, writing=writing)

    async def _shown(self, record: Record, operation: str) -> ConversationMemory:
        if self._chain:
            await self._prepared(operation, record)
            chain = self._chain.within(operation, record.conversation_id, record.user_id)
            metadata = chain.incoming_metadata(rules.applications(record.metadata))
            record = replace(record, messages=chain.incoming(record.messages), metadata=metadata)
        return shown(record)

    def _answered(self, error: MemoryError) -> Failure:
        """What a write answers in the place of an error; one that is no answer of the store is raised."""
        if isinstance(error, MemoryConnectionError | MemoryConfigurationError):
            raise error
        return self._failure(error)

    def _failure(self, error: MemoryError) -> Failure:
        error.provider = error.provider or self.backend.name
        return Failure(error)

    # Changes of the metadata that nobody else's change can come between.

    def _check_size(self, value: FrozenDict, what: str) -> None:
        size, most = len(codec.encode(value)), self.config.max_metadata_bytes
        if size > most:
            raise MemoryInvalidInputError(f"{what} has {size} bytes, allowed are {most}", limit="max_metadata_bytes")

    async def _annotated(self, operation: str, conversation_id: str, change: Change) -> Record:
        key = validation.checked_id(conversation_id, "conversation_id")
        return await self._guard.run(operation, lambda: self._annotate(key, change), key)

    async def _annotate(self, conversation_id: str, change: Change) -> Record:
        """Merge into the metadata what `change` makes of the header, until nobody came between."""
        # A bound for stores that never wait, and so have no deadline; all others are ended by theirs.
        for _ in range(1_000_000):
            header = await self.backend.header(conversation_id, scope=self._scope)
            if header is None:
                raise MemoryNotFoundError(conversation_id)
            patch = change(header, self.backend.now())
            if patch is None:
                return header
            frozen: FrozenDict = freeze(patch, where="metadata")
            self._check_size(frozen, "what is noted in the metadata")
            most = self.config.max_metadata_bytes
            # In the state that `change` has seen: what it decided holds for no other.
            amend = Amend(conversation_id, frozen, scope=self._scope, expected=header.stamp, max_metadata_bytes=most)
            try:
                return replace(header, version=await self.backend.amend(amend))
            except MemoryConflictError:
                await jitter()
        raise MemoryStorageError("the conversation never stood still", operation="amend", retryable=True)


def shown(record: Record) -> ConversationMemory:
    """A record as the application sees it, its processors aside."""
    # By place, which takes half the time: a list makes many.
    conversation: ConversationMemory = ConversationMemory.trusted(
        record.conversation_id,
        record.user_id,
        record.messages,
        rules.shown_metadata(record),
        record.created_at,
        record.updated_at,
        record.expires_at,
        record.ttl,
        record.version,
        record.incarnation,
        record.message_count,
        record.active_at,
    )
    return conversation


async def ends(backend: Backend, tail: Tail) -> Page | None:
    """A page with what was asked for beside it: in one call of a backend that knows of that, else in more."""
    page = await backend.tail(tail)
    if page is not None and tail.after is not None and page.end is None:
        page = await _forwards(backend, tail)
    if page is not None and tail.leading and page.leading is None:
        end = min(tail.leading, page.first)
        found = await backend.tail(Tail(tail.conversation_id, end, end, tail.scope)) if end else None
        page = replace(page, leading=found.messages if found is not None else ())
    if page is not None and tail.with_header and page.header is None:
        header = await backend.header(tail.conversation_id, scope=tail.scope)
        return None if header is None else replace(page, header=header)  # `None`: deleted meanwhile
    return page


async def _forwards(backend: Backend, tail: Tail) -> Page | None:
    """A page behind a position, of a backend that looks only backwards: what stands before the page's end."""
    header = await backend.header(tail.conversation_id, scope=tail.scope)
    if header is None:
        return None
    first, end = pages.reach(header, tail)
    if not header.gaps:
        end = min(end, first + tail.limit)
    page = await backend.tail(replace(tail, limit=end - first, before=end, after=None))
    if page is None:
        return None
    # Cut off, or capped, since its header was read: what stands before the page's place does not belong into it.
    places = page.positions or range(page.first, page.first + len(page.messages))
    start = bisect_left(places, first)
    within = slice(start, start + tail.limit)
    first = places[start] if places[within] else max(first, page.first)
    return replace(
        page,
        messages=page.messages[within],
        first=first,
        more=first > header.first_position,
        end=header.end,
        positions=page.positions[within],
    )


def configured(kind: type[C], config: Any, name: str) -> C:
    """A provider's configuration, its defaults for `None`, or a `MemoryConfigurationError` for anything else."""
    if config is None:
        return kind()
    if isinstance(config, kind):
        return config
    text = f"the memory provider {name!r} takes a {kind.__name__}, not a {type(config).__name__}"
    raise MemoryConfigurationError(text, provider=name)


async def jitter() -> None:
    """Wait a little, each caller for another while."""
    await asyncio.sleep(random.uniform(0, 0.01))  # so that those who met once do not meet again
