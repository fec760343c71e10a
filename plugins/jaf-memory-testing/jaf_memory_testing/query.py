"""Finding conversations, also by their times, at the very bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.hostile import IDS, VALUES
from jaf_memory_testing.samples import at, kept, put, said, talk
from jaf_memory_testing.target import Store


async def found(provider: BackendProvider, query: MemoryQuery | None = None, **filters: Any) -> list[str]:
    """The ids that a query finds, in order."""
    conversations = await provider.find_conversations(query or MemoryQuery(**filters))
    assert type(conversations) is list
    return [conversation.conversation_id for conversation in conversations]


async def paged(provider: BackendProvider, query: MemoryQuery) -> list[str]:
    """The ids that a query finds page by page, in order."""
    seen: list[str] = []
    while page := await provider.find_conversations(query):
        assert query.limit is None or len(page) <= query.limit
        seen += [conversation.conversation_id for conversation in page]
        assert len(seen) == len(set(seen)), "a page repeats what another one had"
        query = query.after(page[-1])
    return seen


class QueryChecks(Checks):
    """The filters and the order of `find_conversations`."""

    async def test_all(self, store: Store) -> None:
        """A query without filters finds all, the one that was written last first."""
        provider = await store.open()
        assert await found(provider) == []
        for n in range(5):
            done(await provider.store_messages(f"c{n}", talk(1)))
            # Two writes within one millisecond may have one time, and then the ids decide.
            await asyncio.sleep(0.002)
        assert await found(provider) == ["c4", "c3", "c2", "c1", "c0"]

    @pytest.mark.parametrize("way", ["append", "truncate", "store"])
    async def test_written_comes_first(self, store: Store, way: str) -> None:
        """Every write of messages brings its conversation to the front."""
        provider = await store.open()
        for name in ("a", "b", "c"):
            done(await provider.store_messages(name, talk(3)))
            await asyncio.sleep(0.002)
        writes: dict[str, Callable[[], Awaitable[Any]]] = {
            "append": lambda: provider.append_messages("a", talk(1, "n")),
            "truncate": lambda: provider.truncate_conversation_after("a", "m2"),
            "store": lambda: provider.store_messages("a", talk(1)),
        }
        await writes[way]()
        assert await found(provider) == ["a", "c", "b"]

    @needs("backend")
    async def test_ties(self, store: Store) -> None:
        """Conversations of one `active_at` come by id, descending by code points, whenever else they were changed."""
        provider = await store.open()
        names = ["a", "b", "B", "a1", "a10", "a2", "ä", "z", "😀", "\uffee", "_", "~"]
        times = [100 + 7 * n % 3 for n in range(len(names))]
        records = [kept(name, created=n, active=100, updated=times[n]) for n, name in enumerate(names)]
        await put(provider, *records)
        await put(provider, kept("older", active=99, updated=200), kept("newer", updated=101))
        assert await found(provider) == ["newer", *sorted(names, reverse=True), "older"]

    async def test_found_is_what_is_read(self, store: Store) -> None:
        """What a query finds equals what `get_conversation` gives, in every field."""
        provider = await store.open()
        done(await provider.store_messages("a", talk(3), {"a": [1.0]}, user_id="u"))
        done(await provider.store_messages("b", [said("x", value=[1, -0.0])], {"user_id": "v"}))
        await provider.set_expiry("b", 600)
        assert await provider.find_conversations(MemoryQuery()) == [
            await whole(provider, "b"),
            await whole(provider, "a"),
        ]

    async def test_without_messages(self, store: Store) -> None:
        """`include_messages=False` leaves `messages` empty, and `message_count` filled."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(7), {"a": 1}, user_id="u"))
        (conversation,) = await provider.find_conversations(MemoryQuery(include_messages=False))
        assert conversation.messages == ()
        assert conversation.message_count == 7
        assert conversation.metadata == {"a": 1, "user_id": "u"}

    async def test_by_conversation(self, store: Store) -> None:
        """`conversation_id` finds exactly that one."""
        provider = await store.open()
        for name in ("a", "A", "a*", "ab"):
            done(await provider.store_messages(name, talk(1)))
        for name in ("a", "A", "a*", "ab"):
            assert await found(provider, conversation_id=name) == [name]
        assert await found(provider, conversation_id="b") == []
        assert await found(provider, conversation_id="*") == []

    async def test_by_user(self, store: Store) -> None:
        """`user_id` finds that user's conversations only, whoever wrote last."""
        provider = await store.open()
        for n in range(9):
            done(await provider.store_messages(f"c{n}", talk(1), user_id=f"u{n % 3}"))
            await asyncio.sleep(0.002)
        done(await provider.store_messages("nobodys", talk(1)))
        assert await found(provider, user_id="u1") == ["c7", "c4", "c1"]
        assert await found(provider, user_id="u") == []

    async def test_users_never_meet(self, store: Store) -> None:
        """A query for one user never gives another's conversation, however alike their ids are."""
        provider = await store.open()
        for n, user in enumerate(IDS):
            done(await provider.store_messages(f"c{n}", talk(1), user_id=user))
        for n, user in enumerate(IDS):
            assert await found(provider, user_id=user) == [f"c{n}"], f"the user {user!r} has met another"

    async def test_owner_given_later_is_found(self, store: Store) -> None:
        """A conversation that gets its owner later is found by it from then on."""
        provider = await store.open()
        done(await provider.store_messages("a", talk(1)))
        done(await provider.store_messages("b", talk(1)))
        assert await found(provider, user_id="u") == []
        done(await provider.append_messages("a", talk(1, "n"), user_id="u"))
        await provider.update_metadata("b", {"user_id": "u"})
        assert sorted(await found(provider, user_id="u")) == ["a", "b"]

    async def test_by_trace(self, store: Store) -> None:
        """`trace_id` finds what has it in its metadata, as text."""
        provider = await store.open()
        for name, trace in (("a", "t"), ("b", "T"), ("c", "t "), ("d", 1), ("e", ["t"]), ("f", "\0\ud800")):
            done(await provider.store_messages(name, talk(1), {"trace_id": trace}))
        done(await provider.store_messages("g", talk(1), {"other": {"trace_id": "t"}}))
        assert await found(provider, trace_id="t") == ["a"]
        assert await found(provider, trace_id="1") == []
        assert await found(provider, trace_id="\0\ud800") == ["f"]

    @pytest.mark.parametrize("name", list(VALUES))
    async def test_by_metadata_value(self, store: Store, name: str) -> None:
        """Metadata equality finds any value that was stored, and only where it was stored."""
        provider = await store.open()
        done(await provider.store_messages("a", talk(1), {"x": VALUES[name], "y": 1}))
        done(await provider.store_messages("b", talk(1), {"x": "another value", "y": 1}))
        done(await provider.store_messages("c", talk(1), {"y": VALUES[name]}))
        assert await found(provider, metadata={"x": VALUES[name]}) == ["a"]

    async def test_metadata_equality_is_type_exact(self, store: Store) -> None:
        """1, 1.0, True and "1" differ, at the top and deep inside; null is not absence."""
        provider = await store.open()
        values = [1, 1.0, True, "1", 0, 0.0, -0.0, False, "", None, [], {}, [1], [1.0], [True], {"a": 1}, {"a": 1.0}]
        values += [10**22, 1e22, [None], "null", [[]], [{}], {"a": None}]
        # As patterns, without their case, by their beginnings, by a part: what query languages take for equal.
        values += ["a_b", "axb", "a%", "A%", "x" * 2_000 + "1", "x" * 2_000 + "2", [1, 1], [1, 2], {"a": 1, "b": 2}]
        for n, value in enumerate(values):
            done(await provider.store_messages(f"c{n}", talk(1), {"x": value}))
        done(await provider.store_messages("absent", talk(1), {"y": 1}))
        for n, value in enumerate(values):
            assert await found(provider, metadata={"x": value}) == [f"c{n}"], f"{value!r} has met another value"

    async def test_metadata_order_of_keys(self, store: Store) -> None:
        """Objects are equal whatever the order of their keys."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"x": {"a": 1, "b": [{"c": 2, "d": 3}]}}))
        assert await found(provider, metadata={"x": {"b": [{"d": 3, "c": 2}], "a": 1}}) == ["c"]
        assert await found(provider, metadata={"x": {"a": 1}}) == []

    async def test_metadata_keys(self, store: Store) -> None:
        """Each of several keys must hold; keys are texts, whatever characters they have."""
        provider = await store.open()
        keys = ["a", "A", "a.b", "a'b", 'a"b', "%", "a%", "$.a", "", "a\0", "😀", "a[0]", "{a}", "?", ":a"]
        for n, key in enumerate(keys):
            done(await provider.store_messages(f"c{n}", talk(1), {key: 1, "n": n}))
        done(await provider.store_messages("nested", talk(1), {"o": {"p": 1}}))
        for n, key in enumerate(keys):
            assert await found(provider, metadata={key: 1}) == [f"c{n}"], f"the key {key!r} has met another"
        assert await found(provider, metadata={"a": 1, "n": 0}) == ["c0"]
        assert await found(provider, metadata={"a": 1, "n": 1}) == []
        assert await found(provider, metadata={"o.p": 1}) == await found(provider, metadata={"$.o.p": 1}) == []
        assert len(await found(provider, metadata={})) == len(keys) + 1

    async def test_metadata_follows_changes(self, store: Store) -> None:
        """A changed value is found by the new one, and no longer by the old."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), {"x": 1, "y": 1}))
        await provider.update_metadata("c", {"x": 2})
        assert await found(provider, metadata={"x": 1}) == []
        assert await found(provider, metadata={"x": 2, "y": 1}) == ["c"]

    async def test_owner_counts_as_metadata(self, store: Store) -> None:
        """The owner is found by `metadata={"user_id": …}`, too, as it is shown there."""
        provider = await store.open()
        done(await provider.store_messages("a", talk(1), user_id="u"))
        done(await provider.store_messages("b", talk(1), user_id="v"))
        assert await found(provider, metadata={"user_id": "u"}) == ["a"]

    async def test_gone_is_not_found(self, store: Store) -> None:
        """What was deleted is not found, and what was made again is found once."""
        provider = await store.open()
        for name in ("a", "b"):
            done(await provider.store_messages(name, talk(1), {"x": 1}, user_id="u"))
            assert await provider.delete_conversation(name) is True
        done(await provider.store_messages("a", talk(1), user_id="v"))
        assert await found(provider) == ["a"]
        assert await found(provider, user_id="u") == []
        assert await found(provider, user_id="v") == ["a"]
        assert await found(provider, metadata={"x": 1}) == []

    async def test_no_query(self, store: Store) -> None:
        """Something else than a `MemoryQuery` is refused."""
        provider = await store.open()
        nothing: Any = {"user_id": "u"}
        with pytest.raises(MemoryInvalidInputError):
            await provider.find_conversations(nothing)


