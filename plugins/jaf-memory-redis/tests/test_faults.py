"""Nothing acknowledged is lost or doubled, and the provider goes on by itself, whatever happens to the servers."""

import asyncio
import os
import threading

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from services import redis_servers
from services.lines import Line
from services.ports import free_port
from services.redis_load import UNHARMED, Load

from jaf_memory_core import ConversationMemory, MemoryConnectionError, MemoryQuery, Message, Success

KILLS = int(os.environ.get("JAF_TEST_REDIS_KILLS", "3"))
"""How often the server is killed; 20 for the figures."""


async def kill_repeatedly(load, server):
    """Kill the server under load, and start it again."""
    for _ in range(KILLS):
        await load.settled()
        server.kill()
        await asyncio.to_thread(server.start)
    await load.settled()


@pytest.mark.parametrize("fsync", ["always", "no"])
def test_killed_server(fsync):
    """A server with an append-only file that is killed under eight writers loses and doubles nothing.

    With `everysec` it may: while the system is still busy with the last second's file, Redis answers before it writes.
    """

    async def main(server):
        async with await create_redis_provider(RedisConfig(port=server.port)) as provider:
            load = Load(provider)
            await load.run(8, kill_repeatedly(load, server))
            assert await load.damage() == UNHARMED

    with redis_servers.single({"appendonly": "yes", "appendfsync": fsync}) as server:
        asyncio.run(main(server))


def test_failover(group, prefix):
    """When the master is killed, the provider goes on with the one that the sentinels choose; `WAIT` kept all."""

    async def main():
        config = RedisConfig(sentinel_hosts=tuple(group.hosts.split(",")), min_replicas=1, key_prefix=prefix)
        async with await create_redis_provider(config) as provider:
            load = Load(provider)
            await load.run(8, fail_over(load))
            assert await load.damage() == UNHARMED

    async def fail_over(load):
        await load.settled()
        before = group.master()
        before.kill()
        await load.settled()
        redis_servers.wait_until(lambda: group.master() is not before, "a sentinel that has heard of the new master")
        await asyncio.to_thread(before.start)
        await load.settled()

    asyncio.run(main())
    redis_servers.wait_until(group.whole, "a group that is whole again")


def test_killed_node(cluster, prefix):
    """When the master of a slot is killed, the provider goes on with its replica; `WAIT` kept all."""

    async def main():
        config = RedisConfig(host=cluster.hosts, cluster=True, min_replicas=1, key_prefix=prefix)
        async with await create_redis_provider(config) as provider:
            load = Load(provider)
            await load.run(8, kill_its_master(load, provider))
            assert await load.damage() == UNHARMED

    async def kill_its_master(load, provider):
        await load.settled()
        master = cluster.master_of(provider.backend.keys.conversation(load.conversation)[0].decode())
        master.kill()
        # Its one replica takes over, and has none itself until the killed node is back: until then WAIT refuses.
        await asyncio.to_thread(redis_servers.wait_until, lambda: len(cluster.masters()) == 3, "a new master")
        await asyncio.to_thread(master.start)
        await load.settled()

    asyncio.run(main())
    redis_servers.wait_until(cluster.whole, "a cluster that is whole again")


def test_scripts_are_forgotten(server, prefix):
    """A server that has forgotten our scripts is told them again."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            assert isinstance(await provider.store_messages("c", [Message("user", "a")]), Success)
            server.command("SCRIPT", "FLUSH")
            results = await asyncio.gather(
                *(provider.append_messages("c", [Message("user", str(n))]) for n in range(20))
            )
            assert all(isinstance(result, Success) for result in results)
            server.command("SCRIPT", "FLUSH")
            assert len(await provider.get_messages("c", before=5)) == 5

    asyncio.run(main())


def test_too_few_replicas(server7, prefix):
    """A write that too few replicas have is told as unknown, though it stands."""

    async def main():
        config = RedisConfig(
            port=server7.port, key_prefix=prefix, min_replicas=1, min_replicas_timeout=0.05, operation_timeout=2.0
        )
        async with await create_redis_provider(config) as provider:
            with pytest.raises(MemoryConnectionError, match="0 of 1 replicas") as caught:
                await provider.store_messages("c", [Message("user", "a")])
            assert caught.value.outcome == "unknown"
            with pytest.raises(MemoryConnectionError):
                await provider.append_messages("c", [Message("user", "b", message_id="b")])
            conversation = await provider.get_conversation("c")
            assert [message.content for message in conversation.messages] == ["a", "b"]

    asyncio.run(main())


def test_cancelled_in_the_middle(server, prefix):
    """Operations that are cancelled at any moment disturb no other: each gets its own reply."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            for number in range(20):
                await provider.store_messages(f"c{number}", [Message("user", str(number))])

            async def read(number):
                conversation = await provider.get_conversation(f"c{number}")
                assert conversation.messages[0].content == str(number)

            for delay in range(40):
                tasks = [asyncio.create_task(read(number)) for number in range(20)]
                await asyncio.sleep(delay / 40_000)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(result is None for result in results[1::2])
            assert provider.backend.topology.connections == 1

    asyncio.run(main())


