"""What is changed, each within the writer's transaction: functions of its connection.

A function raises what it refuses before it changes anything: the writer counts on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryNotFoundError, MemoryStorageError
from jaf_memory_core.records import Amend, Record, Stamp, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_sqlite import statements as sql
from jaf_memory_sqlite.reading import ANY, LITTLE, NotHereError
from jaf_memory_sqlite.rows import BEYOND, Kept, columns, kept, labels, micros, row_of

Clock = Callable[[], datetime]

ASKED = 512
"""Message ids that one statement looks for; older SQLites take no more than 999 parameters."""


FEW = 100
"""Messages that a write in an event loop's own thread may add, or take away."""


def is_little(request: Write) -> bool:
    """Whether a write may be tried in an event loop's own thread."""
    return len(request.messages) <= FEW and codec.size(request.bodies) <= LITTLE


def write(db: sqlite3.Connection, request: Write, clock: Clock, most: float = ANY) -> WriteResult:
    """Store or append, as `rules.plan_write` decides; costs the new messages.

    Raises:
        NotHereError: so much would be taken away, beyond `most` bytes or a few messages.
    """
    now = clock()
    # Without a patch there is nothing to merge, and the metadata need not be read; a store may drop a summary from it.
    standing = look_up(db, request.conversation_id, with_metadata=bool(request.metadata) or request.replace)
    live = standing if standing and rules.live(standing.record, now) else None
    if standing is not None and most < ANY:
        _check_little(standing, request, most, replaces=live is None or request.replace)
    if live is not None and _is_plain(live, request):
        result = _append_unheld(db, live, request, now)
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
            db.execute(sql.ERASE, (standing.key,))
        _add(db, sql.ADD, _create(db, plan.header, request.bodies), plan, request)
        return plan.result
    if request.replace:
        db.execute(sql.DROP, (live.row_of(live.record.first_position), live.row_of(live.end)))
        live = live._replace(size=0, largest=0)
    _add(db, sql.ADD, live.key, plan, request)
    _save(db, live, plan, request)
    return plan.result


def _check_little(standing: Kept, request: Write, most: float, *, replaces: bool) -> None:
    count = standing.record.message_count
    if not replaces:
        count = max(0, count + len(request.messages) - (request.max_messages or BEYOND))
    if count > FEW or min(standing.size, count * standing.largest) > most:
        raise NotHereError


def _is_plain(live: Kept, request: Write) -> bool:
    """Whether what is held does not matter, as long as none of the messages is."""
    return bool(request.messages) and not (
        request.replace or live.record.trimmed or request.expected_version is not None
    )


def _append_unheld(db: sqlite3.Connection, live: Kept, request: Write, now: datetime) -> WriteResult | None:
    """Append without asking first what is held: the index knows. `None`, and nothing is changed, if anything is."""
    plan = rules.plan_write(live.record, request, {}, now)
    if _add(db, sql.ADD_UNHELD, live.key, plan, request) < len(request.messages):
        db.execute(sql.DROP, (live.row_of(live.end), live.row_of(BEYOND)))
        return None
    _save(db, live, plan, request)
    return plan.result


def look_up(db: sqlite3.Connection, conversation_id: str, *, with_metadata: bool = False) -> Kept | None:
    """The header that stands, expired or not, or `None`."""
    text = sql.HEADER_WITH_METADATA if with_metadata else sql.HEADER
    row = db.execute(text, (conversation_id,)).fetchone()
    return kept(row) if row else None


def held_bodies(db: sqlite3.Connection, live: Kept, wanted: Sequence[str]) -> dict[str, bytes]:
    """Bodies of those of the wanted messages that a conversation holds, by id."""
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), ASKED):
        ids = list(wanted[start : start + ASKED])
        # Few different statements, so that they stay prepared: the last id fills up to a power of two.
        count = 1 << (len(ids) - 1).bit_length()
        found.update(db.execute(sql.held(count), (live.key, *ids, *ids[-1:] * (count - len(ids)))).fetchall())
    return found


def _create(db: sqlite3.Connection, header: Record, bodies: Sequence[bytes]) -> int:
    key = db.execute(sql.CREATE, columns(header, codec.size(bodies), longest(bodies))).lastrowid
    assert key is not None  # noqa: S101  (of an INSERT)
    return key


def longest(bodies: Sequence[bytes]) -> int:
    """Bytes of the largest body."""
    return max(map(len, bodies), default=0)


def _add(db: sqlite3.Connection, statement: str, key: int, plan: rules.Plan, request: Write) -> int:
    """Add the messages that a plan adds; how many were added."""
    end = plan.header.first_position + plan.header.message_count
    if end >= BEYOND:
        raise MemoryStorageError("the conversation has had 4,294,967,295 messages; begin another", operation="append")
    first = row_of(key, end) - len(plan.fresh)
    rows = [
        (row, key, request.messages[index].message_id, request.bodies[index])
        for row, index in enumerate(plan.fresh, first)
    ]
    return db.executemany(statement, rows).rowcount


