"""`Users`: who owns conversations, on every provider over a `Backend`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from jaf_memory_core import rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.damage import Listing, OnDamaged
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Record

OPERATION = "iter_users"

PAGE = 10_000
"""Owners that are held at once."""


class Users(ProviderBase):
    """The owners, page by page."""

    async def iter_users(self, *, on_damaged: OnDamaged = "raise") -> AsyncGenerator[str, None]:
        """Every owner of a conversation, once, in the order of their ids, in bounded memory.

        Args:
            on_damaged: what becomes of a conversation that cannot be read, as for `iter_conversations`. A store that
                lists owners by themselves need not look at what they own.

        Example:
            print([user async for user in provider.iter_users()])  # ['user-123']
        """
        listing = Listing(on_damaged, self.name)
        if self._scope is not None:
            query = MemoryQuery(user_id=self._scope, limit=1, include_messages=False)
            if await self._guard.run(OPERATION, lambda: self.backend.find(query)):
                yield self._scope
            return
        after = ""
        while True:
            page = await self._guard.run(OPERATION, partial(self.backend.owners, after, PAGE))
            # A store may leave out what is no id, so that one of its pages that is not full need not be the last.
            least = 1
            if page is None:
                page, least = await self._scanned(after, listing), PAGE
            for user in page:
                yield user
            if len(page) < least:
                break
            after = page[-1]
        listing.end()

    async def _scanned(self, after: str, listing: Listing) -> Sequence[str]:
        """The first of the owners behind one, from a scan; the deadline counts for each conversation."""
        found: set[str] = set()
        bound: str | None = None
        async with aclosing(self._guard.iterate(OPERATION, MemoryQuery(include_messages=False))) as scan:
            async for one in scan:
                record = listing.readable(one)
                if not isinstance(record, Record) or not rules.live(record, self.backend.now()):
                    continue
                user = record.user_id
                if user is None or user <= after or (bound is not None and user >= bound):
                    continue
                found.add(user)
                if len(found) > 2 * PAGE:
                    found = set(sorted(found)[:PAGE])
                    bound = max(found)
        return sorted(found)[:PAGE]
