"""`Backend`: what the author of a store reads, and writes.

Four methods are asked for: `read`, `write`, `delete` and `scan`. All others have a correct default over those four;
override one when the store can do it faster, and let the conformance kit (`jaf_memory_testing`) prove both equal.
The provider above has checked every argument; a backend holds storage and nothing else.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from jaf_memory_core import codec, deadline, forks, pages, rules, stretches
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError, Outcome
from jaf_memory_core.records import (
    Amend,
    Damaged,
    DeleteMessages,
    Fork,
    Look,
    Page,
    Ping,
    Record,
    Revise,
    Stamp,
    Stats,
    Stretch,
    Tail,
    Truncate,
    Usage,
    Write,
)
from jaf_memory_core.results import WriteResult
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.steps import in_steps

ROUNDS = 20
"""How often the default of `forget_user` lists anew at most: so many copies of copies would have to be made in step."""

PATIENCE = 1.0
"""Seconds after which the default of `append_many` begins no other append."""


class Backend(ABC):
    """A store of conversations.

    Attributes:
        name: to be set by a subclass, as all of these: the provider's name in errors and health.
        loop_bound: connections belong to one event loop. The guard then opens anew on the next loop, and refuses two
            loops at once. Leave it `False` only if any loop and any thread may call at the same time.
        waits: whether a call can wait for anything at all; `False` spares the deadline's timer.
        driver_errors: exceptions of the driver that `translate` understands. Anything else is a bug, and stays one.
        patient: whether what cannot be reached is only in use, as a file that another process has locked. The guard
            then tries again until the deadline, and not only for `reconnect_timeout`.
        abreast: how many short reads are quicker at once than one after the other.
    """

    name: ClassVar[str] = "custom"
    loop_bound: ClassVar[bool] = False
    waits: ClassVar[bool] = True
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    patient: ClassVar[bool] = False
    abreast: ClassVar[int] = 1

    config: ProviderConfig | None = None
    """The settings it was made with: a provider that is given none of its own goes by them."""

    # What is asked of every author.

    @abstractmethod
    async def read(self, conversation_id: str) -> Record | None:
        """The whole record, expired or not, or `None`. Must not write, and must not renew the expiry."""

    @abstractmethod
    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put the whole record in the place of the one that stands at `expected` (`None`: where none stands).

        Must be atomic, also against other processes: `False`, and nothing changed, if something else stands there.
        When it returns `True` the record is as durable as the store promises.
        """

    @abstractmethod
    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove everything of the conversation that stands at `expected`; `False`, and nothing changed, otherwise."""

    @abstractmethod
    def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """All records that match, in (`created_at`, `conversation_id`) order, beyond `rules.creation_cursor(query)`.

        May yield more than what matches (the provider filters again), must never leave out one that stood throughout,
        must hold a bounded number in memory, and may leave `messages` empty if `query.include_messages` is false.

        Each, expired or not, has to be as it stands when its turn comes: what is read ahead may go or expire meanwhile.

        Should yield `Damaged` in the place of what cannot be read, and go on: an exception ends an export.
        """

    # What has a default.

    async def open(self) -> None:
        """Connect. Called before the first operation, and again on each new loop.

        Where `loop_bound` is false, several tasks, loops and threads may call it at once: it must not mind.
        """

    async def close(self) -> None:
        """Let go of everything. Clients that the application made stay open. Idempotent.

        Operations may be under way: each has to end, as done or as `MemoryConnectionError`, and leaves nothing open.
        """

    def abandon(self) -> None:
        """Forget connections of an event loop that is gone, without waiting for anything."""

    def now(self) -> datetime:
        """The store's time, UTC; only the defaults below use it. A shared server's clock is better than ours."""
        return datetime.now(UTC)

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """Turn one of `driver_errors` into ours. The text must hold no secret and no content.

        `retryable` and `outcome` decide whether the guard tries again: it does after `"not_applied"`, and after
        `"unknown"` for reads and for appends to existing conversations, which may be repeated safely.
        """
        outcome: Outcome = "unknown"
        if isinstance(error, ConnectionRefusedError):
            # Refused: nobody was there to take a byte.
            outcome = "not_applied"
        if isinstance(error, ConnectionError | TimeoutError):
            return MemoryConnectionError(f"the store could not be reached: {type(error).__name__}", outcome=outcome)
        told = getattr(error, "strerror", None)  # the system's words, without the path or address
        reason = told if isinstance(told, str) else type(error).__name__
        return MemoryStorageError(f"the store failed: {reason}", operation=operation, outcome=outcome)

    def usage(self) -> Usage:
        """What is in hand at this moment: connections, what waits, group commits. Any thread may ask, at any time."""
        return Usage()

    async def store(self, write: Write) -> WriteResult:
        """Create the conversation, or replace all its messages. All or nothing; keeps `created_at`."""
        return await self._written(write)

    async def append(self, write: Write) -> WriteResult:
        """Add the messages that the conversation does not hold yet, contiguous and in order. All or nothing.

        Raises:
            MemoryNotFoundError, MemoryConflictError: as `rules.plan_write` decides.
        """
        return await self._written(write)

    async def append_many(self, writes: Sequence[Write]) -> Sequence[WriteResult | MemoryError | None]:
        """Do many appends, as an import has them: each all or nothing, whatever becomes of the others.

        Two to one conversation must be done in their order. The default does one after the other.

        Returns:
            for each what `append` returned or raised, or `None` if it was not tried. The caller comes again with
            those, so a backend need not do more than it can in a second or two: the deadline is for one call.

        Raises:
            MemoryError, or one of `driver_errors`: the line is lost, say. `outcome` holds for all of them together.
        """
        outcomes: list[WriteResult | MemoryError | None] = []
        until = time.monotonic() + PATIENCE
        errors: tuple[type[Exception], ...] = (MemoryError, *self.driver_errors)
        for write in writes:
            # Never before the first: a call that does nothing would come again for ever.
            if outcomes and time.monotonic() > until:
                break
            try:
                with deadline.steps():
                    outcomes.append(await self.append(write))
            except errors as error:
                problem = error if isinstance(error, MemoryError) else self.translate(error, "append_many")
                again = problem.retryable and problem.outcome == "not_applied"
                if not outcomes and again:
                    raise  # the guard tries again, as long as the deadline lets it
                if not again:
                    outcomes.append(problem)
                # With the line gone each of the others would only wait for a time-out of its own.
                if again or isinstance(problem, MemoryConnectionError):
                    break
        return outcomes + [None] * (len(writes) - len(outcomes))

    async def _written(self, write: Write) -> WriteResult:
        result: WriteResult | None = None

        def change(record: Record | None, now: datetime) -> Record | None:
            nonlocal result
            after, result = rules.written(record, write, now)
            return after

        await self._change(write.conversation_id, change)
        assert result is not None  # `change` has run
        return result

    async def _change(
        self, conversation_id: str, change: Callable[[Record | None, datetime], Record | None]
    ) -> Record | None:
        """Compare-and-swap until nobody else came between; the guard's deadline ends it."""
        for attempt in range(1_000_000):
            standing = await self.read(conversation_id)
            now = self.now()
            before = rules.live(standing, now)
            after = change(before, now)
            if after is None or after is before:
                return after
            if await self.write(after, expected=standing.stamp if standing else None):
                return after
            # Full jitter, so that writers who met once do not meet again. https://doi.org/10.1145/360248.360253
            await asyncio.sleep(random.uniform(0, 0.0005 * 2 ** min(attempt, 6)))
        raise MemoryStorageError("the conversation never stood still", operation="write", retryable=True)

    async def tail(self, tail: Tail) -> Page | None:
        """A page of messages; `None` if there is no such conversation (for this user). Must not read the rest.

        Should bring the first messages and the header along where the request asks for them (`pages.lead` says which),
        and look forwards where it says `after`, and set `end`: one that does not is asked again, by other requests.
        """
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        return pages.page(record, tail) if record else None

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        """What `tail` answers to each of these, or raises of one: of the first at least, and then while there is room.

        Args:
            tails: all of one form: they differ in `conversation_id` alone.
            room: characters of messages, about. Where they have more, the rest is left out.
        """
        return await stretches.several(self, tails, room)

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        """A live conversation without its messages, which a store that can leaves alone, or `None` (for this user)."""
        record = rules.seen(await self.read(conversation_id), self.now(), scope)
        return None if record is None else msgspec.structs.replace(record, messages=(), positions=())

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        """Live records that match, newest `active_at` first, ties by id descending; cursor, offset and limit hold.

        Should have `Damaged` in the place of what cannot be read; the default, which cannot tell the place, begins
        with them, beside the page.
        """
        now = self.now()
        below = rules.activity_cursor(query)
        found: list[Record] = []
        unreadable: list[Damaged] = []
        async for record in _candidates(self, query):
            if isinstance(record, Damaged):
                unreadable.append(record)
            elif (
                rules.live(record, now)
                and rules.matches(record, query)
                and (below is None or rules.activity_key(record) < below)
            ):
                found.append(record)
        found.sort(key=rules.activity_key, reverse=True)
        page = found[query.offset : None if query.limit is None else query.offset + query.limit]
        return [*unreadable, *page]

    async def look_through(self, look: Look) -> Stretch:
        """A bounded stretch of messages for a search, which decides: conversations as `find`, newest pages first."""
        return await stretches.Reader(self, look).read()

    async def owners(self, after: str, limit: int) -> Sequence[str] | None:
        """The first owners of live conversations behind this id, in order; `None`: they have to be scanned for."""
        return None

    async def truncate(self, truncate: Truncate) -> int:
        """Remove that message and all after it; how many.

        Raises:
            MemoryNotFoundError, MemoryConflictError: as `rules.truncated` decides.
        """
        removed = 0

        def change(record: Record | None, now: datetime) -> Record | None:
            nonlocal removed
            after, removed = rules.truncated(record, truncate, now)
            return after

        await self._change(truncate.conversation_id, change)
        return removed

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Remove these messages, all or nothing, and leave the others at their positions; how many there were.

        Must leave the positions of what went without a message, the last ones too: the next message comes behind them.
        Must remove a summary (`rules.SUMMARY`) that covers one of them, and must write nothing where none is held.

        Raises:
            MemoryNotFoundError, MemoryConflictError: as `rules.deletable` decides.
        """
        removed = 0

        def change(record: Record | None, now: datetime) -> Record | None:
            nonlocal removed
            after, removed = rules.messages_deleted(record, delete, now)
            return after

        await self._change(delete.conversation_id, change)
        return removed

    async def amend(self, amend: Amend) -> int:
        """Change metadata, owner-less ownership or expiry; the new version. Atomic, what it expects included.

        Raises:
            MemoryNotFoundError, MemoryConflictError: as `rules.amended` decides.
        """
        after = await self._change(amend.conversation_id, lambda record, now: rules.amended(record, amend, now))
        assert after is not None  # `rules.amended` raises for a missing one
        return after.version

    async def revise(self, revise: Revise) -> int:
        """Put messages into the places of others, all or nothing; the version. Positions stay.

        Must remove a summary (`rules.SUMMARY`) from the metadata, and must write nothing if all stand there already.

        Raises:
            MemoryNotFoundError, MemoryConflictError: as `forks.revised` decides.
        """
        after = await self._change(revise.conversation_id, lambda record, now: forks.revised(record, revise, now))
        assert after is not None  # `forks.revised` raises for a missing one
        return after.version

    async def fork(self, fork: Fork) -> int:
        """Copy a conversation to a new id, up to, without, a message; how many messages the copy holds.

        All or nothing. The copy belongs to the parent's owner, and must not outlive an erasure of that user that began
        before the copy was there. A store that can must copy on its own side: no message crosses the line.

        Raises:
            MemoryNotFoundError, MemoryConflictError, MemoryInvalidInputError: as `forks.forked` decides.
        """
        return await self.fork_through(fork, lambda copy: copy)

    async def fork_through(self, fork: Fork, change: Callable[[Record], Record]) -> int:
        """Copy a conversation as `fork` does, changed on its way: what stands under the new id is never anything else.

        Args:
            fork: the request.
            change: what becomes of the copy's messages and metadata. It may be called again, and nothing is left
                where it raises.

        Raises:
            MemoryNotFoundError, MemoryConflictError, MemoryInvalidInputError: as `forks.forked` decides.
        """
        # In two steps: an erasure lists what there is, and a copy that comes behind its list would outlive it. The
        # first makes the copy without content, and expired, so that only an erasure sees it; then the parent is read
        # once more. If it still stands, an erasure that removes it finds the copy in its next round. Nothing is left
        # to be done behind the second step, so whoever is killed anywhere leaves no content.
        while True:
            reserved = await self._reserved(fork)
            parent = await _read_live(self, fork.conversation_id)
            try:
                child = change(forks.filled(reserved, parent, fork, self.now()))
            except Exception:  # whatever `change` raises, it goes on behind the cleaning up
                # In the state that was reserved: what somebody has made under the id since then is not ours.
                await self.delete(fork.new_id, expected=reserved.stamp)
                raise
            if (
                child.user_id != reserved.user_id
            ):  # it was given an owner just now, whose erasure does not know the copy
                await self.delete(fork.new_id, expected=reserved.stamp)
            elif await self.write(child, expected=reserved.stamp):
                return child.message_count

    async def _reserved(self, fork: Fork) -> Record:
        parent = await _read_live(self, fork.conversation_id)
        reserved = await self._change(
            fork.new_id, lambda standing, now: forks.reserved(forks.forked(parent, standing, fork, now), now)
        )
        assert reserved is not None  # `forks.forked` raises
        return reserved

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        """Delete the conversation; `True` if it was there (for this user). Nothing of it remains.

        `expected_version` comes only where somebody asks for it; a live one at another is a `MemoryConflictError`.
        """
        while True:
            standing = await self.read(conversation_id)
            if standing is None or (scope is not None and standing.user_id != scope):
                return False
            alive = rules.live(standing, self.now()) is not None
            if alive:
                rules.expect_version(conversation_id, expected_version, standing.version)
            if await self.delete(conversation_id, expected=standing.stamp):
                return alive

    async def forget_user(self, user_id: str) -> int:
        """Delete all conversations of that user, expired ones too; how many live ones. Safe beside writers.

        Must be complete beside forks: a copy that was begun while its parent stood must not stay. The default lists
        anew until nothing is found, and beside somebody who makes conversations without a pause for some rounds.

        Raises:
            MemoryStorageError: a record was damaged, and may be that user's; all others are deleted.
        """
        query = MemoryQuery(user_id=user_id, include_messages=False)
        removed: list[int] = []
        unreadable: dict[str | None, MemoryStorageError] = {}
        with in_steps(self, "clear_user_conversations", removed):
            for _ in range(ROUNDS):
                owned = []
                async for record in self.scan(query):
                    if isinstance(record, Damaged):
                        unreadable[record.error.conversation_id] = record.error
                    elif record.user_id == user_id and record.conversation_id not in unreadable:
                        owned.append(record.conversation_id)
                if not owned:
                    break
                for conversation_id in owned:
                    try:
                        # By scope: since it was listed it may have been deleted, and made again by somebody else.
                        removed.append(await self.remove(conversation_id, scope=user_id))
                    except MemoryStorageError as error:
                        if error.conversation_id != conversation_id:
                            raise
                        unreadable[conversation_id] = error  # a list without messages does not see their damage
            if unreadable:
                raise next(iter(unreadable.values()))
        return sum(removed)

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over live conversations, of one user or of all."""
        now = self.now()
        found = Stats()
        async for record in self.scan(MemoryQuery(user_id=user_id)):
            if isinstance(record, Damaged):
                raise record.error
            if rules.live(record, now) and user_id in (None, record.user_id):
                found = Stats(
                    conversations=found.conversations + 1,
                    messages=found.messages + record.message_count,
                    size=found.size + codec.size(codec.encode(message) for message in record.messages),
                    oldest=min(found.oldest or record.created_at, record.created_at),
                    newest=max(found.newest or record.created_at, record.created_at),
                )
        return found

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        """Remove up to `limit` expired conversations; how many. Any number of processes may run it at once."""
        removed: list[str] = []
        now = self.now()
        with in_steps(self, "purge_expired", removed):
            async for record in self.scan(MemoryQuery(user_id=scope, include_messages=False)):
                if len(removed) == limit:
                    break
                if not isinstance(record, Record) or rules.live(record, now) or scope not in (None, record.user_id):
                    continue
                if await self.delete(record.conversation_id, expected=record.stamp):
                    removed.append(record.conversation_id)
        return len(removed)

    async def ping(self) -> Ping:
        """A round trip to the store, and what an operator should know; here it reads what is not there."""
        await self.read("jaf-memory:ping")
        return Ping("the store answers")


async def _candidates(backend: Backend, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
    """Records among which those are that match, in any order."""
    if query.conversation_id is None:
        # The filters without the paging: for a scan whose result is ordered in another way.
        async for found in backend.scan(msgspec.structs.replace(query, cursor=None, limit=None, offset=0)):
            yield found
        return
    record = await backend.read(query.conversation_id)
    if record is not None:
        yield record


async def _read_live(backend: Backend, conversation_id: str) -> Record | None:
    return rules.live(await backend.read(conversation_id), backend.now())
