"""Databases of others, read in one snapshot and never written; no error repeats an address."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaf_memory_core import MemoryConfigurationError, MemoryConnectionError, MemoryInvalidInputError, MemoryStorageError
from jaf_memory_core.settings.errors import has_credentials

HEADER = b"SQLite format 3\0"

SECONDS = 30.0
"""How long a server may take to let us in, and a file's writer to let us read."""

_POSTGRES = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_REFUSALS = {
    "3D000": "there is no such database",
    "28P01": "the password is refused",
    "28000": "the user is refused",
    "42P01": "a table is not there",
    "42703": "a column is not there; the layout is another one",
    "42501": "the right to read is missing (GRANT SELECT)",
}
"""What a server says most often; its own texts may repeat what it was sent."""


@contextmanager
def sqlite(path: str) -> Iterator[sqlite3.Connection]:
    """A file of SQLite; texts come as bytes, since somebody may have written what is no UTF-8.

    Raises:
        OSError: it is not there, or may not be read.
        MemoryInvalidInputError: it is no database of SQLite, or looks like an address with a password.
        MemoryStorageError: it is damaged, or locked.
    """
    if has_credentials(path):
        raise MemoryInvalidInputError("what is given for a file looks like an address with a password")
    with Path(path).open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise MemoryInvalidInputError("the file is no database of SQLite")
    try:
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=SECONDS, isolation_level=None)) as connection:
            connection.text_factory = bytes
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise MemoryStorageError(f"the file cannot be read: {error}") from error


def is_postgres(address: str) -> bool:
    """Whether it is the address of a PostgreSQL server, as drivers or SQLAlchemy write it."""
    return _POSTGRES.match(address) is not None


@asynccontextmanager
async def postgres(address: str) -> AsyncIterator[Any]:
    """A connection to a PostgreSQL server, in a transaction that only reads.

    Raises:
        MemoryConfigurationError: the driver is missing.
        MemoryInvalidInputError: this is no address of such a server.
        MemoryConnectionError: the server could not be reached.
        MemoryStorageError: it refused, or lacks what is to be read.
    """
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise MemoryConfigurationError(
            "to read PostgreSQL, asyncpg is needed, which is not installed: pip install jaf-memory-postgres"
        ) from error
    if not is_postgres(address):
        raise MemoryInvalidInputError("this is no address of PostgreSQL; write postgresql://USER@HOST:PORT/DATABASE")
    # SQLAlchemy's name for what asyncpg takes by libpq's.
    plain = "postgresql://" + re.sub(r"([?&])ssl=", r"\1sslmode=", address.partition("://")[2])
    try:
        connection = await asyncpg.connect(plain, timeout=SECONDS)
    except (asyncpg.InterfaceError, ValueError) as error:  # what is read of an address
        raise MemoryInvalidInputError(
            f"the address cannot be used ({type(error).__name__}); write postgresql://USER@HOST:PORT/DATABASE, with "
            "what is special in a password as %40 and the like"
        ) from None
    except asyncpg.PostgresError as error:
        raise _refused(error.sqlstate) from None
    except OSError as error:
        raise MemoryConnectionError(
            f"the server cannot be reached ({type(error).__name__})", outcome="not_applied"
        ) from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    except asyncpg.PostgresError as error:
        raise _refused(error.sqlstate) from None
    except (asyncpg.InterfaceError, OSError) as error:
        raise MemoryConnectionError(f"the server was lost ({type(error).__name__})", outcome="not_applied") from None
    finally:
        await connection.close(timeout=SECONDS)


def _refused(code: str | None) -> MemoryStorageError:
    return MemoryStorageError(f"the server refused: {_REFUSALS.get(code or '', f'its code is {code}')}")
