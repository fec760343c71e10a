"""The worker that changes the file, by group commit: what waits at the same moment travels in one transaction.

Whoever asks for something first lets all tasks that are ready have their turn. Then the first who comes back does what
waits by now, for all of them. So nobody who writes again and again keeps others from running, and who is alone needs
nobody else: no future, no callback, and no thread, unless the job is one for the thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

from jaf_memory_core.errors import MemoryConnectionError, MemoryError
from jaf_memory_sqlite.connection import Connector
from jaf_memory_sqlite.connection.reader import OFTEN, SLOW, Reader
from jaf_memory_sqlite.connection.worker import Call, Erases, Job, Worker, fail
from jaf_memory_sqlite.errors import InDoubtError, may_stand
from jaf_memory_sqlite.locks import wait_for_lock
from jaf_memory_sqlite.operations.erasure import Vacuum
from jaf_memory_sqlite.operations.headers import Headers

T = TypeVar("T")
Waiting = list[Job[Any]]

MOST = 256
"""Jobs that a caller's thread does in one go, each some 25 µs; more are left to the worker's thread."""

LOG = 150
"""Jobs done in callers' threads after which the worker's writes the log into the file.

SQLite would do it within a commit, once the log has 1,000 pages; a job has up to six.
"""


QUICK, EACH = 0.0005, 0.00003
"""Seconds of a quick commit, and of each job in it: a hand-over to a thread and back would take about as long."""

RECENT = 20
"""The quickest of so many commits tells how quick the disk is; what others took longer is a busy computer's doing."""


class CommitLatency:
    """Learns from how long commits took, in whichever thread: a quick disk has to be seen first."""

    def __init__(self) -> None:
        self._recent = deque([SLOW], RECENT)
        self._slow = 0

    def allows(self) -> bool:
        """Whether the next commit may be made in the caller's thread."""
        return min(self._recent) < QUICK

    def learn(self, seconds: float, jobs: int) -> None:
        """Take notice of how long a commit of so many jobs took."""
        # What a commit takes for its jobs says nothing of the disk.
        seconds -= EACH * jobs
        self._slow = self._slow + 1 if seconds >= SLOW else 0
        if self._slow == OFTEN:
            self._recent.clear()
        self._recent.append(seconds)


class GroupCommit(Worker):
    """A worker that does together what an event loop's tasks ask for at the same moment; see above.

    What waits in a loop is touched by its own thread only.
    """

    def __init__(self, name: str, connector: Connector) -> None:
        self._waiting: dict[asyncio.AbstractEventLoop, Waiting] = {}
        super().__init__(name, connector)

    async def do(self, call: Call[T], *, inline: Call[T] | None = None, erases: Erases = None) -> T:
        """Have a call done, here or in the thread; it gets the connection. The arguments are a `Job`'s."""
        job = Job(call, inline=inline, erases=erases)
        waiting = self._waiting.get(job.loop)
        if waiting is None:
            waiting = self._new_queue(job.loop)
        # Before the turn of the others: who of them comes back first does this one along with its own.
        waiting.append(job)
        try:
            await asyncio.sleep(0)
        except BaseException:
            # If nobody has begun it yet, nobody will; if somebody has, it is carried through, and nobody hears of it.
            job.forsake()
            raise
        if not job.begun:
            self._empty(waiting)
        return job.outcome() if job.future is None else await job.future

    def _new_queue(self, loop: asyncio.AbstractEventLoop) -> Waiting:
        # A copy of the keys: other threads bring loops of their own at any time.
        for gone in [other for other in list(self._waiting) if other.is_closed()]:
            self._waiting.pop(gone, None)
        return self._waiting.setdefault(loop, [])

    def _empty(self, waiting: Waiting) -> None:
        jobs = [job for job in waiting if not job.begun]
        waiting.clear()
        for job in jobs:
            job.begun = True
        try:
            if not self.commit_inline(jobs):
                self.hand_in(jobs)
        except MemoryConnectionError as error:
            fail(jobs, error)
        except BaseException:  # the program is being ended
            fail(jobs, MemoryConnectionError("the program was interrupted", outcome="unknown"))
            raise

    def commit_inline(self, jobs: list[Job[Any]]) -> bool:
        """Do all of these jobs in their loop's thread, or none of them; whether it was done."""
        raise NotImplementedError


