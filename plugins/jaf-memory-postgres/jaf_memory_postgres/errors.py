"""What the driver raises, in our words: which server, which rule, and nothing of what was sent."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import asyncpg

from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # After a killed backend the driver may meet its own state: neither of the two above.
    asyncpg.InternalClientError,
    # asyncpg raises it bare for a stored time that Python has no datetime for.
    OverflowError,
    OSError,  # a TimeoutError among them
)

READ_ONLY = "25006"
UNPREPARED = ("26000", "42P05")
"""There is no prepared statement of that name, or there is one already: another session answers than before."""
RESERVED = "cannot perform operation: jaf-memory is using this connection; give the provider one of its own, or a pool"
_BUSY = ("another operation is in progress", "another operation (", RESERVED)
_GOING = ("57P01", "57P02", "57P03", "57P05")
_STARTING = "57P03"
_FULL = "53300"
_AGAIN = ("40001", "40P01", "55P03")
_NO_SERVER = (
    "server login has been failing",
    "cannot connect to server",
    "query_wait_timeout",
    "no more connections allowed",
)
"""What PgBouncer says when it has no server for a statement, which then was sent to none."""
_LOGIN = ("28000", "28P01", "3D000", "42501", "55000")
_SETTINGS = ("42704", "22023", "42601", "08P01")
_POOLER = {
    "no such database": "the pooler has no database of that name",
    "does not exist": "the pooler has no database of that name",
    "no such user": "the pooler refused the login",
    "authentication failed": "the pooler refused the login",
}
"""What PgBouncer says under a code of its own protocol, and what it means."""


def state(error: BaseException) -> str:
    """The SQLSTATE that the server gave, or `""`."""
    found = getattr(error, "sqlstate", None)
    return found if isinstance(found, str) else ""


def is_busy(error: BaseException) -> bool:
    """Whether a connection of the application refused a statement because another is in progress on it."""
    return isinstance(error, asyncpg.InterfaceError) and any(words in str(error) for words in _BUSY)


def ends_connection(error: asyncpg.PostgresError) -> bool:
    """Whether a connection is of no use after this answer: it is going, or leads to a server that cannot write."""
    code = state(error)
    return code == READ_ONLY or code in _GOING or code.startswith("08")


def translated(error: Exception, operation: str) -> MemoryError:
    """One of `DRIVER_ERRORS`, raised by an operation whose statement was sent.

    Args:
        error: what the driver raised.
        operation: the provider's method.
    """
    if isinstance(error, OverflowError):
        text = "a time that is stored lies outside of the years 1 to 9999, which only a hand can have written; mend it"
        return MemoryStorageError(text, operation=operation)
    code = state(error)
    unsent = _unsent(error, code)
    if unsent is not None:
        return MemoryConnectionError(unsent)
    if not code or code in _GOING or code.startswith("08"):
        # Between statement and answer: a commit may have come through before the session ended.
        words = f"server error {code}" if code else type(error).__name__
        return MemoryConnectionError(f"the line to the server was lost ({words})", outcome="unknown")
    # The tables were altered while we run; the driver has dropped what it had prepared, and prepares it anew.
    if code in _AGAIN or isinstance(error, asyncpg.InvalidCachedStatementError):
        return MemoryStorageError(f"the server asked to try again ({code})", operation=operation, retryable=True)
    return MemoryStorageError(_reason(error, code), operation=operation)


def _unsent(error: Exception, code: str) -> str | None:
    """What kept the statement from doing anything, where another connection, or a later try, may do."""
    if is_busy(error):
        return "the application is using its connection; give the provider one of its own, or a pool"
    if code in UNPREPARED:
        return (
            f"prepared statements are lost between us and the server ({code}): behind a pooler set "
            "JAF_POSTGRES_POOLER=true, and make a pool of your own with statement_cache_size=0"
        )
    if code == READ_ONLY:
        # A former primary after a fail-over: the next connection may find the new one.
        return f"the server is read-only, a standby perhaps ({code})"
    if any(words in str(error) for words in _NO_SERVER):
        return f"the pooler has no line to the server ({code})"
    return None


_PLAIN = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
"""Classes of errors whose words tell of the server, and never of a row or of a statement."""


def without_values(error: Exception) -> None:
    """Take out of a driver's error what may hold values of a row: it goes along as the cause of ours."""
    if not isinstance(error, asyncpg.PostgresError):
        return
    for place in ("detail", "hint", "context", "where", "query", "internal_query"):
        if getattr(error, place, None) is not None:
            setattr(error, place, None)
    code = state(error)
    if not code.startswith(_PLAIN):
        error.args = (f"SQLSTATE {code}",)
    error.__context__ = None


def _reason(error: Exception, code: str) -> str:
    reasons = {
        "22000": "a value cannot be sent as it is; has the application's connection another client_encoding than UTF8?",
        "42501": "the role has no right to do it; the tables' owner can run the GRANT that `jaf-memory schema` prints",
        "42P01": "a table of jaf-memory is missing; run `jaf-memory schema --apply`",
        "53100": "the server's disk is full",
        "53200": "the server is out of memory",
        "57014": "the server cancelled the statement; its statement_timeout may be too short",
    }
    return f"{reasons.get(code, f'the server refused: {type(error).__name__}')} ({code})"


def unreached(error: Exception, place: str, settings: Sequence[str] = ()) -> MemoryConnectionError:
    """An error of connecting: nothing of any operation was sent.

    Args:
        error: what the driver raised.
        place: host and port.
        settings: names of the server's settings that the connection string gives.
    """
    code = state(error)
    if code == "08P01":
        for said, reason in _POOLER.items():
            if said in str(error):
                return MemoryConnectionError(f"{place}: {reason} ({code})", retryable=False)
    if code in _SETTINGS and settings:
        return MemoryConnectionError(
            f"{place}: the server refused a parameter of the connection string: {', '.join(settings)} ({code})",
            retryable=False,
        )
    if code in _LOGIN:
        reason = {
            "3D000": "there is no database of that name, and jaf-memory creates none",
            "28P01": "the server refused the password",
            "55000": "the database takes no connections",
        }.get(code, "the server refused the login")
        return MemoryConnectionError(f"{place}: {reason} ({code})", retryable=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{place}: the server's certificate was refused: {error.verify_message}"
        return MemoryConnectionError(text, retryable=False)
    if code == _FULL:
        return MemoryConnectionError(f"{place}: the server has no connection left ({code})")
    words = f"server error {code}" if code else _plainly(error)
    return MemoryConnectionError(f"{place}: the server could not be reached ({words})", starting=code == _STARTING)


def _plainly(error: Exception) -> str:
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return "it offers no TLS"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it is not of the kind that target_session_attrs asks for"
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return error.strerror
    return type(error).__name__
