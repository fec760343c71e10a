"""Damaged conversations in a listing: it ends at the first, or goes on behind each and tells of them at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from jaf_memory_core.errors import MemoryInvalidInputError, MemoryStorageError
from jaf_memory_core.records import Damaged, Record

logger = logging.getLogger("jaf_memory_core")

OnDamaged = Literal["raise", "skip"] | Callable[[MemoryStorageError], Any]
"""What a listing does with a conversation that cannot be read.

It raises the error; or leaves the conversation out, and logs a warning at the end that names each; or calls this with
the error of each, and goes on.
"""

MOST = 100
"""Ids that the warning names; all are counted."""


class Listing:
    """What one listing met on its way.

    Args:
        on_damaged: what the caller asked for.
        provider: the provider's name, for errors.

    Raises:
        MemoryInvalidInputError: it is none of these.
    """

    def __init__(self, on_damaged: OnDamaged, provider: str) -> None:
        if on_damaged not in ("raise", "skip") and not callable(on_damaged):
            raise MemoryInvalidInputError(
                f"on_damaged must be 'raise', 'skip' or a function of one error, not {type(on_damaged).__name__}"
            )
        self._on_damaged = on_damaged
        self._provider = provider
        self._ids: list[str | None] = []
        self._unread: str | None = None

    def readable(self, found: Record | Damaged) -> Record | None:
        """The record, or `None` for one that is left out.

        Raises:
            MemoryStorageError: it is damaged, and the caller did not ask to go on.
        """
        if isinstance(found, Record):
            return found
        self._leave_out(found.error)
        return None

    def unread(self, error: MemoryStorageError) -> None:
        """Leave out a conversation that a processor cannot read. Of a search it may come in several pages, in a row.

        Raises:
            MemoryStorageError: it tells of no conversation, or the caller did not ask to go on.
        """
        if error.conversation_id is None:
            raise error
        if error.conversation_id != self._unread:
            self._unread = error.conversation_id
            self._leave_out(error)

    def _leave_out(self, error: MemoryStorageError) -> None:
        """Leave out a conversation.

        Raises:
            MemoryStorageError: the caller did not ask to go on.
        """
        error.provider = self._provider
        if self._on_damaged == "raise":
            raise error
        if callable(self._on_damaged):
            self._on_damaged(error)
        else:
            self._ids.append(error.conversation_id)

    def end(self) -> None:
        """Name what was left out."""
        if self._ids:
            named = ", ".join(map(repr, self._ids[:MOST])) + ", …" * (len(self._ids) > MOST)
            logger.warning("%d damaged conversations were left out: %s", len(self._ids), named)
