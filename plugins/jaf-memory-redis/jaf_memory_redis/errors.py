"""What can go wrong between us and a server, and what it means to the application."""

from __future__ import annotations

import os
import re
import ssl

import redis.exceptions

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError, MemoryError, MemoryStorageError

# Redis 6.2 wraps what a command within a script answered: `ERR Error running script (…): @user_script: 3: -READONLY …`.
_WITHIN = re.compile(r"@user_script: \d+: -([A-Z]+) ")


class ServerError(Exception):
    """An error reply. Its text may repeat what was sent, so only its code is shown.

    Attributes:
        code: the first word, `NOSCRIPT` for one; of an error within a script, that error's.
        text: all of it; never to be logged or raised.
    """

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]
        self.text = text
        if self.code == "ERR" and (within := _WITHIN.search(text)) is not None:
            self.code = within[1]
        super().__init__(self.code)


class TransportError(Exception):
    """A connection that was lost, or that could not be made.

    Attributes:
        sent: whether anything of the operation may have reached the server.
        closed: whether it was the server that closed it, while a reply was owed.
    """

    def __init__(self, reason: str, *, sent: bool, closed: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent
        self.closed = closed


DRIVER_ERRORS: tuple[type[Exception], ...] = (
    ServerError,
    TransportError,
    redis.exceptions.RedisError,
    # These two are no RedisErrors.
    redis.exceptions.RedisClusterException,
    OSError,
)

FAILURES: tuple[type[Exception], ...] = (MemoryError, *DRIVER_ERRORS)
"""All that an operation may fail with, but for bugs."""

# What a server says where a user lacks a right, or where a command was renamed, and the command where it names one.
_DENIED = re.compile(
    r"NOPERM|no permissions|can't run this command|can't access at least one of the keys"
    r"|unknown (?:redis )?command|Invalid command passed to redis",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"run the '([a-zA-Z_|]{2,32})' command")
_UNKNOWN = re.compile(r"unknown command [`'](EVALSHA|EVAL|[a-zA-Z]{2,32})[`']")

TAKEN_AWAY = "?"
"""Stands before the name of a command that the server does not know: `rename-command` took it away."""

_REFUSED_ENTRY = {"NOAUTH", "WRONGPASS", "DENIED"}
_NOT_NOW = {
    "LOADING": "it is still loading its data",
    "READONLY": "it is a replica now",
    "MASTERDOWN": "its master is down",
    "CLUSTERDOWN": "the cluster has no master for this slot",
    "TRYAGAIN": "the slot is being moved",
    "MOVED": "the slots are being moved",
    "ASK": "the slots are being moved",
    "NOREPLICAS": "it has too few replicas",
    "BUSY": "it is busy with a script",
    "NOSCRIPT": "it lost the script twice",
    "UNBLOCKED": "it changed its role",
}
_ADVICE = {
    "OOM": "the server has no memory left; raise maxmemory, or remove conversations",
    "MISCONF": "the server cannot save to its disk, and takes no writes",
    "WRONGTYPE": "a key under the provider's prefix holds something of another program; use another key_prefix",
    "Protocol error": "perhaps it takes no message of that size (proto-max-bulk-len)",
    "CROSSSLOT": "the server is a Cluster; set cluster=True (JAF_REDIS_CLUSTER=true)",
}


def translate(error: Exception, operation: str) -> MemoryError:
    """Turn one of `DRIVER_ERRORS` into ours; no text of the server's or the driver's is repeated."""
    if isinstance(error, ServerError):
        return _refusal(error, operation)
    if isinstance(error, TransportError):
        return MemoryConnectionError(str(error), outcome="unknown" if error.sent else "not_applied")
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return MemoryConnectionError("the server refused user name or password", retryable=False)
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return _not_now("LOADING")
    if isinstance(error, redis.exceptions.ResponseError | redis.exceptions.DataError):
        return MemoryStorageError(f"the server refused: {type(error).__name__}", operation=operation)
    return MemoryConnectionError(f"the server could not be reached: {type(error).__name__}", outcome="unknown")


def _not_now(code: str) -> MemoryConnectionError:
    return MemoryConnectionError(f"the server cannot answer now: {_NOT_NOW[code]} ({code})", starting=code == "LOADING")


def _refusal(error: ServerError, operation: str) -> MemoryError:
    if error.code in _REFUSED_ENTRY:
        return MemoryConnectionError(
            f"the server refused entry ({error.code}); check user name and password", retryable=False
        )
    if error.code in _NOT_NOW:
        return _not_now(error.code)
    if _DENIED.search(error.text):
        named = _COMMAND.search(error.text)
        if named is None and (missing := _UNKNOWN.search(error.text)) is not None:
            return lacking(f"{TAKEN_AWAY}{missing[1]}", operation)
        problem = lacking(named[1] if named else None, operation)
        # Where it is a script that was stopped, its first half may stand.
        problem.outcome = "unknown" if "script" in error.text else "not_applied"
        return problem
    # In all of the text: an error within a script has its own code in the middle of it.
    code = next((known for known in _ADVICE if known in error.text), error.code)
    advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
    return MemoryStorageError(f"the server refused with {code}{advice}", operation=operation)


def is_denied(error: ServerError) -> bool:
    """Whether the user lacks a right, or the server the command."""
    return _DENIED.search(error.text) is not None


def lacking(name: str | None, operation: str) -> MemoryStorageError:
    """The refusal for want of a right.

    Args:
        name: the command, where it is known; otherwise it is the keys, or a command that is not named. Behind
            `TAKEN_AWAY` it is one that the server does not know.
        operation: what was asked.
    """
    if name is not None and name.startswith(TAKEN_AWAY):
        word = name.removeprefix(TAKEN_AWAY).upper()
        return MemoryStorageError(
            f"the server has no command {word}, which the provider needs; give it back its name (rename-command)",
            operation=operation,
        )
    if name is None:
        right = "a command, or the keys; grant ~<key_prefix>* and the commands that docs/providers.md lists"
    else:
        right = f"{name.upper().replace('|', ' ')}; grant +{name.lower()} on the keys of the prefix"
    return MemoryStorageError(
        f"the server refused with NOPERM: the user lacks rights (ACL): {right}", operation=operation
    )


def standing(error: Exception, operation: str) -> MemoryError:
    """What failed behind a write that stands: never "not applied"."""
    problem = error if isinstance(error, MemoryError) else translate(error, operation)
    problem.outcome = "unknown"
    return problem


def damaged(conversation_id: str, counted: int, found: int) -> MemoryStorageError:
    """The refusal of a conversation whose parts do not agree: the server lost some of them (eviction, say)."""
    return MemoryStorageError(
        f"conversation {conversation_id!r} is damaged: its header counts {counted} messages, and {found} stand; "
        "delete it, or import it again from a copy",
        operation="read",
        conversation_id=conversation_id,
    )


def misplaced(error: ServerError, conversation_id: str) -> Exception:
    """What a refusal of one conversation's keys means: another type of Redis's in the place of one is damage."""
    return codec.damaged(conversation_id) if is_wrong_type(error) else error


def is_wrong_type(error: ServerError) -> bool:
    """Whether a key holds another type of Redis's than ours do."""
    return "WRONGTYPE" in error.text


def unreachable(where: str, error: BaseException, *, tls: bool) -> Exception:
    """The reason why a connection could not be made, without address, user or password."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = "set JAF_REDIS_SSL_CA_FILE to the authority that signed it"
            if "mismatch" in cause.verify_message:
                advice = "connect by a name that it holds, or set JAF_REDIS_SSL_NAME to one"
            # OpenSSL's words hold the address that was wanted; its code does not.
            reason = "Hostname mismatch" if "mismatch" in cause.verify_message else cause.verify_message
            return MemoryConnectionError(
                f"{where}: its certificate was not accepted ({reason}); {advice}", retryable=False
            )
        if tls and isinstance(cause, FileNotFoundError | PermissionError):
            return MemoryConfigurationError("a file that the ssl_… settings name is missing, or may not be read")
        cause = cause.__cause__ or cause.__context__
    return _refused_greeting(where, error) or TransportError(
        f"{where} could not be reached ({_reason(error)})", sent=False
    )


def _refused_greeting(where: str, error: BaseException) -> MemoryError | None:
    """What the server itself said against us during the handshake."""
    if isinstance(error, redis.exceptions.AuthenticationError):
        return MemoryConnectionError(f"{where} refused user name or password", retryable=False)
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return _not_now("LOADING")
    if not isinstance(error, redis.exceptions.ResponseError):
        return None
    if "invalid db" in str(error).lower() or "out of range" in str(error).lower():
        return MemoryConfigurationError(f"{where} has no database of that number; change db, or the URL's path")
    return MemoryConnectionError(f"{where} refused the connection ({type(error).__name__})", retryable=False)


def _reason(error: BaseException) -> str:
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or type(cause).__name__}"
    number = getattr(cause, "errno", None)
    # The error's own text holds the address; what the system says for its number does not.
    return os.strerror(number) if number and number > 0 else type(cause).__name__
