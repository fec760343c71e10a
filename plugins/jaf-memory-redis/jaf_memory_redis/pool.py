"""Where commands go: to one server over a few connections, or (`topology.py`) to the node that has the slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any, Protocol

from jaf_memory_core.errors import MemoryError
from jaf_memory_core.records import Usage
from jaf_memory_redis.connection import LIGHT, Connection
from jaf_memory_redis.connector import Connector
from jaf_memory_redis.errors import ServerError, TransportError
from jaf_memory_redis.scripts import Command, Packed

CROWDED = 128
"""Operations on one connection beyond which another is used: what is spread travels in smaller parts."""

CROWDED_BY_WAIT = 4
"""The same where writes wait for replicas: behind a `WAIT` a connection stands still."""


_NO_MASTER = {"READONLY", "MASTERDOWN"}


class Topology(Protocol):
    """What a backend sends commands through."""

    single: bool
    """Whether one server has all keys, so that one script may touch them all."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Let all connections go."""

    def abandon(self) -> None:
        """Forget all connections, without waiting for anything."""

    async def run(self, command: Command, *behind: Command) -> list[Any]:
        """Send one command, and others right behind it over the same connection; all replies, errors among them."""

    async def run_all(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands together; their replies in order.

        Args:
            commands: what is sent.
            large: whether much is expected back, behind which nothing small should wait.

        Raises:
            ServerError: one of them was refused.
        """

    async def run_packed(self, packed: Packed) -> list[Any]:
        """The same for commands that are bytes already."""

    async def everywhere(self, *parts: str) -> list[Any]:
        """One command for every server that takes writes; their replies."""

    def names(self, pattern: bytes, kind: str) -> AsyncIterator[list[bytes]]:
        """Pages of the names of all keys of that type; for moving only, because it walks over everything."""

    @property
    def connections(self) -> int:
        """How many are open."""

    def usage(self) -> Usage:
        """How many are open, and what is under way on them."""


def packed(commands: Sequence[Command]) -> bytes:
    """Commands as bytes."""
    if len(commands) == 1:
        return commands[0].packed()
    return b"".join([command.packed() for command in commands])


def _taught(commands: Sequence[Command]) -> list[Command]:
    """The same with each script whole where it comes first: the server knows it from then on."""
    told: set[str] = set()
    taught = []
    for command in commands:
        known = command.script is None or command.script.sha in told
        taught.append(command if known else command.whole())
        if command.script is not None:
            told.add(command.script.sha)
    return taught


class Pool:
    """The connections to one server.

    Args:
        connector: makes them.
        most: how many there may be.
        crowded: operations on one connection beyond which another is used.
    """

    def __init__(self, connector: Connector, most: int, crowded: int) -> None:
        self._connector = connector
        self._most = most
        self._crowded = crowded
        self._connections: list[Connection] = []
        self._dropped: str | None = None
        self._lock = asyncio.Lock()

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(connection.lost is None for connection in self._connections)

    def usage(self) -> Usage:
        """How many are open, and what is under way on them."""
        loads = [connection.load for connection in tuple(self._connections) if connection.lost is None]
        return Usage(connections=len(loads), most=self._most, busy=sum(map(bool, loads)), waiting=sum(loads))

    def _least_busy(self) -> Connection | None:
        best: Connection | None = None
        for connection in self._connections:
            if connection.lost is None and (
                best is None or (connection.clogged, connection.load) < (best.clogged, best.load)
            ):
                best = connection
        return best

    def _free(self) -> Connection | None:
        """The first with room; where none has any, the one with the least to do, unless another may be opened."""
        for connection in self._connections:
            if connection.has_room(self._crowded):
                return connection
        return self._least_busy() if len(self._connections) >= self._most else None

    def _apart(self) -> Connection | None:
        """One for something large: never the first, so that what is small always has that; `None` to open another."""
        others = [connection for connection in self._connections[1:] if connection.lost is None]
        idle = next((connection for connection in others if not connection.load), None)
        if idle is not None or len(self._connections) < self._most:
            return idle
        return min(others, key=lambda connection: connection.load, default=self._least_busy())

    async def connection(self, *, large: bool = False) -> Connection:
        """A connection to send on."""
        choose = self._apart if large else self._free
        connection = choose()
        while connection is None:
            async with self._lock:
                # One opens at a time, and who waited looks again: a burst of callers shares what the first opened.
                connection = choose() or await self._another()
        return connection

    async def _another(self) -> Connection:
        try:
            opened = await self._connector.open()
        except (TransportError, ServerError, MemoryError):
            # The server may have as many connections as it wants.
            crowded = self._least_busy()
            if crowded is None:
                raise
            return crowded
        if self._dropped is not None:
            # While it was being opened the provider was closed: nobody would close this one.
            opened.drop(self._dropped)
            raise TransportError(self._dropped, sent=False)
        self._connections = [*(one for one in self._connections if one.lost is None), opened]
        return opened

    async def exchange(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands together over one connection, `large` ones apart; their replies, errors among them.

        Raises:
            TransportError: the connection could not be opened, or was lost.
        """
        data = packed(commands)
        if large or len(data) > LIGHT:
            connection = await self.connection(large=True)
        else:
            connection = self._free() or await self.connection()
        replies = await connection.send(data, len(commands))
        if failed(replies) is not None:
            await self._mend(connection, commands, replies)
        return replies

    async def exchange_packed(self, packed: Packed) -> list[Any]:
        """The same for commands that are bytes already, none of which is refused.

        Raises:
            ServerError: one of them was.
        """
        connection = self._free() or await self.connection()
        replies = await connection.send(packed.data, packed.replies)
        if failed(replies) is not None:
            await self._mend(connection, packed.commands(), replies)
        return checked(replies)

    async def _mend(self, connection: Connection, commands: Sequence[Command], replies: list[Any]) -> None:
        """Send scripts whole that the server does not know; leave a server that is no master any more."""
        codes = [reply.code if isinstance(reply, ServerError) else "" for reply in replies]
        unknown = [at for at, code in enumerate(codes) if code == "NOSCRIPT" and commands[at].script is not None]
        if unknown and connection.lost is None:
            # What stands right behind a script (WAIT) was answered for nothing; it is asked again too.
            waits = [at for at in range(unknown[0], len(commands)) if commands[at].parts[0] == "WAIT"]
            again = sorted((*unknown, *waits))
            # A script that is not known has done nothing: to send it whole is no second attempt.
            some = await connection.send(packed(_taught([commands[at] for at in again])), len(again))
            for at, reply in zip(again, some, strict=True):
                replies[at] = reply
        if any(isinstance(reply, ServerError) and reply.code in _NO_MASTER for reply in replies):
            # The next operation connects anew, and behind Sentinel that asks for the master of now. Who waits on these
            # connections gets the server's answer all the same: to be cut off would leave the outcome unknown.
            connections, self._connections = self._connections, []
            for one in connections:
                one.retire("the server is no master any more")

    def drop(self, reason: str) -> None:
        """Let all connections go, for good."""
        self._dropped = reason
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.drop(reason)


class Lifetime:
    """Lets connections go when their event loop ends: `asyncio.run` closes asynchronous generators that still stand."""

    def __init__(self, pool: Pool | Any) -> None:
        self._generator = self._stand(pool)

    async def start(self) -> None:
        """Stand from now on."""
        await self._generator.__anext__()

    async def end(self) -> None:
        """Let go now."""
        await self._generator.aclose()

    @staticmethod
    async def _stand(pool: Pool | Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            pool.drop("the provider was closed, or its event loop has ended")
            await asyncio.sleep(0)  # in which the transports close their sockets


class Standalone:
    """One server, or the master that Sentinel names."""

    single = True

    def __init__(self, connector: Connector, most: int, crowded: int = CROWDED) -> None:
        self._connector = connector
        self._most = most
        self._crowded = crowded
        self._pool: Pool | None = None
        self._lifetime: Lifetime | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._pool.connections if self._pool else 0

    def usage(self) -> Usage:
        """How many are open, and what is under way on them."""
        return self._pool.usage() if self._pool else Usage(connections=0, most=self._most)

    async def open(self) -> None:
        """Connect once, so that wrong settings are told at the start."""
        pool = Pool(self._connector, self._most, self._crowded)
        await pool.connection()
        lifetime = Lifetime(pool)
        await lifetime.start()
        # Last, so that an opening that failed or was cancelled leaves nothing, and the guard opens again.
        self._pool, self._lifetime = pool, lifetime

    async def close(self) -> None:
        """Let all connections go."""
        lifetime, self._lifetime, self._pool = self._lifetime, None, None
        if lifetime is not None:
            await lifetime.end()

    @property
    def _opened(self) -> Pool:
        # The guard opens first; what goes on in several steps may find it closed at the next.
        if self._pool is None:
            raise TransportError("the provider was closed", sent=False)
        return self._pool

    def abandon(self) -> None:
        """Forget all connections."""
        pool, self._pool, self._lifetime = self._pool, None, None
        if pool is not None:
            pool.drop("the event loop has ended")

    def run(self, command: Command, *behind: Command) -> Coroutine[Any, Any, list[Any]]:
        """Send one command, and others right behind it."""
        return self._opened.exchange((command, *behind))

    async def run_all(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands together."""
        return checked(await self._opened.exchange(commands, large=large)) if commands else []

    def run_packed(self, packed: Packed) -> Coroutine[Any, Any, list[Any]]:
        """Send commands together that are bytes already."""
        return self._opened.exchange_packed(packed)

    async def everywhere(self, *parts: str) -> list[Any]:
        """One command for the server."""
        return await self.run_all([Command(b"", parts)])

    def names(self, pattern: bytes, kind: str) -> AsyncIterator[list[bytes]]:
        """Pages of the names of all keys of that type."""
        return names_of(self._opened, pattern, kind)


async def names_of(pool: Pool, pattern: bytes, kind: str) -> AsyncIterator[list[bytes]]:
    """Pages of the names that one server has."""
    cursor = b"0"
    while True:
        scan = Command(b"", ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", kind))
        ((cursor, names),) = checked(await pool.exchange([scan]))
        yield names
        if cursor == b"0":
            return


def checked(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error."""
    error = failed(replies)
    if error is not None:
        raise error
    return replies


def failed(replies: list[Any]) -> ServerError | None:
    """The first error among the replies."""
    for reply in replies:
        if type(reply) is ServerError:
            return reply
    return None
