"""Opening, closing, event loops, threads and forks; and what a power cut leaves, as far as a target can make one."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from jaf_memory_core.errors import MemoryConnectionError, MemoryError
from jaf_memory_core.results import Success
from jaf_memory_testing.cells import PROMISES, REQUESTS, others, seed
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.damage import WORDS
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.model import Model, Seeds, differences, observed, surveyed, told
from jaf_memory_testing.processes import at_once
from jaf_memory_testing.samples import OPERATIONS, ids, talk
from jaf_memory_testing.target import Store


class LifecycleChecks(Checks):
    """A provider from its first use to its end."""

    async def test_close_twice(self, store: Store) -> None:
        """`close` may be called again, before and after use, and by several tasks at once."""
        unused = await store.open()
        await unused.close()
        await unused.close()
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        await asyncio.gather(*(provider.close() for _ in range(5)))
        await provider.close()

    @pytest.mark.parametrize("name", list(OPERATIONS))
    async def test_closed(self, store: Store, name: str) -> None:
        """After `close`, every method raises `MemoryConnectionError(retryable=False)`."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        await provider.close()
        with pytest.raises(MemoryConnectionError) as caught:
            await OPERATIONS[name](provider)
        assert caught.value.retryable is False
        assert caught.value.outcome == "not_applied"

    async def test_health_of_closed(self, store: Store) -> None:
        """`health_check` of a closed provider does not raise: it answers `healthy: False`, and why."""
        provider = await store.open()
        await provider.close()
        health = await provider.health_check()
        assert health["healthy"] is False
        assert "closed" in health["error"]

    async def test_views_close_with_their_provider(self, store: Store) -> None:
        """A `for_user` view of a closed provider is closed, too."""
        provider = await store.open()
        view = provider.for_user("u")
        await provider.close()
        with pytest.raises(MemoryConnectionError):
            await view.get_conversation("c")

    async def test_context_manager(self, store: Store) -> None:
        """`async with` gives the provider, and closes it."""
        async with await store.open() as provider:
            done(await provider.store_messages("c", talk(1)))
            assert (await whole(provider)).version == 1
        with pytest.raises(MemoryConnectionError):
            await provider.get_conversation("c")

    async def test_closed_in_the_middle(self, store: Store) -> None:
        """Operations that are under way at `close` end: done, or with `MemoryConnectionError`."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        under_way = [asyncio.ensure_future(provider.append_messages("c", talk(2, f"w{n}-"))) for n in range(8)]
        await asyncio.sleep(0)
        await provider.close()
        for answer in await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 30):
            assert isinstance(answer, Success | MemoryConnectionError), f"it ended with {answer!r}"

    @needs("reopen")
    async def test_opened_again(self, store: Store) -> None:
        """What was stored before `close` is there for a provider that is opened afterwards."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(3), {"a": 1}, user_id="u"))
        before = await whole(provider)
        await provider.close()
        assert await whole(await store.open()) == before

    @needs("reopen")
    async def test_closing_one_leaves_the_other(self, store: Store) -> None:
        """Closing a provider does not disturb another one on the same store."""
        one, other = await store.open(), await store.open()
        done(await one.store_messages("c", talk(1)))
        await one.close()
        done(await other.append_messages("c", talk(2)))
        assert list((await whole(other)).messages) == talk(2)

    async def test_two_providers_see_the_same(self, store: Store) -> None:
        """What one provider has acknowledged, another one on the same store sees at once."""
        one, other = await store.open(), await store.open()
        for n in range(20):
            writer, reader = (one, other) if n % 2 else (other, one)
            done(await writer.append_messages("c", talk(1, start=n), create=True))
            for one_of_them in (reader, writer):
                assert list((await whole(one_of_them)).messages) == talk(n + 1)

    async def test_repr_shows_no_content(self, store: Store) -> None:
        """The `repr` of a provider names no conversation, user or content."""
        provider = await store.open()
        done(await provider.store_messages("secret-id", talk(1, "secret"), user_id="secret-user"))
        assert "secret" not in repr(provider)
        assert "secret" not in repr(provider.for_user("secret-user"))


