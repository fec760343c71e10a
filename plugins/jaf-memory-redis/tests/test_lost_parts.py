"""A store that loses parts: a header, the bodies or the ids of a conversation go alone, as eviction takes them."""

import asyncio
import contextlib

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys, owner_entry
from jaf_memory_redis.scripts import command as redis_command
from jaf_memory_testing import slow
from services import redis_servers

from jaf_memory_core import Failure, MemoryQuery, MemoryStorageError, Message, Success

SECRET = [Message("user", f"secret {n}", message_id=f"s{n}") for n in range(3)]
PARTS = ("header", "bodies", "ids")


@pytest.fixture(params=["single", "cluster"])
def nodes(request):
    """A server or a Cluster: those that take writes, and their address."""
    if request.param == "single":
        server = request.getfixturevalue("server7")
        return [server], {"port": server.port}
    cluster = request.getfixturevalue("cluster")
    return cluster.masters(), {"host": cluster.hosts, "cluster": True}


def take_away(servers, key):
    """Remove a key, whichever server has it."""
    gone = 0
    for server in servers:
        with contextlib.suppress(RuntimeError):  # another node has the slot
            gone += server.command("DEL", key.decode())
    assert gone == 1


@pytest.fixture
def place(nodes, prefix):
    """A server or a Cluster: how to open a provider, and how to take a key away."""
    servers, address = nodes

    def lose(name, part):
        take_away(servers, Keys(prefix).conversation(name)[PARTS.index(part)])

    def keys():
        return [key for server in servers for key in server.command("KEYS", f"{prefix}*")]

    return lambda **more: create_redis_provider(RedisConfig(key_prefix=prefix, **address, **more)), lose, keys


ANEW = {
    "store": lambda provider: provider.store_messages("c", [Message("user", "mine")], user_id="bob"),
    "append": lambda provider: provider.append_messages("c", [Message("user", "mine")], user_id="bob", create=True),
    "fork": lambda provider: provider.fork_conversation("parent", "c"),
}


@pytest.mark.parametrize("way", ANEW)
def test_remains_are_nobodys(place, way):
    """Without its header a conversation is gone: who makes its id anew sees nothing of the former owner's."""
    opened, lose, _ = place

    async def main():
        async with await opened() as provider:
            await provider.store_messages("c", SECRET, user_id="alice")
            await provider.store_messages("parent", [Message("user", "mine")], user_id="bob")
            lose("c", "header")
            assert await provider.get_conversation("c") is None
            await ANEW[way](provider)
            found = await provider.for_user("bob").get_conversation("c")
            assert [message.content for message in found.messages] == ["mine"]
            assert found.message_count == 1
            assert (await provider.append_messages("c", [SECRET[0]])).data.added == 1

    asyncio.run(main())


@pytest.mark.parametrize("erase", ["delete_conversation", "clear_user_conversations"])
def test_erasure_takes_remains(place, erase):
    """Erasing a conversation, or its user, takes what is left where the header is gone, and all that names it."""
    opened, lose, keys = place

    async def main():
        async with await opened(ttl=600.0) as provider:
            await provider.store_messages("c", SECRET, user_id="alice")
            lose("c", "header")
            await getattr(provider, erase)("c" if erase == "delete_conversation" else "alice")
            if erase == "delete_conversation":
                assert await provider.find_conversations(MemoryQuery(user_id="alice")) == []
                assert [one async for one in provider.iter_conversations(MemoryQuery(user_id="alice"))] == []
            assert not [key for key in keys() if key.endswith((b"m", b"i"))]

    asyncio.run(main())


@pytest.mark.parametrize("part", ["bodies", "ids"])
def test_parts_that_do_not_agree(place, part):
    """A conversation that lost bodies or ids is refused by name, never answered in part; erasing and replacing work."""
    opened, lose, keys = place

    async def main():
        async with await opened() as provider:
            for name in ("c", "d", "e"):
                await provider.store_messages(name, SECRET, user_id="alice")
                lose(name, part)
            failure = await provider.append_messages("c", [Message("user", "more")])
            assert isinstance(failure, Failure)
            assert isinstance(failure.error, MemoryStorageError)
            assert "'c' is damaged" in str(failure.error)
            with pytest.raises(MemoryStorageError, match="'c' is damaged"):
                await provider.truncate_conversation_after("c", "s1")
            if part == "bodies":
                for work in (provider.get_conversation, provider.get_recent_messages, provider.get_messages):
                    with pytest.raises(MemoryStorageError, match="'c' is damaged"):
                        await work("c")
            assert isinstance(await provider.store_messages("e", SECRET[:2]), Success)
            assert (await provider.get_conversation("e")).message_count == 2
            assert await provider.delete_conversation("d")
            assert await provider.clear_user_conversations("alice") == 2
            assert keys() == []

    asyncio.run(main())


