"""Whether the disk is quick enough for work in the thread of whoever asks, where an event loop waits for it."""

from __future__ import annotations

import time
from collections import deque

SLOW = 0.01
"""Seconds that something in a caller's thread may take: an event loop stands still meanwhile."""

OFTEN = 2
"""So many slow ones, one after the other, are the disk's doing; a single one may be a busy computer's."""

PAUSE = 1.0
"""Seconds for which all reads go to a worker's thread then."""

QUICK, EACH = 0.0005, 0.00003
"""Seconds of a quick commit, and of each job in it: a hand-over to a thread and back would take about as long."""

RECENT = 20
"""The quickest of so many commits tells how quick the disk is; what others took longer is a busy computer's doing."""


class Pace:
    """Learns from how long reads took. Any thread may ask and tell."""

    def __init__(self) -> None:
        self._from = 0.0
        self._slow = 0

    def allows(self) -> bool:
        """Whether the next read may be done in the caller's thread."""
        if self._from:
            if time.monotonic() < self._from:
                return False
            self._from = 0.0
        return True

    def learn(self, seconds: float) -> None:
        """Take notice of how long a read in a caller's thread took."""
        if seconds < SLOW:
            self._slow = 0
            return
        self._slow += 1
        if self._slow == OFTEN:
            self._slow = 0
            self._from = time.monotonic() + PAUSE


class CommitPace:
    """Learns from how long commits took, in whichever thread: a quick disk has to be seen first."""

    def __init__(self) -> None:
        self._recent = deque([SLOW], RECENT)
        self._slow = 0

    def allows(self) -> bool:
        """Whether the next commit may be made in the caller's thread."""
        return min(self._recent) < QUICK

    def learn(self, seconds: float, jobs: int) -> None:
        """Take notice of how long a commit of so many jobs took."""
        seconds -= EACH * jobs
        self._slow = self._slow + 1 if seconds >= SLOW else 0
        if self._slow == OFTEN:
            self._recent.clear()
        self._recent.append(seconds)
