"""Connections: TLS, users, clients that the application hands over, event loops and processes."""

import asyncio
import gc
import time

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.connection import TOGETHER, Connection
from services import redis_servers
from services.ports import free_port

from jaf_memory_core import MemoryConfigurationError, MemoryConnectionError, Message, Success

PASSWORD = "pa:ss/word#1"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority of our own, with certificates for `localhost` and for a client."""
    return redis_servers.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_server(certificates):
    """A server that speaks TLS only, and wants a client's certificate."""
    with redis_servers.single({"tls-auth-clients": "yes"}, tls=certificates) as server:
        yield server


@pytest.fixture(scope="session")
def guarded_server():
    """A server with a password, and with a user who may do what we need and nothing else."""
    settings = {
        "requirepass": f'"{PASSWORD}"',
        "user": f"ann on >{PASSWORD} ~mine:* +@read +@write +@scripting +@connection +time +info +wait",
    }
    with redis_servers.single(settings, login=(PASSWORD,)) as server:
        yield server


def test_what_was_gathered_and_never_sent():
    """Of operations that a lost connection leaves, those are told as sent of which the server may have heard."""
    heard = []

    async def serve(reader, writer):
        while data := await reader.read(1024):
            heard.append(data)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1")
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection = Connection(writer, 5.0)
        futures = [connection.send(b"*1\r\n$4\r\nPIN%d\r\n" % n, 1) for n in range(TOGETHER + 3)]
        # The first goes at once, the next so many together, and the rest would go when the loop's turn ends.
        await asyncio.sleep(0.05)
        late = [connection.send(b"*1\r\n$4\r\nLAT%d\r\n" % n, 1) for n in range(3)]
        connection.drop("it was lost")
        results = await asyncio.gather(*futures, *late, return_exceptions=True)
        assert [one.sent for one in results] == [True] * len(futures) + [False] * 3
        await asyncio.sleep(0.05)
        assert b"LAT" not in b"".join(heard)
        server.close()
        await server.wait_closed()

    asyncio.run(main())


async def works(provider):
    """Whether a conversation can be stored, found and removed."""
    assert isinstance(await provider.store_messages("c", [Message("user", "hello")]), Success)
    assert (await provider.get_recent_messages("c"))[0].content == "hello"
    health = await provider.health_check()
    assert health["healthy"], health
    return await provider.delete_conversation("c")


async def works_with(**settings):
    """The same with a provider of these settings."""
    async with await create_redis_provider(RedisConfig(operation_timeout=5.0, **settings)) as provider:
        return await works(provider)


def tls_settings(folder, authority="ca"):
    """Settings for our own certificates."""
    return {
        "ssl_ca_file": str(folder / f"{authority}.pem"),
        "ssl_cert_file": str(folder / "client.pem"),
        "ssl_key_file": str(folder / "client.key"),
    }


def test_tls(tls_server, certificates, prefix):
    """TLS works with an authority of one's own and a client certificate, from a URL and from single settings."""
    own = {**tls_settings(certificates), "key_prefix": prefix}
    assert asyncio.run(works_with(url=f"rediss://localhost:{tls_server.port}", **own))
    assert asyncio.run(works_with(host="localhost", port=tls_server.port, ssl=True, **own))


@pytest.mark.parametrize(
    ("host", "authority"), [("localhost", "stranger"), ("127.0.0.1", "ca")], ids=["stranger", "wrong-name"]
)
def test_tls_refuses(tls_server, certificates, host, authority):
    """A certificate of an unknown authority, or for another name, is refused at once, with the reason."""
    started = time.monotonic()
    with pytest.raises(MemoryConnectionError, match="certificate was not accepted") as caught:
        asyncio.run(works_with(host=host, port=tls_server.port, ssl=True, **tls_settings(certificates, authority)))
    assert not caught.value.retryable
    assert time.monotonic() - started < 4  # with a second try it would be 5


def test_users(guarded_server):
    """Password, token in the URL, and a user with few rights all work."""
    port = guarded_server.port
    quoted = PASSWORD.replace("/", "%2F").replace("#", "%23").replace(":", "%3A")
    assert asyncio.run(works_with(port=port, password=PASSWORD, key_prefix="mine:"))
    assert asyncio.run(works_with(url=f"redis://{quoted}@localhost:{port}/0", key_prefix="mine:"))
    assert asyncio.run(works_with(url=f"redis://ann:{quoted}@localhost:{port}", key_prefix="mine:"))
    assert asyncio.run(works_with(port=port, username="ann", password=PASSWORD, key_prefix="mine:"))


@pytest.mark.parametrize("settings", [{}, {"password": "wrong"}, {"username": "bob", "password": "wrong"}])
def test_wrong_password(guarded_server, settings):
    """A refused password is told at once, is not tried again, and is not repeated."""
    started = time.monotonic()
    with pytest.raises(MemoryConnectionError) as caught:
        asyncio.run(works_with(port=guarded_server.port, **settings))
    assert not caught.value.retryable
    assert "user name" in str(caught.value)
    assert "wrong" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert time.monotonic() - started < 4  # with a second try it would be 5


