"""Writes: what is asked of the scripts, how they are run, and what their answers mean.

A script gets the right keys, and as many replicas behind it as were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaf_memory_core import codec, forks, rules
from jaf_memory_core.errors import (
    MemoryConflictError,
    MemoryConnectionError,
    MemoryNotFoundError,
    MemoryStorageError,
)
from jaf_memory_core.records import Amend, Fork, Stamp, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_core.values import identifier
from jaf_memory_redis import layout, scripts
from jaf_memory_redis.errors import ServerError, damaged, is_denied, is_wrong_type, lacking, standing
from jaf_memory_redis.indexes import Indexes
from jaf_memory_redis.layout import Owners, moment
from jaf_memory_redis.operations.reads import LARGEST, misplaced_among
from jaf_memory_redis.operations.rights import Rights
from jaf_memory_redis.scripts import Command, Part, Script, asked
from jaf_memory_redis.settings import RedisConfig

TRIES = 100
"""How often a request is sent again because what stands there changed in between."""


class Writer:
    """Runs scripts.

    Args:
        config: how many replicas a write waits for.
        indexes: where the entries are.
        owners: whose keys a script is given at first.
    """

    def __init__(self, config: RedisConfig, indexes: Indexes, owners: Owners) -> None:
        self._config = config
        self._indexes = indexes
        self._keys = indexes.keys
        self._topology = indexes.topology
        self._owners = owners
        self._behind: tuple[Command, ...] = ()
        self.rights = Rights(self._keys, self._topology)
        if config.min_replicas:
            wait = ("WAIT", config.min_replicas, int(config.min_replicas_timeout * 1000))
            self._behind = (Command(b"", wait),)

    async def send(
        self, script: Script, keys: Sequence[bytes], request: Mapping[str, Any], messages: Sequence[Part] = ()
    ) -> list[Any]:
        """Run a script on these keys; its reply.

        Raises:
            MemoryConnectionError: it has written, and too few replicas have that.
        """
        if self._behind and not self.rights.waits:
            await self.rights.try_wait(keys[0], script.name)
        if self.rights.probed:
            request = {**request, "probed": True}
        replies = await self._topology.run(asked(script, keys, request, messages), *self._behind)
        if isinstance(replies[0], ServerError):
            if is_denied(replies[0]):
                await self.rights.name_what_is_missing(script.name)
            raise replies[0]
        reply: list[Any] = replies[0]
        if reply[0] == b"denied":
            raise lacking(reply[1].decode(), script.name)
        if reply[0] == b"unprobed":
            # The script has touched nothing yet, so that the same request may go again.
            await self.rights.probe(script.name)
            return await self.send(script, keys, request, messages)
        if self._behind and reply[0] in {b"ok", b"same", b"added"}:
            self._confirmed(replies[1], script.name)
        return reply

    def _confirmed(self, replicas: Any, operation: str) -> None:
        if isinstance(replicas, ServerError):
            raise standing(lacking("wait", operation) if is_denied(replicas) else replicas, operation)
        if replicas < self._config.min_replicas:
            raise MemoryConnectionError(
                f"the write stands on the server, but {replicas} of {self._config.min_replicas} replicas have it",
                outcome="unknown",
            )

    async def perform(
        self,
        script: Script,
        request: dict[str, Any],
        messages: Sequence[Part] = (),
        *,
        owner: str | None = None,
        more: tuple[bytes, ...] = (),
    ) -> list[Any]:
        """Run a script, with the keys of the owner whom it names, and `more` behind them; its reply.

        Raises:
            MemoryNotFoundError, MemoryConflictError, MemoryStorageError: what the script decided.
        """
        conversation_id = request["id"]
        owner = owner or self._owners.guess(conversation_id)
        for _ in range(TRIES):
            keys: tuple[bytes, ...]
            if self._topology.single:
                request["guess"] = owner
                keys = (*self._keys.single(conversation_id, owner), *more)
            else:
                keys = (*self._keys.conversation(conversation_id), *more)
            request["more"] = len(more) or None
            try:
                reply = await self.send(script, keys, request, messages)
            except ServerError as error:
                if is_wrong_type(error) and await misplaced_among(self._topology, self._keys, [conversation_id]):
                    raise codec.damaged(conversation_id) from None
                raise
            status = reply[0]
            if status == b"added":
                self._owners.learn(conversation_id, owner)
                return reply
            # A wrong guess changes nothing, and names the right owner, whose keys are declared the next time.
            if status == b"owner":
                owner = self._named(reply[1], request)
                self._owners.learn(conversation_id, owner)
            elif status in {b"ok", b"same"}:
                self._owners.learn(conversation_id, reply[1].decode(errors="replace") or None)
                if script is scripts.REMOVE:
                    self._owners.learn(conversation_id, None)
                return reply
            elif status == b"legacy":
                raise await self._indexes.standing_there(conversation_id)
            else:
                return decided(conversation_id, reply)
        raise MemoryStorageError("the conversation never stood still", operation=script.name, retryable=True)

    @staticmethod
    def _named(owner: bytes, request: dict[str, Any]) -> str | None:
        """The owner whom a script names; who removes a conversation need not know one that cannot be read."""
        try:
            return identifier(owner.decode()) if owner else None
        except ValueError:
            if "unsound" not in request:
                raise codec.damaged(request.get("parent") or request["id"]) from None
        request["orphan"] = True
        return None


def request_of(write: Write, *, confirm: bool = False) -> dict[str, Any]:
    """What `write.lua` takes of a store or an append.

    Args:
        write: what is asked.
        confirm: whether replicas are waited for.
    """
    request: dict[str, Any] = {
        "id": write.conversation_id,
        "user": write.user_id,
        "scope": write.scope,
        "expected": version_of(write.expected_version),
        "confirm": confirm or None,
        "plain": is_plain(write) or None,
    }
    if write.create:
        ttl = write.origin.ttl if write.origin else write.ttl
        request |= {"create": True, "incarnation": write.incarnation}
        # As text: it is stored as it stands, and no number of Lua's comes between.
        request["ttl"] = None if ttl is None else repr(float(ttl))
    return request if request["plain"] else request | _specials(write)


def _specials(write: Write) -> dict[str, Any]:
    """What the usual append does not ask for."""
    origin = write.origin
    times = rules.times_of(origin)
    return {
        "replace": write.replace or None,
        "cap": None if write.max_messages is None else min(write.max_messages, LARGEST),
        "dropped": write.dropped > 0 or None,
        "created": moment(origin.created_at) if origin and origin.created_at else None,
        "expires": moment(origin.expires_at) if origin and origin.expires_at else None,
        "active": times and moment(times[0]),
        "amended": times and layout.amended(*times),
        "metadata": layout.pairs(write.metadata) or None,
        "most": most_of(write),
    }


def is_plain(write: Write) -> bool:
    """Whether it asks for nothing but that messages be added: `append.lua` does that for a usual conversation."""
    special = write.replace or write.metadata or write.origin or write.dropped or write.max_messages is not None
    return bool(write.messages) and not special


def result_of(write: Write, reply: list[Any]) -> WriteResult:
    """What `write.lua` did, or `append.lua` in its place."""
    if reply[0] == b"added":
        return WriteResult(reply[1], reply[2], len(write.messages))
    version, count, added = reply[5:]
    return WriteResult(version, count, added)


def most_of(request: Write | Amend) -> int | None:
    """How large the scripts let metadata become, where the request brings any."""
    most = request.max_metadata_bytes
    return None if most is None or not request.metadata else min(most, LARGEST)


def weigh(request: Write | Amend, flat: Sequence[bytes]) -> None:
    """Refuse metadata that would be too large; a script cannot tell in every case.

    Args:
        request: what is to be merged in.
        flat: the header's fields and values in turn.

    Raises:
        MemoryInvalidInputError: it would be, and is not shrunk either.
    """
    before = layout.metadata_of(request.conversation_id, zip(flat[::2], flat[1::2], strict=True))
    kept = rules.without(before, request.removed) if isinstance(request, Amend) else before
    rules.check_metadata_size(rules.merged(kept, request.metadata), request.max_metadata_bytes, before)


def decided(conversation_id: str, reply: list[Any]) -> list[Any]:
    """Raise what a script decided; a status that its caller handles comes back.

    Raises:
        MemoryNotFoundError: there is no such conversation (for this user).
        MemoryConflictError: it is somebody else's.
        MemoryStorageError: a newer version wrote it, or its parts do not agree.
    """
    status = reply[0]
    if status == b"missing":
        raise MemoryNotFoundError(conversation_id)
    if status == b"foreign":
        raise rules.other_owner(conversation_id)
    if status == b"damaged":
        raise damaged(conversation_id, *reply[1:3])
    if status == b"unsound":
        raise codec.damaged(conversation_id)
    if status == b"format":
        layout.check_format(reply[1], conversation_id)
    return reply


def decided_fork(fork: Fork, reply: list[Any]) -> None:
    """Raise what `fork.lua` decided about its parent, or about a new id that is taken.

    Raises:
        MemoryConflictError: there is a conversation of the new id.
        MemoryNotFoundError: the parent has no such message.
        MemoryStorageError: a newer version wrote the parent, or it is damaged.
    """
    if reply[0] == b"taken":
        raise forks.taken(fork.new_id)
    if reply[0] == b"nowhere":
        raise forks.no_such_message(fork)
    if reply[0] == b"newer parent":
        layout.check_format(reply[1], fork.conversation_id)
    if reply[0] == b"unsound parent":
        raise codec.damaged(fork.conversation_id)


def compare(write: Write, differing: list[Any]) -> None:
    """Refuse other contents under held ids; the same content may have other bytes.

    Args:
        write: the request.
        differing: index in the batch and stored body, in turn.

    Raises:
        MemoryConflictError: one of the contents differs.
    """
    for index, body in zip(differing[::2], differing[1::2], strict=True):
        if not codec.same_body(body, write.bodies[index], write.conversation_id):
            raise rules.other_content(write.conversation_id, write.messages[index].message_id)


def judged(write: Write, reply: list[Any]) -> dict[str, str]:
    """What a script left for Python to decide: what it is told then, with the state for which that holds.

    Raises:
        MemoryConflictError: other content under a held id.
        MemoryInvalidInputError: too much metadata.
    """
    if reply[0] == b"heavy":
        weigh(write, reply[2])
        return {"weighed": reply[1].decode()}
    compare(write, reply[2])
    return {"alike": reply[1].decode()}


def version_of(expected: int | None) -> int | None:
    """An expected version as the scripts compare it; none of ours comes near Lua's bound."""
    return None if expected is None else min(expected, LARGEST)


def state_conflict(amend: Amend, actual: int) -> MemoryConflictError:
    """The conflict of states."""
    return MemoryConflictError(
        f"conversation {amend.conversation_id!r} has changed meanwhile; read it again, and decide anew",
        expected_version=amend.expected.version if amend.expected else None,
        actual_version=actual,
    )


def stamp_text(stamp: Stamp | None) -> str | None:
    """A stamp as the scripts compare it."""
    return None if stamp is None else f"{stamp.incarnation}:{stamp.version}"
