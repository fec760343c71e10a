"""The connection pool: ours. Nothing here waits for a connection that may be dead."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable

from jaf_memory_core.deadline import waiting
from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_core.records import Usage
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.execution import Connection, Pool, Pooled

POLITE = 0.4
"""Seconds that closing gives the server to hear of it."""

CANCELLING = 1.0
"""Seconds that a server has to answer a statement that it was asked to cancel."""


class OwnPool(Pool):
    """A pool whose release costs nothing: no operation leaves anything in a session that had to be reset.

    Connections are opened by tasks of their own, which outlive an impatient caller: whoever waits first gets them.

    Args:
        connect: makes a connection.
        smallest, largest: how many stay open when idle, and how many there are at most.
        uses: operations after which a connection is replaced.
        idle: seconds after which an idle one is closed; 0 for never.
    """

    is_own = True

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
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: dict[asyncio.Task[None], Pooled] = {}
        self._waiting: deque[asyncio.Future[Pooled]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None
        self._ended = False

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._idle) + len(self._busy) + len(self._closing)

    def usage(self) -> Usage:
        """How many are open and used, and who waits for one."""
        waiting = sum(not one.done() for one in tuple(self._waiting))
        return Usage(connections=self.count, most=self._largest, busy=len(self._busy), waiting=waiting)

    @property
    def _kept(self) -> int:
        return len(self._idle) + len(self._busy)

    def idle(self) -> Pooled | None:
        """One that nobody uses: that used last, so that the others grow old at the front, where `_close_idle` looks."""
        while self._idle:
            pooled = self._idle.pop()
            if not pooled.connection.is_closed():
                self._busy.add(pooled)
                return pooled
        return None

    async def acquire(self) -> Pooled:
        """An idle connection, or the next that is opened or given back."""
        self._refuse_after_the_end()
        pooled = self.idle()
        if pooled is not None:
            return pooled
        waiter: asyncio.Future[Pooled] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._open(sum(not one.done() for one in self._waiting))
        with waiting:
            try:
                return await waiter
            except asyncio.CancelledError:
                # Cancelled when a connection had been handed over already: it goes on to the next.
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._pass_on(waiter.result())
                raise

    def _open(self, wanted: int) -> None:
        """Open as many as are wanted and not yet being opened, and as there is room for."""
        room = self._largest - self.count - len(self._opening)
        for _ in range(min(wanted - len(self._opening), room)):
            task = asyncio.get_running_loop().create_task(self._opened())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _opened(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        try:
            pooled = Pooled(await self._connect())
        except Exception as error:  # noqa: BLE001  (whoever waits first gets it, whatever it is)
            # Not left to its callback, which comes a turn of the loop later: what is opened next is counted now.
            self._opening.discard(task)
            self._fail(error)
            return
        self._opening.discard(task)
        # Closed while this one connected: nobody else would end it.
        if self._ended:
            pooled.connection.terminate()
            return
        self._busy.add(pooled)
        self._pass_on(pooled)

    def _fail(self, error: Exception) -> None:
        """Tell the first who waits; the others have tasks of their own, or get one now."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                break
        if not self._ended:
            self._open(sum(not one.done() for one in self._waiting))

    def _refuse_after_the_end(self) -> None:
        if self._ended:
            raise _closed_meanwhile()

    async def fill(self) -> None:
        """Open the connections that are to stay open; those that fail are opened when they are needed."""
        self._open(self._smallest - self.count)
        if self._opening:
            await asyncio.wait(set(self._opening))

    def _pass_on(self, pooled: Pooled) -> None:
        """Give the first who waits a connection."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(pooled)
                return
        self._rest(pooled)

    async def release(self, pooled: Pooled) -> None:
        """To the next who waits, or to the idle ones."""
        pooled.uses += 1
        if pooled not in self._busy:  # closed meanwhile
            pooled.connection.terminate()
        elif pooled.connection.is_closed():
            self._drop(pooled)
        elif pooled.uses >= self._most_uses:
            self._say_goodbye(pooled, POLITE)
        else:
            self._pass_on(pooled)

    def _rest(self, pooled: Pooled) -> None:
        self._busy.discard(pooled)
        self._tell_quiet()
        pooled.since = time.monotonic()
        self._idle.append(pooled)
        if self._most_idle and self._sweep is None and self._kept > self._smallest:
            self._sweep = asyncio.get_running_loop().call_later(self._most_idle, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        limit = time.monotonic() - self._most_idle
        while self._idle and self._idle[0].since <= limit and self._kept > self._smallest:
            self._say_goodbye(self._idle.pop(0), POLITE)
        if self._idle and self._kept > self._smallest:
            delay = max(0.01, self._idle[0].since - limit)
            self._sweep = asyncio.get_running_loop().call_later(delay, self._close_idle)

    def _say_goodbye(self, pooled: Pooled, seconds: float) -> None:
        """Close a connection in a task of its own. It counts until the server has let go of it."""
        task = asyncio.get_running_loop().create_task(_closed(pooled, seconds))
        self._closing[task] = pooled
        task.add_done_callback(self._said_goodbye)
        self._busy.discard(pooled)
        self._tell_quiet()

    def _said_goodbye(self, task: asyncio.Task[None]) -> None:
        # Only now its place is free: opened earlier, the next could be one more than the server admits.
        self._closing.pop(task, None)
        if not self._ended:
            self._open(sum(not one.done() for one in self._waiting))

    async def discard(self, pooled: Pooled) -> None:
        """End the connection; idle ones that the server may have ended with it are looked at when they are taken."""
        pooled.connection.terminate()
        self._drop(pooled)

    async def cancel(self, pooled: Pooled) -> None:
        """Close the connection behind the driver's cancel request; until then nobody gets its place."""
        if self._ended or pooled.connection.is_closed():
            await self.discard(pooled)
        else:
            self._say_goodbye(pooled, CANCELLING)

    def drop_idle(self, since: float) -> None:
        """End idle connections: they lead where the last one led."""
        for pooled in [one for one in self._idle if one.since < since]:
            pooled.connection.terminate()
            self._idle.remove(pooled)

    def _drop(self, pooled: Pooled) -> None:
        self._busy.discard(pooled)
        self._tell_quiet()
        if not self._ended:
            self._open(sum(not one.done() for one in self._waiting))

    def _tell_quiet(self) -> None:
        if self._quiet is not None and not self._busy:
            self._quiet.set()

    async def close(self) -> None:
        """Wait a moment for operations under way, then say goodbye on each connection."""
        if self._busy:
            self._quiet = asyncio.Event()
            quiet = asyncio.ensure_future(self._quiet.wait())
            # Bounded: an operation on a dead line never gives its connection back.
            await asyncio.wait({quiet}, timeout=POLITE)
            quiet.cancel()
        for pooled in self._idle:
            self._say_goodbye(pooled, POLITE)
        self._idle.clear()
        self._ended = True
        under_way = {*self._closing, *self._opening}
        if under_way:
            await asyncio.wait(under_way, timeout=POLITE)
        # What has not ended by now is on a dead line, or connects to nowhere.
        self.abandon()
        await asyncio.sleep(0)  # a socket is closed in the turn of the loop after its end

    def abandon(self) -> None:
        """End every connection at once; whoever waits for one is refused."""
        self._ended = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for pooled in (*self._idle, *self._busy, *self._closing.values()):
            _end(pooled)
        self._idle.clear()
        self._busy.clear()
        self._closing.clear()
        for task in self._opening:
            if not task.get_loop().is_closed():
                task.cancel()
        self._opening.clear()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_exception(_closed_meanwhile())


def _closed_meanwhile() -> MemoryConnectionError:
    return MemoryConnectionError("the provider was closed meanwhile", retryable=False)


async def _closed(pooled: Pooled, seconds: float) -> None:
    # The driver's own time-out does not count what it waits for a cancelled statement.
    try:
        async with asyncio.timeout(seconds):
            await pooled.connection.close()
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