def test_an_append_to_what_lost_bodies_behind_a_deletion(server7, prefix):
    """It is refused and leaves all ids as they were, where positions are more than messages."""

    async def main():
        async with await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port)) as provider:
            await provider.store_messages("c", [Message("user", "x", message_id=f"m{n}") for n in range(5)])
            await provider.delete_messages("c", ["m1", "m2"])
            _, bodies, ids = (key.decode() for key in provider.backend.keys.conversation("c"))
            server7.command("RPOP", bodies)
            before = server7.command("ZRANGE", ids, 0, -1, "WITHSCORES")
            failure = await provider.append_messages("c", [Message("user", "more", message_id="m5")])
            assert isinstance(failure.error, MemoryStorageError)
            assert server7.command("ZRANGE", ids, 0, -1, "WITHSCORES") == before
            assert server7.command("LLEN", bodies) == 2

    asyncio.run(main())


def test_an_append_to_what_has_an_id_too_many(server7, prefix):
    """An id behind the newest message is told as damage by the append that meets it, and not removed unsaid."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", SECRET)
            server7.command("ZADD", Keys(prefix).conversation("c")[2].decode(), 3, "stray")
            failure = await provider.append_messages("c", [Message("user", "more")])
            assert isinstance(failure, Failure)
            assert "'c' is damaged" in str(failure.error)

    asyncio.run(main())


def test_an_append_to_what_has_a_body_too_many(server7, prefix):
    """What an append finds damaged only behind its bodies is left as it was, with none of them."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", SECRET)
            _, bodies, positions, _, activity, *_ = (key.decode() for key in Keys(prefix).single("c", None))

            def standing():
                return (
                    server7.command("LRANGE", bodies, 0, -1),
                    server7.command("ZRANGE", positions, 0, -1),
                    server7.command("ZSCORE", activity, "c"),
                )

            server7.command("RPUSH", bodies, '{"role":"user"}')
            before = standing()
            failure = await provider.append_messages("c", [Message("user", "more"), Message("user", "still more")])
            assert isinstance(failure, Failure)
            assert "'c' is damaged" in str(failure.error)
            assert standing() == before

    asyncio.run(main())


def test_listings_go_on(place):
    """A listing names what is damaged, and goes on behind it where the caller asks for that."""
    opened, lose, _ = place

    async def main():
        async with await opened() as provider:
            for name in ("a", "b", "c"):
                await provider.store_messages(name, SECRET, user_id="alice")
            lose("b", "bodies")
            for query in (MemoryQuery(), MemoryQuery(user_id="alice")):
                with pytest.raises(MemoryStorageError, match="'b' is damaged"):
                    await provider.find_conversations(query)
                told = []
                seen = [one.conversation_id async for one in provider.iter_conversations(query, on_damaged=told.append)]
                assert seen == ["a", "c"]
                assert "'b' is damaged" in str(told[0])
                found = await provider.find_conversations(query, on_damaged=told.append)
                assert [one.conversation_id for one in found] == ["c", "a"]
                assert [error.conversation_id for error in told] == ["b", "b"]

    asyncio.run(main())


