"""`Proposals`: whether a search goes by a store's index or through all messages, for a store that has an index."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from jaf_memory_core.records import Look, Stretch
from jaf_memory_core.search import Term, terms_asked

FIRST = 200
"""Messages that are looked through before an index is asked: what is said everywhere is found there, and an index takes
long to say where."""

REMEMBERED = 60.0
"""Seconds for which an index is not asked again for what too many messages say."""

_MOST = 1_000

Propose = Callable[[Look, tuple[Term, ...]], Awaitable[Stretch | None]]


class Proposals:
    """Remembers, for one backend, what its index was asked for in vain."""

    def __init__(self) -> None:
        self._refused: dict[tuple[Term, ...], float] = {}

    async def look_through(self, look: Look, propose: Propose, scan: Callable[[Look], Awaitable[Stretch]]) -> Stretch:
        """A stretch of what an index proposes, or of all messages.

        Args:
            look: what is asked for.
            propose: asks the index for all of these terms; `None` where it cannot tell, or too many messages have them.
            scan: goes through all messages.
        """
        terms = terms_asked(look.asked)
        if not terms or self._refused.get(terms, 0.0) > time.monotonic():
            return await scan(look)
        if look.place is None and FIRST:
            return await scan(replace(look, messages=FIRST))
        stretch = await propose(look, terms)
        if stretch is not None:
            return stretch
        if len(self._refused) >= _MOST:
            self._refused.clear()
        self._refused[terms] = time.monotonic() + REMEMBERED
        return await scan(look)
