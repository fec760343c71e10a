"""Stretches: a part of the store's messages, newest first, as a search looks through them.

This is the default over `find`, `header` and `tail`, bounded in messages and in characters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Look, Page, Place, Record, Stretch, Tail
from jaf_memory_core.search import texts_of

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend

HEADERS = 100
"""Conversations that are listed at once."""

PAGE = 100
"""Messages that are read at once."""

TOGETHER = 25
"""Messages that are read at once of each of several conversations."""

CHARACTERS = 4 << 20
"""Of a stretch, and at most a page more."""


def size_of(page: Page) -> int:
    """Characters of a page's texts."""
    return sum(len(text) for message in page.messages for text in texts_of(message, in_calls=True))


def _unless_again(header: Record, page: Page | MemoryStorageError | None) -> Page | MemoryStorageError | None:
    """The page, but not of one that was made again since, perhaps by somebody else: it stands elsewhere."""
    if isinstance(page, Page) and page.header is not None and page.header.incarnation != header.incarnation:
        return None
    return page


async def several(backend: Backend, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
    """Pages by `tail`, some at once: as many as fit, by the largest that was met."""
    found: list[Page | MemoryStorageError | None] = []
    largest, width = 1, 1
    while len(found) < len(tails) and room > 0:
        asked = (backend.tail(tail) for tail in tails[len(found) : len(found) + width])
        for one in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(one, BaseException) and not isinstance(one, MemoryStorageError):
                raise one
            size = size_of(one) if isinstance(one, Page) else 0
            room, largest = room - size, max(largest, size)
            found.append(one)
        width = max(1, min(backend.abreast, room // largest))
    return found


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
            header = await self._header(place)
            below = 0 if header is None else await self._read(header, await self._page(header, place.position, PAGE))
            if below:
                return Stretch(tuple(self._parts), place._replace(position=below))
        return await self._read_behind(place)

    async def _header(self, place: Place) -> Record | None:
        try:
            header = await self._backend.header(place.conversation_id, scope=self._look.query.user_id)
        except MemoryStorageError as error:
            self._damaged(error)
            return None
        # Made again since then, it stands elsewhere in the order, and its positions are others.
        return header if header is not None and header.created_at == place.created_at else None

    async def _read_behind(self, place: Place | None) -> Stretch:
        cursor = None if place is None else place.cursor
        offset = 0
        told: set[str | None] = set()
        while True:
            query = replace(self._look.query, limit=HEADERS, offset=offset, cursor=cursor)
            found = await self._backend.find(query)
            damaged = [one for one in found if isinstance(one, Damaged) and one.error.conversation_id not in told]
            told.update(one.error.conversation_id for one in damaged)
            self._parts += damaged
            headers = [one for one in found if isinstance(one, Record)]
            # More and more of them: the first may be all that is wanted.
            start, together = 0, self._backend.abreast
            while start < len(headers):
                group = headers[start : start + max(1, min(together, self._left // TOGETHER))]
                pages = await self._first_pages(group)
                for header, page in zip(group, pages, strict=False):
                    cursor = header.cursor
                    below = await self._read(header, page)
                    if below or self._is_full():
                        return Stretch(tuple(self._parts), Place(*cursor, below))
                start, together = start + len(pages), 2 * together
            # With nothing on the page that can be read, there is no place behind which to go on.
            offset = 0 if headers else offset + len(found)
            # The default of `find` begins each page with all that is damaged.
            if len(found) < HEADERS or not (headers or damaged):
                return Stretch(tuple(self._parts), None)

    def _is_full(self) -> bool:
        return self._left <= 0 or self._room <= 0

    async def _first_pages(self, headers: Sequence[Record]) -> list[Page | MemoryStorageError | None]:
        """The last messages of the first of them, as many as there is room for: in one go where that is quicker."""
        if len(headers) == 1:
            return [await self._page(headers[0], None, PAGE)]
        # Smaller ones, since the first of them may be all that is wanted.
        found = await self._backend.tails([self._tail(header, None, TOGETHER) for header in headers], self._room)
        return [_unless_again(header, one) for header, one in zip(headers, found, strict=False)]

    async def _page(self, header: Record, below: int | None, limit: int) -> Page | MemoryStorageError | None:
        try:
            page = await self._backend.tail(self._tail(header, below, limit))
        except MemoryStorageError as error:
            return error
        return _unless_again(header, page)

    def _tail(self, header: Record, below: int | None, limit: int) -> Tail:
        limit, user = max(1, min(limit, self._left)), self._look.query.user_id
        # Where anybody's are looked through, the page has to say whose it is by now.
        return Tail(header.conversation_id, limit, below, user, with_header=user is None)

    def _damaged(self, error: MemoryStorageError) -> None:
        if error.conversation_id is None:
            raise error
        self._parts.append(Damaged(error))

    async def _read(self, header: Record, page: Page | MemoryStorageError | None) -> int:
        """The messages of a conversation, from a page on; the position below which some are left, or 0."""
        while True:
            if isinstance(page, MemoryStorageError):
                self._damaged(page)
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
            page = await self._page(header, page.first, PAGE)