def test_renamed_header(server, prefix):
    """A header that a hand has given another conversation's name shows nobody another's messages, and is erased."""

    async def main():
        config = RedisConfig(port=server.port, key_prefix=prefix)
        async with await create_redis_provider(config) as provider:
            await provider.store_messages("c", [Message("user", "alice's")], user_id="alice")
            await provider.store_messages("d", SECRET[:1], user_id="bob")
            server.command("RENAME", *(Keys(prefix).conversation(name)[0].decode() for name in ("c", "d")))
            for view in (provider, provider.for_user("alice"), provider.for_user("bob")):
                for work in (
                    view.get_conversation,
                    view.get_recent_messages,
                    lambda name, view=view: view.get_messages(name, before=1),
                    lambda name, view=view: view.get_recent_messages(name, 1_000),
                    lambda name, view=view: view.truncate_conversation_after(name, "s0"),
                    lambda name, view=view: view.update_metadata(name, {"k": 1}),
                    lambda name, view=view: view.fork_conversation(name, "e"),
                ):
                    with pytest.raises(MemoryStorageError, match="'d' is damaged"):
                        await work("d")
                failure = await view.append_messages("d", [Message("user", "more")])
                assert "'d' is damaged" in str(failure.error)
            assert await provider.clear_user_conversations("bob") == 1
            assert await provider.clear_user_conversations("alice") == 0
            assert [key for key in server.command("KEYS", f"{prefix}*") if b"{all}" not in key] == []
            assert await provider.find_conversations(MemoryQuery()) == []

    asyncio.run(main())


BESIDE = {
    "a read": (lambda view: view.get_conversation("c0"), {"c0", "c1", "c2"}),
    "an append": (lambda view: view.append_messages("c1", [Message("user", "more")]), {"c0", "c1", "c2"}),
    "a creation": (lambda view: view.append_messages("c3", [], create=True), {"c0", "c1", "c2", "c3"}),
    "an erasure": (lambda view: view.delete_conversation("c1"), {"c0", "c2"}),
}


@pytest.mark.parametrize("lost", [(0, 1), (0,), (1,)], ids=["both", "by activity", "by creation"])
def test_indexes_that_were_removed(nodes, place, prefix, lost):
    """Whose indexes a hand has removed is searched and erased completely, whatever was written before one looked."""
    opened, _, keys = place

    def lose():
        for at in lost:
            take_away(nodes[0], Keys(prefix).owned("alice")[at])

    async def main():
        async with await opened() as provider:
            view, query = provider.for_user("alice"), MemoryQuery(user_id="alice")
            await provider.store_messages("others", SECRET, user_id="bob")

            async def iterated():
                return {one.conversation_id async for one in provider.iter_conversations(query)}

            async def listed():
                return {one.conversation_id for one in await provider.find_conversations(query)}

            for write, expected in BESIDE.values():
                for search in (iterated, listed):
                    for name in ("c0", "c1", "c2"):
                        await view.append_messages(name, [Message("user", "x")], create=True)
                    lose()
                    await write(view)
                    assert await search() == expected
                    assert await iterated() == await listed() == expected
                    lose()
                    assert (await provider.get_stats("alice"))["total_conversations"] == len(expected)
                    lose()
                    assert await provider.clear_user_conversations("alice") == len(expected)
                    assert await iterated() == await listed() == set()
            assert await provider.clear_user_conversations("bob") == 1
            assert keys() == []

    asyncio.run(main())


MEMORY = {"single": "5mb", "cluster": "2500kb", "sentinel": "8mb"}
"""A server itself has about 2 MB; each master of a Cluster takes a third; one with replicas keeps what they get."""


@contextlib.contextmanager
def evicting(kind, policy):
    """Servers that are too small: their address, those that evict, and how often they do at least."""
    settings = {"maxmemory": MEMORY[kind], "maxmemory-policy": policy}
    with contextlib.ExitStack() as stack:
        if kind == "single":
            server = stack.enter_context(redis_servers.single(settings))
            yield {"port": server.port}, [server], 1_000
        elif kind == "cluster":
            cluster = redis_servers.Cluster({**settings, "cluster-node-timeout": 600_000})
            stack.callback(cluster.stop)
            yield {"host": cluster.start().hosts, "cluster": True}, cluster.masters(), 300
        else:
            group = redis_servers.Group(settings, patience=600)
            stack.callback(group.stop)
            yield {"sentinel_hosts": tuple(group.start().hosts.split(","))}, [group.master()], 1_000


def before_once(topology, is_it, work):
    """Do `work` before the first commands of a provider that `is_it` takes."""
    run_all = topology.run_all

    async def run(commands, **more):
        if topology.run_all is run and is_it(commands[0].parts):
            topology.run_all = run_all
            await work()
        return await run_all(commands, **more)

    topology.run_all = run


