"""Reads, each in one statement and so of one moment."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import asyncpg
from msgspec.structs import replace

from jaf_memory_core import Message, codec, pages, rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.deadline import Deadline
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Page, Record, Stats, Tail
from jaf_memory_postgres import rows
from jaf_memory_postgres.connection.execution import Connection, Run
from jaf_memory_postgres.operations import queries

SHORT_PAGE = 50
"""Messages up to which a page comes in one row."""

PAGE = 200
"""Headers that a scan reads at once."""

WHOLE_PAGE = 100
"""Conversations with their messages that a scan reads at once, at most: passing them on takes less than `STALE`."""

PART = 4 << 20
"""Bytes of messages that a scan reads at once, unless one conversation has more; it holds two such parts."""

STALE = 0.01
"""Seconds after which a scan looks again at what it has read and not yet passed on."""

_ENDS = ("first_position", "message_count", "gaps")
"""What a row without a header has of one."""


class Found(NamedTuple):
    """A record, and the server's time at which it was read."""

    record: Record
    now: datetime


class _Stretch(NamedTuple):
    """Conversations that were read at once, in their order.

    Attributes:
        listed: their rows.
        more: whether others come behind them.
        read_at: seconds (`time.monotonic`) at which they came.
    """

    listed: Sequence[Any]
    more: bool
    read_at: float

    @property
    def last(self) -> tuple[Any, str]:
        """Where the next begins: behind the last one."""
        return self.listed[-1]["created_at"], self.listed[-1]["conversation_id"]


