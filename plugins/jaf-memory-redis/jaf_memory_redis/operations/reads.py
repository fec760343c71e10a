"""Reading conversations: plain commands, and a script only where a writer came in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, forks
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Page, Record, Revise, Tail
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.errors import ServerError, damaged, is_denied
from jaf_memory_redis.layout import Keys, moment, server_time
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, Form, Part, asked, command

LARGEST = 1 << 53
"""Lua's numbers are exact up to here; no count of ours comes near it."""

PAGE = 64
"""Messages of a conversation that are read before its size is known."""

HEAVY = 128 << 10
"""Bytes of messages that one command reads."""

ABREAST = 8
"""Such commands that are under way together."""

ATTEMPTS = 3
"""How often a large conversation is read anew because it changed; then it is read by a script, of one moment."""

_TAIL = ("f", "inc", "v", "x", "o", "p", "n")


@lru_cache(maxsize=64)
def _tail_form(length: int, limit: int, leading: int, whole: bool) -> Form:  # noqa: FBT001  (a key of the cache)
    """The commands that read the last `limit` messages, with the header of that moment and the time.

    Args:
        length: of what the names of the keys begin with.
        limit: how many of the last messages.
        leading: how many of the first, too.
        whole: whether all of the header is read.
    """
    return Form(
        length,
        lambda start: (
            command("HGETALL", start + b"h") if whole else command("HMGET", start + b"h", *_TAIL),
            command("LRANGE", start + b"m", -limit, -1),
            *([command("LRANGE", start + b"m", 0, leading - 1)] if leading else []),
            command("LLEN", start + b"m"),
            command("HMGET", start + b"h", "inc", "v"),
            Command(start, ("TIME",)),
        ),
    )