@pytest.mark.parametrize("moment", ["before the index is filled", "before the first is looked at"])
def test_indexes_made_again_beside_others(nodes, place, prefix, moment):
    """What others make and erase while a user's indexes are made again is found, and named no more."""
    opened, _, keys = place
    by_activity, by_creation = Keys(prefix).owned("alice")
    command = {"before the index is filled": ("ZADD", by_activity), "before the first is looked at": ("HMGET",)}[moment]

    async def main():
        async with await opened() as provider, await opened() as other:
            for number in range(4):
                await provider.store_messages(f"c{number}", SECRET, user_id="alice")
                await provider.store_messages(f"n{number}", SECRET)

            async def meanwhile():
                assert await other.delete_conversation("c1")
                assert (await other.append_messages("n0", [Message("user", "x")], user_id="alice")).unwrap()
                assert (await other.append_messages("new", SECRET, user_id="alice", create=True)).unwrap()

            take_away(nodes[0], by_creation)
            before_once(provider.backend.topology, lambda parts: tuple(parts[: len(command)]) == command, meanwhile)
            found = {one.conversation_id async for one in provider.iter_conversations(MemoryQuery(user_id="alice"))}
            assert found == {"c0", "c2", "c3", "n0", "new"}
            assert (await provider.get_stats("alice"))["user_conversations"] == 5
            for key in (by_activity, by_creation):
                (named,) = await provider.backend.topology.run_all([redis_command("ZRANGE", key, 0, -1)])
                assert sorted(name[-2:] for name in named) == [b"c0", b"c2", b"c3", b"ew", b"n0"]
            assert await provider.clear_user_conversations("alice") == 5
            for number in range(1, 4):
                await provider.delete_conversation(f"n{number}")
            assert keys() == []

    asyncio.run(main())


def test_indexes_made_again_beside_damage(nodes, place, prefix):
    """Another's damaged header keeps nobody's indexes from being made again, and no index is read in one piece."""
    opened, _, _ = place
    by_activity, by_creation = Keys(prefix).owned("alice")

    async def main():
        async with await opened() as provider:
            for name in ("c0", "c1", "bobs"):
                await provider.store_messages(name, SECRET, user_id="bob" if name == "bobs" else "alice")
            header = Keys(prefix).conversation("bobs")[0]
            take_away(nodes[0], header)
            topology = provider.backend.topology
            stale = [part for number in range(1_200) for part in (number, f"stale{number}")]
            await topology.run_all([redis_command("SET", header, "x"), redis_command("ZADD", by_activity, *stale)])
            take_away(nodes[0], by_creation)
            run_all, longest = topology.run_all, 0

            async def run(commands, **more):
                nonlocal longest
                replies = await run_all(commands, **more)
                longest = max([longest, *(len(reply) for reply in replies if isinstance(reply, list))])
                return replies

            topology.run_all = run
            found = {one.conversation_id async for one in provider.iter_conversations(MemoryQuery(user_id="alice"))}
            assert found == {"c0", "c1"}
            assert longest < 1_200
            assert await provider.clear_user_conversations("alice") == 2

    asyncio.run(main())


def test_indexes_made_again_in_parts(nodes, place, prefix, monkeypatch):
    """Where the walk is stopped half-way, by a deadline for one, the next search goes on there."""
    opened, _, _ = place
    monkeypatch.setattr("jaf_memory_redis.indexes.MANY", 5)

    async def main():
        async with await opened() as provider:
            for number in range(20):
                await provider.store_messages(f"c{number:02}", SECRET, user_id="alice" if number % 2 else "bob")
            take_away(nodes[0], Keys(prefix).owned("alice")[1])
            stopped, pages = asyncio.Event(), 0
            topology, walked = provider.backend.topology, ("ZRANGEBYLEX", Keys(prefix).everything[1])

            async def hang():
                stopped.set()
                await asyncio.Event().wait()

            def counts(parts):
                nonlocal pages
                pages += parts[:2] == walked
                return pages == 3

            run_all = topology.run_all
            before_once(topology, counts, hang)
            search = asyncio.create_task(provider.get_stats("alice"))
            await stopped.wait()
            search.cancel()
            topology.run_all = run_all
            before_once(topology, lambda parts: counts(parts) and False, hang)
            await provider.delete_conversation("c01")
            assert (await provider.get_stats("alice"))["user_conversations"] == 9
            assert pages == 3 + 3  # with the last, which is empty

    asyncio.run(main())


