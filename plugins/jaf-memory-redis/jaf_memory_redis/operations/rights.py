"""What a user may do (ACL): seen before anything is written, and named where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaf_memory_redis import scripts
from jaf_memory_redis.errors import TAKEN_AWAY, ServerError, is_denied, lacking
from jaf_memory_redis.layout import Keys
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, call

NEEDED = (
    *("HSET", "HDEL", "RPUSH", "LTRIM", "LSET", "ZADD", "ZREM", "ZREMRANGEBYSCORE"),
    *("UNLINK", "PEXPIREAT", "PERSIST", "RENAME", "TYPE", "GETRANGE"),
)
"""Commands that the scripts write with."""

READ_FIRST = ("TIME", "HMGET", "HGET", "HGETALL", "LLEN", "LRANGE", "ZCARD", "ZSCORE", "ZMSCORE", "EXISTS", "TYPE")
"""Commands that they have used before they write."""

SCRIPTING = ("EVALSHA", "EVAL")
"""Commands that run them."""


class ReadOnly:
    """Runs scripts that only read as such, where the server knows that (Redis 7.0) and the user may.

    A server whose writes are paused, as before a planned failover, goes on with those.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._known = True

    def forget(self) -> None:
        """Take nothing of an earlier connection for granted."""
        self._known = True

    async def run(self, script: Command) -> Any:
        """The script's reply."""
        if self._known:
            try:
                return (await self._topology.run_all([script.only_reading()]))[0]
            except ServerError as error:
                if not is_denied(error):
                    raise
                self._known = False
        return (await self._topology.run_all([script]))[0]


class Rights:
    """Sees what the user may do.

    Args:
        keys: names of keys.
        topology: the way to the servers.
    """

    def __init__(self, keys: Keys, topology: Topology) -> None:
        self._key = keys.start("jaf-memory:probe") + b"probe"
        self._topology = topology
        self._read_only = ReadOnly(topology)
        self.waits = False
        """Whether replicas can be waited for."""
        self.probed = False
        """Whether the commands that write were tried out: Redis 6.2 cannot be asked."""

    def forget(self) -> None:
        """Take nothing of an earlier connection for granted."""
        self.probed = self.waits = False
        self._read_only.forget()

    async def check(self, operation: str) -> None:
        """See that everything is allowed that a write needs.

        Raises:
            MemoryStorageError: a right is missing; it is named where the server says which.
        """
        if refused := await self._refused((*SCRIPTING, *READ_FIRST, *NEEDED)):
            raise lacking(refused[0], operation)

    async def probe(self, operation: str) -> None:
        """See which commands a server allows that cannot be asked (Redis 6.2), before anything is written."""
        if refused := await self._refused(NEEDED):
            raise lacking(refused[0], operation)
        self.probed = True

    async def try_wait(self, slot_key: bytes, operation: str) -> None:
        """See that replicas can be waited for at all, before anything is written."""
        (reply,) = await self._topology.run(Command(slot_key, ("WAIT", 0, 1)))
        if isinstance(reply, ServerError):
            raise lacking("wait", operation) if is_denied(reply) else reply
        self.waits = True

    async def name_what_is_missing(self, operation: str) -> None:
        """A script was stopped for want of a right; a server does not always say which.

        Raises:
            MemoryStorageError: this one is missing.
        """
        self.probed = False
        if refused := await self._refused((*READ_FIRST, *NEEDED)):
            problem = lacking(refused[0], operation)
            # Scripts read before they write, and a command that the server does not have stops them when they ask for
            # it: what stopped one at the others may have stopped it half-way.
            before = refused[0].startswith(TAKEN_AWAY) or refused[0] in READ_FIRST
            problem.outcome = "not_applied" if before else "unknown"
            raise problem

    async def _refused(self, names: Sequence[str]) -> list[str]:
        refused = await self._read_only.run(call(scripts.PROBE, (self._key,), *names))
        return [name.decode() for name in refused]