def _save(db: sqlite3.Connection, live: Kept, plan: rules.Plan, request: Write) -> None:
    """Remove what a cap removes, and write the header of a conversation that was there."""
    bodies = [request.bodies[index] for index in plan.fresh]
    size = live.size + codec.size(bodies)
    if plan.cut:
        size -= _drop(db, live.row_of(live.record.first_position), live.row_of(plan.header.first_position))
    touch(db, live, plan.header, size, max(live.largest, longest(bodies)))
    relabel(db, live, plan.header)


def _drop(db: sqlite3.Connection, first: int, end: int) -> int:
    """Remove messages; how many bytes they had."""
    (size,) = db.execute(sql.BYTES, (first, end)).fetchone()
    db.execute(sql.DROP, (first, end))
    return int(size)


def touch(db: sqlite3.Connection, before: Kept, after: Record, size: int, largest: int) -> None:
    """Write what every change changes."""
    updated = micros(after.updated_at)
    counts = (after.first_position, after.message_count, int(after.trimmed), size, largest)
    db.execute(sql.TOUCH, (after.version, updated, *counts, before.key))
    second = updated // 1_000_000
    if second != before.second:
        db.execute(sql.MOVE, (second, before.key))


def relabel(db: sqlite3.Connection, before: Kept, after: Record) -> None:
    """Write what few changes change: expiry, owner, metadata (which stays the same object where it stays)."""
    header = before.record
    if (after.expires_at, after.ttl) != (header.expires_at, header.ttl):
        expires = None if after.expires_at is None else micros(after.expires_at)
        db.execute(sql.RENEW, (expires, after.ttl, before.key))
    if after.user_id != header.user_id:
        db.execute(sql.OWN, (after.user_id, before.key))
    if after.metadata is not header.metadata:
        db.execute(sql.LABEL, (*labels(after.metadata), before.key))


def truncate(db: sqlite3.Connection, request: Truncate, clock: Clock) -> int:
    """Remove a message and all after it; costs what is removed."""
    now = clock()
    standing = look_up(db, request.conversation_id, with_metadata=True)
    if standing is None or rules.seen(standing.record, now, request.scope) is None:
        raise MemoryNotFoundError(request.conversation_id)
    row = db.execute(sql.ROW_OF_MESSAGE, (standing.key, request.message_id)).fetchone()
    if row is None:
        return 0
    end = standing.row_of(standing.end)
    removed: int = end - row[0]
    size = standing.size - _drop(db, row[0], end)
    touched = rules.touched(standing.record, now)
    metadata = rules.unsummarised(touched.metadata, row[0] - standing.row_of(0))
    after = replace(touched, message_count=touched.message_count - removed, metadata=metadata)
    touch(db, standing, after, size, standing.largest)
    relabel(db, standing, after)
    return removed


def amend(db: sqlite3.Connection, request: Amend, clock: Clock) -> int:
    """Change metadata, owner or expiry; the new version."""
    now = clock()
    standing = look_up(db, request.conversation_id, with_metadata=bool(request.metadata))
    live = standing if standing and rules.live(standing.record, now) else None
    after = rules.amended(live.record if live else None, request, now)
    assert live is not None  # noqa: S101  (`rules.amended` raises for a missing one)
    touch(db, live, after, live.size, live.largest)
    relabel(db, live, after)
    return after.version


def put(db: sqlite3.Connection, record: Record, expected: Stamp | None) -> bool:
    """Put a whole record in the place of the one that stands at `expected`."""
    standing = look_up(db, record.conversation_id)
    if (standing.record.stamp if standing else None) != expected:
        return False
    if standing is not None:
        db.execute(sql.ERASE, (standing.key,))
    bodies = [codec.encode(message) for message in record.messages]
    key = _create(db, replace(record, message_count=len(bodies)), bodies)
    rows = enumerate(zip(record.messages, bodies, strict=True), row_of(key, record.first_position))
    db.executemany(sql.ADD, [(row, key, message.message_id, body) for row, (message, body) in rows])
    return True


# Erasing. The messages go with their conversation, as the schema says.


def delete(db: sqlite3.Connection, conversation_id: str, expected: Stamp) -> bool:
    """Remove the conversation that stands at `expected`."""
    standing = look_up(db, conversation_id)
    if standing is None or standing.record.stamp != expected:
        return False
    db.execute(sql.ERASE, (standing.key,))
    return True


def remove(db: sqlite3.Connection, conversation_id: str, scope: str | None, clock: Clock) -> bool:
    """Remove the conversation, expired or not; whether it was there."""
    standing = look_up(db, conversation_id)
    if standing is None or scope not in (None, standing.record.user_id):
        return False
    db.execute(sql.ERASE, (standing.key,))
    return rules.live(standing.record, clock()) is not None


def forget_user(db: sqlite3.Connection, user_id: str, clock: Clock) -> int:
    """Remove all conversations of a user; how many were live."""
    (live,) = db.execute(sql.COUNT_OF_USER, (user_id, micros(clock()))).fetchone()
    db.execute(sql.ERASE_USER, (user_id,))
    return int(live)


def purge(db: sqlite3.Connection, limit: int, scope: str | None, clock: Clock) -> int:
    """Remove up to so many expired conversations; how many."""
    now = micros(clock())
    if scope is None:
        return db.execute(sql.PURGE, (now, limit)).rowcount
    return db.execute(sql.PURGE_OF_USER, (scope, now, limit)).rowcount
