"""Lines that the application hands over: its pool, or its one connection."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_postgres import faults
from jaf_memory_postgres.connections import Line, Lines


class PooledLines(Lines):
    """The application's pool: used, never closed."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @property
    def count(self) -> int:
        """How many lines are open."""
        size: int = self._pool.get_size()
        return size

    async def acquire(self) -> Line:
        """A line of the pool."""
        if self._pool.is_closing():
            raise MemoryConnectionError("the application's pool is closed; create a new one", retryable=False)
        try:
            return Line(await self._pool.acquire())
        except faults.DRIVER_ERRORS as error:
            raise faults.unreached(error, "the application's pool") from error

    async def release(self, line: Line) -> None:
        """Back to the pool, which resets it."""
        try:
            await self._pool.release(line.connection)
        except faults.DRIVER_ERRORS:
            # The operation has its answer; the pool opens another line.
            return

    async def discard(self, line: Line) -> None:
        """End the line; the pool opens another."""
        line.connection.terminate()
        await self._pool.release(line.connection)

    def drop_idle(self) -> None:
        """Nothing: the pool is the application's."""

    async def close(self) -> None:
        """Nothing: the pool is the application's."""

    def abandon(self) -> None:
        """Nothing: the pool is the application's."""


class OneLine(Lines):
    """The application's connection: one operation at a time, never ended, never used inside its own transaction."""

    def __init__(self, connection: Any) -> None:
        self._line = Line(connection)
        self._lock = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """One, unless it is closed."""
        return 0 if self._line.connection.is_closed() else 1

    async def acquire(self) -> Line:
        """The connection, when nobody of ours uses it."""
        await self._lock.acquire()
        problem = unusable(self._line.connection)
        if problem:
            self._lock.release()
            raise MemoryConnectionError(problem, retryable=False)
        return self._line

    async def release(self, line: Line) -> None:  # noqa: ARG002  (there is one)
        """Let the next operation have it."""
        self._lock.release()

    async def discard(self, line: Line) -> None:
        """Leave it open, and undo what an operation began, while nobody else may use it."""
        self._tidying = asyncio.get_running_loop().create_task(self._tidied(line))

    async def _tidied(self, line: Line) -> None:
        try:
            if not line.connection.is_closed() and line.connection.is_in_transaction():
                await line.connection.execute("ROLLBACK")
        except faults.DRIVER_ERRORS:
            # It is of no use any more; the next operation finds that, and says so.
            return
        finally:
            self._lock.release()

    def drop_idle(self) -> None:
        """Nothing: the connection is the application's."""

    async def close(self) -> None:
        """Nothing: the connection is the application's."""

    def abandon(self) -> None:
        """Nothing: the connection is the application's."""


def unusable(connection: Any) -> str | None:
    """Why a connection of the application cannot be used, or `None`."""
    if connection.is_closed():
        return "the application's connection is closed; create a provider with a new one, or with a pool"
    if connection.is_in_transaction():
        return "the application's connection is inside a transaction; give the provider one of its own, or a pool"
    return None


def is_pool(client: object) -> bool:
    """Whether the application gave a pool (and not a connection)."""
    return isinstance(client, asyncpg.Pool)
