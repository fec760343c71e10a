"""Many appends in one transaction, the messages of new conversations in one go."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.records import Write
from jaf_memory_core.results import WriteResult
from jaf_memory_sqlite import statements as sql
from jaf_memory_sqlite.rows import columns, row_of
from jaf_memory_sqlite.writing import Clock, longest, write

CREATE_MISSING = sql.CREATE.replace("INSERT", "INSERT OR IGNORE", 1)

Row = tuple[int, int, str, bytes]


def append_many(db: sqlite3.Connection, requests: Sequence[Write], clock: Clock) -> list[WriteResult | MemoryError]:
    """Do each of these appends, or say why it is refused.

    Raises:
        MemoryError: one was refused half-way. The transaction has to be rolled back, with all of them.
    """
    outcomes: list[WriteResult | MemoryError] = []
    rows: list[Row] = []
    made: set[str] = set()
    for request in requests:
        result = _made(db, request, clock, rows)
        if result is not None:
            made.add(request.conversation_id)
            outcomes.append(result)
            continue
        if request.conversation_id in made:
            _add(db, rows)
            made.clear()
        before = db.total_changes
        try:
            outcomes.append(write(db, request, clock))
        except MemoryError as refusal:
            if db.total_changes != before:
                raise
            outcomes.append(refusal)
    _add(db, rows)
    return outcomes


def _made(db: sqlite3.Connection, request: Write, clock: Clock, rows: list[Row]) -> WriteResult | None:
    """Make a conversation that is not there, all but its messages; `None`, and nothing is changed, if one is."""
    if not request.create or request.expected_version:
        return None
    plan = rules.plan_write(None, request, {}, clock())
    done = db.execute(CREATE_MISSING, columns(plan.header, codec.size(request.bodies), longest(request.bodies)))
    key = done.lastrowid
    if not done.rowcount or key is None:
        return None
    first = row_of(key, plan.header.first_position)
    rows += [
        (row, key, message.message_id, body)
        for row, (message, body) in enumerate(zip(request.messages, request.bodies, strict=True), first)
    ]
    return plan.result


def _add(db: sqlite3.Connection, rows: list[Row]) -> None:
    db.executemany(sql.ADD, rows)
    rows.clear()
