"""What is changed, each within the writer's transaction.

A function raises what it refuses before it changes anything: the writer counts on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec.structs import replace

from jaf_memory_core import codec, forks, rules
from jaf_memory_core.errors import MemoryError, MemoryNotFoundError, MemoryStorageError
from jaf_memory_core.records import Amend, Fork, Record, Revise, Stamp, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_sqlite.errors import NeedsThreadError
from jaf_memory_sqlite.operations.headers import Headers
from jaf_memory_sqlite.operations.reads import ANY, INLINE_BYTES, check_complete, held_bodies, look_up
from jaf_memory_sqlite.rows import BEYOND, LAG, RESTING, SQL, Kept, amended_at, busy, columns, labels, micros, row_of

MOST_BUSY = 256
"""Conversations that may become busy within a minute; a list brings them into order before it tells the newest."""

Clock = Callable[[], datetime]
Row = tuple[int, int, str, bytes]

INLINE_MESSAGES = 100
"""Messages that a write in an event loop's own thread may add, or take away."""


def is_small(request: Write) -> bool:
    """Whether a write may be tried in an event loop's own thread."""
    return len(request.messages) <= INLINE_MESSAGES and codec.size(request.bodies) <= INLINE_BYTES


def write(
    db: sqlite3.Connection, request: Write, clock: Clock, most: float = ANY, headers: Headers | None = None
) -> WriteResult:
    """Store or append, as `rules.plan_write` decides; costs the new messages.

    Args:
        db: the connection.
        request: what to write.
        clock: tells the time.
        most: bytes of messages that may be taken away.
        headers: what the writer knows of the file.

    Raises:
        NeedsThreadError: so much would be taken away, beyond `most` bytes or a few messages.
    """
    now = clock()
    # Without a patch there is nothing to merge, and the metadata need not be read; a store may drop a summary from it.
    with_metadata = bool(request.metadata) or request.replace
    if headers is None or with_metadata:
        headers, standing = None, look_up(db, request.conversation_id, with_metadata=with_metadata)
    else:
        standing = headers.get(db, request.conversation_id) or look_up(db, request.conversation_id)
    live = standing if standing and rules.live(standing.record, now) else None
    if standing is not None and most < ANY:
        _check_small(standing, request, most, replaces=live is None or request.replace)
    if live is not None and _is_plain(live, request):
        result = _append_unheld(db, live, request, now, headers)
        if result is not None:
            return result
    held = (
        {}
        if live is None or request.replace
        else held_bodies(db, live, [message.message_id for message in request.messages])
    )
    plan = rules.plan_write(live.record if live else None, request, held, now)
    if not plan.changed:
        return plan.result
    if live is None:
        if standing is not None:
            db.execute(SQL["erase"], (standing.key,))
        key = _create(db, plan.header, request.bodies)
        _add(db, SQL["add"], key, plan, request)
        if headers is not None:
            header, bodies = plan.header, request.bodies
            headers.keep(db, Kept(key, header, codec.size(bodies), longest(bodies), micros(header.active_at)))
        return plan.result
    if request.replace:
        db.execute(SQL["drop"], (live.row_of(live.record.first_position), live.row_of(live.end)))
        live = replace(live, size=0, largest=0)
    _add(db, SQL["add"], live.key, plan, request)
    _save(db, live, plan, request)
    return plan.result


def _check_small(standing: Kept, request: Write, most: float, *, replaces: bool) -> None:
    count = standing.record.message_count
    if not replaces:
        count = max(0, count + len(request.messages) - (request.max_messages or BEYOND))
    if count > INLINE_MESSAGES or min(standing.size, count * standing.largest) > most:
        raise NeedsThreadError


def _is_plain(live: Kept, request: Write) -> bool:
    """Whether what is held does not matter, as long as none of the messages is."""
    return bool(request.messages) and not (
        request.replace or live.record.trimmed or request.expected_version is not None
    )


def _append_unheld(
    db: sqlite3.Connection, live: Kept, request: Write, now: datetime, headers: Headers | None
) -> WriteResult | None:
    """Append without asking first what is held: the index knows. `None`, and nothing is changed, if anything is."""
    plan = rules.plan_write(live.record, request, {}, now)
    if _add(db, SQL["add_unheld"], live.key, plan, request) < len(request.messages):
        # By their rows, which only this call can have filled: the writer is alone in the file.
        db.execute(SQL["drop"], (live.row_of(live.end), live.row_of(BEYOND)))
        return None
    kept = _save(db, live, plan, request)
    if headers is not None:
        headers.keep(db, kept)
    return plan.result


def _create(db: sqlite3.Connection, header: Record, bodies: Sequence[bytes]) -> int:
    key = db.execute(SQL["create"], columns(header, codec.size(bodies), longest(bodies))).lastrowid
    assert key is not None  # of an INSERT
    return key


