"""Appends while PostgreSQL is killed: `python benchmarks/postgres_faults.py [rounds]`, twenty unless said otherwise.

Eight writers append two messages at a time. Shown for each kind of trouble: what was acknowledged, what of it is lost,
doubled or out of order in the end, and the longest pause.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import postgres_faults as faults
from services import postgres_servers as servers


def show(what: str, outcome: faults.Outcome) -> bool:
    """Print one outcome; whether it is flawless."""
    print(
        f"{what:<36}{outcome.acknowledged:>8} acknowledged  lost {outcome.lost}  doubled {outcome.doubled}  "
        f"out of order {outcome.disordered}  without answer {outcome.unanswered}  longest pause {outcome.gap:.2f} s"
    )
    return outcome.lost == outcome.doubled == outcome.disordered == 0


def main(rounds: int) -> bool:
    """Everything, on servers of its own."""
    good = []
    with servers.serving(servers.machine()) as server:
        failed = sum(faults.started_at_once(server, f"s{number}", 8) for number in range(8))
        print(f"eight times eight processes start at once: {failed} failed")
        good.append(failed == 0)
        print(server.sql("SELECT version()").split(" on ")[0])
        good.append(show(f"backend killed {rounds} times", asyncio.run(faults.killed_backends(server, "a", rounds))))
        good.append(show(f"server killed {rounds} times", asyncio.run(faults.killed_server(server, "b", rounds))))
    for what, scenario in (
        ("primary killed, standby promoted", faults.promoted),
        ("primary made read-only", faults.demoted),
    ):
        with servers.serving(servers.machine()) as primary, servers.standby_of(primary) as standby:
            good.append(show(what, asyncio.run(scenario(primary, standby, "c"))))
    return all(good)


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
