"""How long Redis serves nobody else: `python benchmarks/redis_stalls.py [megabytes …]`, 3 and 30 unless said otherwise.

A second client pings without a pause while one operation after the other is done to conversations of that size. Shown
for each: the longest that one command kept the server (SLOWLOG), and the longest that the other client waited.
Server and pinging client get the processor first where this program may say so, because a wait for it is no stall.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from jaf_memory_redis import RedisConfig, create_redis_provider, scripts

from jaf_memory_core import BackendProvider, ConversationMemory, MemoryQuery, Message

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import redis_servers as servers

FIRST = -15
"""The niceness of who must not wait for the processor."""

BODY = 4_400
"""Characters of a message's content."""

BATCH = 1_000
"""Messages of one append while a conversation is filled."""

TTL = 10_000.0

ROUNDS = 2
"""Of each figure the better one is shown: what only the load of other programs did is no stall of ours."""

SCRIPTS = {one.sha.encode(): f"{one.name}.lua" for one in vars(scripts).values() if isinstance(one, scripts.Script)}
"""The scripts by the digest that a command names them by."""

Operation = Callable[[BackendProvider], Awaitable[object]]


@dataclass
class Stalls:
    """What one operation did to the others: milliseconds."""

    operation: str
    command: str
    longest: float
    waited: float


@dataclass
class Watch:
    """SLOWLOG, and a process that pings."""

    server: servers.Server
    found: list[Stalls] = field(default_factory=list)
    _asked: Connection | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        """Ping from a process of its own."""
        self.server.command("CONFIG", "SET", "slowlog-log-slower-than", 0)
        self.server.command("CONFIG", "SET", "slowlog-max-len", 100_000)
        ours, theirs = multiprocessing.Pipe()
        pinging = multiprocessing.get_context("spawn").Process(
            target=ping, args=(self.server.port, theirs), daemon=True
        )
        pinging.start()
        self._asked = ours
        ours.recv()
        go_first(self.server.process.pid)
        go_first(pinging.pid or 0)
        try:
            yield self
        finally:
            pinging.terminate()
            pinging.join()

    def _worst_wait(self) -> float:
        assert self._asked is not None
        self._asked.send(None)
        waited: float = self._asked.recv()
        return waited

    async def over(self, operation: str, work: Awaitable[object]) -> None:
        """Note what an operation does."""
        self.server.command("SLOWLOG", "RESET")
        self._worst_wait()
        await work
        waited = self._worst_wait()
        longest, command = 0, ""
        for _, _, taken, words, *_ in self.server.command("SLOWLOG", "GET", 100_000):
            name = words[0].decode().upper()
            if taken > longest and name not in {"SLOWLOG", "CONFIG"}:
                longest, command = taken, SCRIPTS.get(b"".join(words[1:2]), name)
        self.found.append(Stalls(operation, command, longest / 1_000, waited * 1_000))


def go_first(process: int) -> None:
    """Give a process the processor first, where we may."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, process, FIRST)


def ping(port: int, asked: Connection) -> None:
    """Ping, and tell when asked how long the worst answer since the last question took."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        asked.send(None)
        worst = 0.0
        while True:
            started = time.perf_counter()
            line.sendall(b"PING\r\n")
            line.recv(64)
            worst = max(worst, time.perf_counter() - started)
            if asked.poll():
                asked.recv()
                asked.send(worst)
                worst = 0.0
            time.sleep(0.000_3)


def batch(start: int, count: int) -> list[Message]:
    """Messages that tell their number, as their ids do."""
    return [Message("user", f"{n} " + "x" * BODY, message_id=f"m{n}") for n in range(start, start + count)]


async def fill(provider: BackendProvider, name: str, count: int) -> None:
    """A conversation of so many messages."""
    for start in range(0, count, BATCH):
        await provider.append_messages(name, batch(start, min(BATCH, count - start)), user_id="u", create=True)