class QueryPageChecks(Checks):
    """`limit`, `offset` and `after`."""

    async def _seven(self, store: Store) -> BackendProvider:
        provider = await store.open()
        for n in range(7):
            done(await provider.store_messages(f"c{n}", talk(1), user_id="u" if n % 2 else "v"))
            await asyncio.sleep(0.002)
        return provider

    async def test_limit(self, store: Store) -> None:
        """`limit` gives at most so many, 0 none, and `None` all."""
        provider = await self._seven(store)
        assert await found(provider, limit=3) == ["c6", "c5", "c4"]
        assert await found(provider, limit=0) == []
        assert await found(provider, limit=7) == await found(provider, limit=8) == await found(provider, limit=None)
        assert len(await found(provider)) == 7

    async def test_offset(self, store: Store) -> None:
        """`offset` leaves out so many first, with and without a limit, and beyond the end."""
        provider = await self._seven(store)
        assert await found(provider, offset=5) == ["c1", "c0"]
        assert await found(provider, offset=2, limit=2) == ["c4", "c3"]
        assert await found(provider, offset=7) == []
        assert await found(provider, offset=1, limit=2, user_id="u") == ["c3", "c1"]

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
    async def test_after(self, store: Store, size: int) -> None:
        """`query.after(last)` leads through all pages: each conversation once, in order."""
        provider = await self._seven(store)
        assert await paged(provider, MemoryQuery(limit=size)) == ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]

    @needs("backend")
    async def test_after_within_ties(self, store: Store) -> None:
        """`after` goes on within conversations of one `active_at`."""
        provider = await store.open()
        await put(provider, *(kept(name, created=5, updated=100) for name in "abcdefg"))
        assert await paged(provider, MemoryQuery(limit=2)) == list("gfedcba")

    async def test_after_keeps_the_filters(self, store: Store) -> None:
        """`after` keeps every filter, and drops the offset."""
        provider = await self._seven(store)
        query = MemoryQuery(user_id="v", limit=2, offset=1)
        page = await provider.find_conversations(query)
        assert [one.conversation_id for one in page] == ["c4", "c2"]
        assert await found(provider, query.after(page[-1])) == ["c0"]

    async def test_after_what_is_gone(self, store: Store) -> None:
        """`after` a conversation that was deleted meanwhile goes on at its place."""
        provider = await self._seven(store)
        query = MemoryQuery(limit=3)
        page: list[ConversationMemory] = await provider.find_conversations(query)
        assert await provider.delete_conversation(page[-1].conversation_id) is True
        assert await found(provider, query.after(page[-1])) == ["c3", "c2", "c1"]


