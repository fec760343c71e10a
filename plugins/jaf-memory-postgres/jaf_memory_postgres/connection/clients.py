"""Pool that the application hands over: its pool, or its one connection."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.pool import Pool, Pooled


class ApplicationPool(Pool):
    """The application's pool: used, never closed."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @property
    def count(self) -> int:
        """How many connections are open."""
        size: int = self._pool.get_size()
        return size

    async def acquire(self) -> Pooled:
        """A connection of the pool."""
        if self._pool.is_closing():
            raise MemoryConnectionError("the application's pool is closed; create a new one", retryable=False)
        try:
            return Pooled(await self._pool.acquire())
        except errors.DRIVER_ERRORS as error:
            raise errors.unreached(error, "the application's pool") from error

    async def release(self, pooled: Pooled) -> None:
        """Back to the pool, which resets it."""
        try:
            await self._pool.release(pooled.connection)
        except errors.DRIVER_ERRORS:
            # The operation has its answer; the pool opens another connection.
            return

    async def discard(self, pooled: Pooled) -> None:
        """End the connection; the pool opens another."""
        pooled.connection.terminate()
        await self._pool.release(pooled.connection)

    def drop_idle(self) -> None:
        """Nothing: the pool is the application's."""

    async def close(self) -> None:
        """Nothing: the pool is the application's."""

    def abandon(self) -> None:
        """Nothing: the pool is the application's."""


class ApplicationConnection(Pool):
    """The application's connection: one operation at a time, never ended, never used inside its own transaction."""

    def __init__(self, connection: Any) -> None:
        self._line = Pooled(connection)
        self._lock = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """One, unless it is closed."""
        return 0 if self._line.connection.is_closed() else 1

    async def acquire(self) -> Pooled:
        """The connection, when nobody of ours uses it."""
        await self._lock.acquire()
        problem = unusable(self._line.connection)
        if problem:
            self._lock.release()
            raise MemoryConnectionError(problem, retryable=False)
        return self._line

    async def release(self, pooled: Pooled) -> None:  # noqa: ARG002  (there is one)
        """Let the next operation have it."""
        self._lock.release()

    async def discard(self, pooled: Pooled) -> None:
        """Leave it open, and undo what an operation began, while nobody else may use it."""
        self._tidying = asyncio.get_running_loop().create_task(self._tidied(pooled))

    async def _tidied(self, pooled: Pooled) -> None:
        try:
            if not pooled.connection.is_closed() and pooled.connection.is_in_transaction():
                await pooled.connection.execute("ROLLBACK")
        except errors.DRIVER_ERRORS:
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
