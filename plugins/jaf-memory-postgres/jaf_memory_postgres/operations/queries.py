"""`MemoryQuery` as SQL: every filter is pushed down, every value is bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaf_memory_core import rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.values import identifier
from jaf_memory_postgres import rows

SHORT = 1_000
"""Limits up to which each has a statement of its own."""


OWNED = "header.user_id = {}"

OWNED_UNSEEN = "header.user_id = (SELECT {}::text)"
"""The same, for the newest of a user: the server keeps one plan for all users. It knows how many conversations some of
them have, and seeing whose are wanted it would plan anew at each call, which takes longer than the ten steps in the
index that come of it, for every user."""


class Search:
    """Conditions and their values, collected.

    Attributes:
        impossible: whether nothing can match, so that the server need not be asked.
    """

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: list[Any] = []
        self.impossible = False

    def bound(self, value: Any) -> str:
        """The place of one more value."""
        self.values.append(value)
        return f"${len(self.values)}"

    def add(self, condition: str, value: Any) -> None:
        """One more condition, with `{}` where its value stands."""
        self._conditions.append(condition.format(self.bound(value)))

    def require(self, condition: str) -> None:
        """One more condition without a value."""
        self._conditions.append(condition)

    @property
    def where(self) -> str:
        """All conditions together."""
        return " AND ".join(self._conditions) or "true"


def filters(query: MemoryQuery, owned: str = OWNED) -> Search:
    """The query's filters, without its cursor, limit and offset.

    Args:
        query: what is asked.
        owned: the condition on the owner.
    """
    search = Search()
    plain = (
        ("header.conversation_id = {}", query.conversation_id),
        (owned, query.user_id),
        ("header.created_at >= {}", query.since),
        ("header.created_at < {}", query.until),
        ("header.updated_at >= {}", query.active_since),
        ("header.updated_at < {}", query.active_until),
    )
    for condition, value in plain:
        if value is not None:
            search.add(condition, value)
    if query.trace_id is not None:
        _add_metadata(search, {"trace_id": query.trace_id})
    if query.metadata:
        _add_metadata(search, query.metadata)
    return search


def _add_metadata(search: Search, values: Mapping[str, Any]) -> None:
    rest = dict(values)
    if "user_id" in rest:
        # The owner is shown in the metadata, and kept beside it.
        owner = rest["user_id"]
        if owner is None:
            search.require("header.user_id IS NULL")
        else:
            del rest["user_id"]
            _add_owner(search, owner)
    if rest:
        # The second half says that the index, which leaves out the empty ones, will do.
        search.add("header.metadata @> {}::jsonb AND header.metadata <> '{{}}'", rows.wanted(rest))


def _add_owner(search: Search, owner: Any) -> None:
    try:
        search.add(OWNED, identifier(owner))
    except ValueError:
        search.impossible = True


def found(query: MemoryQuery, sql: Mapping[str, str]) -> tuple[str, list[Any]] | None:
    """Live conversations that match, newest `updated_at` first.

    Returns:
        the statement and its values, or `None` if nothing can match.
    """
    short = query.limit is not None and query.limit <= SHORT
    search = filters(query, OWNED_UNSEEN if short and _is_by_owner(query) else OWNED)
    if search.impossible:
        return None
    search.require(sql["live"])
    below = rules.activity_cursor(query)
    if below is not None:
        moment, key = search.bound(below[0]), search.bound(below[1])
        search.require(f"(header.updated_at, header.conversation_id) < ({moment}, {key})")
    asked = sql["find_whole" if query.include_messages else "find"]
    asked += f" {search.where} {sql['newest_first']}"
    if query.limit is not None:
        # Where the number stands in the statement, the server keeps one plan for it; else it plans at each call.
        asked += f" LIMIT {query.limit if short else search.bound(min(query.limit, rows.MOST))}"
    if query.offset:
        asked += f" OFFSET {search.bound(min(query.offset, rows.MOST))}"
    return asked, search.values


def _is_by_owner(query: MemoryQuery) -> bool:
    """Whether the owner is all that is asked for."""
    times = (query.since, query.until, query.active_since, query.active_until)
    others = (query.conversation_id, query.trace_id, query.metadata, *times)
    return all(value is None for value in others)


def scanned(
    query: MemoryQuery, above: tuple[Any, str] | None, limit: int, sql: Mapping[str, str]
) -> tuple[str, list[Any]] | None:
    """A page of conversations that match, expired ones too, oldest first; each with its size, without messages.

    Returns:
        the statement and its values, or `None` if nothing can match.
    """
    search = filters(query)
    if search.impossible:
        return None
    if above is not None:
        moment, key = search.bound(above[0]), search.bound(above[1])
        search.require(f"(header.created_at, header.conversation_id) > ({moment}, {key})")
    return f"{sql['scan']} {search.where} {sql['oldest_first']} LIMIT {limit}", search.values