class Reader:
    """The reads over one table name."""

    def __init__(self, sql: Mapping[str, str]) -> None:
        self._sql = sql

    async def read(self, connection: Connection, conversation_id: str) -> Found | None:
        """A whole conversation, expired or not."""
        listed = await connection.fetch(self._sql["read"], conversation_id)
        if not listed:
            return None
        head = listed[0][0]
        if head is None:
            raise codec.damaged(conversation_id)
        *_, places, now = head
        return Found(rows.placed(rows.whole(head, _bodies(listed)), places), now)

    async def page(self, run: Run, tail: Tail) -> Page | None:
        """The last messages, or the last before a position, with what is asked for beside them.

        Args:
            run: gives a connection for one statement.
            tail: what is asked for.
        """
        try:
            if tail.limit <= SHORT_PAGE and tail.after is None and not (tail.leading or tail.with_header):
                before = None if tail.before is None else min(tail.before, rows.MOST)
                asked = (tail.conversation_id, before, tail.limit, tail.scope)
                # What agents read before each turn: without another coroutine on the way.
                row = await run(methodcaller("fetchrow", self._sql["short_tail"], *asked))
                if row is None:
                    return None
                if row[2] is not None:
                    return self.of_row(tail, row)
                if row[3]:
                    return await run(partial(self._placed, tail=tail))  # type: ignore[no-any-return]
            return await run(partial(self._tail, tail=tail))  # type: ignore[no-any-return]
        except asyncpg.DataError:  # what the header counts cannot be reckoned with
            raise codec.damaged(tail.conversation_id) from None

    def fits(self, tail: Tail) -> int | None:
        """0, the size of its messages, if a page may be read with others."""
        return None if tail.limit > SHORT_PAGE or tail.after is not None or tail.leading or tail.with_header else 0

    async def together(self, connection: Connection, tails: Sequence[Tail]) -> Sequence[Any]:
        """Rows for `of_row`, by one statement; `None` for what has to be asked alone."""
        asked = [
            (tail.conversation_id, None if tail.before is None else min(tail.before, rows.MOST), tail.limit, tail.scope)
            for tail in tails
        ]
        answers: list[Any] = [None] * len(tails)
        for row in await connection.fetch(self._sql["tail_together"], *zip(*asked, strict=True)):
            answers[row[3] - 1] = row
        return answers

    def of_row(self, tail: Tail, row: Any) -> Page | None:
        """The page in a row that has its messages as one text; `None` if it has not, and is to be asked for alone."""
        if row[2] is None:
            return None
        return _page(tail, row[0], row[1], codec.decode_joined(row[2], tail.conversation_id))

    async def _tail(self, connection: Connection, tail: Tail) -> Page | None:
        before = None if tail.before is None else min(tail.before, rows.MOST)
        limit = min(tail.limit, rows.MOST)
        if tail.after is not None:
            return await self._forwards(connection, tail, limit)
        asked = (tail.conversation_id, before, limit, tail.scope)
        if tail.leading or tail.with_header:
            return await self._ends(connection, tail, (*asked, min(tail.leading, rows.MOST)))
        return await self._newest(connection, tail, asked)

    async def _newest(self, connection: Connection, tail: Tail, asked: tuple[Any, ...]) -> Page | None:
        listed = await connection.fetch(self._sql["tail"], *asked)
        if not listed:
            return None
        if listed[0][0] is None:
            raise codec.damaged(tail.conversation_id)
        oldest, count, gaps = listed[0][0]
        if gaps:
            return await self._placed(connection, tail)
        messages = codec.decode_messages(_bodies(listed), tail.conversation_id)
        return _page(tail, oldest, count, messages)

    async def tails(
        self, connection: Connection, tails: Sequence[Tail], room: int
    ) -> list[Page | MemoryStorageError | None]:
        """Several pages in one statement, as many as there is room for, but one at least."""
        first = tails[0]
        if first.after is not None or first.leading:
            return [await self._page_or_error(connection, tail) for tail in tails]
        before = None if first.before is None else min(first.before, rows.MOST)
        ids = [tail.conversation_id for tail in tails]
        asked = (before, min(first.limit, rows.MOST), first.scope, room)
        try:
            listed = await connection.fetch(self._sql["tails"], ids, *asked)
        except asyncpg.DataError:  # what one header counts cannot be reckoned with
            return [await self._page_or_error(connection, tail) for tail in tails]
        found: list[Page | MemoryStorageError | None] = []
        for tail, (head, bodies) in zip(tails, listed, strict=False):
            if head is None:
                found.append(None)
            elif bodies is None:  # in one value they would meet limits of the server
                found.append(await self._page_or_error(connection, tail))
            else:
                try:
                    found.append(_page_beside(tail, head, codec.decode_joined(bodies, tail.conversation_id), ""))
                except MemoryStorageError as error:
                    found.append(error)
        return found

    async def _page_or_error(self, connection: Connection, tail: Tail) -> Page | MemoryStorageError | None:
        try:
            return await self.page(lambda work: work(connection), tail)
        except MemoryStorageError as error:
            if error.conversation_id is None:
                raise
            return error

    async def _forwards(self, connection: Connection, tail: Tail, limit: int) -> Page | None:
        """The first messages behind a position; what stands beside them is asked for by itself."""
        after, before = (rows.MOST if one is None else min(one, rows.MOST) for one in (tail.after, tail.before))
        asked = (tail.conversation_id, after, limit, tail.scope, before)
        listed = await connection.fetch(self._sql["forwards"], *asked)
        if not listed:
            return None
        oldest, count, _ = listed[0]
        if count == -1:
            return await self._placed(connection, tail)
        messages = codec.decode_messages([row[2] for row in listed if row[2] is not None], tail.conversation_id)
        first, end = pages.bounds_within(oldest, oldest + count, tail)
        if len(messages) != end - first:
            raise codec.damaged(tail.conversation_id)
        return Page(messages, first, first > oldest, end=oldest + count)

    async def _ends(self, connection: Connection, tail: Tail, asked: tuple[Any, ...]) -> Page | None:
        if tail.limit <= SHORT_PAGE:
            name = "short_ends_with_header" if tail.with_header else "short_ends"
            row = await connection.fetchrow(self._sql[name], *asked)
            if row is None:
                return None
            *head, bodies, first = row
            if head[-1]:  # gaps, at the end of both
                return await self._placed(connection, tail)
            if bodies is not None:
                return _page_beside(tail, head, codec.decode_joined(bodies, tail.conversation_id), first)
        listed = await connection.fetch(self._sql["ends"], *asked)
        if not listed:
            return None
        if listed[0][0] is None:
            raise codec.damaged(tail.conversation_id)
        *head, first = listed[0][0]
        if head[-1]:
            return await self._placed(connection, tail)
        return _page_beside(tail, head, codec.decode_messages(_bodies(listed), tail.conversation_id), first)

    async def _placed(self, connection: Connection, tail: Tail) -> Page | None:
        """A page of a conversation with gaps: where each message stands is read, and not reckoned."""
        lowest = 0 if tail.after is None else min(tail.after + 1, rows.MOST)
        before = rows.MOST if tail.before is None else min(tail.before, rows.MOST)
        beside = (tail.scope, min(tail.leading, rows.MOST))
        statement = self._sql["newest_placed" if tail.after is None else "oldest_placed"]
        limit = min(tail.limit, rows.MOST)
        listed = await connection.fetch(statement, tail.conversation_id, lowest, before, limit, *beside)
        if not listed:
            return None
        head = listed[0][0]
        *_, count, ahead_at, ahead = head
        header = rows.header(head)
        if count != header.message_count:
            raise codec.damaged(tail.conversation_id)
        found = [row for row in listed if row[2] is not None]
        if tail.after is None:
            found.reverse()
        positions = tuple(row[2] for row in found)
        first = positions[0] if positions else pages.nowhere(header, tail)
        lead = bisect_left(rows.places(ahead_at), first)
        leading = codec.decode_joined(ahead, tail.conversation_id)[:lead] if lead else ()
        return Page(
            codec.decode_messages([row[1] for row in found], tail.conversation_id),
            first,
            first > header.first_position,
            leading if tail.leading else None,
            header if tail.with_header else None,
            pages.known_end(header, tail),
            positions,
        )

    async def header(self, connection: Connection, conversation_id: str, scope: str | None) -> Record | None:
        """A live conversation without its messages."""
        row = await connection.fetchrow(self._sql["header_seen"], conversation_id, scope)
        return None if row is None else rows.header(row)

    async def find(self, run: Run, query: MemoryQuery) -> list[Record | Damaged]:
        """Live conversations that match, the newest first."""
        asked = queries.found(query, self._sql)
        if asked is None:
            return []
        listed = queries.newest(await run(methodcaller("fetch", asked[0], *asked[1])), query)
        if query.include_messages:
            return await self._whole(run, listed)
        return [_listed(row) for row in listed]

    async def _whole(self, run: Run, listed: Sequence[Any]) -> list[Record | Damaged]:
        """Records of rows that bring their bodies."""
        found = [_with_bodies(row) or await self._large(run, row) for row in listed]
        return [record for record in found if record is not None]

    async def _large(self, run: Run, row: Any) -> Record | Damaged | None:
        """The record of a row whose bodies were left out: in one value they would meet limits of the server."""
        try:
            large = await run(partial(self.read, conversation_id=row["conversation_id"]))
        except MemoryStorageError as error:
            return _damaged(error, row)
        # Made again in between it is another conversation, which need not match what was asked.
        return large.record if large and large.record.incarnation == row["incarnation"] else None

    async def scan(
        self, run: Run, query: MemoryQuery, *, ahead: float | None
    ) -> AsyncGenerator[Record | Damaged, None]:
        """All that match, expired ones too, oldest first, holding a bounded number of bytes.

        Each is passed on as it stands when it is its turn, and not if it is gone.

        Args:
            run: gives a connection for one statement; none is held between two.
            query: its cursor says where to begin.
            ahead: seconds within which the next stretch is read while this one is passed on, so that nobody waits for
                it; `None` to read it when it is its turn.
        """
        stretch = await self._stretch(run, query, rules.creation_cursor(query))
        following: asyncio.Task[_Stretch] | None = None
        try:
            while stretch.listed:
                held = {row["conversation_id"]: row for row in stretch.listed}
                read_at = stretch.read_at
                for number, row in enumerate(stretch.listed):
                    if number == len(stretch.listed) // 2 and ahead is not None and stretch.more:
                        following = asyncio.create_task(self._ahead(ahead, run, query, stretch.last))
                        following.add_done_callback(_heard)
                        await asyncio.sleep(0)  # a turn of the event loop, in which it is sent
                    if time.monotonic() - read_at > STALE:
                        held = await self._renewed(run, held)
                        # Behind the answer: over a line that is slower than that, each would be looked at by itself.
                        read_at = time.monotonic()
                    record = await self._now(run, held.pop(row["conversation_id"], None), whole=query.include_messages)
                    # Made again under the same id: its turn is later.
                    if record is not None and record.created_at == row["created_at"]:
                        yield record
                if not stretch.more:
                    return
                if following is None or not _is_here(following):
                    stretch = await self._stretch(run, query, stretch.last)
                else:
                    stretch = await following
                following = None
        finally:
            if following is not None and _is_here(following):
                # Until it has given back what it holds; what comes of it is of no use.
                following.cancel()
                await asyncio.wait({following})

    async def _ahead(self, seconds: float, run: Run, query: MemoryQuery, above: tuple[Any, str]) -> _Stretch:
        """What comes next, and nobody waits for yet: who takes long over the rest keeps no connection from others."""
        with Deadline(seconds):
            return await self._stretch(run, query, above)

    async def _stretch(self, run: Run, query: MemoryQuery, above: tuple[Any, str] | None) -> _Stretch:
        """What comes next, of one moment."""
        size, room = (WHOLE_PAGE, PART) if query.include_messages else (PAGE, None)
        asked = queries.scanned(query, above, size, self._sql, room)
        if asked is None:
            return _Stretch((), more=False, read_at=0.0)
        listed = await run(methodcaller("fetch", asked[0], *asked[1]))
        more = len(listed) == size or (room is not None and sum(max(0, row["size"]) for row in listed) >= room)
        return _Stretch(listed, more, time.monotonic())

    async def _now(self, run: Run, found: Any, *, whole: bool) -> Record | Damaged | None:
        """What a row of a stretch says, or a record that was read since."""
        if found is None or isinstance(found, Record | Damaged):
            return found
        return (_with_bodies(found) or await self._large(run, found)) if whole else _listed(found)

    async def _renewed(self, run: Run, held: dict[str, Any]) -> dict[str, Any]:
        """What is left of these, read again where it was changed."""
        found = await run(methodcaller("fetch", self._sql["stamps"], list(held)))
        stamps = {row[0]: (row[1], row[2]) for row in found}
        kept = {key: one for key, one in held.items() if _stamp(one) == stamps.get(key, ())}
        changed = [key for key in stamps if key in held and key not in kept]
        if not changed:
            return kept
        anew = await self._whole(run, await run(methodcaller("fetch", self._sql["whole"], changed)))
        return kept | {_id_of(record): record for record in anew}

    async def stats(self, connection: Connection, user_id: str | None) -> Stats:
        """Counts over live conversations."""
        if user_id is None:
            row = await connection.fetchrow(self._sql["stats"])
        else:
            row = await connection.fetchrow(self._sql["stats_of_user"], user_id)
        return Stats(row[0], row[1], row[2], row[3], row[4])

    async def owners(self, connection: Connection, after: str, limit: int) -> list[str]:
        """The first owners of live conversations behind one, in the order of their ids."""
        return [row[0] for row in await connection.fetch(self._sql["owners"], after, limit)]


