"""`Forks`: copies, messages in the places of others, and notes of where a conversation was regenerated from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, rules, validation
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Fork, Record, Revise
from jaf_memory_core.values import FrozenDict, freeze


class Forks(ProviderBase):
    """Changes of the course of a conversation, and what is noted of them."""

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

        Example:
            print(await provider.fork_conversation("user-123:chat", "user-123:other", "m2"))  # 1
        """
        fork = Fork(
            validation.checked_id(conversation_id, "conversation_id"),
            validation.checked_id(new_id, "new_id"),
            None if until_message_id is None else validation.checked_id(until_message_id, "until_message_id"),
            self._scope,
        )
        return await self._guard.run("fork_conversation", lambda: self._fork(fork), fork)

    async def _fork(self, fork: Fork) -> int:
        if not self._chain:
            return await self.backend.fork(fork)
        if self._chain.needs_owner:
            header = await self.backend.header(fork.conversation_id, scope=self._scope)
            if header is not None:
                await self._prepared("fork_conversation", header, writing=True)
        # A store copies what it holds, and knows no processors. Behind its copy would be too late: what was made for
        # the parent's id must not stand under another one, not even where this process is killed in between.
        return await self.backend.fork_through(fork, lambda copy: self._made_anew(fork, copy))

    def _made_anew(self, fork: Fork, copy: Record) -> Record:
        """The copy with what the processors make for it in the place of what they made for its parent."""
        before = self._chain.within("fork_conversation", fork.conversation_id, copy.user_id)
        after = self._chain.within("fork_conversation", fork.new_id, copy.user_id)
        # A cap that was set since then cuts with the next write, as it does where the store copies.
        config = self.config.model_copy(update={"max_messages": None})
        batch = validation.batch(before.incoming(copy.messages), config, after, whole=False)
        metadata = after.outgoing_metadata(before.incoming_metadata(copy.metadata))
        return replace(copy, messages=batch.messages, message_count=len(batch.messages), metadata=metadata)

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

        Example:
            approved = Message("assistant", "On its way; it was sent this morning.", message_id="m2")
            await provider.revise_messages("user-123:chat", {"m2": approved})
        """
        validation.checked_mapping(revised, "revised")
        ids = tuple(validation.checked_id(old, "message_id") for old in revised)
        owner = await self._owner("revise_messages", conversation_id, None, None)
        chain = self._passing("revise_messages", conversation_id, None, owner)
        batch = validation.batch(list(revised.values()), self.config, chain)
        if len(batch.messages) != len(ids):
            raise MemoryInvalidInputError("each message may be given once, and no more than the conversation may hold")
        key = validation.checked_id(conversation_id, "conversation_id")
        revise = Revise(key, ids, batch.messages, batch.bodies, owner or self._scope)
        return await self._guard.run("revise_messages", lambda: self.backend.revise(revise), revise)

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version. Atomic.

        `regeneration_points` lists such notes, `last_regeneration` is the newest, `regeneration_count` counts all.
        Where the metadata would grow beyond `max_metadata_bytes`, the oldest notes go.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        given = regeneration_metadata if regeneration_metadata is not None else {}
        note = freeze(
            validation.checked_mapping(given, "regeneration_metadata"), where="regeneration_metadata", datetimes=True
        )
        validation.check_shape(note.values(), "regeneration_metadata", self.config)
        key = validation.checked_id(message_id, "message_id")
        await self._owner("mark_regeneration_point", conversation_id, None, None)  # so that what it needs is there

        def change(header: Record, now: datetime) -> FrozenDict:
            chain = self._chain.within("mark_regeneration_point", header.conversation_id, header.user_id)
            stood = chain.incoming_metadata(rules.applications(header.metadata))
            point = FrozenDict({"message_id": key, "timestamp": now.isoformat(), **note})
            return self._fitting(header.metadata, _points(stood), point, _count(stood) + 1, chain)

        return (await self._annotated("mark_regeneration_point", conversation_id, change)).version

    def _fitting(
        self, stored: FrozenDict, points: list[Any], point: FrozenDict, count: int, chain: Chain
    ) -> FrozenDict:
        """What is merged into the metadata: as many of the points as there is room for, the newest ones."""
        while True:
            patch = {
                "regeneration_points": [*points, point],
                "last_regeneration": point,
                "regeneration_count": count,
            }
            processed: FrozenDict = chain.outgoing_metadata(freeze(patch, where="metadata"))
            size = len(codec.encode(rules.applications(rules.merged(stored, processed))))
            if size <= self.config.max_metadata_bytes or not points:
                return processed
            # Many at a time: each try encodes all that stays.
            points = points[max(1, len(points) // 8) :]


def _points(metadata: FrozenDict) -> list[Any]:
    stored = metadata.get("regeneration_points")
    return [*stored] if isinstance(stored, list) else []


def _count(metadata: FrozenDict) -> int:
    stored = metadata.get("regeneration_count")
    return stored if type(stored) is int else len(_points(metadata))
