"""On a Cluster the index entries are there before what they point to, wherever a writer stops."""

import asyncio
import itertools
import types
import uuid

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider

from jaf_memory_core import ConversationMemory, MemoryQuery, Message

LONG_AGO = "2020-01-02T03:04:05+00:00"


@types.coroutine
def stepped(work, stop, between=None, since=1):
    """Run a coroutine up to its await number `stop`, and no further, as a killed process would; how many awaits it had.

    Args:
        work: the coroutine.
        stop: at which await it ends for good.
        between: makes a coroutine that others do at each of them.
        since: behind which await they begin.
    """
    awaits = 0
    try:
        value = work.send(None)
        while True:
            awaits += 1
            if awaits > stop:
                work.close()
                return None
            if between is not None and awaits > since:
                yield from between().__await__()
            try:
                sent = yield value
            except BaseException as error:  # noqa: BLE001  (it is the coroutine's to handle)
                value = work.throw(error)
            else:
                value = work.send(sent)
    except StopIteration:
        return awaits


WAYS = {
    "append": lambda p, name: p.append_messages(name, [Message("user", "x")], user_id="alice", create=True),
    "store": lambda p, name: p.store_messages(name, [Message("user", "x")], user_id="alice"),
    "owner by append": lambda p, name: p.append_messages(f"free-{name}", [Message("user", "y")], user_id="alice"),
    "owner by store": lambda p, name: p.store_messages(f"free-{name}", [Message("user", "y")], user_id="alice"),
    "owner by metadata": lambda p, name: p.update_metadata(f"free-{name}", {"user_id": "alice"}),
    "fork": lambda p, name: p.fork_conversation("parent", name),
    "import of an old one": lambda p, name: p.import_conversation(
        ConversationMemory(name, "alice", (Message("user", "x"),), {"created_at": LONG_AGO})
    ),
}


async def lost(provider, names):
    """Which of alice's conversations stand, and are not found in one of the ways, or outlive her erasure."""
    standing = set()
    for name in names:
        found = await provider.get_conversation(name)
        if found is not None and found.user_id == "alice":
            standing.add(name)
    missing = set()
    for query in (MemoryQuery(), MemoryQuery(user_id="alice")):
        missing |= standing - {one.conversation_id for one in await provider.find_conversations(query)}
        missing |= standing - {one.conversation_id async for one in provider.iter_conversations(query)}
    await provider.clear_user_conversations("alice")
    for name in standing:
        if await provider.get_conversation(name) is not None:
            missing.add(name)
    return missing


async def look_around(provider):
    """What drops entries that point nowhere, if anything does."""
    for query in (MemoryQuery(), MemoryQuery(user_id="alice")):
        await provider.find_conversations(query)
        async for _ in provider.iter_conversations(query):
            pass
    await provider.purge_expired()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-sweepers"])
@pytest.mark.parametrize("way", WAYS)
def test_stopped_at_every_await(cluster, prefix, way, beside):
    """Wherever the process that writes is killed, whatever it made is found, and erased with its owner."""

    async def main():
        settings = {"host": cluster.hosts, "cluster": True, "key_prefix": prefix}
        async with (
            await create_redis_provider(RedisConfig(**settings)) as provider,
            await create_redis_provider(RedisConfig(**settings)) as other,
        ):
            await provider.store_messages("parent", [Message("user", "x")], user_id="alice")
            stop, done = 0, None
            while done is None:
                names = [f"n{stop}", f"free-n{stop}"]
                await other.store_messages("parent", [Message("user", "x")], user_id="alice")
                await other.store_messages(names[1], [Message("user", "x")])
                between = (lambda: look_around(other)) if beside else None
                # What is swept earlier would be swept here as well.
                done = await stepped(WAYS[way](provider, names[0]), stop, between, max(1, stop - 2))
                await asyncio.sleep(0.01)  # what was sent arrives
                assert await lost(other, names) == set(), f"stopped at await {stop}"
                stop += 1
            assert stop > 2

    asyncio.run(main())


def test_a_new_owner_costs_no_look_at_others(cluster, prefix, monkeypatch):
    """Who has no conversation yet gets the first without a look through all the others for what the index lost."""

    async def main():
        config = RedisConfig(host=cluster.hosts, cluster=True, key_prefix=prefix)
        async with await create_redis_provider(config) as provider:
            restored = []

            async def restore(owner, *, lost=True):
                restored.append((owner, lost))

            monkeypatch.setattr(provider.backend._indexes, "restore", restore)
            await provider.store_messages("c", [Message("user", "x")], user_id="u")
            await provider.append_messages("d", [Message("user", "x")], user_id="v", create=True)
            await provider.store_messages("e", [Message("user", "x")])
            await provider.update_metadata("e", {"user_id": "w"})
            await provider.store_messages("f", [Message("user", "x")], user_id="u")
            assert restored == []

    asyncio.run(main())


def test_deleted_and_made_again(cluster):
    """A deletion that another provider's new creation overtakes, and that is killed at any await, hides nothing."""

    async def main():
        settings = {"host": cluster.hosts, "cluster": True}
        async with (
            await create_redis_provider(RedisConfig(**settings, key_prefix=f"{uuid.uuid4().hex}:")) as provider,
        ):
            other = await create_redis_provider(provider.config)
            held, reached = 0, True
            while reached:
                held, stop, made = held + 1, 0, None
                reached = False
                while made is None and (reached or not stop):
                    stop += 1
                    await other.store_messages("c", [Message("user", "old")], user_id="alice")
                    calls, results = itertools.count(1), []

                    async def between(held=held, stop=stop, calls=calls, results=results):
                        if next(calls) == held:
                            work = other.store_messages("c", [Message("user", "new")], user_id="alice")
                            results.append(await stepped(work, stop))

                    await stepped(provider.delete_conversation("c"), 100, between)
                    await asyncio.sleep(0.005)
                    assert await lost(other, ["c"]) == set(), f"deletion held at {held}, creation stopped at {stop}"
                    reached, made = bool(results), next(iter(results), None)
            assert held > 2
            await other.close()

    asyncio.run(main())


def test_who_purges_beside_others_counts_once(cluster, prefix, monkeypatch):
    """What one process has removed, and another sweeps before the first drops its entries, is counted once."""

    async def main():
        config = RedisConfig(host=cluster.hosts, cluster=True, key_prefix=prefix)
        one, two = await create_redis_provider(config), await create_redis_provider(config)
        await one.store_messages("gone", [Message("user", "x")])
        await one.set_expiry("gone", 0.001)
        await asyncio.sleep(0.05)
        indexes = one.backend._indexes
        gone, swept = indexes.gone, []

        async def beaten(*arguments):
            swept.append(await two.purge_expired())
            return await gone(*arguments)

        monkeypatch.setattr(indexes, "gone", beaten)
        assert await one.purge_expired() + sum(swept) == 1
        assert swept == [1]
        await one.close()
        await two.close()

    asyncio.run(main())
