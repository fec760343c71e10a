"""The index for searches: made, kept, asked and dropped. It proposes messages, and the core's rule decides."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.records import Damaged, Look, Page, Place, Record, Stretch
from jaf_memory_core.search import OVERFULL, RULE, Term, terms_of
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.errors import tells_damage
from jaf_memory_sqlite.operations import queries
from jaf_memory_sqlite.operations.reads import snapshot
from jaf_memory_sqlite.rows import POSITIONS, SQL, kept

TOGETHER = 64
"""Messages that a writer lets wait, and then carries over at once: one by one each would cost three times as much."""

BATCH, BATCH_BYTES = 500, 4 << 20
"""Messages, and bytes of them, that are carried over in one transaction: others wait for it some 50 ms."""

MOST_WAITING = 1_000
"""Messages that a search reads beside those that the index proposes; where more wait, it goes through all messages."""

MOST_PROPOSED = 20_000
"""Messages that the index may propose, some 2 µs each: of what more of them say, a scan soon finds the newest."""

PROPOSED, PROPOSED_BYTES = 200, 4 << 20
"""Messages, and bytes of them, that are read at once."""

PARTS = 6
STEP = 500


def stands(db: sqlite3.Connection) -> bool:
    """Whether all parts of an index are there."""
    (found,) = db.execute(SQL["search_stands"]).fetchone()
    return bool(found == PARTS)


def is_of_use(db: sqlite3.Connection) -> bool:
    """Whether it has all messages, by our rule."""
    state = db.execute(SQL["search_state"]).fetchone() if stands(db) else None
    return state is not None and state[0] == RULE and state[2] == 1


def described(db: sqlite3.Connection) -> str:
    """What there is, for people."""
    state = db.execute(SQL["search_state"]).fetchone() if stands(db) else None
    if state is None:
        return "scan"
    rule, built, complete = state
    if rule != RULE:
        return f"an index by rule {rule}, and this is {RULE}: make it again with `jaf-memory schema --search index`"
    if not complete:
        (last,) = db.execute("SELECT max(id) FROM message").fetchone()
        share = min(99, 100 * (built >> POSITIONS) // max(1, (last or 0) >> POSITIONS)) if built > 0 else 0
        return f"an index that is being built ({share} %); `jaf-memory schema --search index` ends that"
    (waiting,) = db.execute(SQL["search_waits"], (MOST_WAITING + 1,)).fetchone()
    return (
        f"index ({waiting} messages wait)" if waiting <= MOST_WAITING else f"index (over {MOST_WAITING} messages wait)"
    )


# Made and dropped, each within the writer's transaction.


def make(db: sqlite3.Connection) -> bool:
    """Make what is not there, or is of another rule; whether it was made. What stands in the file comes later."""
    state = db.execute(SQL["search_state"]).fetchone() if stands(db) else None
    if state is not None and state[0] == RULE:
        return False
    drop(db)
    for statement in migrations.statements((files("jaf_memory_sqlite") / "search.sql").read_text(encoding="utf-8")):
        db.execute(statement)
    db.execute(SQL["search_begin"], (RULE,))
    return True


def make_missing(db: sqlite3.Connection) -> bool:
    """The same, but what another Python has made stays: two would make it anew by turns."""
    return False if stands(db) else make(db)


def drop(db: sqlite3.Connection) -> bool:
    """Remove all of it; whether there was anything."""
    (found,) = db.execute(SQL["search_stands"]).fetchone()
    for trigger in ("search_added", "search_changed", "search_dropped"):
        db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for table in ("search", "search_waiting", "search_state"):
        db.execute(f"DROP TABLE IF EXISTS {table}")
    return bool(found)


def build(db: sqlite3.Connection) -> int:
    """Carry over a batch of what stood in the file before there was an index; how many messages, 0 for the last."""
    state = db.execute(SQL["search_state"]).fetchone() if stands(db) else None
    if state is None or state[0] != RULE or state[2]:
        return 0
    batch, rest = _bounded(db.execute(SQL["search_unbuilt"], (state[1], BATCH)))
    _keep(db, batch)
    # What others add meanwhile waits by itself: to go after it might never end.
    db.execute(SQL["search_built"], (batch[-1][0] if batch else state[1], not rest))
    return len(batch) if rest else 0


def carry(db: sqlite3.Connection) -> int:
    """Carry over a batch of what waits; how many messages, 0 for the last."""
    state = db.execute(SQL["search_state"]).fetchone() if stands(db) else None
    if state is None or state[0] != RULE:
        return 0
    batch, rest = _bounded(db.execute(SQL["search_unread"], (BATCH,)))
    _keep(db, [(row, body) for row, body in batch if body is not None])
    db.executemany(SQL["search_carried"], [(row,) for row, _ in batch])
    return len(batch) if rest else 0


def _bounded(rows: Iterable[tuple[int, bytes | None]]) -> tuple[list[tuple[int, bytes | None]], bool]:
    """A batch, and whether there may be more behind it."""
    batch = []
    room = BATCH_BYTES
    for row, body in rows:
        batch.append((row, body))
        room -= len(body or b"")
        if room <= 0:
            return batch, True
    return batch, len(batch) == BATCH


def _keep(db: sqlite3.Connection, batch: Sequence[tuple[int, bytes | None]]) -> None:
    db.executemany(SQL["search_keep"], [(row, " ".join(_terms(body or b""))) for row, body in batch])


def _terms(body: bytes) -> Iterable[str]:
    try:
        return terms_of(codec.decode_message(body))
    except MemoryStorageError:  # a search that meets it says so
        return (OVERFULL,)


# What was taken out stands in the index until its parts are written anew.


def is_large(db: sqlite3.Connection) -> bool | None:
    """Whether an index is there that is too large to be written anew at once; `None` if there is none."""
    if not stands(db):
        return None
    (blocks,) = db.execute("SELECT count(*) FROM (SELECT 1 FROM search_data LIMIT 10001)").fetchone()
    return bool(blocks > 10_000)


def clear_out(db: sqlite3.Connection, *, first: bool) -> bool:
    """Write some of the index anew, without what was taken out; whether that is done."""
    large = is_large(db)
    if large is None:
        return True
    if not large:
        db.execute(SQL["search_optimize"])
        return True
    before = db.total_changes
    db.execute(SQL["search_merge"], (-STEP if first else STEP,))
    return db.total_changes - before < 2  # nothing but the command itself, as FTS5 says it


# Asked.


def waiting(db: sqlite3.Connection) -> int:
    """How many messages wait, up to one more than a search reads; 0 without an index."""
    if not stands(db):
        return 0
    (count,) = db.execute(SQL["search_waits"], (MOST_WAITING + 1,)).fetchone()
    return int(count)


def proposed(db: sqlite3.Connection, look: Look, terms: Sequence[Term], now: datetime) -> Stretch | None:
    """Messages that may say it, each on a page of its own; `None` where the index cannot tell, or is slow."""
    try:
        with snapshot(db):
            if not is_of_use(db) or waiting(db) > MOST_WAITING:
                return None
            match = _match(terms)
            (count,) = db.execute(SQL["search_count"], (match, MOST_PROPOSED + 1)).fetchone()
            return _Proposed(db, look, now, match).read() if count <= MOST_PROPOSED else None
    except sqlite3.DatabaseError as error:
        if not tells_damage(error):
            raise
        return None  # whoever goes through all of it finds out where


def _match(terms: Sequence[Term]) -> str:
    """A question in the language of FTS5; no term holds a quote."""
    every = " AND ".join(f'"{term.text}"{" *" if term.open else ""}' for term in terms)
    return f'({every}) OR "{OVERFULL}"'


class _Proposed:
    """Reads one stretch of what is proposed.

    Args:
        db: within a snapshot.
        look, now, match: what is asked for, and when.
    """

    def __init__(self, db: sqlite3.Connection, look: Look, now: datetime, match: str) -> None:
        self._db = db
        self._look = look
        self._now = now
        self._match = match
        self._parts: list[tuple[Record, Page] | Damaged] = []
        self._left = PROPOSED
        self._room = PROPOSED_BYTES

    def read(self) -> Stretch:
        """What is left of the conversation at its place, and then what is behind that."""
        place = self._look.place
        if place is not None and place.position > 0:
            # Where it stood: active meanwhile, it stands before others by now, which were looked through already.
            query = replace(self._look.query, conversation_id=place.conversation_id)
            rows = self._rows(query, below=place.position)
            last = self._read(row for row in rows if _created(row) == place.created_at)
            if last is not None:
                return Stretch(tuple(self._parts), place._replace(position=last.position))
            if self._is_full():  # what stands behind it is the next stretch's
                return Stretch(tuple(self._parts), place._replace(position=0))
        query = replace(self._look.query, cursor=None if place is None else place.cursor)
        behind = self._read(self._rows(query))
        return Stretch(tuple(self._parts), behind)

    def _is_full(self) -> bool:
        return self._left <= 0 or self._room <= 0

    def _rows(self, query: Any, below: int | None = None) -> Iterable[tuple[Any, ...]]:
        where, values = queries.newest(query, self._now, select=SQL["search_proposed"], values=[self._match])
        if below is not None:
            where = where.replace(" ORDER BY ", " AND place & 4294967295 < ? ORDER BY ", 1)
            values.append(below)
        return self._db.execute(f"{where}, place DESC", values)

    def _read(self, rows: Iterable[tuple[Any, ...]]) -> Place | None:
        """Read what there is room for; the place of the last one if that is not all."""
        place = None
        for *row, number in rows:
            if self._is_full():
                return place
            try:
                header = kept(tuple(row)).record
            except MemoryStorageError as error:
                self._parts.append(Damaged(error))
                continue
            position = number & ((1 << POSITIONS) - 1)
            if not header.first_position <= position < header.end:
                continue
            body = self._db.execute(SQL["search_body"], (number,)).fetchone()
            if body is None:
                continue
            self._left -= 1
            self._room -= len(body[0])
            place = Place(*header.cursor, position)
            try:
                message = codec.decode_message(body[0], header.conversation_id)
            except MemoryStorageError as error:
                self._parts.append(Damaged(error))
                continue
            self._parts.append((header, Page((message,), position, position > header.first_position)))
        return None


def _created(row: Sequence[Any]) -> datetime | None:
    try:
        return kept(tuple(row[:-1])).record.created_at
    except MemoryStorageError:
        return None