def test_files_are_missing(tls_server, tmp_path):
    """A certificate's file that is not there is a wrong setting, told at once."""
    with pytest.raises(MemoryConfigurationError, match="ssl_"):
        asyncio.run(works_with(host="localhost", port=tls_server.port, ssl=True, ssl_ca_file=str(tmp_path / "none")))


def test_rights_are_missing(guarded_server):
    """A user who may not touch our keys gets a `MemoryStorageError` that says so, without the keys."""

    async def main():
        config = RedisConfig(port=guarded_server.port, username="ann", password=PASSWORD, key_prefix="theirs:")
        async with await create_redis_provider(config) as provider:
            return await provider.store_messages("c", [Message("user", "secret content")])

    failure = asyncio.run(main())
    assert "rights" in str(failure.error)
    assert "theirs" not in str(failure.error)


@pytest.mark.parametrize("decode", [False, True])
def test_handed_over_client(server, prefix, decode):
    """A client of the application works, decoding or not, keeps its own ways, and stays open."""

    async def main():
        client = redis.asyncio.Redis(port=server.port, decode_responses=decode, protocol=3)
        config = RedisConfig(key_prefix=prefix, port=1)
        async with await create_redis_provider(config, client) as provider:
            assert await works(provider)
        assert await client.ping()
        assert await client.set(prefix, "x")
        assert await client.get(prefix) == ("x" if decode else b"x")
        await client.aclose()

    asyncio.run(main())


def test_handed_over_clients_of_groups(group, cluster, prefix):
    """A client that Sentinel or a Cluster manages works too."""

    async def main():
        hosts = [tuple(one.rsplit(":", 1)) for one in group.hosts.split(",")]
        manager = redis.asyncio.sentinel.Sentinel(hosts)
        client = manager.master_for(group.service)
        async with await create_redis_provider(RedisConfig(key_prefix=prefix), client) as provider:
            assert await works(provider)
        await client.aclose()
        for sentinel in manager.sentinels:
            await sentinel.aclose()
        async with redis.asyncio.RedisCluster(host="localhost", port=cluster.servers[0].port) as client:
            async with await create_redis_provider(RedisConfig(key_prefix=prefix), client) as provider:
                assert await works(provider)
            assert await client.ping()

    asyncio.run(main())


def test_other_clients_are_refused():
    """A client of another kind is refused with its kind, before anything is connected."""
    for client in (redis.Redis(), object()):
        with pytest.raises(MemoryConfigurationError, match=r"hand over a redis\.asyncio"):
            asyncio.run(create_redis_provider(RedisConfig(), client))


def test_one_loop_after_another(server, prefix):
    """A provider goes on in the next event loop, and no connection of the last is left."""
    opened = []

    async def first():
        opened.append(await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)))
        return await works(opened[0])

    async def later():
        return await works(opened[0])

    async def last():
        await works(opened[0])
        await opened[0].close()

    clients = clients_of(server)
    assert asyncio.run(first())
    assert asyncio.run(later())
    asyncio.run(last())
    # Fewer, if one of an earlier test was about to be closed.
    redis_servers.wait_until(lambda: clients_of(server) <= clients, "connections to be closed")


def clients_of(server):
    """How many connections the server has."""
    return server.command("CLIENT", "LIST").count(b"\n")


def test_many_tasks_share_a_connection(server, prefix):
    """Operations of a thousand tasks travel together over few connections."""

    async def main():
        config = RedisConfig(port=server.port, key_prefix=prefix, max_connections=3)
        async with await create_redis_provider(config) as provider:
            await asyncio.gather(*(provider.store_messages(f"c{n}", [Message("user", str(n))]) for n in range(1000)))
            found = await asyncio.gather(*(provider.get_conversation(f"c{n}") for n in range(1000)))
            assert [one.messages[0].content for one in found] == [str(n) for n in range(1000)]
            assert provider.backend.topology.connections <= 3

    asyncio.run(main())


def test_nothing_is_left_open(group, server, prefix):
    """A connection that is being opened when its operation is cancelled, or the provider closed, is closed too."""

    async def main(settings):
        for rest in range(12):
            provider = await create_redis_provider(RedisConfig(key_prefix=prefix, min_replicas=1, **settings))
            tasks = [asyncio.create_task(provider.delete_conversation(str(n))) for n in range(12)]
            for _ in range(rest):
                await asyncio.sleep(0)
            if rest % 2:
                for task in tasks:
                    task.cancel()
            await provider.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    for one, settings in ((server, {"port": server.port}), (group, {"sentinel_hosts": tuple(group.hosts.split(","))})):
        master = one if one is server else group.master()
        clients = clients_of(master)
        asyncio.run(main(settings))
        redis_servers.wait_until(lambda before=clients, at=master: clients_of(at) <= before, "connections to be closed")
        gc.collect()


def test_no_server():
    """Where nobody listens, opening says so at once, without an address or a password."""
    with pytest.raises(MemoryConnectionError) as caught:
        asyncio.run(works_with(url=f"redis://:hush@127.0.0.1:{free_port()}"))
    assert "hush" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
