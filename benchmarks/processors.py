"""Who runs where: a server has processors of its own, as it has on a machine of its own.

Left to itself the system may wake one connection's process on the client's own processor, and another's on the next.
The first answers a short read in half the time, for as long as it lasts, and a ratio of the two would be of luck.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SERVED = frozenset({"redis", "postgres"})
"""Backends that have a server."""

HAVE_PROC = os.path.exists("/proc/self/schedstat")  # noqa: PTH110
"""Whether the system tells how long processes have worked."""


def parent_of(process: int) -> int:
    """The process that has started another."""
    return int(Path(f"/proc/{process}/status").read_text(encoding="utf-8").partition("PPid:")[2].split()[0])


def worked(process: int | None) -> float:
    """Seconds that a process and its children have worked; they stay while this is measured."""
    if process is None:
        return 0.0
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return sum(int(Path(f"/proc/{one}/schedstat").read_text().split()[0]) for one in (process, *children)) / 1e9


if sys.platform == "linux":
    _ALL = sorted(os.sched_getaffinity(0))
    _HALF = len(_ALL) // 2

    def are_apart() -> bool:
        """Whether there are enough for both."""
        return _HALF > 0

    def keep_for_servers() -> None:
        """Leave the first half to clients; what this process starts from now on inherits that."""
        os.sched_setaffinity(0, _ALL[_HALF:])

    def of_client(backend: str) -> list[int]:
        """Those that a client of a backend has."""
        return _ALL[:_HALF] if backend in SERVED and are_apart() else _ALL

    def take(processors: list[int]) -> None:
        """Run on these."""
        os.sched_setaffinity(0, processors)

else:

    def are_apart() -> bool:
        """Whether there are enough for both."""
        return False

    def keep_for_servers() -> None:
        """Leave it to the system."""

    def of_client(backend: str) -> list[int]:  # noqa: ARG001  (as above)
        """Those that a client of a backend has: it cannot be said."""
        return []

    def take(processors: list[int]) -> None:
        """Leave it to the system."""
