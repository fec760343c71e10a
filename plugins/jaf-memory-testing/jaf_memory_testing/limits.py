"""Limits of what may be stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.expect import absent, done, refused, whole
from jaf_memory_testing.samples import nested, said, talk
from jaf_memory_testing.store import Store


class LimitChecks(Checks):
    """Limits are settable, hold exactly, and let nothing of a call through."""

    async def _held(self, provider: BackendProvider, *calls: Callable[[], Awaitable[Any]]) -> None:
        before = await whole(provider)
        for call in calls:
            refused(await call(), MemoryInvalidInputError)
        assert await whole(provider) == before
        await absent(provider, "new")

    async def test_bytes_of_a_message(self, store: Store) -> None:
        """`max_message_bytes` holds for each encoded message."""
        provider = await store.open(max_message_bytes=500)
        fits, large = said("x" * 400, message_id="a"), said("é" * 300, message_id="b")
        done(await provider.store_messages("c", [fits]))
        await self._held(
            provider,
            lambda: provider.append_messages("c", [*talk(1), large]),
            lambda: provider.store_messages("c", [large]),
            lambda: provider.store_messages("new", [*talk(1), large]),
        )

    async def test_bytes_of_a_call(self, store: Store) -> None:
        """`max_call_bytes` holds for all messages of a call together."""
        provider = await store.open(max_call_bytes=2000)
        many = [said("x" * 300, message_id=f"n{n}") for n in range(10)]
        done(await provider.store_messages("c", many[:4]))
        done(await provider.append_messages("c", many[4:8]))
        await self._held(
            provider,
            lambda: provider.append_messages("c", many),
            lambda: provider.store_messages("c", many),
            lambda: provider.store_messages("new", many),
        )

    async def test_messages_of_an_append(self, store: Store) -> None:
        """`max_append_messages` holds for an append, exactly; a store may bring more."""
        provider = await store.open(max_append_messages=5)
        done(await provider.store_messages("c", talk(20)))
        done(await provider.append_messages("c", talk(5, "n")))
        await self._held(
            provider,
            lambda: provider.append_messages("c", talk(6, "o")),
            lambda: provider.append_messages("new", talk(6), create=True),
        )

    async def test_bytes_of_metadata(self, store: Store) -> None:
        """`max_metadata_bytes` holds for the metadata of a call, `update_metadata` included."""
        provider = await store.open(max_metadata_bytes=100)
        done(await provider.store_messages("c", talk(1), {"x": "a" * 80}))
        await self._held(
            provider,
            lambda: provider.append_messages("c", talk(1, "n"), {"x": "a" * 100}),
            lambda: provider.store_messages("new", talk(1), {"x": "é" * 60}),
        )
        with pytest.raises(MemoryInvalidInputError):
            await provider.update_metadata("c", {"x": "a" * 100})
        assert (await whole(provider)).version == 1

    async def test_nesting(self, store: Store) -> None:
        """`max_nesting` holds exactly."""
        provider = await store.open(max_nesting=5)
        done(await provider.store_messages("c", [said("x", value=nested(5))], {"x": nested(5)}))
        await self._held(
            provider,
            lambda: provider.append_messages("c", [said("x", value=nested(6))]),
            lambda: provider.append_messages("c", talk(1), {"x": {"y": nested(5)}}),
            lambda: provider.store_messages("new", talk(1), {"x": nested(6)}),
        )

    async def test_digits(self, store: Store) -> None:
        """`max_integer_digits` holds exactly, for negative integers, too."""
        provider = await store.open(max_integer_digits=20)
        done(await provider.store_messages("c", [said("x", value=10**20 - 1)], {"x": [-(10**20) + 1]}))
        await self._held(
            provider,
            lambda: provider.append_messages("c", [said("x", value={"y": 10**20})]),
            lambda: provider.append_messages("c", talk(1), {"x": [-(10**20)]}),
            lambda: provider.store_messages("new", talk(1), {"x": 10**20}),
        )

    async def test_defaults(self, store: Store) -> None:
        """Unless set, a message has up to 16 MiB, metadata up to 1 MiB, an append up to 10,000 messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(10_000, "n"), {"x": "a" * (2**20 - 100)}))
        await self._held(
            provider,
            lambda: provider.append_messages("c", [said("x" * 2**24)]),
            lambda: provider.append_messages("c", talk(10_001, "o")),
            lambda: provider.append_messages("c", talk(1, "o"), {"x": "a" * 2**20}),
        )
