"""Bridges beside their engines' own stores: `python -m benchmarks.engines [--only ENGINE …]`.

Each engine adds a turn of two messages, and reads the last 20 and all of a conversation that begins with 100 of them,
through its own class and through ours, by turns in one process, in the same database. Shown are median microseconds,
and the median of the ratios. An engine that cannot read the end of a conversation has no such figure.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.competitors import Competitor, Place
from benchmarks.measurement import Case, by_turns
from benchmarks.servers import STAGES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

LENGTH, SHOWN = 100, 20
ROUNDS, STEPS = 15, 10
OWN, BRIDGE = "own", "bridge"
STATES: Mapping[str, dict[str, Any]] = {
    "an event, session state": {"k": 1},
    "an event, state of all three": {"k": 1, "user:k": 1, "app:k": 1},
}


def bridge_of(engine: str, store: str, place: Place) -> Competitor:
    """The engine's class of ours, on a store, with the operations of its peer's."""
    ours: Any = import_module(f"benchmarks.backends.{store}").Ours(place)
    base: Any
    if engine == "OpenAI Agents SDK":
        from jaf_memory_bridges.openai_agents import JafMemorySession

        base = import_module("benchmarks.peers.openai_agents").Sessions

        made = {"session": lambda _self, key: JafMemorySession(key, ours.provider)}
    elif engine == "LangChain":
        from jaf_memory_bridges.langchain import JafMemoryChatMessageHistory

        base = import_module("benchmarks.peers.langchain").Postgres

        made = {"history": lambda _self, key: JafMemoryChatMessageHistory(key, ours.provider)}
    elif engine == "Google ADK":
        base, made = import_module("benchmarks.peers.adk").Postgres, {}
    else:
        base, made = import_module("benchmarks.peers.pydantic_ai").InMemory, {}

    async def opened(self: Any) -> None:
        await ours.open()
        if engine == "Google ADK":
            from jaf_memory_bridges.adk import JafMemorySessionService

            self.service, self.sessions = JafMemorySessionService(ours.provider), {}
        if engine == "Pydantic AI":
            from jaf_memory_bridges.pydantic_ai import JafMemoryConversationStore

            self.store = JafMemoryConversationStore(ours.provider)

    async def closed(_self: Any) -> None:
        await ours.close()

    bridge: Competitor = type("Bridge", (base,), {**made, "open": opened, "close": closed})(place)
    return bridge


def _adk_file(place: Place) -> Competitor:
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    from benchmarks.peers.adk import Postgres

    class Sqlite(Postgres):
        """ADK's service on a file."""

        async def open(self) -> None:
            self.service = SqliteSessionService(str(Path(self.place["folder"], "adk.db")))
            self.sessions: dict[str, Any] = {}

        async def close(self) -> None:
            """Each operation has its own connection."""

    return Sqlite(place)


def peer(module: str, kind: str) -> Callable[[Place], Competitor]:
    """One of the peers of the other benchmark."""

    def made(place: Place) -> Competitor:
        one: Competitor = getattr(import_module(f"benchmarks.peers.{module}"), kind)(place)
        return one

    return made


ENGINES: Mapping[str, Mapping[str, Callable[[Place], Competitor]]] = {
    "OpenAI Agents SDK": {
        "sqlite": peer("openai_agents", "Sqlite"),
        "redis": peer("openai_agents", "Redis"),
        "postgres": peer("openai_agents", "Postgres"),
    },
    "LangChain": {"postgres": peer("langchain", "Postgres")},
    "Google ADK": {"sqlite": _adk_file, "postgres": peer("adk", "Postgres")},
    "Pydantic AI": {"memory": peer("pydantic_ai", "InMemory")},
}
"""Each engine's own stores, where it has one."""


async def measure(engine: str, store: str, place: Place) -> list[str]:
    """The lines of one engine on one store."""
    both = {OWN: ENGINES[engine][store](place), BRIDGE: bridge_of(engine, store, place)}
    cases = []
    try:
        for one in both.values():
            await one.open()
            for key in ("read", "write"):
                await one.fill(key, LENGTH)
        for what, operation, given in (
            ("append a turn", "append", ("write",)),
            (f"the last {SHOWN}", "recent", ("read", SHOWN)),
            (f"all {LENGTH}", "load", ("read",)),
        ):
            calls = {name: getattr(one, operation) for name, one in both.items()}
            if all(calls.values()):
                works = {name: _each(call, given) for name, call in calls.items()}
                cases.append(Case(what, LENGTH, STEPS, works))
        if engine == "Google ADK":
            for what, delta in STATES.items():
                works = {name: _each(_event, (one, delta)) for name, one in both.items()}
                cases.append(Case(what, LENGTH, STEPS, works))
        await by_turns(cases, ROUNDS)
    finally:
        for one in both.values():
            await one.close()
    return [
        f"| {engine} | {store} | {case.what} | {case.median(OWN) * 1e6:,.0f} | {case.median(BRIDGE) * 1e6:,.0f} | "
        f"{median(case.ratios(BRIDGE, OWN)):.2f} |"
        for case in cases
    ]


async def _event(one: Any, delta: dict[str, Any]) -> None:
    from google.adk.events import Event, EventActions

    event = Event(author="user", actions=EventActions(state_delta=delta))
    await one.service.append_event(one.sessions["write"], event)


def _each(call: Any, given: tuple[Any, ...]) -> Any:
    return lambda _number: call(*given)


def main() -> None:
    """Everything, on servers of its own."""
    parser = argparse.ArgumentParser(prog="engines", description="Measure bridges beside their engines' own stores.")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=tuple(ENGINES), help="these engines")
    chosen = parser.parse_args().only
    print("| engine | store | what | its own, µs | bridge, µs | ratio |\n|---|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="jaf-engines-") as folder:
        for store, kind in STAGES.items():
            engines = [engine for engine in chosen if store in ENGINES[engine]]
            if not engines:
                continue
            with kind(Path(folder), lambda _place: None) as stage:
                for engine in engines:
                    with stage.empty() as place:
                        print("\n".join(asyncio.run(measure(engine, store, place))), flush=True)


if __name__ == "__main__":
    main()
