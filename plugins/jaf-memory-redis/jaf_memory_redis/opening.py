"""How a connection is made: redis-py does the handshake, and finds out nothing of what is said afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from jaf_memory_redis.line import Line
from jaf_memory_redis.refusals import LineError, ServerError, unreachable
from jaf_memory_redis.scripts import pack

Address = tuple[str, int]
_PING = pack(("PING",))
_ROLE = pack(("ROLE",))


class _HandOver(AbstractConnection):
    """A connection of redis-py that gives its streams away once it is logged in."""

    def hand_over(self, patience: float) -> Line:
        writer = self._writer
        assert writer is not None  # noqa: S101  (it has connected)
        self._reader = self._writer = None
        return Line(writer, patience)

    def give_up(self) -> None:
        self._close()  # type: ignore[no-untyped-call]


class _Plain(_HandOver, Connection):
    pass


class _Tls(_HandOver, SSLConnection):
    pass


class _Unix(_HandOver, UnixDomainSocketConnection):
    pass


class Opener(Protocol):
    """Makes connections to one server, wherever it is at the moment."""

    async def open(self) -> Line:
        """A new connection, logged in.

        Raises:
            LineError: the server cannot be reached; nothing was sent.
            MemoryError: it refuses us for good.
        """


class Door:
    """Connections to one address.

    Args:
        arguments: redis-py's connection arguments: `host` and `port` or `path`, credentials, `db`, `ssl_…`.
        tls: whether they are encrypted.
        connect_timeout: seconds for connection and handshake.
        patience: seconds without a byte after which a reply is no longer waited for.
    """

    def __init__(self, arguments: Mapping[str, Any], *, tls: bool, connect_timeout: float, patience: float) -> None:
        self._kind = _Unix if "path" in arguments else _Tls if tls else _Plain
        self.arguments = dict(arguments)
        self._connect_timeout = connect_timeout
        self.patience = patience

    def elsewhere(self, address: Address, **changed: Any) -> Door:
        """The same for another address."""
        arguments = {**self.arguments, "host": address[0], "port": address[1], **changed}
        arguments.pop("path", None)
        return Door(
            arguments,
            tls=self._kind is _Tls,
            connect_timeout=self._connect_timeout,
            patience=self.patience,
        )

    async def open(self) -> Line:
        """A new connection, logged in."""
        # RESP2, so that replies have one form on every server; no decoding; and no retry, which is the guard's.
        connection = self._kind(
            **self.arguments,
            protocol=2,
            socket_timeout=self._connect_timeout,
            socket_connect_timeout=self._connect_timeout,
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except (TimeoutError, RedisError, OSError) as error:
            connection.give_up()
            raise unreachable("the server", error, tls=self._kind is _Tls) from None
        except BaseException:
            connection.give_up()
            raise
        line = connection.hand_over(self.patience)
        try:
            # A server that wants a password tells everything else in other words than to this.
            (pong,) = await line.send(_PING, 1)
        except LineError as error:
            raise LineError(str(error), sent=False) from None
        except BaseException:
            line.drop("it was not waited for")
            raise
        if isinstance(pong, ServerError) and pong.code != "NOPERM":
            line.drop("the server refused")
            raise pong
        return line


class SentinelDoor:
    """Connections to the master that the sentinels name at the moment.

    Args:
        door: how the master is entered; its address is replaced.
        sentinels: how each of the sentinels is entered.
        service: the master's name.
    """

    def __init__(self, door: Door, sentinels: list[Door], service: str) -> None:
        self._door = door
        self._sentinels = sentinels
        self._service = service

    async def open(self) -> Line:
        """A new connection to the master."""
        problem: Exception | None = None
        for sentinel in tuple(self._sentinels):
            try:
                address = await self._ask(sentinel)
            except (LineError, ServerError) as error:
                problem = error
                continue
            if address is None:
                continue
            # The one that answered is asked first the next time.
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            line = await self._door.elsewhere(address).open()
            try:
                role = (await line.send(_ROLE, 1))[0]
            except BaseException:
                line.drop("it was not waited for")
                raise
            if isinstance(role, list) and role[0] == b"master":
                return line
            line.drop("it is no master")
            problem = LineError("the sentinels name a server that is no master (yet)", sent=False)
        raise problem or LineError("no sentinel knows a master of that service name", sent=False)

    async def _ask(self, sentinel: Door) -> Address | None:
        line = await sentinel.open()
        try:
            question = ("SENTINEL", "get-master-addr-by-name", self._service)
            (answer,) = await line.send(pack(question), 1)
        finally:
            line.drop("it has answered")
        if not isinstance(answer, list):
            return None
        return answer[0].decode(), int(answer[1])
