"""The conformance kit on a single server of each version, behind Sentinel, and on a Cluster."""

import contextlib
import functools

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys
from jaf_memory_testing import BRIEF, ProcessChecks, ProviderConformance, Target, slow
from services.redis_servers import wait_until


async def open_redis(address, **settings):
    """Open a provider, here or in another process."""
    return await create_redis_provider(RedisConfig(**{**address, **settings}))


async def everything(masters, prefix):
    """All keys under the prefix, with what they hold."""
    found = {}
    for server in masters():
        for key in sorted(server.command("KEYS", f"{prefix}*")):
            name = key.decode()
            kind = server.command("TYPE", name)
            read = {
                b"hash": ("HGETALL", name),
                b"list": ("LRANGE", name, 0, -1),
                b"zset": ("ZRANGE", name, 0, -1, "WITHSCORES"),
                b"string": ("GET", name),
            }[kind]
            found[name] = server.command(*read)
    return found


def _cut(_header, bodies, _ids):
    return ("LSET", bodies, 2, '{"role":"user","con')


def _lost(_header, bodies, _ids):
    return ("LTRIM", bodies, 0, -2)


def _metadata(header, _bodies, _ids):
    return ("HSET", header, "m:a", "{")


def _newer(header, _bodies, _ids):
    return ("HSET", header, "f", "99")


WAYS = {"a message": _cut, "a missing message": _lost, "metadata": _metadata, "a newer format": _newer}
"""Commands that damage a conversation, by what they damage."""


async def damaged(masters, prefix, way, conversation_id):
    """Damage a conversation, as another client, on the node that has it."""
    keys = [key.decode() for key in Keys(prefix).conversation(conversation_id)]
    for server in masters():
        with contextlib.suppress(RuntimeError):  # another node has the slot
            if server.command("EXISTS", keys[0]):
                server.command(*way(*keys))
                return
    raise AssertionError("no node has it")


@contextlib.asynccontextmanager
async def stalled(servers):
    """Servers that stand still."""
    for server in servers:
        server.pause()
    try:
        yield
    finally:
        for server in servers:
            server.go_on()


@contextlib.asynccontextmanager
async def away(servers, whole):
    """Servers that are killed, and started again, until they are a whole again."""
    for server in servers:
        server.kill()
    try:
        yield
    finally:
        for server in servers:
            server.start()
        wait_until(whole, "servers that know each other")


def target(address, servers, masters, prefix, whole=lambda: True):
    """What the kit is told."""
    return Target(
        open=functools.partial(open_redis, {**address, "key_prefix": prefix}),
        stall=functools.partial(stalled, servers),
        outage=functools.partial(away, servers, whole),
        dump=functools.partial(everything, masters, prefix),
        damage={name: functools.partial(damaged, masters, prefix, way) for name, way in WAYS.items()},
        newer=functools.partial(damaged, masters, prefix, _newer),
        declares={"power_cut": "the server writes to the disk, and the kit cannot lose it"},
    )


class TestSingle(ProviderConformance):
    """One server."""

    @pytest.fixture
    def target(self, server, prefix):
        """A prefix of its own on a server of each version."""
        return target({"port": server.port}, [server], lambda: [server], prefix)


@slow("three servers", but=BRIEF)
class TestSentinel(ProviderConformance):
    """Behind Sentinel, each write waiting for a replica."""

    @pytest.fixture
    def target(self, calm_group, prefix):
        """A prefix of its own; the master is asked for anew by each process."""
        address = {"sentinel_hosts": tuple(calm_group.hosts.split(",")), "min_replicas": 1}
        return target(address, calm_group.servers, lambda: [calm_group.master()], prefix, calm_group.whole)


@slow("six servers", but=(*BRIEF, ProcessChecks))
class TestCluster(ProviderConformance):
    """On a Cluster of six nodes."""

    @pytest.fixture
    def target(self, calm_cluster, prefix):
        """A prefix of its own."""
        return target(
            {"host": calm_cluster.hosts, "cluster": True},
            calm_cluster.servers,
            calm_cluster.masters,
            prefix,
            calm_cluster.whole,
        )
