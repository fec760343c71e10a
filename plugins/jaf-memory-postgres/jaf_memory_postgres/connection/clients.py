"""Clients that the application hands over, its pool or its one connection; and whether they do for us (`check`)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg

from jaf_memory_core.deadline import waiting
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.connector import copied, is_behind_pooler
from jaf_memory_postgres.connection.execution import Connection, Pool, Pooled
from jaf_memory_postgres.connection.pool import CANCELLING

AGAIN = 0.005
"""Seconds between two looks at a connection that the application is using."""

PROTOCOL = "_protocol"
"""Where the driver keeps what a connection sends through."""

SENDING = frozenset(
    ("prepare", "bind_execute", "bind_execute_many", "bind", "execute", "close_portal", "query", "copy_in", "copy_out")
)
"""Its methods that send a statement."""


class ApplicationPool(Pool):
    """The application's pool: used, never closed."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._cancelling: set[asyncio.Task[None]] = set()

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
            with waiting:
                return Pooled(await self._pool.acquire())
        except asyncpg.InterfaceError as error:
            # It has not even tried to connect.
            text = "the application's pool is closed, or was never opened (pool = await create_pool(…))"
            raise MemoryConnectionError(text, retryable=False) from error
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

    async def cancel(self, pooled: Pooled) -> None:
        """Let the pool wait for the driver's cancel request before it lends the connection again."""
        task = asyncio.get_running_loop().create_task(self._cancelled(pooled))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancelled(self, pooled: Pooled) -> None:
        try:
            await self._pool.release(pooled.connection, timeout=CANCELLING)
        except errors.DRIVER_ERRORS:
            return  # the pool has ended it

    def drop_idle(self, since: float) -> None:
        """Nothing: the pool is the application's."""

    async def close(self) -> None:
        """Nothing of the pool's: only what was cancelled is waited for."""
        if self._cancelling:
            await asyncio.wait(set(self._cancelling), timeout=CANCELLING)

    def abandon(self) -> None:
        """Nothing: the pool is the application's."""


class ApplicationConnection(Pool):
    """The application's connection: one operation at a time, never ended, never used inside its own transaction.

    While an operation of ours uses it, statements of the application are refused as the driver refuses what comes while
    another is in progress: between two statements of our transaction they would become part of it, and vanish with it.
    """

    def __init__(self, connection: Connection) -> None:
        self._pooled = Pooled(connection)
        self._driver = _driver(connection)
        self._lock = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """One, unless it is closed."""
        return 0 if self._driver.is_closed() else 1

    async def acquire(self) -> Pooled:
        """The connection, when nobody of ours uses it."""
        with waiting:
            await self._lock.acquire()
        problem = unusable(self._pooled.connection)
        if problem:
            self._lock.release()
            raise MemoryConnectionError(problem, retryable=False)
        _reserve(self._driver, asyncio.current_task())
        return self._pooled

    async def release(self, pooled: Pooled) -> None:
        """Let the next operation have it."""
        self._let_go()

    async def discard(self, pooled: Pooled) -> None:
        """Leave it open, and undo what an operation began, while nobody else may use it."""
        # In a task: a caller that is cancelled waits for nothing, and the lock is held until this has ended.
        task = self._tidying = asyncio.get_running_loop().create_task(_tidied(pooled.connection))
        # Now, and not when the task begins: a statement of the application in between would join what is undone.
        _reserve(self._driver, task)
        # Not at the task's own end: one that is cancelled before its first step comes to none.
        task.add_done_callback(lambda _: self._let_go())

    async def cancel(self, pooled: Pooled) -> None:
        """The same: the driver sends nothing before its cancel request was answered."""
        await self.discard(pooled)

    def _let_go(self) -> None:
        _free(self._driver)
        self._lock.release()

    def drop_idle(self, since: float) -> None:
        """Nothing: the connection is the application's."""

    async def close(self) -> None:
        """Nothing of the connection: only what was cancelled on it is waited for."""
        if self._tidying is not None and not self._tidying.done():
            await asyncio.wait({self._tidying}, timeout=CANCELLING)

    def abandon(self) -> None:
        """Nothing: the connection is the application's."""


async def _tidied(connection: Connection) -> None:
    try:
        while not connection.is_closed() and not await _answered(connection):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(AGAIN)
        # Only now the driver knows: it learns the state of the transaction from an answer (docs/decisions/0007).
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
    except errors.DRIVER_ERRORS:
        # It is of no use any more; the next operation finds that, and says so.
        return


