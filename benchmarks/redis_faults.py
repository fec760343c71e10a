"""Appends while Redis is in trouble: `python benchmarks/redis_faults.py [rounds]`, twenty unless said otherwise.

Writers append two messages at a time. Shown for each kind of trouble: what was acknowledged, what of it is lost,
doubled, torn or out of order in the end, and the longest pause between two acknowledgements. With jaf-py 2.6 installed,
its own provider goes through the first of these too, and has to fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jaf_memory_redis import RedisConfig, create_redis_provider

from jaf_memory_core import BackendProvider

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import redis_servers as servers
from services.redis_load import UNHARMED, Load, batch, damage_of

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # jaf-py's start would ask the internet

PROCESSES, TASKS, APPENDS = 4, 16, 10
DURABLE = {"appendonly": "yes", "appendfsync": "no"}


def show(what: str, acknowledged: int, damage: dict[str, int], gap: float | None = None) -> bool:
    """Print one outcome; whether it is flawless."""
    pause = "" if gap is None else f"  longest pause {gap:.2f} s"
    harm = "  ".join(f"{name} {count}" for name, count in damage.items())
    print(f"{what:<44}{acknowledged:>7} acknowledged  {harm}{pause}", flush=True)
    return damage == UNHARMED


# Many processes, one conversation.


def compete(port: int, kind: str) -> dict[str, int]:
    """Appends of 16 tasks in each of 4 processes to one conversation, and the damage in the end."""
    command = [sys.executable, __file__, "--writer", kind, str(port)]
    children = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE) for number in range(PROCESSES)]
    acknowledged = [tuple(one) for child in children for one in json.loads(child.communicate()[0])]
    ids = asyncio.run(KINDS[kind](port, lambda _append, held: held()))
    return {"acknowledged": len(acknowledged), **damage_of(ids, acknowledged)}


async def write(append: Callable[..., Awaitable[bool]], process: str) -> list[tuple[str, int]]:
    """One process's share."""
    acknowledged: list[tuple[str, int]] = []

    async def task(writer: str) -> None:
        acknowledged.extend([(writer, number) for number in range(APPENDS) if await append(batch(writer, number))])

    await asyncio.gather(*(task(f"p{process}t{number}") for number in range(TASKS)))
    return acknowledged


async def with_ours(port: int, work: Callable[..., Awaitable[Any]]) -> Any:
    """Work with our provider."""
    async with await create_redis_provider(RedisConfig(port=port)) as provider:

        async def append(messages: Any) -> bool:
            return hasattr(await provider.append_messages("c", messages, create=True), "data")

        async def held() -> list[str]:
            conversation = await provider.get_conversation("c")
            return [message.message_id for message in conversation.messages] if conversation else []

        return await work(append, held)


async def with_jaf(port: int, work: Callable[..., Awaitable[Any]]) -> Any:
    """Work with jaf-py's own."""
    import redis.asyncio
    from jaf.core.types import Message
    from jaf.memory.providers.redis import RedisProvider
    from jaf.memory.types import RedisConfig as JafConfig

    client = redis.asyncio.Redis(port=port)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        provider = RedisProvider(JafConfig(port=port), client)
        if (await provider.get_conversation("c")).data is None:
            await provider.store_messages("c", [])

    async def append(messages: Any) -> bool:
        theirs = [Message(role=one.role, content=one.content, message_id=one.message_id) for one in messages]
        return hasattr(await provider.append_messages("c", theirs), "data")

    async def held() -> list[str]:
        return [message.message_id for message in (await provider.get_conversation("c")).data.messages]

    try:
        return await work(append, held)
    finally:
        await client.aclose()


KINDS: dict[str, Callable[..., Any]] = {"ours": with_ours, "jaf": with_jaf}


# Servers that are killed.


async def under_load(config: RedisConfig, trouble: Callable[[Load, BackendProvider], Awaitable[None]]) -> Load:
    """Eight writers beside the trouble; the load has its damage in `outcome`."""
    async with await create_redis_provider(config) as provider:
        load = Load(provider)
        await load.run(8, trouble(load, provider))
        load.outcome = await load.damage()
        return load


def kill(server: servers.Server, rounds: int) -> Callable[[Load, BackendProvider], Awaitable[None]]:
    """The server is killed again and again."""

    async def trouble(load: Load, _provider: BackendProvider) -> None:
        for _ in range(rounds):
            await load.settled()
            server.kill()
            await asyncio.to_thread(server.start)
        await load.settled()

    return trouble


def fail_over(group: servers.Group) -> Callable[[Load, BackendProvider], Awaitable[None]]:
    """The master is killed, and comes back as a replica."""

    async def trouble(load: Load, _provider: BackendProvider) -> None:
        await load.settled()
        before = group.master()
        before.kill()
        await load.settled()
        await asyncio.to_thread(before.start)
        await load.settled()

    return trouble


def kill_node(cluster: servers.Cluster) -> Callable[[Load, BackendProvider], Awaitable[None]]:
    """The master of the conversation's slot is killed, and comes back once its replica has taken over."""

    async def trouble(load: Load, provider: BackendProvider) -> None:
        await load.settled()
        master = cluster.master_of(provider.backend.keys.conversation(load.conversation)[0].decode())
        master.kill()
        await asyncio.to_thread(servers.wait_until, lambda: len(cluster.masters()) == 3, "a new master")
        await asyncio.to_thread(master.start)
        await load.settled()

    return trouble


def main(rounds: int) -> bool:
    """Everything, on servers of its own."""
    good = []
    with servers.single() as server:
        for kind in KINDS:
            if kind == "jaf" and importlib.util.find_spec("jaf") is None:
                continue
            server.command("FLUSHALL")
            damage = compete(server.port, kind)
            flawless = show(f"{PROCESSES} x {TASKS} tasks, {kind}", damage.pop("acknowledged"), damage)
            good.append(flawless == (kind == "ours"))
    for fsync in ("always", "everysec"):
        for version in (7, 6):
            with servers.single({"appendonly": "yes", "appendfsync": fsync}, version=version) as server:
                load = asyncio.run(under_load(RedisConfig(port=server.port), kill(server, rounds)))
                what = f"Redis {version}, killed {rounds} times, {fsync}"
                good.append(show(what, len(load.acknowledged), load.outcome, load.longest_gap))
    for what, group, trouble in (
        ("Sentinel, master killed", servers.Group(DURABLE), fail_over),
        ("Cluster, master of the slot killed", servers.Cluster(DURABLE), kill_node),
    ):
        try:
            group.start()
            place: dict[str, Any] = {"sentinel_hosts": tuple(group.hosts.split(","))}
            if isinstance(group, servers.Cluster):
                place = {"host": group.hosts, "cluster": True}
            config = RedisConfig(**place, min_replicas=1)
            load = asyncio.run(under_load(config, trouble(group)))
            good.append(show(what, len(load.acknowledged), load.outcome, load.longest_gap))
        finally:
            group.stop()
    return all(good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--writer"]:
        _, _, kind, port, process = sys.argv
        answer = asyncio.run(KINDS[kind](int(port), lambda append, _held: write(append, process)))
        sys.stdout.write(json.dumps(answer))
    else:
        sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