class Writer(GroupCommit):
    """Commits together the jobs that come together, and answers after the commit.

    Where syncs of the disk are quick, small jobs are done where they are asked for: a hand-over to the thread and back
    takes longer than such a sync. All else is the thread's: what is large or erases, what has to wait for the lock of
    another process, what failed. Either way a transaction is begun and ended by one thread, which holds the lock.

    A job that is refused has changed nothing yet, and the others go on. A job that fails half-way takes the
    transaction with it, and each job is then tried in a transaction of its own: so the common path needs no
    savepoints, and a failure still is one job's only.

    Args:
        name: the thread's.
        connector: makes the connection.
        readers: who read the same file: they get a new connection when this worker does.

    Attributes:
        commits, committed: how many there were, and how many jobs in them.
        headers: what it knows of the file, for jobs of its own.
    """

    writes = True

    def __init__(self, name: str, connector: Connector, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._latency = CommitLatency()
        self._logged = 0
        self.commits = self.committed = 0
        self._vacuum = Vacuum(connector.path)
        self.headers = Headers()
        super().__init__(name, connector)

    def renew(self) -> None:
        """Make new connections before the next job."""
        super().renew()
        for reader in self._readers:
            reader.renew()

    # In the caller's thread.

    def commit_inline(self, jobs: list[Job[Any]]) -> bool:
        """Do all of these jobs, or none of them; whether it was done. What the thread has comes first."""
        # A long log is the thread's, and so is what comes meanwhile: under writes without a pause on a quick disk it
        # would not get the lock, and SQLite would write the log into the file within a commit.
        if self._logged >= LOG or self.stopped or self.busy or len(jobs) > MOST or not self._latency.allows():
            return False
        # Without waiting: who holds the lock may be within a sync of the disk, and this is an event loop's thread.
        if any(job.inline is None for job in jobs) or not self.lock.acquire(blocking=False):
            return False
        try:
            return self._committed_inline(jobs)
        finally:
            self.lock.release()

    def _committed_inline(self, jobs: list[Job[Any]]) -> bool:
        db = self.db
        if db is None or not self.usable or self.connector.leads_elsewhere(now=True):
            return False
        try:
            db.execute("BEGIN IMMEDIATE")
            # Within the transaction: from here on no newer version can upgrade the file.
            self.headers.begin(db)
            self._commit(db, jobs, inline=True)
        except InDoubtError as doubt:
            # Not for the thread: a change that stands already would be made twice.
            self._give_up(db, jobs, doubt)
            return True
        except Exception as error:  # noqa: BLE001  (the thread meets it again, and tells whoever waits)
            self.doubt(error)
            return False
        finally:
            # What was begun is undone, so that the thread may do all of it again.
            self._roll_back(db)
        self._logged += len(jobs)
        if self._logged >= LOG:
            self.queue.put([])  # wakes the thread, which tidies
        return True

    # In the thread.

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Commit all of them, or each of them alone."""
        if not any(job.wanted for job in jobs):
            return
        try:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                if not self._begin_later(db, jobs):
                    return
            self.headers.begin(db)
        except (sqlite3.Error, MemoryError) as error:
            self._give_up(db, jobs, error)
            return
        # Asked again behind the wait for the lock: who has given up meanwhile must find nothing written.
        wanted = [job for job in jobs if job.wanted]
        try:
            self._commit(db, wanted)
        except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
            if len(wanted) == 1 or isinstance(error, InDoubtError):
                self._give_up(db, wanted, error)
            else:
                self._one_by_one(db, wanted)

    def _begin_later(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> bool:
        """Wait for the lock; `False` once nobody waits any more."""

        def go_on() -> bool:
            # What has come while this waited travels along: it would wait for the same lock.
            jobs.extend(self.take(block=False))
            return any(job.wanted for job in jobs)

        return wait_for_lock(lambda: db.execute("BEGIN IMMEDIATE"), go_on=go_on) is not None

    def _one_by_one(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        self._roll_back(db)
        for job in jobs:
            try:
                wait_for_lock(lambda: db.execute("BEGIN IMMEDIATE"))
                self.headers.begin(db)
                self._commit(db, [job])
            except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                self._give_up(db, [job], error)

    def _give_up(self, db: sqlite3.Connection, jobs: list[Job[Any]], error: Exception) -> None:
        if isinstance(error, InDoubtError):
            error = error.error
        fail(jobs, error)
        self.doubt(error)
        self._roll_back(db)

    def tidy(self, *, idle: bool, last: bool) -> None:
        """Write the log into the file, and do what is due for what was erased."""
        if self.db is None:
            return
        if self._logged >= LOG:
            self._logged = 0
            with suppress(sqlite3.Error):  # a commit will do it
                self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if self._vacuum.owes:
            self._vacuum.settle(self.db, idle=idle, last=last)
            self.rest = self._vacuum.rest

    # In either.

    def _commit(self, db: sqlite3.Connection, jobs: list[Job[Any]], *, inline: bool = False) -> None:
        try:
            self._do(db, jobs, inline=inline)
        except BaseException:
            self.headers.forget()
            raise

    def _do(self, db: sqlite3.Connection, jobs: list[Job[Any]], *, inline: bool) -> None:
        before = db.total_changes
        erased = [job.erases for job in jobs if _try(db, job, inline=inline) and job.erases]
        if erased:
            # Before the commit, which may stand though it fails.
            self._vacuum.note(whole="whole" in erased)
        started = time.monotonic()
        # Nobody is answered before: up to here a crash leaves nothing of all these jobs.
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if may_stand(error):
                raise InDoubtError(error) from error
            raise
        if db.total_changes != before:
            self.commits += 1
            self.committed += len(jobs)
            self._latency.learn(time.monotonic() - started, len(jobs))

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            # A connection that cannot leave its transaction is of no more use.
            self.renew()


def _try(db: sqlite3.Connection, job: Job[Any], *, inline: bool) -> bool:
    """Run a job, or keep its refusal; whether it changed anything."""
    before = db.total_changes
    try:
        job.result = job.inline(db) if inline and job.inline else job.call(db)
        job.failure = None
    except MemoryError as refusal:
        # A refusal behind a change would commit half of a job; so it takes the transaction with it.
        if db.total_changes != before:
            raise
        job.failure = refusal
    return db.total_changes != before
