"""A store that older code has filled, upgraded under a writer: `python benchmarks/upgrade.py FOLDER [count] [kind …]`.

FOLDER holds the older code (`git archive 711d65b | tar -x -C FOLDER`); 100,000 conversations are made of each kind
unless said otherwise. Shown for each kind: how long a process of this code takes to open the store, and so to upgrade
it, and the most memory that it has used by then; whether all digests and times are what the older code told; and what
became of two writers, one of the older code that was under way, and one of this code that started at the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

STEP = 500
WRITERS = "writer"
START = datetime(2024, 1, 1, tzinfo=UTC)


# What runs under either code.


@contextlib.asynccontextmanager
async def opened(kind: str, place: str) -> AsyncIterator[Any]:
    """A provider on the store."""
    module = importlib.import_module(f"jaf_memory_{kind}")
    settings: dict[str, dict[str, Any]] = {
        "sqlite": {"path": place},
        "postgres": {"connection_string": place, "operation_timeout": 300},
        "redis": {"port": int(place) if kind == "redis" else 0},
    }
    config = getattr(module, {"sqlite": "SqliteConfig", "postgres": "PostgresConfig", "redis": "RedisConfig"}[kind])
    async with await getattr(module, f"create_{kind}_provider")(config(**settings[kind])) as provider:
        yield provider


async def told(provider: Any) -> str:
    """One digest of all ids, digests and times, but for those of the writers."""
    from jaf_memory_core import MemoryQuery, digest

    summary = hashlib.sha256()
    async for one in provider.iter_conversations(MemoryQuery()):
        if one.conversation_id.startswith(WRITERS):
            continue
        times = (one.created_at, one.updated_at, one.expires_at)
        # Older code knows of no activity; whatever it changed last is taken for it.
        assert getattr(one, "active_at", one.updated_at) == one.updated_at
        summary.update(f"{one.conversation_id} {digest(one)} {times}\n".encode())
    return summary.hexdigest()


async def fill(kind: str, place: str, count: int) -> str:
    """Make the conversations; what is told of them."""
    from jaf_memory_core import ConversationMemory, Message

    async with opened(kind, place) as provider:
        for start in range(0, count, STEP):
            await provider.import_conversations(
                [
                    ConversationMemory(
                        f"c{n}",
                        f"u{n % 1000}",
                        [
                            Message("user", f"question {n}", message_id="q"),
                            Message("assistant", "x" * 100, message_id="a"),
                        ],
                        {"title": f"talk {n}", "trace_id": f"t{n}"},
                        created_at=START + timedelta(seconds=n),
                    )
                    for n in range(start, min(start + STEP, count))
                ]
            )
        return await told(provider)


async def write(kind: str, place: str, name: str) -> dict[str, Any]:
    """Append until standard input ends, or the store refuses; what became of it."""
    from jaf_memory_core import Message

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    acknowledged, longest, refused = 0, 0.0, None
    began = time.perf_counter()
    try:
        async with opened(kind, place) as provider:
            while not ended.is_set():
                message = Message("user", "more", message_id=f"w{acknowledged}")
                result = await provider.append_messages(f"{WRITERS}-{name}", [message], create=True)
                if not hasattr(result, "data"):
                    refused = str(result.error)
                    break
                now = time.perf_counter()
                acknowledged, longest, began = acknowledged + 1, max(longest, now - began), now
                if acknowledged == 1:
                    print("writing", flush=True)
    except Exception as error:  # noqa: BLE001  (told, and judged by whoever reads the figures)
        refused = f"{type(error).__name__}: {error}"
    return {"acknowledged": acknowledged, "longest": longest, "refused": refused}


def _used() -> float:
    """Most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def upgrade(kind: str, place: str) -> dict[str, Any]:
    """Open the store; how long that took, and what is told of it then."""
    importlib.import_module(f"jaf_memory_{kind}")
    before, began = _used(), time.perf_counter()
    async with opened(kind, place) as provider:
        # A provider over a network is open only once it has answered.
        await provider.get_messages("c0", limit=1)
        seconds, used = time.perf_counter() - began, _used()
        return {"seconds": seconds, "before": before, "used": used, "told": await told(provider)}


async def held(kind: str, place: str, name: str) -> int:
    """How many messages of a writer's stand."""
    async with opened(kind, place) as provider:
        found = await provider.get_conversation(f"{WRITERS}-{name}")
        return 0 if found is None else len({message.message_id for message in found.messages})


# What runs them.


class Runs:
    """Runs a part of this file under one code or the other.

    Args:
        older: the folder of the older code.
        kind, place: of the store.
    """

    def __init__(self, older: Path, kind: str, place: str) -> None:
        self._older, self._kind, self._place = older, kind, place

    def start(self, role: str, *arguments: object, older: bool = False) -> subprocess.Popen[str]:
        """Start a part."""
        paths = [self._older, *(self._older / "plugins").iterdir()] if older else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [sys.executable, __file__, f"--{role}", self._kind, self._place, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    def run(self, role: str, *arguments: object, older: bool = False) -> Any:
        """Run a part to its end; what it tells."""
        return ended(self.start(role, *arguments, older=older))


def ended(process: subprocess.Popen[str]) -> Any:
    """What a part tells, once its input ends."""
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def measured(runs: Runs, kind: str, count: int) -> None:
    """Fill, upgrade, and show what came of it."""
    before = runs.run("fill", count, older=True)
    writers = {"older": runs.start("write", "older", older=True)}
    assert _line(writers["older"].stdout) == "writing\n"
    upgrading = runs.start("upgrade")
    writers["newer"] = runs.start("write", "newer")
    after = ended(upgrading)
    print(
        f"{kind}: {count:,} conversations open after {after['seconds']:.2f} s, with {after['used']:.0f} MB "
        f"({after['before']:.0f} before); digests and times equal: {after['told'] == before}"
    )
    for name, process in writers.items():
        found, stand = ended(process), runs.run("held", name)
        print(
            f"  the {name} writer: {found['acknowledged']:,} acknowledged, {stand:,} stand, "
            f"longest {found['longest']:.2f} s, refused: {found['refused']}"
        )


@contextlib.contextmanager
def store(kind: str, folder: str) -> Iterator[str]:
    """An empty store of its own; where it is."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from services import postgres_servers, redis_servers

    if kind == "sqlite":
        yield f"{folder}/conversations.db"
    elif kind == "redis":
        with redis_servers.single() as server:
            yield str(server.port)
    else:
        with postgres_servers.serving(postgres_servers.machine()) as server:
            yield server.url()


PARTS = {
    "--fill": lambda kind, place, count: fill(kind, place, int(count)),
    "--write": write,
    "--upgrade": upgrade,
    "--held": held,
}


def main(older: str, count: str = "100000", *kinds: str) -> None:
    """Everything, on stores of its own."""
    for kind in kinds or ("sqlite", "postgres", "redis"):
        with tempfile.TemporaryDirectory() as folder, store(kind, folder) as place:
            measured(Runs(Path(older), kind, place), kind, int(count))


if __name__ == "__main__":
    if sys.argv[1] in PARTS:
        print(json.dumps(asyncio.run(PARTS[sys.argv[1]](*sys.argv[2:]))))
    else:
        main(*sys.argv[1:])
