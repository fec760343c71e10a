"""`PostgresBackend`: conversations in two tables, a header each and a row a message."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, Literal, TypeVar

from msgspec.structs import replace

from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.deadline import Deadline
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError
from jaf_memory_core.maintenance import Adopted
from jaf_memory_core.proposals import Proposals
from jaf_memory_core.provider import configured
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
from jaf_memory_core.search import Term
from jaf_memory_core.steps import in_steps
from jaf_memory_postgres import adoption, errors, health, migrations, remains, rows
from jaf_memory_postgres.connection.clients import ApplicationConnection, ApplicationPool, check, is_pool
from jaf_memory_postgres.connection.connector import Connector
from jaf_memory_postgres.connection.execution import BeatenError, Connection, Pool, Turns, Work, execute, transaction
from jaf_memory_postgres.connection.groups import Groups
from jaf_memory_postgres.connection.pool import OwnPool
from jaf_memory_postgres.migrations import rights
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations.bulk import Bulk
from jaf_memory_postgres.operations.erasure import STEP, Older
from jaf_memory_postgres.operations.reads import Reader
from jaf_memory_postgres.operations.search import MOST_WAITING, TOGETHER, Index
from jaf_memory_postgres.operations.writes import Fast, Writer
from jaf_memory_postgres.settings import PostgresConfig

T = TypeVar("T")

BEATEN = 12
"""Tries to make a conversation that somebody else makes each time, in about a second."""

PASSES = 20
"""Times that an erasure looks for what was made while it went on."""

LONG = 86_400.0
"""Seconds that upgrading may take where an operator asks for it, and can end it."""

WIDTH = 2
"""Connections at most for writes to one conversation."""


class PostgresBackend(Backend):
    """Conversations in PostgreSQL.

    Args:
        config: which server, database and table.
        client: a connection or a pool of the application, to be used instead of connections of our own.
    """

    name: ClassVar[str] = "postgres"
    loop_bound: ClassVar[bool] = True
    abreast: ClassVar[int] = 4
    driver_errors: ClassVar[tuple[type[Exception], ...]] = errors.DRIVER_ERRORS

    def __init__(self, config: PostgresConfig | None = None, client: Any = None) -> None:
        self.config = self._config = configured(PostgresConfig, config, "postgres")
        self._names = Names(self._config.schema_name, self._config.table_name)
        self._sql = self._names.sql
        self._reader = Reader(self._sql)
        self._fast = Fast(self._sql)
        self._bulk = Bulk(self._names)
        self._index = Index(self._names, used=self._config.search == "index")
        self._proposals = Proposals()
        self._client = client
        self._client_loop = asyncio.get_running_loop() if client is not None else None
        self._pool: Pool | None = None
        self._opening: Pool | None = None
        self._appends: Groups[Write] | None = None
        self._tails: Groups[Tail] | None = None
        # Who was cancelled after so long may have met a dead line, as have the connections that were idle since.
        self._long = self._config.operation_timeout / 2
        self._older = Older(self._names)
        # One connection at least is left to all other conversations.
        self._turns = Turns(min(WIDTH, max(1, self._config.most_connections - 1)))
        # A counter, and not this computer's clock, which may be set while we run.
        self._clock = (datetime.now(UTC), time.perf_counter())
        self._connect = Connector(
            self._config.address,
            pooler=self._config.address.is_pooled or self._config.pooler,
            patience=self._config.operation_timeout,
        )

    # Pool.

    async def open(self) -> None:
        """Connect, and make or upgrade the tables where that is needed."""
        pool = self._opening = self._new_pool()
        try:
            # The guard's own deadline ends the wait for this, not this.
            with Deadline(self._config.operation_timeout):
                found = await self._on(pool, self._prepared)
                self._set_clock(found.now)
                self._older.stands = self._names.plain("before") in found.ours
                if isinstance(pool, OwnPool):
                    await pool.fill()
        # Cancelled, too: the guard opens anew, with another pool.
        except BaseException:
            pool.abandon()
            raise
        self._pool, self._opening = pool, None
        # The application's connections have settings of theirs, and are held as briefly as can be.
        if isinstance(pool, OwnPool):
            group = partial(
                Groups,
                run=partial(self._on, pool),
                translate=self.translate,
                connections=self._config.most_connections,
            )
            fast, reader = self._fast, self._reader
            key = attrgetter("conversation_id")
            self._appends = group(fast.together, fast.fits, key=key, joins=fast.joins)
            self._tails = group(reader.together, reader.fits)

    async def _prepared(self, connection: Connection) -> migrations.Found:
        if self._client is not None:
            await check(connection)
        found = await migrations.prepare(connection, self._names, migrate=self._config.auto_migrate)
        if self._config.search == "index" and self._config.auto_migrate:
            with suppress(*errors.DRIVER_ERRORS):  # searches go through all messages then, and health_check tells
                await self._index.make_missing(connection)
        return found

    def _new_pool(self) -> Pool:
        if self._client is None:
            return OwnPool(
                self._connect,
                smallest=self._config.pool_min_size,
                largest=self._config.most_connections,
                uses=self._config.pool_max_queries,
                idle=self._config.pool_max_inactive_connection_lifetime,
            )
        if self._client_loop is not asyncio.get_running_loop():
            raise MemoryConnectionError(
                "the application's connection belongs to another event loop; create a provider on this one",
                retryable=False,
            )
        return ApplicationPool(self._client) if is_pool(self._client) else ApplicationConnection(self._client)

    async def close(self) -> None:
        """Close our own connections; the application's stay open."""
        # First, so that whatever comes from now on is refused, and a second call finds nothing.
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await pool.close()
            except BaseException:
                pool.abandon()
                raise

    def abandon(self) -> None:
        """Forget our own connections, those of an opening that is under way too."""
        for pool in (self._pool, self._opening):
            if pool is not None:
                pool.abandon()
        self._pool = self._opening = None

    def run(self, work: Work[T]) -> Coroutine[Any, Any, T]:
        """Run statements on a connection of their own."""
        if self._pool is None:
            raise MemoryConnectionError("the provider is not open", retryable=False)
        return self._on(self._pool, work)

    def _on(self, pool: Pool, work: Work[T]) -> Coroutine[Any, Any, T]:
        return execute(pool, work, long=self._long, unprepared=self._connect.found_pooler)

    async def _locked(self, key: str, work: Callable[[Writer], Awaitable[T]]) -> T:
        """Run a transaction on a conversation; again if somebody else made it in the middle of this."""
        return await self._turns.run(key, lambda: self._unbeaten(work))

    async def _unbeaten(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        for tries in range(BEATEN):
            try:
                return await self.run(self._in_transaction(work))
            except BeatenError:
                # Without a connection in hand, and at random, so that two who beat each other do not stay in step.
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.1, 0.002 * 2**tries))
        raise MemoryStorageError(
            "the conversation can neither be seen nor made: a row of that id stands there, which row level security "
            "may hide from this role",
            operation="write",
        )

    def _in_transaction(self, work: Callable[[Writer], Awaitable[T]]) -> Callable[[Connection], Awaitable[T]]:
        return lambda connection: transaction(connection, lambda: work(Writer(connection, self._sql, self._older)))

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """In our words; what goes along as their cause holds no values either."""
        problem = errors.translated(error, operation)
        errors.without_values(error)
        return problem

    def now(self) -> datetime:
        """The server's time, as of its last word on it and what has passed since."""
        moment, measured = self._clock
        return moment + timedelta(seconds=time.perf_counter() - measured)

    def _set_clock(self, moment: datetime) -> None:
        self._clock = (moment, time.perf_counter())

    # Whole conversations.

    async def read(self, conversation_id: str) -> Record | None:
        """The whole record, in one statement."""
        found = await self.run(lambda connection: self._reader.read(connection, conversation_id))
        if found is None:
            return None
        self._set_clock(found.now)
        return found.record

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put the record in the place of the one at `expected`."""
        return await self._locked(record.conversation_id, lambda writer: writer.put(record, expected))

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        return await self._locked(conversation_id, lambda writer: writer.remove_at(conversation_id, expected))

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """In stretches, which are read anew where they grow old."""
        # The application's connections are not for what nobody waits for yet.
        ahead = self._config.operation_timeout if isinstance(self._pool, OwnPool) else None
        async with aclosing(self._reader.scan(self.run, query, ahead=ahead)) as records:
            async for record in records:
                yield record

    # Writing.

    async def store(self, write: Write) -> WriteResult:
        """Create in one statement, or replace under the lock."""
        await self._index.note(self.run, len(write.messages))
        return await self._turns.run(write.conversation_id, lambda: self._stored(write))

    async def _stored(self, write: Write) -> WriteResult:
        result = await self.run(lambda connection: self._fast.create(connection, write))
        return result if result is not None else await self._decided(write)

    async def append(self, write: Write) -> WriteResult:
        """Add in one statement, with others who do; where a rule has to decide, under the lock."""
        write = rows.finite(write)
        await self._index.note(self.run, len(write.messages))
        groups, turns, key = self._appends, self._turns, write.conversation_id
        if groups is not None and groups.is_busy(key) and (answer := await groups.join(write)) is not None:
            told: WriteResult = answer
            return told
        # Alone, and with few coroutines on the way: each costs as much as half of the checks.
        if groups is not None:
            groups.begin(key)
        try:
            if not turns.begin(key):
                await turns.turn(key)
            try:
                result = await self._fast.append(self.run, write)
                return result if result is not None else await self._decided(write)
            finally:
                turns.end(key)
        finally:
            if groups is not None:
                groups.end(key)

    def _decided(self, write: Write) -> Awaitable[WriteResult]:
        return self._unbeaten(lambda writer: writer.write(write))

    async def append_many(self, writes: Sequence[Write]) -> Sequence[WriteResult | MemoryError | None]:
        """Make what is not there yet in one transaction; append to the rest, one after the other."""
        await self._index.note(self.run, sum(len(write.messages) for write in writes))
        made = await self._bulk.make(self.run, [rows.finite(write) for write in writes])
        rest = [write for index, write in enumerate(writes) if index not in made]
        others = iter(await super().append_many(rest))
        return [made.get(index) or next(others) for index in range(len(writes))]

    async def truncate(self, truncate: Truncate) -> int:
        """Remove from the end."""
        return await self._locked(truncate.conversation_id, lambda writer: writer.truncate(truncate))

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Remove their rows, under the lock."""
        return await self._locked(delete.conversation_id, lambda writer: writer.delete_messages(delete))

    async def amend(self, amend: Amend) -> int:
        """Change the header."""
        return await self._locked(amend.conversation_id, lambda writer: writer.amend(amend))

    async def revise(self, revise: Revise) -> int:
        """Put messages into the places of others, under the lock."""
        return await self._locked(revise.conversation_id, lambda writer: writer.revise(revise))

    async def fork(self, fork: Fork) -> int:
        """Copy on the server's side, in one transaction with the parent's lock."""
        await self._index.note(self.run, TOGETHER)
        return await self._locked(fork.conversation_id, lambda writer: writer.fork(fork))

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        """Delete header and messages, and what an older table holds of that id."""
        return await self._locked(
            conversation_id, lambda writer: writer.remove(conversation_id, scope, expected_version)
        )

    async def forget_user(self, user_id: str) -> int:
        """Delete in steps, and again what was made meanwhile: a copy may come to stand while its parent is erased.

        A fork holds its parent's lock until it stands, so that what was copied stands when the pass that takes the
        parent has ended. What others go on making after several passes belongs to the next call.
        """
        live: list[int] = []
        with in_steps(self, "clear_user_conversations", live):
            for _ in range(PASSES):
                last = await self._value("last_id", user_id)
                if not last:
                    break
                await self._forget_until(user_id, last, live)
            if self._older.stands:
                await self._unbeaten(lambda writer: writer.erase_older(user_id))
        return sum(live)

    async def _forget_until(self, user_id: str, last: int, live: list[int]) -> None:
        while True:
            step = await self._locked(f"user {user_id}", lambda writer: writer.remove_of_user(user_id, last, STEP))
            if step[0]:
                live.append(step[1])
            # Fewer than asked for may also mean that somebody else deletes the same, who may yet fail to finish.
            if step[0] < STEP and not await self._value("any_left", user_id, last):
                return

    async def _value(self, name: str, *values: Any) -> Any:
        return await self.run(lambda connection: connection.fetchval(self._sql[name], *values))

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        """Delete what has expired and is not being written to."""
        return await self._unbeaten(lambda writer: writer.purge(limit, scope))

    # Reading.

    async def look_through(self, look: Look) -> Stretch:
        """What the index proposes, where there is one that can tell; else all messages."""
        if self._config.search != "index" or not look.asked:
            return await super().look_through(look)
        return await self._proposals.look_through(look, self._proposed, super().look_through)

    async def _proposed(self, look: Look, terms: Sequence[Term]) -> Stretch | None:
        if await self.run(self._index.waiting) > TOGETHER:
            await self._index.carry_over(self.run, MOST_WAITING)
        return await self._index.proposed(self.run, look, terms)

    async def tail(self, tail: Tail) -> Page | None:
        """A page of messages, in one statement, with others who read."""
        groups = self._tails
        if groups is None:
            return await self._reader.page(self.run, tail)
        if groups.is_busy() and (row := await groups.join(tail)) is not None:
            page = self._reader.of_row(tail, row)
            if page is not None:
                return page
        groups.begin()
        try:
            return await self._reader.page(self.run, tail)
        finally:
            groups.end()

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        """Several pages in one statement, which leaves out what there is no room for."""
        return await self.run(lambda connection: self._reader.tails(connection, tails, room))

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        """A live header, in one statement."""
        return await self.run(lambda connection: self._reader.header(connection, conversation_id, scope))

    def find(self, query: MemoryQuery) -> Coroutine[Any, Any, Sequence[Record | Damaged]]:
        """Conversations that match, in one statement."""
        return self._reader.find(self.run, query)

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over the headers, in one statement."""
        return await self.run(lambda connection: self._reader.stats(connection, user_id))

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        """From the index by owner, in one statement."""
        return await self.run(lambda connection: self._reader.owners(connection, after, limit))

    def usage(self) -> Usage:
        """The pool's connections, and who waits for one."""
        if self._pool is None:
            return Usage(connections=0)
        usage = self._pool.usage()
        if self._appends is None or self._tails is None or usage.waiting is None:
            return usage
        waiting = usage.waiting + self._appends.waiting + self._tails.waiting
        return replace(usage, waiting=waiting, commits=self._appends.sent, committed=self._appends.carried)

    async def ping(self) -> Ping:
        """What the server says of itself."""
        count = self._pool.count if self._pool is not None else 0
        address = self._config.address
        by_index = self._config.search == "index"
        return await self.run(
            lambda connection: health.ping(connection, self._names, address, count, by_index=by_index)
        )

    # Upkeep, on a connection of its own.

    async def schema(self) -> str:
        """The definitions, as an administrator runs them with psql."""
        return migrations.script(self._names, self._config.address.user)

    async def absent(self) -> str | None:
        """Why there are no tables, if so; none are made. What cannot be looked at is for `open` to explain."""
        try:
            found = await self.apart(partial(migrations.look, names=self._names))
        except MemoryError:
            return None
        except errors.DRIVER_ERRORS:
            return None
        if found.standing is not None or found.ours:
            return None
        return f"there is no table {self._config.table_name!r} in the database's schema {self._config.schema_name!r}"

    async def apply_schema(self) -> Sequence[str]:
        """Make or upgrade the tables; what was applied."""
        return await self.apart(self._migrated, seconds=LONG)

    async def apply_search(self, way: Literal["index", "scan"]) -> str:
        """Make or end the index for searches; what was done. Others write meanwhile."""
        if way != "index":
            dropped = await self.apart(self._index.drop, seconds=LONG)
            return "the index for searches is gone" if dropped else "there is no index for searches"
        await self.apart(self._index.make, seconds=LONG)
        return f"the index for searches is complete: {await self.apart(self._index.built, seconds=LONG)}"

    def _migrated(self, connection: Connection) -> Awaitable[list[str]]:
        return transaction(connection, lambda: migrations.apply(connection, self._names))

    async def adopt(self, *, remove: bool = False) -> AsyncIterator[Adopted]:
        """Move the conversations of an older table of that name into ours."""
        steps = adoption.adopt(self.apart, self._names, self._config, remove=remove)
        async with aclosing(steps):
            async for step in steps:
                yield step

    async def older(self) -> str | None:
        """What an adoption has kept of an older table, as a sentence."""
        return await self.apart(lambda connection: remains.described(connection, self._names))

    async def finish_adoption(self) -> str:
        """Drop the older table."""
        return await self.apart(lambda connection: remains.drop(connection, self._names))

    async def grants(self, role: str) -> Sequence[str]:
        """The statements that give a role what a provider needs which does not own the tables."""
        return rights.grants(self._names, role)

    async def grant(self, role: str) -> None:
        """Run them, all or none."""
        await self.apart(lambda connection: rights.give(connection, self._names, role))

    async def apart(self, work: Callable[[Connection], Awaitable[T]], *, seconds: float | None = None) -> T:
        """Run statements on a connection that is made for them, within the deadline or so many seconds."""
        pool = self._new_pool()
        try:
            with Deadline(seconds or self._config.operation_timeout):
                return await self._on(pool, work)
        finally:
            await pool.close()
