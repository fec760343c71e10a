"""Many appends at once: in a pipeline of scripts on a single server, several at a time elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import PATIENCE
from jaf_memory_core.errors import MemoryConnectionError, MemoryError
from jaf_memory_core.records import Write
from jaf_memory_core.results import WriteResult
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.errors import FAILURES, ServerError, translate
from jaf_memory_redis.layout import Keys, moment
from jaf_memory_redis.operations.copies import is_large
from jaf_memory_redis.operations.writes import request_of, result_of
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, Part

ABREAST = 32
"""Appends that are under way at once where each needs a dialogue of its own."""

TOGETHER = 16
"""Conversations that one call of `make.lua` makes; nobody else is served meanwhile, half a millisecond."""

STREAMED = 4
"""Calls of `make.lua` that are sent at once."""

SHORT, LIGHT = 200, 32 << 10
"""Messages, and bytes of them, of a conversation that shares a call with others."""

Outcome = WriteResult | MemoryError | None


class Bulk:
    """Appends of an import.

    Args:
        keys: names of keys.
        topology: the way to the servers.
        append: does one, whatever it takes.
        piped: whether nearly every append is one script and nothing else: on a single server, unless replicas have to
            confirm it.
    """

    def __init__(
        self, keys: Keys, topology: Topology, append: Callable[[Write], Awaitable[WriteResult]], *, piped: bool
    ) -> None:
        self._keys = keys
        self._topology = topology
        self._append = append
        self._piped = piped

    async def append_many(self, writes: Sequence[Write]) -> list[Outcome]:
        """Do as many as can be done; `None` for those that have to come again."""
        outcomes: dict[int, Outcome] = {}
        problems: list[MemoryError] = []
        until = time.monotonic() + PATIENCE
        # Of several to one conversation only the first is taken each time, so that they are done in their order.
        if self._piped:
            new = {index: write for index, write in _firsts(writes, ()).items() if _is_new(write)}
            outcomes |= await self._make(new, problems)
            rest = _firsts(writes, outcomes).items()
            small = {index: write for index, write in rest if not is_large(len(write.bodies), codec.size(write.bodies))}
            outcomes |= await self._pipe(small, problems)
        while not problems and time.monotonic() < until and (some := _firsts(writes, outcomes)):
            few = list(some.items())[:ABREAST]
            done = await asyncio.gather(*(self._one(write, problems) for _, write in few))
            outcomes |= {index: outcome for (index, _), outcome in zip(few, done, strict=True)}
        # What was done has to be told; the caller comes again with the rest, and meets the problem then.
        if problems and not any(outcomes.values()):
            raise problems[0]
        return [outcomes.get(index) for index in range(len(writes))]

    async def _make(self, writes: Mapping[int, Write], problems: list[MemoryError]) -> dict[int, Outcome]:
        """Make what is not there yet; what is, is left out."""
        outcomes: dict[int, Outcome] = {}
        groups = _groups(writes)
        replies = await self._streamed(self._making([writes[index] for index in group]) for group in groups)
        for group, reply in zip(groups, replies, strict=True):
            for at, index in enumerate(group):
                if type(reply) is ServerError:
                    outcomes[index] = _outcome(reply, problems)
                elif reply[at]:
                    count = len(writes[index].messages)
                    outcomes[index] = WriteResult(1, count, count)
        return outcomes

    async def _pipe(self, writes: Mapping[int, Write], problems: list[MemoryError]) -> dict[int, Outcome]:
        """Append by one script each; what that cannot decide is left out."""
        outcomes: dict[int, Outcome] = {}
        replies = await self._sent([self._appending(write) for write in writes.values()])
        for index, reply in zip(writes, replies, strict=True):
            if type(reply) is ServerError:
                outcomes[index] = _outcome(reply, problems)
            elif reply[0] in {b"ok", b"same", b"added"}:
                outcomes[index] = result_of(writes[index], reply)
        return outcomes

    async def _streamed(self, commands: Iterator[Command]) -> list[Any]:
        """Send commands a few at a time: the server works on some while the next are being made."""
        under_way: list[asyncio.Future[list[Any]]] = []
        try:
            while some := list(islice(commands, STREAMED)):
                under_way.append(asyncio.ensure_future(self._sent(some)))
                # Lets that one be sent now, while the next are packed.
                await asyncio.sleep(0)
            if under_way:
                await asyncio.wait(under_way)
        finally:
            for one in under_way:
                one.cancel()  # changes nothing where it is done
            await asyncio.gather(*under_way, return_exceptions=True)
        return [reply for one in under_way for reply in one.result()]

    async def _sent(self, commands: list[Command]) -> list[Any]:
        return await self._topology.run(commands[0], *commands[1:]) if commands else []

    async def _one(self, write: Write, problems: list[MemoryError]) -> Outcome:
        try:
            return await self._append(write)
        except FAILURES as error:
            return _outcome(error, problems)

    def _appending(self, write: Write) -> Command:
        keys = self._keys.single(write.conversation_id, write.user_id)
        request = request_of(write) | {"guess": write.user_id}
        return scripts.asked(scripts.WRITE, keys, request, layout.messages_of(write.messages, write.bodies))

    def _making(self, writes: Sequence[Write]) -> Command:
        keys = list(self._keys.everything)
        for write in writes:
            keys += (*self._keys.conversation(write.conversation_id), self._keys.older(write.conversation_id))
            keys += self._keys.owned(write.user_id) if write.user_id is not None else ()
        return scripts.call(scripts.MAKE, keys, *chain.from_iterable(map(_described, writes)))


def _described(write: Write) -> list[Part]:
    """What `make.lua` takes of a conversation."""
    origin = write.origin
    times = rules.times_of(origin)
    more: list[Part] = [] if write.user_id is None else ["o", write.user_id]
    later = times and layout.amended(*times)
    if later:
        more += ("a", later)
    if write.metadata:
        more += layout.pairs(write.metadata)
    created = moment(origin.created_at) if origin and origin.created_at else ""
    active = moment(times[0]) if times else ""
    size, trimmed = codec.size(write.bodies), int(write.dropped > 0)
    head = (len(write.messages), len(more), write.user_id or "", write.conversation_id, created, active)
    ids = [message.message_id for message in reversed(write.messages)]
    return [*head, size, write.incarnation, trimmed, *write.bodies, *ids, *more]


def _groups(writes: Mapping[int, Write]) -> list[list[int]]:
    """Indexes of those that one call makes: no more than keep the server for a moment."""
    groups: list[list[int]] = []
    messages = 0
    for index, write in writes.items():
        messages += len(write.messages)
        if not groups or len(groups[-1]) == TOGETHER or messages > 2 * SHORT:
            groups.append([])
            messages = len(write.messages)
        groups[-1].append(index)
    return groups


def _is_new(write: Write) -> bool:
    """Whether it may make a conversation, which never expires, and is small."""
    origin = write.origin
    never = write.ttl is None if origin is None else origin.ttl is None and origin.expires_at is None
    small = len(write.messages) <= SHORT and len(write.metadata) <= SHORT and codec.size(write.bodies) <= LIGHT
    return write.create and not write.expected_version and never and small


def _outcome(error: Exception, problems: list[MemoryError]) -> MemoryError | None:
    """The error as ours, or `None` if the append may be tried again; noted if it concerns more than this append."""
    problem = error if isinstance(error, MemoryError) else translate(error, "append_many")
    again = problem.retryable and problem.outcome == "not_applied"
    if again or isinstance(problem, MemoryConnectionError):
        problems.append(problem)
    return None if again else problem


def _firsts(writes: Sequence[Write], done: Sequence[int] | Mapping[int, Any]) -> dict[int, Write]:
    """The first write to each conversation that is left to be done, by index."""
    first: dict[str, int] = {}
    for index, write in enumerate(writes):
        if index not in done:
            first.setdefault(write.conversation_id, index)
    return {index: writes[index] for index in first.values()}
