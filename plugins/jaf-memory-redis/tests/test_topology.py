"""Finding the servers: an answer that is out of date, or empty, blocks nothing."""

import asyncio

import pytest
import redis.asyncio
from jaf_memory_redis import RedisConfig, create_redis_provider
from services import redis_servers
from services.ports import free_port

from jaf_memory_core import MemoryConfigurationError, MemoryConnectionError, Message, Success


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
            file.write_text("\ufeffsecond\n", encoding="utf-8")  # as some editors begin a file
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await provider.get_conversation("c")).message_count == 1
        file.unlink()
        with pytest.raises(MemoryConfigurationError, match="JAF_REDIS_PASSWORD_FILE"):
            await create_redis_provider(config)

    with redis_servers.single({"requirepass": "first"}, login=("first",)) as server:
        asyncio.run(main(server))
