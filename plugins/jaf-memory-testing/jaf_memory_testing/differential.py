"""Random conversations and random queries, against what a query means, written a second time in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jaf_memory_core import codec
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Record
from jaf_memory_testing.checks import Checks, examples, needs
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found, paged
from jaf_memory_testing.samples import at, kept, put, said, talk
from jaf_memory_testing.target import Store


def expected_found(records: Sequence[Record], query: MemoryQuery, now: Any) -> list[str]:
    """The ids that `find_conversations` gives, in order."""
    passing = [record for record in records if alive(record, now) and passes(record, query)]
    by_id = sorted(passing, key=lambda record: record.conversation_id, reverse=True)
    newest_first = sorted(by_id, key=lambda record: record.active_at, reverse=True)
    if query.cursor is not None:
        _, moment, last = query.cursor
        newest_first = [
            record
            for record in newest_first
            if record.active_at < moment or (record.active_at == moment and record.conversation_id < last)
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
        query.active_since is None or not record.active_at < query.active_since,
        query.active_until is None or record.active_at < query.active_until,
        query.updated_since is None or not record.updated_at < query.updated_since,
        query.updated_until is None or record.updated_at < query.updated_until,
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


IDS = ("a", "A", "b", "c*", "d:e", "é", "\U0001f44d", "\uffee")
USERS = ("u", "U", "u*")
VALUES: tuple[Any, ...] = (
    0,
    1,
    1.0,
    True,
    False,
    None,
    "1",
    "",
    "t",
    -0.0,
    0.0,
    2**70,
    [1],
    [1.0],
    {},
    {"a": 1, "b": 2},
)
SECONDS = (0.0, 0.000001, 1.0, 2.0, 3.0)

times = st.sampled_from(SECONDS)
moments = times.map(at)
later_moments = times.map(lambda seconds: at(seconds + 3))
metadata = st.dictionaries(st.sampled_from(("x", "X", "x.y", "trace_id")), st.sampled_from(VALUES), max_size=3)


@st.composite
def stored(draw: st.DrawFn) -> list[Record]:
    """Records with distinct ids, and times that often are equal."""
    return [
        kept(
            key,
            created=draw(times),
            updated=draw(times) + 3,
            active=draw(st.none() | times.map(lambda seconds: seconds + 3)),
            messages=draw(st.sampled_from(([], talk(1), talk(3), [said("é\0", message_id="m")]))),
            metadata=draw(metadata),
            user_id=draw(st.sampled_from((None, *USERS))),
            # Either long past or far away, so that it does not depend on the moment.
            expires_at=draw(st.sampled_from((None, None, at(10), at(10**10)))),
        )
        for key in draw(st.lists(st.sampled_from(IDS), min_size=2, unique=True))
    ]


FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.sampled_from((*USERS, "nobody")),
    "metadata": metadata | st.sampled_from([{"x": value} for value in VALUES] + [{"user_id": user} for user in USERS]),
    "trace_id": st.sampled_from(("t", "1", "")),
    "since": moments,
    "until": moments,
    "active_since": later_moments,
    "active_until": later_moments,
    "updated_since": later_moments,
    "updated_until": later_moments,
    "conversation_id": st.sampled_from((*IDS, "missing")),
}


@st.composite
def queries(draw: st.DrawFn) -> MemoryQuery:
    """Queries in which few filters are set at a time, so that something passes them."""
    names = draw(st.lists(st.sampled_from(tuple(FILTERS)), max_size=3, unique=True))
    return MemoryQuery(
        **{name: draw(FILTERS[name]) for name in names},
        limit=draw(st.none() | st.integers(0, 4)),
        offset=draw(st.sampled_from((0, 0, 1, 2))),
    )


class DifferentialChecks(Checks):
    """What the store answers is what plain Python says."""

    @needs("backend")
    def test_random_queries(self, store: Store) -> None:
        """Random queries over random conversations give exactly what the oracle gives, in its order."""
        provider = store.run(store.open())

        @examples(80)
        @given(stored(), st.lists(queries(), min_size=3, max_size=6))
        def agree(records: list[Record], asked: list[MemoryQuery]) -> None:
            store.run(_compare(store, provider, records, asked))

        agree()

    @needs("backend")
    def test_random_pages(self, store: Store) -> None:
        """Random queries that are read page by page give the same as at once, in both orders."""
        provider = store.run(store.open())

        @examples(40)
        @given(stored(), queries(), st.integers(1, 3))
        def agree(records: list[Record], query: MemoryQuery, size: int) -> None:
            store.run(_compare_pages(store, provider, records, query, size))

        agree()

    @needs("backend")
    def test_random_statistics(self, store: Store) -> None:
        """Statistics over random conversations, of all and of each user, are what counting gives."""
        provider = store.run(store.open())

        @examples(40)
        @given(stored())
        def agree(records: list[Record]) -> None:
            store.run(_compare_statistics(store, provider, records))

        agree()


async def _compare(store: Store, provider: BackendProvider, records: list[Record], asked: list[MemoryQuery]) -> None:
    await _fill(store, provider, records)
    # By the store's clock, which decides what has expired.
    now = provider.backend.now()
    for query in asked:
        assert await found(provider, query) == expected_found(records, query, now), query
        assert await passed(provider, query) == expected_passed(records, query, now), query
        for user in USERS[:2]:
            view = provider.for_user(user)
            own = [record for record in records if record.user_id == user]
            assert await found(view, query) == expected_found(own, query, now), (user, query)
            assert await passed(view, query) == expected_passed(own, query, now), (user, query)


async def _compare_pages(
    store: Store, provider: BackendProvider, records: list[Record], query: MemoryQuery, size: int
) -> None:
    await _fill(store, provider, records)
    now = provider.backend.now()
    fields = {name: getattr(query, name) for name in query.__struct_fields__ if name not in ("limit", "offset")}
    every = MemoryQuery(**fields)
    pages = await paged(provider, MemoryQuery(**{**fields, "limit": size}))
    assert pages == expected_found(records, every, now)
    for one in await provider.find_conversations(every):
        assert await found(provider, every.after(one)) == expected_found(records, every.after(one), now)
    passing = [one async for one in provider.iter_conversations(every)]
    for n, one in enumerate(passing):
        assert await passed(provider, every.after(one)) == [other.conversation_id for other in passing[n + 1 :]]


async def _compare_statistics(store: Store, provider: BackendProvider, records: list[Record]) -> None:
    await _fill(store, provider, records)
    now = provider.backend.now()
    for user in (None, *USERS, "nobody"):
        live = [record for record in records if alive(record, now) and user in (None, record.user_id)]
        messages = [message for record in live for message in record.messages]
        stats = await provider.get_stats(user)
        assert stats["total_conversations"] == len(live)
        assert stats["total_messages"] == len(messages)
        assert stats["total_storage_size"] == sum(len(codec.encode(message)) for message in messages)
        assert stats["oldest_conversation"] == min((record.created_at for record in live), default=None)
        assert stats["newest_conversation"] == max((record.created_at for record in live), default=None)


async def _fill(store: Store, provider: BackendProvider, records: list[Record]) -> None:
    await store.empty(provider)
    await put(provider, *records)
