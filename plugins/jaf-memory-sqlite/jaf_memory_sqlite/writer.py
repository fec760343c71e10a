"""`Writer`: the worker that changes the file. What waits at the same moment travels in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from jaf_memory_core.errors import MemoryError
from jaf_memory_sqlite import migration
from jaf_memory_sqlite.erasure import Erasure
from jaf_memory_sqlite.opening import Opener
from jaf_memory_sqlite.reader import Reader
from jaf_memory_sqlite.waiting import patiently
from jaf_memory_sqlite.worker import Erases, Job, Worker, fail


class Writer(Worker):
    """Commits the jobs that wait together, and answers after the commit.

    A job that is refused has changed nothing yet, and the others go on. A job that fails half-way takes the
    transaction with it, and each job is then tried in a transaction of its own: so the common path needs no
    savepoints, and a failure still is one job's only.

    Args:
        name: the thread's.
        opener: makes the connection.
        readers: who read the same file: they get a new connection when this worker does.
    """

    def __init__(self, name: str, opener: Opener, readers: Sequence[Reader] = ()) -> None:
        self._readers = readers
        self._erasure = Erasure(opener.path)
        super().__init__(name, opener)

    def renew(self) -> None:
        """Make new connections before the next job."""
        super().renew()
        for reader in self._readers:
            reader.renew()

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Commit all of them, or each of them alone."""
        try:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                if not self._begin_later(db, jobs):
                    return
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version != migration.CURRENT:
                migration.refuse_newer(version, self.opener.path)
        except (sqlite3.Error, MemoryError) as error:
            self._give_up(db, jobs, error)
            return
        try:
            self._commit(db, jobs)
        except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
            if len(jobs) == 1:
                self._give_up(db, jobs, error)
            else:
                self._one_by_one(db, jobs)

    def _begin_later(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> bool:
        """Wait for the lock; `False` once nobody waits any more."""

        def go_on() -> bool:
            jobs[:] = [job for job in jobs if job.wanted] + self.take(block=False)
            return bool(jobs)

        return patiently(lambda: db.execute("BEGIN IMMEDIATE"), go_on=go_on) is not None

    def _commit(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        erased: list[Erases] = []
        for job in jobs:
            before = db.total_changes
            try:
                job.result = job.call(db)
            except MemoryError as refusal:
                if db.total_changes != before:
                    raise
                job.failure = refusal
            if job.erases and db.total_changes != before:
                erased.append(job.erases)
        db.execute("COMMIT")
        if erased:
            self._erasure.note(whole="whole" in erased)

    def _one_by_one(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        _roll_back(db)
        for job in jobs:
            job.failure = None
            try:
                patiently(lambda: db.execute("BEGIN IMMEDIATE"))
                self._commit(db, [job])
            except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                self._give_up(db, [job], error)

    def _give_up(self, db: sqlite3.Connection, jobs: list[Job[Any]], error: Exception) -> None:
        fail(jobs, error)
        self.doubt(error)
        if not _roll_back(db):
            self.renew()

    def tidy(self, *, idle: bool, last: bool) -> None:
        """Do what is due for what was erased."""
        if self._erasure.owes and self.db is not None:
            self._erasure.settle(self.db, idle=idle, last=last)
            self.rest = self._erasure.rest


def _roll_back(db: sqlite3.Connection) -> bool:
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True
