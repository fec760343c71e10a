"""Operations that end early: by their deadline, on a store that does not answer or is away; cancelled at any moment."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import pytest

from jaf_memory_core.conversations import ConversationMemory
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


STEPS = 12
"""Steps of the event loop after which operations are cancelled, from none on."""

MOMENTS = 12
"""Moments within the duration of an operation at which it is cancelled."""

WRITES: dict[str, Callable[[BackendProvider, int], Awaitable[Any]]] = {
    "store_messages": lambda provider, n: provider.store_messages(f"c{n}", talk(4, "n"), {"new": 1}),
    "append_messages": lambda provider, n: provider.append_messages(f"c{n}", talk(4, "n"), {"new": 1}),
    "create": lambda provider, n: provider.append_messages(f"d{n}", talk(4, "n"), {"new": 1}, create=True),
    "import_conversation": lambda provider, n: provider.import_conversation(
        ConversationMemory(f"d{n}", user_id="u", messages=talk(4, "n"), metadata={"new": 1})
    ),
    "import_conversations": lambda provider, n: provider.import_conversations(
        [ConversationMemory(f"{key}{n}", user_id="u", messages=talk(4, "n"), metadata={"new": 1}) for key in "de"]
    ),
    "update_metadata": lambda provider, n: provider.update_metadata(f"c{n}", {"new": 1, "old": 2}),
    "set_expiry": lambda provider, n: provider.set_expiry(f"c{n}", 600),
    "truncate_conversation_after": lambda provider, n: provider.truncate_conversation_after(f"c{n}", "m1"),
    "delete_messages": lambda provider, n: provider.delete_messages(f"c{n}", ["m0", "m2"]),
    "delete_conversation": lambda provider, n: provider.delete_conversation(f"c{n}"),
    "clear_user_conversations": lambda provider, n: provider.clear_user_conversations(f"u{n}"),
}
"""Each works on conversations of its own: what was cancelled may be applied a little later."""


async def cut_off(work: Awaitable[Any], *, steps: int = 0, seconds: float | None = None) -> bool:
    """Start the work, and cancel it after so many steps of the loop, or so many seconds.

    Returns:
        whether it was cancelled; `False` if it had ended by itself.
    """
    task = asyncio.ensure_future(work)
    if seconds is None:
        for _ in range(steps):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(seconds)
    # It has ended by itself, and its error, if any, is the check's.
    if not task.cancel():
        await task
        return False
    with Stopwatch() as watch:  # without the seconds by which a busy machine is late
        await asyncio.wait({task}, timeout=max(20, PATIENCE / 2))
    assert task.done(), "a cancelled operation does not end"
    assert task.cancelled(), f"a cancelled operation ended as if nothing had happened: {task!r}"
    assert watch.seconds < 5, "a cancelled operation takes its time"
    return True


def state(conversation: ConversationMemory | None, n: int) -> Any:
    """What an operation must change wholly or not at all."""
    if conversation is None:
        return None
    return (
        ids(conversation.messages),
        {key: value for key, value in conversation.metadata.items() if key != "user_id"},
        conversation.user_id == f"u{n}",
        conversation.version,
        conversation.message_count,
        conversation.ttl,
        conversation.expires_at is None,
    )


class CancellationChecks(Checks):
    """A cancelled operation was applied wholly or not at all, and the provider goes on."""

    async def _made(self, provider: BackendProvider, n: int) -> None:
        done(await provider.store_messages(f"c{n}", talk(3), {"old": 1}, user_id=f"u{n}"))

    async def _states(self, provider: BackendProvider, n: int) -> tuple[Any, Any]:
        return state(await provider.get_conversation(f"c{n}"), n), state(await provider.get_conversation(f"d{n}"), n)

    @pytest.mark.parametrize("name", list(WRITES))
    async def test_cancelled_write(self, store: Store, name: str) -> None:
        """A write that is cancelled, after any number of steps or at any time, is applied wholly or not at all."""
        provider, witness = await store.open(), await store.open()
        await self._made(provider, 0)
        before = await self._states(provider, 0)
        started = time.perf_counter()
        await WRITES[name](provider, 0)
        duration = time.perf_counter() - started
        after = await self._states(provider, 0)
        # Else half could not be told from whole.
        assert after != before
        moments = random.Random(7)  # not for secrets
        # By steps and by time: what is short ends within few steps of the loop, what is long waits for a driver.
        cuts: list[dict[str, Any]] = [{"steps": n} for n in range(STEPS)]
        cuts += [{"seconds": moments.uniform(0, 1.2 * duration)} for _ in range(MOMENTS)]
        for n, cut in enumerate(cuts, start=1):
            await self._made(provider, n)
            cancelled = await cut_off(WRITES[name](provider, n), **cut)
            for reader in (provider, witness):
                found = await self._states(reader, n)
                assert found in ([before, after] if cancelled else [after]), f"half applied after {cut}"

    async def test_retry_after_cancelling(self, store: Store) -> None:
        """An append that was cancelled may be repeated: its messages are there once, in order."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        expected: list[str] = []
        for steps in range(STEPS):
            batch = talk(3, f"n{steps}-")
            await cut_off(provider.append_messages("c", batch), steps=steps)
            done(await provider.append_messages("c", batch))
            expected += ids(batch)
            assert ids((await whole(provider)).messages) == expected

    async def test_cancelled_among_others(self, store: Store) -> None:
        """Cancelling some of many tasks disturbs none of the others."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        for round_ in range(6):
            names = [f"r{round_}w{n}-" for n in range(12)]
            tasks = [asyncio.ensure_future(provider.append_messages("c", talk(2, name))) for name in names]
            for _ in range(round_):
                await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            found = ids((await whole(provider)).messages)
            for n, (name, answer) in enumerate(zip(names, answers, strict=True)):
                held = [one for one in found if one.startswith(name)]
                # What was not cancelled is there; what was may be there or not, and never half of it.
                assert held in ([[f"{name}0", f"{name}1"]] if n % 3 else [[], [f"{name}0", f"{name}1"]])
                if not isinstance(answer, BaseException):
                    done(answer)
                else:
                    assert isinstance(answer, asyncio.CancelledError)

    async def test_cancelled_reads(self, store: Store) -> None:
        """A read that is cancelled at any step leaves a provider that goes on."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3)))
        for steps in range(STEPS):
            await cut_off(provider.get_conversation("c"), steps=steps)
            await cut_off(provider.get_recent_messages("c"), steps=steps)
            await cut_off(_first(provider), steps=steps)
            await cut_off(provider.health_check(), steps=steps)
            assert list((await whole(provider)).messages) == talk(3)

    async def test_cancelled_first_use(self, store: Store) -> None:
        """A first operation that is cancelled while the provider opens leaves a provider that can be used."""
        for steps in range(STEPS):
            provider = await store.open()
            first = asyncio.ensure_future(provider.get_conversation("c"))
            second = asyncio.ensure_future(provider.get_conversation("c"))
            for _ in range(steps):
                await asyncio.sleep(0)
            # The second waits for the same opening, which must not go with the first.
            first.cancel()
            assert await second is None
            await asyncio.gather(first, return_exceptions=True)
            assert await provider.get_conversation("c") is None
            await provider.close()

    async def test_cancelled_by_a_timeout_of_the_caller(self, store: Store) -> None:
        """`asyncio.wait_for` around an operation works as anywhere."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_after_a_while(provider), 0.02)
        done(await provider.store_messages("c", talk(2)))
        assert await asyncio.wait_for(provider.get_recent_messages("c"), 20) == talk(2)


async def _first(provider: BackendProvider) -> None:
    async with aclosing(provider.iter_conversations()) as iteration:
        await anext(iteration)


async def _after_a_while(provider: BackendProvider) -> None:
    for n in range(1_000_000):
        await provider.append_messages("c", talk(1, f"n{n}-"))
        await asyncio.sleep(0)