async def _answered(connection: Connection) -> bool:
    """Whether the server has answered everything: only then the driver knows if a transaction is open."""
    try:
        await connection.execute("SELECT 1")
    except asyncpg.PostgresError:
        return True  # in a transaction that has failed, for example
    except asyncpg.InterfaceError as error:
        if errors.is_busy(error):
            return False
        raise
    return True


class _Reserved:
    """A connection's protocol, for one task only."""

    def __init__(self, protocol: Any, owner: asyncio.Task[Any] | None) -> None:
        self.protocol = protocol
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        if name in SENDING and asyncio.current_task() is not self._owner:
            raise asyncpg.InterfaceError(errors.RESERVED)
        return getattr(self.protocol, name)


def _driver(connection: Connection) -> Any:
    """The driver's own object behind a pool's proxy, which forgets it when the application gives it back."""
    return getattr(connection, "_con", connection)


def _reserve(driver: Any, owner: asyncio.Task[Any] | None) -> None:
    """Leave the connection to one task, whoever had it until now."""
    _free(driver)
    protocol = getattr(driver, PROTOCOL, None)
    if protocol is not None:
        setattr(driver, PROTOCOL, _Reserved(protocol, owner))


def _free(driver: Any) -> None:
    reserved = getattr(driver, PROTOCOL, None)
    if isinstance(reserved, _Reserved):
        setattr(driver, PROTOCOL, reserved.protocol)


def unusable(connection: Connection) -> str | None:
    """Why a connection of the application cannot be used, or `None`."""
    try:
        if connection.is_closed():
            return "the application's connection is closed; create a provider with a new one, or with a pool"
        if connection.is_in_transaction():
            return "the application's connection is inside a transaction; give the provider one of its own, or a pool"
    except asyncpg.InterfaceError:
        return (
            "the application's connection was given back to its pool; give the provider one that stays its own, or the "
            "pool itself"
        )
    return None


def is_pool(client: object) -> bool:
    """Whether the application gave a pool (and not a connection)."""
    return isinstance(client, asyncpg.Pool)


KINDS: Mapping[str, Any] = {
    "text": " \u00e9\U0001f642\t\\\"'{}\n ",
    "varchar": " V\u00e9\U0001f642 ",
    "int4": 4,
    "int8": 1 << 40,
    "float8": 0.5,
    "bool": True,
    "record": 7,
    "timestamptz": datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
}
"""Types of what we send and read, each with a value that has to come back as it is."""

_ASKED = {"record": "SELECT ROW($1::int4)"}
"""What is asked of a type that cannot be sent."""


async def check(connection: Connection) -> None:
    """Look whether a connection of the application does for us.

    Raises:
        MemoryConfigurationError: it decodes a type that we need in a way of its own, or it keeps prepared statements
            while a pooler between it and the server mixes sessions.
    """
    encoding = connection.get_settings().client_encoding
    # As the server has it, or as the driver wrote it, where a pooler repeats that.
    if "".join(filter(str.isalnum, encoding)).upper() != "UTF8":
        raise MemoryConfigurationError(
            f"the application's connection has client_encoding {encoding}, in which not every text can be sent; leave "
            "it at UTF8",
            provider="postgres",
        )
    for kind, value in KINDS.items():
        if not await _comes_back(connection, kind, value):
            raise MemoryConfigurationError(
                f"the application's connection has a codec of its own for {kind} (set_type_codec), which would change "
                "what is stored; give the provider a connection or a pool without it (one for jsonb or json is fine)",
                provider="postgres",
            )
    if await is_behind_pooler(connection) and await _keeps_statements(connection):
        raise MemoryConfigurationError(
            "a pooler stands between the application's connection and the server, and prepared statements are kept; "
            "make the connection or the pool with statement_cache_size=0",
            provider="postgres",
        )


async def _comes_back(connection: Connection, kind: str, value: Any) -> bool:
    try:
        found = await connection.fetchval(_ASKED.get(kind, f"SELECT $1::{kind}"), value)
        again = found[0] if kind in _ASKED else found
    except (asyncpg.DataError, asyncpg.InterfaceError):
        return False
    except asyncpg.PostgresError:
        raise
    except Exception:  # noqa: BLE001  (whatever a codec of the application's raises)
        return False
    return type(again) is type(value) and bool(again == value)


MARKED = "SELECT 1 AS jaf_memory_{}"
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name <> '' AND statement = '{}'"


async def _keeps_statements(connection: Connection) -> bool:
    """Whether a statement stands among the prepared ones after it was run, in a transaction and so in one session."""
    marked = MARKED.format(secrets.token_hex(8))
    # In a transaction a pooler leaves the session as it is, so that what was just prepared must be there.
    async with connection.transaction():
        await connection.fetchval(marked)
        return await copied(connection, PREPARED.format(marked)) != ["0"]
