"""The simulated way to a real server: it cuts, delays and falls silent, and the server executes what arrives.

Each handler is a server in the simulated network. What arrives there is handed to the real server over a blocking
socket, so that time stands still while it works, and a schedule is the same whenever it is run.
"""

import asyncio
import contextlib
import dataclasses
import select
import socket
import struct

import hiredis

from simulation.engine import flip, note


@dataclasses.dataclass
class Faults:
    """What may happen to each message on its way, as probabilities; a calm line has none.

    Attributes:
        cut: that the line is cut: before the message is executed, behind it, or within the answer.
        silence: that the answer, and all behind it, never comes, while the connection stands.
        cuts, silences: how many there were.
    """

    cut: float = 0.0
    silence: float = 0.0
    cuts: int = 0
    silences: int = 0

    def calm(self):
        """From here on nothing happens."""
        self.cut = self.silence = 0.0

    def cuts_here(self, where):
        """Whether the line is cut at this moment."""
        if not flip(self.cut):
            return False
        self.cuts += 1
        note(f"cut {where}")
        return True

    def falls_silent(self):
        """Whether nothing comes back from here on."""
        if not flip(self.silence):
            return False
        self.silences += 1
        note("silence")
        return True


HELLO = 2.0
"""Seconds within which a client says something."""


