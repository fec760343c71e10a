"""One connection that many operations share: commands go out as they come, replies come back in the same order.

What waits at the same moment travels together, and a caller that is alone is sent at once. A caller that is cancelled
leaves its place in the order, so that no reply can reach another's operation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis

from jaf_memory_redis.errors import ServerError, TransportError

TOGETHER = 16
"""Operations that are sent at once; the server begins with these while more are being prepared."""


class _Waiting:
    """An operation that waits for `count` replies."""

    __slots__ = ("count", "future", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], count: int) -> None:
        self.future = future
        self.count = count
        self.replies: list[Any] = []


class Connection(asyncio.Protocol):
    """A connection whose handshake is done.

    Args:
        writer: kept, because it closes the transport when nothing refers to it.
        patience: seconds without a byte after which a connection that owes a reply is given up.
    """

    def __init__(self, writer: asyncio.StreamWriter, patience: float) -> None:
        self._writer = writer
        self._transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._reader = hiredis.Reader(protocolError=ConnectionError, replyError=ServerError)
        self._waiting: deque[_Waiting] = deque()
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self.lost: TransportError | None = None
        self._transport.set_protocol(self)

    @property
    def load(self) -> int:
        """How many operations wait on it."""
        return len(self._waiting)

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
        if not self._waiting:
            self._heard = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._patience, self._check)
            self._transport.write(packed)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(packed)
            if len(self._unsent) >= TOGETHER:
                self._flush()
        self._waiting.append(_Waiting(future, count))
        return future

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.lost is None and unsent:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def data_received(self, data: bytes) -> None:
        """Hand out replies."""
        self._heard = self._loop.time()
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
                if not first.future.done():
                    first.future.set_result(replies)
            whole = not reader.has_data()
        except ConnectionError:
            whole = False
        if not whole:
            self.drop("the server sent something that is no reply")

    def eof_received(self) -> None:
        """The server closed the connection."""
        self.drop("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.drop(f"the connection was lost ({type(exc).__name__})" if exc else "the connection was closed")

    def _check(self) -> None:
        self._timer = None
        if not self._waiting or self.lost is not None:
            return
        left = self._heard + self._patience - self._loop.time()
        if left <= 0:
            self.drop(f"the server did not answer for {self._patience:g} s")
        else:
            self._timer = self._loop.call_later(left, self._check)

    def drop(self, reason: str) -> None:
        """Close without waiting for anything; whoever waits is told."""
        if self.lost is not None:
            return
        self.lost = TransportError(reason, sent=True)
        if self._timer is not None:
            self._timer.cancel()
        if not self._loop.is_closed():
            self._transport.abort()
        self._unsent.clear()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(TransportError(reason, sent=True))
