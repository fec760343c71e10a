"""Reading conversations: plain commands, and a script only where a writer came in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from jaf_memory_core import codec, forks, pages, rules
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Page, Record, Revise, Tail
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.errors import ServerError, TransportError, damaged, is_wrong_type, misplaced
from jaf_memory_redis.layout import Keys, server_time
from jaf_memory_redis.operations.pages import ABREAST, BULKY, HEAVY, SINGLY, Sizes, beside, fields_of, tail_form
from jaf_memory_redis.operations.rights import ReadOnly
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, Part, asked, command

T = TypeVar("T")

LARGEST = 1 << 53
"""Lua's numbers are exact up to here; no count of ours comes near it."""

PAGE = 64
"""Messages of a conversation that are read before its size is known."""

PLACES = 5_000
"""Positions that are read at once."""

FEW = 4
"""Places in the middle of a long list that are reached for together."""

ATTEMPTS = 3
"""How often a large conversation is read anew because it changed; then it is read by a script, of one moment."""


async def misplaced_among(topology: Topology, keys: Keys, ids: Sequence[str]) -> str | None:
    """Which of these conversations has another type of Redis's in the place of one of its keys, if one does."""
    kinds = (b"hash", b"list", b"zset")
    names = [name for conversation_id in ids for name in keys.conversation(conversation_id)]
    found = await topology.run_all([command("TYPE", name) for name in names])
    for at, kind in enumerate(found):
        if kind not in {b"none", kinds[at % len(kinds)]}:
            return ids[at // len(kinds)]
    return None


def neighbours(places: Sequence[tuple[int, T]], most: int) -> list[list[tuple[int, T]]]:
    """Places in a list, those that stand side by side together: to reach into the middle of it costs."""
    runs: list[list[tuple[int, T]]] = []
    for place, what in places:
        if runs and runs[-1][-1][0] + 1 == place and len(runs[-1]) < most:
            runs[-1].append((place, what))
        else:
            runs.append([(place, what)])
    return runs


def _scores(flat: Sequence[bytes]) -> list[int]:
    return list(map(int, flat[1::2]))


def placed(record: Record, positions: Sequence[int]) -> Record:
    """The record with the positions of its messages.

    Raises:
        MemoryStorageError: they do not lie where the header says.
    """
    sound = len(positions) == record.message_count and positions[:1] == [record.first_position]
    if not sound or positions[-1] >= record.end:
        raise codec.damaged(record.conversation_id)
    return replace(record, positions=tuple(positions))


class Reader(Sizes):
    """Reads conversations, and tells the server's time.

    Args:
        learn: told who owns a conversation that was read.
    """

    def __init__(self, keys: Keys, topology: Topology, learn: Callable[[str, str | None], None]) -> None:
        super().__init__(keys, topology)
        self._learn = learn
        self._ahead = timedelta()
        self._read_only = ReadOnly(topology)

    def forget(self) -> None:
        """Take nothing of an earlier connection for granted."""
        self._read_only.forget()

    def now(self) -> datetime:
        """The server's time, as far as the last read told."""
        return datetime.fromtimestamp(time.time(), UTC) + self._ahead

    def heard(self, clock: list[bytes]) -> datetime:
        """Take the server's time from what `TIME` answered."""
        now = server_time(clock)
        self._ahead = now - datetime.fromtimestamp(time.time(), UTC)
        return now

    async def read(self, conversation_id: str, *, with_messages: bool = True) -> Record | None:
        """One record, expired or not; a large one in pages, which keep neither the server nor a connection for long."""
        try:
            if with_messages:
                if self._choking.guess(conversation_id) is not None:
                    await self._gauge(conversation_id)
                return await self._whole(conversation_id)
            return (await self.read_all([conversation_id], with_messages=False))[0]
        except ServerError as error:
            raise misplaced(error, conversation_id) from None
        except TransportError as error:
            raise self._cut_off(conversation_id, error) from None

    async def _whole(self, conversation_id: str) -> Record | None:
        for _ in range(ATTEMPTS):
            header, bodies, _ = self._keys.conversation(conversation_id)
            first, step = self._together(conversation_id, PAGE)
            flat, *parts, stamp, clock = await self._topology.run_all(
                [
                    command("HGETALL", header),
                    *(command("LRANGE", bodies, at, min(at + step, first) - 1) for at in range(0, first, step)),
                    command("HMGET", header, "inc", "v"),
                    Command(header, ("TIME",)),
                ],
                large=first > PAGE,
            )
            found = parts[0] if len(parts) == 1 else [body for part in parts for body in part]
            self.heard(clock)
            if layout.stamp_of(flat) != stamp:
                continue
            whole = await self._rest(conversation_id, flat, found, first)
            record = None if whole is None else layout.record_of(conversation_id, flat, whole)
            if record is not None and record.gaps:
                record = await self._placed(record)
            if whole is None or (record is None and flat):
                continue
            return self._known(record)
        return await self._read_by_script(conversation_id)

    async def _placed(self, record: Record) -> Record | None:
        """The record with the positions of its messages; `None` if the header stands no more as it shows it.

        Raises:
            MemoryStorageError: they do not lie where the header says.
        """
        positions = await self._positions(record, 0, record.message_count)
        return None if positions is None else placed(record, positions)

    async def _positions(self, record: Record, start: int, stop: int) -> list[int] | None:
        """Positions by place, without that at `stop`; `None` as `_placed`."""
        header, _, ids = self._keys.conversation(record.conversation_id)
        positions: list[int] = []
        for at in range(start, stop, PLACES):
            last = min(stop, at + PLACES) - 1
            # The stamp comes last: what is compared with it was read before.
            flat, stands, stamp = await self._topology.run_all(
                [
                    command("ZRANGE", ids, at, last, "WITHSCORES"),
                    command("ZCARD", ids),
                    command("HMGET", header, "inc", "v"),
                ]
            )
            if stamp != [record.incarnation.encode(), b"%d" % record.version]:
                return None
            if stands != record.message_count:
                raise damaged(record.conversation_id, record.message_count, stands)
            positions += layout.reading(record.conversation_id, partial(_scores, flat))
        return positions

    async def _rest(
        self, conversation_id: str, flat: Sequence[bytes], found: list[bytes], first: int
    ) -> list[bytes] | None:
        """All bodies, if the header still stands behind the last of them; `found` are the first, up to so many."""
        if len(found) < first or not flat:
            self.note_length(conversation_id, 0, 0)
            return found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        count, size = layout.counts(conversation_id, map(fields.get, (b"n", b"s")))
        self.note(conversation_id, size, count)
        self.note_length(conversation_id, size, count)
        if count == len(found):
            return found
        rest = await self._span(conversation_id, flat, first, count)
        return None if rest is None else found + rest

    async def _span(self, conversation_id: str, flat: Sequence[bytes], first: int, last: int) -> list[bytes] | None:
        """Bodies by place, without that at `last`, in pages; `None` if the header stands no more as `flat` shows it.

        Raises:
            MemoryStorageError: the bodies are not as many as the header says.
        """
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        count = int(fields[b"n"])
        header, bodies, _ = self._keys.conversation(conversation_id)
        # By the average size, since only the sum is known, and by what the last step brought.
        average = each = max(1, layout.counted(fields[b"s"]) // max(1, count))
        cuts, _ = self._choking.guess(conversation_id) or (0, 0)
        if cuts:
            average = each = ABREAST * HEAVY
        found: list[bytes] = []
        start = first
        while start < last:
            step = max(1, min(PAGE * 32, HEAVY // each))
            stop = min(last, start + step * max(1, min(ABREAST, ABREAST * HEAVY // (step * each))))
            ranges = [command("LRANGE", bodies, at, min(at + step, stop) - 1) for at in range(start, stop, step)]
            # The stamp comes last: what is compared with it was read before.
            behind = [command("LLEN", bodies), command("HMGET", header, "inc", "v")]
            *pages, stands, stamp = await self._topology.run_all([*ranges, *behind], large=True)
            if stamp != layout.stamp_of(flat):
                return None
            if stands != count:
                raise damaged(conversation_id, count, stands)
            for page in pages:
                found += page
            if stop < last:  # else nothing comes behind that it would tell the size of
                brought = [len(body) for body in found[start - first :]]
                each = max(average, sum(brought) // (stop - start))
                if cuts and cuts < SINGLY and max(brought, default=0) <= BULKY:
                    each = HEAVY // min(PAGE, 2 * (stop - start))
            start = stop
        if cuts and found and max(map(len, found)) <= BULKY:  # it was something else that closed the connection
            self._choking.learn(conversation_id, None)
        return found

    async def listed(
        self, ids: Sequence[str], *, with_messages: bool, large: bool = False
    ) -> list[Record | Damaged | None]:
        """Records in the order of the ids, with `Damaged` in the place of what cannot be read."""
        try:
            return [*await self.read_all(ids, with_messages=with_messages, large=large)]
        except MemoryStorageError as error:
            if len(ids) == 1:
                return [Damaged(error)]
        except ServerError as error:
            if not is_wrong_type(error):
                raise
            if len(ids) == 1:
                return [Damaged(codec.damaged(ids[0]))]
        except TransportError as error:
            if not error.closed or len(ids) == 1:
                raise
            # Perhaps it is more than the server keeps for a client; half of it may do.
            halves = ids[: len(ids) // 2], ids[len(ids) // 2 :]
            return [one for half in halves for one in await self.listed(half, with_messages=with_messages, large=large)]
        # One of them is; which, is seen one by one.
        return [one for key in ids for one in await self.listed([key], with_messages=with_messages)]

    async def read_all(self, ids: Sequence[str], *, with_messages: bool, large: bool = False) -> list[Record | None]:
        """Records in the order of the ids; `large` ones on a way apart from what is small."""
        if not ids:
            return []
        commands = []
        for conversation_id in ids:
            header, bodies, _ = self._keys.conversation(conversation_id)
            commands.append(command("HGETALL", header))
            if with_messages:
                commands.append(command("LRANGE", bodies, 0, -1))
                # Every write changes the stamp: if it still stands, header and messages are of one moment.
                commands.append(command("HMGET", header, "inc", "v"))
        replies = await self._topology.run_all([*commands, Command(commands[0].slot_key, ("TIME",))], large=large)
        self.heard(replies.pop())
        if not with_messages:
            return [self._known(layout.record_of(key, flat)) for key, flat in zip(ids, replies, strict=True)]
        records = []
        for at, conversation_id in enumerate(ids):
            flat, bodies, stamp = replies[3 * at : 3 * at + 3]
            if layout.stamp_of(flat) != stamp:
                records.append(await self._read_by_script(conversation_id))
            else:
                records.append(self._known(layout.record_of(conversation_id, flat, bodies)))
        return records

    def _known(self, record: Record | None) -> Record | None:
        if record is not None:
            self._learn(record.conversation_id, record.user_id)
        return record

    async def _read_by_script(self, conversation_id: str) -> Record | None:
        page = await self._page(conversation_id, {"id": conversation_id})
        record = None if page is None else layout.record_of(conversation_id, page[1], page[2])
        if page is not None and record is not None and record.gaps:
            record = placed(record, list(map(int, page[4])))
        return self._known(record)

    async def _page(self, conversation_id: str, request: Mapping[str, Any]) -> list[Any] | None:
        reply = await self._read_only.run(asked(scripts.PAGE, self._keys.conversation(conversation_id), request))
        if reply is None:
            return None
        if reply[0] == b"format":
            layout.check_format(reply[1], conversation_id)
        if reply[0] == b"damaged":
            raise damaged(conversation_id, *reply[1:3])
        if reply[0] == b"unsound":
            raise codec.damaged(conversation_id)
        self.heard(reply[0])
        page: list[Any] = reply
        return page

    async def replacements(self, record: Record, revise: Revise) -> tuple[dict[str, Any], Sequence[Part]] | None:
        """What `revise.lua` takes, decided for the state that the header shows; `None` if all is there already.

        Returns:
            the request, and its messages.

        Raises:
            MemoryConflictError: as `forks.replacements` decides.
        """
        try:
            await self._gauge(revise.conversation_id)
            return await self._replacements(record, revise)
        except ServerError as error:
            raise misplaced(error, revise.conversation_id) from None
        except TransportError as error:
            raise self._cut_off(revise.conversation_id, error) from None

    async def _replacements(self, record: Record, revise: Revise) -> tuple[dict[str, Any], Sequence[Part]] | None:
        _, bodies, ids = self._keys.conversation(revise.conversation_id)
        concerned = list(dict.fromkeys((*revise.ids, *(message.message_id for message in revise.messages))))
        if not concerned:
            return None
        (scores,) = await self._topology.run_all([command("ZMSCORE", ids, *concerned)])
        places = {key: int(at) for key, at in zip(concerned, scores, strict=True) if at is not None}
        order = sorted((at - record.first_position, key) for key, at in places.items())
        if record.gaps:
            before = [command("ZCOUNT", ids, "-inf", b"(%d" % at) for at in places.values()]
            order = sorted(zip(await self._topology.run_all(before), places, strict=True))
        at_once = self._at_once(revise.conversation_id)
        runs = neighbours(order, min(PAGE, at_once))
        few = max(1, min(FEW, at_once // max(map(len, runs), default=1)))
        held: dict[str, bytes] = {}
        for start in range(0, len(runs), few):
            some = runs[start : start + few]
            found = await self._topology.run_all([command("LRANGE", bodies, run[0][0], run[-1][0]) for run in some])
            # What is gone by now is told by the script, because the state is another one.
            for run, page in zip(some, found, strict=True):
                held |= {key: body for (_, key), body in zip(run, page, strict=False)}
        wanted = forks.replacements(revise, held, revise.conversation_id)
        if not wanted:
            return None
        request = {
            "id": revise.conversation_id,
            "expected": f"{record.incarnation}:{record.version}",
            "positions": [places[revise.ids[index]] for index in wanted],
        }
        messages = [revise.messages[index] for index in wanted]
        return request, layout.messages_of(messages, (revise.bodies[index] for index in wanted))

    async def tail(self, tail: Tail) -> Page | None:
        """The last messages, or those beside a position, with the header of that moment, and the first messages."""
        key = tail.conversation_id
        try:
            if self._choking.guess(key) is not None:
                await self._gauge(key)
            # Here, without another coroutine on the way: it is what agents read before each turn.
            limit, leading = min(tail.limit, LARGEST), min(tail.leading, LARGEST)
            long = max(limit, leading) > self._at_once(key)
            if tail.before is None and tail.after is None and limit and not long:
                start = self._keys.start(key)
                packed = tail_form(len(start), limit, leading, tail.with_header).of(start)
                flat, found, *others, stands, stamp, clock = await self._topology.run_packed(packed)
                fields = fields_of(flat) if tail.with_header else flat
                # No writer came in between, so that all is of one moment without a script (docs/decisions/0006).
                if fields[1:3] == stamp and fields[0] != layout.WITH_GAPS:
                    page = self._page_of(tail, fields, found, clock, stands)
                    return page and beside(tail, page, fields, flat, others[0] if others else ())
            return await self._tail(tail, limit, leading, long=long)
        except ServerError as error:
            raise misplaced(error, tail.conversation_id) from None
        except TransportError as error:
            raise self._cut_off(tail.conversation_id, error) from None

    async def _tail(self, tail: Tail, limit: int, leading: int, *, long: bool) -> Page | None:
        """The same by the script, or in steps where it is long."""
        whole = tail.with_header or long
        request: dict[str, Any] = {"id": tail.conversation_id, "limit": limit, "whole": whole or None}
        request["before"] = None if tail.before is None else min(tail.before, LARGEST)
        request["after"] = None if tail.after is None else min(tail.after, LARGEST)
        request["leading"] = leading or None
        read = await self._long(tail) if long else None
        read = read or await self._page(tail.conversation_id, request)
        if read is None:
            return None
        if len(read) > len(("clock", "fields", "bodies", "leading")):
            return self._page_with_gaps(tail, read)
        fields = fields_of(read[1]) if whole else read[1]
        page = self._page_of(tail, fields, read[2], read[0])
        return page and beside(tail, page, fields, read[1], read[3])

    def _page_with_gaps(self, tail: Tail, read: Sequence[Any]) -> Page | None:
        """A page of what `page.lua` answers about a conversation of which single messages were deleted."""
        clock, flat, bodies, first_bodies, positions, _ = read
        header = self._known(layout.record_of(tail.conversation_id, flat))
        header = rules.seen(header, self.heard(clock), tail.scope)
        if header is None:
            return None
        places = tuple(map(int, positions))
        if len(places) != len(bodies):
            raise damaged(tail.conversation_id, len(bodies), len(places))
        first = places[0] if places else pages.nowhere(header, tail)
        return Page(
            codec.decode_messages(bodies, tail.conversation_id),
            first,
            first > header.first_position,
            codec.decode_messages(first_bodies, tail.conversation_id) if tail.leading else None,
            header if tail.with_header else None,
            pages.known_end(header, tail),
            places,
        )

    async def _long(self, tail: Tail) -> list[Any] | None:
        """What `page.lua` answers, of many messages, in steps that keep nobody waiting; `None` where it changes."""
        for _ in range(ATTEMPTS):
            header = self._keys.conversation(tail.conversation_id)[0]
            flat, clock = await self._topology.run_all([command("HGETALL", header), Command(header, ("TIME",))])
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if not flat:
                return [clock, flat, [], []]
            layout.check_format(fields.get(b"f"), tail.conversation_id)
            if fields.get(b"f") == layout.WITH_GAPS:
                return await self._long_with_gaps(tail, clock, flat)
            end, first, _ = layout.counts(tail.conversation_id, map(fields.get, (b"n", b"p", b"s")))
            start, end = (at - first for at in pages.bounds_within(first, first + end, tail))
            found = await self._span(tail.conversation_id, flat, start, end)
            leading = await self._span(tail.conversation_id, flat, 0, min(tail.leading, start))
            if found is not None and leading is not None:
                return [clock, flat, found, leading]
        return None

    async def _long_with_gaps(self, tail: Tail, clock: list[bytes], flat: list[bytes]) -> list[Any] | None:
        """The same of a conversation of which single messages were deleted; places are found by counting."""
        record = layout.record_of(tail.conversation_id, flat)
        assert record is not None  # a header stands
        header, _, ids = self._keys.conversation(tail.conversation_id)
        lowest, highest = pages.reach(record, tail)
        bounds = [command("ZCOUNT", ids, "-inf", b"(%d" % position) for position in (lowest, highest)]
        start, stop = await self._topology.run_all(bounds)
        if tail.after is None:
            start = max(start, stop - tail.limit)
        else:
            stop = min(stop, start + tail.limit)
        found = await self._span(tail.conversation_id, flat, start, stop)
        positions = await self._positions(record, start, stop)
        if found is None or positions is None:
            return None
        leading: list[bytes] | None = []
        if tail.leading:
            below = b"(%d" % min(tail.leading, LARGEST)
            (ahead,) = await self._topology.run_all([command("ZCOUNT", ids, "-inf", below)])
            leading = await self._span(tail.conversation_id, flat, 0, min(ahead, start))
        # Behind the last count, too, the header has to be the same.
        (stamp,) = await self._topology.run_all([command("HMGET", header, "inc", "v")])
        if leading is None or stamp != layout.stamp_of(flat):
            return None
        return [clock, flat, found, leading, positions, record.gaps]

    def _page_of(
        self,
        tail: Tail,
        fields: Sequence[Any],
        bodies: Sequence[bytes],
        clock: list[bytes],
        stands: int | None = None,
    ) -> Page | None:
        stored, incarnation, version, expires, owner, first, count, size, name = fields
        if stored is None and incarnation is None and version is None:
            return None
        if stored != layout.PLAIN:
            layout.check_format(stored, tail.conversation_id)
        if name != tail.conversation_id.encode():  # a hand on the server has renamed it
            raise codec.damaged(tail.conversation_id)
        user, oldest, held, taken, ends = layout.reading(
            tail.conversation_id, partial(layout.parts_of, owner, first, count, size, expires)
        )
        self.note(tail.conversation_id, taken, held)
        if ends is not None and ends <= self.heard(clock):
            return None
        self._learn(tail.conversation_id, user)
        if tail.scope not in (None, user):
            return None
        if stands not in (None, held):
            raise damaged(tail.conversation_id, held, stands)
        start, _ = pages.bounds_within(oldest, oldest + held, tail)
        messages = codec.decode_messages(bodies, tail.conversation_id) if bodies else ()
        return Page(messages, start, start > oldest, end=None if tail.after is None else oldest + held)
