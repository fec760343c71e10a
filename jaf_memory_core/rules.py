"""The rules of the contract as pure functions: no I/O, no clock, nothing of any store.

Every backend decides by these, whether it keeps a conversation in one piece or in rows, so that all decide alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from jaf_memory_core import codec
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Amend, Damaged, DeleteMessages, Origin, Record, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_core.values import EMPTY, FrozenDict

RESERVED = "jaf-memory:"
"""Metadata keys that begin so are the provider's own: never shown, never taken from an application."""

BEGINNING = datetime.min.replace(tzinfo=UTC)
"""Before every conversation."""

SUMMARY = f"{RESERVED}summary"
"""Metadata key of the summary that covers a conversation's older messages."""


def live(record: Record | None, now: datetime) -> Record | None:
    """The record, or `None` when there is none or it has expired."""
    if record is None or (record.expires_at is not None and record.expires_at <= now):
        return None
    return record


def seen(record: Record | None, now: datetime, scope: str | None) -> Record | None:
    """The record as somebody sees it: `None` too when `scope` names another user than its owner."""
    record = live(record, now)
    return record if record is None or scope is None or record.user_id == scope else None


class Plan(msgspec.Struct, frozen=True):
    """What a write comes to.

    Attributes:
        header: the conversation's header afterwards (its `messages` mean nothing). Where a cap cuts a conversation that
            has gaps, its `first_position` and `gaps` are still to be set, by `begins`.
        fresh: indexes of the request's messages that are to be added, in order, behind those that stay.
        cut: how many of the oldest messages go.
        changed: `False` when there is nothing to write.
    """

    header: Record
    fresh: tuple[int, ...]
    cut: int
    changed: bool

    @property
    def result(self) -> WriteResult:
        """What the caller is told."""
        return WriteResult(self.header.version, self.header.message_count, len(self.fresh))


def plan_write(header: Record | None, write: Write, held: Mapping[str, bytes], now: datetime) -> Plan:
    """Decide a store or an append.

    Args:
        header: the conversation as it stands and is live, with or without its messages, or `None`.
        write: the request.
        held: bodies of those of the request's messages that the conversation holds, by id; not used by a store.
        now: the store's time.

    Raises:
        MemoryNotFoundError: append without `create`, and nothing there (for this user).
        MemoryConflictError: another owner, another version, or other content under a held id.
        MemoryInvalidInputError: the metadata would be larger afterwards than it may be.
    """
    _admit(header, write)
    trimmed = header is not None and header.trimmed
    fresh = _fresh(held, write, trimmed=trimmed) if held and not write.replace else tuple(range(len(write.messages)))
    # Not even the metadata: a retry must not undo what somebody wrote in between (docs/decisions/0003).
    if header is not None and not write.replace and not fresh and (write.messages or not _labels(header, write)):
        return Plan(header, (), 0, changed=False)
    # Behind what is held already: else the retry of a success would be a conflict (docs/decisions/0003).
    expect_version(write.conversation_id, write.expected_version, 0 if header is None else header.version)
    kept = 0 if header is None or write.replace else header.message_count
    cut = max(0, kept + len(fresh) - write.max_messages) if write.max_messages is not None else 0
    base = header or _created(write, now)
    # A store takes away the messages that a summary was made of, and so the summary.
    metadata = merged(unsummarised(base.metadata) if write.replace else base.metadata, write.metadata)
    if write.metadata and base.metadata:
        check_metadata_size(metadata, write.max_metadata_bytes, base.metadata)
    # A new one has its times already, and an import that goes on with what it made leaves them.
    settled = header is None or _goes_on(header, write)
    # Metadata alone leave the conversation where it stands in a list.
    moves = not settled and bool(write.replace or fresh or cut)
    # As `touched`, and all in one copy.
    after = msgspec.structs.replace(
        base,
        version=base.version + 1,
        updated_at=base.updated_at if settled else max(now, base.updated_at),
        active_at=max(now, base.active_at) if moves else base.active_at,
        expires_at=base.expires_at if settled and header else _renewed(base, now),
        user_id=base.user_id or write.user_id,
        metadata=metadata,
        message_count=kept + len(fresh) - cut,
        first_position=0 if write.replace else base.first_position + cut,
        gaps=0 if write.replace else base.gaps,
        trimmed=(trimmed and not write.replace) or cut > 0 or write.dropped > 0,
    )
    return Plan(after, fresh, cut, changed=True)


