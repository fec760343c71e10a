"""A line to a server that is far away, or slow."""

import asyncio
import contextlib
import socket
import time

WAITING = 1 << 16
"""Bytes that wait in the system for this side to read them; more stay with the sender."""


class Line:
    """A server that passes everything on to another, both ways, until its `async with` ends.

    Args:
        target: the other server's port.
        delay: seconds that everything comes later.
        rate: bytes a second in each direction, of all connections together, which take turns.

    Attributes:
        port: where it listens.
        sent: bytes that were passed on to the other server.
        received: bytes that came back from it.
        pieces: in how many pieces bytes were passed on to it: what travels together is one.
    """

    def __init__(self, target, *, delay=0.0, rate=None):
        self._target, self._delay, self._rate = target, delay, rate
        self.port = self.sent = self.received = self.pieces = 0
        self._tasks = set()
        self._writers = []
        self._turns = asyncio.Lock(), asyncio.Lock()

    async def __aenter__(self):
        """Listen."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAITING)
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=WAITING)
        return self

    async def __aexit__(self, *_):
        """Let everything go, and wait until it is gone."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connected(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self._writers.append(writer)
        there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=WAITING)
        self._writers.append(back)
        await asyncio.gather(self._pass(reader, back, up=True), self._pass(there, writer, up=False))

    async def _pass(self, reader, writer, *, up):
        """One direction of one connection: what arrives waits its time while more arrives."""
        under_way = asyncio.Queue(256 if self._delay else 1)
        forwarding = asyncio.create_task(self._forward(under_way, writer, up=up))
        self._tasks.add(forwarding)
        data = b"-"
        while data:
            try:
                data = await reader.read(WAITING if self._rate is None else WAITING // 8)
            except OSError:
                data = b""
            await under_way.put((time.monotonic() + self._delay, data))
        await forwarding

    async def _forward(self, under_way, writer, *, up):
        data = b"-"
        while data:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._rate is not None:
                async with self._turns[up]:
                    await asyncio.sleep(len(data) / self._rate)
            self.sent += len(data) * up
            self.pieces += up
            self.received += len(data) * (not up)
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
        writer.close()
