"""Running the scripts: with the right keys, and with as many replicas behind them as were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaf_memory_core.errors import MemoryConnectionError, MemoryStorageError
from jaf_memory_redis import deciding, scripts
from jaf_memory_redis.keys import Keys, Owners
from jaf_memory_redis.refusals import ServerError
from jaf_memory_redis.scripts import Command, Part, Script, asked
from jaf_memory_redis.settings import RedisConfig
from jaf_memory_redis.wires import Wire

TRIES = 100
"""How often a request is sent again because what stands there changed in between."""


class Performer:
    """Runs scripts.

    Args:
        config: how many replicas a write waits for.
        owners: whose keys a script is given at first.
    """

    def __init__(self, config: RedisConfig, keys: Keys, wire: Wire, owners: Owners) -> None:
        self._config = config
        self._keys = keys
        self._wire = wire
        self._owners = owners
        self._behind: tuple[Command, ...] = ()
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
        replies = await self._wire.run(asked(script, keys, request, messages), *self._behind)
        if isinstance(replies[0], ServerError):
            raise replies[0]
        reply: list[Any] = replies[0]
        if self._behind and reply[0] in {b"ok", b"same"}:
            self._confirmed(replies[1])
        return reply

    def _confirmed(self, replicas: Any) -> None:
        if not isinstance(replicas, int):
            raise replicas
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
            if self._wire.single:
                request["guess"] = owner
                keys = (*self._keys.single(conversation_id, owner), *more)
            else:
                keys = self._keys.conversation(conversation_id)
            reply = await self.send(script, keys, request, messages)
            status = reply[0]
            if status == b"owner":
                owner = reply[1].decode() or None
                self._owners.learn(conversation_id, owner)
            elif status in {b"ok", b"same"}:
                self._owners.learn(conversation_id, reply[1].decode() or None)
                if script is scripts.REMOVE:
                    self._owners.learn(conversation_id, None)
                return reply
            else:
                return deciding.decided(conversation_id, reply)
        raise MemoryStorageError("the conversation never stood still", operation=script.name, retryable=True)
