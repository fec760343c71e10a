"""What only the author of a store writes: the four methods, `driver_errors`, `translate`, `close`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConnectionError, MemoryError, MemoryNotFoundError
from jaf_memory_core.records import Damaged, Ping, Record, Stamp
from jaf_memory_core.results import Failure
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, let_expire, whole
from jaf_memory_testing.hostile import VALUES
from jaf_memory_testing.samples import OPERATIONS, at, ids, kept, rich, said, talk
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


SENTINEL = "content-of-a-row"
"""What no error may show: a driver's text may hold a password, a row, a message."""

TOLD = f"ERROR: at value (1, {SENTINEL})"
"""What the driver says."""


def _subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def _made(kind: type[Exception]) -> Iterator[Exception]:
    """Errors of that kind, as a driver makes them; a constructor that wants more is passed by."""
    several = () if issubclass(kind, OSError) else ((TOLD, TOLD), (1, TOLD), (TOLD, TOLD, TOLD))
    for arguments in ((), (TOLD,), *several):
        try:
            made = kind(*arguments)
            str(made)  # one that cannot even tell its text was never made by the driver
        except Exception:  # noqa: BLE001, S112  (any constructor; another way is tried)
            continue
        yield made
        with contextlib.suppress(AttributeError):
            made.__dict__.update(detail=TOLD, query=TOLD, message=TOLD)
            yield made


def provoked(backend: Backend) -> Iterator[Exception]:
    """Errors of every kind that `driver_errors` names, children included, with a secret in each text."""
    seen: set[type] = set()
    for named in backend.driver_errors:
        for kind in _subclasses(named):
            # Errors of the tools that run here are children of some of these, and no driver's.
            if kind in seen or not issubclass(kind, Exception) or kind.__module__.startswith(("_pytest", "hypothesis")):
                continue
            seen.add(kind)
            yield from _made(kind)
    # With a name in it, as the system's errors have: of a file, or an address.
    if any(issubclass(OSError, kind) for kind in backend.driver_errors):
        for number in errno.errorcode:
            yield OSError(number, os.strerror(number), SENTINEL)


