"""The in-memory backend: bounds, order, accounts."""

import asyncio
import threading
import time
import tracemalloc
from itertools import pairwise

import pytest
from jaf_memory_testing.samples import ids, kept, said, talk

from jaf_memory_core import (
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryQuery,
    Processor,
    ProviderConfig,
    codec,
    create_in_memory_provider,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend, _Kept, jaf_memory_provider
from jaf_memory_core.records import Tail


def run(provider, *steps):
    """Take some steps on a loop; what the last one gave."""

    async def main():
        answer = None
        for step in steps:
            answer = await step(provider)
        return answer

    return asyncio.run(main())


async def names(provider):
    """The ids of all conversations, the last written first."""
    return [one.conversation_id for one in await provider.find_conversations(MemoryQuery())]


def test_defaults():
    """Both bounds are 1000, as the document has them."""
    config = InMemoryConfig()
    assert (config.max_conversations, config.max_messages) == (1000, 1000)
    assert InMemoryConfig(max_messages_per_conversation=7).max_messages == 7
    for bound in ("max_conversations", "max_messages"):
        with pytest.raises(ValueError, match=bound):
            InMemoryConfig(**{bound: 0})
        assert getattr(InMemoryConfig(**{bound: 1}), bound) == 1


class Derived(InMemoryBackend):
    """One that somebody made of this."""


def test_settings_of_a_backend():
    """None are the defaults; what is derived may have settings of its own, the backend itself refuses others."""
    own = InMemoryConfig(max_conversations=5)
    for kind in (InMemoryBackend, Derived):
        assert kind().config == InMemoryConfig()
        assert kind(own).config is own
    other = ProviderConfig()
    with pytest.raises(MemoryConfigurationError):
        InMemoryBackend(other)
    with pytest.raises(AttributeError, match="max_conversations"):  # it went on with what it was given
        Derived(other)


class Untitled(Processor):
    """Lets no metadata in."""

    def outgoing_metadata(self, _metadata, _context):
        """Nothing of it."""
        return {}


def test_processors_and_observers():
    """Those that a provider is made with are asked, and told."""
    told = []
    provider = create_in_memory_provider(processors=[Untitled()], observers=[told.append])
    stored = run(
        provider, lambda one: one.store_messages("c", talk(1), {"a": 1}), lambda one: one.get_conversation("c")
    )
    assert stored.metadata == {}
    assert told


def test_least_recently_written_goes():
    """Beyond `max_conversations` the least recently written one goes, its index entry too; reads do not count."""
    provider = create_in_memory_provider(InMemoryConfig(max_conversations=3))

    async def main():
        for name in "abc":
            await provider.store_messages(name, talk(1), user_id="u")
        await provider.get_conversation("b")
        await provider.append_messages("a", talk(1, "n"))
        await provider.store_messages("d", talk(1), user_id="v")
        assert await names(provider) == ["d", "a", "c"]
        assert (await provider.get_stats("u"))["user_conversations"] == 2
        await provider.update_metadata("c", {"x": 1})
        await provider.store_messages("e", talk(1))
        assert await names(provider) == ["e", "d", "c"]  # a list goes by messages

    asyncio.run(main())
    assert set(provider.backend._of_user) == {"u", "v"}


def test_max_messages():
    """Beyond `max_messages` the oldest messages go."""
    provider = create_in_memory_provider(InMemoryConfig(max_messages=3))
    run(provider, lambda one: one.store_messages("c", talk(2)), lambda one: one.append_messages("c", talk(3, "n")))
    assert ids(run(provider, lambda one: one.get_recent_messages("c"))) == ["n0", "n1", "n2"]


def test_close_forgets():
    """Closing lets go of everything."""
    provider = create_in_memory_provider()
    run(provider, lambda one: one.store_messages("c", talk(2), user_id="u"), lambda one: one.close())
    assert not provider.backend._all
    assert not provider.backend._of_user
    assert not provider.backend._by_write


def test_time_strictly_increases():
    """No two writes have the same time, whatever the clock does, so that their order is the order of times."""
    backend = InMemoryBackend()
    times = [backend.now() for _ in range(10_000)]
    assert all(earlier < later for earlier, later in pairwise(times))


def test_size_is_kept():
    """The size is kept with each change, and equals what counting gives."""
    provider = create_in_memory_provider(InMemoryConfig(max_messages=4))

    async def main():
        await provider.store_messages("c", [said("é" * n, message_id=f"m{n}", value=[n]) for n in range(6)])
        await provider.append_messages("c", [said("\ud800", message_id="s"), said("x", message_id="t")])
        await provider.truncate_conversation_after("c", "t")
        messages = await provider.get_recent_messages("c")
        size = codec.size(map(codec.encode, messages))
        assert provider.backend._all["c"].size == size
        assert (await provider.get_stats())["total_storage_size"] == size
        metrics = (await provider.health_check())["metrics"]
        assert (metrics["memory_usage"], metrics["active_connections"]) == (size, 0)

    asyncio.run(main())


def test_order_of_what_was_put():
    """Records that are put with older times are found in the order of these, within ties by id."""
    backend = InMemoryBackend()

    async def main():
        for name, updated in (("a", 5), ("b", 9), ("c", 5), ("d", 1)):
            await backend.write(kept(name, updated=updated, user_id="u"), expected=None)
        for query in (MemoryQuery(), MemoryQuery(user_id="u"), MemoryQuery(limit=10)):
            assert [record.conversation_id for record in await backend.find(query)] == ["b", "c", "a", "d"]

    asyncio.run(main())


def test_health_warns():
    """Health says that nothing survives the process."""
    health = run(create_in_memory_provider(), lambda one: one.health_check())
    assert "nothing survives the end of this process" in health["warnings"][0]
    assert health["details"]["durability"] == "none"


def test_spec():
    """It is registered as any other provider is."""
    spec = jaf_memory_provider()
    assert spec.name == "memory"
    assert isinstance(spec.backend(spec.config()), InMemoryBackend)


def test_threads():
    """Threads that write, search and clear at once never see a half-built index."""
    backend = InMemoryBackend(InMemoryConfig(max_conversations=50))
    provider = create_in_memory_provider()
    provider.backend = backend
    provider._guard.backend = backend
    failures = []
    ends = time.monotonic() + 1

    async def work(number):
        n = 0
        while time.monotonic() < ends:
            n += 1
            await provider.append_messages(f"c{n % 70}", talk(1, f"{number}.{n}."), user_id=f"u{n % 70}", create=True)
            await provider.find_conversations(MemoryQuery(user_id=f"u{n % 70}", limit=2))
            await provider.get_stats()
            if n % 20 == 0:
                await provider.clear_user_conversations(f"u{n % 70}")

    def run_in_thread(number):
        try:
            asyncio.run(work(number))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a failure)
            failures.append(error)

    threads = [threading.Thread(target=run_in_thread, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(backend._all) <= 50
    owned = {key for index in backend._of_user.values() for key in index}
    assert owned == set(backend._all)


@pytest.mark.parametrize("length", [100, 10_000])
def test_cost_of_recent_messages(length):
    """Reading the end of a conversation touches only what is read."""
    backend = InMemoryBackend(InMemoryConfig(max_messages=None))
    provider = create_in_memory_provider()
    provider.backend = backend

    async def main():
        await backend.write(kept("c", messages=talk(length)), expected=None)
        peaks = []
        for _ in range(3):  # others than this thread may take memory meanwhile
            tracemalloc.start()
            await backend.tail(Tail("c", 20))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert min(peaks) < 20_000

    asyncio.run(main())


def test_what_was_truncated_costs_no_reader():
    """The newest messages cost their number, also where very many stood behind them before."""

    def quickest(kept):
        times = []
        for _ in range(50):
            started = time.perf_counter()
            assert len(kept.between(80, 100)) == 20
            times.append(time.perf_counter() - started)
        return min(times)

    kept, short = _Kept(None), _Kept(None)
    for message in talk(100):
        short.add(message, 0)
    kept.messages = dict.fromkeys(map(str, range(300_000)), talk(1)[0])
    kept.drop(299_900, newest=True)
    assert list(kept.messages) == [str(number) for number in range(100)]
    assert quickest(kept) < 20 * quickest(short)
