"""The connection pool: ours, and what it shares with the application's clients (`clients.py`).

An operation has a connection for itself, and a connection on which anything but an answer of the server came back is
never used again. Nothing here waits for a connection that may be dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_postgres import errors

Connection = Any
"""An `asyncpg.Connection`, or a pool's proxy of one; asyncpg has no type that is both."""

POLITE = 0.4
"""Seconds that closing gives the server to hear of it."""


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
    """Where operations get their connections."""

    @abstractmethod
    async def acquire(self) -> Pooled:
        """A connection for one operation.

        Raises:
            MemoryConnectionError: there is none; nothing was sent.
        """

    @abstractmethod
    async def release(self, pooled: Pooled) -> None:
        """Give a connection back on which every statement was answered."""

    @abstractmethod
    async def discard(self, pooled: Pooled) -> None:
        """Give a connection back of which nobody knows how it stands. Never waits."""

    @abstractmethod
    def drop_idle(self) -> None:
        """End the idle connections of our own: the server that one of them led to is going, or can no longer write."""

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


class OwnPool(Pool):
    """A pool whose release costs nothing: no operation leaves anything in a session that had to be reset.

    Args:
        connect: makes a connection.
        smallest, largest: how many stay open when idle, and how many there are at most.
        uses: operations after which a connection is replaced.
        idle: seconds after which an idle one is closed; 0 for never.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        smallest: int,
        largest: int,
        uses: int,
        idle: float,
    ) -> None:
        self._connect = connect
        self._smallest, self._largest, self._most_uses, self._most_idle = smallest, largest, uses, idle
        self._idle: list[Pooled] = []
        self._busy: set[Pooled] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Pooled | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._idle) + len(self._busy)

    async def acquire(self) -> Pooled:
        """An idle connection, a new one, or the next that is given back."""
        while True:
            self._refuse_after_the_end()
            while self._idle:
                pooled = self._idle.pop()
                if not pooled.connection.is_closed():
                    self._busy.add(pooled)
                    return pooled
            if self.count + self._connecting < self._largest:
                return await self._new()
            waiter: asyncio.Future[Pooled | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                given = await waiter
            except BaseException:
                # Cancelled when a connection had been handed over already: it goes on to the next.
                if waiter.done() and not waiter.cancelled():
                    self._pass_on(waiter.result())
                raise
            if given is not None:
                return given

    async def _new(self) -> Pooled:
        self._connecting += 1
        try:
            pooled = Pooled(await self._connect())
        except BaseException:
            self._connecting -= 1
            self._pass_on(None)
            raise
        self._connecting -= 1
        if self._ended:
            pooled.connection.terminate()
        self._refuse_after_the_end()
        self._busy.add(pooled)
        return pooled

    def _refuse_after_the_end(self) -> None:
        if self._ended:
            raise MemoryConnectionError("the provider was closed meanwhile", retryable=False)

    async def fill(self) -> None:
        """Open the connections that are to stay open; those that fail are opened when they are needed."""
        missing = self._smallest - self.count
        opened = await asyncio.gather(*(self._new() for _ in range(missing)), return_exceptions=True)
        for pooled in opened:
            if isinstance(pooled, Pooled):
                await self.release(pooled)

    def _pass_on(self, pooled: Pooled | None) -> None:
        """Give the first who waits a connection, or `None`: the room for one."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(pooled)
                return
        if pooled is not None:
            self._rest(pooled)

    async def release(self, pooled: Pooled) -> None:
        """To the next who waits, or to the idle ones."""
        pooled.uses += 1
        if pooled not in self._busy:  # closed meanwhile
            pooled.connection.terminate()
        elif pooled.uses >= self._most_uses or pooled.connection.is_closed():
            self._drop(pooled)
            self._say_goodbye(pooled)
        else:
            self._pass_on(pooled)

    def _rest(self, pooled: Pooled) -> None:
        self._busy.discard(pooled)
        self._tell_quiet()
        pooled.since = time.monotonic()
        self._idle.append(pooled)
        if self._most_idle and self._sweep is None and self.count > self._smallest:
            self._sweep = asyncio.get_running_loop().call_later(self._most_idle, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        limit = time.monotonic() - self._most_idle
        while self._idle and self._idle[0].since <= limit and self.count > self._smallest:
            self._say_goodbye(self._idle.pop(0))
        if self._idle and self.count > self._smallest:
            delay = max(0.01, self._idle[0].since - limit)
            self._sweep = asyncio.get_running_loop().call_later(delay, self._close_idle)

    def _say_goodbye(self, pooled: Pooled) -> None:
        task = asyncio.get_running_loop().create_task(_closed(pooled))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def discard(self, pooled: Pooled) -> None:
        """End the connection; idle ones that the server may have ended with it are looked at when they are taken."""
        pooled.connection.terminate()
        self._drop(pooled)

    def drop_idle(self) -> None:
        """End the idle connections: they lead where the last one led."""
        for pooled in self._idle:
            pooled.connection.terminate()
        self._idle.clear()

    def _drop(self, pooled: Pooled) -> None:
        self._busy.discard(pooled)
        self._tell_quiet()
        self._pass_on(None)

    def _tell_quiet(self) -> None:
        if self._quiet is not None and not self._busy:
            self._quiet.set()

    async def close(self) -> None:
        """Wait a moment for operations under way, then say goodbye on each connection."""
        if self._busy:
            self._quiet = asyncio.Event()
            quiet = asyncio.ensure_future(self._quiet.wait())
            await asyncio.wait({quiet}, timeout=POLITE)
            quiet.cancel()
        for pooled in self._idle:
            self._say_goodbye(pooled)
        self._idle.clear()
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=POLITE)
        self.abandon()
        await asyncio.sleep(0)  # a socket is closed in the turn of the loop after its end

    def abandon(self) -> None:
        """End every connection at once; whoever waits for one is refused."""
        self._ended = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for pooled in (*self._idle, *self._busy):
            _end(pooled)
        self._idle.clear()
        self._busy.clear()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


async def _closed(pooled: Pooled) -> None:
    try:
        await pooled.connection.close(timeout=POLITE)
    except errors.DRIVER_ERRORS:
        pooled.connection.terminate()


def _end(pooled: Pooled) -> None:
    pooled.ended = True
    # Taken before, because the driver forgets it.
    transport = getattr(pooled.connection, "_transport", None)
    try:
        pooled.connection.terminate()
    except RuntimeError:
        # Its event loop is closed, so that nothing will call this any more, which closes the socket.
        close = getattr(transport, "_call_connection_lost", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                close(None)
