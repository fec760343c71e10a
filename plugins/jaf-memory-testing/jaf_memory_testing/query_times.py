"""Finding conversations by their times, at the very bounds."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import at, kept, put, talk
from jaf_memory_testing.target import Store


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
