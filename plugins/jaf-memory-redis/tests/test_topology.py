"""Finding the servers: an answer that is out of date, or empty, blocks nothing."""

import asyncio
import contextlib
import socket
import time

import pytest
import redis.asyncio
from jaf_memory_redis import RedisConfig, create_redis_provider
from services import redis_servers
from services.ports import free_port

from jaf_memory_core import MemoryConfigurationError, MemoryConnectionError, MemoryQuery, Message, Success


def test_sentinel_that_is_out_of_date(group, prefix):
    """A first sentinel that names a master which is gone does not keep the others from being heard."""
    watch = f"monitor {group.service} 127.0.0.1 {free_port()} 2"
    stale = redis_servers.Server({"sentinel": watch}, arguments=("--sentinel",))
    del stale.settings["appendonly"], stale.settings["save"]

    async def main(hosts):
        config = RedisConfig(sentinel_hosts=hosts, key_prefix=prefix, operation_timeout=5.0)
        async with await create_redis_provider(config) as provider:
            assert isinstance(await provider.store_messages("c", [Message("user", "x")]), Success)

    with redis_servers.running([stale]):
        first = f"127.0.0.1:{stale.port}"
        asyncio.run(main((first, *group.hosts.split(","))))
        asyncio.run(main((first, group.hosts.split(",")[0])))


def test_sentinel_without_role_and_info(group, prefix):
    """Where a managed service forbids ROLE and INFO, the sentinels' word is enough."""
    master = group.master()
    master.command("ACL", "SETUSER", "app", "on", ">pw", f"~{prefix}*", "+@all", "-@dangerous")

    async def main():
        login = {"username": "app", "password": "pw", "operation_timeout": 5.0}
        config = RedisConfig(sentinel_hosts=tuple(group.hosts.split(",")), key_prefix=prefix, **login)
        async with await create_redis_provider(config) as provider:
            assert isinstance(await provider.store_messages("c", [Message("user", "x")]), Success)
            health = await provider.health_check()
            assert health["healthy"]
            assert "+info" in " ".join(health["warnings"])

    try:
        asyncio.run(main())
    finally:
        master.command("ACL", "DELUSER", "app")


def test_blank_node_among_the_seeds(cluster, prefix):
    """A node that has lost its place in the Cluster, named first, does not keep the others from being asked."""
    with redis_servers.single({"cluster-enabled": "yes"}) as blank:

        async def main():
            hosts = f"127.0.0.1:{blank.port},{cluster.hosts}"
            config = RedisConfig(host=hosts, cluster=True, key_prefix=prefix, operation_timeout=5.0)
            async with await create_redis_provider(config) as provider:
                assert isinstance(await provider.store_messages("c", [Message("user", "x")]), Success)
            config = RedisConfig(host=f"127.0.0.1:{blank.port}", cluster=True, operation_timeout=2.0)
            with pytest.raises(MemoryConnectionError, match="belong to no cluster"):
                await create_redis_provider(config)

        asyncio.run(main())


def test_name_in_the_certificate(tmp_path, prefix):
    """The name that the certificate must have can be given; without it the error says what to set."""
    certificates = redis_servers.make_certificates(tmp_path)

    async def works(port, **more):
        config = RedisConfig(host="127.0.0.1", port=port, ssl=True, ssl_ca_file=str(tmp_path / "ca.pem"), **more)
        async with await create_redis_provider(config) as provider:
            return await provider.store_messages("c", [Message("user", "x")])

    with redis_servers.single({"tls-auth-clients": "no"}, tls=certificates) as server:
        assert isinstance(asyncio.run(works(server.port, ssl_name="localhost", key_prefix=prefix)), Success)
        with pytest.raises(MemoryConnectionError, match="JAF_REDIS_SSL_NAME"):
            asyncio.run(works(server.port))


class Tunnel(redis.asyncio.connection.Connection):
    """A connection class of the application's."""


def test_own_connection_class(server7):
    """A client whose connections are the application's own is refused by name, and not replaced silently."""
    pool = redis.asyncio.ConnectionPool(connection_class=Tunnel, port=server7.port)
    with pytest.raises(MemoryConfigurationError, match="Tunnel"):
        asyncio.run(create_redis_provider(RedisConfig(), redis.asyncio.Redis(connection_pool=pool)))


