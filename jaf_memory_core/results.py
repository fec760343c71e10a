"""What the two writing methods of the document answer: `Success` or `Failure`."""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar

from msgspec import Struct

from jaf_memory_core.errors import MemoryError

T_co = TypeVar("T_co", covariant=True)


class WriteResult(Struct, frozen=True):
    """What a write did.

    Attributes:
        version: the conversation's version after the write; it grows by one with each.
        message_count: how many messages the conversation holds now.
        added: how many messages this call added (0 when all were held already).
    """

    version: int
    message_count: int
    added: int


class Success(Struct, Generic[T_co], frozen=True):
    """The store has done it, and committed. `data` says what."""

    data: T_co

    def unwrap(self) -> T_co:
        """Return `data`; a `Failure` in its place would raise. So a refusal cannot be overlooked.

        Example:
            version = (await provider.append_messages("user-123:chat", [Message("user", "Thanks!")])).unwrap().version
        """
        return self.data


class Failure(Struct, frozen=True):
    """The store answered, and refused; nothing of the call was applied. `error` says why."""

    error: MemoryError

    def unwrap(self) -> NoReturn:
        """Raise `error`.

        Raises:
            MemoryError: always; the one that the store answered with.
        """
        raise self.error


Result = Success[WriteResult] | Failure
"""What `store_messages` and `append_messages` return."""
