"""What everybody stores: turns of two messages, of 300 bytes each as they lie in a store."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jaf_memory_core import ConversationMemory, Message, codec

ROOT = Path(__file__).parents[1]
if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))  # where `services` starts the real servers, for tests and for us

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # jaf-py's import would fetch a price list

SIZE = 300
"""Bytes of a stored message."""

BODY = "y" * SIZE
"""A message as bare drivers store it."""

TURN = "y" * (2 * SIZE)
"""A turn as one row."""

LENGTHS = (10, 100, 1_000, 10_000)
RECENT = 20
WHOLE = 1_000
"""Messages of a conversation that is loaded whole."""

TASKS = (1, 2, 4, 8, 16, 32, 64)
MANY_TASKS = 32
OWNERS = 10
"""The crowd of conversations belongs to so many users in equal parts."""

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
"""When the first conversation of the crowd was written."""

HEADER = '{"topic":"' + "z" * 120 + '"}'
"""What a bare driver knows of a conversation beside its messages."""

_TEXT = {role: "x" * (SIZE - len(codec.encode(Message(role, "")))) for role in ("user", "assistant")}


def text(role: str = "user") -> str:
    """Text that makes a message of 300 bytes."""
    return _TEXT[role]


def messages(count: int) -> list[Message]:
    """So many messages, the user's and the assistant's by turns."""
    return [Message(role, _TEXT[role]) for role, _ in zip(_roles(), range(count), strict=False)]


def turn() -> list[Message]:
    """What a turn adds."""
    return [Message("user", _TEXT["user"]), Message("assistant", _TEXT["assistant"])]


def _roles() -> Iterator[str]:
    while True:
        yield "user"
        yield "assistant"


@dataclass(frozen=True)
class Shelf:
    """The conversations that everybody has at the start.

    There are copies of each length, taken in turn, so that short ones stay short while they are appended to.

    Attributes:
        copies: how many conversations of each length.
        tasks: how many of 20 messages, one a task.
        whole: the conversation of 1,000 that is loaded.
    """

    copies: tuple[tuple[int, int], ...]
    tasks: int
    whole: str = "whole"

    def keys(self, length: int) -> list[str]:
        """The conversations of a length."""
        return [f"c{length}-{copy}" for copy in range(dict(self.copies)[length])]

    def of_tasks(self, count: int) -> list[str]:
        """A conversation for each of so many tasks."""
        return [f"t{number}" for number in range(count)]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for length, _ in self.copies:
            yield from ((key, length) for key in self.keys(length))
        yield from ((key, RECENT) for key in self.of_tasks(self.tasks))
        if not self.whole.startswith("c"):
            yield self.whole, WHOLE


DRIVERS_SHELF = Shelf(((10, 100), (100, 40), (1_000, 4), (10_000, 1)), TASKS[-1])
PEERS_SHELF = Shelf(((10, 10), (1_000, 1)), MANY_TASKS, whole="c1000-0")
"""Smaller: some peers need seconds to store a thousand messages."""

MEMORY_PEERS_SHELF = Shelf(((10, 10), (1_000, 1), (10_000, 1)), MANY_TASKS, whole="c1000-0")
"""Without a server there is time for long ones, too."""


def peers_shelf(backend: str) -> Shelf:
    """What peers on a store have at the start."""
    return MEMORY_PEERS_SHELF if backend == "memory" else PEERS_SHELF


def crowd(numbers: Iterable[int]) -> Iterator[ConversationMemory]:
    """Conversations of one turn each, of ten owners, as old as a bare driver's."""
    return (
        ConversationMemory(
            f"x{number}", user_id=owner(number), messages=turn(), created_at=moment(number), updated_at=moment(number)
        )
        for number in numbers
    )


def moment(number: int) -> datetime:
    """When a conversation of the crowd was last written: one follows each second."""
    return FIRST + timedelta(seconds=number)


def owner(number: int) -> str:
    """Whom a conversation of the crowd belongs to."""
    return f"u{number % OWNERS}"
