"""`MemoryQuery` as SQL: every filter is pushed down, every value is bound."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from jaf_memory_core import rules
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.values import identifier
from jaf_memory_postgres import rows

SHORT = 1_000
"""Limits up to which each has a statement of its own, where that is good for it."""


PLACE = re.compile(r'"(?:[^"]|"")*"|(?<!:):(walk|most|limit|offset|within|where|among|wanted|time|room)\b')
"""A place in a statement, or a quoted name: one of ours may itself hold what looks like a place."""

OWNER = re.compile(r"^header\.user_id = (\$\d+)$")
_IN_ORDER = ("header.user_id = ", "header.active_span ", "(header.updated_at, ", "header.updated_at ")

WALK, LEAST_WALK, MOST_WALK = 100, 1_000, 5_000
"""Newest conversations that a search looks at first: so many for each that is wanted, at least, and at most."""

OWNED = "header.user_id = {}"


class Search:
    """Conditions and their values, collected.

    Attributes:
        impossible: whether nothing can match, so that the server need not be asked.
        wanted: the place of metadata that has to be there, or `None`.

    Args:
        sql: the statements.
    """

    def __init__(self, sql: Mapping[str, str]) -> None:
        self._sql = sql
        self._conditions: list[str] = []
        self.wanted: str | None = None
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

    def active(self, comparison: str, moment: str) -> None:
        """A bound on the twentieth of a second of the last activity, which has the index, beside that on the time."""
        self.require(f"header.active_span {comparison} {_filled(self._sql['span'], {'time': moment})}")

    def owned_unseen(self, user_id: Any, moment: str | None) -> None:
        """The condition on the owner for the newest of a user, from that moment on, which only his own index answers.

        By bounds, and in the order of the owner first: to "equal to" the server would, where few users have many
        conversations, walk through those of all in the order of activity. And it sees no value, so that it keeps one
        plan for all users: knowing how many some of them have, it would plan anew at each call.
        """
        owner = f"(SELECT {self.bound(user_id)}::text)"
        self.require(f"header.user_id >= {owner}")
        if moment is None:
            self.require(f"header.user_id <= {owner}")
        else:
            # One bound, at which the index begins: of two the server might take the other, and walk up to this.
            span = _filled(self._sql["span"], {"time": moment})
            self.require(f"(header.user_id, header.active_span) <= ({owner}, {span})")

    def changed(self, since: str) -> None:
        """A lower bound on the last change, of messages or of anything else: each has an index of its own."""
        span = _filled(self._sql["span"], {"time": since})
        active = f"header.active_span >= {span} AND header.updated_at >= {since}"
        self.require(f"({active} OR header.amended_at >= {since})")

    def labelled(self) -> str:
        """The condition that metadata are looked up in their own index, or one that holds."""
        return "true" if self.wanted is None else _filled(self._sql["labelled"], {"wanted": self.wanted})

    @property
    def where(self) -> str:
        """All conditions together."""
        return " AND ".join(self._conditions) or "true"

    @property
    def within(self) -> str:
        """Those that an index in the order of activity answers by itself, with the owner unseen."""
        unseen = (OWNER.sub(r"header.user_id = (SELECT \1::text)", one) for one in self._conditions)
        return " AND ".join(one for one in unseen if one.startswith(_IN_ORDER)) or "true"


def _filled(text: str, places: Mapping[str, str]) -> str:
    return PLACE.sub(lambda found: places[found[1]] if found[1] else found[0], text)


def filters(query: MemoryQuery, sql: Mapping[str, str]) -> Search:
    """The query's filters, without its cursor, limit and offset."""
    search = Search(sql)
    _add_filters(search, query)
    return search


def _add_filters(search: Search, query: MemoryQuery) -> None:
    plain = (
        ("header.conversation_id = {}", query.conversation_id),
        (OWNED, query.user_id),
        ("header.created_at >= {}", query.since),
        ("header.created_at < {}", query.until),
        ("header.updated_at >= {}", query.active_since),
        ("header.updated_at < {}", query.active_until),
        ("coalesce(header.amended_at < {}, true)", query.updated_until),
        ("header.updated_at < {}", query.updated_until),
    )
    for condition, value in plain:
        if value is not None:
            search.add(condition, value)
    if query.updated_since is not None:
        search.changed(search.bound(query.updated_since))
    for comparison, moment in ((">=", query.active_since), ("<=", query.active_until), ("<=", query.updated_until)):
        if moment is not None:
            search.active(comparison, search.bound(moment))
    if query.trace_id is not None:
        _add_metadata(search, {"trace_id": query.trace_id})
    if query.metadata:
        _add_metadata(search, query.metadata)


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
        search.add("header.metadata @> {}::text::jsonb", rows.wanted(rest))
        search.wanted = search.wanted or f"${len(search.values)}"


def _add_owner(search: Search, owner: Any) -> None:
    try:
        search.add(OWNED, identifier(owner))
    except ValueError:
        search.impossible = True


