"""The indexes: kept by the scripts themselves on a single server, and around them on a Cluster.

On a Cluster they live in other slots than the conversations. An entry is made before its conversation, and again
behind each write, so that it may be stale for a moment but is never missing. What points nowhere is dropped by whoever
finds it, unless a mark beside the index says that a writer is about to fill it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from jaf_memory_core.errors import MemoryConflictError
from jaf_memory_core.records import Record
from jaf_memory_redis import scripts
from jaf_memory_redis.errors import DRIVER_ERRORS, ServerError, is_wrong_type, standing
from jaf_memory_redis.layout import (
    DIGITS,
    END,
    Keys,
    Known,
    creation_entry,
    expiry_entry,
    moment,
    owner_entry,
    readable,
    score,
    server_time,
    split_creation,
    split_expiry,
    time_of,
)
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, asked, call, command

STEP = 100
"""Entries that are looked at together."""

MANY = 500
"""Entries whose conversations are removed together: over a long line each page takes two round trips."""

PASSES = 10
"""How often an index is walked until it is empty; beyond that, somebody goes on writing."""

TRIES = 3
"""How often a user's indexes are made again for one search, while writers come in between."""

REMEMBERED = 300.0
"""Seconds for which a walk that was stopped may be gone on with."""

GRACE = 60_000_000
"""Microseconds after its expiry in which a conversation that nobody purged is dropped by Redis itself."""

LATEST = 1 << 53
"""A score beyond all."""


def older_data(conversation_id: str, *, theirs: bool = True) -> MemoryConflictError:
    """The refusal to write where a string stands under prefix and id.

    Args:
        conversation_id: the id.
        theirs: whether jaf-py's own provider wrote it, and nobody else.
    """
    if not theirs:
        return MemoryConflictError(
            f"a key of another program stands under the prefix, where conversation {conversation_id!r} would be taken "
            "for it; choose another key_prefix, or another id"
        )
    return MemoryConflictError(
        f"jaf-py's own provider stored conversation {conversation_id!r} under this prefix; "
        "`jaf-memory adopt` moves it in, or set another key_prefix"
    )


@dataclass
class _Walk:
    """How far a walk over all conversations has come: what was found, by id (score, moment of creation); and when."""

    position: bytes = b"-"
    found: dict[str, tuple[int, str]] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)


