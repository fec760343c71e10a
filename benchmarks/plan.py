"""What a run does, and the orders that it gives to its workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.comparisons import Effort
from benchmarks.payload import MANY_TASKS, TASKS
from benchmarks.processors import SERVED
from benchmarks.servers import STAGES

SECTIONS = ("beside", "latency", "bulk", "peers", "costs", "resident")
LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        backends: which stores.
        sections: which parts.
        loops: which event loops.
        processes: fresh processes that each figure is the median of.
        rounds, task_rounds, peer_rounds: rounds in a process, of single operations, many tasks, and peers.
        tasks: numbers of tasks.
        crowds: numbers of very many.
        conversations: in the store that is searched and read.
        appends: of which PostgreSQL's write-ahead log is measured.
        bulk: conversations that are imported and exported.
        operations: of the proof that a process does not grow, on stores with a server or a file.
        operations_in_memory: the same for the provider in memory.
        folder: where files are made, for a certain disk.
    """

    backends: tuple[str, ...] = tuple(STAGES)
    sections: tuple[str, ...] = SECTIONS
    loops: tuple[str, ...] = LOOPS
    processes: int = 5
    rounds: int = 15
    task_rounds: int = 5
    peer_rounds: int = 8
    tasks: tuple[int, ...] = TASKS
    crowds: tuple[int, ...] = (128, 1_000)
    conversations: int = 100_000
    appends: int = 1_000
    bulk: int = 10_000
    operations: int = 100_000
    operations_in_memory: int = 1_000_000
    folder: str | None = None

    def quick(self) -> Plan:
        """The same in seconds: whether it runs, not how fast things are."""
        return replace(
            self,
            processes=1,
            rounds=2,
            task_rounds=1,
            peer_rounds=1,
            conversations=1_000,
            tasks=(1, MANY_TASKS),
            crowds=(128,),
            bulk=100,
            operations=2_000,
            operations_in_memory=20_000,
        )


@dataclass(frozen=True)
class Job:
    """An order for a worker, and the place that it needs: a filled store, an empty one, or none."""

    order: dict[str, Any]
    place: str = "empty"

    def __str__(self) -> str:
        words = (self.order.get("what") or self.order.get("how") or self.order.get("proof"), self.order["loop"])
        return " ".join(filter(None, (self.order["kind"], self.order["backend"], *words)))


def jobs(plan: Plan) -> Iterator[Job]:
    """All work. A second process of a kind comes after the first of every other: a bad minute hits them alike."""
    for _ in range(plan.processes):
        for backend in plan.backends:
            yield from _compared(plan, backend)
    if "latency" in plan.sections:
        for backend in sorted(SERVED.intersection(plan.backends)):
            order = {"kind": "latency", "backend": backend, "loop": "asyncio", "how": "lines"}
            yield Job({**order, "rounds": max(2, plan.task_rounds)})
    if "costs" in plan.sections:
        yield from _costs(plan)
    if "resident" in plan.sections:
        yield from _proofs(plan)


def _compared(plan: Plan, backend: str) -> Iterator[Job]:
    effort = Effort(plan.rounds, plan.task_rounds, plan.tasks)
    efforts = {"asyncio": effort, "uvloop": replace(effort, tasks=(1, MANY_TASKS), newest=False)}
    order = {"backend": backend, "loop": "asyncio"}
    if "beside" in plan.sections:
        for loop in plan.loops:
            much = {"effort": asdict(efforts[loop]), "conversations": plan.conversations}
            yield Job({**order, "kind": "beside", "loop": loop, **much}, "filled")
    if "latency" in plan.sections:
        rounds = {"rounds": min(3, plan.rounds), "crowds": plan.crowds}
        for loop in plan.loops:
            yield Job({**order, "kind": "latency", "how": "loopback", "loop": loop, **rounds})
    if "bulk" in plan.sections:
        yield Job({**order, "kind": "bulk", "conversations": plan.bulk})
    if "peers" in plan.sections:
        yield Job({**order, "kind": "peers", "rounds": plan.peer_rounds, "patience": 120})


def _costs(plan: Plan) -> Iterator[Job]:
    order = {"kind": "costs", "loop": "asyncio", "rounds": plan.rounds}
    yield Job({**order, "backend": "", "what": "core"}, "")
    if "redis" in plan.backends:
        yield Job({**order, "backend": "redis", "what": "redis", "appends": plan.appends})
    if "postgres" in plan.backends:
        yield Job({**order, "backend": "postgres", "what": "postgres", "appends": plan.appends}, "filled")


def _proofs(plan: Plan) -> Iterator[Job]:
    for backend in plan.backends:
        order = {"kind": "resident", "backend": backend, "loop": "asyncio"}
        for how in ("iterate", "export"):
            yield Job({**order, "proof": "reading", "how": how, "conversations": plan.conversations}, "filled")
        operations = plan.operations_in_memory if backend == "memory" else plan.operations
        yield Job({**order, "proof": "serving", "operations": operations})
