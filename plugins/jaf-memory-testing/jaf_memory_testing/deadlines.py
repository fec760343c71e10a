"""Deadlines, on a store that does not answer, or is away."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from types import TracebackType
from typing import Self

import pytest

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import OPERATIONS, ids, talk
from jaf_memory_testing.target import PATIENCE, Store

GRACE = 0.25
"""Seconds after its deadline within which every call has ended."""

LATE = min(20, PATIENCE / 2)
"""Seconds within which a store that is back must be found to be."""


class Stopwatch:
    """Measures seconds, without those by which a busy machine wakes its threads too late; `late` are these."""

    _tick = 0.02

    def __enter__(self) -> Self:
        self.seconds = 0.0
        self.late = 0.0
        self._ended = math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._started = time.monotonic()
        return self

    def _watch(self) -> None:
        before = time.monotonic()
        stopped = False
        while not stopped:
            stopped = self._stopped.wait(self._tick)
            now = min(time.monotonic(), self._ended)  # it may be woken later than what it measures has ended
            self.late += max(0.0, now - before - 1.5 * self._tick)
            before = now

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._ended = time.monotonic()
        self._stopped.set()
        self._thread.join()
        self.seconds = self._ended - self._started - self.late


class DeadlineChecks(Checks):
    """A store that does not answer, or is away."""

    @needs("stall")
    @pytest.mark.parametrize("name", ["store_messages", "append_messages", "update_metadata", "delete_conversation"])
    async def test_ends_in_time(self, store: Store, name: str) -> None:
        """On a store that does not answer, a call ends within its deadline, as `MemoryConnectionError`."""
        assert store.target.stall is not None
        provider = await _hasty(store, 0.5)
        calls = {**OPERATIONS, "append_messages": _append}
        async with store.target.stall():
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError) as caught:
                await calls[name](provider)
        assert watch.seconds < 0.5 + GRACE
        assert caught.value.provider == provider.name
        assert caught.value.retryable is True

    @needs("stall")
    async def test_scans_end_in_time(self, store: Store) -> None:
        """On a store that does not answer, a scan ends within the deadline of one step, or answers."""
        assert store.target.stall is not None
        provider = await _hasty(store, 0.5)
        scans = (OPERATIONS["iter_conversations"], OPERATIONS["iter_users"])
        async with store.target.stall():
            with Stopwatch() as watch:
                answers = await asyncio.gather(*(scan(provider) for scan in scans), return_exceptions=True)
        assert watch.seconds < 0.5 + GRACE
        assert {type(answer) for answer in answers if isinstance(answer, Exception)} <= {MemoryConnectionError}

    @needs("stall")
    async def test_many_end_in_time(self, store: Store) -> None:
        """Many calls at once all end within their deadline."""
        assert store.target.stall is not None
        provider = await _hasty(store, 0.5)
        async with store.target.stall():
            with Stopwatch() as watch:
                calls = (provider.append_messages("c", talk(1, f"n{n}-")) for n in range(20))
                answers = await asyncio.gather(*calls, return_exceptions=True)
        assert watch.seconds < 0.5 + GRACE
        assert {type(answer) for answer in answers} == {MemoryConnectionError}

    @needs("stall")
    async def test_closes_in_time(self, store: Store) -> None:
        """`close` ends within the deadline while calls hang."""
        assert store.target.stall is not None
        provider = await _hasty(store, 0.5)
        async with store.target.stall():
            hanging = asyncio.ensure_future(provider.append_messages("c", talk(1, "n")))
            # It is on its way by now, and hangs.
            await asyncio.sleep(0.05)
            with Stopwatch() as watch:
                await provider.close()
            (answer,) = await asyncio.gather(hanging, return_exceptions=True)
            assert isinstance(answer, MemoryConnectionError)
        assert watch.seconds < 0.5 + GRACE

    @needs("stall")
    async def test_goes_on_after_a_stall(self, store: Store) -> None:
        """After a stall the provider goes on, and a retry of what was lost adds it once."""
        assert store.target.stall is not None
        provider = await _hasty(store, 1)
        async with store.target.stall():
            with pytest.raises(MemoryConnectionError):
                await provider.append_messages("c", talk(2, "n"))
        await _until_it_answers(provider)
        await _appended(provider, talk(2, "n"))
        assert ids((await whole(await store.open())).messages) == ["m0", "n0", "n1"]

    @needs("outage")
    async def test_away(self, store: Store) -> None:
        """While the store is away, every method raises `MemoryConnectionError` in time, and health says so."""
        assert store.target.outage is not None
        provider = await _hasty(store, 0.5)
        calls = {name: call for name, call in OPERATIONS.items() if name != "open"}  # it is open already
        async with store.target.outage():
            with Stopwatch() as watch:
                answers = await asyncio.gather(*(call(provider) for call in calls.values()), return_exceptions=True)
            health = await provider.health_check()
        assert watch.seconds < 0.5 + GRACE
        for name, answer in zip(calls, answers, strict=True):
            assert isinstance(answer, MemoryConnectionError), f"{name} gave {answer!r}"
            assert answer.retryable is True
        assert health["healthy"] is False
        assert health["error"]

    @needs("outage")
    async def test_recovers(self, store: Store) -> None:
        """Once the store is back, the provider works again by itself."""
        assert store.target.outage is not None
        provider = await _hasty(store, 2)
        for n in range(1, 3):
            async with store.target.outage():
                with pytest.raises(MemoryConnectionError):
                    await provider.append_messages("c", talk(1, start=n))
            await _until_it_answers(provider)
            await _appended(provider, talk(1, start=n))
        assert list((await whole(await store.open())).messages) == talk(3)


async def _append(provider: BackendProvider) -> None:
    done(await provider.append_messages("c", talk(1, "n")))


async def _hasty(store: Store, seconds: float) -> BackendProvider:
    """A provider with that deadline, in use already, on a store with one conversation of one message.

    Its first use may take longer than that: it has more to do than what is checked then.
    """
    done(await (await store.open()).store_messages("c", talk(1)))
    latest = time.monotonic() + LATE
    while True:
        try:
            provider = await store.open(operation_timeout=seconds)
            await whole(provider)
        except MemoryConnectionError:
            if time.monotonic() > latest:
                raise
            await asyncio.sleep(0.05)
        else:
            return provider


async def _appended(provider: BackendProvider, messages: list[Message]) -> None:
    """Append within the deadline; a busy machine, and nothing else, excuses a second try."""
    watch = Stopwatch()
    while True:
        try:
            with watch:
                done(await provider.append_messages("c", messages))
        except MemoryConnectionError:
            # It was not the machine that was late.
            if watch.late < GRACE / 2:
                raise
        else:
            return


async def _until_it_answers(provider: BackendProvider) -> None:
    latest = time.monotonic() + LATE
    while not (await provider.health_check())["healthy"]:
        assert time.monotonic() < latest, "the provider does not recover"
        await asyncio.sleep(0.05)