class LoopChecks(Checks):
    """Event loops, threads and forks."""

    def test_one_loop_after_another(self, store: Store) -> None:
        """A provider works on one event loop after the other, as with `asyncio.run` twice, and is closed on a third."""
        provider = store.run(store.open())

        async def append(n: int) -> None:
            done(await provider.append_messages("c", talk(1, start=n), create=True))
            assert list((await whole(provider)).messages) == talk(n + 1)

        async def many() -> None:
            await asyncio.gather(*(provider.get_recent_messages("c") for _ in range(8)))

        for n in range(3):
            asyncio.run(append(n))
            asyncio.run(many())
        store.run(append(3))
        asyncio.run(provider.close())
        with pytest.raises(MemoryConnectionError):
            asyncio.run(append(4))

    async def test_two_loops_at_once(self, store: Store) -> None:
        """On two loops at once a provider works, or refuses at once and clearly if it is bound to one."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        answers: list[Any] = []

        def elsewhere() -> None:
            try:
                answers.append(asyncio.run(provider.get_recent_messages("c")))
            except MemoryError as error:
                answers.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        # Both loops use it at once, as long as the other one is at work.
        while thread.is_alive():
            assert await provider.get_recent_messages("c") == talk(1)
            await asyncio.sleep(0.001)
        thread.join()
        if provider.backend.loop_bound:
            assert type(answers[0]) is MemoryConnectionError
            assert answers[0].retryable is False
            assert "loop" in str(answers[0])
        else:
            assert answers == [talk(1)]
        assert await provider.get_recent_messages("c") == talk(1)

    async def test_threads(self, store: Store) -> None:
        """A provider that is not bound to a loop loses nothing when many threads append at once."""
        provider = await store.open()
        if provider.backend.loop_bound:
            pytest.skip("the provider is bound to one loop, and refuses others")
        done(await provider.store_messages("c", []))

        async def append(name: str) -> None:
            for n in range(10):
                done(await provider.append_messages("c", talk(2, f"{name}.{n}.")))

        threads = [threading.Thread(target=lambda name=f"t{n}": asyncio.run(append(name))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        found = ids((await whole(provider)).messages)
        assert sorted(found) == sorted(f"t{t}.{n}.{m}" for t in range(4) for n in range(10) for m in range(2))
        assert all(one[:-1] == other[:-1] for one, other in zip(found[::2], found[1::2], strict=True))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    async def test_after_a_fork(self, store: Store) -> None:
        """After a fork, the child is refused at once and clearly, and the parent goes on."""
        told = at_once(store.target, [("fork_and_use", {})])[0]
        assert told == {"child": ["MemoryConnectionError", False], "parent": True}


class PersistenceChecks(Checks):
    """What stays when the power goes."""

    @needs("backend", "power_cut")
    @pytest.mark.parametrize("word", WORDS)
    async def test_power_cut(self, store: Store, word: str) -> None:
        """What a request did is there after a power cut behind its answer: all of it, and nothing that it removed."""
        assert store.target.power_cut is not None
        names = [name for name in REQUESTS if name.split()[0] == word]
        model, seeds = Model(), Seeds((*map(seed, names), *others()))
        backend = (await store.open()).backend
        await backend.open()
        for record in seeds.values():
            assert await backend.write(record, expected=None) is True
            assert await model.write(record, expected=None) is True
        for name in names:
            await store.target.power_cut()
            provider = await store.open()
            await provider.open()
            await told(model, REQUESTS[name](name))
            await told(provider.backend, REQUESTS[name](name))
            await store.target.power_cut()
            backend = (await store.open()).backend
            await backend.open()
            problems = differences(await surveyed(model, seeds), await surveyed(backend, seeds))
            for key in (name, f"fork of {name}"):
                problems += differences(await observed(model, key, seeds), await observed(backend, key, seeds))
            assert not problems, (
                f"{name!r}, a power cut, and another provider that looks:\n  " + "\n  ".join(problems) + "\n"
                f"  the promise: when a write has succeeded, it is as durable as the store promises; {PROMISES[word]}"
            )
