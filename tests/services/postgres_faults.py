"""What becomes of appends when PostgreSQL fails under load: for the tests, and for `benchmarks/postgres_faults.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from jaf_memory_postgres import PostgresConfig, create_postgres_provider

from jaf_memory_core import BackendProvider, Message
from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_core.results import Success
from services import postgres_servers as servers

CONVERSATIONS = 4
"""Conversations that the writers share."""

LEAST = 100
"""Appends that a load has acknowledged, before it says anything."""


@dataclass
class Outcome:
    """What came of a load.

    Attributes:
        acknowledged: appends that were answered with success.
        unanswered: appends whose answer was lost for good, so that nobody knows.
        lost: acknowledged messages that are not there.
        doubled: messages that are there more than once.
        disordered: writers whose messages do not stand in the order in which they were acknowledged.
        gap: the longest time in seconds without an acknowledgement.
    """

    acknowledged: int = 0
    unanswered: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    gap: float = 0.0


@dataclass
class Load:
    """Writers that append without pause to a few conversations, two messages an append.

    Attributes:
        provider: what they write through.
        writers: how many.
    """

    provider: BackendProvider
    writers: int = 8
    _acknowledged: dict[int, list[str]] = field(default_factory=dict)
    _outcome: Outcome = field(default_factory=Outcome)
    _last: float = 0.0
    _stopped: bool = False

    async def during(self, trouble: Callable[[], Awaitable[None]]) -> Outcome:
        """Write while something goes wrong, and a moment longer; then look what is there."""
        for number in range(CONVERSATIONS):
            await self.provider.store_messages(f"c{number}", [])
        self._last = time.monotonic()
        tasks = [asyncio.ensure_future(self._write(number)) for number in range(self.writers)]
        await asyncio.sleep(0.3)
        await trouble()
        await asyncio.sleep(0.5)
        end = time.monotonic() + servers.PATIENCE
        while self._outcome.acknowledged <= LEAST and time.monotonic() < end:  # noqa: ASYNC110  (on a slow machine)
            await asyncio.sleep(0.05)
        self._stopped = True
        await asyncio.gather(*tasks)
        await self._judge()
        return self._outcome

    async def _write(self, writer: int) -> None:
        mine = self._acknowledged.setdefault(writer, [])
        for number in range(1_000_000):
            if self._stopped:
                return
            ids = [f"w{writer}-{number}-{part}" for part in range(2)]
            messages = [Message("user", "x" * 100, message_id=key) for key in ids]
            try:
                result = await self.provider.append_messages(f"c{writer % CONVERSATIONS}", messages)
            except MemoryConnectionError:
                self._outcome.unanswered += 1
                continue
            assert isinstance(result, Success), repr(result)
            now = time.monotonic()
            self._outcome.gap = max(self._outcome.gap, now - self._last)
            self._last = now
            self._outcome.acknowledged += 1
            mine += ids

    async def _judge(self) -> None:
        there: list[str] = []
        for number in range(CONVERSATIONS):
            conversation = await self.provider.get_conversation(f"c{number}")
            assert conversation is not None
            there += [message.message_id for message in conversation.messages]
        places = {key: place for place, key in enumerate(there)}
        self._outcome.doubled = len(there) - len(places)
        for mine in self._acknowledged.values():
            self._outcome.lost += sum(key not in places for key in mine)
            order = [places[key] for key in mine if key in places]
            self._outcome.disordered += order != sorted(order)


def settings(url: str, table: str) -> PostgresConfig:
    """Settings of a provider that has time to see a server come back."""
    return PostgresConfig(
        connection_string=url, table_name=table, operation_timeout=120.0, reconnect_timeout=120.0, max_connections=8
    )


async def killed_backends(server: servers.Server, table: str, rounds: int) -> Outcome:
    """`kill -9` of one backend after the other; the server ends all others with it, and recovers."""
    provider = await create_postgres_provider(settings(server.url(), table))

    async def trouble() -> None:
        for _ in range(rounds):
            await asyncio.to_thread(_kill_one, server)
            await asyncio.to_thread(_backends, server)  # back when this answers
            await asyncio.sleep(0.2)

    async with provider:
        return await Load(provider).during(trouble)


def _kill_one(server: servers.Server) -> None:
    while True:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(random.choice(_backends(server)), signal.SIGKILL)
            return


def _backends(server: servers.Server) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    end = time.monotonic() + servers.PATIENCE
    while time.monotonic() < end:
        try:
            listed = server.sql(query).split()
        except RuntimeError:
            listed = []
        if listed:
            return [int(pid) for pid in listed]
        time.sleep(0.05)
    raise RuntimeError("the server has no connection to kill")


async def killed_server(server: servers.Server, table: str, rounds: int) -> Outcome:
    """`kill -9` of the whole server, and a start, again and again."""
    provider = await create_postgres_provider(settings(server.url(), table))

    async def trouble() -> None:
        for _ in range(rounds):
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(random.uniform(0.0, 0.3))
            await asyncio.to_thread(server.start)
            await asyncio.sleep(0.3)

    async with provider:
        return await Load(provider).during(trouble)


async def promoted(primary: servers.Server, standby: servers.Server, table: str) -> Outcome:
    """The primary dies, and its synchronous standby is promoted; the connection string names both."""
    primary.wait_for_standby()
    address = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = f"postgresql://jaf:{servers.PASSWORD}@{address}/jaf?sslmode=disable"
    provider = await create_postgres_provider(settings(url, table))

    async def trouble() -> None:
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)

    async with provider:
        return await Load(provider).during(trouble)


async def demoted(primary: servers.Server, standby: servers.Server, table: str) -> Outcome:
    """The primary becomes read-only while it goes on answering, and its standby is promoted: error 25006."""
    primary.wait_for_standby()
    address = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = f"postgresql://jaf:{servers.PASSWORD}@{address}/jaf?sslmode=disable"
    provider = await create_postgres_provider(settings(url, table))

    async def trouble() -> None:
        text = "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()"
        await asyncio.to_thread(primary.sql, text)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(standby.promote)

    async with provider:
        return await Load(provider).during(trouble)


_START = """
import asyncio, sys
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
config = PostgresConfig(connection_string=sys.argv[1], table_name=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with await create_postgres_provider(config) as provider:
        await provider.get_stats()
asyncio.run(main())
"""


def started_at_once(server: servers.Server, table: str, count: int) -> int:
    """Let so many processes start at one moment where there are no tables yet; how many failed."""
    command = [sys.executable, "-c", _START, server.url(), table]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=servers.PATIENCE)
    return sum(process.returncode != 0 for process in started)