def operations(count: int) -> Iterator[tuple[str, Operation]]:
    """Everything that is done to a conversation of so many messages."""
    middle, many = f"m{count // 2}", min(count, 9_000)
    yield "append of 10", lambda p: p.append_messages("c", batch(count, 10))
    yield "append of 1,000", lambda p: p.append_messages("c", batch(count + 10, BATCH))
    yield f"append of {many} that are held", lambda p: p.append_messages("c", batch(count // 4, many))
    yield "recent messages", lambda p: p.get_recent_messages("c")
    yield "a page from the middle", lambda p: p.get_messages("c", before=count // 2)
    yield f"{many} recent messages", lambda p: p.get_recent_messages("c", many)
    yield f"a page of {many} from the middle", lambda p: p.get_messages("c", before=count // 2, limit=many)
    yield "the whole conversation", lambda p: p.get_conversation("c")
    yield "up to a message in the middle", lambda p: p.get_conversation_until_message("c", middle)
    yield "find, with messages", lambda p: p.find_conversations(MemoryQuery(user_id="u"))
    yield "iterate, with messages", drained
    yield "statistics", lambda p: p.get_stats("u")
    yield "metadata", lambda p: p.update_metadata("c", {"title": "x"})
    yield "an expiry", lambda p: p.set_expiry("c", TTL)
    yield "revise 10 in the middle", lambda p: p.revise_messages("c", revised(count // 2, 10))
    yield "fork near the start", lambda p: p.fork_conversation("c", "f1", until_message_id="m100")
    yield "fork near the end", lambda p: p.fork_conversation("c", "f2", until_message_id=f"m{count - 1}")
    yield "truncate in the middle", lambda p: p.truncate_conversation_after("f2", middle)
    yield "truncate near the start", lambda p: p.truncate_conversation_after("c", "m10")
    yield "erase one", lambda p: p.delete_conversation("c")
    yield "erase a user", lambda p: p.clear_user_conversations("u")


async def drained(provider: BackendProvider) -> None:
    """Iterate to the end."""
    async for _ in provider.iter_conversations(MemoryQuery()):
        pass


def revised(start: int, count: int) -> dict[str, Message]:
    """Other contents for messages that stand."""
    return {f"m{n}": Message("user", f"revised {n}", message_id=f"m{n}") for n in range(start, start + count)}


async def measure(watch: Watch, megabytes: int) -> list[Stalls]:
    """All operations at one size."""
    count = max(200, megabytes * 1_000_000 // BODY)
    config = RedisConfig(port=watch.server.port, operation_timeout=600.0)
    async with await create_redis_provider(config) as provider:
        await watch.over("filling it", fill(provider, "c", count))
        for name, work in operations(count):
            await watch.over(name, work(provider))
        await replaced(watch, provider, count)
    async with await create_redis_provider(config.model_copy(update={"max_messages": count // 2})) as provider:
        await watch.over("append that lowers the cap to half", provider.append_messages("c", batch(count, 10)))
        await watch.over("erase it", provider.delete_conversation("c"))
    return watch.found


async def replaced(watch: Watch, provider: BackendProvider, count: int) -> None:
    """Whole conversations in the place of others, as large as one call may be."""
    fitting = min(count, 60_000_000 // BODY, 10_000)
    messages = batch(0, fitting)
    whole = ConversationMemory("i", "u", tuple(messages), {})
    await watch.over(f"store of {fitting}", provider.store_messages("s", messages))
    await watch.over(f"store of {fitting} in its place", provider.store_messages("s", messages))
    await watch.over(f"import of {fitting}", provider.import_conversation(whole))
    await watch.over("erase both", asyncio.gather(*map(provider.delete_conversation, ("s", "i"))))
    await fill(provider, "c", count)


def better_of(megabytes: int, rounds: int = ROUNDS) -> list[Stalls]:
    """The figures of a size, each round on a server of its own."""
    found = []
    for _ in range(rounds):
        with servers.single() as server, Watch(server).running() as watch:
            found.append(asyncio.run(measure(watch, megabytes)))
    return [
        replace(min(same, key=lambda one: one.longest), waited=min(one.waited for one in same))
        for same in zip(*found, strict=True)
    ]


def main(sizes: list[int]) -> None:
    """Print all figures."""
    for megabytes in sizes:
        found = better_of(megabytes)
        print(f"\n{f'{megabytes} MB':<45}one command, at most    another's longest wait")
        for one in found:
            print(f"{one.operation:<45}{one.longest:>8.1f} ms {one.command:<12}{one.waited:>8.1f} ms", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [3, 30])
