"""A growing answer: kept while a model streams it, so that a killed process leaves what there was of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.session.blocks import DRAFT
from jaf_memory_core.session.storage import checked_seconds, finished

logger = logging.getLogger("jaf_memory_core")

SHARE = 10
"""A slow store is written to less often than the interval says: writing takes a tenth of the time, and no more."""


class DraftStore(Struct, frozen=True):
    """Where a draft is kept.

    Attributes:
        append: stores a message that is new.
        revise: puts a message into the place of the one with its id; `None` where that is not to be had, and then
            nothing is stored before the answer is finished.
    """

    append: Callable[[Message], Awaitable[Any]]
    revise: Callable[[Message], Awaitable[Any]] | None


class Draft:
    """An answer that is being streamed.

        async with session.draft() as draft:
            async for piece in stream:
                await draft.write(piece)

    It is stored with its first piece, marked with the field `unfinished`, and again at most once in so many seconds.
    Leaving the block stores all of it, without the mark. Where an error or a cancellation leaves the block, what has
    come is stored with the mark; where the process dies, what was stored last stays as it is.

    Args:
        store: where it is kept.
        interval: seconds between two writes.
        fields: of the message, beside its text.
    """

    def __init__(self, store: DraftStore, interval: float, fields: Mapping[str, Any]) -> None:
        self._store = store
        self._interval = checked_seconds(interval, "interval")
        self._message = Message(**{"role": "assistant", "content": "", **fields, DRAFT: True})
        self._pieces: list[str] = []
        self._first: Message | None = None  # a lost answer to it is repaired by storing the very same again
        self._stored: Message | None = None
        self._next = 0.0
        self._finished = False

    @property
    def message_id(self) -> str:
        """The id under which the answer is kept, from its first piece on."""
        return self._message.message_id

    @property
    def text(self) -> str:
        """All that has come so far."""
        # Joined, and kept joined: the next time only what has come since is added.
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    async def write(self, piece: str) -> None:
        """Add a piece of text; it is stored when the interval is over.

        Raises:
            MemoryError: the store refused. One that cannot be reached is tried again with a later piece.
        """
        if not isinstance(piece, str):
            raise MemoryInvalidInputError(f"write takes a str, not a {type(piece).__name__}")
        if self._finished:
            raise MemoryInvalidInputError("the answer is finished; begin another draft")
        self._pieces.append(piece)
        began = time.monotonic()
        if self._store.revise is None or began < self._next:
            return
        try:
            await self._keep(self._current())
        # The stream goes on: an answer must not be lost because the store is away for a moment.
        except MemoryConnectionError as error:
            if not error.retryable:
                raise
            logger.warning("an unfinished answer could not be stored; it is tried again")
        now = time.monotonic()
        self._next = now + max(self._interval, SHARE * (now - began))

    def _current(self) -> Message:
        return replace(self._message, content=self.text)

    async def _keep(self, message: Message) -> None:
        if self._store.revise is None:
            await self._store.append(message)
            return
        if self._stored is None:
            self._first = self._first or message
            await self._store.append(self._first)
            self._stored = self._first
        if self._stored is not message:
            await self._store.revise(message)
            self._stored = message

    async def finish(self, message: Message | None = None) -> Message:
        """Store the answer without the mark.

        Args:
            message: what it has become, with calls of tools, usage, a refusal; the text that has come, when absent.

        Returns:
            What is stored, under the draft's id.

        Raises:
            MemoryError: as `record`.
        """
        fields = {**(self._current() if message is None else message).dict(), "message_id": self.message_id}
        fields.pop(DRAFT, None)
        whole = Message(**fields)
        await self._keep(whole)
        self._finished = True
        return whole

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._finished:
            return
        if kind is None:
            await self.finish()
        elif self._pieces and self._store.revise is not None:
            await finished(self._leave_unfinished())

    async def _leave_unfinished(self) -> None:
        try:
            await self._keep(self._current())
        except MemoryError as error:
            logger.warning("an unfinished answer could not be stored (%s)", type(error).__name__)
