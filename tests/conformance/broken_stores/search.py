"""Stores that look through their messages wrongly, or list owners wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryQuery, rules
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Look, Page, Record, Stretch, Tail

Part = tuple[Record, Page] | Damaged


class Looking(Plain):
    """Changes the parts of each stretch in one way."""

    def changed(self, parts: list[Part], look: Look) -> list[Part]:
        raise NotImplementedError

    async def look_through(self, look: Look) -> Stretch:
        stretch = await super().look_through(look)
        return replace(stretch, parts=tuple(self.changed(list(stretch.parts), look)))


@caught_by("test_search_by_the_rule")
class LooksOldestFirst(Looking):
    """Begins with the conversation that was active first."""

    def changed(self, parts: list[Part], look: Look) -> list[Part]:
        return parts[::-1]


@caught_by("test_search_by_the_rule")
class LooksAtTheNewestAlone(Looking):
    """Looks at no conversation but the first of a stretch."""

    def changed(self, parts: list[Part], look: Look) -> list[Part]:
        return parts[:1]


@caught_by("test_search_by_the_rule")
class LooksFromTheBeginning(Plain):
    """Begins with the newest again, whatever the place."""

    async def look_through(self, look: Look) -> Stretch:
        return await super().look_through(replace(look, place=None))


@caught_by("test_search_by_the_rule")
class LooksBehindTheConversation(Plain):
    """Leaves out what is left of the conversation in which it stopped."""

    async def look_through(self, look: Look) -> Stretch:
        place = look.place and look.place._replace(position=0)
        return await super().look_through(replace(look, place=place))


@caught_by("test_search_by_the_rule")
class LooksNoFurtherThanTheConversation(Plain):
    """Is done when the conversation is in which it stopped."""

    async def look_through(self, look: Look) -> Stretch:
        stretch = await super().look_through(look)
        if look.place is None or not look.place.position:
            return stretch
        rest = [
            part
            for part in stretch.parts
            if not isinstance(part, Damaged) and part[0].conversation_id == look.place.conversation_id
        ]
        return Stretch(tuple(rest))


@caught_by("test_search_by_the_rule")
class LooksAtThePlaceAgain(Plain):
    """Goes on with the message at a position, and not with those below."""

    async def look_through(self, look: Look) -> Stretch:
        place = look.place and look.place._replace(position=look.place.position + 1)
        return await super().look_through(replace(look, place=place))


@caught_by("test_search_by_the_rule")
class LooksWithPlacesForPositions(Looking):
    """Counts positions from what a cap has left."""

    def changed(self, parts: list[Part], look: Look) -> list[Part]:
        return [
            part
            if isinstance(part, Damaged)
            else (part[0], replace(part[1], first=part[1].first - part[0].first_position))
            for part in parts
        ]


@caught_by("test_search_by_the_rule")
class LooksByLetters(Looking):
    """Takes lower case for all that there is to comparing."""

    def changed(self, parts: list[Part], look: Look) -> list[Part]:
        kept: list[Part] = []
        for part in parts:
            if isinstance(part, Damaged):
                continue
            plain = [str(one.content).isascii() or str(one.content).islower() for one in part[1].messages]
            run = plain.index(False) if False in plain else len(plain)
            kept.append((part[0], replace(part[1], messages=part[1].messages[:run])))
        return kept


@caught_by("test_nothing_that_is_gone")
class LooksAtTheExpired(Plain):
    """Looks also at what has expired."""

    def __init__(self) -> None:
        super().__init__()
        self.looking = False

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) if self.looking else super().now()

    async def look_through(self, look: Look) -> Stretch:
        self.looking = True
        try:
            return await super().look_through(look)
        finally:
            self.looking = False


@caught_by("test_search_is_isolated")
class LooksAtEverybodys(Plain):
    """Looks at everybody's, and says that all of it is whose it was asked for."""

    async def look_through(self, look: Look) -> Stretch:
        whose = look.query.user_id
        stretch = await super().look_through(replace(look, query=replace(look.query, user_id=None)))
        parts = [
            part if isinstance(part, Damaged) else (replace(part[0], user_id=whose), part[1]) for part in stretch.parts
        ]
        return replace(stretch, parts=tuple(parts) if whose else stretch.parts)


@caught_by("test_last_messages")
class TailsWithoutTheMissing(Plain):
    """Leaves out what is not there, so that what comes behind it stands beside another."""

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        found = [one for one in await super().tails(tails, room) if one is not None]
        return [*found, *[None] * (len(tails) - len(found))]


@caught_by("test_last_messages")
class TailsOfOthers(Plain):
    """Brings the last messages of whoever's conversation it is."""

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        return await super().tails([replace(tail, scope=None) for tail in tails], room)


@caught_by("test_last_messages")
class TailsOfTheFirst(Plain):
    """Says of what there is no room for that it is not there."""

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        found = await super().tails(tails, room)
        return [*found, *[None] * (len(tails) - len(found))]


class Listing(Plain):
    """A plain store that lists owners by itself."""

    def owned(self) -> list[Record]:
        return [one for one in self.records.values() if one.user_id is not None and rules.live(one, self.now())]

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        found = sorted({str(one.user_id) for one in self.owned()})
        return [user for user in found if user > after][:limit]


@caught_by("test_users")
class OwnersOfEach(Listing):
    """Names the owner of each conversation, however often."""

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        return sorted(str(one.user_id) for one in self.owned() if str(one.user_id) > after)[:limit]


@caught_by("test_users")
class OwnersOfTheExpired(Listing):
    """Names who owns nothing but what has expired."""

    def owned(self) -> list[Record]:
        return [one for one in self.records.values() if one.user_id is not None]


@caught_by("test_users")
class OwnersWithoutCase(Listing):
    """Takes owners whose ids differ in case for one."""

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        found = {user.casefold(): user for user in await super().owners(after, limit)}
        return sorted(found.values())


@caught_by("test_users")
class OwnersOnceSeen(Listing):
    """Names also those whose conversations were all deleted since they were listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: set[str] = set()

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        self.listed |= set(await super().owners(after, limit))
        return sorted(owner for owner in self.listed if owner > after)


@caught_by("test_users")
class OwnersFromTheBeginning(Listing):
    """Begins with the first owner each time."""

    async def owners(self, _after: str, limit: int) -> Sequence[str]:
        return await super().owners("", limit)


@caught_by("test_users")
class OwnersFromOneOn(Listing):
    """Begins each page with the owner that it should begin behind."""

    async def owners(self, after: str, limit: int) -> Sequence[str]:
        found = sorted({str(one.user_id) for one in self.owned()})
        return [user for user in found if user >= after][:limit]


@caught_by("test_pages_by_text")
class ListsBehindTheMoment(Plain):
    """Goes on behind all that was active in the moment of a cursor."""

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        cursor = query.cursor and (*query.cursor[:2], "")
        return await super().find(replace(query, cursor=cursor))


@caught_by("test_last_messages")
class LeavesThinnedPagesOut(Plain):
    """Of several pages leaves out those of conversations with gaps, so that others come in their places."""

    async def tails(self, tails: Sequence[Tail], room: int) -> Sequence[Page | MemoryStorageError | None]:
        found = await super().tails(tails, room)
        return [page for page in found if page is None or isinstance(page, MemoryStorageError) or not page.positions]