def _goes_on(header: Record, write: Write) -> bool:
    """Whether an import adds to what it made itself, in parts or after an interruption, and nobody else has written."""
    return not write.replace and times_of(write.origin) == (header.active_at, header.updated_at)


def _labels(header: Record, write: Write) -> bool:
    return bool(write.metadata) or (write.user_id is not None and header.user_id is None)


def _admit(header: Record | None, write: Write) -> None:
    if header is None:
        if not write.create:
            raise MemoryNotFoundError(write.conversation_id)
        return
    foreign = header.user_id is not None and write.user_id not in (None, header.user_id)
    if write.scope is not None and header.user_id != write.scope:
        if not write.create:
            raise MemoryNotFoundError(write.conversation_id)
        # It cannot be made, because the id is taken; and to say "not found" would be no answer to that.
        foreign = True
    if foreign:
        raise other_owner(write.conversation_id)


def other_owner(conversation_id: str) -> MemoryConflictError:
    """The conflict of owners; it names nobody."""
    return MemoryConflictError(
        f"conversation {conversation_id!r} belongs to somebody else; an owner is never changed, choose another id"
    )


def expect_version(conversation_id: str, expected: int | None, actual: int) -> None:
    """Refuse what was decided for another version than the one that stands; `None` expects none.

    Raises:
        MemoryConflictError: with both versions.
    """
    if expected is not None and expected != actual:
        raise MemoryConflictError(
            f"conversation {conversation_id!r} is at version {actual}, not at {expected}; "
            "read it again, and decide anew",
            expected_version=expected,
            actual_version=actual,
        )


def _fresh(held: Mapping[str, bytes], write: Write, *, trimmed: bool) -> tuple[int, ...]:
    fresh, last_held = [], -1
    for index, (message, body) in enumerate(zip(write.messages, write.bodies, strict=True)):
        there = held.get(message.message_id)
        if there is None:
            fresh.append(index)
        elif codec.same_body(there, body, write.conversation_id):
            last_held = index
        else:
            raise other_content(write.conversation_id, message.message_id)
    # On a trimmed conversation, what stands before a held message was there once, and a cap has removed it.
    return tuple(index for index in fresh if not trimmed or index > last_held)


def other_content(conversation_id: str, message_id: str) -> MemoryConflictError:
    """The conflict of two contents under one message id."""
    return MemoryConflictError(
        f"conversation {conversation_id!r} holds message {message_id!r} with other content; "
        "a message never changes, give the new one an id of its own"
    )


def _created(write: Write, now: datetime) -> Record:
    origin = write.origin
    active, updated = times_of(origin) or (now, now)
    return Record(
        conversation_id=write.conversation_id,
        incarnation=write.incarnation,
        version=0,
        created_at=(origin and origin.created_at) or now,
        updated_at=updated,
        active_at=active,
        ttl=origin.ttl if origin else write.ttl,
        expires_at=origin.expires_at if origin else None,
    )


def times_of(origin: Origin | None) -> tuple[datetime, datetime] | None:
    """`active_at` and `updated_at` of a conversation that an import makes; `None`: both are the store's own time."""
    if origin is None or origin.active_at is origin.updated_at is None:
        return None
    active = origin.active_at or origin.updated_at
    assert active is not None
    return active, max(active, origin.updated_at or active)


