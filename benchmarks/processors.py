"""Who runs where: a server has processors of its own, as it has on a machine of its own.

Left to itself the system may wake one connection's process on the client's own processor, and another's on the next.
The first answers a short read in half the time, for as long as it lasts, and a ratio of the two would be of luck.
"""

from __future__ import annotations

import os
import sys

SERVED = frozenset({"redis", "postgres"})
"""Backends that have a server."""

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
