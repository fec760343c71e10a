"""The in-memory provider keeps every promise, as it is and over its four methods alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from jaf_memory_testing import FourMethods, ProviderConformance, Target

from jaf_memory_core import BackendProvider, InMemoryConfig
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend

IN_PROCESS = "conversations are kept in one process"
NO_STORED_FORM = dict.fromkeys(("damage", "newer", "power_cut"), "what is kept are objects: there is no stored form")


async def _open_on(backend: Backend, **settings: Any) -> BackendProvider:
    return BackendProvider(backend, InMemoryConfig(**{"max_messages": None, **settings}))


async def _open_in_memory(**settings: Any) -> BackendProvider:
    return await _open_on(InMemoryBackend(), **settings)


async def _open_four_methods(**settings: Any) -> BackendProvider:
    return await _open_on(FourMethods(InMemoryBackend()), **settings)


def _large() -> InMemoryBackend:
    return InMemoryBackend(InMemoryConfig(max_conversations=100_000))


async def _dump(backend: InMemoryBackend) -> Any:
    everything = [(key, kept.record(), kept.size) for key, kept in backend._all.items()]
    return everything, {user: list(owned) for user, owned in backend._of_user.items()}


class TestInMemory(ProviderConformance):
    """The in-memory provider, as it is."""

    @pytest.fixture
    def target(self) -> Target:
        """A store of its own."""
        backend = _large()
        return Target(
            open=partial(_open_on, backend),
            elsewhere=_open_in_memory,
            dump=partial(_dump, backend),
            declares={
                "processes": IN_PROCESS,
                "reopen": "conversations go with the provider that keeps them",
                "stall": "there is nothing to wait for",
                "outage": "there is nothing that could be away",
                **NO_STORED_FORM,
            },
        )


class TestFourMethods(ProviderConformance):
    """The defaults of `Backend`, over the four methods that every author writes."""

    @pytest.fixture
    def target(self) -> Target:
        """A store of its own."""
        backend = _large()
        return Target(
            open=partial(_open_on, FourMethods(backend)),
            elsewhere=_open_four_methods,
            dump=partial(_dump, backend),
            declares={
                "processes": IN_PROCESS,
                "reopen": "conversations go with the provider that keeps them",
                "stall": "there is nothing to wait for",
                "outage": "there is nothing that could be away",
                **NO_STORED_FORM,
            },
        )


def test_four_methods_are_treated_like_the_backend() -> None:
    """What a backend declares of itself is so behind its four methods, too."""

    class Odd(InMemoryBackend):
        name = "odd"
        loop_bound = waits = patient = True
        driver_errors = (ZeroDivisionError,)

    backend = Odd(InMemoryConfig(max_messages=3))
    hidden = FourMethods(backend)
    declared = [name for name in vars(Backend) if not name.startswith("_") and not callable(getattr(Backend, name))]
    assert {"patient", "config", "name"} <= {*declared}
    assert [getattr(hidden, name) for name in declared] == [getattr(backend, name) for name in declared]
    assert BackendProvider(hidden).config.max_messages == 3
