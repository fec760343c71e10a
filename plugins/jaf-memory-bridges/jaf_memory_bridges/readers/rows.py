"""Conversations put together from rows: what cannot be read is told, and ids and times follow from the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import ConversationMemory, MemoryConfigurationError, MemoryInvalidInputError, Message
from jaf_memory_core.hooks import OnBad
from jaf_memory_core.settings.errors import quoted
from jaf_memory_core.transfer.jsonlines import derived_id

WRONG = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What frameworks raise at what is not theirs. The texts of these may repeat it, and are not shown."""


@contextmanager
def framework() -> Iterator[None]:
    """Say of a framework that is missing, or of another version, what its bridge says."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MemoryConfigurationError(str(error)) from error


def text(value: object) -> str:
    """A text of a database, which may come as bytes.

    Raises:
        ValueError: it is none, or no UTF-8.
    """
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


@dataclass
class Gathering:
    """One conversation that is being read.

    Attributes:
        key: its id.
        on_bad: is told of what cannot be read.
        kind: what a row should be, for `on_bad`: `item of the SDK`.
        user_id, metadata: as they are to be stored.
        created_at, active_at: in UTC; found by `moment`, or with the rows.
    """

    key: str
    on_bad: OnBad
    kind: str
    user_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    active_at: datetime | None = None
    messages: list[Message] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    def bad(self, place: object, reason: str) -> None:
        """Tell of a row that cannot be read."""
        self.on_bad(f"{quoted(self.key)}, {place}", reason)

    def take(self, place: str, make: Callable[..., Message], *given: Any) -> None:
        """Take one row.

        Args:
            place: what says its place for good, such as its key.
            make: makes the message. It is called with the id that one without an id of its own is to have.
            given: further arguments for it.
        """
        own = derived_id(self.key, place)
        try:
            message = make(own, *given)
        except MemoryInvalidInputError as error:
            self.bad(place, str(error))
            return
        except WRONG as error:
            self.bad(place, f"is no {self.kind} ({type(error).__name__})")
            return
        if message.message_id in self._ids:  # their stores may hold one twice
            message = replace(message, message_id=own)
        self._ids.add(message.message_id)
        self.messages.append(message)

    def moment(self, value: object) -> datetime | None:
        """A time of a database, in UTC: seconds, or ISO 8601; without an offset it is in UTC already."""
        if value is None:
            return None
        try:
            if isinstance(value, int | float):
                return datetime.fromtimestamp(value, UTC)
            found = value if isinstance(value, datetime) else datetime.fromisoformat(text(value))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.bad("a time", "cannot be read, and is left out")
            return None

    def conversations(self) -> Iterator[ConversationMemory]:
        """The conversation; none where its id, owner or metadata cannot be kept, which is told."""
        try:
            yield ConversationMemory(
                conversation_id=self.key,
                user_id=self.user_id,
                metadata=self.metadata,
                messages=tuple(self.messages),
                message_count=len(self.messages),
                created_at=self.created_at,
                active_at=self.active_at,
                updated_at=self.active_at,
            )
        except MemoryInvalidInputError as error:
            self.on_bad(quoted(self.key), str(error))


def mapping(value: object) -> Mapping[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError("is no object")
    return value
