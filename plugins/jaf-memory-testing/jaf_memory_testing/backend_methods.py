"""The four methods that every backend has, and a few small ones."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.records import Damaged, Ping, Record, Stamp
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.hostile import VALUES
from jaf_memory_testing.samples import at, kept, rich, said, talk
from jaf_memory_testing.target import Store

FAR = 10**10
"""Seconds: an expiry that never comes."""


async def records_of(backend: Backend, query: MemoryQuery) -> list[Record]:
    """What a scan gives; nothing of it is damaged."""
    found = [one async for one in backend.scan(query)]
    assert not any(isinstance(one, Damaged) for one in found)
    return [one for one in found if isinstance(one, Record)]


class BackendChecks(Checks):
    """`read`, `write`, `delete` and `scan`, as `Backend` asks for them."""

    async def _backend(self, store: Store) -> Backend:
        provider = await store.open()
        await provider.open()
        return provider.backend

    @needs("backend")
    async def test_record_comes_back(self, store: Store) -> None:
        """`read` gives the very record that `write` put, in every field."""
        backend = await self._backend(store)
        assert await backend.read("c") is None
        record = kept(
            "c",
            created=0.000001,
            updated=5,
            messages=[*rich(), said("\0\ud800", message_id="z", value=VALUES["key-order"])],
            metadata={"x": [1, 1.0, -0.0, 2**70], "\0": "\ud800"},
            version=17,
            user_id="u",
            expires_at=at(FAR),
            ttl=0.5,
            first_position=40,
            trimmed=True,
        )
        assert await backend.write(record, expected=None) is True
        assert await backend.read("c") == record

    @needs("backend")
    async def test_write_replaces_all(self, store: Store) -> None:
        """`write` leaves nothing of the record that stood there."""
        backend = await self._backend(store)
        old = kept("c", messages=talk(5), metadata={"old": 1}, user_id="u", expires_at=at(FAR), ttl=9.0)
        new = replace(kept("c", created=7, messages=talk(2, "n"), metadata={"new": 1}), version=2)
        assert await backend.write(old, expected=None) is True
        assert await backend.write(new, expected=old.stamp) is True
        assert await backend.read("c") == new

    @needs("backend")
    async def test_write_expects(self, store: Store) -> None:
        """`write` gives `False`, and changes nothing, unless exactly the expected state stands there."""
        backend = await self._backend(store)
        record = kept("c", messages=talk(2), version=3)
        other = kept("c", created=9, messages=talk(1, "other"), version=4)
        assert await backend.write(record, expected=record.stamp) is False
        assert await backend.read("c") is None
        assert await backend.write(record, expected=None) is True
        for expected in (None, Stamp(record.incarnation, 2), Stamp(record.incarnation, 4), Stamp("other", 3)):
            assert await backend.write(other, expected=expected) is False
            assert await backend.read("c") == record
        assert await backend.write(other, expected=record.stamp) is True
        assert await backend.read("c") == other

    @needs("backend")
    async def test_delete_expects(self, store: Store) -> None:
        """`delete` removes exactly the expected state, so that what was made again under the id stays."""
        backend = await self._backend(store)
        first, again = kept("c", messages=talk(2)), kept("c", messages=talk(1, "again"))
        assert await backend.delete("c", expected=first.stamp) is False
        assert await backend.write(first, expected=None) is True
        assert await backend.delete("c", expected=Stamp(first.incarnation, 2)) is False
        assert await backend.delete("c", expected=first.stamp) is True
        assert await backend.write(again, expected=None) is True
        # So that the incarnation alone tells the two apart.
        assert first.version == again.version
        assert await backend.delete("c", expected=first.stamp) is False
        assert await backend.read("c") == again

    @needs("backend")
    async def test_one_of_many_writes(self, store: Store) -> None:
        """Of many writes that expect the same state at once, exactly one succeeds, and its record is whole."""
        backend = await self._backend(store)
        for expected, version in ((None, 1), ("standing", 2)):
            standing = await backend.read("c")
            stamp = standing.stamp if expected and standing else None
            records = [kept("c", created=n, messages=talk(3, f"w{n}-"), version=version) for n in range(16)]
            won = await asyncio.gather(*(backend.write(record, expected=stamp) for record in records))
            assert sum(won) == 1
            assert await backend.read("c") == records[won.index(True)]

    @needs("backend")
    async def test_read_gives_expired(self, store: Store) -> None:
        """`read` and `scan` give expired records, too, unless the store itself has removed them."""
        backend = await self._backend(store)
        record = kept("c", messages=talk(2), user_id="u", expires_at=at(10))
        assert await backend.write(record, expected=None) is True
        assert await backend.read("c") in (record, None)
        scanned = await records_of(backend, MemoryQuery())
        assert scanned in ([record], [])

    @needs("backend")
    async def test_scan(self, store: Store) -> None:
        """`scan` gives at least what matches, in order of creation, from beyond the cursor."""
        backend = await self._backend(store)
        records = [
            kept(f"c{n}", created=n // 3, updated=99 - n, messages=talk(n), user_id="uv"[n % 2]) for n in range(9)
        ]
        for record in records:
            assert await backend.write(record, expected=None) is True
        assert await records_of(backend, MemoryQuery()) == records
        mine = await records_of(backend, MemoryQuery(user_id="u"))
        assert [record for record in mine if record.user_id == "u"] == records[::2]
        for n, record in enumerate(records):
            cursor = (record.created_at, record.active_at, record.conversation_id)
            query = replace(MemoryQuery(include_messages=False), cursor=cursor)
            rest = await records_of(backend, query)
            assert [one.conversation_id for one in rest] == [one.conversation_id for one in records[n + 1 :]]
            assert [one.message_count for one in rest] == list(range(n + 1, 9))

    @needs("backend")
    async def test_purge_limit(self, store: Store) -> None:
        """`purge` removes at most so many at a time, of that user only if one is given."""
        backend = await self._backend(store)
        for n in range(9):
            record = kept(f"c{n}", user_id="uv"[n % 2], expires_at=at(10) if n < 7 else at(FAR))
            assert await backend.write(record, expected=None) is True
        removed = [await backend.purge(2, scope="u") for _ in range(3)]
        removed += [await backend.purge(2) for _ in range(3)]
        assert removed == [2, 2, 0, 2, 1, 0]
        assert [record.conversation_id for record in await records_of(backend, MemoryQuery())] == ["c7", "c8"]

    @needs("backend")
    async def test_ping(self, store: Store) -> None:
        """`ping` answers with a `Ping`, and leaves no trace."""
        backend = await self._backend(store)
        assert isinstance(await backend.ping(), Ping)
        assert await records_of(backend, MemoryQuery()) == []
