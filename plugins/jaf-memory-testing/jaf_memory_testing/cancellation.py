"""Cancelling an operation at every moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.deadlines import Stopwatch
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import ids, talk
from jaf_memory_testing.target import PATIENCE, Store

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
