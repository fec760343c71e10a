"""Large changes: laid aside in small steps under an unchanged stamp, and put in place by one rename.

No script may keep a server for more than a few milliseconds, whatever a conversation's size. So what is large is not
written, copied or cut in the script that decides, but beside it, and that script only swaps names (decision 0006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any, cast

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryConflictError, MemoryNotFoundError
from jaf_memory_core.records import Record, Write
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.errors import ServerError, damaged
from jaf_memory_redis.layout import Keys
from jaf_memory_redis.operations.reads import neighbours
from jaf_memory_redis.operations.writes import compare
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Part, asked, command

MANY, HEAVY = 200, 128 << 10
"""Messages, and bytes of them, that one script takes in its stride; measured: about 2 ms."""

ABREAST = 6
"""Ranges that are fetched together."""

ATTEMPTS = 3
"""How often a large change is laid aside anew because the conversation changed; then one script does it after all."""

Staged = tuple[dict[str, Any], tuple[bytes, bytes]]


def is_large(count: int, size: int) -> bool:
    """Whether so many messages, of so many bytes, are too many for one script."""
    return count > MANY or (count > 1 and size > 4 * HEAVY)


class Copier:
    """Lays large changes aside.

    Args:
        keys: names of keys.
        topology: the way to the servers.
    """

    def __init__(self, keys: Keys, topology: Topology) -> None:
        self._keys = keys
        self._topology = topology

    async def part(self, source: str, target: str, stamp: str, count: int, size: int) -> Staged | None:
        """The first `count` messages of a conversation; `None` if it has changed, or there is no memory for it."""
        # A token each, so that two who copy at once never add to the same list.
        aside = self._keys.aside(target, token_hex(8))
        copied = await self._copied(source, aside, stamp, (0, count), size // max(1, count))
        if copied is None:
            await self.discard(aside)
            return None
        return {"expected": stamp, "count": count, "size": copied}, aside

    async def write(self, write: Write) -> Staged | None:
        """What stands after a store or an append; `None` where its script has to decide more.

        Raises:
            MemoryNotFoundError: there is no such conversation, and none is to be made: nothing is sent for that.
            MemoryConflictError: other content under a held id.
        """
        for _ in range(ATTEMPTS):
            aside = self._keys.aside(write.conversation_id, token_hex(8))
            staged = await self._written(write, aside)
            if staged is not None:
                return staged, aside
            await self.discard(aside)
        return None

    async def _written(self, write: Write, aside: tuple[bytes, bytes]) -> dict[str, Any] | None:
        key = write.conversation_id
        header = self._keys.conversation(key)[0]
        (found,) = await self._topology.run_all([command("HMGET", header, "inc", "v", "p", "n", "s", "k", "f", "g")])
        incarnation, *numbers, trimmed, form, spaces = found
        if incarnation is None and not write.create:
            raise MemoryNotFoundError(key)
        stamp, kept, position, size, gaps = None, 0, 0, 0, 0
        if incarnation is not None:
            version, position, kept, size = layout.counts(key, numbers)
            gaps = layout.reading(key, lambda: layout.gaps_of(form, spaces))
            stamp = f"{incarnation.decode()}:{version}"
        if write.replace:
            kept = position = gaps = 0
        fresh: Sequence[int] = range(len(write.messages))
        if kept:
            held = await self._held_at(stamp, write, position, max(1, size // kept), gaps=gaps)
            if held is None:
                return None
            # On a trimmed conversation, what stands before a held message was there once.
            fresh = [at for at in fresh if at not in held and not (trimmed == b"1" and held and at < max(held))]
        if not fresh:
            # All are held; that they still are, the script sees by the stamp.
            return {"expected": stamp, "count": 0, "size": 0, "fresh": 0, "first": 0, "cut": 0, "gaps": 0}
        cut = max(0, kept + len(fresh) - write.max_messages) if write.max_messages is not None else 0
        if cut > kept:
            return None
        copied = await self._copied(key, aside, str(stamp), (cut, kept), size // kept) if kept else 0
        if copied is None:
            return None
        content = [write.messages[at].message_id for at in fresh], [write.bodies[at] for at in fresh]
        end = position + kept + gaps
        added = await self._added(key, aside, stamp, (kept - cut, end), content)
        if added is None:
            return None
        total = kept - cut + len(fresh)
        first = await self._position(key, cut, end) if gaps else position + cut
        staged = {"expected": stamp, "count": total, "size": copied + added, "fresh": len(fresh)}
        return staged | {"first": first, "cut": cut, "gaps": end + len(fresh) - first - total}

    async def _position(self, key: str, place: int, end: int) -> int:
        """The position of the message at a place, of the state that the stamp names: the script compares that."""
        ids = self._keys.conversation(key)[2]
        (found,) = await self._topology.run_all([command("ZRANGE", ids, place, place, "WITHSCORES")])
        return int(found[1]) if found else end

    async def _held_at(self, stamp: str | None, write: Write, first: int, each: int, *, gaps: int) -> set[int] | None:
        """Which of the messages the conversation holds; `None` where a difference is of another state than the stamp.

        Raises:
            MemoryConflictError: with other content.
        """
        try:
            return await self._held(write, first, each, gaps=gaps)
        except MemoryConflictError:
            # What went meanwhile has moved the others in the list, and something else was compared.
            header = self._keys.conversation(write.conversation_id)[0]
            ((incarnation, version),) = await self._topology.run_all([command("HMGET", header, "inc", "v")])
            if b"%b:%b" % (incarnation or b"", version or b"") != str(stamp).encode():
                return None
            raise

    async def _held(self, write: Write, first: int, each: int, *, gaps: int) -> set[int]:
        """Which of the messages the conversation holds.

        Raises:
            MemoryConflictError: with other content.
        """
        _, bodies, ids = self._keys.conversation(write.conversation_id)
        names = [message.message_id for message in write.messages]
        steps = [command("ZMSCORE", ids, *names[at : at + MANY]) for at in range(0, len(names), MANY)]
        scores = [score for step in await self._topology.run_all(steps) for score in step]
        places = sorted((int(score) - first, at) for at, score in enumerate(scores) if score is not None)
        if gaps:
            before = [command("ZCOUNT", ids, "-inf", b"(%d" % (first + place)) for place, _ in places]
            counted = await self._topology.run_all(before)
            places = [(place, at) for place, (_, at) in zip(counted, places, strict=True)]
        held = neighbours(places, max(1, min(MANY, HEAVY // each)))
        for start in range(0, len(held), ABREAST):
            some = held[start : start + ABREAST]
            found = await self._topology.run_all([command("LRANGE", bodies, run[0][0], run[-1][0]) for run in some])
            for run, stored in zip(some, found, strict=True):
                differing = [
                    part
                    for (_, at), body in zip(run, stored, strict=False)
                    if body != write.bodies[at]
                    for part in (at, body)
                ]
                compare(write, differing)
        return {at for _, at in places}

    async def record(self, record: Record, stamp: str | None) -> Staged | None:
        """The messages of a whole record."""
        key, messages = record.conversation_id, record.messages
        aside = self._keys.aside(key, token_hex(8))
        total = 0
        for run in neighbours([(at, place) for place, at in enumerate(rules.positions_of(record))], len(messages)):
            some = [messages[place] for _, place in run]
            content = [one.message_id for one in some], list(map(codec.encode, some))
            at, place = run[0]
            size = await self._added(key, aside, stamp, (place, at), content)
            if size is None:
                await self.discard(aside)
                return None
            total += size
        return {"expected": stamp, "count": len(messages), "size": total}, aside

    async def revised(
        self, key: str, reply: Sequence[Any], positions: Sequence[int], messages: Sequence[Part]
    ) -> Staged | None:
        """All messages, some replaced; `None` if the conversation has changed, or there is no memory for it.

        Args:
            key: the conversation's id.
            reply: what `revise.lua` told of it: its stamp, count and size, and the places of those positions.
            positions: where the new messages go.
            messages: all ids of the new messages, and then all bodies.
        """
        stamp, count, size, places = reply[1].decode(), *reply[2:5]
        aside = self._keys.aside(key, token_hex(8))
        names, bodies = messages[: len(positions)], messages[len(positions) :]
        changed = sorted((place, at) for at, place in enumerate(places))
        laid: int | None = 0
        total = done = 0
        # Side by side in the list, and by position, too: else each has one of its own.
        dense = all(place - changed[0][0] == positions[at] - positions[changed[0][1]] for place, at in changed)
        for run in [*neighbours(changed, MANY if dense else 1), [(count, -1)]]:
            laid = await self._copied(key, aside, stamp, (done, run[0][0]), size // max(1, count), staged=done)
            if laid is not None and run[0][1] >= 0:
                total += laid
                content = [str(names[at]) for _, at in run], [cast("bytes", bodies[at]) for _, at in run]
                laid = await self._added(key, aside, stamp, (run[0][0], positions[run[0][1]]), content)
            if laid is None:
                await self.discard(aside)
                return None
            total += laid
            done = run[-1][0] + 1
        return {"expected": stamp, "count": count, "size": total}, aside

    async def thinned(self, key: str, reply: Sequence[Any]) -> Staged | None:
        """All messages but some; `None` if the conversation has changed, or there is no memory for it.

        Args:
            key: the conversation's id.
            reply: what `thin.lua` told of it: its stamp, count and size, and the places of what goes.
        """
        stamp, count, size, places = reply[1].decode(), *reply[2:5]
        aside = self._keys.aside(key, token_hex(8))
        total = laid = start = 0
        for place in [*sorted(places), count]:
            copied = await self._copied(key, aside, stamp, (start, place), size // max(1, count), staged=laid)
            if copied is None:
                await self.discard(aside)
                return None
            total, laid, start = total + copied, laid + place - start, place + 1
        return {"expected": stamp, "count": laid, "size": total}, aside

    async def discard(self, aside: tuple[bytes, ...]) -> None:
        """Remove what was laid aside for nothing; what is left of a writer that was killed goes by itself."""
        if aside:
            await self._topology.run_all([command("UNLINK", name) for name in aside])

    async def _copied(
        self,
        source: str,
        aside: tuple[bytes, bytes],
        stamp: str,
        places: tuple[int, int],
        each: int,
        *,
        staged: int = 0,
    ) -> int | None:
        start, stop = places
        # By the average size of a message: the header knows no more, and a step need not be exact.
        step = max(1, min(MANY, HEAVY // max(1, each)))
        total = 0
        # Each step compares the stamp: a writer who comes in between makes all of them void.
        for at in range(start, stop, step):
            request = {"start": at, "stop": min(at + step, stop), "staged": staged + at - start}
            found = await self._step(source, aside, stamp, request)
            if found is None:
                return None
            total += found
        return total

    async def _added(
        self,
        key: str,
        aside: tuple[bytes, bytes],
        stamp: str | None,
        places: tuple[int, int],
        content: tuple[Sequence[str], Sequence[bytes]],
    ) -> int | None:
        staged, position = places
        names, bodies = content
        total = start = 0
        while start < len(names):
            stop, size = start + 1, len(bodies[start])
            while stop < min(len(names), start + MANY) and size + len(bodies[stop]) <= HEAVY:
                size += len(bodies[stop])
                stop += 1
            sent: list[Part] = [*names[start:stop], *bodies[start:stop]]
            request = {"start": 0, "stop": 0, "staged": staged + start, "position": position + start}
            found = await self._step(key, aside, stamp, request, sent)
            if found is None:
                return None
            total += found
            start = stop
        return total

    async def _step(
        self,
        key: str,
        aside: tuple[bytes, bytes],
        stamp: str | None,
        request: Mapping[str, Any],
        messages: Sequence[Part] = (),
    ) -> int | None:
        keys = (*self._keys.conversation(key), *aside)
        whole = {**request, "id": key, "expected": stamp, "more": len(aside), "probed": True}
        try:
            (reply,) = await self._topology.run_all([asked(scripts.STAGE, keys, whole, messages)])
        except ServerError as error:
            if error.code == "OOM" or "OOM" in error.text:
                return None  # to cut something away needs no memory, but a copy does
            raise
        # Anything else (it changed meanwhile, a right is missing) makes the copy void; the one script then decides.
        if reply[0] == b"damaged":
            raise damaged(key, *reply[1:3])
        if reply[0] == b"unsound":
            raise codec.damaged(key)
        return int(reply[1]) if reply[0] == b"ok" else None