def found(query: MemoryQuery, sql: Mapping[str, str]) -> tuple[str, list[Any]] | None:
    """Live conversations that match, newest activity first.

    Returns:
        the statement and its values, or `None` if nothing can match.
    """
    short = query.limit is not None and query.limit + query.offset <= SHORT
    by_owner = _is_by_owner(query)
    of_user = short and by_owner and query.user_id is not None
    search = Search(sql) if of_user else filters(query, sql)
    if search.impossible:
        return None
    search.require(sql["live"])
    below = rules.activity_cursor(query)
    moment = None
    if below is not None:
        moment, key = search.bound(below[0]), search.bound(below[1])
        search.require(f"(header.updated_at, header.conversation_id) < ({moment}, {key})")
        search.active("<=", moment)
    if of_user:
        search.owned_unseen(query.user_id, moment)
    columns = "whole" if query.include_messages else "headers"
    if short and not by_owner and query.conversation_id is None:
        return _bounded(query, search, columns, sql)
    if query.conversation_id is None and _is_narrow(query):
        search.require(search.labelled())
    asked = f"{sql[f'find_{columns}']} {search.where}"
    order = sql["newest_of_user" if of_user else "newest_spans"]
    if short and by_owner and not query.offset:
        # In the order of the index, with all that share the last one's place in it: `newest` sorts them.
        return f"{asked} {order} FETCH FIRST {query.limit} ROWS WITH TIES", search.values
    asked += f" {order}, {sql['within_span']}"
    if query.limit is not None:
        # Where the number stands in the statement, the server keeps one plan for it; else it plans at each call.
        asked += f" LIMIT {query.limit if short else search.bound(min(query.limit, rows.MOST))}"
    if query.offset:
        asked += f" OFFSET {search.bound(min(query.offset, rows.MOST))}"
    return asked, search.values


def newest(listed: Sequence[Any], query: MemoryQuery) -> Sequence[Any]:
    """The rows that answer a search, of those that came: some more may have come, and in no order among the newest."""
    if query.limit is None or query.offset:
        return listed
    return sorted(listed, key=_ACTIVITY, reverse=True)[: query.limit]


_ACTIVITY = itemgetter(4, 0)
"""Time and id, in the order of the statement `columns`. Python sorts text as COLLATE "C" does."""


def _bounded(query: MemoryQuery, search: Search, columns: str, sql: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A search of which the server cannot know whether what matches is among the newest.

    It guesses, and a wrong guess walks through all conversations. So it looks at some of the newest, and where those do
    not suffice, at all that match by the filters' own index, whatever plan it keeps.
    """
    limit = query.limit or 0
    most = limit + query.offset
    # A trace id is one conversation's, or a few's: hardly ever among the newest by chance.
    walk = 0 if query.trace_id is not None else max(LEAST_WALK, min(MOST_WALK, WALK * most))
    places = {
        "walk": search.bound(walk),
        "most": search.bound(most),
        "limit": search.bound(limit),
        "offset": search.bound(query.offset),
        "within": search.within,
        "where": search.where,
        "among": search.labelled() if _is_narrow(query) else "true",
    }
    return _filled(sql[f"bounded_{columns}"], places), search.values


def _is_narrow(query: MemoryQuery) -> bool:
    """Whether the index over the metadata keeps fewer than the owner's does."""
    # An owner of null is looked for in the metadata: of conversations without an owner there may be any number.
    named = None if query.metadata is None else query.metadata.get("user_id")
    return query.trace_id is not None or (query.user_id is None and named is None)


def _is_by_owner(query: MemoryQuery) -> bool:
    """Whether nothing but the owner, if anything, is asked for."""
    times = (query.since, query.until, query.active_since, query.active_until, query.updated_since, query.updated_until)
    others = (query.conversation_id, query.trace_id, query.metadata, *times)
    return all(value is None for value in others)


def scanned(
    query: MemoryQuery, above: tuple[Any, str] | None, limit: int, sql: Mapping[str, str], room: int | None = None
) -> tuple[str, list[Any]] | None:
    """A page of conversations that match, expired ones too, oldest first; each with its size.

    Args:
        query: which conversations.
        above: behind which time of creation and id.
        limit: how many at most.
        sql: the statements.
        room: bytes of messages with which the page ends; `None` for a page without messages.

    Returns:
        the statement and its values, or `None` if nothing can match.
    """
    search = filters(query, sql)
    if search.impossible:
        return None
    if query.trace_id is not None:
        # Other metadata may be that of all: a page that looked them up each time would be as long as the whole way.
        search.require(search.labelled())
    if above is not None:
        moment, key = search.bound(above[0]), search.bound(above[1])
        search.require(f"(header.created_at, header.conversation_id) > ({moment}, {key})")
    most = str(limit) if _is_by_owner(query) else search.bound(limit)
    if room is None:
        return f"{sql['scan']} {search.where} {sql['oldest_first']} LIMIT {most}", search.values
    places = {"where": search.where, "most": most, "room": search.bound(room)}
    return _filled(sql["scan_whole"], places), search.values


def proposed(
    query: MemoryQuery, sql: Mapping[str, str], first: Sequence[Any], limit: int, below: int | None
) -> tuple[str, list[Any]]:
    """Messages that an index proposes, of live conversations that match, newest first.

    Args:
        query: which conversations.
        sql: the statements.
        first: values of the statement itself.
        limit: at most so many.
        below: only below this position.

    Returns:
        the statement and its values.
    """
    search = Search(sql)
    search.values += first
    _add_filters(search, query)
    search.require(sql["live"])
    cursor = rules.activity_cursor(query)
    if cursor is not None:
        moment, key = search.bound(cursor[0]), search.bound(cursor[1])
        search.require(f"(header.updated_at, header.conversation_id) < ({moment}, {key})")
    if below is not None:
        search.add("place.position < {}", below)
    return _filled(sql["search_proposed"], {"where": search.where, "limit": search.bound(limit)}), search.values
