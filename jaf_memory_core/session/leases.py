"""The lease that a session holds while it is open."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import UTC, datetime, timedelta

from jaf_memory_core.conversations import Lease
from jaf_memory_core.errors import MemoryConflictError, MemoryConnectionError, MemoryError, MemoryInvalidInputError
from jaf_memory_core.session.storage import LACKING, StoredConversation, checked_seconds, finished
from jaf_memory_core.validation import checked_ttl

logger = logging.getLogger("jaf_memory_core")


class SessionLease:
    """A conversation's lease, held while a session is open.

    Its token is chosen before it is asked for, so that what was granted is given back also where nobody heard the
    answer: the caller was cancelled, or the line was lost.
    """

    def __init__(self, stored: StoredConversation, seconds: float, wait: float) -> None:
        if not stored.offers("acquire_lease"):
            raise MemoryInvalidInputError(f"{type(stored.provider).__name__} has no {LACKING['acquire_lease']}")
        self._stored = stored
        self._seconds = checked_ttl(seconds) or 0.0
        self._wait = checked_seconds(wait, "lease_wait", none=True)
        self._lease: Lease | None = None
        self._lost: MemoryError | None = None
        self._until = 0.0
        self._renewals: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Take the lease.

        Raises:
            MemoryConflictError: another holds it, and did not give it back in time.
        """
        token = os.urandom(16).hex()
        ends = time.monotonic() + self._wait
        self._lost = None
        try:
            while not await finished(self._take(token)):
                await asyncio.sleep(min(0.1, max(0.0, ends - time.monotonic())))
                if time.monotonic() >= ends:  # once more, and then the conflict is the caller's
                    await finished(self._take(token, last=True))
                    break
        except asyncio.CancelledError:
            # It may have been granted to a caller who is gone; others would wait until it expires.
            await finished(self._give_back())
            raise
        except MemoryConnectionError as error:
            if error.outcome == "unknown":
                await finished(self._give_back(self._by_token(token)))
            raise
        self._renewals = asyncio.get_running_loop().create_task(self._renew_always())

    def _by_token(self, token: str) -> Lease:
        ends = datetime.now(UTC) + timedelta(seconds=self._seconds)
        return Lease(self._stored.conversation_id, token, 0, ends)

    async def _take(self, token: str, *, last: bool = False) -> bool:
        began = time.monotonic()
        try:
            self._lease = await self._stored.acquire(self._seconds, token)
        except MemoryConflictError as error:
            if last or self._wait <= 0 or not error.retryable:
                raise
            return False
        # From before the request: the store counts from a later moment, so that ours ends first.
        self._until = began + self._seconds
        return True

    async def leave(self) -> None:
        """Give the lease back, whoever cancels the caller meanwhile, and however often."""
        await finished(self._leave())

    async def _leave(self) -> None:
        if self._renewals is not None:
            self._renewals.cancel()
            # Waited for, so that no renewal is under way when the lease is given back.
            await asyncio.wait({self._renewals})
            self._renewals = None
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await self._stored.provider.release_lease(lease)

    async def _give_back(self, lease: Lease | None = None) -> None:
        """Release what may have been granted to a caller who is on the way out already."""
        held, self._lease = lease or self._lease, None
        if held is None:
            return
        try:
            await self._stored.provider.release_lease(held)
        except MemoryError as error:
            logger.warning(
                "the lease of conversation %r could not be given back (%s); it ends by itself in %.0f s",
                self._stored.conversation_id,
                type(error).__name__,
                self._seconds,
            )

    async def confirm(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            MemoryConflictError: it expired, and another took it.
            MemoryNotFoundError: the conversation was deleted.
        """
        if self._lost is not None:
            raise self._lost
        # A renewal comes with each third: with half of it gone one has failed, or the event loop stood still.
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
