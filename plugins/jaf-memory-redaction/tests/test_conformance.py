"""The conformance kit with redaction switched on: what holds nothing that is looked for is kept as it was given."""

from functools import partial

import pytest
from jaf_memory_redaction import Redaction
from jaf_memory_testing import BRIEF, ProviderConformance, Target, slow

from jaf_memory_core import BackendProvider, InMemoryConfig
from jaf_memory_core.backends.in_memory import InMemoryBackend


async def open_over(backend, **settings):
    """Open a provider that redacts."""
    config = InMemoryConfig(**{"max_messages": None, **settings})
    return BackendProvider(backend, config, processors=[Redaction(secret="a secret of the kit")])


async def open_elsewhere(**settings):
    """The same in another process."""
    return await open_over(InMemoryBackend(), **settings)


class TestInMemory(ProviderConformance):
    """In memory."""

    @pytest.fixture(params=[pytest.param("redacted", marks=slow("redacted in memory", but=BRIEF))])
    def target(self):
        """A store of its own."""
        declares = {
            "processes": "conversations are kept in one process",
            "reopen": "conversations go with the provider that keeps them",
            **dict.fromkeys(
                ("stall", "outage", "dump", "damage", "newer", "power_cut"), "the store's own tests show it"
            ),
        }
        declares["test_random_histories"] = (
            "where a processor acts, owners are looked at before messages: a call wrong in both tells the former"
        )
        backend = InMemoryBackend(InMemoryConfig(max_conversations=100_000))
        return Target(open=partial(open_over, backend), elsewhere=open_elsewhere, declares=declares)
