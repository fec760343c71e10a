"""What a backend may offer beside storage, for the command line: its schema, adoption, what it is made of.

No base class is needed: a backend that has the methods offers them. They are called on a backend that was made but
never opened, because a backend refuses to open over a store that still needs them, and outside the guard: each
connects by itself, keeps its own deadlines, and raises `MemoryError`s, or `driver_errors` that `translate` understands.
`close()` is called in the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct


@runtime_checkable
class HasSchema(Protocol):
    """A store with definitions of its own: tables, indexes, functions."""

    async def schema(self) -> str:
        """All of them, as somebody with the rights for it would run them. Should not need a connection."""

    async def apply_schema(self) -> Sequence[str]:
        """Apply what is missing, all or nothing, however often it is called; what was applied, `()` for nothing."""


@runtime_checkable
class MayBeAbsent(Protocol):
    """A store that opening makes where there is none, and that can tell so without making it."""

    async def absent(self) -> str | None:
        """Why there is nothing to read, as `there is no file /srv/chat.db`; `None` if the store stands."""


@runtime_checkable
class HasFiles(Protocol):
    """A store on this machine's disk, whose files no export may replace."""

    def files(self) -> Sequence[Path]:
        """All that it may consist of, absolute, the main one first, whether or not they are there."""


@runtime_checkable
class HasRights(Protocol):
    """A store with definitions of its own, and roles that need rights on them."""

    async def grants(self, role: str) -> Sequence[str]:
        """Statements that give a role what a provider needs which did not make the store. Needs no connection."""

    async def grant(self, role: str) -> None:
        """Run them, all or none.

        Raises:
            MemoryError: there is no such role, or we may not.
        """


@runtime_checkable
class HasSearchIndex(Protocol):
    """A store that can have an index for searches, which is made and dropped on demand."""

    async def apply_search(self, way: Literal["index", "scan"]) -> str:
        """Build the index, or drop it, while others write; what was done, as a sentence. What was begun goes on."""


class Adopted(Struct, frozen=True):
    """One step of an adoption.

    Attributes:
        outcome: `"moved"`, `"held"` (it had been moved before), `"refused"`, or `"note"`: `text` is a sentence for the
            operator that belongs to no single conversation, such as where the older data stands now.
        conversation_id: which one; `""` for a note.
        text: why it was refused, or the note. Never content, never a secret.
        total: how many conversations there are to look at, where that is known.
    """

    outcome: Literal["moved", "held", "refused", "note"]
    conversation_id: str = ""
    text: str = ""
    total: int | None = None


@runtime_checkable
class Adopts(Protocol):
    """A store in which data of an older layout may stand, and can be moved into ours."""

    def adopt(self, *, remove: bool = False) -> AsyncIterator[Adopted]:
        """Move older data in; nothing of it is lost, whenever this is stopped, and running it again goes on.

        Each conversation is verified by its digest before it counts as moved. Nothing that this package wrote is
        overwritten: what stands in the way is refused, and told.

        Args:
            remove: whether the older form of a conversation is removed once it is verified. It stays otherwise.

        Yields:
            a step for each conversation, and notes; the first note says what was found.
        """


@runtime_checkable
class KeepsOlder(Adopts, Protocol):
    """A store in which an adoption keeps the older form as a whole, until somebody ends that."""

    async def older(self) -> str | None:
        """What is kept, how much of it, and what of it stands nowhere else, as a sentence; `None` for nothing.

        Raises:
            MemoryConfigurationError: the adoption has not ended yet.
        """

    async def finish_adoption(self) -> str:
        """Remove it, what was refused as well; what was done, as a sentence."""
