"""`Collecting`: a worker that does together what the tasks of an event loop ask for at the same moment.

Whoever asks for something first lets all tasks that are ready have their turn. Then the first who comes back does what
was collected meanwhile, for all of them. So nobody who writes again and again keeps others from running, and who is
alone needs nobody else: no future, no callback, and no thread, unless the job is one for the thread.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from jaf_memory_core.errors import MemoryConnectionError
from jaf_memory_sqlite.jobs import Call, Erases, Job, fail
from jaf_memory_sqlite.opening import Opener
from jaf_memory_sqlite.worker import Worker

T = TypeVar("T")

Outbox = list[Job[Any]]


class Collecting(Worker):
    """See above. Each loop has an outbox, which only its own thread touches."""

    def __init__(self, name: str, opener: Opener) -> None:
        self._outboxes: dict[asyncio.AbstractEventLoop, Outbox] = {}
        super().__init__(name, opener)

    async def do(self, call: Call[T], *, little: Call[T] | None = None, erases: Erases = None) -> T:
        """Have a call done, here or in the thread; it gets the connection. The arguments are a `Job`'s."""
        job = Job(call, little=little, erases=erases)
        outbox = self._outboxes.get(job.loop)
        if outbox is None:
            outbox = self._new_outbox(job.loop)
        outbox.append(job)
        try:
            await asyncio.sleep(0)
        except BaseException:
            job.forsake()
            raise
        if not job.begun:
            self._empty(outbox)
        return job.outcome() if job.future is None else await job.future

    def _new_outbox(self, loop: asyncio.AbstractEventLoop) -> Outbox:
        for gone in [other for other in list(self._outboxes) if other.is_closed()]:
            self._outboxes.pop(gone, None)
        return self._outboxes.setdefault(loop, [])

    def _empty(self, outbox: Outbox) -> None:
        jobs = [job for job in outbox if not job.begun]
        outbox.clear()
        for job in jobs:
            job.begun = True
        try:
            if not self.done_here(jobs):
                self.hand_in(jobs)
        except MemoryConnectionError as error:
            fail(jobs, error)
        except BaseException:  # the program is being ended
            fail(jobs, MemoryConnectionError("the program was interrupted", outcome="unknown"))
            raise

    def done_here(self, jobs: list[Job[Any]]) -> bool:
        """Do all of these jobs in their loop's thread, or none of them; whether it was done."""
        raise NotImplementedError