def longest(bodies: Sequence[bytes]) -> int:
    """Bytes of the largest body."""
    return max(map(len, bodies), default=0)


def _add(db: sqlite3.Connection, statement: str, key: int, plan: rules.Plan, request: Write) -> int:
    """Add the messages that a plan adds; how many were added."""
    end = plan.header.end
    if end >= BEYOND:
        raise MemoryStorageError("the conversation has had 4,294,967,295 messages; begin another", operation="append")
    first = row_of(key, end) - len(plan.fresh)
    rows = [
        (row, key, request.messages[index].message_id, request.bodies[index])
        for row, index in enumerate(plan.fresh, first)
    ]
    return db.executemany(statement, rows).rowcount


def _save(db: sqlite3.Connection, live: Kept, plan: rules.Plan, request: Write) -> Kept:
    """Remove what a cap removes, and write the header of a conversation that was there, as it stands then."""
    sizes = [len(request.bodies[index]) for index in plan.fresh]
    size = live.size + sum(sizes)
    header = plan.header
    if plan.cut and header.gaps:
        header = rules.begins(header, _position_at(db, live, header.end, plan.cut))
    if plan.cut:
        size -= drop(db, live.row_of(live.record.first_position), live.row_of(header.first_position))
    largest = max([live.largest, *sizes])
    listed = touch(db, live, header, size, largest)
    relabel(db, live, header)
    return Kept(live.key, header, size, largest, listed)


def _position_at(db: sqlite3.Connection, live: Kept, end: int, place: int) -> int:
    found = db.execute(SQL["row_at"], (live.row_of(live.record.first_position), live.row_of(end), place)).fetchone()
    if found is None:
        raise codec.damaged(live.record.conversation_id)
    position: int = found[0] - live.row_of(0)
    return position


def drop(db: sqlite3.Connection, first: int, end: int) -> int:
    """Remove messages; how many bytes they had."""
    (size,) = db.execute(SQL["bytes"], (first, end)).fetchone()
    db.execute(SQL["drop"], (first, end))
    return int(size)


def touch(db: sqlite3.Connection, before: Kept, after: Record, size: int, largest: int) -> int:
    """Write what every change changes; where the conversation stands in lists."""
    updated = micros(after.active_at)
    counts = (after.first_position, after.message_count, int(after.trimmed), size, largest)
    db.execute(SQL["touch"], (after.version, updated, *counts, before.key))
    listed = _listed(db, before, updated)
    if listed != before.listed:
        db.execute(SQL["move"], (listed, before.key))
    return listed


def _listed(db: sqlite3.Connection, before: Kept, updated: int) -> int:
    """Where a conversation that was active just now stands in lists: where it stood, if it may (decisions/0005)."""
    if before.listed == updated or 0 <= busy(updated) - before.listed < LAG:
        return before.listed
    # A list sorts those that were busy within a minute: no more than so many.
    (others,) = db.execute(SQL["busy"], (busy(updated - LAG), RESTING, MOST_BUSY)).fetchone()
    return busy(updated) if others < MOST_BUSY else updated


def relabel(db: sqlite3.Connection, before: Kept, after: Record) -> None:
    """Write what few changes change: expiry, owner, metadata (which stays the same object where it stays)."""
    header = before.record
    if after.updated_at > after.active_at and after.updated_at != header.updated_at:
        db.execute(SQL["amend"], (amended_at(after), before.key))
    if (after.expires_at, after.ttl) != (header.expires_at, header.ttl):
        expires = None if after.expires_at is None else micros(after.expires_at)
        db.execute(SQL["renew"], (expires, after.ttl, before.key))
    if after.user_id != header.user_id:
        db.execute(SQL["own"], (after.user_id, before.key))
    if after.gaps != header.gaps:
        db.execute(SQL["space"], (after.gaps, before.key))
    if after.metadata is not header.metadata:
        db.execute(SQL["label"], (*labels(after.metadata), before.key))


def amend(db: sqlite3.Connection, request: Amend, clock: Clock) -> int:
    """Change metadata, owner or expiry; the new version."""
    now = clock()
    standing = look_up(db, request.conversation_id, with_metadata=bool(request.metadata or request.removed))
    live = standing if standing and rules.live(standing.record, now) else None
    after = rules.amended(live.record if live else None, request, now)
    assert live is not None  # `rules.amended` raises for a missing one
    touch(db, live, after, live.size, live.largest)
    relabel(db, live, after)
    return after.version


def put(db: sqlite3.Connection, record: Record, expected: Stamp | None) -> bool:
    """Put a whole record in the place of the one that stands at `expected`."""
    standing = look_up(db, record.conversation_id)
    if (standing.record.stamp if standing else None) != expected:
        return False
    if standing is not None:
        db.execute(SQL["erase"], (standing.key,))
    bodies = [codec.encode(message) for message in record.messages]
    key = _create(db, replace(record, message_count=len(bodies)), bodies)
    rows = zip(rules.positions_of(record), record.messages, bodies, strict=True)
    db.executemany(SQL["add"], [(row_of(key, at), key, message.message_id, body) for at, message, body in rows])
    return True


