"""One new connection to the address that the settings name, and to nothing else; and what stands between."""

from __future__ import annotations

import inspect
import logging
import os
import random
import secrets
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Any

import asyncpg
from pydantic import SecretStr

from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.address import Address, Password
from jaf_memory_postgres.connection.execution import Connection

logger = logging.getLogger("jaf_memory_postgres")

REFUSES_THIS_LINE = (asyncpg.InvalidAuthorizationSpecificationError, ConnectionError, ssl.SSLError)
"""What a server answers that wants TLS, or has none; with `allow` and `prefer` the other way is tried then."""

KEPT = 256
"""Prepared statements that a connection keeps."""

# It tells containers apart, in all of which we may be process 1; the process number tells forks apart.
_OURS = secrets.token_hex(6)


class DirectConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose prepared statements have names that no other process uses.

    The driver counts from 1 in each process. Behind a pooler that nobody told us of, one process would run what another
    has prepared under the same name, on other tables. So it is told that there is none of that name, and we notice.
    """

    __slots__ = ()

    def _get_unique_id(self, prefix: str) -> str:
        return f"{super()._get_unique_id(prefix)}{os.getpid():x}_{_OURS}"


class Connector:
    """Makes connections.

    Args:
        address: the server or servers.
        pooler: whether a pooler stands between, so that no prepared statement may be kept; `"auto"` looks.
        patience: seconds for all hosts together.

    Attributes:
        pooled: whether a pooler was found, or told of.
    """

    def __init__(self, address: Address, *, pooler: bool | str, patience: float) -> None:
        self._address = address
        self._looks = pooler == "auto"
        self.pooled = pooler is True
        self._has_transactions = False
        self._patience = patience
        self._first = 0

    async def __call__(self) -> asyncpg.Connection[Any]:
        """Connect to the first host that will do, beginning with the one that did last time.

        Raises:
            MemoryConnectionError: none will; the text names each, and no secret.
            MemoryConfigurationError: a certificate's file or the password's cannot be read, or the pooler has no
                transactions.
        """
        hosts = self._address.hosts
        first = random.randrange(len(hosts)) if self._address.is_balanced else self._first
        problems: list[MemoryConnectionError] = []
        for step in range(len(hosts)):
            turn = (first + step) % len(hosts)
            try:
                connection = await self._host(turn)
            except MemoryConnectionError as error:
                problems.append(error)
            else:
                self._first = turn
                return connection
        text = "; ".join(map(str, problems))
        raise MemoryConnectionError(text, retryable=any(problem.retryable for problem in problems)) from problems[0]

    def found_pooler(self) -> None:
        """A statement was lost between two sessions: keep none from now on."""
        if not self.pooled:
            logger.warning(
                "a pooler mixes sessions between us and the server; prepared statements are not kept any more. "
                "JAF_POSTGRES_POOLER=true says so from the start"
            )
        self.pooled = True

    async def _host(self, turn: int) -> asyncpg.Connection[Any]:
        host, port = self._address.hosts[turn]
        place = host if host.startswith("/") else f"{host}:{port}"
        try:
            choices = self._address.tls.choices(host) if not host.startswith("/") else [None]
        except OSError as error:
            raise MemoryConfigurationError(
                f"a file of certificates cannot be read: {error.strerror or type(error).__name__}", provider="postgres"
            ) from None
        for context in choices:
            try:
                return await self._session(turn, context)
            except errors.DRIVER_ERRORS as error:
                if context is choices[-1] or not isinstance(error, REFUSES_THIS_LINE):
                    raise errors.unreached(error, place, tuple(self._address.server_settings)) from error
        raise AssertionError("there is always a choice")

    async def _session(self, turn: int, context: ssl.SSLContext | None) -> asyncpg.Connection[Any]:
        """A connection of which is known what stands between."""
        connection = await self._connected(turn, context)
        try:
            behind = self.pooled or await is_behind_pooler(connection) or not await watch(connection)
            # The driver takes the size of its cache when it connects, and at no other time: so it connects once more.
            if behind and self._looks and not self.pooled:
                self.pooled = True
                await connection.close()
                connection = await self._connected(turn, context)
            if behind and not self._has_transactions:
                await require_transactions(connection)
                self._has_transactions = True
        # Cancelled, too: nobody else knows of this connection.
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _connected(self, turn: int, context: ssl.SSLContext | None) -> asyncpg.Connection[Any]:
        address = self._address
        host, port = address.hosts[turn]
        # Whatever is left out here, the driver would take from the environment.
        connection: asyncpg.Connection[Any] = await _opened(
            host=address.numeric[turn] if address.numeric else host,
            port=port,
            user=address.user,
            password=None if address.passfile else partial(_given, address.password),
            passfile=address.passfile,
            database=address.database,
            ssl=context or False,
            direct_tls=address.tls.direct and context is not None,
            target_session_attrs=address.session,
            server_settings=dict(address.server_settings) or None,
            statement_cache_size=0 if self.pooled else KEPT,
            # Never too old: the driver would prepare each anew every five minutes, in the middle of an operation.
            max_cached_statement_lifetime=0,
            connection_class=DirectConnection,
            timeout=self._timeout(),
            **address.gss,
        )
        _set_options(connection, address.socket_options)
        return connection

    def _timeout(self) -> float:
        """Seconds for one host: one that does not answer must leave time for the others."""
        whole = self._patience / len(self._address.hosts)
        return whole if self._address.timeout is None else min(whole, self._address.timeout)


async def _opened(**parameters: Any) -> asyncpg.Connection[Any]:
    try:
        return await asyncpg.connect(**parameters)
    except UnicodeDecodeError:
        pass
    # Not within the handler: the error holds what stands in the file.
    raise _unusable("the file of passwords (PGPASSFILE) is no text in UTF-8")


async def _given(password: Password) -> str:
    """The password now, whoever gives it.

    Raises:
        MemoryConnectionError: the application's function could not get it; its own error may hold secrets.
        MemoryConfigurationError: it gave something else than a text.
    """
    if isinstance(password, str):
        return password
    try:
        found = password()
        if inspect.isawaitable(found):
            found = await found
    except OSError as error:
        kind = type(error).__name__
    else:
        text = found.get_secret_value() if isinstance(found, SecretStr) else found
        if isinstance(text, str):
            return text
        raise _unusable(f"the function that gives the password must give a text, not a {type(found).__name__}")
    raise MemoryConnectionError(f"the function that gives the password failed ({kind})")


def _unusable(text: str) -> MemoryConfigurationError:
    return MemoryConfigurationError(text, provider="postgres")


def _set_options(connection: asyncpg.Connection[Any], options: Mapping[tuple[int, int], int]) -> None:
    """Set what a connection string says of keepalives."""
    transport = getattr(connection, "_transport", None)
    socket = transport.get_extra_info("socket") if transport is not None and options else None
    if socket is not None:
        for (level, name), value in options.items():
            socket.setsockopt(level, name, value)


# What a session is: a pooler may hand it from client to client, and it may outlive us.

_SESSION = "SELECT pg_backend_pid(), current_setting('session_replication_role')"

TRIGGERLESS = (
    "session_replication_role is 'replica' here, which switches triggers off, and with them the copy of the metadata "
    "that searches look in; leave it at 'origin'"
)

_WATCHED = """
SELECT pg_backend_pid(), CASE WHEN current_setting('client_connection_check_interval', true) = '0'
    THEN set_config('client_connection_check_interval', '500', false) END"""
"""While a statement runs or waits for a lock, the server looks every 500 ms whether its client is still there."""

STATEMENT_MODE = "statement pooling mode"
"""How PgBouncer says that it allows no transactions."""


async def copied(connection: Connection, query: str) -> list[str]:
    """The one row of a query, asked so that nothing of it stays in the session, as COPY is."""
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)

    await connection.copy_from_query(query, output=keep)
    return b"".join(parts).decode().strip().split("\t")


async def is_behind_pooler(connection: Connection) -> bool:
    """Whether the session that answers is another than the one that let us in, as behind PgBouncer.

    Raises:
        MemoryConfigurationError: it switches triggers off; a role may be set so at any time, and its next sessions are.
    """
    pid, replication = await copied(connection, _SESSION)
    if replication == "replica":
        raise MemoryConfigurationError(TRIGGERLESS, provider="postgres")
    return pid != str(connection.get_server_pid())


async def watch(connection: Connection) -> bool:
    """Let the server end what it does for a client that is gone.

    Returns:
        whether the session was still the one that let us in.
    """
    try:
        pid, *_ = await copied(connection, _WATCHED)
    except asyncpg.PostgresError:
        return True  # its computer has no way to look
    return pid == str(connection.get_server_pid())


async def require_transactions(connection: Connection) -> None:
    """Refuse a pooler that hands each statement to another session.

    Raises:
        MemoryConfigurationError: it does.
    """
    try:
        await connection.execute("BEGIN")
        await connection.execute("COMMIT")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if STATEMENT_MODE not in str(error):
            raise
    else:
        return
    raise MemoryConfigurationError(
        "the pooler is in statement mode, in which there are no transactions; set its pool_mode to transaction (or "
        "session) for this database",
        provider="postgres",
    )
