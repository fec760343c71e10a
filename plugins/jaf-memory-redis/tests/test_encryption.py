"""TLS where it differs: to the sentinels and to the data, names in certificates, and a client's own settings."""

import asyncio

import pytest
import redis.asyncio
import redis.asyncio.sentinel
from jaf_memory_redis import RedisConfig, create_redis_provider
from services import redis_servers

from jaf_memory_core import MemoryConnectionError, Message, Success

SERVICE = redis_servers.Group.service


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority of our own, with a certificate for `localhost`; the servers are connected to as 127.0.0.1."""
    return redis_servers.make_certificates(tmp_path_factory.mktemp("certificates"))


def sentinel_of(master, *, certificates, tls):
    """A sentinel that names a master, and speaks TLS or not; it can reach a master that speaks TLS."""
    settings = {"sentinel": f"monitor {SERVICE} 127.0.0.1 {master.port} 1"}
    if master.tls:
        files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
        settings |= {f"tls-{name}-file": certificates / file for name, file in files.items()}
        settings["tls-replication"] = "yes"
    sentinel = redis_servers.Server(settings, arguments=("--sentinel",), tls=certificates if tls else None)
    del sentinel.settings["appendonly"], sentinel.settings["save"]
    return sentinel


async def works(config, client=None):
    """Whether a conversation can be stored and read."""
    async with await create_redis_provider(config, client) as provider:
        assert isinstance(await provider.store_messages("c", [Message("user", "hello")]), Success)
        return (await provider.get_recent_messages("c"))[0].content == "hello"


@pytest.mark.parametrize("whose", ["sentinel", "data", "both"])
def test_sentinels_and_data_differ(certificates, prefix, whose):
    """TLS to the sentinels alone, to the data alone, or to both; the other setting is refused, and hides nothing."""
    of_data, of_sentinel = whose in {"data", "both"}, whose in {"sentinel", "both"}

    def config(**more):
        given = {"ssl": of_data, "sentinel_ssl": of_sentinel, "ssl_name": "localhost", "key_prefix": prefix, **more}
        hosts = (f"127.0.0.1:{sentinel.port}",)
        return RedisConfig(
            sentinel_hosts=hosts, ssl_ca_file=str(certificates / "ca.pem"), operation_timeout=2.0, **given
        )

    with redis_servers.single(tls=certificates if of_data else None) as master:
        sentinel = sentinel_of(master, certificates=certificates, tls=of_sentinel)
        with redis_servers.running([sentinel]):
            assert asyncio.run(works(config()))
            for wrong in ({"sentinel_ssl": not of_sentinel}, {"ssl": not of_data}):
                with pytest.raises(MemoryConnectionError):
                    asyncio.run(works(config(**wrong)))
            with pytest.raises(MemoryConnectionError, match="JAF_REDIS_SSL_NAME"):
                asyncio.run(works(config(ssl_name=None)))


def test_client_with_sentinels_of_its_own(certificates, prefix):
    """A client whose sentinels speak TLS and whose data do not is taken as it is."""

    async def main(hosts):
        encrypted = {"ssl": True, "ssl_ca_certs": str(certificates / "ca.pem"), "ssl_check_hostname": False}
        manager = redis.asyncio.sentinel.Sentinel(hosts, sentinel_kwargs=encrypted)
        client = manager.master_for(SERVICE)
        assert await works(RedisConfig(key_prefix=prefix), client)
        await client.aclose()
        for one in manager.sentinels:
            await one.aclose()

    with redis_servers.single() as master:
        sentinel = sentinel_of(master, certificates=certificates, tls=True)
        with redis_servers.running([sentinel]):
            asyncio.run(main([("127.0.0.1", sentinel.port)]))


@pytest.mark.parametrize("checked", [True, False])
def test_client_that_speaks_tls(certificates, prefix, checked):
    """A client's own TLS is kept: its authority, and whether it compares names."""

    async def main(server):
        own = {"ssl": True, "ssl_ca_certs": str(certificates / "ca.pem"), "ssl_check_hostname": checked}
        client = redis.asyncio.Redis(host="127.0.0.1", port=server.port, **own)
        if checked:
            with pytest.raises(MemoryConnectionError, match="Hostname mismatch"):
                await works(RedisConfig(key_prefix=prefix), client)
        else:
            assert await works(RedisConfig(key_prefix=prefix), client)
        await client.aclose()

    with redis_servers.single(tls=certificates) as server:
        asyncio.run(main(server))


def test_name_on_a_cluster(certificates, prefix):
    """A Cluster names addresses; the name that its certificates must have can be given, and is wanted."""

    async def main(server):
        given = {"host": "127.0.0.1", "port": server.port, "cluster": True, "key_prefix": prefix, "ssl": True}
        given |= {"ssl_ca_file": str(certificates / "ca.pem"), "operation_timeout": 5.0}
        assert await works(RedisConfig(**given, ssl_name="localhost"))
        with pytest.raises(MemoryConnectionError, match="JAF_REDIS_SSL_NAME"):
            await works(RedisConfig(**given))

    with redis_servers.single({"cluster-enabled": "yes", "tls-cluster": "yes"}, tls=certificates) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        redis_servers.wait_until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"), "a cluster")
        asyncio.run(main(server))