class Indexes:
    """The indexes of a single server."""

    def __init__(self, keys: Keys, topology: Topology) -> None:
        self.keys = keys
        self.topology = topology
        self._uneven: Known[list[int]] = Known()
        self._walks: Known[_Walk] = Known(most=16)

    async def announce(
        self,
        conversation_id: str,  # a single server's scripts do it themselves
        owner: str | None,
        created: str,
        active: str | None = None,
    ) -> str | None:
        """Make the entries of a conversation that is about to be made, or to get this owner.

        Args:
            conversation_id: the conversation's.
            owner: its owner.
            created: its moment of creation.
            active: the moment of its last activity, where that may lie before its creation (what is imported says so
                itself): an entry may only lag behind its conversation, and never be ahead of it.

        Returns:
            what `settle` has to be told.
        """
        return None

    async def refuse_older(self, conversation_id: str) -> None:
        """Refuse where jaf-py's own provider has a conversation; a single server's scripts do that themselves."""

    async def refuse_unmoved(self, conversation_id: str) -> None:
        """Refuse to say that a conversation was not there which jaf-py's own provider has.

        Raises:
            MemoryConflictError: it has.
        """
        older = self.keys.older(conversation_id)
        (kind,) = await self.topology.run_all([command("TYPE", older)])
        if kind == b"string":
            (text,) = await self.topology.run_all([command("GETRANGE", older, 0, 4095)])
            if b'"conversation_id"' in text:
                raise older_data(conversation_id)

    async def standing_there(self, conversation_id: str) -> MemoryConflictError:
        """The refusal to write where a string stands under prefix and id: jaf-py's conversation, or somebody else's."""
        (text,) = await self.topology.run_all([command("GETRANGE", self.keys.older(conversation_id), 0, 4095)])
        return older_data(conversation_id, theirs=b'"conversation_id"' in text)

    async def settle(self, conversation_id: str, reply: list[Any], token: str | None = None) -> None:
        """Make the entries what the conversation is, after a write that replied so."""

    async def gone(self, conversation_id: str, reply: list[Any]) -> bool:
        """Drop the entries of a conversation that was removed; whether its entry by expiry, if any, went by this."""
        return True

    async def repair(self, record: Record, found: float) -> None:
        """Mend an entry that was found at another score than its conversation has."""

    async def sweep(self, conversation_id: str, owner: str | None, created: str) -> int:
        """Drop entries that point nowhere; 1 if it was this call that did."""
        request = {"id": conversation_id, "created": created, "owner": owner}
        keys = self.keys.single(conversation_id, owner)
        (reply,) = await self.topology.run_all([asked(scripts.SWEEP, keys, request)])
        swept: int = reply[1] if reply[0] == b"ok" else 0  # what cannot be read stays where it can be found
        return swept

    async def due(self, limit: int, offset: int, late: int = 0) -> list[tuple[str, str | None, str]]:
        """Id, owner and moment of creation of what should have expired `late` microseconds ago."""
        (clock,) = await self.topology.run_all([Command(self.keys.expiries, ("TIME",))])
        now = score(server_time(clock)) - late
        (entries,) = await self.topology.run_all(
            [command("ZRANGEBYSCORE", self.keys.expiries, "-inf", now, "LIMIT", offset, limit)]
        )
        found = [split_expiry(entry) for entry in entries]
        unreadable = [entry for entry, parts in zip(entries, found, strict=True) if parts is None]
        if unreadable:  # they name nothing, and would stand in the way of all that are due behind them
            await self.topology.run_all([command("ZREM", self.keys.expiries, *unreadable)])
        return [parts for parts in found if parts is not None]

    async def created(
        self,
        user_id: str | None,
        lowest: bytes = b"-",
        highest: bytes = END,
        step: int = STEP,
        *,
        as_it_is: bool = False,
    ) -> AsyncIterator[list[tuple[str, str]]]:
        """Pages of (moment of creation, id), in that order; a user's made whole before, but for `as_it_is`."""
        index = self.keys.index(user_id)[1]
        as_it_is = as_it_is or user_id is None
        while True:
            page = command("ZRANGEBYLEX", index, lowest, highest, "LIMIT", 0, step)
            entries = (await self.topology.run_all([page]))[0] if as_it_is else await self.first(user_id, page)
            as_it_is = True
            if entries:
                # What cannot be read names nothing: an index only proposes.
                found = [parts for parts in map(split_creation, entries) if parts is not None]
                if found:
                    yield found
            if len(entries) < step:
                return
            # Behind the last entry, and not by an offset: entries that are swept meanwhile would shift what follows.
            lowest = b"(" + entries[-1]

    async def first(self, user_id: str | None, page: Command) -> list[bytes]:
        """The first page of an index; a user's is made whole before, where somebody has removed one."""
        found: list[bytes]
        if user_id is None:
            (found,) = await self.topology.run_all([page])
            return found
        by_activity, by_creation = self.keys.owned(user_id)
        for _ in range(TRIES):
            found, *sizes = await self.topology.run_all(
                [page, command("ZCARD", by_activity), command("ZCARD", by_creation)]
            )
            active, created = sizes
            # Both hold the same conversations.
            if active == created and (created or not await self._owns(user_id)):
                self._uneven.learn(user_id, None)
                return found
            if self._uneven.guess(user_id) == sizes:  # it was tried, and is as it was
                return found
            await self.restore(user_id, lost=active >= created)
            self._uneven.learn(user_id, sizes)
        # Writers go on; what they make did not stand throughout.
        (found,) = await self.topology.run_all([page])
        return found

    async def _owns(self, user_id: str) -> bool:
        entry = command("ZSCORE", self.keys.everything[1], owner_entry(user_id))
        return (await self.topology.run_all([entry]))[0] is not None

    async def restore(self, user_id: str, *, lost: bool = True) -> None:
        """Make a user's indexes again, and drop what points nowhere.

        Whoever is stopped in the middle of it leaves more entries by activity than by creation: it will be done again.

        Args:
            user_id: the user.
            lost: whether the index by creation may be gone, or begun anew, so that all conversations have to be looked
                through.
        """
        found = await self._owned_among_all(user_id) if lost else {}
        async for entries in self.created(user_id, step=MANY, as_it_is=True):
            await self._gather(user_id, entries, found)
        async for names in self._by_activity(user_id):
            await self._gather(user_id, [("0" * DIGITS, name) for name in names if name not in found], found)
        if not found:
            await self._disown(user_id)
            return
        index = self.keys.owned(user_id)
        await self.topology.run_all([command("ZADD", self.keys.everything[1], 0, owner_entry(user_id))])
        active = [(at, name.encode()) for name, (at, _) in found.items()]
        born = [(0, creation_entry(created, name)) for name, (_, created) in found.items()]
        for key, named, newer in ((index[0], active, ("GT",)), (index[1], born, ())):
            for start in range(0, len(named), MANY):
                some = [part for pair in named[start : start + MANY] for part in pair]
                await self.topology.run_all([command("ZADD", key, *newer, *some)])
        # What was erased meanwhile must not be named for ever.
        made = [(created, name) for name, (_, created) in found.items()]
        for start in range(0, len(made), MANY):
            await self._gather(user_id, made[start : start + MANY], {})

    async def _owned_among_all(self, user_id: str) -> dict[str, tuple[int, str]]:
        """All that the user owns. Whoever is stopped in the middle, by a deadline for one, goes on there next time."""
        walk = self._walks.guess(user_id)
        if walk is None or time.monotonic() - walk.at > REMEMBERED:
            walk = _Walk()
            self._walks.learn(user_id, walk)
        async for entries in self.created(None, walk.position, step=MANY):
            walk.found |= (await self._owned_among(user_id, entries))[0]
            walk.position, walk.at = b"(" + creation_entry(*entries[-1]), time.monotonic()
        self._walks.learn(user_id, None)
        return dict(walk.found)

    async def _gather(
        self, user_id: str, entries: Sequence[tuple[str, str]], found: dict[str, tuple[int, str]]
    ) -> None:
        """Add those of the user's entries that point to a conversation of the user, and drop the others."""
        owned, stale = await self._owned_among(user_id, entries)
        found |= owned
        for created, name in stale:
            await self.sweep(name, user_id, created)

    async def _owned_among(
        self, user_id: str, entries: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, tuple[int, str]], list[tuple[str, str]]]:
        """Score and moment of creation of those that the user owns, by id; and the entries that point to none of them.

        What cannot be read is neither.
        """
        if not entries:
            return {}, []
        headers = [self.keys.conversation(name)[0] for _, name in entries]
        try:
            replies = await self.topology.run_all([command("HMGET", header, "o", "u", "c") for header in headers])
        except ServerError as error:
            if not is_wrong_type(error):
                raise
            if len(entries) == 1:
                return {}, []
            half = len(entries) // 2
            parts = [await self._owned_among(user_id, some) for some in (entries[:half], entries[half:])]
            return parts[0][0] | parts[1][0], parts[0][1] + parts[1][1]
        owned: dict[str, tuple[int, str]] = {}
        stale = []
        for (created, name), (owner, active, born) in zip(entries, replies, strict=True):
            # Where the header does not say, or the entry does not, the other one does.
            stands = _moment_of(born) or created
            if owner == user_id.encode() and created in {stands, "0" * DIGITS}:
                owned[name] = (score(time_of((_moment_of(active) or stands).encode())), stands)
            else:
                stale.append((created, name))
        return owned, stale

    async def _by_activity(self, user_id: str) -> AsyncIterator[list[str]]:
        """Pages of a user's ids, oldest activity first: what moves meanwhile moves ahead, and is met again."""
        index = self.keys.owned(user_id)[0]
        lowest, told = b"-inf", set[bytes]()
        while True:
            asked_for = len(told) + MANY
            page = command("ZRANGEBYSCORE", index, lowest, "+inf", "WITHSCORES", "LIMIT", 0, asked_for)
            (flat,) = await self.topology.run_all([page])
            entries = list(zip(flat[::2], flat[1::2], strict=True))
            yield [name for name in (readable(entry) for entry, _ in entries if entry not in told) if name is not None]
            if len(entries) < asked_for:
                return
            # On from the last score, but for those that were told with it: by name, since any of them may have moved.
            last = entries[-1][1]
            same = {entry for entry, at in entries if at == last}
            lowest, told = last, told | same if last == lowest else same

    async def _disown(self, user_id: str) -> None:
        """Take away what says that a user has conversations, unless there is one again."""
        among_all, own = self.keys.everything[1], self.keys.owned(user_id)[1]
        await self.topology.run_all([command("ZREM", among_all, owner_entry(user_id))])
        (left,) = await self.topology.run_all([command("ZCARD", own)])
        if left:
            await self.topology.run_all([command("ZADD", among_all, 0, owner_entry(user_id))])

    async def entries_of(self, user_id: str) -> AsyncIterator[list[tuple[str, str]]]:
        """Pages of (moment of creation, id) of a user, again and again until there are none."""
        for _ in range(PASSES):
            empty = True
            async for page in self.created(user_id, step=MANY):
                empty = False
                yield page
            # Of two indexes one may have been evicted.
            (left,) = await self.topology.run_all([command("ZRANGE", self.keys.owned(user_id)[0], 0, MANY - 1)])
            if left:
                empty = False
                yield [("0" * DIGITS, name) for name in map(readable, left) if name is not None]
            if empty:
                return