def touched(header: Record, now: datetime, *, moves: bool = True) -> Record:
    """The header after one more write: version, times, and the expiry renewed.

    Args:
        header: as it stood.
        now: the store's time.
        moves: whether messages change: what is done beside them leaves the conversation where it stands in a list.
    """
    return msgspec.structs.replace(
        header,
        version=header.version + 1,
        updated_at=max(now, header.updated_at),
        active_at=max(now, header.active_at) if moves else header.active_at,
        expires_at=_renewed(header, now),
    )


def _renewed(header: Record, now: datetime) -> datetime | None:
    # At version 0 it is an import's own, and stays until the next write.
    if header.ttl is not None and (header.version or header.expires_at is None):
        return now + timedelta(seconds=header.ttl)
    return header.expires_at


def check_metadata_size(metadata: FrozenDict, most: int | None, before: FrozenDict = EMPTY) -> None:
    """Refuse metadata that is too large, unless what stood `before` was larger still.

    Whoever merges must ask for the whole that stands afterwards: a limit on each step is none on the result. The
    provider's own keys do not count.

    Raises:
        MemoryInvalidInputError: with both sizes.
    """
    size = len(codec.encode(applications(metadata)))
    if most is not None and size > most and size > len(codec.encode(applications(before))):
        raise MemoryInvalidInputError(
            f"metadata has {size} bytes after this write, allowed are {most}; keep large values elsewhere",
            limit="max_metadata_bytes",
        )


def merged(metadata: FrozenDict, patch: Mapping[str, Any]) -> FrozenDict:
    """Metadata with a patch merged in by top-level key."""
    return FrozenDict({**metadata, **patch}) if patch else metadata


def without(metadata: FrozenDict, keys: Iterable[str]) -> FrozenDict:
    """Metadata without these top-level keys; the very same object where it has none of them."""
    gone = metadata.keys() & set(keys)
    return FrozenDict({key: value for key, value in metadata.items() if key not in gone}) if gone else metadata


def amended(header: Record | None, amend: Amend, now: datetime) -> Record:
    """The header after a change of metadata or expiry.

    Raises:
        MemoryNotFoundError: nothing there (for this user).
        MemoryConflictError: the patch names another owner, or the conversation is not in the expected state.
        MemoryInvalidInputError: the metadata would be larger afterwards than it may be.
    """
    if header is None or (amend.scope is not None and header.user_id != amend.scope):
        raise MemoryNotFoundError(amend.conversation_id)
    if amend.user_id is not None and header.user_id not in (None, amend.user_id):
        raise other_owner(amend.conversation_id)
    if amend.expected is not None and amend.expected != header.stamp:
        raise MemoryConflictError(
            f"conversation {amend.conversation_id!r} has changed meanwhile; read it again, and decide anew",
            expected_version=amend.expected.version,
            actual_version=header.version,
        )
    expect_version(amend.conversation_id, amend.expected_version, header.version)
    if amend.ttl is not UNSET:
        # Empty, so that `touched` takes it from the new ttl, and a ttl of `None` leaves none.
        header = msgspec.structs.replace(header, ttl=amend.ttl, expires_at=None)
    metadata = merged(without(header.metadata, amend.removed), amend.metadata)
    if amend.metadata:
        check_metadata_size(metadata, amend.max_metadata_bytes, header.metadata)
    after = touched(header, now, moves=False)
    return msgspec.structs.replace(after, user_id=header.user_id or amend.user_id, metadata=metadata)


# Whole conversations: what a backend that keeps each in one piece needs beside the above.