def append_many(db: sqlite3.Connection, requests: Sequence[Write], clock: Clock) -> list[WriteResult | MemoryError]:
    """Do each of these appends, or say why it is refused.

    Raises:
        MemoryError: one was refused half-way. The transaction has to be rolled back, with all of them.
    """
    outcomes: list[WriteResult | MemoryError] = []
    rows: list[Row] = []
    made: set[str] = set()
    for request in requests:
        result = _created(db, request, clock, rows)
        if result is not None:
            made.add(request.conversation_id)
            outcomes.append(result)
            continue
        # Its messages are not in the table yet, and a second write to it has to see them.
        if request.conversation_id in made:
            _insert(db, rows)
            made.clear()
        before = db.total_changes
        try:
            outcomes.append(write(db, request, clock))
        except MemoryError as refusal:
            # Half of a request must not be committed with the others: all of them are rolled back.
            if db.total_changes != before:
                raise
            outcomes.append(refusal)
    _insert(db, rows)
    return outcomes


def _created(db: sqlite3.Connection, request: Write, clock: Clock, rows: list[Row]) -> WriteResult | None:
    """Make a conversation that is not there, all but its messages; `None`, and nothing is changed, if one is."""
    if not request.create or request.expected_version:
        return None
    plan = rules.plan_write(None, request, {}, clock())
    done = db.execute(SQL["create_missing"], columns(plan.header, codec.size(request.bodies), longest(request.bodies)))
    key = done.lastrowid
    if not done.rowcount or key is None:
        return None
    first = row_of(key, plan.header.first_position)
    rows += [
        (row, key, message.message_id, body)
        for row, (message, body) in enumerate(zip(request.messages, request.bodies, strict=True), first)
    ]
    return plan.result


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    db.executemany(SQL["add"], rows)
    rows.clear()


def fork(db: sqlite3.Connection, request: Fork, clock: Clock) -> int:
    """Copy a conversation's rows to a new id; how many messages the copy holds. No message leaves the file."""
    now = clock()
    parent = look_up(db, request.conversation_id, with_metadata=True)
    if parent is None or rules.seen(parent.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    there = look_up(db, request.new_id)
    if there is not None and rules.live(there.record, now):
        raise forks.taken(request.new_id)
    first, end = parent.row_of(parent.record.first_position), _end(db, parent, request)
    if parent.record.gaps:
        check_complete(db, parent)
    if there is not None:
        # What stands under the new id has expired, and goes with its messages.
        db.execute(SQL["erase"], (there.key,))
    (size,) = db.execute(SQL["bytes"], (first, end)).fetchone()
    header, count = forks.fork_header(parent.record, request, now), end - first
    if parent.record.gaps:
        (count,) = db.execute(SQL["messages_before"], (first, end)).fetchone()
    header = rules.ends_at(header, count, end - parent.row_of(0))
    key = db.execute(SQL["create"], columns(header, size, parent.largest)).lastrowid
    assert key is not None  # of an INSERT
    db.execute(SQL["copy"], (row_of(key, 0) - parent.row_of(0), key, first, end))
    return header.message_count


def _end(db: sqlite3.Connection, parent: Kept, request: Fork) -> int:
    if request.until_message_id is None:
        return parent.row_of(parent.end)
    row = db.execute(SQL["row_of_message"], (parent.key, request.until_message_id)).fetchone()
    if row is None:
        raise forks.no_such_message(request)
    end: int = row[0]
    return end


def revise(db: sqlite3.Connection, request: Revise, clock: Clock) -> int:
    """Put messages into the rows of others; the version."""
    now = clock()
    there = look_up(db, request.conversation_id, with_metadata=True)
    if there is None or rules.seen(there.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    concerned = {*request.ids, *(message.message_id for message in request.messages)}
    bodies = held_bodies(db, there, sorted(concerned))
    wanted = forks.replacements(request, bodies, request.conversation_id)
    if not wanted:
        return there.record.version
    rows = []
    # All of the old rows go before any of the new ones comes: they may have exchanged their ids.
    for index in wanted:
        (row,) = db.execute(SQL["row_of_message"], (there.key, request.ids[index])).fetchone()
        rows.append((row, there.key, request.messages[index].message_id, request.bodies[index]))
    for row in rows:
        db.execute(SQL["drop"], (row[0], row[0] + 1))
    db.executemany(SQL["add"], rows)
    growth = sum(len(request.bodies[index]) - len(bodies[request.ids[index]]) for index in wanted)
    after = replace(rules.touched(there.record, now), metadata=rules.unsummarised(there.record.metadata))
    most = max(there.largest, longest([request.bodies[index] for index in wanted]))
    touch(db, there, after, there.size + growth, most)
    relabel(db, there, after)
    return after.version
