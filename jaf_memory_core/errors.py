"""Every error that jaf-memory raises, in one tree.

    MemoryError                         anything below; catch this to catch all
    ├── MemoryConnectionError           the store could not be reached, or did not answer in time
    ├── MemoryStorageError              the store answered, and failed (`operation`)
    ├── MemoryNotFoundError             there is no such conversation (`conversation_id`)
    ├── MemoryConflictError             another version, owner or content stands there already
    ├── MemoryInvalidInputError         what the caller gave cannot be stored (also a `ValueError`)
    └── MemoryConfigurationError        settings, a driver or a plugin are wrong

No error text holds a password, a connection string or the content of a message.
"""

from __future__ import annotations

from typing import Any, Literal

Outcome = Literal["not_applied", "unknown"]
"""What became of the operation: nothing was changed, or nobody can tell."""


class MemoryError(Exception):
    """Base of the tree.

    Attributes:
        provider: name of the provider that raised it, `""` where none was involved.
        retryable: whether the same call may succeed later without a change.
        outcome: `"not_applied"` when nothing was changed, `"unknown"` when the answer was lost.

    Example:
        try:
            await provider.get_recent_messages("no such one")
        except MemoryConnectionError as error:
            print(error.outcome)  # try again later
        except MemoryError as error:
            print(type(error).__name__, error.retryable)  # MemoryNotFoundError False
    """

    def __init__(
        self, message: str, *, provider: str = "", retryable: bool = False, outcome: Outcome = "not_applied"
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.retryable = retryable
        self.outcome = outcome

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not survive pickling (process pools) by themselves.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[MemoryError], args: tuple[Any, ...], state: dict[str, Any]) -> MemoryError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class MemoryConnectionError(MemoryError):
    """The store could not be reached, did not answer within the deadline, or the provider is closed.

    Attributes:
        starting: whether the server is there and has only to start: who makes a provider waits for that.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        retryable: bool = True,
        outcome: Outcome = "not_applied",
        starting: bool = False,
    ) -> None:
        super().__init__(message, provider=provider, retryable=retryable, outcome=outcome)
        self.starting = starting


class MemoryStorageError(MemoryError):
    """The store answered, and could not do what was asked: full disk, corrupt file, missing rights, damaged data.

    Attributes:
        operation: name of the provider's method that failed.
        conversation_id: of the conversation whose stored form cannot be read, or `None` where that is not the matter.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        provider: str = "",
        retryable: bool = False,
        outcome: Outcome = "not_applied",
        conversation_id: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider, retryable=retryable, outcome=outcome)
        self.operation = operation
        self.conversation_id = conversation_id


class MemoryNotFoundError(MemoryError):
    """There is no conversation under that id (for this user).

    Attributes:
        conversation_id: the id that was asked for.
    """

    def __init__(self, conversation_id: str, *, provider: str = "") -> None:
        super().__init__(f"there is no conversation {conversation_id!r}", provider=provider)
        self.conversation_id = conversation_id


class MemoryConflictError(MemoryError):
    """Something else stands there already: another version, owner, or content under the same message id.

    Attributes:
        expected_version: the version that the caller expected, or `None` where versions were not the matter.
        actual_version: the version that was found (0: no conversation), or `None`.
        retry_after: seconds after which another's lease ends, unless it is renewed, or `None`.

    Example:
        try:
            await provider.update_metadata("user-123:chat", {"title": "Order"}, expected_version=7)
        except MemoryConflictError as error:
            print(error.expected_version, error.actual_version)  # 7 1
    """

    def __init__(
        self,
        message: str,
        *,
        expected_version: int | None = None,
        actual_version: int | None = None,
        provider: str = "",
    ) -> None:
        super().__init__(message, provider=provider)
        self.retry_after: float | None = None
        self.expected_version = expected_version
        self.actual_version = actual_version


class MemoryInvalidInputError(MemoryError, ValueError):
    """What the caller gave cannot be stored; the text says what was given and what is allowed.

    Attributes:
        limit: where it is too large, the setting that says how large it may be (`"max_message_bytes"`), else `None`. A
            service answers 413 to the one, and 422 to the other.
    """

    def __init__(self, message: str, *, provider: str = "", limit: str | None = None) -> None:
        super().__init__(message, provider=provider)
        self.limit = limit


class MemoryConfigurationError(MemoryError):
    """Settings, a driver or a plugin are wrong; the text says which, and what to do.

    Attributes:
        distribution: the installed distribution at fault, or `None`.
        version: its version, or `None`.
        install: the command that mends it, for our own distributions only, or `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        distribution: str | None = None,
        version: str | None = None,
        install: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider)
        self.distribution = distribution
        self.version = version
        self.install = install
