"""Stretches: a part of the store's messages, newest first, as a search looks through them.

This is the default over `find`, `header` and `tail`, bounded in messages and in characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Look, Page, Place, Record, Stretch, Tail
from jaf_memory_core.search import texts_of

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend

HEADERS = 200
"""Conversations that are listed at once."""

PAGE = 100
"""Messages that are read at once."""

CHARACTERS = 4 << 20
"""Of a stretch, and at most a page more."""


def size_of(page: Page) -> int:
    """Characters of a page's texts."""
    return sum(len(text) for message in page.messages for text in texts_of(message, in_calls=True))


class Reader:
    """Reads one stretch.

    Args:
        backend: where from.
        look: from which place on, and how much.
    """

    def __init__(self, backend: Backend, look: Look) -> None:
        self._backend = backend
        self._look = look
        self._left = look.messages
        self._room = CHARACTERS
        self._parts: list[tuple[Record, Page] | Damaged] = []

    async def read(self) -> Stretch:
        """The stretch: what is left of the conversation at its place, and then the conversations behind that."""
        place = self._look.place
        if place is not None and place.position > 0:
            header = await self._backend.header(place.conversation_id, scope=self._look.query.user_id)
            # Made again since then, it stands elsewhere in the order, and its positions are others.
            if header is not None and header.created_at == place.created_at:
                below = await self._read(header, place.position)
                if below:
                    return Stretch(tuple(self._parts), place._replace(position=below))
        return await self._read_behind(place)

    async def _read_behind(self, place: Place | None) -> Stretch:
        cursor = None if place is None else place.cursor
        offset = 0
        while True:
            query = replace(self._look.query, limit=HEADERS, offset=offset, cursor=cursor)
            found, readable = await self._backend.find(query), False
            for header in found:
                if isinstance(header, Damaged):
                    self._parts.append(header)
                    continue
                cursor, readable = header.cursor, True
                below = await self._read(header, None)
                if below or self._is_full():
                    return Stretch(tuple(self._parts), Place(*cursor, below))
            # With nothing on the page that can be read, there is no place behind which to go on.
            offset = 0 if readable else offset + len(found)
            if len(found) < HEADERS:
                return Stretch(tuple(self._parts), None)

    def _is_full(self) -> bool:
        return self._left <= 0 or self._room <= 0

    async def _read(self, header: Record, below: int | None) -> int:
        """The messages of a conversation, newest first; the position below which some are left, or 0."""
        key = header.conversation_id
        while True:
            limit = max(1, min(PAGE, self._left))
            try:
                page = await self._backend.tail(Tail(key, limit, below, self._look.query.user_id))
            except MemoryStorageError as error:
                if error.conversation_id is None:
                    raise
                self._parts.append(Damaged(error, header.created_at))
                page = None
            # One without messages has been looked at, too.
            self._left -= max(1, len(page.messages) if page else 0)
            if page is None:
                return 0
            self._parts.append((header, page))
            self._room -= size_of(page)
            if not page.more:
                return 0
            if self._is_full():
                return page.first
            below = page.first
