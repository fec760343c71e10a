"""`Writer`: the worker that changes the file. What waits at the same moment travels in one transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jaf_memory_core.errors import MemoryError
from jaf_memory_sqlite import migration
from jaf_memory_sqlite.collecting import Collecting
from jaf_memory_sqlite.erasure import Erasure
from jaf_memory_sqlite.jobs import Job, fail
from jaf_memory_sqlite.opening import Opener
from jaf_memory_sqlite.pace import CommitPace
from jaf_memory_sqlite.reader import Reader
from jaf_memory_sqlite.waiting import patiently

MOST = 256
"""Jobs that a caller's thread does in one go, each some 25 µs; more are left to the worker's thread."""

LOG = 150
"""Jobs done in callers' threads after which the worker's writes the log into the file.

SQLite would do it within a commit, once the log has 1,000 pages; a job has up to six.
"""


class Writer(Collecting):
    """Commits together the jobs that come together, and answers after the commit.

    Where syncs of the disk are quick, small jobs are done where they are asked for: a hand-over to the thread and back
    takes longer than such a sync. All else is the thread's: what is large or erases, what has to wait for the lock of
    another process, what failed. Either way a transaction is begun and ended by one thread, which holds the lock.

    A job that is refused has changed nothing yet, and the others go on. A job that fails half-way takes the
    transaction with it, and each job is then tried in a transaction of its own: so the common path needs no
    savepoints, and a failure still is one job's only.

    Args:
        name: the thread's.
        opener: makes the connection.
        readers: who read the same file: they get a new connection when this worker does.
    """

    def __init__(self, name: str, opener: Opener, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._pace = CommitPace()
        self._logged = 0
        self._erasure = Erasure(opener.path)
        super().__init__(name, opener)

    def renew(self) -> None:
        """Make new connections before the next job."""
        super().renew()
        for reader in self._readers:
            reader.renew()

    # In the caller's thread.

    def done_here(self, jobs: list[Job[Any]]) -> bool:
        """Do all of these jobs, or none of them; whether it was done. What the thread has comes first."""
        if self.stopped or self.busy or len(jobs) > MOST or not self._pace.allows():
            return False
        if not all(job.little for job in jobs) or not self.lock.acquire(blocking=False):
            return False
        try:
            return self._committed_here(jobs)
        finally:
            self.lock.release()

    def _committed_here(self, jobs: list[Job[Any]]) -> bool:
        db = self.db
        if db is None or not self.usable or self.opener.leads_elsewhere():
            return False
        try:
            db.execute("BEGIN IMMEDIATE")
            self._check(db)
            self._commit(db, jobs, here=True)
        except Exception as error:  # noqa: BLE001  (the thread meets it again, and tells whoever waits)
            self.doubt(error)
            return False
        finally:
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
            self._check(db)
        except (sqlite3.Error, MemoryError) as error:
            self._give_up(db, jobs, error)
            return
        wanted = [job for job in jobs if job.wanted]
        try:
            self._commit(db, wanted)
        except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
            if len(wanted) == 1:
                self._give_up(db, wanted, error)
            else:
                self._one_by_one(db, wanted)

    def _begin_later(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> bool:
        """Wait for the lock; `False` once nobody waits any more."""

        def go_on() -> bool:
            jobs.extend(self.take(block=False))
            return any(job.wanted for job in jobs)

        return patiently(lambda: db.execute("BEGIN IMMEDIATE"), go_on=go_on) is not None

    def _one_by_one(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        self._roll_back(db)
        for job in jobs:
            try:
                patiently(lambda: db.execute("BEGIN IMMEDIATE"))
                self._commit(db, [job])
            except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                self._give_up(db, [job], error)

    def _give_up(self, db: sqlite3.Connection, jobs: list[Job[Any]], error: Exception) -> None:
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
        if self._erasure.owes:
            self._erasure.settle(self.db, idle=idle, last=last)
            self.rest = self._erasure.rest

    # In either.

    def _check(self, db: sqlite3.Connection) -> None:
        """Refuse to write into a file that a newer version has upgraded meanwhile."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != migration.CURRENT:
            migration.refuse_newer(version, self.opener.path)

    def _commit(self, db: sqlite3.Connection, jobs: list[Job[Any]], *, here: bool = False) -> None:
        before = db.total_changes
        erased = [job.erases for job in jobs if _try(db, job, here=here) and job.erases]
        started = time.monotonic()
        db.execute("COMMIT")
        if db.total_changes != before:
            self._pace.learn(time.monotonic() - started, len(jobs))
        if erased:
            self._erasure.note(whole="whole" in erased)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self.renew()


def _try(db: sqlite3.Connection, job: Job[Any], *, here: bool) -> bool:
    """Run a job, or keep its refusal; whether it changed anything."""
    before = db.total_changes
    try:
        job.result = job.little(db) if here and job.little else job.call(db)
        job.failure = None
    except MemoryError as refusal:
        if db.total_changes != before:
            raise
        job.failure = refusal
    return db.total_changes != before
