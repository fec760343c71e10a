"""What servers tell of themselves, and what an operator should know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaf_memory_core.records import Ping
from jaf_memory_core.values import FrozenDict, FrozenList
from jaf_memory_redis.errors import ServerError, is_denied
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.settings import RedisConfig, is_local

LAG = 10
"""Seconds behind its master from which a replica is worth a warning."""

Info = Mapping[str, str]


async def ping(topology: Topology, config: RedisConfig, arguments: Mapping[str, Any]) -> Ping:
    """Ask every server that takes writes how it is."""
    try:
        infos = [_parsed(reply) for reply in await topology.everywhere("INFO")]
    except ServerError as error:
        if not is_denied(error):
            raise
        blind = "this user may not ask INFO: whether data can be lost is not known; grant +info"
        return Ping("the server answers", (blind,), FrozenDict({"active_connections": topology.connections}))
    settings = await _settings(topology)
    memory = sum(int(info.get("used_memory", 0)) for info in infos)
    clients = sum(int(info.get("connected_clients", 0)) for info in infos)
    first = infos[0]
    warnings = [*_server_warnings(infos, settings, config), *_line_warnings(arguments)]
    details = {
        # Valkey says the version of Redis that it is like as `redis_version`, and its own beside.
        "version": first.get("valkey_version") or first.get("redis_version", ""),
        "role": first.get("role", ""),
        "mode": first.get("redis_mode") or first.get("server_mode", ""),
        "masters": len(infos),
        "durability": durability(first, settings),
        "eviction_policy": first.get("maxmemory_policy", ""),
        "maxmemory": sum(int(info.get("maxmemory", 0)) for info in infos),
        "connected_replicas": FrozenList([int(info.get("connected_slaves", 0)) for info in infos]),
        "min_replicas": config.min_replicas,
        "last_save_ok": all(_saves(info) for info in infos),
        "tls": any(name.startswith("ssl_") for name in arguments),
    }
    metrics = {"active_connections": topology.connections, "memory_usage": memory, "connected_clients": clients}
    return Ping("the server answers", tuple(warnings), FrozenDict(metrics), FrozenDict(details))


def _parsed(text: bytes) -> Info:
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _settings(topology: Topology) -> Info:
    """What the server lets us see of its configuration: managed ones refuse `CONFIG`."""
    found: dict[str, str] = {}
    for name in ("save", "appendfsync"):
        try:
            reply = (await topology.everywhere("CONFIG", "GET", name))[0]
        except ServerError:
            continue
        if reply:
            found[name] = reply[1].decode()
    return found


def durability(info: Info, settings: Info) -> str:
    """What survives a killed server, in a few words."""
    if info.get("aof_enabled") == "1":
        return {
            "always": "append-only file, synchronised with each write",
            "everysec": "append-only file, synchronised every second",
            "no": "append-only file, synchronised when the system pleases",
        }.get(settings.get("appendfsync", ""), "append-only file")
    if "save" not in settings:
        return "no append-only file; snapshots unknown"
    return "snapshots only" if settings["save"] else "none"


def _saves(info: Info) -> bool:
    names = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
    return all(info.get(name, "ok") == "ok" for name in names)


def _server_warnings(infos: list[Info], settings: Info, config: RedisConfig) -> Iterator[str]:
    policies = {info.get("maxmemory_policy", "") for info in infos}
    for policy in sorted(policies):
        if policy.startswith("allkeys"):
            yield (
                f"the eviction policy {policy} may drop any key, indexes too: conversations would be lost, whole or in "
                "parts, or no longer be found for erasure; set maxmemory-policy noeviction"
            )
        elif policy.startswith("volatile"):
            yield (
                f"the eviction policy {policy} may drop conversations that have an expiry before it is due, whole or "
                "in parts (a part is refused as damaged); set maxmemory-policy noeviction"
            )
    kept = {durability(info, settings) for info in infos}
    if "none" in kept:
        yield "nothing is saved to disk: a restart of the server loses everything; set appendonly yes"
    elif "snapshots only" in kept:
        yield "only snapshots are saved: a crash loses what was written since the last one; set appendonly yes"
    if not all(_saves(info) for info in infos):
        yield "the server's last attempt to save to disk failed"
    if any(info.get("role") != "master" for info in infos):
        yield "the server is a replica, and takes no writes"
    if config.min_replicas:
        yield from _replica_warnings(infos, config.min_replicas)


def _replica_warnings(infos: list[Info], wanted: int) -> Iterator[str]:
    for info in infos:
        replicas = [info[f"slave{number}"] for number in range(int(info.get("connected_slaves", 0)))]
        fields = [dict(part.partition("=")[::2] for part in replica.split(",")) for replica in replicas]
        online = [one for one in fields if one.get("state") == "online"]
        if len(online) < wanted:
            yield f"{len(online)} replicas are online, and each write waits for {wanted}"
        if any(int(one.get("lag", 0)) >= LAG for one in online):
            yield f"a replica is more than {LAG} s behind its master"


def _line_warnings(arguments: Mapping[str, Any]) -> Iterator[str]:
    if is_local(arguments):
        return
    if "ssl_cert_reqs" not in arguments:
        yield "connections to another host are not encrypted; use rediss:// or ssl"
    elif arguments["ssl_cert_reqs"] != "required" or not arguments.get("ssl_check_hostname"):
        yield "the server's certificate is not verified"
