"""What a store has acknowledged is there after a power cut, as far as the target can make one."""

from __future__ import annotations

import pytest

from jaf_memory_testing.cells import PROMISES, REQUESTS, others, seed
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.damage import WORDS
from jaf_memory_testing.model import Model, differences, observed, surveyed, told
from jaf_memory_testing.target import Store


class PersistenceChecks(Checks):
    """What stays when the power goes."""

    @needs("backend", "power_cut")
    @pytest.mark.parametrize("word", WORDS)
    async def test_power_cut(self, store: Store, word: str) -> None:
        """What a request did is there after a power cut behind its answer: all of it, and nothing that it removed."""
        assert store.target.power_cut is not None
        names = [name for name in REQUESTS if name.split()[0] == word]
        model, seeds = Model(), {one.conversation_id: one for one in (*map(seed, names), *others())}
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