def written(record: Record | None, write: Write, now: datetime) -> tuple[Record, WriteResult]:
    """The whole record after a store or an append; the very same object when there is nothing to write."""
    ids = {message.message_id for message in write.messages}
    messages = record.messages if record is not None and not write.replace else ()
    held = {message.message_id: codec.encode(message) for message in messages if message.message_id in ids}
    plan = plan_write(record, write, held, now)
    if not plan.changed:
        return plan.header, plan.result
    messages = (messages + tuple(write.messages[index] for index in plan.fresh))[plan.cut :]
    header = plan.header
    if not header.gaps:
        return msgspec.structs.replace(header, messages=messages, positions=()), plan.result
    assert record is not None  # nothing else has gaps
    positions = (*record.positions, *range(record.end, header.end))[plan.cut :]
    return placed(header, messages, positions), plan.result


def begins(header: Record, position: int) -> Record:
    """The header of a conversation that ends where it did, and whose oldest message stands at this position."""
    gaps = header.end - position - header.message_count
    return msgspec.structs.replace(header, first_position=position, gaps=gaps)


def placed(header: Record, messages: Sequence[Message], positions: Sequence[int]) -> Record:
    """The whole record of these messages, at these positions below the header's end."""
    end = header.end
    first = positions[0] if positions else end
    gaps = end - first - len(positions)
    return msgspec.structs.replace(
        header,
        messages=tuple(messages),
        message_count=len(messages),
        first_position=first,
        gaps=gaps,
        positions=tuple(positions) if gaps else (),
    )


def positions_of(record: Record) -> Sequence[int]:
    """The position of each message of a whole record."""
    return record.positions if record.gaps else range(record.first_position, record.end)


def truncated(record: Record | None, truncate: Truncate, now: datetime) -> tuple[Record, int]:
    """The whole record without that message and all after it, and how many went.

    Raises:
        MemoryNotFoundError, MemoryConflictError: as `deletable` decides.
    """
    standing = deletable(record, truncate)
    for index, message in enumerate(standing.messages):
        if message.message_id == truncate.message_id:
            positions = positions_of(standing)
            metadata = unsummarised(standing.metadata, positions[index])
            after = msgspec.structs.replace(ends_at(touched(standing, now), index, positions[index]), metadata=metadata)
            return placed(after, standing.messages[:index], positions[:index]), len(standing.messages) - index
    return standing, 0


def ends_at(header: Record, count: int, position: int) -> Record:
    """The header of a conversation whose first so many messages are left, and whose next one comes to a position.

    A truncation from a header alone is `ends_at(touched(header, now), index, position)` with `unsummarised` metadata,
    where the message stands at that position, behind `index` others.
    """
    gaps = position - header.first_position - count
    return msgspec.structs.replace(header, message_count=count, gaps=gaps)


def deletable(record: Record | None, delete: DeleteMessages | Truncate) -> Record:
    """The conversation from which messages may be deleted.

    Raises:
        MemoryNotFoundError: no such conversation (for this user).
        MemoryConflictError: it is at another version.
    """
    if record is None or (delete.scope is not None and record.user_id != delete.scope):
        raise MemoryNotFoundError(delete.conversation_id)
    expect_version(delete.conversation_id, delete.expected_version, record.version)
    return record


def thinned(header: Record, removed: int, lowest: int, first: int | None, now: datetime) -> Record:
    """The header after the deletion of single messages.

    Args:
        header: as it stood.
        removed: how many go.
        lowest: position of the first of them: a summary that reaches so far goes.
        first: position of the oldest message that stays; `None` where none does.
        now: the store's time.
    """
    after = touched(header, now)
    # Trimmed, so that whoever sends all of a history again brings nothing back, at its end (docs/decisions/0003).
    return msgspec.structs.replace(
        after,
        message_count=header.message_count - removed,
        first_position=header.end if first is None else first,
        gaps=0 if first is None else header.end - first - (header.message_count - removed),
        trimmed=True,
        metadata=unsummarised(header.metadata, lowest),
    )


