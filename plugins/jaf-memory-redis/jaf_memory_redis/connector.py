"""How a connection is made: redis-py does the handshake, and finds out nothing of what is said afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redis.asyncio import connection as driver
from redis.exceptions import RedisError

from jaf_memory_redis.connection import Connection
from jaf_memory_redis.errors import ServerError, TransportError, unreachable
from jaf_memory_redis.scripts import pack

try:
    from redis.driver_info import DriverInfo
except ImportError:  # an older redis-py looks its version up once
    _DRIVER: dict[str, Any] = {}
else:
    # Told nothing, it looks its version up among all that is installed, for each connection: 2 ms of the event loop's.
    _DRIVER = {"driver_info": DriverInfo()}

Address = tuple[str, int]
_PING = pack(("PING",))


class _HandOver(driver.AbstractConnection):
    """A connection of redis-py that gives its streams away once it is logged in."""

    def hand_over(self, patience: float) -> Connection:
        writer = self._writer
        assert writer is not None  # it has connected
        # Without these two redis-py takes itself for closed, and does not close the socket when it is collected.
        self._reader = self._writer = None
        return Connection(writer, patience)

    def give_up(self) -> None:
        self._close()  # type: ignore[no-untyped-call]


class _Plain(_HandOver, driver.Connection):
    pass


class _Tls(_HandOver, driver.SSLConnection):
    server_name: str | None = None
    """The name that the server's certificate must have; none for the host that is connected to."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments if self.server_name is None else {**arguments, "server_hostname": self.server_name}


class _Unix(_HandOver, driver.UnixDomainSocketConnection):
    pass


class Connector(Protocol):
    """Makes connections to one server, wherever it is at the moment."""

    async def open(self) -> Connection:
        """A new connection, logged in.

        Raises:
            TransportError: the server cannot be reached; nothing was sent.
            MemoryError: it refuses us for good.
        """


class Endpoint:
    """Connections to one address.

    Args:
        arguments: redis-py's connection arguments: `host` and `port` or `path`, credentials, `db`, `ssl_…`.
        tls: whether they are encrypted.
        connect_timeout: seconds for connection and handshake.
        patience: seconds without a byte after which a reply is no longer waited for.
        server_name: the name that the certificate must have, where it is not the host's.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        *,
        tls: bool,
        connect_timeout: float,
        patience: float,
        server_name: str | None = None,
    ) -> None:
        self._kind = _Unix if "path" in arguments else _Tls if tls else _Plain
        self.arguments = dict(arguments)
        self._connect_timeout = connect_timeout
        self.patience = patience
        self._server_name = server_name

    def elsewhere(self, address: Address, *, tls: bool | None = None, **changed: Any) -> Endpoint:
        """The same for another address.

        Args:
            address: host and port.
            tls: whether it is encrypted there, where that differs.
            changed: arguments that differ.
        """
        arguments = {**self.arguments, "host": address[0], "port": address[1], **changed}
        arguments.pop("path", None)
        encrypted = self._kind is _Tls if tls is None else tls
        if not encrypted:
            arguments = {name: value for name, value in arguments.items() if not name.startswith("ssl_")}
        return Endpoint(
            arguments,
            tls=encrypted,
            connect_timeout=self._connect_timeout,
            patience=self.patience,
            server_name=self._server_name,
        )

    async def open(self) -> Connection:
        """A new connection, logged in."""
        # RESP2, so that replies have one form on every server; no decoding; and no retry, which is the guard's.
        entering = self._kind(
            **_DRIVER,
            **self.arguments,
            protocol=2,
            socket_timeout=self._connect_timeout,
            socket_connect_timeout=self._connect_timeout,
        )
        if isinstance(entering, _Tls):
            entering.server_name = self._server_name
        try:
            await entering.connect()  # type: ignore[no-untyped-call]
        except (TimeoutError, RedisError, OSError) as error:
            entering.give_up()
            raise unreachable("the server", error, tls=self._kind is _Tls) from None
        # Cancelled during the handshake, too: nobody else knows of this socket.
        except BaseException:
            entering.give_up()
            raise
        connection = entering.hand_over(self.patience)
        try:
            # A server that wants a password tells everything else in other words than to this.
            (pong,) = await connection.send(_PING, 1)
        except TransportError as error:
            # What was lost is the PING, and nothing of the operation that wanted a connection.
            raise TransportError(str(error), sent=False) from None
        except BaseException:
            connection.drop("it was not waited for")
            raise
        # That a user may not PING shows that it was let in.
        if isinstance(pong, ServerError) and pong.code != "NOPERM":
            connection.drop("the server refused")
            raise pong
        return connection
