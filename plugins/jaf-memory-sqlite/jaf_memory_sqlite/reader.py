"""`Reader`: a worker that reads."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

from jaf_memory_sqlite.jobs import Job
from jaf_memory_sqlite.waiting import patiently
from jaf_memory_sqlite.worker import Worker

LOOK = 20_000
"""Steps of SQLite's machine after which it looks whether anybody still waits: about a millisecond."""


class Reader(Worker):
    """Reads, each in a snapshot of its own; a writer never keeps it waiting."""

    def carry_out(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Do one after the other, each answered at once; stops reading when nobody waits any more."""
        for job in jobs:
            db.set_progress_handler(partial(_cancelled, job), LOOK)
            try:
                job.result = patiently(partial(job.call, db), go_on=partial(_wanted, job)) if job.wanted else None
            except Exception as error:  # noqa: BLE001  (whoever waits gets it as it is)
                job.failure = error
                self.doubt(error)
            self.answer([job])
        db.set_progress_handler(None, LOOK)
        jobs.clear()


def _cancelled(job: Job[Any]) -> bool:
    return not job.wanted


def _wanted(job: Job[Any]) -> bool:
    return job.wanted
