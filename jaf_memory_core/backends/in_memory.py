"""The in-memory backend: for development and tests, and the model that every other backend is compared with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from itertools import islice
from typing import Any, ClassVar

from msgspec.structs import replace
from pydantic import AliasChoices, Field

from jaf_memory_core import codec, forks, pages, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.messages import Message
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Processor
from jaf_memory_core.provider import BackendProvider, configured
from jaf_memory_core.records import (
    Amend,
    DeleteMessages,
    Fork,
    Page,
    Ping,
    Record,
    Revise,
    Stamp,
    Stats,
    Tail,
    Truncate,
    Write,
)
from jaf_memory_core.results import WriteResult
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import FrozenDict

TICK = timedelta(microseconds=1)


class InMemoryConfig(ProviderConfig):
    """Settings of the in-memory provider.

    Example:
        config = InMemoryConfig(max_conversations=100, max_messages=None, ttl=3600.0)
    """

    env_prefix: ClassVar[str] = "JAF_MEMORY_"
    env_older_names: ClassVar[Mapping[str, str]] = {"JAF_MEMORY_MAX_MESSAGES_PER_CONVERSATION": "max_messages"}

    max_conversations: int = Field(default=1000, ge=1)
    """Conversations kept; beyond it the least recently written goes."""

    max_messages: int | None = Field(
        default=1000, ge=1, validation_alias=AliasChoices("max_messages", "max_messages_per_conversation")
    )
    """Messages kept of each conversation, the newest; `None` for all."""


class _Kept:
    """One conversation: its header, and its messages by id, in order."""

    __slots__ = ("header", "messages", "positions", "size")

    def __init__(self, header: Record) -> None:
        self.header = header
        self.messages: dict[str, Message] = {}  # a plain one: it is copied five times as fast
        # Only where there are gaps.
        self.positions: list[int] = []
        self.size = 0

    def record(self, *, with_messages: bool = True) -> Record:
        if not with_messages:
            return self.header
        return replace(self.header, messages=tuple(self.messages.values()), positions=tuple(self.positions))

    def add(self, message: Message, size: int) -> None:
        self.messages[message.message_id] = message
        self.size += size

    def drop(self, count: int, *, newest: bool) -> None:
        if newest:
            # `pop` would leave a hole for each, which whoever reads the newest would go through.
            for _ in range(count):
                self.size -= len(codec.encode(self.messages.popitem()[1]))
            return
        for key in list(islice(self.messages, count)):
            self.size -= len(codec.encode(self.messages.pop(key)))

    def settle(self, header: Record) -> None:
        """Take the header, which may have no gaps any more."""
        self.header = header
        if not header.gaps:
            self.positions = []

    def between(self, start: int, end: int) -> tuple[Message, ...]:
        """The messages at these places, gone to from the nearer end."""
        behind = len(self.messages) - end
        if start < behind:
            return tuple(islice(self.messages.values(), start, end))
        picked = list(islice(reversed(self.messages.values()), behind, behind + end - start))
        picked.reverse()
        return tuple(picked)


class InMemoryBackend(Backend):
    """Conversations in dictionaries, under one lock; any task, loop and thread may call.

    An append costs the new messages, recent messages cost the limit, a user's newest cost the page.
    """

    name: ClassVar[str] = "memory"
    waits: ClassVar[bool] = False

    def __init__(self, config: InMemoryConfig | None = None) -> None:
        # One that is made of this may have settings of its own.
        if type(self) is InMemoryBackend or config is None:
            config = configured(InMemoryConfig, config, "memory")
        self.config = config
        self._most = self.config.max_conversations
        self._lock = threading.RLock()
        self._clock = datetime.fromtimestamp(0, UTC)
        # By the last write, of whatever kind: the first to be evicted is at the front.
        self._by_write: OrderedDict[str, None] = OrderedDict()
        # Both by activity, so that the newest are at the end.
        self._all: OrderedDict[str, _Kept] = OrderedDict()
        self._of_user: dict[str, OrderedDict[str, _Kept]] = {}
        # An import, `write`, or a new owner can put one of an older time behind newer ones; the next list sorts them.
        self._in_order = True

    async def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._all.clear()
            self._by_write.clear()
            self._of_user.clear()

    def now(self) -> datetime:
        """The computer's time, strictly increasing, so that the order of writes is the order of times."""
        with self._lock:
            now = datetime.now(UTC)
            if now <= self._clock:
                now = self._clock + TICK
            self._clock = now
            return now

    # The four that every backend has.

    async def read(self, conversation_id: str) -> Record | None:
        """The whole record."""
        with self._lock:
            kept = self._all.get(conversation_id)
            return kept.record() if kept else None

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put the record in the place of the one at `expected`."""
        with self._lock:
            standing = self._all.get(record.conversation_id)
            if (standing and standing.header.stamp) != expected:
                return False
            self._replace(record, standing)
            return True

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        with self._lock:
            standing = self._all.get(conversation_id)
            if standing is None or standing.header.stamp != expected:
                return False
            self._forget(standing)
            return True

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        """Records in order of creation; each is looked up when it is its turn."""
        with self._lock:
            keys = sorted(rules.creation_key(kept.header) for kept in self._candidates(query))
        above = rules.creation_cursor(query)
        # Without the lock between two: the caller may take its time over each, or never come back.
        for key in keys:
            if above is not None and key <= above:
                continue
            with self._lock:
                kept = self._all.get(key[1])
                record = kept.record(with_messages=query.include_messages) if kept else None
            # Made again under the same id: it did not stand throughout, and its turn is later.
            if record and rules.creation_key(record) == key:
                yield record

    # Faster than the defaults.

    async def store(self, write: Write) -> WriteResult:
        """Create or replace."""
        return self._write(write)

    async def append(self, write: Write) -> WriteResult:
        """Add what is new."""
        return self._write(write)

    def _write(self, write: Write) -> WriteResult:
        with self._lock:
            now = self.now()
            standing = self._all.get(write.conversation_id)
            live = self._live(standing, now)
            plan = rules.plan_write(live.header if live else None, write, _held(live, write), now)
            if not plan.changed:
                return plan.result
            kept = _Kept(plan.header) if live is None or write.replace else live
            # All is decided by now: nothing below can fail, so that it may be changed in place.
            if kept.positions:
                kept.positions += range(kept.header.end, plan.header.end)
                del kept.positions[: plan.cut]
            kept.header = plan.header
            for index in plan.fresh:
                kept.add(write.messages[index], len(write.bodies[index]))
            kept.drop(plan.cut, newest=False)
            if plan.cut and kept.positions:
                kept.settle(rules.begins(kept.header, kept.positions[0]))
            self._put(kept, standing)
            return plan.result

    async def tail(self, tail: Tail) -> Page | None:
        """A page, from the end."""
        with self._lock:
            kept = self._seen(tail.conversation_id, tail.scope)
            if kept is None:
                return None
            header = kept.header
            if header.gaps:
                return pages.page(kept.record(), tail)
            oldest = header.first_position
            first, end = pages.bounds_within(oldest, oldest + header.message_count, tail)
            messages = kept.between(first - oldest, end - oldest)
            if not tail.leading and not tail.with_header and tail.after is None:
                return Page(messages, first, first > oldest)
            leading = kept.between(0, pages.lead(header, tail, first)) if tail.leading else None
            end_told = pages.known_end(header, tail)
            return Page(messages, first, first > oldest, leading, header if tail.with_header else None, end_told)

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        """The newest that match, walked from the newest."""
        below = rules.activity_cursor(query)
        with self._lock:
            now = self.now()
            matching = (
                kept
                for kept in self._newest_first(query)
                if self._live(kept, now)
                and rules.matches(kept.header, query)
                and (below is None or rules.activity_key(kept.header) < below)
            )
            page = islice(matching, query.offset, None if query.limit is None else query.offset + query.limit)
            return [kept.record(with_messages=query.include_messages) for kept in page]

    async def truncate(self, truncate: Truncate) -> int:
        """Drop from the end."""
        with self._lock:
            now = self.now()
            kept = self._seen(truncate.conversation_id, truncate.scope)
            if kept is None:
                raise MemoryNotFoundError(truncate.conversation_id)
            rules.expect_version(truncate.conversation_id, truncate.expected_version, kept.header.version)
            if truncate.message_id not in kept.messages:
                return 0
            removed = 1 + next(count for count, key in enumerate(reversed(kept.messages)) if key == truncate.message_id)
            kept.drop(removed, newest=True)
            left = len(kept.messages)
            end = kept.positions[left] if kept.positions else kept.header.first_position + left
            metadata = rules.unsummarised(kept.header.metadata, end)
            del kept.positions[left:]
            kept.settle(replace(rules.ends_at(rules.touched(kept.header, now), left, end), metadata=metadata))
            self._put(kept, kept)
            return removed

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Take them out of the dictionary; where the others stand is noted from then on."""
        with self._lock:
            now = self.now()
            kept = self._seen(delete.conversation_id, delete.scope)
            rules.deletable(kept.header if kept else None, delete)
            assert kept is not None  # `rules.deletable` raises for a missing one
            gone = [key for key in delete.ids if key in kept.messages]
            if not gone:
                return 0
            places = kept.positions or list(range(kept.header.first_position, kept.header.end))
            by_id = dict(zip(kept.messages, places, strict=True))
            for key in gone:
                kept.size -= len(codec.encode(kept.messages.pop(key)))
            lowest = min(by_id.pop(key) for key in gone)
            kept.positions = list(by_id.values())
            first = kept.positions[0] if kept.positions else None
            kept.settle(rules.thinned(kept.header, len(gone), lowest, first, now))
            self._put(kept, kept)
            return len(gone)

    async def amend(self, amend: Amend) -> int:
        """Change the header."""
        with self._lock:
            now = self.now()
            kept = self._live(self._all.get(amend.conversation_id), now)
            after = rules.amended(kept.header if kept else None, amend, now)
            assert kept is not None  # `rules.amended` raises for a missing one
            if after.user_id is not None and after.user_id != kept.header.user_id:
                self._of_user.setdefault(after.user_id, OrderedDict())[amend.conversation_id] = kept
                self._in_order = False
            # Its place in a list stays.
            self._by_write.move_to_end(amend.conversation_id)
            kept.header = after
            return after.version

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        """The header alone."""
        with self._lock:
            kept = self._seen(conversation_id, scope)
            return kept.record(with_messages=False) if kept else None

    async def revise(self, revise: Revise) -> int:
        """Build the dictionary of messages anew, with the others in their places."""
        with self._lock:
            now = self.now()
            standing = self._live(self._all.get(revise.conversation_id), now)
            before = standing.record() if standing else None
            after = forks.revised(before, revise, now)
            if after is not before:
                self._replace(after, standing)
            return after.version

    async def fork(self, fork: Fork) -> int:
        """Copy the dictionary of messages."""
        with self._lock:
            now = self.now()
            parent = self._live(self._all.get(fork.conversation_id), now)
            standing = self._all.get(fork.new_id)
            live = self._live(standing, now)
            child = forks.forked(parent.record() if parent else None, live.header if live else None, fork, now)
            self._replace(child, standing)
            return child.message_count

    async def forget_user(self, user_id: str) -> int:
        """Drop all of the user's."""
        with self._lock:
            now = self.now()
            owned = list(self._of_user.get(user_id, {}).values())
            for kept in owned:
                self._forget(kept)
            return sum(self._live(kept, now) is not None for kept in owned)

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over the headers."""
        with self._lock:
            now = self.now()
            live = [kept for kept in self._candidates(MemoryQuery(user_id=user_id)) if self._live(kept, now)]
            created = [kept.header.created_at for kept in live]
            return Stats(
                conversations=len(live),
                messages=sum(len(kept.messages) for kept in live),
                size=sum(kept.size for kept in live),
                oldest=min(created, default=None),
                newest=max(created, default=None),
            )

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        """From the index by owner."""
        with self._lock:
            now = self.now()
            behind = (
                user
                for user, owned in self._of_user.items()
                if user > after and any(self._live(kept, now) for kept in owned.values())
            )
            return nsmallest(limit, behind)

    async def ping(self) -> Ping:
        """How much is kept."""
        with self._lock:
            size = sum(kept.size for kept in self._all.values())
            metrics = {"active_connections": 0, "memory_usage": size, "conversations": len(self._all)}
        return Ping(
            "conversations are kept in this process",
            warnings=("nothing survives the end of this process; use sqlite, redis or postgres to keep it",),
            metrics=FrozenDict(metrics),
            details=FrozenDict({"durability": "none", "max_conversations": self._most}),
        )

    # The indexes; all of these are called under the lock.

    def _candidates(self, query: MemoryQuery) -> Any:
        index = self._all if query.user_id is None else self._of_user.get(query.user_id, OrderedDict[str, _Kept]())
        if query.conversation_id is None:
            return index.values()
        kept = index.get(query.conversation_id)
        return [kept] if kept else []

    def _newest_first(self, query: MemoryQuery) -> Any:
        if not self._in_order:
            self._all = _sorted(self._all)
            self._of_user = {user: _sorted(owned) for user, owned in self._of_user.items()}
            self._in_order = True
        return reversed(self._candidates(query))

    def _live(self, kept: _Kept | None, now: datetime) -> _Kept | None:
        return kept if kept is not None and rules.live(kept.header, now) else None

    def _seen(self, conversation_id: str, scope: str | None) -> _Kept | None:
        kept = self._all.get(conversation_id)
        if kept is None or (scope is not None and scope != kept.header.user_id):
            return None
        # Few expire: only for these the clock is asked.
        return kept if kept.header.expires_at is None else self._live(kept, self.now())

    def _replace(self, record: Record, standing: _Kept | None) -> None:
        kept = _Kept(replace(record, messages=(), positions=()))
        kept.positions = list(record.positions)
        for message in record.messages:
            kept.add(message, len(codec.encode(message)))
        self._put(kept, standing)

    def _put(self, kept: _Kept, standing: _Kept | None) -> None:
        key = kept.header.conversation_id
        if standing is not None:
            self._unindex(key, standing.header.user_id)
        last = next(reversed(self._all.values()), None)
        if last is not None and last is not kept and _activity(kept) <= _activity(last):
            self._in_order = False
        self._all[key] = kept
        self._all.move_to_end(key)
        self._by_write[key] = None
        self._by_write.move_to_end(key)
        if kept.header.user_id is not None:
            self._of_user.setdefault(kept.header.user_id, OrderedDict())[key] = kept
        while len(self._all) > self._most:
            self._forget(self._all[next(iter(self._by_write))])

    def _forget(self, kept: _Kept) -> None:
        key = kept.header.conversation_id
        del self._all[key]
        del self._by_write[key]
        self._unindex(key, kept.header.user_id)

    def _unindex(self, key: str, user_id: str | None) -> None:
        owned = self._of_user.get(user_id) if user_id is not None else None
        if owned is not None:
            owned.pop(key, None)
            if not owned and user_id is not None:
                del self._of_user[user_id]


def _sorted(kept: OrderedDict[str, _Kept]) -> OrderedDict[str, _Kept]:
    return OrderedDict(sorted(kept.items(), key=lambda one: _activity(one[1])))


def _activity(kept: _Kept) -> tuple[datetime, str]:
    return rules.activity_key(kept.header)


def _held(kept: _Kept | None, write: Write) -> dict[str, bytes]:
    if kept is None or write.replace:
        return {}
    there = kept.messages
    return {
        message.message_id: codec.encode(there[message.message_id])
        for message in write.messages
        if message.message_id in there
    }


def create_in_memory_provider(
    config: InMemoryConfig | None = None, *, processors: Sequence[Processor] = (), observers: Sequence[Observer] = ()
) -> BackendProvider:
    """A provider that keeps conversations in this process; they are gone when it ends.

    Args:
        config: its settings; the defaults when absent.
        processors: as for `BackendProvider`.
        observers: as for `BackendProvider`.

    Raises:
        MemoryConfigurationError: one of the arguments is something else.

    Example:
        provider = create_in_memory_provider(InMemoryConfig(max_conversations=100))
    """
    backend = InMemoryBackend(configured(InMemoryConfig, config, "memory"))
    return BackendProvider(backend, processors=processors, observers=observers)


@hookimpl
def jaf_memory_provider() -> ProviderSpec:
    """The provider named `memory`."""
    return ProviderSpec(
        name="memory",
        config=InMemoryConfig,
        backend=InMemoryBackend,
        persistence="none: conversations are gone when the process ends",
        summary="in this process, for development and tests",
    )
