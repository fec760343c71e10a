"""What the core costs: creating and decoding messages, writing to and reading from long conversations, importing.

    python3 dev.py bench                    set up and measure
    python3 dev.py bench -- --json          the figures as JSON

Things that are compared are measured by turns within one run, and medians are shown: between runs a machine may be
twice as slow, between turns it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from jaf_memory_core import ManagedMemoryProvider, Message, codec, create_memory_provider_from_env
from jaf_memory_core.messages import new_message_id

CONTENT = "A message of three hundred bytes: ".ljust(224, ".")
MESSAGES = 1_000
SHORT, LONG = 100, 10_000


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        what: what was measured.
        value: the median.
        unit: of the value.
        target: what it should stay below (or at), or `None` for a thing that is shown beside, to compare with.
    """

    what: str
    value: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        shown = f"{self.what:<58}{self.value:>9.3g} {self.unit:<3}"
        if self.target is None:
            return shown.rstrip()
        return f"{shown} {'within' if self.value <= self.target else 'ABOVE'} {self.target:g}"


class PydanticMessage(BaseModel):
    """What a message would be if pydantic did all of it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    attachments: list[dict[str, Any]] | None = None
    message_id: str = Field(default_factory=new_message_id)


class UncheckedMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message would be if nobody checked what a constructor is given."""

    role: str
    content: str | None = None
    message_id: str = msgspec.field(default_factory=new_message_id)


def by_turns(calls: Mapping[str, Callable[[], object]], turns: int, times: int = 1) -> dict[str, float]:
    """Time calls by turns.

    Args:
        calls: what to call, by name.
        turns: how many turns; the median of them counts.
        times: how often each is called in its turn.

    Returns:
        seconds of one call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for name, call in calls.items():
                started = time.perf_counter()
                for _ in range(times):
                    call()
                seconds[name].append((time.perf_counter() - started) / times)
    finally:
        gc.enable()
    return {name: statistics.median(found) for name, found in seconds.items()}


def creating(turns: int) -> Iterable[Figure]:
    """How long it takes to create a message."""
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: Message(role="user", content=CONTENT),
        "pydantic": lambda: PydanticMessage(role="user", content=CONTENT),
        "unchecked": lambda: UncheckedMessage(role="user", content=CONTENT),
    }
    seconds = by_turns(calls, turns, times=1_000)
    yield Figure("create a message", seconds["ours"] * 1e6, "µs", 3)
    yield Figure("  as a frozen pydantic model", seconds["pydantic"] * 1e6, "µs")
    yield Figure("  as a msgspec struct that checks nothing", seconds["unchecked"] * 1e6, "µs")


def decoding(turns: int) -> Iterable[Figure]:
    """How long it takes to decode the stored messages of a conversation."""
    bodies = [codec.encode(Message(role="user", content=CONTENT)) for _ in range(MESSAGES)]
    whole = b"[" + b",".join(bodies) + b"]"
    models = TypeAdapter(list[PydanticMessage])
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: codec.decode_messages(bodies),
        "pydantic": lambda: models.validate_json(whole),
        "json": lambda: [Message.trusted(**fields) for fields in json.loads(whole)],
        "dicts": lambda: json.loads(whole),
    }
    seconds = by_turns(calls, turns)
    size = round(statistics.mean(map(len, bodies)))
    yield Figure(f"decode {MESSAGES:,} messages of {size} bytes", seconds["ours"] * 1e3, "ms", 1)
    yield Figure("  into frozen pydantic models", seconds["pydantic"] * 1e3, "ms")
    yield Figure("  into ours, by the standard library's json", seconds["json"] * 1e3, "ms")
    yield Figure("  into plain dicts, by the standard library's json", seconds["dicts"] * 1e3, "ms")


async def at_length(name: str, provider: ManagedMemoryProvider, turns: int) -> Iterable[Figure]:
    """How an append, and a read of 20 recent messages, depend on the length of the conversation."""
    copies = 10  # so that the short ones stay short while they are appended to
    for length in (SHORT, LONG):
        for copy in range(copies):
            messages = [Message(role="user", content=CONTENT) for _ in range(length)]
            await provider.store_messages(f"{length}:{copy}", messages)
    append: dict[int, list[float]] = {SHORT: [], LONG: []}
    recent: dict[int, list[float]] = {SHORT: [], LONG: []}
    for turn in range(turns):
        for length in (SHORT, LONG) if turn % 2 else (LONG, SHORT):
            key = f"{length}:{turn % copies}"
            pair = [Message(role="user", content=CONTENT), Message(role="assistant", content=CONTENT)]
            append[length].append(await timed(provider.append_messages(key, pair)))
            recent[length].append(await timed(provider.get_recent_messages(key, limit=20)))
    return [
        *compared(f"{name}: append 2 messages", append),
        *compared(f"{name}: read 20 recent messages", recent),
    ]


async def timed(operation: Awaitable[object]) -> float:
    """Seconds that an operation takes."""
    started = time.perf_counter()
    await operation
    return time.perf_counter() - started


def compared(what: str, seconds: Mapping[int, list[float]]) -> Iterable[Figure]:
    """Both medians, and their ratio."""
    short, long = (statistics.median(seconds[length]) for length in (SHORT, LONG))
    yield Figure(f"{what}, at {SHORT:,}", short * 1e6, "µs")
    yield Figure(f"{what}, at {LONG:,}", long * 1e6, "µs")
    yield Figure("  ratio", long / short, "", 1.2)


async def stores(turns: int) -> list[Figure]:
    """The two embedded stores, one after the other."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in {
            "memory": {"JAF_MEMORY_MAX_MESSAGES": "none"},
            "sqlite": {"JAF_SQLITE_PATH": str(Path(folder, "conversations.db"))},
        }.items():
            provider = await create_memory_provider_from_env({"JAF_MEMORY_TYPE": name, **settings})
            try:
                figures += await at_length(name, provider, turns)
            finally:
                await provider.close()
    return figures


def importing(turns: int) -> Iterable[Figure]:
    """How long a new process needs for `import jaf_memory_core`, as `-X importtime` tells."""
    milliseconds = []
    for _ in range(turns):
        command = [sys.executable, "-X", "importtime", "-c", "import jaf_memory_core"]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        (microseconds,) = re.findall(r"\|\s*(\d+) \| jaf_memory_core$", report, re.MULTILINE)
        milliseconds.append(int(microseconds) / 1e3)
    yield Figure("import jaf_memory_core", statistics.median(milliseconds), "ms", 150)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--turns", type=int, default=200, help="turns of each comparison (default: 200)")
    options = parser.parse_args()
    machine = {
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }
    figures = [
        *creating(options.turns),
        *decoding(options.turns),
        *asyncio.run(stores(options.turns)),
        *importing(max(3, options.turns // 20)),
    ]
    if options.json:
        print(json.dumps({"machine": machine, "figures": [asdict(figure) for figure in figures]}, indent=2))
        return
    print(", ".join(f"{name} {text}" for name, text in machine.items()))
    print(*figures, sep="\n")


if __name__ == "__main__":
    main()
