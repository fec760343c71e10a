"""Where the servers are: the master that Sentinel names, or the masters of a Cluster that have the slots."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.crc import key_slot

from jaf_memory_core.errors import MemoryError
from jaf_memory_core.records import Usage
from jaf_memory_redis.connection import Connection
from jaf_memory_redis.connector import Address, Endpoint
from jaf_memory_redis.errors import ServerError, TransportError
from jaf_memory_redis.pool import CROWDED, Lifetime, Pool, checked, names_of
from jaf_memory_redis.scripts import Command, Packed, pack

_logger = logging.getLogger("jaf_memory_redis")

_ROLE = pack(("ROLE",))
_REPLICATION = pack(("INFO", "replication"))

SLOTS = 16_384

REDIRECTIONS = 6
"""How often one command follows a slot that moves."""

_LOST_ITS_SLOTS = {"MOVED", "CLUSTERDOWN", "READONLY", "MASTERDOWN"}

_COMPARED = {"HGETALL", "HMGET", "LLEN", "LRANGE", b"HGETALL", b"HMGET", b"LLEN", b"LRANGE"}
"""Commands whose order shows readers that nobody wrote in between."""


class SentinelConnector:
    """Connections to the master that the sentinels name at the moment.

    Args:
        endpoint: how the master is entered; its address is replaced.
        sentinels: how each of the sentinels is entered.
        service: the master's name.
    """

    def __init__(self, endpoint: Endpoint, sentinels: list[Endpoint], service: str) -> None:
        self._endpoint = endpoint
        self._sentinels = sentinels
        self._service = service
        self._warned = False

    async def open(self) -> Connection:
        """A new connection to the master."""
        addresses, problems = await self._named()
        for address in addresses:
            try:
                connection = await self._endpoint.elsewhere(address).open()
                try:
                    # After a failover sentinels may name the old master for a while; the server itself is asked.
                    if await self._is_master(connection):
                        return connection
                except BaseException:
                    connection.drop("it was not waited for")
                    raise
            except (TransportError, ServerError, MemoryError) as error:
                problems.append(error)
                continue
            connection.drop("it is no master")
            problems.append(TransportError("the sentinels name a server that is no master (yet)", sent=False))
        if not problems:
            raise TransportError("no sentinel knows a master of that service name", sent=False)
        # What is wrong for good is worth more than what may pass.
        problem = next((one for one in problems if isinstance(one, MemoryError) and not one.retryable), problems[-1])
        if isinstance(problem, TransportError):
            problem.sent = False  # of the operation itself
        raise problem

    async def _named(self) -> tuple[list[Address], list[Exception]]:
        """Addresses that sentinels name, the one that most of them name first: a single one may be out of date."""
        votes: Counter[Address] = Counter()
        problems: list[Exception] = []
        under_way = {asyncio.ensure_future(self._ask(sentinel)) for sentinel in self._sentinels}
        enough = len(under_way) // 2 + 1
        try:
            while under_way and max(votes.values(), default=0) < enough:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    error = one.exception()
                    if isinstance(error, TransportError | ServerError | MemoryError):
                        problems.append(error)
                    elif error is not None:
                        raise error
                    elif (address := one.result()) is not None:
                        votes[address] += 1
        finally:
            # Who is slow is not waited for; cancelled, each drops its own connection before this goes on.
            for left in under_way:
                left.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return [address for address, _ in votes.most_common()], problems

    async def _is_master(self, connection: Connection) -> bool:
        """What the server says of itself; where the user may not ask, what the sentinels say."""
        (role,) = await connection.send(_ROLE, 1)
        if isinstance(role, list):
            return bool(role[0] == b"master")
        (info,) = await connection.send(_REPLICATION, 1)
        if isinstance(info, bytes):
            return b"role:master" in info
        if not self._warned:
            self._warned = True
            _logger.warning(
                "the user may ask the server neither ROLE nor INFO: the sentinels are believed; grant +role"
            )
        return True

    async def _ask(self, sentinel: Endpoint) -> Address | None:
        connection = await sentinel.open()
        try:
            question = ("SENTINEL", "get-master-addr-by-name", self._service)
            (answer,) = await connection.send(pack(question), 1)
        finally:
            connection.drop("it has answered")
        if isinstance(answer, ServerError):
            raise answer
        if not isinstance(answer, list):
            return None
        return answer[0].decode(), int(answer[1])


class Cluster:
    """The masters of a Cluster.

    Args:
        connector: how a node is entered; its address is replaced.
        seeds: nodes to ask first.
        most: connections to each node at most.
        crowded: operations on one connection beyond which another is used.
    """

    single = False

    def __init__(self, connector: Endpoint, seeds: Sequence[Address], most: int, crowded: int = CROWDED) -> None:
        self._connector = connector
        self._seeds = list(seeds)
        self._most = most
        self._crowded = crowded
        self._masters: list[Address | None] = [None] * SLOTS
        self._nodes: dict[Address, Pool] = {}
        self._dropped: str | None = None
        self._stale = True
        self._turn = -1
        self._lock: asyncio.Lock | None = None
        self._lifetime: Lifetime | None = None

    @property
    def connections(self) -> int:
        """How many are open, to all nodes."""
        return sum(pool.connections for pool in self._nodes.values())

    def usage(self) -> Usage:
        """How many are open, to all nodes, and what is under way on them."""
        each = [pool.usage() for pool in tuple(self._nodes.values())]
        return Usage(
            connections=sum(one.connections or 0 for one in each),
            most=sum(one.most or 0 for one in each),
            busy=sum(one.busy or 0 for one in each),
            waiting=sum(one.waiting or 0 for one in each),
        )

    async def open(self) -> None:
        """Find out who has which slots."""
        self._lock = asyncio.Lock()
        self.drop("the provider opens anew")
        self._dropped = None
        self._stale = True
        try:
            await self._learn()
            lifetime = Lifetime(self)
            await lifetime.start()
        except BaseException:
            self.drop("the opening failed")  # or was cancelled: nobody would close what it has opened
            raise
        self._lifetime = lifetime

    async def close(self) -> None:
        """Let all connections go."""
        lifetime, self._lifetime = self._lifetime, None
        if lifetime is not None:
            await lifetime.end()

    def abandon(self) -> None:
        """Forget all connections."""
        self._lifetime = None
        self.drop("the event loop has ended")

    def drop(self, reason: str) -> None:
        """Let all connections go, without waiting for anything; until the next opening there are none."""
        self._dropped = reason
        nodes, self._nodes = self._nodes, {}
        for pool in nodes.values():
            pool.drop(reason)

    # Who has which slots.

    async def _learn(self) -> None:
        """Ask until a node answers; one caller for all who wait."""
        assert self._lock is not None  # the guard opens first
        async with self._lock:
            if not self._stale:
                return
            problem: Exception = TransportError("no node of the cluster could be asked", sent=False)
            known = list(dict.fromkeys((*self._nodes, *self._seeds)))
            self._turn += 1
            covered = -1
            best: tuple[Address, list[Any]] = (known[0], [])
            # Not always the same first: a node may be cut off from the others, and not know it yet.
            for address in (*known[self._turn % len(known) :], *known[: self._turn % len(known)]):
                try:
                    (reply,) = await self._at(address).exchange([Command(b"", ("CLUSTER", "SLOTS"))])
                except (TransportError, ServerError, MemoryError) as error:
                    problem = error
                    continue
                if isinstance(reply, ServerError):
                    problem = reply
                    continue
                if _covered(reply) > covered:
                    covered, best = _covered(reply), (address, reply)
                if covered == SLOTS:
                    break
            if covered > 0:
                self._take(best[1], best[0])
                # Part of the map serves the slots that it has; the next operation asks again.
                self._stale = covered < SLOTS
                return
            if covered == 0:
                problem = TransportError("the nodes that answered belong to no cluster (yet)", sent=False)
            if isinstance(problem, TransportError):
                problem.sent = False  # of the operation itself
            raise problem

    def _take(self, slots: list[Any], asked: Address) -> None:
        masters: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in slots:
            # A node that does not know its own address leaves it empty: it is the one that was asked.
            address = (host.decode() if host else asked[0], int(port))
            masters[first : last + 1] = [address] * (last + 1 - first)
        self._masters = masters
        serving = {address for address in masters if address is not None}
        for address in [one for one in self._nodes if one not in serving]:
            self._nodes.pop(address).drop("the node has no slots any more")
        # A Cluster whose first nodes were replaced one by one is found again by those that it has now.
        self._seeds = list(dict.fromkeys((*serving, *self._seeds)))[: 2 * len(serving) + 10]

    def _at(self, address: Address) -> Pool:
        if self._dropped is not None:
            # What goes on in several steps: a connection that it opened now would be closed by nobody.
            raise TransportError(self._dropped, sent=False)
        pool = self._nodes.get(address)
        if pool is None:
            pool = self._nodes[address] = Pool(self._connector.elsewhere(address), self._most, self._crowded)
        return pool

    async def _place(self, command: Command) -> Address:
        if self._stale:
            await self._learn()
        if command.slot_key:
            found = self._masters[key_slot(command.slot_key)]
        else:
            found = next((address for address in self._masters if address is not None), None)
        if found is None:
            self._stale = True
            raise TransportError("no node of the cluster has the slot at the moment", sent=False)
        return found

    # Sending.

    async def run(self, command: Command, *behind: Command) -> list[Any]:
        """Send one command, and others right behind it, to the master of its slot."""
        commands = (command, *behind)
        address, asking = await self._place(command), False
        replies: list[Any] = []
        for _ in range(REDIRECTIONS):
            replies = await self._exchange(address, commands, asking=asking)
            moved = next((reply for reply in replies if isinstance(reply, ServerError)), None)
            if moved is None or moved.code not in {"MOVED", "ASK"}:
                break
            asking = moved.code == "ASK"
            address = _target(moved, address)
            # ASK holds for this once: the slot belongs to the old node until all of it has moved.
            if not asking:
                self._masters[key_slot(command.slot_key)] = address
        return replies

    async def _exchange(
        self, address: Address, commands: Sequence[Command], *, asking: bool = False, large: bool = False
    ) -> list[Any]:
        if asking:
            # ASKING holds for the one command behind it, so that a script must not be sent twice to be known.
            commands = [part for command in commands for part in (Command(b"", ("ASKING",)), command.whole())]
        try:
            replies = await self._at(address).exchange(commands, large=large)
        except TransportError:
            self._stale = True
            raise
        if any(isinstance(reply, ServerError) and reply.code in _LOST_ITS_SLOTS for reply in replies):
            self._stale = True
        return replies[1::2] if asking else replies

    async def run_all(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands together, each node's in one go, and those on one slot in their order."""
        slots = [key_slot(command.slot_key) if command.slot_key else -1 for command in commands]
        places = {slot: await self._place(command) for slot, command in zip(slots, commands, strict=True)}
        groups: dict[Address, list[int]] = {}
        for at, slot in enumerate(slots):
            groups.setdefault(places[slot], []).append(at)
        answers = await asyncio.gather(
            *(self._exchange(place, [commands[at] for at in members], large=large) for place, members in groups.items())
        )
        replies: list[Any] = [None] * len(commands)
        for members, answer in zip(groups.values(), answers, strict=True):
            for at, reply in zip(members, answer, strict=True):
                replies[at] = reply
        moving = set()
        for at, reply in enumerate(replies):
            moved = isinstance(reply, ServerError) and reply.code in {"MOVED", "ASK"}
            # What was read behind a command that is sent again would be older than its answer.
            if moved or (slots[at] in moving and commands[at].parts[0] in _COMPARED):
                moving.add(slots[at])
                replies[at] = (await self.run(commands[at]))[0]
        return checked(replies)

    async def run_packed(self, packed: Packed) -> list[Any]:
        """Send commands on one conversation together."""
        return await self.run_all(packed.commands())

    async def _serving(self) -> list[Address]:
        if self._stale:
            await self._learn()
        return list(dict.fromkeys(address for address in self._masters if address is not None))

    async def names(self, pattern: bytes, kind: str) -> AsyncIterator[list[bytes]]:
        """Pages of the names of all keys of that type, node after node."""
        for address in await self._serving():
            async for names in names_of(self._at(address), pattern, kind):
                yield names

    async def everywhere(self, *parts: str) -> list[Any]:
        """One command for every master."""
        masters = await self._serving()
        answers = await asyncio.gather(*(self._exchange(address, [Command(b"", parts)]) for address in masters))
        return checked([answer[0] for answer in answers])


def _covered(slots: list[Any]) -> int:
    """How many slots an answer names a node for."""
    return sum(last + 1 - first for first, last, *_ in slots)


def _target(moved: ServerError, asked: Address) -> Address:
    """The address in `MOVED 3999 127.0.0.1:6381`."""
    host, _, port = moved.text.split(" ")[2].rpartition(":")
    return host or asked[0], int(port)
