"""Loading and recording, beside what they stand on: `python -m benchmarks.sessions [--only STORE …] [LENGTH …]`.

A load shows twenty messages of a conversation of 200, 2,000, 20,000 and 200,000; beside it stands `get_recent_messages`
of as many. A record adds a turn after a load; beside it stands `append_messages`. With jaf-py installed, a load by its
engine is measured, too. Shown are median microseconds, and the median of the ratios to what stands beside, by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.competitors import Place
from benchmarks.measurement import Case, Work, by_turns
from benchmarks.payload import messages, turn
from benchmarks.servers import STAGES
from jaf_memory_core import ManagedMemoryProvider, MemoryConfig, MemorySession

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # jaf-py's start would ask the internet

LENGTHS = (200, 2_000, 20_000, 200_000)
SHOWN = 20
ROUNDS, STEPS = 15, 20
BATCH = 5_000
READ, WRITE = "get_recent_messages", "append_messages"


def session(provider: ManagedMemoryProvider, **limits: Any) -> MemorySession:
    """A session that shows twenty messages."""
    ttl, threshold = limits.pop("ttl", None), limits.pop("compression_threshold", None)
    config = MemoryConfig(provider=provider, max_messages=SHOWN, ttl=ttl, compression_threshold=threshold)
    return MemorySession(config, conversation_id="c", user_id="u", **limits)


def loads(provider: ManagedMemoryProvider) -> dict[str, Work]:
    """What is read, by name."""
    made = {
        "load": session(provider),
        "load, anthropic": session(provider, view_format="anthropic"),
        "load, compressed": session(provider, compression_threshold=SHOWN),
    }
    works: dict[str, Work] = {name: _each(one.load) for name, one in made.items()}
    works["load, with a ttl"] = lambda _number: session(provider, ttl=86_400).load()
    works["a new session, and load"] = lambda _number: session(provider).load()
    return {READ: lambda _number: provider.get_recent_messages("c", SHOWN), **works}


def _each(call: Callable[[], Awaitable[object]]) -> Work:
    return lambda _number: call()


async def records(provider: ManagedMemoryProvider) -> dict[str, Work]:
    """What is written, by name."""
    one = session(provider)
    await one.load()

    async def append(_number: int) -> None:
        (await provider.append_messages("c", turn(), user_id="u")).unwrap()

    return {WRITE: append, "record": lambda _number: one.record(turn())}


def engines_load(provider: ManagedMemoryProvider) -> dict[str, Work]:
    """A load by jaf-py's engine through the bridge, where it is installed."""
    if importlib.util.find_spec("jaf") is None:
        return {}
    from jaf import RunConfig
    from jaf.core.engine import _load_conversation_history
    from jaf_memory_bridges.jaf import MemoryConfig as BridgeConfig
    from jaf_memory_bridges.jaf import RunState, jaf_provider

    memory = BridgeConfig(provider=jaf_provider(provider, "u"), max_messages=SHOWN)
    config = RunConfig(agent_registry={}, model_provider=None, memory=memory, conversation_id="c")

    async def load(_number: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # the engine prints
            await _load_conversation_history(RunState(), config)

    return {"load by JAF's engine": load}


async def measure(name: str, place: Place, length: int) -> list[str]:
    """The lines of one store and one length."""
    ours = import_module(f"benchmarks.backends.{name}").Ours(place)
    await ours.open()
    provider = ours.provider
    try:
        for start in range(0, length, BATCH):
            batch = messages(min(BATCH, length - start))
            (await provider.append_messages("c", batch, create=True, user_id="u")).unwrap()
        reading = Case("read", length, STEPS, {**loads(provider), **engines_load(provider)})
        writing = Case("write", length, STEPS, await records(provider))
        await by_turns([reading, writing], ROUNDS)
    finally:
        await ours.close()
    return [
        f"| {name} | {length:,} | {work} | {case.median(work) * 1e6:,.0f} | {median(case.ratios(work, beside)):.2f} |"
        for case, beside in ((reading, READ), (writing, WRITE))
        for work in case.works
    ]


def main() -> None:
    """Everything, on servers of its own."""
    parser = argparse.ArgumentParser(prog="sessions", description="Measure sessions beside the provider.")
    parser.add_argument("lengths", nargs="*", type=int, default=LENGTHS, help="messages of the conversation")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=tuple(STAGES), help="these stores")
    chosen = parser.parse_args()
    print("| store | messages | what | µs | ratio |\n|---|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="jaf-sessions-") as folder:
        for name in chosen.only:
            with STAGES[name](Path(folder), lambda _place: None) as stage:
                for length in chosen.lengths:
                    with stage.empty() as place:
                        print("\n".join(asyncio.run(measure(name, place, length))), flush=True)


if __name__ == "__main__":
    main()
