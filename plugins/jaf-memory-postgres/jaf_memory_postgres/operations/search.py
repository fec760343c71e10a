"""The index for searches: made, kept, asked and dropped. It proposes messages, and the core's rule decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

import asyncpg
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryError, MemoryStorageError
from jaf_memory_core.records import Damaged, Look, Page, Place, Record, Stretch
from jaf_memory_core.search import OVERFULL, RULE, Term, terms_of
from jaf_memory_core.statements import quoted
from jaf_memory_postgres import errors, rows
from jaf_memory_postgres.connection.execution import Connection, Run, transaction
from jaf_memory_postgres.migrations import locking
from jaf_memory_postgres.migrations.rights import SEARCHING
from jaf_memory_postgres.names import SEARCH_TRIGGERS, Names
from jaf_memory_postgres.operations import queries

TOGETHER = 64
"""Messages that a writer lets wait, and then carries over at once."""

BATCH = 500
"""Messages that are carried over in one transaction; who writes to their conversations waits for it, some 50 ms."""

MOST_WAITING = 1_000
"""Messages that a search reads beside those that the index proposes; where more wait, it goes through all messages."""

MOST_PROPOSED = 4_000
"""Messages that the index may propose, some 25 µs each: of what more of them say, a scan soon finds the newest."""

PROPOSED = 200
"""Messages that are read at once."""

_IN_USE = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_UNUSABLE = (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)


class Index:
    """The index over one table name.

    Args:
        names: of the relations.
        used: whether whoever writes has to see to it.

    Attributes:
        state: the quoted name of the table that says how far it is; without it there is none.
    """

    def __init__(self, names: Names, *, used: bool = True) -> None:
        self._names = names
        self._used = used
        self._noted = 0
        self._sql: Mapping[str, str] = names.sql
        self.state = quoted(names.schema, names.plain("search_state"))
        self._message = quoted(names.schema, names.plain("message"))
        self._triggers = [names.plain(suffix) for suffix in SEARCH_TRIGGERS]

    # Made and dropped.

    async def stands(self, connection: Connection) -> bool:
        """Whether all parts of it are there."""
        asked = (self.state, self._message, self._triggers)
        return bool(await connection.fetchval(self._sql["search_stands"], *asked))

    async def make_missing(self, connection: Connection) -> None:
        """Make it where it is not there. What another Python has made stays: two would make it anew by turns."""
        if not await self.stands(connection):
            await self._make_anew(connection)

    async def make(self, connection: Connection) -> None:
        """Make it where it is not there, or is of another rule; what stands in the tables comes later.

        Raises:
            MemoryStorageError: somebody holds the table of messages.
        """
        try:
            if not await self._is_current(connection):
                await self._make_anew(connection)
        except _IN_USE as error:
            raise self._in_use(error) from None

    async def _is_current(self, connection: Connection) -> bool:
        if not await self.stands(connection):
            return False
        state = await connection.fetchrow(self._sql["search_state_seen"])
        return state is not None and state["rule"] == RULE

    async def _make_anew(self, connection: Connection) -> None:
        await self._remove(connection, current=False)
        await transaction(connection, lambda: self._make(connection))

    async def _make(self, connection: Connection) -> None:
        await self._lock(connection)
        # Once more, now under the lock: another process may have made it while this one waited.
        if await self._is_current(connection):
            return
        await connection.execute(self._sql["search_unhook"])
        await connection.execute(self._sql["search_drop"])
        template = (files("jaf_memory_postgres") / "search.sql").read_text(encoding="utf-8")
        await connection.execute(self._names.fill(template))
        await connection.execute(self._sql["search_begin"], RULE)
        header = quoted(self._names.schema, self._names.plain("header"))
        for row in await connection.fetch(self._sql["rights_on"], header):
            if row["writes"]:
                await connection.execute(f"{self._names.fill(SEARCHING)} TO {row['grantee']}")

    async def drop(self, connection: Connection) -> bool:
        """Remove all of it; whether there was anything.

        Raises:
            MemoryStorageError: somebody holds the table of messages.
        """
        try:
            return await self._remove(connection, current=True)
        except _IN_USE as error:
            raise self._in_use(error) from None

    def _in_use(self, error: asyncpg.PostgresError) -> MemoryStorageError:
        return MemoryStorageError(
            f"the table {self._names.plain('message')!r} is in use, by a backup perhaps; make or drop the index for "
            f"searches later ({error.sqlstate})",
            operation="schema",
            retryable=True,
        )

    async def _remove(self, connection: Connection, *, current: bool) -> bool:
        """Drop the triggers, and then the tables: who searches holds these, and waits for that of the messages.

        Args:
            connection: no transaction is open on it.
            current: whether one of this rule goes, too, as another process may have made it meanwhile.
        """
        found = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", self.state)
        for name in ("search_unhook", "search_drop"):
            await transaction(connection, partial(self._without, connection, name, current=current))
        return bool(found)

    async def _without(self, connection: Connection, name: str, *, current: bool) -> None:
        await self._lock(connection)
        made_anew = name == "search_drop" and await self.stands(connection)  # meanwhile: its triggers need the tables
        if not made_anew and (current or not await self._is_current(connection)):
            await connection.execute(self._sql[name])

    async def _lock(self, connection: Connection) -> None:
        await connection.execute(self._sql["no_timeouts"])
        await connection.execute(locking(self._names))
        await connection.execute(self._sql["lock_timeout"])

    async def build(self, connection: Connection) -> bool:
        """Note a batch of what stood there before; whether there may be more."""
        return await transaction(connection, lambda: self._build(connection))

    async def _build(self, connection: Connection) -> bool:
        state = await connection.fetchrow(self._sql["search_state_held"])
        if state is None or state["rule"] != RULE or state["complete"]:
            return False
        built = (state["built_conversation"], state["built_position"])
        last = await connection.fetchrow(self._sql["search_note"], *built, BATCH)
        # What others add meanwhile waits by itself: to go after it might never end.
        is_last = last is None or last["count"] < BATCH
        await connection.execute(self._sql["search_noted"], *(built if last is None else last[:2]), is_last)
        return not is_last

    async def note(self, run: Run, messages: int) -> None:
        """Messages are about to be written: those that wait for the index are carried over, once they are some."""
        if not self._used:
            return
        if self._noted >= TOGETHER:
            await self.carry_over(run, self._noted)
        self._noted += messages

    async def carry_over(self, run: Run, messages: int) -> None:
        """Carry over what waits for the index, and note a part of what stood there before it."""
        self._noted = 0
        with suppress(MemoryError, *errors.DRIVER_ERRORS):  # a search reads it all the same
            await run(self.build)
            while messages > 0 and (batch := await run(self.carry)):
                messages -= batch

    async def carry(self, connection: Connection) -> int:
        """Carry over a batch of what waits; how many messages, 0 for the last."""
        return await transaction(connection, lambda: self._carry(connection))

    async def _carry(self, connection: Connection) -> int:
        state = await connection.fetchrow(self._sql["search_state_seen"])
        if state is None or state["rule"] != RULE:
            return 0
        waiting = await connection.fetch(self._sql["search_take"], BATCH)
        if not waiting:
            return 0
        wanted = sorted({row["conversation"] for row in waiting})
        held = {row["id"] for row in await connection.fetch(self._sql["search_hold"], wanted)}
        places = sorted({(row["conversation"], row["position"]) for row in waiting if row["conversation"] in held})
        # Behind the lock, in a statement of its own: what is read is what stands until the commit.
        found = (
            await connection.fetch(self._sql["search_read"], *map(list, zip(*places, strict=True))) if places else []
        )
        if found:
            terms = [" ".join(_terms(row["body"])) for row in found]
            await connection.execute(
                self._sql["search_keep"], [row[0] for row in found], [row[1] for row in found], terms
            )
        done = await connection.execute(self._sql["search_carried"], [row["id"] for row in waiting], sorted(held))
        return int(done.rpartition(" ")[2]) if len(waiting) == BATCH else 0

    async def built(self, connection: Connection) -> str:
        """Note and carry over all that there is, in batches; what there is then."""
        while await self.build(connection):
            await self.carry(connection)
        while await self.carry(connection):
            pass
        return await self.described(connection)

    async def described(self, connection: Connection) -> str:
        """What there is, for people."""
        try:
            return await self._described(connection)
        except asyncpg.InsufficientPrivilegeError:
            return "an index that this role may not use; its owner can run `jaf-memory schema --apply --role` for it"

    async def _described(self, connection: Connection) -> str:
        state = await connection.fetchrow(self._sql["search_state_seen"]) if await self.stands(connection) else None
        if state is None:
            return "scan"
        if state["rule"] != RULE:
            return (
                f"an index by rule {state['rule']}, and this is {RULE}: "
                "make it again with `jaf-memory schema --search index`"
            )
        if not state["complete"]:
            share = await connection.fetchval(self._sql["search_share"], max(0, state["built_conversation"]))
            return f"an index that is being built ({min(99, share)} %); `jaf-memory schema --search index` ends that"
        waits = await connection.fetchval(self._sql["search_waits"], MOST_WAITING + 1)
        return f"index ({'over ' if waits > MOST_WAITING else ''}{min(waits, MOST_WAITING)} messages wait)"

    # Asked.

    async def waiting(self, connection: Connection) -> int:
        """How many messages wait, up to one more than a search reads; 0 without an index that can be used."""
        try:
            return int(await connection.fetchval(self._sql["search_waits"], MOST_WAITING + 1))
        except _UNUSABLE:
            return 0

    async def proposed(self, run: Run, look: Look, terms: Sequence[Term]) -> Stretch | None:
        """Messages that may say it, each on a page of its own; `None` where the index cannot tell, or is slow."""
        found = _Found()
        place = look.place
        if place is not None and place.position > 0:
            # Where it stood: active meanwhile, it stands before others by now, which were looked through already.
            query = replace(look.query, conversation_id=place.conversation_id)
            listed = await run(partial(self._listed, terms=terms, query=query, place=place))
            if listed is None:
                return None
            last = found.take(row for row in listed if row[3] is None or row[3][3] == place.created_at)
            if last is not None:
                return Stretch(tuple(found.parts), place._replace(position=last.position))
        query = replace(look.query, cursor=None if place is None else place.cursor)
        listed = await run(partial(self._listed, terms=terms, query=query, place=None))
        if listed is None:
            return None
        last = found.take(listed)
        return Stretch(tuple(found.parts), last)

    async def _listed(
        self, connection: Connection, *, terms: Sequence[Term], query: MemoryQuery, place: Place | None
    ) -> list[Any] | None:
        first = (_match(terms), MOST_PROPOSED + 1, MOST_WAITING + 1, RULE, self._message, self._triggers)
        below = None if place is None else place.position
        text, values = queries.proposed(query, self._sql, first, PROPOSED + 1, below)
        try:
            listed = await connection.fetch(text, *values)
        except _UNUSABLE:
            return None
        if not listed[0]["of_use"]:
            return None
        return [row for row in listed if row["body"] is not None]


class _Found:
    """Parts of a stretch, as they come."""

    def __init__(self) -> None:
        self.parts: list[tuple[Record, Page] | Damaged] = []

    def take(self, listed: Iterable[Any]) -> Place | None:
        """Take so many as belong to one stretch; the place of the last if there are more."""
        place = None
        for index, (_, position, body, head) in enumerate(listed):
            if index == PROPOSED:
                return place
            try:
                header = rows.header(head)
                place = Place(*header.cursor, position)
                message = codec.decode_message(body, header.conversation_id)
            except MemoryStorageError as error:
                self.parts.append(Damaged(error))
                continue
            self.parts.append((header, Page((message,), position, position > header.first_position)))
        return None


def _match(terms: Sequence[Term]) -> str:
    """A question in the language of `tsquery`; no term holds a quote."""
    every = " & ".join(f"'{term.text}'{':*' if term.open else ''}" for term in terms)
    return f"({every}) | '{OVERFULL}'"


def _terms(body: str) -> Iterable[str]:
    try:
        return terms_of(codec.decode_message(body))
    except MemoryStorageError:  # a search that meets it says so
        return (OVERFULL,)
