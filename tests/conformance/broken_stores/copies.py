"""Forks that keep too much of their parent, or share it, and what an id remembers of its past."""

from __future__ import annotations

from msgspec.structs import replace

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import MemoryConflictError, WriteResult, codec, rules
from jaf_memory_core.records import Fork, Record, Revise, Stamp, Truncate, Write
from jaf_memory_core.values import FrozenDict


class Copying(Plain):
    """A fork whose copy is changed."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        """The copy as it is kept."""
        return copy

    async def fork(self, fork: Fork) -> int:
        count = await super().fork(fork)
        parent, copy = self.records[fork.conversation_id], self.records[fork.new_id]
        self.records[fork.new_id] = self.changed(parent, copy, fork)
        return count


@caught_by("test_table[fork]")
class CopyHasTheSummary(Copying):
    """A copy keeps the summary, which may cover what it does not hold."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, metadata=parent.metadata)


@caught_by("test_table[fork]")
class CopyHasTheVersion(Copying):
    """A copy goes on at the version of its parent."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, version=parent.version)


@caught_by("test_table[fork]")
class CopyIsAsOld(Copying):
    """A copy was created when its parent was."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, created_at=parent.created_at)


@caught_by("test_table[fork]")
class CopyIsTheSame(Copying):
    """A copy has the incarnation of its parent."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, incarnation=parent.incarnation)


@caught_by("test_table[fork]")
class CopyExpiresWithIt(Copying):
    """A copy expires at the moment at which its parent does, also where each write would renew it."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, expires_at=parent.expires_at)


@caught_by("test_table[fork]")
class CopyStays(Copying):
    """A copy does not expire."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, expires_at=None, ttl=None)


@caught_by("test_table[fork]")
class CopyIsNobodys(Copying):
    """A copy has no owner, unless a view of one made it."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, user_id=fork.scope)


@caught_by("test_table[fork]")
class CopyBeginsAt0(Copying):
    """A copy counts its positions from 0, whatever a cap has taken from its parent."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        return replace(copy, first_position=0, trimmed=False)


@caught_by("test_table[fork until a message]")
class CopyIncludesTheMessage(Copying):
    """A copy up to a message ends with it."""

    def changed(self, parent: Record, copy: Record, fork: Fork) -> Record:
        messages = parent.messages[: len(copy.messages) + 1] if fork.until_message_id else copy.messages
        return replace(copy, messages=messages, message_count=len(messages))


@caught_by("test_copies_are_apart[revise]")
class CopySharesItsMessages(Plain):
    """Messages are kept once for a conversation and its copies: a revision of one changes the others."""

    async def revise(self, revise: Revise) -> int:
        before = self.records.get(revise.conversation_id)
        version = await super().revise(revise)
        after = self.records[revise.conversation_id]
        assert before is not None
        changed = {
            old.message_id: new for old, new in zip(before.messages, after.messages, strict=True) if old is not new
        }
        olds = {id(one) for one in before.messages}
        for key, record in list(self.records.items()):
            if key != revise.conversation_id:
                messages = tuple(
                    changed.get(one.message_id, one) if id(one) in olds else one for one in record.messages
                )
                self.records[key] = replace(record, messages=messages)
        return version


@caught_by("test_table[fork to what is there]")
class ForkOverWhatStands(Plain):
    """A fork takes the place of what stands under its new id."""

    async def fork(self, fork: Fork) -> int:
        if fork.new_id != fork.conversation_id and fork.conversation_id in self.records:
            self.records.pop(fork.new_id, None)
        return await super().fork(fork)


class Remembers(Plain):
    """Knows ids of messages that it has seen, so that a retry is told from news."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[str, str], bytes] = {}

    def note(self, key: str) -> None:
        """Remember what stands in a conversation."""
        for one in self.records[key].messages if key in self.records else ():
            self.known[key, one.message_id] = codec.encode(one)

    async def append(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        if standing is None or rules.seen(standing, self.now(), write.scope) is None:
            return await super().append(write)
        held = {one.message_id for one in standing.messages}
        kept = []
        for index, (message, body) in enumerate(zip(write.messages, write.bodies, strict=True)):
            before = self.known.get((write.conversation_id, message.message_id))
            if before is None or message.message_id in held:
                kept.append(index)
            elif before != body:
                raise MemoryConflictError("known with other content")
        messages, bodies = ([part[index] for index in kept] for part in (write.messages, write.bodies))
        return await super().append(replace(write, messages=tuple(messages), bodies=tuple(bodies)))  # type: ignore[arg-type]

    async def forget(self, key: str) -> None:
        """Forget what was known of a conversation."""
        self.known = {one: body for one, body in self.known.items() if one[0] != key}


@caught_by("test_what_left_may_come_again[delete]")
class DeletedStayKnown(Remembers):
    """Ids of a deleted conversation's messages count as held in the next one of that id."""

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        self.note(conversation_id)
        return await super().delete(conversation_id, expected=expected)


@caught_by("test_what_left_may_come_again[truncate]")
class TruncatedStayKnown(Remembers):
    """A message that was cut off counts as held when it is said again."""

    async def truncate(self, truncate: Truncate) -> int:
        self.note(truncate.conversation_id)
        return await super().truncate(truncate)


@caught_by("test_what_left_may_come_again[revise]")
class RevisedStayKnown(Remembers):
    """The id of a message that another has replaced counts as held."""

    async def revise(self, revise: Revise) -> int:
        self.note(revise.conversation_id)
        return await super().revise(revise)


@caught_by("test_what_left_may_come_again[store]")
class ReplacedStayKnown(Remembers):
    """Messages that a store has replaced count as held."""

    async def store(self, write: Write) -> WriteResult:
        self.note(write.conversation_id)
        return await super().store(write)


@caught_by("test_starts_anew[append]")
class ExpiredStayKnown(Remembers):
    """Messages of what has expired count as held in what is made under its id."""

    async def append(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        if standing is not None and rules.live(standing, self.now()) is None:
            self.note(write.conversation_id)
            await Plain.append(self, replace(write, messages=(), bodies=(), metadata=FrozenDict()))
        return await super().append(write)


@caught_by("test_old_before_held")
class CapForgetsWhatItTook(Plain):
    """A batch that begins with what a cap has removed is added whole behind what is held."""

    async def append(self, write: Write) -> WriteResult:
        standing = self.records.get(write.conversation_id)
        if standing is not None and standing.trimmed:
            self.records[write.conversation_id] = replace(standing, trimmed=False)
        return await super().append(write)
