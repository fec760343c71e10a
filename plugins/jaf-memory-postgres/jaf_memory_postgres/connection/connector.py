"""One new connection to the address that the settings name, and to nothing else."""

from __future__ import annotations

import ssl
from typing import Any

import asyncpg

from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.address import Address

REFUSES_THIS_LINE = (asyncpg.InvalidAuthorizationSpecificationError, ConnectionError, ssl.SSLError)
"""What a server answers that wants TLS, or has none; with `allow` and `prefer` the other way is tried then."""


class Connector:
    """Makes connections.

    Args:
        address: the server or servers.
        pooler: whether a pooler stands between, so that no prepared statement may be kept.
        patience: seconds for all hosts together.
    """

    def __init__(self, address: Address, *, pooler: bool, patience: float) -> None:
        self._address = address
        self._cache = 0 if pooler else 256
        self._patience = patience
        self._first = 0

    async def __call__(self) -> asyncpg.Connection[Any]:
        """Connect to the first host that will do, beginning with the one that did last time.

        Raises:
            MemoryConnectionError: none will; the text names each, and no secret.
            MemoryConfigurationError: a certificate's file cannot be read.
        """
        hosts = self._address.hosts
        problems: list[MemoryConnectionError] = []
        for step in range(len(hosts)):
            turn = (self._first + step) % len(hosts)
            try:
                connection = await self._host(*hosts[turn])
            except MemoryConnectionError as error:
                problems.append(error)
            else:
                self._first = turn
                return connection
        text = "; ".join(map(str, problems))
        raise MemoryConnectionError(text, retryable=any(problem.retryable for problem in problems)) from problems[0]

    async def _host(self, host: str, port: int) -> asyncpg.Connection[Any]:
        place = host if host.startswith("/") else f"{host}:{port}"
        try:
            choices = self._address.tls.choices() if not host.startswith("/") else [None]
        except OSError as error:
            raise MemoryConfigurationError(
                f"a file of certificates cannot be read: {error.strerror or type(error).__name__}", provider="postgres"
            ) from None
        for context in choices:
            try:
                return await self._line(host, port, context)
            except errors.DRIVER_ERRORS as error:
                if context is choices[-1] or not isinstance(error, REFUSES_THIS_LINE):
                    raise errors.unreached(error, place) from error
        raise AssertionError("there is always a choice")

    async def _line(self, host: str, port: int, context: ssl.SSLContext | None) -> asyncpg.Connection[Any]:
        address, others = self._address, len(self._address.hosts) - 1
        # A host that does not answer must leave time for the others; else the deadline of the operation is enough.
        # Whatever is left out here, the driver would take from the environment.
        return await asyncpg.connect(
            host=host,
            port=port,
            user=address.user,
            password=None if address.passfile else address.password,
            passfile=address.passfile,
            database=address.database,
            ssl=context or False,
            direct_tls=address.tls.direct and context is not None,
            target_session_attrs=address.session,
            server_settings=dict(address.server_settings) or None,
            statement_cache_size=self._cache,
            max_cached_statement_lifetime=0,
            timeout=self._patience / (1 + others) if others else None,
        )