def messages_deleted(record: Record | None, delete: DeleteMessages, now: datetime) -> tuple[Record, int]:
    """The whole record without these messages, and how many went; the very same object when it holds none of them.

    Raises:
        MemoryNotFoundError, MemoryConflictError: as `deletable` decides.
    """
    standing, ids = deletable(record, delete), frozenset(delete.ids)
    positions = positions_of(standing)
    gone = [index for index, message in enumerate(standing.messages) if message.message_id in ids]
    if not gone:
        return standing, 0
    left = [index for index, message in enumerate(standing.messages) if message.message_id not in ids]
    first = positions[left[0]] if left else None
    after = thinned(standing, len(gone), positions[gone[0]], first, now)
    return placed(after, [standing.messages[at] for at in left], [positions[at] for at in left]), len(gone)


def matches(record: Record, query: MemoryQuery) -> bool:
    """Whether a live record passes every filter of the query (its cursor, limit and offset aside)."""
    return (
        (query.conversation_id is None or query.conversation_id == record.conversation_id)
        and (query.user_id is None or query.user_id == record.user_id)
        # In place, bound by bound: a list and an export look at each conversation.
        and (query.since is None or record.created_at >= query.since)
        and (query.until is None or record.created_at < query.until)
        and (query.active_since is None or record.active_at >= query.active_since)
        and (query.active_until is None or record.active_at < query.active_until)
        and (query.updated_since is None or record.updated_at >= query.updated_since)
        and (query.updated_until is None or record.updated_at < query.updated_until)
        and (query.trace_id is None or holds(record, {"trace_id": query.trace_id}))
        and (query.metadata is None or holds(record, query.metadata))
    )


def holds(record: Record, wanted: Mapping[str, Any]) -> bool:
    """Whether metadata has exactly these JSON values under these top-level keys; the owner counts as `user_id`."""
    shown = shown_metadata(record)
    return all(key in shown and codec.canonical(shown[key]) == codec.canonical(wanted[key]) for key in wanted)


def shown_metadata(record: Record) -> FrozenDict:
    """Metadata as the application sees it: the owner is in it, and what the provider keeps there is not."""
    metadata = record.metadata and applications(record.metadata)
    if record.user_id is None:
        return metadata
    if not metadata:
        return FrozenDict(user_id=record.user_id)
    return FrozenDict({**metadata, "user_id": record.user_id})


def applications(metadata: FrozenDict) -> FrozenDict:
    """Metadata without the keys that the provider keeps for itself."""
    if not (metadata and any(key.startswith(RESERVED) for key in metadata)):
        return metadata
    return FrozenDict({key: value for key, value in metadata.items() if not key.startswith(RESERVED)})


def unsummarised(metadata: FrozenDict, end: int = 0) -> FrozenDict:
    """Metadata without a summary that covers position `end`: what was removed must not live on in it.

    Args:
        metadata: as they stand.
        end: the first position whose message was removed or changed; 0 for all of them.
    """
    summary = metadata.get(SUMMARY)
    if not isinstance(summary, dict) or summary.get("position", end) < end:
        return metadata
    return FrozenDict({key: value for key, value in metadata.items() if key != SUMMARY})


def activity_key(record: Record) -> tuple[datetime, str]:
    """Order of `find_conversations`, reversed: newest `active_at` first, ties by id descending."""
    return record.active_at, record.conversation_id


def creation_key(record: Record | Damaged) -> tuple[datetime, str]:
    """Order of `iter_conversations` and `scan`; what is damaged comes first, unless it can be told when it was made."""
    if isinstance(record, Damaged):
        return record.created_at or BEGINNING, record.error.conversation_id or ""
    return record.created_at, record.conversation_id


def activity_cursor(query: MemoryQuery) -> tuple[datetime, str] | None:
    """`find_conversations` goes on strictly below this key."""
    return None if query.cursor is None else (query.cursor[1], query.cursor[2])


def creation_cursor(query: MemoryQuery) -> tuple[datetime, str] | None:
    """`scan` goes on strictly above this key."""
    return None if query.cursor is None else (query.cursor[0], query.cursor[2])