def test_hung_server(server7, prefix):
    """A server that stops answering is given up after `socket_timeout`, and used again once it answers."""

    async def main():
        config = RedisConfig(
            port=server7.port, key_prefix=prefix, socket_timeout=1.5, min_replicas_timeout=0.1, operation_timeout=5.0
        )
        async with await create_redis_provider(config) as provider:
            await provider.store_messages("c", [])
            server7.pause()
            try:
                with pytest.raises(MemoryConnectionError) as caught:
                    await provider.append_messages("c", [Message("user", "a")], create=True)
                assert caught.value.outcome == "unknown"
            finally:
                server7.go_on()
            assert await provider.get_conversation("c") is not None

    asyncio.run(main())


def test_demoted_master(prefix):
    """A master that becomes a replica while it is connected to is left, and nothing is taken for written."""

    async def main(server, other):
        async with await create_redis_provider(
            RedisConfig(port=server.port, key_prefix=prefix, operation_timeout=2.0)
        ) as provider:
            await provider.store_messages("c", [])
            server.command("REPLICAOF", "127.0.0.1", other)
            with pytest.raises(MemoryConnectionError, match="replica"):
                await provider.store_messages("c", [Message("user", "a")])
            server.command("REPLICAOF", "NO", "ONE")
            held = [Message("user", "b")]
            assert (await provider.append_messages("c", held)).data.message_count == 1
            server.command("REPLICAOF", "127.0.0.1", other)
            with pytest.raises(MemoryConnectionError, match="replica"):
                await provider.append_messages("c", held)
            server.command("REPLICAOF", "NO", "ONE")
            assert (await provider.append_messages("c", held)).data.added == 0

    for version in (6, 7):
        with redis_servers.single(version=version) as server:
            asyncio.run(main(server, free_port()))


def test_what_is_under_way_when_a_master_is_demoted(prefix):
    """Of many writes that a replica refuses one after the other each is told so, and is done once there is a master."""

    async def main(server, line):
        config = RedisConfig(port=line.port, key_prefix=prefix, reconnect_timeout=60, operation_timeout=90)
        async with await create_redis_provider(config) as provider:
            await provider.store_messages("c", [])
            server.command("REPLICAOF", "127.0.0.1", free_port())
            works = []
            for number in range(40):  # when the first is refused, most of them are under way
                works.append(asyncio.create_task(provider.store_messages(f"c{number}", [Message("user", "a")])))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            server.command("REPLICAOF", "NO", "ONE")
            assert all(isinstance(result, Success) for result in await asyncio.gather(*works))

    async def far(server):
        async with Line(server.port, delay=0.2) as line:
            await main(server, line)

    with redis_servers.single() as server:
        asyncio.run(far(server))


def test_many_scripts_are_forgotten_at_once(server7, prefix):
    """A server that has forgotten what travels together is told each script once, and no later than with the next."""

    async def main():
        async with Line(server7.port) as line:
            config = RedisConfig(port=line.port, key_prefix=prefix)
            async with await create_redis_provider(config) as provider:
                text = Message("user", "a", message_id="a"), Message("user", "b", message_id="b")
                await provider.import_conversations([ConversationMemory(f"c{n}", "u", text[:1]) for n in range(600)])
                server7.command("SCRIPT", "FLUSH")
                before = line.sent
                await provider.import_conversations([ConversationMemory(f"c{n}", "u", text) for n in range(600)])
                assert line.sent - before < 600 * 8_000  # the script alone is larger
                assert (await provider.get_stats("u"))["user_messages"] == 1_200

    asyncio.run(main())


