"""Topologies, made from settings or from a client that the application hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_redis.connector import Connector, Endpoint
from jaf_memory_redis.pool import CROWDED, CROWDED_BY_WAIT, Standalone, Topology
from jaf_memory_redis.settings import RedisConfig, address
from jaf_memory_redis.topology import Cluster, SentinelConnector

SENTINEL_PORT = 26_379

_OWN = (
    *(Connection, SSLConnection, UnixDomainSocketConnection),
    *(SentinelManagedConnection, SentinelManagedSSLConnection),
)

_TAKEN = (
    "host",
    "port",
    "path",
    "db",
    "username",
    "password",
    "credential_provider",
    "client_name",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_type",
)
"""What is taken of a client's settings, with all that begins with `ssl_`: not its retries, decoding and time limits."""


def topology_of(config: RedisConfig) -> tuple[Topology, Mapping[str, Any]]:
    """The way that the settings describe, and the connection arguments behind it; no I/O."""
    arguments = config.arguments()
    connector = _endpoint(config, arguments, tls=config.tls)
    if config.sentinel_hosts:
        return Standalone(_sentinel_connector(config, connector), *_numbers(config)), connector.arguments
    if config.cluster:
        places = [(arguments["host"], arguments["port"])]
        if config.url is None:
            places = [address(text, config.port) for text in config.host.split(",")]
        return Cluster(connector, places, *_numbers(config)), {**arguments, "host": places[0][0]}
    return Standalone(connector, *_numbers(config)), arguments


def _numbers(config: RedisConfig) -> tuple[int, int]:
    """How many connections there may be, and what makes one crowded."""
    return config.max_connections, CROWDED_BY_WAIT if config.min_replicas else CROWDED


def _endpoint(config: RedisConfig, arguments: Mapping[str, Any], *, tls: bool) -> Endpoint:
    if not tls:
        arguments = {name: value for name, value in arguments.items() if not name.startswith("ssl_")}
    return Endpoint(
        arguments,
        tls=tls,
        connect_timeout=config.connect_timeout,
        patience=config.socket_timeout,
        server_name=config.ssl_name,
    )


def _sentinel_connector(config: RedisConfig, connector: Endpoint) -> SentinelConnector:
    password = config.sentinel_password.get_secret_value() if config.sentinel_password else None
    places = [address(text, SENTINEL_PORT) for text in config.sentinel_hosts]
    # Sentinels are other servers: nothing of the master's login is sent to them.
    entered = {"username": config.sentinel_username, "password": password, "db": 0, "credential_provider": None}
    encrypted = config.tls if config.sentinel_ssl is None else config.sentinel_ssl
    if encrypted and not config.tls:
        own = (("ssl_ca_certs", config.ssl_ca_file), ("ssl_certfile", config.ssl_cert_file))
        entered |= dict(own) | {"ssl_keyfile": config.ssl_key_file, "ssl_cert_reqs": "required"}
        entered["ssl_check_hostname"] = True
    sentinels = [connector.elsewhere(place, tls=encrypted, **entered) for place in places]
    return SentinelConnector(connector, sentinels, config.sentinel_service_name)


def topology_of_client(client: object, config: RedisConfig) -> tuple[Topology, Mapping[str, Any]]:
    """A way of our own, made with a copy of a client's settings; the client itself is never used, nor closed.

    Raises:
        MemoryConfigurationError: it is no client of `redis.asyncio`.
    """
    if isinstance(client, RedisCluster):
        return _topology_of_cluster(client, config)
    if not isinstance(client, redis.asyncio.Redis):
        raise _unsuitable(client)
    pool = client.connection_pool
    given = pool.connection_kwargs
    arguments = _taken(given)
    connector = _endpoint(config, arguments, tls=_encrypted(pool.connection_class))
    found: Connector = connector
    if isinstance(pool, SentinelConnectionPool):
        pools = [one.connection_pool for one in pool.sentinel_manager.sentinels]
        sentinels = [
            _endpoint(config, _taken(one.connection_kwargs), tls=_encrypted(one.connection_class)) for one in pools
        ]
        found = SentinelConnector(connector, sentinels, pool.service_name)
    return Standalone(found, *_numbers(config)), arguments


def _topology_of_cluster(client: RedisCluster, config: RedisConfig) -> tuple[Topology, Mapping[str, Any]]:
    if set("{}") & set(config.key_prefix):
        raise MemoryConfigurationError("on a Cluster key_prefix holds no braces: they decide where keys are kept")
    arguments = _taken(client.connection_kwargs)
    nodes = client.get_nodes() or list(client.nodes_manager.startup_nodes.values())
    places = [(node.host, int(node.port)) for node in nodes]
    tls = _encrypted(client.connection_kwargs.get("connection_class", Connection))
    connector = _endpoint(config, arguments, tls=tls)
    return Cluster(connector, places, *_numbers(config)), {**arguments, "host": places[0][0]}


def _encrypted(kind: type) -> bool:
    """Whether connections of that class are.

    Raises:
        MemoryConfigurationError: it is not one of redis-py's own: what it does (a tunnel, say) would be left out.
    """
    if kind not in _OWN:
        raise MemoryConfigurationError(
            f"the client's connections are of the class {kind.__module__}.{kind.__qualname__}, which the provider "
            "would leave out in its own; hand over a client with redis-py's own connection class"
        )
    return issubclass(kind, SSLConnection)


def _taken(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in _TAKEN or name.startswith("ssl_")}


def _unsuitable(client: object) -> MemoryConfigurationError:
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    return MemoryConfigurationError(
        f"the client is a {kind}; hand over a redis.asyncio.Redis or RedisCluster, "
        "or none and set the address in RedisConfig"
    )
