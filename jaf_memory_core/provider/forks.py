"""`Continuing`: what engines need between the turns of a conversation, on every provider over a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jaf_memory_core import leases, validation
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.leases import LEASE, Lease
from jaf_memory_core.messages import Message
from jaf_memory_core.provider.summaries import Summarising
from jaf_memory_core.records import Fork, Record, Revise, Write
from jaf_memory_core.values import FrozenDict, freeze


class Continuing(Summarising):
    """Forks, revised messages, regeneration points, leases, and the summaries of its base."""

    # The course of a conversation.

    async def fork_conversation(self, conversation_id: str, new_id: str, until_message_id: str | None = None) -> int:
        """Copy a conversation to a new id, on the store's side; the two are independent from then on.

        Args:
            conversation_id: which is copied.
            new_id: of the copy, which belongs to the same user, and keeps metadata and ttl.
            until_message_id: copy up to, without, that message; `None` copies all.

        Returns:
            How many messages the copy holds.

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: there is a conversation under the new id.
            MemoryInvalidInputError: the conversation holds no such message.
        """
        fork = Fork(
            validation.checked_id(conversation_id, "conversation_id"),
            validation.checked_id(new_id, "new_id"),
            None if until_message_id is None else validation.checked_id(until_message_id, "until_message_id"),
            self._scope,
        )
        return await self._guard.run("fork_conversation", lambda: self.backend.fork(fork))

    async def revise_messages(self, conversation_id: str, revised: Mapping[str, Message]) -> int:
        """Put messages into the places of others: all or nothing, in place, and safe to repeat.

        This is for what has become of a message (a human has approved a call); what is said later is appended.

        Args:
            conversation_id: 1 to 255 characters.
            revised: `message_id` of a message that is held → what stands in its place from then on. The new message
                may bear another id, which no other message of the conversation has.

        Returns:
            The conversation's version; nothing is written where all stand there already.

        Raises:
            MemoryNotFoundError: there is no such conversation.
            MemoryConflictError: it holds no such message, or the new id is another's; nothing is applied.
        """
        if not isinstance(revised, Mapping):
            raise MemoryInvalidInputError(
                f"revised must be a dict of message ids and Messages, not a {type(revised).__name__}"
            )
        ids = tuple(validation.checked_id(old, "message_id") for old in revised)
        batch = validation.batch(list(revised.values()), self.config, self._chain)
        if len(batch.messages) != len(ids):
            raise MemoryInvalidInputError("each message may be given once, and no more than the conversation may hold")
        revise = Revise(
            validation.checked_id(conversation_id, "conversation_id"), ids, batch.messages, batch.bodies, self._scope
        )
        return await self._guard.run("revise_messages", lambda: self.backend.revise(revise))

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version. Atomic.

        `regeneration_points` lists all such notes, `last_regeneration` is the newest, `regeneration_count` counts.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        given = freeze(dict(regeneration_metadata or {}), where="regeneration_metadata", datetimes=True)
        validation.check_shape(given.values(), "regeneration_metadata", self.config)
        key = validation.checked_id(message_id, "message_id")

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            point = FrozenDict({"message_id": key, "timestamp": now.isoformat(), **given})
            stored = header.metadata.get("regeneration_points")
            points = [*(stored if isinstance(stored, list) else ()), point]
            return {"regeneration_points": points, "last_regeneration": point, "regeneration_count": len(points)}

        return (await self._annotated("mark_regeneration_point", conversation_id, change)).version

    # Leases.

    async def acquire_lease(
        self, conversation_id: str, seconds: float, *, user_id: str | None = None, token: str | None = None
    ) -> Lease:
        """Take the right to run the next turn, for so many seconds; a missing conversation is made, empty.

        Nothing that is written depends on a lease: it keeps those apart who ask for it.

        Args:
            conversation_id: 1 to 255 characters.
            seconds: until others may have it, unless it is renewed.
            user_id: the owner of a conversation that is made.
            token: from an earlier try whose answer was lost; made when absent.

        Raises:
            MemoryConflictError: another holds it.
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        span = _span(seconds)
        mine = token or leases.new_token()
        owner = validation.labels(None, user_id, self.config, self._chain, scope=self._scope).user_id
        got: Lease | None = None

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            nonlocal got
            got = leases.taken(key, header.metadata, mine, span, now)
            return {LEASE: leases.stored_form(got)}

        async def acquire() -> Lease:
            while True:
                try:
                    await self._annotate(key, change)
                except MemoryNotFoundError:
                    await self._make_empty(key, owner)
                else:
                    assert got is not None  # noqa: S101  (`change` has run)
                    return got

        return await self._guard.run("acquire_lease", acquire)

    async def _make_empty(self, conversation_id: str, owner: str | None) -> None:
        empty = Write(conversation_id, user_id=owner, scope=self._scope, create=True, ttl=self.config.ttl)
        await self.backend.append(empty)

    async def renew_lease(self, held: Lease, seconds: float) -> Lease:
        """Keep a lease for so many seconds from now.

        Raises:
            MemoryConflictError: it expired, and another has it.
            MemoryNotFoundError: the conversation was deleted.
        """
        span = _span(seconds)
        got = held

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            nonlocal got
            got = leases.renewed(held, header.metadata, span, now)
            return {LEASE: leases.stored_form(got)}

        await self._annotated("renew_lease", held.conversation_id, change)
        return got

    async def release_lease(self, held: Lease) -> bool:
        """Give a lease back; `False` if it was not theirs any more."""
        ours = False

        def change(header: Record, _now: datetime) -> Mapping[str, Any] | None:
            nonlocal ours
            after = leases.released(held, header.metadata)
            ours = after is not None
            return {LEASE: after} if ours else None

        try:
            await self._annotated("release_lease", held.conversation_id, change)
        except MemoryNotFoundError:
            return False
        return ours


def _span(seconds: float) -> float:
    span = validation.checked_ttl(seconds)
    if span is None:
        raise MemoryInvalidInputError("a lease needs an end: give seconds above 0")
    return span
