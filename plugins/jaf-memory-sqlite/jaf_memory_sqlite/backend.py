"""`SqliteBackend`: conversations in one SQLite file, shared by any number of tasks, threads and processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError
from jaf_memory_core.observation import Observer
from jaf_memory_core.processors import Processor
from jaf_memory_core.proposals import Proposals
from jaf_memory_core.provider import BackendProvider, configured, opened
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
from jaf_memory_sqlite import health, migrations
from jaf_memory_sqlite.connection import Connector
from jaf_memory_sqlite.connection.reader import InlineReads, Reader
from jaf_memory_sqlite.connection.worker import Call, Erases, Worker
from jaf_memory_sqlite.connection.writer import Writer
from jaf_memory_sqlite.errors import NeedsThreadError, closed, translated
from jaf_memory_sqlite.operations import erasure, queries, reads, scans, search, writes
from jaf_memory_sqlite.operations.reads import INLINE_BYTES
from jaf_memory_sqlite.operations.writes import append_many
from jaf_memory_sqlite.rows import name_in
from jaf_memory_sqlite.settings import GONE_WITH_PROCESS, SqliteConfig

T = TypeVar("T")

PAUSE = 0.02
"""Seconds that who builds an index leaves to others between two steps: they look for the lock every 10 ms."""


class SqliteBackend(Backend):
    """One worker that commits together what waits together, one that reads by id, and one that searches.

    A search may take long: others do not wait for it. `:memory:` has one connection only, which all of them use.

    Args:
        config: which file, and how durable; the defaults when absent.
    """

    name: ClassVar[str] = "sqlite"
    patient: ClassVar[bool] = True
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, config: SqliteConfig | None = None) -> None:
        self.config: SqliteConfig = configured(SqliteConfig, config, "sqlite")
        self._starting = threading.Lock()
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._searcher: Reader | None = None
        self._inline_reads = InlineReads(())
        self._noted = 0
        self._proposals = Proposals()
        self._open = False
        self._closed = False

    # Opening and closing.

    async def open(self) -> None:
        """Make the file if it is not there, and connect."""
        if self._open:
            return
        for worker in self._started():
            await worker.submit(_nothing)
        if self.config.search == "index":
            with suppress(MemoryError, sqlite3.Error):  # searches go through all messages then, and health_check tells
                await self._write(search.make_missing)
        self._open = True

    def _started(self) -> list[Worker]:
        with self._starting:
            if self._closed:
                raise closed()
            # Under the lock: of threads that open at once, one starts the workers.
            if self._writer is None:
                if not self.config.in_memory:
                    self._reader = Reader("jaf-memory-sqlite reader", Connector(self.config, reading=True))
                    self._searcher = Reader("jaf-memory-sqlite searcher", Connector(self.config, reading=True))
                readers = [worker for worker in (self._reader, self._searcher) if worker is not None]
                self._writer = Writer("jaf-memory-sqlite writer", Connector(self.config), readers)
                near = [worker for worker in (self._writer, self._reader) if worker is not None]
                self._inline_reads = InlineReads(near)
                # For a backend that nobody closes: its threads must not outlive it.
                weakref.finalize(self, _stop, self._workers(), os.getpid())
            return self._workers()

    def _workers(self) -> list[Worker]:
        return [worker for worker in (self._writer, self._reader, self._searcher) if worker is not None]

    # Without opening.

    def files(self) -> Sequence[Path]:
        """The database, and what SQLite keeps beside it; nothing for `:memory:`."""
        if self.config.in_memory:
            return ()
        path = Connector(self.config).path
        # SQLite follows a link, and keeps the others beside what it leads to.
        return [Path(path), *(Path(os.path.realpath(path) + ending) for ending in ("", "-wal", "-shm", "-journal"))]

    async def absent(self) -> str | None:
        """Why there is no database, if so; none is made. What cannot be looked at is for `open` to explain."""
        if self.config.in_memory:
            return GONE_WITH_PROCESS
        path = self.files()[0]
        try:
            return None if path.stat().st_size else f"{path} is empty, and no database yet"
        except FileNotFoundError:
            return f"there is no file {path}"
        except OSError:
            return None

    async def close(self) -> None:
        """Do what waits, write the log into the file if no other process has it open, and end the threads."""
        with self._starting:
            self._closed = True
        await asyncio.sleep(0)  # what this loop's tasks have asked for is begun
        for worker in reversed(self._workers()):  # the writer last, so that its connection is the last of ours
            worker.stop()
            await worker.ended()
            # It ends at once now, and none of ours is left when this returns.
            worker.thread.join()

    def abandon(self) -> None:
        """Let the threads end by themselves; what is running is broken off."""
        self._closed = True
        for worker in self._workers():
            worker.stop()
            worker.interrupt()

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """SQLite's error, and what to do about it."""
        return translated(error, operation)

    async def schema(self) -> str:
        """The definitions of tables and indexes."""
        return migrations.definitions()

    async def apply_schema(self) -> Sequence[str]:
        """Make or upgrade the file, as opening it does; what was applied."""
        await self.open()
        return [f"schema {version}" for worker in self._workers() for version in worker.connector.applied]

    async def apply_search(self, way: Literal["index", "scan"]) -> str:
        """Make or end the index for searches; what was done. Others write meanwhile."""
        await self.open()
        if way != "index":
            dropped = await self._write(search.drop, erases="whole")
            return "the index for searches is gone" if dropped else "there is no index for searches"
        await self._write(search.make)
        for step in (search.build, search.carry):
            more = 1
            while more:
                more = await self._write(step)
                await asyncio.sleep(PAUSE)
        return f"the index for searches is complete: {await self._search(search.described)}"

    # How things are done.

    async def _write(self, call: Call[T], *, inline: Call[T] | None = None, erases: Erases = None) -> T:
        if self._writer is None:
            raise closed()
        return await self._writer.do(call, inline=inline, erases=erases)

    async def _noting(self, messages: int, call: Call[T], *, inline: Call[T] | None = None) -> T:
        """Write messages; those that wait for the index are carried over before, once they are some."""
        if self.config.search == "index":
            if self._noted >= search.TOGETHER:
                await self._carry(self._noted)
            self._noted += messages
        return await self._write(call, inline=inline)

    async def _carry(self, messages: int) -> None:
        """Carry over what waits for the index, and a part of what stood there before it."""
        self._noted = 0
        with suppress(MemoryError, sqlite3.Error):  # a search reads it all the same
            while messages > 0 and (batch := await self._write(search.carry)):
                messages -= batch
            await self._write(search.build)

    async def _read(self, inline: Call[T], any_size: Call[T]) -> T:
        """Read at once if it is inline, else in the reader's thread."""
        if self._reader is None:
            return self._at_once(any_size)
        try:
            return self._inline_reads.read(inline)
        except NeedsThreadError:
            return await self._reader.submit(any_size)

    async def _search(self, call: Call[T]) -> T:
        return self._at_once(call) if self._searcher is None else await self._searcher.submit(call)

    def _at_once(self, call: Call[T]) -> T:
        """Read memory through the only connection there is."""
        if self._writer is None:
            raise closed()
        with self._writer.lock:
            if self._writer.db is None:
                raise closed()
            return call(self._writer.db)

    # The four that every backend has.

    async def read(self, conversation_id: str) -> Record | None:
        """The whole record."""
        return await self._record(conversation_id, with_messages=True)

    async def _record(self, conversation_id: str, *, with_messages: bool) -> Record | None:
        read = partial(reads.conversation, conversation_id=conversation_id, with_messages=with_messages)
        return await self._read(partial(read, most=INLINE_BYTES), read)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put the record in the place of the one at `expected`."""
        return await self._write(lambda db: writes.put(db, record, expected))

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove the conversation at `expected`."""
        return await self._write(lambda db: erasure.delete(db, conversation_id, expected), erases="whole")

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """Records in order of creation, read in stretches; each as it stands when it is its turn."""
        above, most = scans.start(query), scans.STRETCH
        while True:
            ahead = partial(scans.stretch, query=query, above=above, most=most, stood=self._standing())
            try:
                # A short one mostly does: here, it is in this processor's cache when it is its turn.
                stretch = self._inline_reads.read(partial(scans.short_stretch, ahead=ahead))
            except NeedsThreadError:
                stretch = await self._search(ahead)
            fresh = 0
            for key, row in stretch.found:
                found: Record | Damaged | None = None
                if row is not None and stretch.is_fresh(self._standing()):
                    fresh += 1
                    found = scans.read(row, with_messages=query.include_messages)
                found = found or await self._listed(key, query)
                if found is not None:
                    yield found
            if stretch.ended:
                return
            above = stretch.last
            most = scans.next_length(most, fresh)
            await asyncio.sleep(0)  # short reads do not wait for anything, and others want their turn in the loop

    def _standing(self) -> scans.Standing | None:
        if self._writer is None:
            raise closed()
        look = partial(scans.standing, commits=self._writer.commits)
        with suppress(NeedsThreadError):
            return self._at_once(look) if self._reader is None else self._inline_reads.read(look)
        return None

    async def _listed(self, key: scans.Key, query: MemoryQuery) -> Record | Damaged | None:
        if key.creation is None:
            return Damaged(codec.damaged(name_in(key.conversation_id)))
        try:
            record = await self._record(key.conversation_id, with_messages=query.include_messages)
        except MemoryStorageError as error:
            if error.conversation_id is None:
                raise
            return Damaged(error, key.creation[0])
        # Made again under the same id: it did not stand throughout, and its turn is later.
        return record if record is not None and rules.creation_key(record) == key.creation else None

    # Faster than the defaults.

    async def store(self, write: Write) -> WriteResult:
        """Create or replace."""
        return await self.append(write)

    async def append(self, write: Write) -> WriteResult:
        """Add what is new; costs the new messages, however long the conversation is."""
        writer = self._writer
        if writer is None:
            raise closed()
        call = partial(writes.write, request=write, clock=self.now, headers=writer.headers)
        inline = partial(call, most=INLINE_BYTES) if writes.is_small(write) else None
        if self.config.search == "index":
            return await self._noting(len(write.messages), call, inline=inline)
        return await writer.do(call, inline=inline)

    async def append_many(self, writes: Sequence[Write]) -> Sequence[WriteResult | MemoryError | None]:
        """In one transaction; each in one of its own where that fails."""
        try:
            messages = sum(len(write.messages) for write in writes)
            return await self._noting(messages, lambda db: append_many(db, writes, self.now))
        except (MemoryError, sqlite3.Error) as error:
            problem = error if isinstance(error, MemoryError) else self.translate(error, "append_many")
            # The transaction is rolled back, so each may be tried alone; but not where nobody knows what stands.
            if isinstance(problem, MemoryConnectionError) or problem.outcome == "unknown":
                raise
            return await super().append_many(writes)

    async def tail(self, tail: Tail) -> Page | None:
        """A page; costs the page."""
        now = self.now()
        return await self._read(lambda db: reads.small_tail(db, tail, now), lambda db: reads.tail(db, tail, now))

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        """Several pages in one go of the thread that searches."""
        now = self.now()
        return await self._search(lambda db: reads.tails(db, tails, room, now))

    async def header(self, conversation_id: str, *, scope: str | None = None) -> Record | None:
        """A live header; costs the header."""
        return rules.seen(await self._record(conversation_id, with_messages=False), self.now(), scope)

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        """The newest that match; an index leads to a user's, to a time's, to a trace's."""
        now = self.now()
        if self._reader is not None and queries.is_short(query):
            with suppress(NeedsThreadError):
                return self._inline_reads.read(lambda db: queries.find_inline(db, query, now))
        return await self._search(lambda db: queries.find(db, query, now))

    async def look_through(self, look: Look) -> Stretch:
        """What the index proposes, where there is one that can tell; else all messages."""
        if self.config.search != "index" or not look.asked:
            return await super().look_through(look)
        return await self._proposals.look_through(look, self._proposed, super().look_through)

    async def _proposed(self, look: Look, terms: Sequence[Term]) -> Stretch | None:
        if await self._search(search.waiting) > search.TOGETHER:
            await self._carry(search.MOST_WAITING)
        now = self.now()
        return await self._search(lambda db: search.proposed(db, look, terms, now))

    async def truncate(self, truncate: Truncate) -> int:
        """Drop from the end."""
        return await self._write(lambda db: erasure.truncate(db, truncate, self.now), erases="some")

    async def delete_messages(self, delete: DeleteMessages) -> int:
        """Delete their rows; the others stay where they are. Nothing of them is left in the file, nor in its log."""
        return await self._write(lambda db: erasure.delete_messages(db, delete, self.now), erases="whole")

    async def amend(self, amend: Amend) -> int:
        """Change the header."""
        call = partial(writes.amend, request=amend, clock=self.now)
        return await self._write(call, inline=call)

    async def revise(self, revise: Revise) -> int:
        """Put messages into the rows of others."""
        return await self._write(lambda db: writes.revise(db, revise, self.now), erases="some")

    async def fork(self, fork: Fork) -> int:
        """Copy rows within the file."""
        return await self._noting(search.TOGETHER, lambda db: writes.fork(db, fork, self.now))

    async def remove(
        self, conversation_id: str, *, scope: str | None = None, expected_version: int | None = None
    ) -> bool:
        """Delete; nothing is left in the file, nor in its log."""
        call = partial(
            erasure.remove,
            conversation_id=conversation_id,
            scope=scope,
            clock=self.now,
            expected_version=expected_version,
        )
        return await self._write(call, erases="whole")

    async def forget_user(self, user_id: str) -> int:
        """Delete all of the user's in one transaction; nothing is left in the file, nor in its log."""
        return await self._write(lambda db: erasure.forget_user(db, user_id, self.now), erases="whole")

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over the headers."""
        now = self.now()
        return await self._search(lambda db: queries.stats(db, user_id, now))

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        """From the index by owner."""
        now = self.now()
        return await self._search(lambda db: queries.owners(db, after, limit, now))

    async def purge(self, limit: int, *, scope: str | None = None) -> int:
        """Delete what has expired; an index leads to it."""
        return await self._write(lambda db: erasure.purge(db, limit, scope, self.now), erases="some")

    def usage(self) -> Usage:
        """Open connections to the file, and the writer's group commits."""
        workers, writer = self._workers(), self._writer
        return Usage(
            connections=sum(worker.db is not None for worker in workers),
            commits=writer.commits if writer else 0,
            committed=writer.committed if writer else 0,
        )

    async def ping(self) -> Ping:
        """Take the write lock, and look at the file."""
        writer = self._writer
        if writer is None:
            raise closed()
        connections = self.usage().connections or 0
        return await self._write(lambda db: health.ping(db, self.config, writer.connector.path, connections))


def _nothing(_: sqlite3.Connection) -> None:
    return None


def _stop(workers: list[Worker], process: int) -> None:
    if process == os.getpid():
        for worker in workers:
            worker.stop()


async def create_sqlite_provider(
    config: SqliteConfig | None = None, *, processors: Sequence[Processor] = (), observers: Sequence[Observer] = ()
) -> BackendProvider:
    """A provider that keeps conversations in a SQLite file, opened.

    Args:
        config: its settings; the defaults when absent.
        processors: as for `BackendProvider`.
        observers: as for `BackendProvider`.

    Raises:
        MemoryConfigurationError: the path leads nowhere.
        MemoryStorageError: the file is not ours, is damaged, newer than this code, or cannot be written.
        MemoryConnectionError: another process holds the file's lock.

    Example:
        async with await create_sqlite_provider(SqliteConfig(path="chat.db")) as provider:
            await provider.append_messages("user-123:chat", [Message("user", "Hello!")], create=True)
    """
    backend = SqliteBackend(configured(SqliteConfig, config, "sqlite"))
    return await opened(BackendProvider(backend, processors=processors, observers=observers))
