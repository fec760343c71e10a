"""In memory: our provider, and beside it a dict of lists that promises nothing. It tells what a promise costs."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

from benchmarks import competitors
from benchmarks.payload import BODY, HEADER, owner
from jaf_memory_core import InMemoryConfig, create_in_memory_provider


class Ours(competitors.Ours):
    """The provider `memory`, without caps."""

    async def open(self) -> None:
        """Make it."""
        self.provider = create_in_memory_provider(InMemoryConfig(max_conversations=10_000_000, max_messages=None))


class Bare(competitors.Competitor):
    """Lists of texts in a dict."""

    name = "a dict of lists"

    async def open(self) -> None:
        """Make it."""
        self.held: defaultdict[str, list[str]] = defaultdict(list)
        self.owned: defaultdict[str, dict[str, str]] = defaultdict(dict)

    async def fill(self, key: str, length: int) -> None:
        """Make a conversation of that many messages."""
        self.held[key] = [BODY] * length

    async def fill_crowd(self, count: int) -> None:
        """So many conversations of one turn each."""
        for number in range(count):
            self.held[f"x{number}"] = [BODY, BODY]
            self.owned[owner(number)][f"x{number}"] = HEADER

    async def append(self, key: str) -> None:
        """Two texts more."""
        self.held[key] += (BODY, BODY)

    async def recent(self, key: str, limit: int) -> object:
        """The last texts."""
        return self.held[key][-limit:]

    async def load(self, key: str) -> object:
        """All texts."""
        return self.held[key][:]

    async def newest(self, user: str, *, with_messages: bool) -> object:
        """The last ten of a user's dict."""
        last = list(islice(reversed(self.owned[user].items()), 10))
        return [(header, self.held[key][:]) for key, header in last] if with_messages else last

    async def bulk_import(self, conversations: list[tuple[str, list[str]]]) -> None:
        """Put lists in."""
        for key, bodies in conversations:
            self.held[key] = bodies[:]

    async def bulk_export(self) -> int:
        """Join everything; how many bytes."""
        return sum(len("\n".join(bodies)) for bodies in self.held.values())