class DriverChecks(Checks):
    """The parts that only an author writes."""

    @needs("backend")
    async def test_driver_errors_are_named(self, store: Store) -> None:
        """`driver_errors` names the driver's exceptions: some, and none so wide that a bug is one of them."""
        backend = (await store.open()).backend
        named = backend.driver_errors
        assert named, "driver_errors is empty: an error of the driver would reach the application as it is"
        for kind in named:
            assert issubclass(kind, Exception), f"driver_errors names {kind!r}"
            wide = [bug for bug in (TypeError, AttributeError, KeyError, AssertionError) if issubclass(bug, kind)]
            assert not wide, (
                f"driver_errors names {kind.__name__}, which takes a bug ({wide[0].__name__}) for the driver's"
            )

    @needs("backend")
    async def test_translate(self, store: Store) -> None:
        """`translate` turns each of `driver_errors` into ours, never fails itself, and shows no word of its text."""
        backend = (await store.open()).backend
        number = 0
        for error in provoked(backend):
            number += 1
            try:
                ours = backend.translate(error, "append")
            except Exception as problem:
                if problem is error:
                    continue  # "a bug stays what it is": the author takes this one for a bug of their own
                raise AssertionError(f"translate itself fails for {type(error).__name__}: {problem!r}") from problem
            assert isinstance(ours, MemoryError), f"translate gives {ours!r} for {type(error).__name__}"
            assert ours.outcome in ("not_applied", "unknown")
            shown = "".join(traceback.format_exception(ours)) if ours.__cause__ is not error else str(ours)
            for text in (str(ours), repr(ours), repr(ours.args), shown):
                assert SENTINEL not in text, f"translate repeats what {type(error).__name__} says: {text[:300]}"
        assert number > 0

    @needs("backend")
    async def test_close_beside_operations(self, store: Store) -> None:
        """What is under way when a provider is closed ends, as done or as a `MemoryError`; what comes is refused."""
        done(await (await store.open()).store_messages("c", talk(3)))
        provider = await store.open()
        await whole(provider)
        calls = [call for name, call in OPERATIONS.items() if name != "open"]
        working = [asyncio.ensure_future(call(provider)) for call in calls]
        # One turn of the loop: they have begun, and have no answer yet.
        await asyncio.sleep(0)
        await asyncio.gather(provider.close(), provider.close())
        _, hanging = await asyncio.wait(working, timeout=10)
        assert not hanging, "an operation that was under way at close() never ends"
        for answer in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, MemoryError), f"an operation that was under way at close() raised {answer!r}"
        with pytest.raises(MemoryConnectionError):
            await provider.get_conversation("c")

    @needs("backend", "reopen")
    async def test_two_close(self, store: Store) -> None:
        """Closing one of two providers on a store leaves the other at work."""
        one, other = await store.open(), await store.open()
        done(await one.store_messages("c", talk(1)))
        await whole(other)
        await one.close()
        done(await other.append_messages("c", talk(1, start=1)))
        assert ids((await whole(other)).messages) == ["m0", "m1"]

    @needs("backend")
    async def test_many_of_one_moment(self, store: Store) -> None:
        """More than a thousand conversations of one user, made and changed in one moment, are all there, in order."""
        provider = await store.open()
        await provider.open()
        # Beyond every page and every step of an erasure that our stores have.
        count = 1_030
        names = [f"c{n:04}" for n in range(count)]
        for start in range(0, count, 50):
            records = [kept(name, user_id="u", messages=talk(1)) for name in names[start : start + 50]]
            assert all(await asyncio.gather(*(provider.backend.write(one, expected=None) for one in records)))
        found = [one.conversation_id for one in await provider.find_conversations(MemoryQuery(user_id="u"))]
        assert found == names[::-1]
        assert [one.conversation_id async for one in provider.iter_conversations(MemoryQuery(user_id="u"))] == names
        paged: list[str] = []
        query = MemoryQuery(user_id="u", limit=515, include_messages=False)
        while page := await provider.find_conversations(query):
            paged += [one.conversation_id for one in page]
            query = query.after(page[-1])
        assert paged == names[::-1]
        assert (await provider.get_stats("u"))["user_conversations"] == count
        assert await provider.clear_user_conversations("u") == count
        assert (await provider.get_stats())["total_conversations"] == 0

    @needs("backend")
    async def test_times_are_utc(self, store: Store, local_time: None) -> None:
        """Where local time is not UTC, what is stored now is from now, expires in time, and is found by its time."""
        del local_time
        provider = await store.open()
        before = datetime.now(UTC)
        done(await provider.store_messages("c", talk(1)))
        conversation = await whole(provider)
        assert conversation.created_at is not None
        assert conversation.updated_at is not None
        for moment in (conversation.created_at, conversation.updated_at):
            assert abs((moment - before).total_seconds()) < 1_200, f"now is {before}, but the store says {moment}"
        await provider.set_expiry("c", 600)
        conversation = await whole(provider)
        assert conversation.expires_at is not None
        assert abs((conversation.expires_at - before).total_seconds() - 600) < 1_200
        found = await provider.find_conversations(MemoryQuery(since=conversation.created_at, limit=1))
        assert [one.conversation_id for one in found] == ["c"]
        assert await provider.find_conversations(MemoryQuery(until=conversation.created_at)) == []
        await let_expire(provider, "c")
        assert await provider.purge_expired() == 1

    async def test_deletes_at_once(self, store: Store) -> None:
        """Of many that delete one conversation at once, one is told that it was there; of none the loser fails."""
        one, other = await store.open(), await store.open()
        for number in range(6):
            done(await one.store_messages("c", talk(1 + number)))
            told = await asyncio.gather(*(provider.delete_conversation("c") for provider in (one, other) * 4))
            assert sorted(told) == [False] * 7 + [True], f"deletes at once were told {told}"
            await absent(other)
            result = await other.append_messages("c", talk(1))
            assert isinstance(result, Failure)
            assert isinstance(result.error, MemoryNotFoundError)