def test_password_file(tmp_path, prefix):
    """A password is read from its file for each new connection, so that a changed one is taken by itself."""
    file = tmp_path / "password"

    async def main(server):
        file.write_text("first\n")
        config = RedisConfig(port=server.port, password_file=str(file), key_prefix=prefix)
        async with await create_redis_provider(config) as provider:
            await provider.store_messages("c", [Message("user", "x")])
            server.command("CONFIG", "SET", "requirepass", "second")
            server.login = ("second",)
            file.write_text("second\n")
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await provider.get_conversation("c")).message_count == 1
        file.unlink()
        with pytest.raises(MemoryConfigurationError, match="JAF_REDIS_PASSWORD_FILE"):
            await create_redis_provider(config)

    with redis_servers.single({"requirepass": "first"}, login=("first",)) as server:
        asyncio.run(main(server))


def test_many_small_things_travel_together(server7, prefix):
    """Erasing, purging and paging by offset over a slow line take few round trips, and read nothing that is skipped."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as near:
            for start in range(0, 2_000, 200):
                names = range(start, start + 200)
                await asyncio.gather(
                    *(near.store_messages(f"c{n}", [Message("user", "x")], user_id="u") for n in names)
                )
        server, port = await Line(server7.port, delay=0.005).start()
        async with server, await create_redis_provider(RedisConfig(port=port, key_prefix=prefix)) as far:
            started = time.monotonic()
            assert len(await far.find_conversations(MemoryQuery(user_id="u", limit=3, offset=1_500))) == 3
            assert (await far.get_stats("u"))["user_conversations"] == 2_000
            assert await far.clear_user_conversations("u") == 2_000
            assert time.monotonic() - started < 8  # one after the other: at least 20 s
        assert server7.command("KEYS", f"{prefix}*") == []

    asyncio.run(main())


class Line:
    """A server that passes everything on to another: later by `delay` seconds, and so many bytes a second."""

    def __init__(self, port, *, delay=0.0, rate=None):
        self.target, self.delay, self.rate, self.sent = port, delay, rate, 0

    async def pump(self, reader, writer, up):
        """One direction of one connection."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
                self.sent += len(data) * up
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(self, reader, writer):
        """Both directions."""
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self.pump(reader, back, 1), self.pump(there, writer, 0), return_exceptions=True)

    async def start(self):
        """The server, and its port."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # what waits stays with the sender
        server = await asyncio.start_server(self.connected, sock=listening, limit=1 << 16)
        return server, server.sockets[0].getsockname()[1]


def test_large_message_on_a_slow_line(server7, prefix):
    """A line that makes progress is alive, and what is small does not wait behind what is large, sent or read."""

    async def main():
        server, port = await Line(server7.port, rate=2e6).start()
        config = RedisConfig(port=port, key_prefix=prefix, socket_timeout=1.0, min_replicas_timeout=0.5)
        async with server, await create_redis_provider(config) as provider:
            await provider.store_messages("small", [Message("user", "s")])
            await provider.store_messages("big", [])
            big = asyncio.create_task(provider.append_messages("big", [Message("user", "x" * 6_000_000)]))
            slowest = await slowest_of(provider, big)
            assert isinstance(await big, Success)
            assert slowest < 0.6  # alone on this line it is 0.01; behind the large one it would be 3
            reading = asyncio.create_task(provider.get_conversation("big"))
            await asyncio.sleep(0.5)
            assert await slowest_of(provider, reading) < 0.6
            assert (await reading).message_count == 1

    asyncio.run(main())


async def slowest_of(provider, beside):
    """The slowest of the small reads that are made while something else is under way."""
    slowest = 0.0
    while not beside.done():
        started = time.monotonic()
        await provider.get_recent_messages("small", 1)
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.1)
    return slowest


def test_what_nobody_waits_for_is_not_sent(server7, prefix):
    """Requests whose callers have gone before there was room for them are dropped."""

    async def main():
        line = Line(server7.port, rate=1e6)
        server, port = await line.start()
        config = RedisConfig(port=port, key_prefix=prefix, max_connections=2)
        async with server, await create_redis_provider(config) as provider:
            await provider.store_messages("c", [])
            writers = [
                asyncio.create_task(provider.append_messages("c", [Message("user", "x" * 500_000)])) for _ in range(40)
            ]
            await asyncio.sleep(0.5)
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
            await asyncio.sleep(0.5)
            before = line.sent
            assert isinstance(await provider.append_messages("c", [Message("user", "after")]), Success)
            assert line.sent - before < 2_000_000
            assert line.sent < 8_000_000  # of 20

    asyncio.run(main())
