"""Lines to the server, and our own pool of them.

What these and the application's (`clients.py`) share: an operation has a line for itself, and a line on which anything
but an answer of the server came back is never used again. Nothing here waits for a line that may be dead.
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
from jaf_memory_postgres import faults

Connection = Any
"""An `asyncpg.Connection`, or a pool's proxy of one; asyncpg has no type that is both."""

POLITE = 0.4
"""Seconds that closing gives the server to hear of it."""


class Line:
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


class Lines(ABC):
    """Where operations get their lines."""

    @abstractmethod
    async def acquire(self) -> Line:
        """A line for one operation.

        Raises:
            MemoryConnectionError: there is none; nothing was sent.
        """

    @abstractmethod
    async def release(self, line: Line) -> None:
        """Give a line back on which every statement was answered."""

    @abstractmethod
    async def discard(self, line: Line) -> None:
        """Give a line back of which nobody knows how it stands. Never waits."""

    @abstractmethod
    def drop_idle(self) -> None:
        """End the idle lines of our own: the server that one of them led to is going, or can no longer write."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all lines of our own."""

    @abstractmethod
    def abandon(self) -> None:
        """The same without waiting."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many lines are open."""


class OwnLines(Lines):
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
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Line | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def count(self) -> int:
        """How many lines are open."""
        return len(self._idle) + len(self._busy)

    async def acquire(self) -> Line:
        """An idle line, a new one, or the next that is given back."""
        while True:
            self._refuse_after_the_end()
            while self._idle:
                line = self._idle.pop()
                if not line.connection.is_closed():
                    self._busy.add(line)
                    return line
            if self.count + self._connecting < self._largest:
                return await self._new()
            waiter: asyncio.Future[Line | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                given = await waiter
            except BaseException:
                # Cancelled when a line had been handed over already: it goes on to the next.
                if waiter.done() and not waiter.cancelled():
                    self._pass_on(waiter.result())
                raise
            if given is not None:
                return given

    async def _new(self) -> Line:
        self._connecting += 1
        try:
            line = Line(await self._connect())
        except BaseException:
            self._connecting -= 1
            self._pass_on(None)
            raise
        self._connecting -= 1
        if self._ended:
            line.connection.terminate()
        self._refuse_after_the_end()
        self._busy.add(line)
        return line

    def _refuse_after_the_end(self) -> None:
        if self._ended:
            raise MemoryConnectionError("the provider was closed meanwhile", retryable=False)

    async def fill(self) -> None:
        """Open the lines that are to stay open; those that fail are opened when they are needed."""
        missing = self._smallest - self.count
        opened = await asyncio.gather(*(self._new() for _ in range(missing)), return_exceptions=True)
        for line in opened:
            if isinstance(line, Line):
                await self.release(line)

    def _pass_on(self, line: Line | None) -> None:
        """Give the first who waits a line, or `None`: the room for one."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(line)
                return
        if line is not None:
            self._rest(line)

    async def release(self, line: Line) -> None:
        """To the next who waits, or to the idle ones."""
        line.uses += 1
        if line not in self._busy:  # closed meanwhile
            line.connection.terminate()
        elif line.uses >= self._most_uses or line.connection.is_closed():
            self._drop(line)
            self._say_goodbye(line)
        else:
            self._pass_on(line)

    def _rest(self, line: Line) -> None:
        self._busy.discard(line)
        self._tell_quiet()
        line.since = time.monotonic()
        self._idle.append(line)
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

    def _say_goodbye(self, line: Line) -> None:
        task = asyncio.get_running_loop().create_task(_closed(line))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def discard(self, line: Line) -> None:
        """End the line; idle ones that the server may have ended with it are looked at when they are taken."""
        line.connection.terminate()
        self._drop(line)

    def drop_idle(self) -> None:
        """End the idle lines: they lead where the last one led."""
        for line in self._idle:
            line.connection.terminate()
        self._idle.clear()

    def _drop(self, line: Line) -> None:
        self._busy.discard(line)
        self._tell_quiet()
        self._pass_on(None)

    def _tell_quiet(self) -> None:
        if self._quiet is not None and not self._busy:
            self._quiet.set()

    async def close(self) -> None:
        """Wait a moment for operations under way, then say goodbye on each line."""
        if self._busy:
            self._quiet = asyncio.Event()
            quiet = asyncio.ensure_future(self._quiet.wait())
            await asyncio.wait({quiet}, timeout=POLITE)
            quiet.cancel()
        for line in self._idle:
            self._say_goodbye(line)
        self._idle.clear()
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=POLITE)
        self.abandon()
        await asyncio.sleep(0)  # a socket is closed in the turn of the loop after its end

    def abandon(self) -> None:
        """End every line at once; whoever waits for one is refused."""
        self._ended = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for line in (*self._idle, *self._busy):
            _end(line)
        self._idle.clear()
        self._busy.clear()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


async def _closed(line: Line) -> None:
    try:
        await line.connection.close(timeout=POLITE)
    except faults.DRIVER_ERRORS:
        line.connection.terminate()


def _end(line: Line) -> None:
    line.ended = True
    # Taken before, because the driver forgets it.
    transport = getattr(line.connection, "_transport", None)
    try:
        line.connection.terminate()
    except RuntimeError:
        # Its event loop is closed, so that nothing will call this any more, which closes the socket.
        close = getattr(transport, "_call_connection_lost", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                close(None)
