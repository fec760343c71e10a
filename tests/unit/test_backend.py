"""The defaults of `Backend`, over the four methods that every author writes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial

import pytest
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import ids, talk
from msgspec.structs import replace

from jaf_memory_core import (
    BackendProvider,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryQuery,
    rules,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.records import Record, Stamp

ROUNDS = 300


class Four(Backend):
    """Four methods over a dictionary; each lets others go on before and after what it does.

    Args:
        steps: how often it lets others go on, each time.
        killed_at: the number of the call that is never made: the program ends there.
    """

    name = "four"

    def __init__(self, steps: Callable[[], int] = lambda: 0, killed_at: int | None = None) -> None:
        self.all: dict[str, Record] = {}
        self.calls: Counter[str] = Counter()
        self._steps = steps
        self.killed_at = killed_at

    async def _turn(self, name: str) -> None:
        if self.calls.total() == self.killed_at:
            raise KeyboardInterrupt
        self.calls[name] += 1
        for _ in range(self._steps()):
            await asyncio.sleep(0)

    async def read(self, conversation_id: str) -> Record | None:
        """From the dictionary."""
        await self._turn("read")
        return self.all.get(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Into the dictionary."""
        await self._turn("write")
        standing = self.all.get(record.conversation_id)
        if (standing.stamp if standing else None) != expected:
            return False
        self.all[record.conversation_id] = record
        return True

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Out of the dictionary."""
        await self._turn("delete")
        standing = self.all.get(conversation_id)
        if standing is None or standing.stamp != expected:
            return False
        del self.all[conversation_id]
        return True

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        """One after the other, while others write."""
        cursor = rules.creation_cursor(query)
        while True:
            await self._turn("scan")
            keys = sorted((rules.creation_key(one), key) for key, one in self.all.items())
            behind = [key for key in keys if cursor is None or key[0] > cursor]
            if not behind:
                return
            cursor = behind[0][0]
            yield self.all[behind[0][1]]


@pytest.mark.parametrize("call", ["clear_user_conversations", "purge_expired"])
def test_what_fails_half_way_is_not_called_unapplied(call):
    """An erasure of many that fails behind the first is unknown, and not begun anew; before it, it is tried again."""

    class Refusing(Four):
        """Is not reached by some of the deletions."""

        refused: tuple[int, ...] = ()

        async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
            """Refused, or done."""
            if self.calls["delete"] in self.refused:
                self.calls["delete"] += 1
                raise ConnectionRefusedError
            return await super().delete(conversation_id, expected=expected)

    async def main():
        backend = Refusing()
        provider = BackendProvider(backend)
        for name in "abc":
            done(await provider.store_messages(name, talk(1), user_id="u"))
            if call == "purge_expired":
                backend.all[name] = replace(backend.all[name], expires_at=backend.now() - timedelta(seconds=1))
        erase = partial(getattr(provider, call), *(["u"] if call == "clear_user_conversations" else []))
        backend.refused = (0, 2)
        with pytest.raises(MemoryConnectionError) as caught:
            await erase()
        assert caught.value.outcome == "unknown"
        assert [*backend.all] == ["b", "c"]
        assert await erase() == 2
        assert not backend.all

    asyncio.run(main())


def test_no_copy_outlives_an_erasure():
    """Whatever the order in which a fork and an erasure of its owner take their steps, no copy is left."""

    async def race(seed):
        chance = random.Random(seed)
        backend = Four(lambda: chance.randrange(4))
        provider = BackendProvider(backend)
        for name in "ab":
            done(await provider.store_messages(name, talk(3), user_id="u"))

        async def later(call):
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            return await call

        forks = [provider.fork_conversation("a", "f"), provider.fork_conversation("f", "g")]
        calls = [*forks, provider.clear_user_conversations("u")]
        answers = await asyncio.gather(*map(later, calls), return_exceptions=True)
        assert all(isinstance(one, int | MemoryNotFoundError) for one in answers)
        return [one for one in backend.all.values() if one.messages]

    assert [left for seed in range(ROUNDS) if (left := asyncio.run(race(seed)))] == []


@pytest.mark.parametrize("killed_at", range(6))
def test_a_fork_that_is_killed_leaves_no_content(killed_at):
    """Whoever is killed between any two steps of a fork leaves no copy that an erasure would miss, then or later."""
    backend = Four()
    asyncio.run(done_with(BackendProvider(backend).store_messages("a", talk(3), user_id="u")))
    backend.calls.clear()
    backend.killed_at = killed_at
    try:
        asyncio.run(BackendProvider(backend).fork_conversation("a", "f"))
    except KeyboardInterrupt:
        assert "f" not in backend.all or not backend.all["f"].messages
    else:
        assert killed_at > 4, "a fork has five steps"
    backend.killed_at = None
    provider = BackendProvider(backend)
    asyncio.run(provider.clear_user_conversations("u"))
    assert backend.all == {}


async def done_with(call):
    """Its success."""
    return done(await call)


def test_a_fork_that_is_under_way_is_not_there():
    """Until a fork is done nobody sees the copy, and whoever stores under its id meanwhile has the id."""

    async def work():
        backend = Four()
        provider = BackendProvider(backend)
        done(await provider.store_messages("a", talk(3), user_id="u"))
        backend.calls.clear()
        backend.killed_at = 4
        with pytest.raises(KeyboardInterrupt):
            await provider.fork_conversation("a", "f")
        backend.killed_at = None
        assert "f" in backend.all
        assert await provider.get_conversation("f") is None
        assert [one.conversation_id for one in await provider.find_conversations(MemoryQuery())] == ["a"]
        assert (await provider.get_stats())["total_conversations"] == 1
        assert await provider.fork_conversation("a", "f") == 3
        with pytest.raises(MemoryConflictError):
            await provider.fork_conversation("a", "f")
        copy = await whole(provider, "f")
        assert (ids(copy.messages), copy.version, copy.user_id) == (["m0", "m1", "m2"], 1, "u")

    asyncio.run(work())


def test_what_changes_under_a_fork_is_decided_anew():
    """The parent is copied as it stands at the second look; where that refuses, nothing is left."""

    async def work(change):
        backend = Four()
        provider = BackendProvider(backend)
        done(await provider.store_messages("a", talk(3)))
        original, looks = backend.read, 0

        async def read(conversation_id):
            nonlocal looks
            looks += conversation_id == "a"
            if looks == 2 and conversation_id == "a":
                backend.read = original
                await change(provider)
            return await original(conversation_id)

        backend.read = read
        try:
            answer = await provider.fork_conversation("a", "f", until_message_id="m2")
        except MemoryError as error:
            answer = type(error)
        return answer, {key: one.user_id for key, one in backend.all.items()}

    owned = asyncio.run(work(lambda provider: provider.append_messages("a", talk(1, start=3), user_id="u")))
    assert owned == (2, {"a": "u", "f": "u"})
    gone = asyncio.run(work(lambda provider: provider.delete_conversation("a")))
    assert gone == (MemoryNotFoundError, {})
    cut = asyncio.run(work(lambda provider: provider.truncate_conversation_after("a", "m2")))
    assert cut == (MemoryInvalidInputError, {"a": None})


@pytest.mark.parametrize(
    ("operation", "most"),
    [
        (lambda provider: provider.backend.header("c7"), {"read": 1}),
        (lambda provider: provider.get_recent_messages("c7"), {"read": 1}),
        (lambda provider: provider.find_conversations(MemoryQuery(conversation_id="c7")), {"read": 1}),
        (lambda provider: provider.truncate_conversation_after("c7", "m1"), {"read": 2, "write": 1}),
        (lambda provider: provider.update_metadata("c7", {"a": 1}), {"read": 1, "write": 1}),
        (lambda provider: provider.acquire_lease("c7", 5), {"read": 2, "write": 1}),
        (lambda provider: provider.delete_conversation("c7"), {"read": 1, "delete": 1}),
        (lambda provider: provider.fork_conversation("c7", "f"), {"read": 3, "write": 2}),
    ],
)
def test_no_default_costs_more_than_its_operation(operation, most):
    """What concerns one conversation reads that one, however many there are."""

    async def work():
        backend = Four()
        provider = BackendProvider(backend)
        for n in range(20):
            done(await provider.store_messages(f"c{n}", talk(2)))
        backend.calls.clear()
        await operation(provider)
        return backend.calls

    assert asyncio.run(work()) <= Counter(most)


def test_an_erasure_ends_beside_somebody_who_writes_on():
    """New conversations without a pause do not keep an erasure from its end."""

    async def work():
        backend = Four()
        provider = BackendProvider(backend)
        original = backend.delete

        async def delete(conversation_id, *, expected):
            done(await provider.store_messages(f"{conversation_id}'", talk(1), user_id="u"))
            return await original(conversation_id, expected=expected)

        backend.delete = delete
        done(await provider.store_messages("c", talk(1), user_id="u"))
        assert await provider.clear_user_conversations("u") >= 1
        assert "c" not in backend.all

    asyncio.run(work())
