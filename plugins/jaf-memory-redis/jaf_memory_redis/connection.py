"""One connection that many operations share: commands go out as they come, replies come back in the same order.

What waits at the same moment travels together, and a caller that is alone is sent at once. A caller that is cancelled
leaves its place in the order, so that no reply can reach another's operation.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import socket
import sys
from collections import deque
from typing import Any

import hiredis

from jaf_memory_redis.errors import ServerError, TransportError

if sys.platform != "win32":
    import fcntl
    import termios

TOGETHER = 16
"""Operations that are sent at once; the server begins with these while more are being prepared."""


PIECE = 64 << 10
"""Bytes of one request that are handed to the socket at once; what is larger goes piece by piece."""

LIGHT = 16 << 10
"""Bytes up to which a request goes before those that are larger, on a connection that carries none of them."""


_TOO_LARGE = "; perhaps it takes no message of that size (proto-max-bulk-len)"

LARGE = 1 << 20
"""Bytes of a request that a server may refuse by closing the connection, at times before its answer arrives."""


class _Waiting:
    """An operation that waits for `count` replies; `packed` as long as nothing of it was sent."""

    __slots__ = ("count", "future", "packed", "replies", "size")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, packed: bytes = b"") -> None:
        self.future = future
        self.count = count
        self.packed = packed
        self.size = len(packed)
        self.replies: list[Any] = []


class Connection(asyncio.Protocol):
    """A connection whose handshake is done.

    Args:
        writer: kept, because it closes the transport when nothing refers to it.
        patience: seconds without a byte in either direction after which a connection that owes a reply is given up.
    """

    def __init__(self, writer: asyncio.StreamWriter, patience: float) -> None:
        self._writer = writer
        self._transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._reader = hiredis.Reader(protocolError=ConnectionError, replyError=ServerError)
        self._waiting: deque[_Waiting] = deque()
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._light: deque[_Waiting] = deque()
        self._queue: deque[_Waiting] = deque()
        self._rest = memoryview(b"")
        self._rest_of: _Waiting | None = None
        self._paused = False
        self._accepted = self._seen = self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._retired: str | None = None
        self.lost: TransportError | None = None
        self._transport.set_protocol(self)
        # Kept small: what the transport has taken is sent whatever becomes of its caller; what waits here can be
        # given up.
        self._transport.set_write_buffer_limits(high=PIECE)
        self._keep_the_system_from_hoarding()

    @property
    def load(self) -> int:
        """How many operations wait on it."""
        return len(self._waiting) + len(self._light) + len(self._queue)

    def has_room(self, crowded: int) -> bool:
        """Whether it can take one more, and fewer than `crowded` wait on it."""
        return (
            not self._paused
            and self._arrived <= PIECE
            and len(self._waiting) + len(self._light) + len(self._queue) < crowded
            and self.lost is None
        )

    @property
    def clogged(self) -> bool:
        """Whether something large is on its way, behind which nothing small should wait."""
        return self._paused or self._arrived > PIECE

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send commands that bring `count` replies.

        Returns:
            a future of the replies, error replies among them as `ServerError`s.

        Raises:
            TransportError: the connection is lost; nothing was sent.
        """
        if self.lost is not None:
            raise TransportError(str(self.lost), sent=False)
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not (self._waiting or self._light or self._queue):
            # Silence counts from here: before, nothing was owed.
            self._heard = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._patience, self._check)
        light = len(packed) <= LIGHT
        if self._paused or self._rest or self._light or not light:
            # Behind something large: it is not sent before there is room, nor if nobody waits for it by then.
            self._flush()
            (self._light if light else self._queue).append(_Waiting(future, count, packed))
            self._feed()
            return future
        if not self._waiting:
            # Alone, at once; behind others it is gathered until the loop's turn ends (docs/decisions/0006).
            self._write(packed)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(packed)
            self._unsent_size += len(packed)
            if len(self._unsent) >= TOGETHER or self._unsent_size > PIECE:
                self._flush()
        self._waiting.append(_Waiting(future, count))
        return future

    def _write(self, data: bytes | memoryview) -> None:
        self._accepted += len(data)
        self._transport.write(data)

    def _flush(self) -> None:
        unsent, self._unsent, self._unsent_size = self._unsent, [], 0
        if self.lost is None and unsent:
            self._write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _feed(self) -> None:
        """Send what is queued, as far as there is room."""
        # A closing transport has lost the line, and says so only when the loop turns.
        while not self._paused and self.lost is None and not self._transport.is_closing():
            if not self._rest:
                self._rest_of = None
                waiting = self._rest_of = self._next()
                if waiting is None:
                    return
                # Before its first byte: from here on a reply is owed, and a loss means that the outcome is unknown.
                self._waiting.append(waiting)
                self._rest, waiting.packed = memoryview(waiting.packed), b""
            elif self._rest_of is not None and self._rest_of.future.done() and len(self._waiting) == 1:
                # Its caller has gone, and nobody else is here: the rest need not be sent.
                self.drop("what was being sent is not waited for any more")
                return
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            self._write(piece)

    def _next(self) -> _Waiting | None:
        """What is sent next, if somebody still waits for it."""
        for queue in (self._light, self._queue):
            while queue:
                waiting = queue.popleft()
                if not waiting.future.done():
                    return waiting
        return None

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It takes more again."""
        self._paused = False
        self._feed()

    def data_received(self, data: bytes) -> None:
        """Hand out replies."""
        self._heard = self._loop.time()
        self._arrived += len(data)
        waiting, reader = self._waiting, self._reader
        reader.feed(data)
        try:
            while waiting:
                first = waiting[0]
                replies = first.replies
                while len(replies) < first.count:
                    reply = reader.gets()
                    if reply is False:  # RESP2 has no false of its own
                        return
                    replies.append(reply)
                waiting.popleft()
                self._arrived = 0
                # A caller that was cancelled has left its place: its replies are read all the same, and thrown away.
                if not first.future.done():
                    first.future.set_result(replies)
            # What nobody has asked for would be taken for the answer to the next operation.
            whole = not reader.has_data()
        except ConnectionError:
            whole = False
        if not whole:
            self.drop("the server sent something that is no reply")
        elif self._retired is not None and not self.load:
            self.drop(self._retired)

    def eof_received(self) -> None:
        """The server closed the connection."""
        self.drop("the server closed the connection", by_server=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        reason = f"the connection was lost ({type(exc).__name__})" if exc else "the connection was closed"
        self.drop(reason, by_server=True)

    def _check(self) -> None:
        self._timer = None
        if not self.load or self.lost is not None:
            return
        # What the other side has acknowledged: on a dead line the system goes on taking bytes for a while.
        sent = self._accepted - self._transport.get_write_buffer_size() - self._in_the_system()
        if sent != self._seen:
            # What is still being sent is no silence.
            self._seen, self._heard = sent, self._loop.time()
        left = self._heard + self._patience - self._loop.time()
        if left <= 0:
            self.drop(f"the server did not answer for {self._patience:g} s")
        else:
            self._timer = self._loop.call_later(left, self._check)

    def _keep_the_system_from_hoarding(self) -> None:
        """What it has taken and not sent yet can neither be overtaken nor taken back."""
        sock = self._transport.get_extra_info("socket")
        most = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if most is not None and sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, most, PIECE)

    def _in_the_system(self) -> int:
        """Bytes that the system has taken from us, and the other side not yet from it."""
        sock = self._transport.get_extra_info("socket")
        if sys.platform == "win32" or sock is None or sock.fileno() < 0:
            return 0
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)
        except OSError:
            return 0
        return waiting[0]

    def retire(self, reason: str) -> None:
        """Close once nobody waits on it any more; it is given nothing new."""
        self._retired = reason
        if not self.load:
            self.drop(reason)

    def drop(self, reason: str, *, by_server: bool = False) -> None:
        """Close without waiting for anything; whoever waits is told."""
        if self.lost is not None:
            return
        self.lost = TransportError(reason, sent=True)
        if self._timer is not None:
            self._timer.cancel()
        # Not `close`: it would send first what is buffered, and on a dead line that never ends.
        if not self._loop.is_closed():
            self._transport.abort()
        # Who waits for the flush stands in `_waiting` too, behind all whose commands are on their way.
        unsent = len(self._unsent)
        self._unsent.clear()
        self._rest, self._rest_of = memoryview(b""), None
        while (waiting := self._next()) is not None:
            waiting.future.set_exception(TransportError(reason, sent=False))
        while self._waiting:
            is_sent = len(self._waiting) > unsent
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                hint = _TOO_LARGE if by_server and waiting.size > LARGE else ""
                problem = TransportError(reason + hint, sent=is_sent, closed=by_server and is_sent)
                waiting.future.set_exception(problem)
