"""What SQLite's errors mean, and what to do about each; no text holds content."""

from __future__ import annotations

import sqlite3

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryStorageError, Outcome

BUSY = ("database is locked", "database table is locked", "database schema is locked", "locking protocol")
FULL = "database or disk is full"
READ_ONLY = "attempt to write a readonly database"
CANNOT_OPEN = "unable to open database file"
IO = "disk I/O error"
DAMAGED = ("database disk image is malformed", "file is not a database", "malformed database schema")
NO_TEXT = "Could not decode to UTF-8"
INTERRUPTED = "interrupted"

_ADVICE: dict[str, tuple[str, Outcome]] = {
    FULL: ("the disk is full, or the database has reached its greatest size; free some space", "not_applied"),
    READ_ONLY: ("the file cannot be written; make it and its folder writable for this process", "not_applied"),
    CANNOT_OPEN: ("the database's file cannot be opened; look at its folder and the rights on both", "not_applied"),
    # Whether a commit whose fsync failed is on the disk, nobody knows.
    IO: ("reading or writing the file failed; look whether the disk is full, and at the system's log", "unknown"),
    DAMAGED[0]: ("the database is damaged; restore it from a backup, or try SQLite's `.recover`", "unknown"),
    DAMAGED[1]: ("the file is no SQLite database, or damaged; restore a backup, or name another", "not_applied"),
    DAMAGED[2]: ("the database is damaged; restore it from a backup, or try SQLite's `.recover`", "not_applied"),
}


_UNDONE = tuple(text for text, (_, outcome) in _ADVICE.items() if outcome == "not_applied")


class InDoubtError(Exception):
    """A commit failed, and may stand all the same.

    Attributes:
        error: what SQLite said.
    """

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__()
        self.error = error


class NeedsThreadError(Exception):
    """What was asked is too much for an event loop's own thread."""


def is_busy(error: BaseException) -> bool:
    """Whether another connection holds a lock; nothing was done, and it may work in a moment."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(BUSY)


def may_stand(error: sqlite3.Error) -> bool:
    """Whether a commit that ended so may have come through, so that nobody may do it again."""
    return not is_busy(error) and not str(error).startswith(_UNDONE)


def leaves_doubt(error: BaseException) -> bool:
    """Whether a connection that said so is better replaced by a new one."""
    if isinstance(error, MemoryStorageError):
        return error.conversation_id is not None
    known = isinstance(error, sqlite3.DatabaseError) and str(error).startswith((IO, *DAMAGED, CANNOT_OPEN, READ_ONLY))
    return known and not is_busy(error)


def tells_damage(error: BaseException) -> bool:
    """Whether a read failed because of what stands in the file."""
    known = isinstance(error, sqlite3.DatabaseError) and str(error).startswith((*DAMAGED, NO_TEXT))
    return known or isinstance(error, UnicodeDecodeError)


def without_content(error: Exception) -> Exception:
    """The error as it may go to whoever waits: SQLite's own text for what is no UTF-8 repeats it."""
    if isinstance(error, UnicodeDecodeError) or str(error).startswith(NO_TEXT):
        return codec.damaged()
    if isinstance(error, MemoryStorageError):
        error.__context__ = None
    return error


def closed() -> MemoryConnectionError:
    """The answer of a backend that was closed."""
    return MemoryConnectionError("the database is closed; create a new provider", retryable=False)


def translated(error: Exception, operation: str) -> MemoryError:
    """SQLite's error as ours; one that only a bug of ours can cause is raised as it is."""
    text = str(error)
    if is_busy(error):
        return MemoryConnectionError("another process holds the database's lock; try again")
    if text.startswith(INTERRUPTED):
        # Two interrupt a statement: `abandon`, and the progress handler, whose caller is gone.
        return closed()
    if isinstance(error, sqlite3.DataError):
        return MemoryStorageError("the value is larger than SQLite can hold; store it in parts", operation=operation)
    for known, (advice, outcome) in _ADVICE.items():
        if text.startswith(known):
            return MemoryStorageError(advice, operation=operation, outcome=outcome)
    if isinstance(error, sqlite3.ProgrammingError):
        raise error
    # Constraints among them: they hold for all that we write, unless the file says otherwise.
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return MemoryStorageError(
        f"SQLite refused: {name}; look at the file with `PRAGMA integrity_check`",
        operation=operation,
        outcome="unknown",
    )
