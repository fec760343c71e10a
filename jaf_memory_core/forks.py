"""Pure rules of what changes the course of a conversation: messages put in the places of others, and forks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.records import Fork, Record, Revise
from jaf_memory_core.values import EMPTY


def replacements(revise: Revise, held: Mapping[str, bytes], conversation_id: str) -> tuple[int, ...]:
    """Which of the request's messages are to be written: indexes of those that do not stand there already.

    Args:
        revise: the request.
        held: bodies of those of its old and new ids that the conversation holds.
        conversation_id: for errors.

    Raises:
        MemoryConflictError: an old message is not held, or a new one's id is held by another message.
    """
    wanted = []
    for index, (old, message, body) in enumerate(zip(revise.ids, revise.messages, revise.bodies, strict=True)):
        new = message.message_id
        standing = held.get(new)
        if standing is not None and old not in held and codec.same_body(standing, body, conversation_id):
            continue  # done before: a retry finds only the new one
        if old not in held:
            raise MemoryConflictError(
                f"conversation {conversation_id!r} holds no message {old!r} any more; read it again, and decide anew"
            )
        # Within one call messages may exchange their ids: only one that stays with another is in the way.
        if new != old and standing is not None and new not in revise.ids:
            raise rules.other_content(conversation_id, new)
        if new != old or not codec.same_body(held[old], body, conversation_id):
            wanted.append(index)
    return tuple(wanted)


def revised(record: Record | None, revise: Revise, now: datetime) -> Record:
    """The whole record with messages in the places of others; the very same object when all stand there already.

    Raises:
        MemoryNotFoundError: no such conversation (for this user).
        MemoryConflictError: as `replacements` decides.
    """
    if record is None or (revise.scope is not None and record.user_id != revise.scope):
        raise MemoryNotFoundError(revise.conversation_id)
    concerned = {*revise.ids, *(message.message_id for message in revise.messages)}
    held = {one.message_id: codec.encode(one) for one in record.messages if one.message_id in concerned}
    instead = {
        revise.ids[index]: revise.messages[index] for index in replacements(revise, held, record.conversation_id)
    }
    if not instead:
        return record
    messages = tuple(instead.get(one.message_id, one) for one in record.messages)
    # A summary may tell what the old message said, and that may be the very reason for the change.
    return replace(rules.touched(record, now), messages=messages, metadata=rules.unsummarised(record.metadata))


def forked(parent: Record | None, standing: Record | None, fork: Fork, now: datetime) -> Record:
    """The new conversation: the parent's owner, metadata, ttl and positions, and its messages up to the asked one.

    Args:
        parent: the conversation that is copied, with its messages.
        standing: what is live under the new id.
        fork: the request.
        now: the store's time.

    Raises:
        MemoryNotFoundError: no such parent (for this user).
        MemoryConflictError: something stands under the new id.
        MemoryInvalidInputError: the parent holds no such message.
    """
    if parent is None or (fork.scope is not None and parent.user_id != fork.scope):
        raise MemoryNotFoundError(fork.conversation_id)
    if standing is not None:
        raise taken(fork.new_id)
    end, position, positions = len(parent.messages), parent.end, rules.positions_of(parent)
    if fork.until_message_id is not None:
        ids = [message.message_id for message in parent.messages]
        if fork.until_message_id not in ids:
            raise no_such_message(fork)
        end = ids.index(fork.until_message_id)
        position = positions[end]
    header = rules.ends_at(fork_header(parent, fork, now), end, position)
    return rules.placed(header, parent.messages[:end], positions[:end])


def reserved(child: Record, now: datetime) -> Record:
    """A new conversation while it has nothing yet: absent for everybody, and found by an erasure of its owner."""
    empty = replace(child, messages=(), message_count=0, gaps=0, positions=())
    return replace(empty, version=0, metadata=EMPTY, expires_at=now, ttl=None)


def filled(reserved: Record, parent: Record | None, fork: Fork, now: datetime) -> Record:
    """The new conversation in the place that was reserved for it.

    Raises:
        MemoryNotFoundError, MemoryInvalidInputError: as for `forked`; the parent is another by now, say.
    """
    return replace(forked(parent, None, fork, now), created_at=reserved.created_at)


def fork_header(parent: Record, fork: Fork, now: datetime) -> Record:
    """The new conversation's header; its messages, their number and what lies between are still to be set.

    What the provider keeps in the metadata for itself, a summary for one, stays behind.
    """
    return Record(
        conversation_id=fork.new_id,
        incarnation=fork.incarnation,
        version=1,
        created_at=now,
        updated_at=now,
        user_id=parent.user_id,
        metadata=rules.applications(parent.metadata),
        expires_at=parent.expires_at if parent.ttl is None else now + timedelta(seconds=parent.ttl),
        ttl=parent.ttl,
        first_position=parent.first_position,
        trimmed=parent.trimmed,
    )


def taken(new_id: str) -> MemoryConflictError:
    """The conflict of a fork whose new id is in use; it names no owner."""
    return MemoryConflictError(f"there is a conversation {new_id!r} already; fork to another id", expected_version=0)


def no_such_message(fork: Fork) -> MemoryInvalidInputError:
    """The refusal of a fork at a message that is not there."""
    return MemoryInvalidInputError(
        f"conversation {fork.conversation_id!r} holds no message {fork.until_message_id!r} to fork at"
    )