class Reader:
    """Reads conversations, and tells the server's time.

    Args:
        learn: told who owns a conversation that was read.
    """

    def __init__(self, keys: Keys, topology: Topology, learn: Callable[[str, str | None], None]) -> None:
        self._keys = keys
        self._topology = topology
        self._learn = learn
        self._ahead = timedelta()
        self._read_only = True

    def forget(self) -> None:
        """Take nothing of an earlier connection for granted."""
        self._read_only = True

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
        if not with_messages:
            return (await self.read_all([conversation_id], with_messages=False))[0]
        for _ in range(ATTEMPTS):
            header, bodies, _ = self._keys.conversation(conversation_id)
            flat, found, stamp, clock = await self._topology.run_all(
                [
                    command("HGETALL", header),
                    command("LRANGE", bodies, 0, PAGE - 1),
                    command("HMGET", header, "inc", "v"),
                    Command(header, ("TIME",)),
                ]
            )
            self.heard(clock)
            if layout.stamp_of(flat) != stamp:
                continue
            whole = await self._rest(conversation_id, flat, found)
            if whole is not None:
                return self._known(layout.record_of(flat, whole))
        return await self._read_by_script(conversation_id)

    async def _rest(self, conversation_id: str, flat: Sequence[bytes], found: list[bytes]) -> list[bytes] | None:
        """All bodies, if the header still stands behind the last of them; `found` are the first."""
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        count = int(fields.get(b"n", 0))
        if len(found) < PAGE or count == len(found):
            return found
        header, bodies, _ = self._keys.conversation(conversation_id)
        # By the average size, since only the sum is known.
        step = max(1, min(PAGE * 32, HEAVY * count // max(1, int(fields[b"s"]))))
        for start in range(PAGE, count, step * ABREAST):
            stop = min(count, start + step * ABREAST)
            ranges = [command("LRANGE", bodies, at, min(at + step, stop) - 1) for at in range(start, stop, step)]
            behind = [command("HMGET", header, "inc", "v"), command("LLEN", bodies)]
            *pages, stamp, stands = await self._topology.run_all([*ranges, *behind], large=True)
            if stamp != layout.stamp_of(flat):
                return None
            if stands != count:
                raise damaged(conversation_id, count, stands)
            for page in pages:
                found += page
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
            return [self._known(layout.record_of(flat)) for flat in replies]
        records = []
        for at, conversation_id in enumerate(ids):
            flat, bodies, stamp = replies[3 * at : 3 * at + 3]
            if layout.stamp_of(flat) != stamp:
                records.append(await self._read_by_script(conversation_id))
            else:
                records.append(self._known(layout.record_of(flat, bodies)))
        return records

    def _known(self, record: Record | None) -> Record | None:
        if record is not None:
            self._learn(record.conversation_id, record.user_id)
        return record

    async def _read_by_script(self, conversation_id: str) -> Record | None:
        page = await self._page(conversation_id, {"id": conversation_id})
        return None if page is None else self._known(layout.record_of(page[1], page[2]))

    async def _page(self, conversation_id: str, request: Mapping[str, Any]) -> list[Any] | None:
        reply = await self._only_reading(asked(scripts.PAGE, self._keys.conversation(conversation_id), request))
        if reply is None:
            return None
        if reply[0] == b"format":
            layout.check_format(reply[1])
        if reply[0] == b"damaged":
            raise damaged(request["id"], *reply[1:3])
        self.heard(reply[0])
        page: list[Any] = reply
        return page

    async def _only_reading(self, script: Command) -> Any:
        """The reply to a script that only reads, sent as one where the server knows such, and the user may."""
        if self._read_only:
            try:
                return (await self._topology.run_all([script.only_reading()]))[0]
            except ServerError as error:
                if not (is_denied(error) or "unknown command" in error.text):
                    raise
                self._read_only = False
        return (await self._topology.run_all([script]))[0]

    async def replacements(self, record: Record, revise: Revise) -> tuple[dict[str, Any], Sequence[Part]] | None:
        """What `revise.lua` takes, decided for the state that the header shows; `None` if all is there already.

        Returns:
            the request, and its messages.

        Raises:
            MemoryConflictError: as `forks.replacements` decides.
        """
        _, bodies, ids = self._keys.conversation(revise.conversation_id)
        concerned = list(dict.fromkeys((*revise.ids, *(message.message_id for message in revise.messages))))
        if not concerned:
            return None
        (scores,) = await self._topology.run_all([command("ZMSCORE", ids, *concerned)])
        places = {key: int(at) for key, at in zip(concerned, scores, strict=True) if at is not None}
        found = await self._topology.run_all(
            [command("LINDEX", bodies, at - record.first_position) for at in places.values()]
        )
        # What is gone by now is told by the script, because the state is another one.
        held = {key: body for key, body in zip(places, found, strict=True) if body is not None}
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
        """The last messages, or the last before a position, with the header of that moment, and the first messages."""
        limit, leading = min(tail.limit, LARGEST), min(tail.leading, LARGEST)
        if tail.before is None and limit:
            start = self._keys.start(tail.conversation_id)
            packed = _tail_form(len(start), limit, leading, tail.with_header).of(start)
            whole, found, *others, stands, stamp, clock = await self._topology.run_packed(packed)
            fields = _fields_of(whole) if tail.with_header else whole
            # No writer came in between, so that all is of one moment without a script (docs/decisions/0006).
            if fields[1:3] == stamp:
                if fields[0] is not None and stands != int(fields[6]):
                    layout.check_format(fields[0])
                    raise damaged(tail.conversation_id, int(fields[6]), stands)
                page = self._page_of(tail, fields, found, clock)
                return page and _beside(tail, page, fields, whole, others[0] if others else ())
        request: dict[str, Any] = {"id": tail.conversation_id, "limit": limit, "whole": tail.with_header or None}
        request["before"] = None if tail.before is None else min(tail.before, LARGEST)
        request["leading"] = leading or None
        read = await self._page(tail.conversation_id, request)
        if read is None:
            return None
        fields = _fields_of(read[1]) if tail.with_header else read[1]
        page = self._page_of(tail, fields, read[2], read[0])
        return page and _beside(tail, page, fields, read[1], read[3])

    def _page_of(self, tail: Tail, fields: Sequence[Any], bodies: Sequence[bytes], clock: list[bytes]) -> Page | None:
        stored, _, _, expires, owner, first, count = fields
        if stored is None:
            return None
        layout.check_format(stored)
        if expires is not None and expires <= moment(self.heard(clock)).encode():
            return None
        user = None if owner is None else owner.decode()
        self._learn(tail.conversation_id, user)
        if tail.scope not in (None, user):
            return None
        oldest, end = int(first), int(first) + int(count)
        if tail.before is not None:
            end = max(oldest, min(end, tail.before))
        start = max(oldest, end - tail.limit)
        return Page(codec.decode_messages(bodies) if bodies else (), start, more=start > oldest)


def _fields_of(flat: Sequence[bytes]) -> list[Any]:
    """The fields that a page needs, of a header that was read whole."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return [fields.get(name.encode()) for name in _TAIL]


def _beside(tail: Tail, page: Page, fields: Sequence[Any], whole: Sequence[bytes], first: Sequence[bytes]) -> Page:
    """The page with the header and the first messages, as far as they were asked for."""
    if tail.with_header:
        page = replace(page, header=layout.record_of(whole))
    if not tail.leading:
        return page
    lead = max(0, min(tail.leading, page.first) - int(fields[5]))
    return replace(page, leading=codec.decode_messages(first[:lead]))
