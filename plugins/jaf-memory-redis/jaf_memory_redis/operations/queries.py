"""Finding conversations: pages of an index, and the conversations that its entries name."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import msgspec

from jaf_memory_core import rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Record, Stats
from jaf_memory_redis.connection import PIECE
from jaf_memory_redis.errors import ServerError, is_wrong_type, misplaced
from jaf_memory_redis.indexes import MANY, Indexes
from jaf_memory_redis.layout import (
    DIGITS,
    END,
    EPOCH,
    counts,
    creation_entry,
    moment,
    readable,
    score,
    time_of,
)
from jaf_memory_redis.operations.reads import Reader, misplaced_among
from jaf_memory_redis.scripts import Command, command

WHOLE = 25
"""Conversations that are read together with their messages."""

HEADERS = 200
"""Conversations that are read together without."""

BYTES = 3 << 18
"""Bytes of messages that are read together, where that is more than one conversation."""

FRESH = 0.05
"""Seconds after which a scan reads again what it has not passed on yet."""


class Finder:
    """Finds conversations.

    Args:
        reader: reads what the entries name.
        indexes: where the entries are.
    """

    def __init__(self, reader: Reader, indexes: Indexes) -> None:
        self._reader = reader
        self._indexes = indexes
        self._topology = indexes.topology

    # In order of creation.

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """Records that match, in order of creation, beyond the query's cursor."""
        above = rules.creation_cursor(query)
        if query.conversation_id is not None:
            only = await self._reader.read(query.conversation_id, with_messages=query.include_messages)
            if only is not None and (above is None or rules.creation_key(only) > above):
                yield only
            return
        lowest, highest = _created_range(query)
        if above is not None:
            lowest = max(lowest, b"(" + creation_entry(moment(above[0]), above[1]), key=lambda bound: bound[1:])
        async for entries in self._indexes.created(query.user_id, lowest, highest, HEADERS):
            records: list[Record | Damaged | None] = []
            read_at = 0.0
            ids = [conversation_id for _, conversation_id in entries]
            sizes = await self._sizes(ids) if query.include_messages else None
            for at, (created, conversation_id) in enumerate(entries):
                if at == len(records) or time.monotonic() - read_at > FRESH:
                    # Whoever takes long with each gets each as it is when it is its turn, and few in advance.
                    stop = at + (HEADERS if at == len(records) else WHOLE)
                    records[at:] = await self._some(ids[at:stop], sizes and sizes[at:stop])
                    read_at = time.monotonic()
                record = records[at]
                if isinstance(record, Damaged):
                    yield Damaged(record.error, time_of(created.encode()))
                elif record is None or moment(record.created_at) != created or _foreign(record, query):
                    await self._indexes.sweep(conversation_id, query.user_id, created)
                else:
                    yield record

    async def stats(self, user_id: str | None) -> Stats:
        """Counts over the headers."""
        count = messages = size = 0
        oldest: bytes | None = None
        newest: bytes | None = None
        async for entries in self._indexes.created(user_id, step=MANY):
            headers = [self._indexes.keys.conversation(conversation_id)[0] for _, conversation_id in entries]
            commands = [command("HMGET", header, "c", "x", "o", "n", "s") for header in headers]
            try:
                replies = await self._topology.run_all([*commands, Command(headers[0], ("TIME",))])
            except ServerError as error:
                found = await misplaced_among(self._topology, self._indexes.keys, [name for _, name in entries])
                raise (error if found is None else misplaced(error, found)) from None
            now = moment(self._reader.heard(replies.pop())).encode()
            for (entry, conversation_id), fields in zip(entries, replies, strict=True):
                created, expires, owner, held, bytes_held = fields
                alive = created == entry.encode() and (expires is None or expires > now)
                if alive and (user_id is None or owner == user_id.encode()):
                    said, stored = counts(conversation_id, (held, bytes_held))
                    count, messages, size = count + 1, messages + said, size + stored
                    oldest = min(oldest or created, created)
                    newest = max(newest or created, created)
        return Stats(count, messages, size, time_of(oldest) if oldest else None, time_of(newest) if newest else None)

    # By activity.

    async def find(self, query: MemoryQuery) -> Sequence[Record | Damaged]:
        """Live records that match, newest activity first, cursor, offset and limit applied."""
        if query.conversation_id is not None:
            record = await self._reader.read(query.conversation_id, with_messages=query.include_messages)
            only = [record] if record is not None and self._fits(record, query) else []
            return only[query.offset :][: query.limit]
        wanted = None if query.limit is None else query.offset + query.limit
        if query.include_messages and (wanted is None or wanted > WHOLE or query.offset):
            # Nobody's messages are read that are skipped, and never too many at once.
            headers = await self.find(msgspec.structs.replace(query, include_messages=False))
            return [record async for record in self._whole(headers) if self._fits(record, query)]
        found: list[Record | Damaged] = []
        async for page in self._pages(query, wanted):
            found += await self._matching(page, query)
            if wanted is not None and len(found) >= wanted:
                break
        # By the headers: on a Cluster an entry may lag behind its conversation.
        found.sort(key=_activity, reverse=True)
        return found[query.offset : wanted]

    async def _matching(self, page: Sequence[tuple[str, float]], query: MemoryQuery) -> list[Record | Damaged]:
        """The conversations of one page that match; their messages are read only if the headers do."""
        ids = [conversation_id for conversation_id, _ in page]
        at_once = query.include_messages and not _filters(query)
        sizes = await self._sizes(ids) if at_once else None
        records: list[Record | Damaged | None] = []
        while len(records) < len(ids):
            records += await self._some(ids[len(records) :], sizes and sizes[len(records) :])
        matching: list[Record | Damaged] = []
        for (conversation_id, found), record in zip(page, records, strict=True):
            if isinstance(record, Damaged):
                # Its place by activity is what the index says; it stands there until the listing is told.
                matching.append(Damaged(record.error, EPOCH + timedelta(microseconds=found)))
            elif record is None or _foreign(record, query):
                await self._point_nowhere(conversation_id, query.user_id)
            else:
                await self._indexes.repair(record, found)
                if self._fits(record, query):
                    matching.append(record)
        if query.include_messages and not at_once:
            matching = [record async for record in self._whole(matching) if self._fits(record, query)]
        return matching

    async def _whole(self, found: Sequence[Record | Damaged]) -> AsyncIterator[Record | Damaged]:
        """The same with their messages, as many at once as are no more than `BYTES`."""
        for one in found:
            if isinstance(one, Damaged):
                yield one
        ids = [one.conversation_id for one in found if isinstance(one, Record)]
        sizes = await self._sizes(ids)
        start = 0
        while start < len(ids):
            some = await self._some(ids[start:], sizes[start:])
            start += len(some)
            for record in some:
                if record is not None:
                    yield record

    async def _sizes(self, ids: Sequence[str]) -> list[int]:
        """How many bytes of messages these have."""
        names = [self._indexes.keys.conversation(conversation_id)[0] for conversation_id in ids]
        # What is no number, or no header, is told as damage where the conversation is read.
        try:
            sizes = await self._topology.run_all([command("HGET", name, "s") for name in names])
        except ServerError as error:
            if not is_wrong_type(error):
                raise
            return [0] * len(names)
        return [int(size) if size is not None and size.isdigit() else 0 for size in sizes]

    async def _some(self, ids: Sequence[str], sizes: Sequence[int] | None) -> list[Record | Damaged | None]:
        """As many of these with their messages, from the first on, as are no more than `BYTES`; all without them."""
        if sizes is None:
            return await self._reader.listed(ids, with_messages=False)
        if sizes[0] > BYTES:
            return [await self._large(ids[0])]
        stop, size = 1, sizes[0]
        while stop < min(len(ids), HEADERS) and size + sizes[stop] <= BYTES:
            size += sizes[stop]
            stop += 1
        return await self._reader.listed(ids[:stop], with_messages=True, large=size > PIECE)

    async def _large(self, conversation_id: str) -> Record | Damaged | None:
        try:
            return await self._reader.read(conversation_id)
        except MemoryStorageError as error:
            return Damaged(error)

    async def _point_nowhere(self, conversation_id: str, user_id: str | None) -> None:
        # The moment of creation is not known here; an entry by creation is dropped by who walks that index.
        await self._indexes.sweep(conversation_id, user_id, "0" * DIGITS)

    def _fits(self, record: Record | Damaged, query: MemoryQuery) -> bool:
        if isinstance(record, Damaged):
            return True
        below = rules.activity_cursor(query)
        return (
            rules.live(record, self._reader.now()) is not None
            and rules.matches(record, query)
            and (below is None or rules.activity_key(record) < below)
        )

    async def _pages(self, query: MemoryQuery, wanted: int | None) -> AsyncIterator[list[tuple[str, float]]]:
        """Pages of (id, score), newest first."""
        step = WHOLE if query.include_messages and not _filters(query) else HEADERS
        if wanted is not None and not _filters(query):
            step = min(step, max(wanted, 1))
        # The bound is exclusive, and scores are whole microseconds.
        highest = score(query.active_until) - 1 if query.active_until is not None else None
        if query.updated_until is not None:
            # No activity is later than the last change.
            changed = score(query.updated_until) - 1
            highest = changed if highest is None else min(highest, changed)
        if query.cursor is not None:
            # The cursor's own score is read once more: among equals the ids decide, in `_fits`.
            cursor = score(query.cursor[1])
            highest = cursor if highest is None else min(highest, cursor)
        lowest = score(query.active_since) if query.active_since is not None else "-inf"
        top = "+inf" if highest is None else highest
        if (query.since or query.until) and await self._fewer_created(query, lowest, top):
            async for page in self._pages_by_creation(query, step):
                yield page
            return
        async for page in self._pages_by_activity(query.user_id, lowest, top, step):
            yield page

    async def _pages_by_activity(
        self, user_id: str | None, lowest: int | str, top: float | str, step: int
    ) -> AsyncIterator[list[tuple[str, float]]]:
        index = self._indexes.keys.index(user_id)[0]
        told: set[bytes] = set()
        flat: list[bytes] | None = None
        while True:
            asked_for = len(told) + step
            page_at = command("ZREVRANGEBYSCORE", index, top, lowest, "WITHSCORES", "LIMIT", 0, asked_for)
            if flat is None:
                flat = await self._indexes.first(user_id, page_at)
            else:
                (flat,) = await self._topology.run_all([page_at])
            entries = [(entry, float(at)) for entry, at in zip(flat[::2], flat[1::2], strict=True)]
            # What cannot be read names nothing: an index only proposes.
            named = [(readable(entry), at) for entry, at in entries if entry not in told]
            page = [(name, at) for name, at in named if name is not None]
            if page:
                yield page
            if len(entries) < asked_for:
                return
            # On from the last score, but for those that were told with it; by name, and not by how many they were: one
            # that was written or removed meanwhile stands there no more, and another would be passed over in its place.
            last = entries[-1][1]
            same = {entry for entry, at in entries if at == last}
            told = told | same if last == top else same
            top = last
            # Few at first: nearly always the newest will do.
            step = min(HEADERS, step * 4)

    async def _fewer_created(self, query: MemoryQuery, lowest: int | str, top: int | str) -> bool:
        by_activity, by_creation = self._indexes.keys.index(query.user_id)
        created, active = await self._topology.run_all(
            [
                command("ZLEXCOUNT", by_creation, *_created_range(query)),
                command("ZCOUNT", by_activity, lowest, top),
            ]
        )
        fewer: bool = created < active
        return fewer

    async def _pages_by_creation(self, query: MemoryQuery, step: int) -> AsyncIterator[list[tuple[str, float]]]:
        """What was created within the query's range, sorted by activity."""
        by_activity = self._indexes.keys.index(query.user_id)[0]
        ranked: list[tuple[float, str]] = []
        lowest, highest = _created_range(query)
        async for entries in self._indexes.created(query.user_id, lowest, highest, HEADERS):
            ids = [conversation_id for _, conversation_id in entries]
            (scores,) = await self._topology.run_all([command("ZMSCORE", by_activity, *ids)])
            ranked += [(float(at), conversation_id) for at, conversation_id in zip(scores, ids, strict=True) if at]
        ranked.sort(reverse=True)
        for start in range(0, len(ranked), step):
            yield [(conversation_id, at) for at, conversation_id in ranked[start : start + step]]


def _created_range(query: MemoryQuery) -> tuple[bytes, bytes]:
    lowest = b"-" if query.since is None else b"[" + moment(query.since).encode()
    highest = END if query.until is None else b"(" + moment(query.until).encode()
    return lowest, highest


def _activity(found: Record | Damaged) -> tuple[datetime, str]:
    if isinstance(found, Damaged):
        return found.created_at or EPOCH, found.error.conversation_id or ""
    return rules.activity_key(found)


def _filters(query: MemoryQuery) -> bool:
    """Whether headers decide more than the walk along the index does."""
    changed = query.updated_since, query.updated_until
    decided = query.metadata, query.trace_id, query.since, query.until, *changed, query.cursor
    return any(part is not None for part in decided)


def _foreign(record: Record, query: MemoryQuery) -> bool:
    return query.user_id is not None and record.user_id != query.user_id