class TimeChecks(Checks):
    """The filters on times, at their very bounds."""

    @needs("backend")
    @pytest.mark.parametrize("way", ["created", "active", "updated"])
    async def test_bounds(self, store: Store, way: str) -> None:
        """`since` is on creation, `active_…` on messages, `updated_…` on any change; from inclusive, to exclusive."""
        provider = await store.open()
        elsewhere = {"created": 0, "active": 5, "updated": 99}
        times: list[dict[str, Any]] = [{**elsewhere, way: 10 + n * 1e-6} for n in range(5)]
        await put(provider, *(kept(f"c{n}", **time) for n, time in enumerate(times)))
        moment = [at(10 + n * 1e-6) for n in range(5)]

        async def between(since: int | None, until: int | None) -> list[str]:
            names = ("since", "until") if way == "created" else (f"{way}_since", f"{way}_until")
            bounds = zip(names, (since, until), strict=True)
            filters: dict[str, Any] = {name: moment[n] for name, n in bounds if n is not None}
            return sorted(await found(provider, **filters))

        assert await between(2, None) == ["c2", "c3", "c4"]
        assert await between(None, 2) == ["c0", "c1"]
        assert await between(1, 4) == ["c1", "c2", "c3"]
        assert await between(2, 2) == []
        assert await between(3, 1) == []

    async def test_bounds_by_own_times(self, store: Store) -> None:
        """A conversation is found from each of its own times on, and not up to it."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        await asyncio.sleep(0.002)
        done(await provider.append_messages("c", talk(1, "n")))
        conversation = await whole(provider)
        assert await found(provider, since=conversation.created_at) == ["c"]
        assert await found(provider, until=conversation.created_at) == []
        assert await found(provider, active_since=conversation.active_at) == ["c"]
        assert await found(provider, active_until=conversation.active_at) == []
        assert await found(provider, updated_since=conversation.updated_at) == ["c"]
        assert await found(provider, updated_until=conversation.updated_at) == []

    @needs("backend")
    async def test_naive_is_local(self, store: Store, local_time: None) -> None:
        """A naive datetime means local time."""
        provider = await store.open()
        await put(provider, kept("c", created=0))
        local = datetime(2024, 1, 15, 15, 30)  # 10:00 UTC, where local time is ahead by 5:30
        assert at(0).astimezone().replace(tzinfo=None) == local
        assert await found(provider, since=local) == ["c"]
        assert await found(provider, until=local) == []
        assert await found(provider, since=datetime(2024, 1, 15, 15, 30, 0, 1)) == []

    async def test_extreme_times(self, store: Store) -> None:
        """The earliest and the latest datetimes that there are can be asked for."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        assert await found(provider, since=datetime.min, active_since=datetime.min, updated_since=datetime.min) == ["c"]
        assert await found(provider, until=datetime.max, active_until=datetime.max, updated_until=datetime.max) == ["c"]
        assert await found(provider, since=datetime.max) == []

    @needs("backend")
    async def test_all_filters_hold_together(self, store: Store) -> None:
        """A conversation is found if it passes every filter."""
        provider = await store.open()
        one: dict[str, Any] = {"user_id": "u", "metadata": {"x": 1, "trace_id": "t"}, "created": 10, "active": 20}
        others: list[dict[str, Any]] = [
            {"user_id": "v"},
            {"user_id": None},
            {"metadata": {"x": 1.0, "trace_id": "t"}},
            {"metadata": {"x": 1, "trace_id": "other"}},
            {"created": 9},
            {"created": 11},
            {"active": 19},
            {"active": 21},
            {"updated": 29},
            {"updated": 31},
        ]
        one["updated"] = 30
        await put(provider, kept("c", **one), *(kept(f"o{n}", **{**one, **other}) for n, other in enumerate(others)))
        every = MemoryQuery(
            user_id="u",
            trace_id="t",
            metadata={"x": 1},
            since=at(10),
            until=at(11),
            active_since=at(20),
            active_until=at(21),
            updated_since=at(30),
            updated_until=at(31),
        )
        assert await found(provider, every) == ["c"]
