"""`Imports`: conversations with times of their own, one or many in a call, on every provider over a `Backend`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, validation
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryError,
    MemoryStorageError,
)
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Origin, Write
from jaf_memory_core.results import Failure, Result, Success, WriteResult

FEWEST, MOST = 32, 512
"""Conversations that one step of an import may hold: the first, and any."""

BYTES = 8 << 10
"""Bytes of messages for each conversation that a step may hold: 4 MB at most, unless one conversation has more."""

TURN = 16
"""Conversations that are made ready before other tasks have their turn."""

QUICK, SLOW = 0.05, 0.25
"""Parts of the deadline: a step that took less is followed by a larger one, one that took more by a smaller one."""


_Step = list[list[Write] | Failure]
"""For each conversation its writes, or why it is refused; one of several writes stands alone."""


class Imports(ProviderBase):
    """Appending conversations as they stand elsewhere, so that repeating it adds nothing."""

    _step = FEWEST

    async def import_conversation(self, conversation: ConversationMemory) -> Result:
        """Append a conversation's messages; where it is missing, make it, with its own times and expiry.

        One that is there otherwise, and gets messages, is changed now. Importing the same one twice adds nothing; one
        without messages leaves what stands there as it is, and its result counts no messages.

        Example:
            kept = await provider.get_conversation("user-123:chat")
            other = await create_memory_provider("memory")
            print((await other.import_conversation(kept)).unwrap().added)  # 2
        """
        given = validation.owner_of(conversation)
        result = await self._result(
            "import_conversation", partial(self._parts, conversation), self.backend.append, given
        )
        return _left_alone(result) if _is_bare(conversation) else result

    async def import_conversations(
        self, conversations: Sequence[ConversationMemory], *, only_missing: bool = False
    ) -> list[Result]:
        """Do what `import_conversation` does with each of many, in few steps; each stands or fails on its own.

        A step holds up to 512 conversations, or 4 MB of messages, and has the deadline for itself; where the store
        is slow, steps are shorter. Importing the same again adds nothing, so that what an error has interrupted goes
        on when it is run again.

        Args:
            conversations: in the order in which they are imported; an id may come more than once.
            only_missing: leave alone what stands there already. Such a conversation gives a `MemoryConflictError`, or,
                if it holds all the messages, a `Success` that has added none.

        Returns:
            what `import_conversation` would have returned for each.

        Raises:
            MemoryConnectionError: the store could not be reached, or did not answer in time. Steps that were done
                before stay done.

        Example:
            kept = [one async for one in provider.iter_conversations()]
            other = await create_memory_provider("memory")
            print([result.unwrap().added for result in await other.import_conversations(kept)])  # [2]
        """
        validation.checked_conversations(conversations)
        empty = [not only_missing and _is_bare(one) for one in conversations]
        results: list[Result] = []
        under_way: asyncio.Future[list[Result]] | None = None
        try:
            async for step in self._steps(conversations, 0 if only_missing else None):
                # The store has one step to do while the next is made ready.
                if under_way is not None:
                    results += await under_way
                under_way = asyncio.ensure_future(self._sent(step))
            if under_way is not None:
                results += await under_way
        except BaseException:
            if under_way is not None:
                # A step must not go on behind the back of a caller who is gone.
                under_way.cancel()
                await asyncio.gather(under_way, return_exceptions=True)
            raise
        return [_left_alone(result) if bare else result for result, bare in zip(results, empty, strict=True)]

    async def _steps(
        self, conversations: Sequence[ConversationMemory], expected_version: int | None
    ) -> AsyncGenerator[_Step, None]:
        step: _Step = []
        size = 0
        for count, conversation in enumerate(conversations):
            if count % TURN == 0:
                await asyncio.sleep(0)
            try:
                given = validation.owner_of(conversation)
                owner = await self._owner("import_conversations", *given) if self._chain.needs_owner else given[2]
                parts = self._parts(conversation, owner, expected_version)
            except (MemoryConfigurationError, MemoryConnectionError):
                raise
            except MemoryError as error:
                step.append(self._failure(error))
                continue
            room = codec.size(parts[0].bodies)
            if step and (len(step) >= self._step or size + room > self._step * BYTES or len(parts) > 1):
                yield step
                step, size = [], 0
            step.append(parts)
            size += room
            if len(parts) > 1:
                yield step
                step, size = [], 0
        if step:
            yield step

    def _parts(self, conversation: ConversationMemory, owner: Any, expected_version: int | None = None) -> list[Write]:
        """The writes that a conversation is imported by: one, unless it is longer than a call may be."""
        source = validation.checked_conversation(conversation)
        # A conversation without times of its own (a line of an import, for one) takes the provider's.
        times = (source.created_at, source.expires_at, source.ttl, source.active_at, source.updated_at)
        origin = Origin(*times) if any(times) else None
        chain = self._passing("import_conversation", source.conversation_id, source.metadata, owner)
        batch = validation.batch(source.messages, self.config, chain, whole=False)
        labels = self._labels(source.metadata, owner, chain)
        writes = [
            self._write(source.conversation_id, part, labels, create=True, origin=origin)
            for part in validation.parts(batch, self.config)
        ]
        if not source.messages and expected_version is None:
            # No message shows that it is there: again, it would bring back metadata that were changed since.
            expected_version = 0
        if expected_version is not None:
            # What the first part has made is there for the others.
            writes[0] = replace(writes[0], expected_version=expected_version)
        return writes

    async def _sent(self, step: _Step) -> list[Result]:
        """Import a step; the backend may take it in several bites."""
        results: dict[int, Result] = {}
        waiting: dict[int, Write] = {}
        for index, parts in enumerate(step):
            if isinstance(parts, Failure):
                results[index] = parts
            elif len(parts) == 1:
                waiting[index] = parts[0]
            else:
                about = (parts[0].conversation_id, None, parts[0].user_id)
                results[index] = await self._result(
                    "import_conversations", partial(_made, parts), self.backend.append, about
                )
        while waiting:
            for index, outcome in zip(list(waiting), await self._bite(list(waiting.values())), strict=True):
                if outcome is not None:
                    results[index] = self._failure(outcome) if isinstance(outcome, MemoryError) else Success(outcome)
                    del waiting[index]
        return [results[index] for index in range(len(step))]

    async def _bite(self, writes: list[Write]) -> Sequence[WriteResult | MemoryError | None]:
        started = perf_counter()
        bite = await self._guard.run("import_conversations", partial(self.backend.append_many, writes), writes)
        self._learn(perf_counter() - started)
        for outcome in bite:
            if isinstance(outcome, MemoryConnectionError | MemoryConfigurationError):
                # It may stand, and be deleted by now: an import never makes it a second time (docs/decisions/0008).
                raise self._failure(outcome).error
        # `_sent` comes again with what was not tried, and would do so for ever.
        if all(outcome is None for outcome in bite):
            raise MemoryStorageError("the store has tried none of the appends", operation="append_many")
        return bite

    def _learn(self, seconds: float) -> None:
        part = seconds / self.config.operation_timeout
        if part < QUICK:
            self._step = min(MOST, self._step * 2)
        elif part > SLOW:
            # Down in one great step: the next one has to end within its deadline.
            self._step = max(1, self._step // 4)


def _is_bare(conversation: Any) -> bool:
    """Whether it is a conversation without messages."""
    return isinstance(conversation, ConversationMemory) and not conversation.messages


def _left_alone(result: Result) -> Result:
    """What an import of a conversation without messages comes to: one that stands there already stays as it is."""
    error = result.error if isinstance(result, Failure) else None
    if not isinstance(error, MemoryConflictError) or error.expected_version != 0:
        return result
    return Success(WriteResult(version=error.actual_version or 0, message_count=0, added=0))


def _made(parts: list[Write], _owner: Any) -> list[Write]:
    # The processors have passed them already, told whose they are.
    return list(parts)
