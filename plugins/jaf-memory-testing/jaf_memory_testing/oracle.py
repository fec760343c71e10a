"""What a query means, written a second time, in the plainest way, and without a look at `rules.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.records import Record


def expected_found(records: Sequence[Record], query: MemoryQuery, now: Any) -> list[str]:
    """The ids that `find_conversations` gives, in order."""
    passing = [record for record in records if alive(record, now) and passes(record, query)]
    by_id = sorted(passing, key=lambda record: record.conversation_id, reverse=True)
    newest_first = sorted(by_id, key=lambda record: record.updated_at, reverse=True)
    if query.cursor is not None:
        _, moment, last = query.cursor
        newest_first = [
            record
            for record in newest_first
            if record.updated_at < moment or (record.updated_at == moment and record.conversation_id < last)
        ]
    return _cut(newest_first, query)


def expected_passed(records: Sequence[Record], query: MemoryQuery, now: Any) -> list[str]:
    """The ids that `iter_conversations` passes, in order."""
    passing = [record for record in records if alive(record, now) and passes(record, query)]
    by_id = sorted(passing, key=lambda record: record.conversation_id)
    oldest_first = sorted(by_id, key=lambda record: record.created_at)
    if query.cursor is not None:
        moment, _, last = query.cursor
        oldest_first = [
            record
            for record in oldest_first
            if record.created_at > moment or (record.created_at == moment and record.conversation_id > last)
        ]
    return _cut(oldest_first, query)


def _cut(records: list[Record], query: MemoryQuery) -> list[str]:
    end = len(records) if query.limit is None else query.offset + query.limit
    return [record.conversation_id for record in records[query.offset : end]]


def alive(record: Record, now: Any) -> bool:
    """Whether it has not expired."""
    return record.expires_at is None or record.expires_at > now


def passes(record: Record, query: MemoryQuery) -> bool:
    """Whether it passes every filter."""
    shown = dict(record.metadata)
    if record.user_id is not None:
        shown["user_id"] = record.user_id
    wanted = dict(query.metadata or {})
    checks = [
        query.conversation_id is None or record.conversation_id == query.conversation_id,
        query.user_id is None or record.user_id == query.user_id,
        query.trace_id is None or ("trace_id" in shown and same(shown["trace_id"], query.trace_id)),
        all(key in shown and same(shown[key], value) for key, value in wanted.items()),
        query.since is None or not record.created_at < query.since,
        query.until is None or record.created_at < query.until,
        query.active_since is None or not record.updated_at < query.active_since,
        query.active_until is None or record.updated_at < query.active_until,
    ]
    return all(checks)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, with 1, 1.0 and True apart, and the order of keys ignored."""
    if isinstance(left, dict) and isinstance(right, dict):
        return set(left) == set(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return repr(left) == repr(right)
    return type(left) is type(right) and bool(left == right)
