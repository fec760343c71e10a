"""`Searches`: messages by what they say, on every provider over a `Backend`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from jaf_memory_core import cursors, rules, validation
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.damage import Listing, OnDamaged
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryStorageError
from jaf_memory_core.hits import MessageHit, MessageHits, MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Damaged, Look, Page, Place, Record
from jaf_memory_core.search import Phrase, excerpt, phrases
from jaf_memory_core.stretches import size_of

SEARCH = "search_messages"

STRETCH = 1_000
"""Messages that a backend is asked for at once."""

MOST = 50_000
"""Messages that one search looks at; it ends then, and says that it is not complete."""

MOST_CHARACTERS = 64 << 20
"""The same, of their texts."""

LONG = 1 << 16
"""Characters that are looked through on the event loop before others have their turn; a longer page beside it."""


class Searches(ProviderBase):
    """The rule of `jaf_memory_core.search` over whatever a backend reads."""

    async def search_messages(self, search: MessageSearch, *, on_damaged: OnDamaged = "raise") -> MessageHits:
        """Messages that say what is searched for: of the conversation that was active last first, the newest first.

        Args:
            search: what for, and where.
            on_damaged: what becomes of a conversation that cannot be read, as for `find_conversations`.

        Raises:
            MemoryInvalidInputError: there is no word in the text, or the cursor is none of a search.
            MemoryStorageError: a conversation is damaged; `conversation_id` says which.

        Example:
            hits = await provider.search_messages(MessageSearch("order", user_id="user-123"))
            print([(hit.conversation_id, hit.excerpt) for hit in hits], hits.cursor)
        """
        listing = Listing(on_damaged, self.name)
        search = validation.checked_search(search)
        asked = phrases(search.text)
        if not asked:
            raise MemoryInvalidInputError("text holds no word that could be searched for")
        place = None if search.cursor is None else _place(search.cursor)
        query = MemoryQuery(
            conversation_id=search.conversation_id,
            user_id=search.user_id,
            active_since=search.since,
            active_until=search.until,
            include_messages=False,
        )
        scoped = self._scoped(query, SEARCH)
        if scoped is None:
            self._guard.check()
            return MessageHits()
        # What a processor has changed, sealed perhaps, says nothing to the store.
        told = asked if not (self._chain or search.in_calls) else ()
        look = Look(scoped, place, STRETCH, told)
        hits = await self._guard.run(SEARCH, partial(self._looked, search, asked, look, listing), scoped)
        listing.end()
        return hits

    async def _looked(
        self, search: MessageSearch, asked: Sequence[Phrase], look: Look, listing: Listing
    ) -> MessageHits:
        hits = MessageHits()
        seen = size = held = 0
        # In time for an answer: what was looked at would be lost at the deadline.
        until = time.monotonic() + self.config.operation_timeout / 2
        while True:
            stretch = await self.backend.look_through(look)
            for part in stretch.parts:
                if isinstance(part, Damaged):
                    listing.readable(part)
                    continue
                header, page = part
                length = size_of(page)
                seen, size = seen + max(1, len(page.messages)), size + length
                # A store that let another user's conversation through must not show it.
                if not rules.matches(header, look.query):
                    continue
                held += length
                if held > LONG:
                    await asyncio.sleep(0)
                    held = length
                try:
                    messages = await self._opened(header, page)
                except MemoryStorageError as error:
                    listing.unread(error)
                    continue
                decide = partial(_hits, search, asked, header, page, messages)
                hits += await asyncio.to_thread(decide) if length > LONG else decide()
                if len(hits) >= search.limit:
                    del hits[search.limit :]
                    hits.cursor = _cursor(_place_within(header, look.place, hits[-1].position))
                    return hits
            if stretch.place is None:
                return hits
            look = replace(look, place=stretch.place)
            if seen >= MOST or size >= MOST_CHARACTERS or time.monotonic() > until:
                hits.cursor, hits.complete = _cursor(stretch.place), False
                return hits

    async def _opened(self, header: Record, page: Page) -> Sequence[Message]:
        """A page's messages as the application gave them."""
        if not self._chain:
            return page.messages
        await self._prepared(SEARCH, header)
        return self._chain.within(SEARCH, header.conversation_id, header.user_id).incoming(page.messages)


def _hits(
    search: MessageSearch, asked: Sequence[Phrase], header: Record, page: Page, messages: Sequence[Message]
) -> list[MessageHit]:
    """Those of a page's messages that say it, the newest first."""
    hits = []
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if search.roles is not None and message.role not in search.roles:
            continue
        shown = excerpt(asked, message, in_calls=search.in_calls)
        if shown is not None:
            hits.append(MessageHit(header.conversation_id, header.user_id, page.position(index), message, shown))
    return hits


def _place_within(header: Record, begun: Place | None, position: int) -> Place:
    """The place in a conversation at a position.

    One that the page before had begun is gone on with where it stood then: active meanwhile, it stands before others
    by now, which were looked through already.
    """
    if begun is not None and (begun.created_at, begun.conversation_id) == (header.created_at, header.conversation_id):
        return begun._replace(position=position)
    return Place(*header.cursor, position)


def _cursor(place: Place) -> str:
    return cursors.written("search", place.cursor, place.position)


def _place(cursor: str) -> Place:
    position, (below,) = cursors.read("search", cursor, 1)
    return Place(*position, below)
