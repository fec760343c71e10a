"""What the core costs without any store: making a message, decoding a thousand, and `import jaf_memory_core`."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from benchmarks.figures import Figure
from benchmarks.measurement import Case, Work, by_turns
from benchmarks.payload import WHOLE, text
from jaf_memory_core import Message, codec
from jaf_memory_core.messages import new_message_id

TIMES = 1_000
"""Messages made in one step."""

MAKING, DECODING = "make a message", "decode 1,000 messages"
FLOOR = "import pydantic_settings"
IMPORTING, OPENING = f"import jaf_memory_core ÷ {FLOOR}", f"from nothing to an open provider on SQLite ÷ {FLOOR}"

IMPORT = """
import time
started = time.perf_counter()
import {}
print(time.perf_counter() - started)
"""

OPEN = """
import time
started = time.perf_counter()
import asyncio
from jaf_memory_core import create_memory_provider_from_env

async def main():
    provider = await create_memory_provider_from_env()
    print(time.perf_counter() - started)
    await provider.close()

asyncio.run(main())
"""

STARTS = {FLOOR: IMPORT.format("pydantic_settings"), IMPORTING: IMPORT.format("jaf_memory_core"), OPENING: OPEN}
"""Programs that tell their seconds; the first is what the others are compared with."""


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


def making() -> Case:
    """How long it takes to make messages."""
    content = text()
    kinds: dict[str, Callable[..., object]] = {
        "": Message,
        "as a frozen pydantic model": PydanticMessage,
        "as a msgspec struct that checks nothing": UncheckedMessage,
    }

    def step(kind: Callable[..., object]) -> Work:
        async def work(_number: int) -> None:
            for _ in range(TIMES):
                kind(role="user", content=content)

        return work

    return Case(MAKING, None, 3, {name: step(kind) for name, kind in kinds.items()})


def decoding() -> Case:
    """How long it takes to decode the stored messages of a conversation."""
    bodies = [codec.encode(Message(role="user", content=text())) for _ in range(WHOLE)]
    whole = b"[" + b",".join(bodies) + b"]"
    models = TypeAdapter(list[PydanticMessage])
    calls: dict[str, Callable[[], object]] = {
        "": lambda: codec.decode_messages(bodies),
        "into frozen pydantic models": lambda: models.validate_json(whole),
        "into ours, by the standard library's json": lambda: [Message.trusted(**one) for one in json.loads(whole)],
        "into plain dicts, by the standard library's json": lambda: json.loads(whole),
    }

    def step(call: Callable[[], object]) -> Work:
        async def work(_number: int) -> None:
            call()

        return work

    return Case(DECODING, None, 3, {name: step(call) for name, call in calls.items()})


async def starting(times: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of new processes, by turns, without what the interpreter takes to start."""
    environment = {**os.environ, "JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(folder / "memory.db")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled
    found: dict[str, list[float]] = {what: [] for what in STARTS}
    for _ in range(times + 1):
        for what, program in STARTS.items():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
            )
            told, _ = await process.communicate()
            found[what].append(float(told))
    return {what: seconds[1:] for what, seconds in found.items()}  # the first reads files from the disk


async def measure(order: dict[str, Any]) -> list[Figure]:
    """All of it."""
    cases = [making(), decoding()]
    await by_turns(cases, order["rounds"])
    units = {MAKING: ("µs", 1e6 / TIMES), DECODING: ("ms", 1e3)}
    figures = [
        Figure(
            "costs", "", case.what, None, name, unit=units[case.what][0], value=case.median(name) * units[case.what][1]
        )
        for case in cases
        for name in case.works
    ]
    with TemporaryDirectory() as folder:
        found = await starting(order["rounds"], Path(folder))
    floor = found.pop(FLOOR)
    return [*figures, *(_start(what, seconds, floor) for what, seconds in found.items())]


def _start(what: str, seconds: list[float], floor: list[float]) -> Figure:
    value = statistics.median(one / least for one, least in zip(seconds, floor, strict=True))
    return Figure("costs", "", what, value=value, ours=statistics.median(seconds), theirs=statistics.median(floor))