def _damaged(error: MemoryStorageError, row: Any) -> Damaged:
    if error.conversation_id is None:
        raise error
    return Damaged(error, row["created_at"])


def _listed(row: Any) -> Record | Damaged:
    try:
        return rows.header(row)
    except MemoryStorageError as error:
        return _damaged(error, row)


def _with_bodies(row: Any) -> Record | Damaged | None:
    """The record of a row with its messages; `None` if they were left out."""
    try:
        return None if row["bodies"] is None else rows.whole(row, row["bodies"])
    except MemoryStorageError as error:
        return _damaged(error, row)


def _stamp(found: Any) -> tuple[str, int] | None:
    """Which state of a conversation was read, as a row or a record; none of one that is damaged."""
    if isinstance(found, Record):
        return found.stamp
    return None if isinstance(found, Damaged) else (found["incarnation"], found["version"])


def _heard(task: asyncio.Task[Any]) -> None:
    # Whoever iterated may be gone; the event loop would then complain that nobody took the exception.
    if not task.cancelled():
        task.exception()


def _is_here(task: asyncio.Task[Any]) -> bool:
    """Whether it runs on this event loop; one of another, or of before a fork, would be waited for without end."""
    try:
        return task.get_loop() is asyncio.get_running_loop()
    except RuntimeError:  # in the child of a fork none runs
        return False