class Line:
    """One simulated server that any number of clients reach, each by a connection of its own.

    Args:
        faults: what happens on the way.
        port: the real server's.
    """

    def __init__(self, faults, port):
        self.faults = faults
        self.port = port
        self.open = set()

    async def serve(self, host, port):
        """Listen in the simulated network."""
        return await asyncio.start_server(self._handle, host, port)

    async def _handle(self, reader, writer):
        self.open.add(writer)
        try:
            # The engine leaves a connection standing whose caller is cancelled within `connect`; asyncio closes it.
            first = await asyncio.wait_for(reader.read(1 << 16), HELLO)
            await self.carry(first, reader, writer)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()

    async def carry(self, data, reader, writer):
        """Hand on what arrived first, and what follows, until the line ends."""
        raise NotImplementedError

    async def answer(self, reader, writer, reply):
        """Send an answer back, or what a cut leaves of it; whether the line still stands."""
        if self.faults.cuts_here("behind the execution"):
            return False
        if self.faults.cuts_here("within the answer"):
            writer.write(reply[: len(reply) // 2])
            await asyncio.sleep(0.001)
            return False
        if self.faults.falls_silent():
            while await reader.read(1 << 16):  # whatever comes is lost, until the client gives up
                pass
            return False
        writer.write(reply)
        return True


class RedisLine(Line):
    """The way to Redis: one command at a time is executed, as the server itself does it."""

    async def carry(self, data, reader, writer):
        """See above."""
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            parser, session = hiredis.Reader(), set()
            while data:
                parser.feed(data)
                while (words := parser.gets()) is not False:
                    if self.faults.cuts_here("before the execution"):
                        return
                    if not await self.answer(reader, writer, self.execute(server, words, session)):
                        return
                data = await reader.read(1 << 16)

    def execute(self, server, words, session):
        """The answer to one command, byte by byte.

        Args:
            server: a connection to the real one.
            words: the command.
            session: what the connection's client has said of it, for who wants to keep that.
        """
        return _executed(server, words)


def command(port, *words):
    """The answer to one command of the real server's, beside the simulation."""
    with socket.create_connection(("127.0.0.1", port)) as server:
        return answer(server, *words)


def answer(server, *words):
    """The same over a connection to it."""
    parser = hiredis.Reader()
    parser.feed(_executed(server, [word.encode() if isinstance(word, str) else word for word in words]))
    return parser.gets()


def _executed(server, words):
    server.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    parser, reply = hiredis.Reader(), b""
    while True:
        data = server.recv(1 << 20)
        if not data:
            raise ConnectionError("the real server closed the connection")
        reply += data
        parser.feed(data)
        if parser.gets() is not False:
            return reply


CANCEL = 80877102
"""The number in the place of a version by which PostgreSQL knows a request to cancel."""

ASKS = (3, 5, 10, 11)
"""Kinds of an authentication request that the client has to answer."""


class PostgresLine(Line):
    """The way to PostgreSQL: what a client sends is executed until the server is ready, or waits for a lock.

    Args:
        faults, port: as above.
        waits: tells of a process of the server, and of those that nobody is connected to any more, whether it waits
            for a lock of anybody else.
    """

    def __init__(self, faults, port, waits):
        super().__init__(faults, port)
        self._waits = waits
        self._gone = set()

    async def carry(self, data, reader, writer):
        """See above."""
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client, backend = _Sent(), _Heard(server, self._waits, self._gone)
            try:
                await self._converse(client, backend, data, reader, writer)
            finally:
                self._gone.add(backend.process)

    async def _converse(self, client, backend, data, reader, writer):
        while data:
            if self.faults.cuts_here("before the execution"):
                return
            for message in client.messages(data):
                backend.server.sendall(message)
            if client.cancels:
                with contextlib.suppress(OSError):
                    backend.server.recv(1)  # the server closes once it has carried it out
                return
            backend.owe(*client.take_owed())
            pause = 0.005
            while backend.owes_after(client) and (reply := backend.reply()) is not None:
                if not reply:  # it waits for somebody else's lock, and so do we: each look costs real time
                    await asyncio.sleep(pause)
                    pause = min(1.0, 2 * pause)
                elif not await self.answer(reader, writer, reply):
                    return
                elif backend.asks:
                    break
            data = await reader.read(1 << 16)


class _Sent:
    """What a client sends, message by message; and how many times the server will say that it is ready.

    Attributes:
        copied: whether it has sent the last row of its COPY.
    """

    def __init__(self):
        self._rest = b""
        self._started = False
        self._owed = 0
        self.cancels = self.described = self.flushed = self.copied = False

    def messages(self, data):
        """The messages that are whole by now."""
        self._rest += data
        while True:
            head = 5 if self._started else 4
            if len(self._rest) < head:
                return
            size = struct.unpack("!I", self._rest[head - 4 : head])[0] + head - 4
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            if not self._started:
                self._started = True
                self.cancels = struct.unpack("!I", message[4:8])[0] == CANCEL
                self._owed += not self.cancels
            elif message[:1] in b"SQ":
                self._owed += 1
                self.copied = False
            elif message[:1] in b"cf":
                self.copied = True
            elif message[:1] == b"D":
                self.described = True
            elif message[:1] == b"H" and self.described:
                self.described, self.flushed = False, True
            yield message

    def take_owed(self):
        """How many times since it was last asked; and whether it has asked for a description without that."""
        owed, flushed = self._owed, self.flushed
        self._owed, self.flushed = 0, False
        return owed, flushed


class _Heard:
    """What the server answers.

    Attributes:
        asks: whether it has asked the client for a password, and waits.
        server: the connection to it.
        process: its number; 0 as long as it has not said it.
    """

    def __init__(self, server, waits, gone):
        self.server = server
        self._waits = waits
        self._gone = gone
        self.process = 0
        self._rest = b""
        self._ready = 0
        self._described = False
        self.asks = self._copying = False

    def owe(self, ready, described):
        """Expect it to say so many more times that it is ready, and perhaps to describe a statement before."""
        self._ready += ready
        self._described = self._described or described

    def owes_after(self, client):
        """Whether more will come before the client says something: within a COPY, nothing before its last row."""
        return (self._ready > 0 or self._described) and (client.copied or not self._copying)

    def reply(self):
        """The next bytes; none while it waits for a lock; `None` once the connection has ended."""
        while not select.select([self.server], [], [], 0.002)[0]:
            # For who is gone time stands still: when the server notices depends on how busy the machine is.
            if self.process and self._waits(self.process, self._gone):
                return b""
        data = self.server.recv(1 << 20)
        if not data:
            return None
        self._learn(data)
        return data

    def _learn(self, data):
        self._rest += data
        self.asks = False
        while len(self._rest) >= 5:
            size = struct.unpack("!I", self._rest[1:5])[0] + 1
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            kind = message[:1]
            if kind == b"Z":
                self._ready -= 1
                self._copying = False
            elif kind == b"G":
                self._copying = True
            elif kind in b"TnE":
                self._described = False
            elif kind == b"K":
                self.process = struct.unpack("!I", message[5:9])[0]
                self._gone.discard(self.process)
            elif kind == b"R":
                self.asks = struct.unpack("!I", message[5:9])[0] in ASKS
