"""A store behind a line that can hang, break, and belongs to one event loop, as the driver of a server has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from jaf_memory_testing import BRIEF, LifecycleChecks, LoopChecks, ProviderConformance, Target, slow

from jaf_memory_core import BackendProvider, InMemoryConfig
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.records import Amend, DeleteMessages, Page, Ping, Record, Stamp, Stats, Tail, Truncate, Write
from jaf_memory_core.results import WriteResult


class Server:
    """The store, and whether it answers."""

    def __init__(self, store: InMemoryBackend) -> None:
        self.store = store
        self.stalled = False
        self.away = False

    @asynccontextmanager
    async def stall(self) -> AsyncIterator[None]:
        self.stalled = True
        yield
        self.stalled = False

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.away = True
        yield
        self.away = False


class Networked(Backend):
    """A connection to a server: bound to the loop on which it was opened."""

    name = "networked"
    loop_bound = True

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _line(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise AssertionError("a connection is used on another loop than its own, or was never opened")
        await asyncio.sleep(0)
        while self.server.stalled:  # noqa: ASYNC110  (an event belongs to one loop)
            await asyncio.sleep(0.01)
        if self.server.away:
            raise ConnectionRefusedError("10.0.0.1 refused the password hunter2")

    async def open(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        if self.server.away:
            raise ConnectionRefusedError("10.0.0.1 refused the password hunter2")
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        await self._line()
        self._loop = None

    def abandon(self) -> None:
        self._loop = None

    def now(self) -> datetime:
        return self.server.store.now()

    async def read(self, conversation_id: str) -> Record | None:
        await self._line()
        return await self.server.store.read(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        await self._line()
        return await self.server.store.write(record, expected=expected)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        await self._line()
        return await self.server.store.delete(conversation_id, expected=expected)

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        await self._line()
        async for record in self.server.store.scan(query):
            await self._line()
            yield record

    async def store(self, write: Write) -> WriteResult:
        return await self._sent(self.server.store.store(write))

    async def append(self, write: Write) -> WriteResult:
        return await self._sent(self.server.store.append(write))

    async def tail(self, tail: Tail) -> Page | None:
        return await self._sent(self.server.store.tail(tail))

    async def find(self, query: MemoryQuery) -> Sequence[Record]:
        return await self._sent(self.server.store.find(query))

    async def truncate(self, truncate: Truncate) -> int:
        return await self._sent(self.server.store.truncate(truncate))

    async def delete_messages(self, delete: DeleteMessages) -> int:
        return await self._sent(self.server.store.delete_messages(delete))

    async def amend(self, amend: Amend) -> int:
        return await self._sent(self.server.store.amend(amend))

    async def forget_user(self, user_id: str) -> int:
        return await self._sent(self.server.store.forget_user(user_id))

    async def stats(self, user_id: str | None) -> Stats:
        return await self._sent(self.server.store.stats(user_id))

    async def ping(self) -> Ping:
        return await self._sent(self.server.store.ping())

    async def _sent(self, request: Any) -> Any:
        try:
            await self._line()
            answer = await request
            await asyncio.sleep(0)
            return answer
        finally:
            request.close()


def _server() -> Server:
    return Server(InMemoryBackend(InMemoryConfig(max_conversations=100_000)))


async def _open(server: Server | None = None, **settings: Any) -> BackendProvider:
    return BackendProvider(Networked(server or _server()), InMemoryConfig(**{"max_messages": None, **settings}))


@slow("the in-memory store once more", but=(*BRIEF, LifecycleChecks, LoopChecks))
class TestNetworked(ProviderConformance):
    """The guard keeps its promises over connections that belong to a loop, hang and break."""

    @pytest.fixture
    def target(self) -> Target:
        server = _server()
        return Target(
            open=partial(_open, server),
            elsewhere=_open,
            stall=server.stall,
            outage=server.outage,
            declares={"processes": "the server is a part of this process"},
        )
