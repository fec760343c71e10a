"""The lease that a session holds while it is open."""

from __future__ import annotations

import asyncio
import time

from jaf_memory_core.conversations import Lease
from jaf_memory_core.errors import MemoryConflictError, MemoryConnectionError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.session.storage import LACKING, StoredConversation, finished
from jaf_memory_core.validation import checked_ttl


class SessionLease:
    """A conversation's lease, held while a session is open."""

    def __init__(self, stored: StoredConversation, seconds: float, wait: float) -> None:
        if not stored.offers("acquire_lease"):
            raise MemoryInvalidInputError(f"{type(stored.provider).__name__} has no {LACKING['acquire_lease']}")
        self._stored = stored
        self._seconds = checked_ttl(seconds) or 0.0
        self._wait = wait
        self._lease: Lease | None = None
        self._lost: MemoryError | None = None
        self._until = 0.0
        self._renewals: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Take the lease.

        Raises:
            MemoryConflictError: another holds it, and did not give it back in time.
        """
        ends = time.monotonic() + self._wait
        while self._lease is None:
            began = time.monotonic()
            try:
                self._lease = await self._stored.acquire(self._seconds)
            except MemoryConflictError:
                if time.monotonic() >= ends:
                    raise
                await asyncio.sleep(min(0.1, max(0.0, ends - time.monotonic())))
            else:
                self._until = began + self._seconds
        self._renewals = asyncio.get_running_loop().create_task(self._renew_always())

    async def leave(self) -> None:
        """Give the lease back."""
        if self._renewals is not None:
            self._renewals.cancel()
            await asyncio.wait({self._renewals})
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await finished(self._stored.provider.release_lease(lease))

    async def confirm(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            MemoryConflictError: it expired, and another took it.
            MemoryNotFoundError: the conversation was deleted.
        """
        if self._lost is not None:
            raise self._lost
        if time.monotonic() > self._until - self._seconds / 2:
            await self._renew()

    async def _renew(self) -> None:
        if self._lease is None:
            raise MemoryInvalidInputError("the session is not entered; use it with async with")
        began = time.monotonic()
        self._lease = await self._stored.provider.renew_lease(self._lease, self._seconds)
        self._until = began + self._seconds

    async def _renew_always(self) -> None:
        while self._lost is None:
            await asyncio.sleep(self._seconds / 3)
            try:
                await self._renew()
            except MemoryConnectionError:
                continue  # it may be back before the lease ends
            except MemoryError as error:
                self._lost = error