def test_no_more_connections(prefix):
    """Where the server takes no more connections, those that stand are enough."""

    async def main(server):
        config = RedisConfig(port=server.port, key_prefix=prefix, max_connections=50)
        async with await create_redis_provider(config) as provider:
            results = await asyncio.gather(
                *(provider.store_messages(f"c{n}", [Message("user", "a")]) for n in range(500))
            )
            assert all(isinstance(result, Success) for result in results)
            assert provider.backend.topology.connections <= 3

    with redis_servers.single({"maxclients": 3}) as server:
        asyncio.run(main(server))


def test_reads_while_writes_are_paused(server, prefix):
    """Every read goes on while the server holds writes back, as it does before a planned failover (Redis 7)."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", [Message("user", str(n)) for n in range(9)], user_id="u")
            server.command("SCRIPT", "FLUSH")
            if server.version != 6:
                server.command("CLIENT", "PAUSE", 60_000, "WRITE")
            try:
                async with asyncio.timeout(20):
                    assert [one.content for one in await provider.get_messages("c", before=5, limit=2)] == ["3", "4"]
                    assert len(await provider.get_messages("c", before=2)) == 2
                    assert len(await provider.get_recent_messages("c")) == 9
                    assert (await provider.get_conversation("c")).message_count == 9
                    assert len(await provider.find_conversations(MemoryQuery(user_id="u"))) == 1
            finally:
                server.command("CLIENT", "UNPAUSE")

    asyncio.run(main())


def test_message_that_the_server_does_not_take(prefix, caplog):
    """A message above the server's own limit is refused with the name of that limit, and others go on."""

    async def main(server):
        config = RedisConfig(port=server.port, key_prefix=prefix, reconnect_timeout=0)
        async with await create_redis_provider(config) as provider:
            await provider.store_messages("c", [])
            for work in (provider.store_messages, provider.append_messages):
                # The server says why and closes; that may arrive, or the close alone.
                try:
                    error = (await work("c", [Message("user", "x" * 3_000_000)])).error
                except MemoryConnectionError as lost:
                    error = lost
                assert "proto-max-bulk-len" in str(error)
                assert (await provider.append_messages("c", [Message("user", "small")])).data.added == 1
            assert (await provider.get_conversation("c")).message_count == 2
        assert "raised exception" not in caplog.text

    with redis_servers.single({"proto-max-bulk-len": 1 << 20}) as server:
        asyncio.run(main(server))


def test_server_that_loads_its_data():
    """A provider that is made while the server loads its data waits for it, as long as for any server that is away."""

    def is_loading(server):
        try:
            server.command("GET", "k0")
        except RuntimeError as error:
            return "LOADING" in str(error)
        except OSError:
            return False
        raise AssertionError("it has loaded already")

    async def main(server):
        with pytest.raises(MemoryConnectionError, match="loading") as caught:
            await create_redis_provider(RedisConfig(port=server.port, reconnect_timeout=0))
        assert (caught.value.outcome, caught.value.retryable) == ("not_applied", True)
        work = asyncio.create_task(
            create_redis_provider(RedisConfig(port=server.port, reconnect_timeout=60, operation_timeout=90))
        )
        await asyncio.sleep(0.3)
        assert is_loading(server)
        assert not work.done()
        server.command("CONFIG", "SET", "key-load-delay", 0)
        async with await work as provider:
            assert isinstance(await provider.store_messages("c", []), Success)

    redis_servers.require_seven()  # 6.2 answers nobody while it loads so little
    # At each key it waits, and looks whether anybody wants to hear that it is loading.
    slow = {"save": '"3600 1"', "loading-process-events-interval-bytes": 1024}
    with redis_servers.single(slow) as server:
        for number in range(3_000):
            server.command("SET", f"k{number}", "x" * 1_100)
        server.command("SAVE")
        server.kill()
        server.arguments = ("--key-load-delay", "50000")
        starting = threading.Thread(target=server.start)
        starting.start()
        redis_servers.wait_until(lambda: is_loading(server), "a server that loads")
        try:
            asyncio.run(main(server))
        finally:
            starting.join()
