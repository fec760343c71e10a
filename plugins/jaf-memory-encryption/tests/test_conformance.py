"""The conformance kit with everything sealed: what is promised holds, but for what sealed texts cannot do."""

from functools import partial

import pytest
from jaf_memory_encryption import DataKeys, Encryption, KeyFile, KeyRing
from jaf_memory_testing import BRIEF, FourMethods, ProviderConformance, Target, slow
from services.stores import settings_of

from jaf_memory_core import BackendProvider, InMemoryConfig, create_memory_provider
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.registry import load as load_spec
from jaf_memory_core.settings import load

SIZES = "limits, and the size that statistics tell, count what is stored, and a sealed text is a third longer"
NOT_OFFERED = {
    "test_bytes_of_a_message": SIZES,
    "test_bytes_of_a_call": SIZES,
    "test_size": SIZES,
    "test_follows_every_change": SIZES,
    "test_random_histories": SIZES,
    "test_import_one_id_twice": "what is repeated after its conversation was given an owner is sealed by another key",
    "test_order_of_keys_is_no_conflict": "the same values in another order are another text, sealed",
    "test_same_branches": "copies are compared as they are stored, and each is sealed for its own conversation",
}
"""What a store of sealed texts cannot do."""

HELP = dict.fromkeys(
    ("stall", "outage", "dump", "damage", "newer", "power_cut"), "the store's own tests show it, below the sealing"
)


def encryption(folder):
    """Seal messages and metadata with the keys of a folder; values of metadata are plain, for the kit filters by them.

    What is not sealed may be read: some checks put records into the backend themselves.
    """
    keys = DataKeys(KeyRing({"kit": bytes(range(32))}), KeyFile(folder / "data-keys.db", make=True))
    return Encryption(keys, plain_metadata="*", accept_plain=True)


async def open_over(backend, folder, **settings):
    """Open a provider on a backend in memory."""
    config = InMemoryConfig(**{"max_messages": None, **settings})
    return BackendProvider(backend, config, processors=[encryption(folder)])


async def open_elsewhere(folder, **settings):
    """The same in another process."""
    return await open_over(InMemoryBackend(), folder, **settings)


async def open_store(environ, folder, **settings):
    """Open a provider on one of the other stores."""
    name = environ["JAF_MEMORY_TYPE"]
    named = load(load_spec(name).config, environ)
    config = type(named)(**{**{field: getattr(named, field) for field in named.model_fields_set}, **settings})
    return await create_memory_provider(name, config, processors=[encryption(folder)])


class TestInMemory(ProviderConformance):
    """In memory, over what the store does itself and over its four methods alone."""

    @pytest.fixture(
        params=[
            pytest.param("whole", marks=slow("sealed in memory", but=BRIEF)),
            pytest.param("four methods", marks=slow("once more over four methods")),
        ]
    )
    def target(self, request, tmp_path):
        """A store of its own."""
        backend = InMemoryBackend(InMemoryConfig(max_conversations=100_000))
        return Target(
            open=partial(open_over, backend if request.param == "whole" else FourMethods(backend), tmp_path),
            elsewhere=partial(open_elsewhere, tmp_path),
            declares={
                "processes": "conversations are kept in one process",
                "reopen": "conversations go with the provider that keeps them",
                **HELP,
                **NOT_OFFERED,
            },
        )


STORES = [
    pytest.param("sqlite", marks=slow("sealed on each store", but=BRIEF)),
    pytest.param("redis", marks=slow("sealed on each store")),
    pytest.param("postgres", marks=slow("sealed on each store")),
]


class TestStores(ProviderConformance):
    """On the stores that outlive a process."""

    @pytest.fixture(params=STORES)
    def target(self, request, tmp_path):
        """A store of its own."""
        open_ = partial(open_store, settings_of(request.param, request, tmp_path), tmp_path)
        return Target(
            open=open_, elsewhere=open_, declares={**HELP, **NOT_OFFERED, "test_a_scan_goes_step_by_step": SIZES}
        )
