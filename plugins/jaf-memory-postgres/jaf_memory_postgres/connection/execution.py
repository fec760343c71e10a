"""How an operation uses a connection: what a pool offers it, transactions, and whose turn it is on a conversation.

An operation has a connection for itself, and a connection on which anything but an answer of the server came back is
never used again.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

import asyncpg

from jaf_memory_core.deadline import waiting
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError
from jaf_memory_core.records import Usage
from jaf_memory_postgres import errors

T = TypeVar("T")

Connection = Any
"""An `asyncpg.Connection`, or a pool's proxy of one; asyncpg has no type that is both."""

Work = Callable[[Connection], Awaitable[T]]

Run = Callable[[Work[Any]], Awaitable[Any]]
"""Gives a connection of its own to what sends a statement, or several."""


class Pooled:
    """One connection, and how it was used."""

    __slots__ = ("connection", "ended", "since", "uses")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ended = False
        self.uses = 0
        self.since = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether the next operation may use it."""
        return not self.connection.is_closed() and not self.connection.is_in_transaction()


class Pool(ABC):
    """Where operations get their connections.

    Attributes:
        is_own: whether its connections are ours, to be ended when they are of no more use.
    """

    is_own: ClassVar[bool] = False

    @abstractmethod
    async def acquire(self) -> Pooled:
        """A connection for one operation.

        Raises:
            MemoryConnectionError: there is none; nothing was sent.
        """

    def idle(self) -> Pooled | None:
        """One that nobody uses, if it is to be had at once."""
        return None

    @abstractmethod
    async def release(self, pooled: Pooled) -> None:
        """Give a connection back on which every statement was answered."""

    @abstractmethod
    async def discard(self, pooled: Pooled) -> None:
        """Give a connection back of which nobody knows how it stands. Never waits."""

    @abstractmethod
    async def cancel(self, pooled: Pooled) -> None:
        """Give a connection back whose statement the caller no longer waits for. Never waits.

        The statement must end on the server, too: a backend that goes on waiting for a lock is a connection more than
        the pool may have.
        """

    @abstractmethod
    def drop_idle(self, since: float) -> None:
        """End our own connections that are idle since before that time (`time.monotonic`): they may lead nowhere."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections of our own."""

    @abstractmethod
    def abandon(self) -> None:
        """The same without waiting."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many connections are open."""

    def usage(self) -> Usage:
        """How many are open, as far as that can be told more, and who waits."""
        return Usage(connections=self.count)


BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the server's default is: a later statement has to see what was committed while an earlier one waited.

Not READ WRITE: a server that is read-only refuses that in words of its own, and then each other write in others."""


class BeatenError(Exception):
    """Somebody else made the conversation between our look and our insert; to be tried again."""


async def transaction(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Run statements as one transaction.

    asyncpg's own context manager would wait for a ROLLBACK when it is cancelled, on a dead connection for ever. Here
    only an answer of the server is followed by one; after anything else the caller ends the connection.
    """
    await connection.execute(BEGIN)
    try:
        answer = await work()
    except (asyncpg.PostgresError, MemoryError, BeatenError):
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    # Outside of the handler: a refused COMMIT has ended the transaction, and one whose answer is lost may stand.
    await connection.execute("COMMIT")
    return answer


async def execute(pool: Pool, work: Work[T], *, long: float, unprepared: Callable[[], None]) -> T:
    """Run statements on a connection of their own; one on which anything but an answer came back is ended.

    Args:
        pool: where the connection comes from.
        work: the statements.
        long: seconds after which a cancelled operation says that its connection may lead nowhere.
        unprepared: told when another session than before answers, as behind a pooler.
    """
    # Outside of the handler: what fails or is cancelled here has sent nothing.
    pooled = pool.idle() or await pool.acquire()
    began = time.monotonic()
    try:
        answer = await work(pooled.connection)
    except (asyncpg.PostgresError, MemoryError, BeatenError) as error:
        await _after_an_answer(pool, pooled, error, unprepared)
        raise
    except asyncio.CancelledError:
        if time.monotonic() - began > long:
            # Those that have answered since are alive.
            pool.drop_idle(began)
        await pool.cancel(pooled)
        raise
    except BaseException as error:
        if not errors.is_busy(error):
            # The server, or the way to it, is gone, and the idle ones with it.
            pool.drop_idle(time.monotonic())
        await pool.discard(pooled)
        if isinstance(error, AttributeError) and pooled.ended:
            # The driver trips over itself where `close` ends a connection between two of its steps.
            text = "the provider was closed meanwhile"
            raise MemoryConnectionError(text, retryable=False, outcome="unknown") from error
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
            # The driver could not encode an argument, and its text quotes it.
            text = "a value is outside of what PostgreSQL can hold"
            raise MemoryStorageError(text, operation="encode") from None
        raise
    await pool.release(pooled)
    return answer


async def _after_an_answer(pool: Pool, pooled: Pooled, error: Exception, unprepared: Callable[[], None]) -> None:
    useless = isinstance(error, asyncpg.PostgresError) and errors.ends_connection(error)
    if useless:
        pool.drop_idle(time.monotonic())
    if errors.state(error) in errors.UNPREPARED:
        if pool.is_own:
            unprepared()
        pool.drop_idle(time.monotonic())
        await pooled.connection.reload_schema_state()  # forgets what the application's connection has prepared
        useless = pool.is_own
    await (pool.release(pooled) if pooled.is_sound and not useless else pool.discard(pooled))


class Turns:
    """A bound on the connections that operations on one conversation may hold.

    All of them wait for the same row. Without a bound a busy or locked conversation fills the pool, and starves all
    others; with it the rest wait here, in the order in which they came, and cost the server nothing.

    Args:
        width: operations at once on one conversation. Two keep the server busy: while one commits, the next waits.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """Run an operation on a conversation when it is its turn."""
        if not self.begin(key):
            await self.turn(key)
        try:
            return await call()
        finally:
            self.end(key)

    def begin(self, key: str) -> bool:
        """Whether it is one's turn at once; else `turn` is to be awaited. `end` follows either."""
        # A turn is handed on with the count as it is (`end`), so that nobody who comes now overtakes those who wait.
        running = self._running.get(key, 0)
        if running < self._width:
            self._running[key] = running + 1
            return True
        return False

    async def turn(self, key: str) -> None:
        """Wait for it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        with waiting:
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was given the turn, and will not use it
                    self.end(key)
                raise

    def end(self, key: str) -> None:
        """Hand the turn on to whoever has waited longest."""
        others = self._waiting.get(key)
        while others:
            turn = others.popleft()
            if not turn.done() and not turn.get_loop().is_closed():
                turn.set_result(None)
                return
        self._waiting.pop(key, None)
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]