def _id_of(found: Record | Damaged) -> str:
    return found.conversation_id if isinstance(found, Record) else str(found.error.conversation_id)


def _page(tail: Tail, oldest: int, count: int, messages: tuple[Message, ...]) -> Page:
    """A page from its messages, the newest first, and from where its conversation begins and how long it is.

    Raises:
        MemoryStorageError: there are not as many messages as there should.
    """
    end = oldest + count if tail.before is None else max(oldest, min(oldest + count, tail.before))
    first = max(oldest, end - tail.limit)
    if len(messages) != end - first:
        raise codec.damaged(tail.conversation_id)
    return Page(messages[::-1], first, more=first > oldest)


def _page_beside(tail: Tail, head: Sequence[Any], messages: tuple[Message, ...], first: str) -> Page:
    """A page with what stands beside it.

    Args:
        tail: what was asked for.
        head: where the conversation begins, and how long it is; or its whole header.
        messages: the newest first.
        first: bodies of the first messages, with commas between.
    """
    # One that is damaged tells of it only to who asks for it.
    header = rows.header(head) if tail.with_header else None
    oldest, count = (head[9], head[11]) if len(head) > len(_ENDS) else head[:2]
    page = _page(tail, oldest, count, messages)
    if not tail.leading:
        return replace(page, header=header)
    leading = codec.decode_joined(first, tail.conversation_id) if first else ()
    if len(leading) != max(0, min(tail.leading, page.first) - oldest):
        raise codec.damaged(tail.conversation_id)
    return replace(page, leading=leading, header=header)


def _bodies(listed: Sequence[Any]) -> list[str]:
    """The second column; where there are no messages, a single row has a null there."""
    return [row[1] for row in listed] if listed[0][1] is not None else []