class ClusterIndexes(Indexes):
    """The indexes of a Cluster.

    Args:
        patience: seconds that a writer may take between the entries and the conversation.
    """

    def __init__(self, keys: Keys, topology: Topology, patience: float = 60.0) -> None:
        super().__init__(keys, topology)
        self._patience = round(patience * 1000)

    def _pairs(self, owner: str | None) -> list[tuple[tuple[bytes, bytes], str | None]]:
        everything = (self.keys.everything, None)
        return [everything] if owner is None else [everything, (self.keys.owned(owner), owner)]

    async def announce(
        self, conversation_id: str, owner: str | None, created: str, active: str | None = None
    ) -> str | None:
        """Make the entries before the conversation, and a mark that they are not stale."""
        token = token_hex(8)
        at = min(score(time_of(moment.encode())) for moment in (created, active or created))
        entry = creation_entry(created, conversation_id)
        said = b"" if owner is None else owner_entry(owner)
        found = await self.topology.run_all(
            [
                call(
                    scripts.ANNOUNCE,
                    (*pair, self.keys.mark(conversation_id, whose)),
                    *(conversation_id, at, entry, token, self._patience, said if whose is None else b""),
                )
                for pair, whose in self._pairs(owner)
            ]
        )
        if owner is not None and found[0][0] and not found[1][1]:
            # The owner had conversations, and no index: it must not look whole for this one.
            await self.topology.run_all([command("ZREM", self.keys.owned(owner)[1], entry)])
            await self.restore(owner)
        return token

    async def refuse_older(self, conversation_id: str) -> None:
        """Refuse where jaf-py's own provider has a conversation, and we have none."""
        older, header = self.keys.older(conversation_id), self.keys.conversation(conversation_id)[0]
        kind, ours = await self.topology.run_all([command("TYPE", older), command("EXISTS", header)])
        if kind == b"string" and not ours:
            raise await self.standing_there(conversation_id)

    async def settle(self, conversation_id: str, reply: list[Any], token: str | None = None) -> None:
        """Make the entries again, behind the write; the owner's by creation only where they were announced."""
        owner, created, active, expires = (part.decode() for part in reply[1:5])
        at = score(time_of(active.encode()))
        commands = []
        for (by_activity, by_creation), whose in self._pairs(owner or None):
            # GT: of two writers the one with the older answer may come last.
            commands.append(command("ZADD", by_activity, "GT", at, conversation_id))
            if whose is None or token is not None:
                commands.append(command("ZADD", by_creation, 0, creation_entry(created, conversation_id)))
            if token:
                commands.append(command("ZREM", self.keys.mark(conversation_id, whose), token))
        entry = expiry_entry(conversation_id, owner or None, created)
        if expires:
            commands.append(command("ZADD", self.keys.expiries, score(time_of(expires.encode())), entry))
        else:
            commands.append(command("ZREM", self.keys.expiries, entry))
        await self._behind(commands)

    async def _behind(self, commands: list[Command]) -> None:
        try:
            await self.topology.run_all(commands)
        except DRIVER_ERRORS as error:
            raise standing(error, "index") from None

    async def gone(self, conversation_id: str, reply: list[Any]) -> bool:
        """Drop the entries, unless the conversation was made again meanwhile."""
        # Of a damaged conversation the owner may be no text.
        owner, created, active, _ = (part.decode(errors="replace") for part in reply[1:5])
        highest = score(time_of(active.encode()))
        try:
            scores: list[tuple[str | None, int | None]] = [(None, highest), (owner or None, highest)]
            replies = await self._drop(conversation_id, owner or None, created, scores)
            older = self.keys.older(conversation_id)
            if reply[6]:
                (text,) = await self.topology.run_all([command("GETRANGE", older, 0, 4095)])
                if b'"conversation_id"' in text:
                    await self.topology.run_all([command("UNLINK", older)])
        except DRIVER_ERRORS as error:
            raise standing(error, "index") from None
        return bool(replies[0])

    async def _drop(
        self, conversation_id: str, owner: str | None, created: str, highest: list[tuple[str | None, int | None]]
    ) -> list[Any]:
        """Drop entries by activity up to a score, by creation, and by expiry; then look whether that was right."""
        scores = dict(highest)
        commands = [command("ZREM", self.keys.expiries, expiry_entry(conversation_id, owner, created))]
        for pair, whose in self._pairs(owner):
            keys = (*pair, self.keys.mark(conversation_id, whose))
            top = scores.get(whose)
            entry = creation_entry(created, conversation_id) if whose in scores else b""
            commands.append(call(scripts.DROP, keys, conversation_id, entry, "" if top is None else top))
        replies = await self.topology.run_all(commands)
        if owner is not None and replies[-1] > 1:
            await self._disown(owner)
        header = self.keys.conversation(conversation_id)[0]
        (found,) = await self.topology.run_all([command("HMGET", header, "o", "c", "u", "x")])
        if found[1] is not None:
            # It was made between the look and the drop.
            await self.settle(conversation_id, [b"ok", *(part or b"" for part in found)], "")
        return replies

    async def repair(self, record: Record, found: float) -> None:
        """Raise the score of an entry."""
        at = score(record.active_at)
        if found < at:
            commands = [
                command("ZADD", by_activity, "XX", "GT", at, record.conversation_id)
                for (by_activity, _), _ in self._pairs(record.user_id)
            ]
            await self.topology.run_all(commands)

    async def sweep(self, conversation_id: str, owner: str | None, created: str) -> int:
        """Drop entries that point nowhere, and what is left of a conversation without a header."""
        keys = self.keys.conversation(conversation_id)
        (found,) = await self.topology.run_all([command("HMGET", keys[0], "c", "o")])
        stands, user = (None if part is None else part.decode() for part in found)
        if stands == created and user == owner:
            return 0
        if stands is None:
            await self.topology.run_all(
                [asked(scripts.REMOVE, keys, {"id": conversation_id, "expired": True, "probed": True})]
            )
        drops: list[tuple[str | None, int | None]] = []
        if stands != created:
            drops.append((None, LATEST if stands is None else None))
        if owner is not None:
            drops.append((owner, LATEST if user != owner else None))
        replies = await self._drop(conversation_id, owner, created, drops)
        # Of several who purge at once, one drops the entry by expiry, and counts what it named; see `Eraser.purge`.
        return int(stands != created and replies[0] > 0)


def _moment_of(stored: bytes | None) -> str | None:
    """A moment of a header, if it is one."""
    with suppress(ValueError, OverflowError):
        return moment(time_of(stored or b""))
    return None