def test_indexes_of_older_data(nodes, place, prefix):
    """Whose conversations an older version wrote is known among all from the next one that is made."""
    opened, _, _ = place
    keys = Keys(prefix)

    async def main():
        async with await opened() as provider:
            for name in ("c0", "c1"):
                await provider.store_messages(name, SECRET, user_id="alice")
                await provider.backend.topology.run_all(
                    [redis_command("ZREM", keys.everything[1], owner_entry("alice"))]
                )
            await provider.store_messages("c2", SECRET, user_id="alice")
            for key in keys.owned("alice"):
                take_away(nodes[0], key)
            assert await provider.clear_user_conversations("alice") == 3

    asyncio.run(main())


POLICIES = [
    *("allkeys-lru", "volatile-lru", "allkeys-random"),
    *(
        pytest.param(policy, marks=slow("another policy"))
        for policy in ("allkeys-lfu", "volatile-lfu", "volatile-random", "volatile-ttl")
    ),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "kind", ["single", *(pytest.param(kind, marks=slow("six servers")) for kind in ("cluster", "sentinel"))]
)
def test_eviction(policy, kind):
    """While the server evicts all the time, nobody ever sees another's message, or a count that is not so."""

    async def main(**address):
        async with await create_redis_provider(RedisConfig(ttl=86_400.0, **address)) as provider:

            async def turn(number, owner):
                name = f"c{number}"
                text = Message("user", owner + " " + "x" * 600)
                result = await provider.append_messages(name, [text] * 1, user_id=owner, create=True)
                return isinstance(result, Success)

            async def look(number):
                try:
                    found = await provider.get_conversation(f"c{number}")
                except MemoryStorageError:
                    return "damaged"
                if found is None:
                    return "gone"
                assert found.message_count == len(found.messages)
                assert all(message.content.startswith(f"{found.user_id} ") for message in found.messages)
                return "stands"

            seen = []
            for round_ in range(3):
                for start in range(0, 2_000, 200):
                    numbers = range(start, start + 200)
                    await asyncio.gather(*(turn(number, f"user{round_}") for number in numbers))
                    await asyncio.gather(*(turn(number, f"user{round_}") for number in numbers))
                seen += await asyncio.gather(*(look(number) for number in range(0, 2_000, 3)))
            # Of a Cluster that is so small nothing may be left that is whole.
            assert {"gone"} | ({"stands"} if kind != "cluster" else set()) <= set(seen)
            assert policy in " ".join((await provider.health_check())["warnings"])

    def evicted(servers):
        stats = [server.command("INFO", "stats").decode() for server in servers]
        return sum(int(one.split("evicted_keys:")[1].split()[0]) for one in stats)

    with evicting(kind, policy) as (address, servers, least):
        asyncio.run(main(**address))
        assert evicted(servers) > least


def test_expired_leave_nothing(server, prefix):
    """What Redis dropped after its expiry leaves no entry once anybody writes or lists, though nobody purges."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix, ttl=600.0)) as provider:
            for number in range(150):
                await provider.store_messages(f"c{number}", [Message("user", "x")], user_id=f"u{number}")
                for key in Keys(prefix).conversation(f"c{number}"):
                    server.command("DEL", key.decode())
            expiries = Keys(prefix).expiries.decode()
            for entry in server.command("ZRANGE", expiries, 0, -1):
                server.command("ZADD", expiries, 1, entry.decode())
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            for _ in range(3):
                await provider.store_messages("other", [Message("user", "x")])
            await provider.delete_conversation("other")
            assert server.command("KEYS", f"{prefix}*") == []

    asyncio.run(main())


def test_entries_that_point_nowhere_go(server7, prefix):
    """What an index names, and is not there, is dropped by the list that meets it."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", [Message("user", "x")], user_id="u")
            for user, key in ((None, provider.backend.keys.everything[0]), ("u", provider.backend.keys.owned("u")[0])):
                name = key.decode()
                server7.command("ZADD", name, server7.command("ZSCORE", name, "c").decode(), "gone")
                found = await provider.find_conversations(MemoryQuery(user_id=user))
                assert [one.conversation_id for one in found] == ["c"]
                assert server7.command("ZRANGE", name, 0, -1) == [b"c"]

    asyncio.run(main())
