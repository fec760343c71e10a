"""An outage of a server, as whoever runs the service sees it: in the log, in metrics, and in a terminal beside it.

With JAF_TEST_TRANSCRIPT=1 what was seen is written into docs/operations.md.
"""

import asyncio
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jaf_memory_otel import Telemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from services import postgres_servers, redis_servers

from jaf_memory_core import MemoryConnectionError, Message, create_memory_provider_from_env

CANARY = "CANARY-51c7"

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


class Redis:
    """A server that can be lost, and started again."""

    def __init__(self, server):
        self._server = server
        self.settings = {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_URL": f"redis://127.0.0.1:{server.port}/0"}

    def lose(self):
        """Kill it."""
        self._server.kill()

    def start(self):
        """Start it again."""
        self._server.start()


class Postgres(Redis):
    """The same of PostgreSQL."""

    def __init__(self, server):
        self._server = server
        self.settings = {"JAF_MEMORY_TYPE": "postgres", "JAF_POSTGRES_CONNECTION_STRING": server.url()}


@pytest.fixture(params=["redis", "postgres"])
def server(request):
    """A server of each kind, which this test alone uses."""
    if request.param == "redis":
        with redis_servers.single({"appendonly": "yes", "appendfsync": "no"}) as started:
            yield Redis(started)
    else:
        with postgres_servers.serving(postgres_servers.machine()) as started:
            yield Postgres(started)


class Terminal:
    """`jaf-memory doctor --watch` in a terminal beside the service."""

    def __init__(self, settings):
        command = [sys.executable, "-m", "jaf_memory_cli", "doctor", "--watch", "0.2"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
        self._process = subprocess.Popen(command, env=settings, **pipes)
        self.seen = []

    def wait_for(self, pattern):
        """Read on until a line matches."""
        for line in self._process.stdout:
            self.seen.append(line)
            if re.search(pattern, line):
                return
        raise AssertionError("".join(self.seen))

    def end(self):
        """Ctrl-C."""
        self._process.send_signal(2)
        self.seen += self._process.communicate(timeout=60)[0].splitlines(keepends=True)
        return self._process.returncode


async def through_an_outage(server, observers, while_lost, once_back):
    """Write, lose the server, fail to write, have it back, write."""
    provider = await create_memory_provider_from_env(
        {**server.settings, f"JAF_{server.settings['JAF_MEMORY_TYPE'].upper()}_RECONNECT_TIMEOUT": "0.2"},
        observers=observers,
    )
    async with provider:
        (await provider.append_messages(CANARY, [Message(role="user", content=CANARY)], create=True)).unwrap()
        await asyncio.to_thread(server.lose)
        for _ in range(3):
            with pytest.raises(MemoryConnectionError):
                await provider.get_recent_messages(CANARY)
        await asyncio.to_thread(while_lost)
        await asyncio.to_thread(server.start)
        for _ in range(100):
            try:
                assert len(await provider.get_recent_messages(CANARY)) == 1
                break
            except MemoryConnectionError:  # it is still starting
                continue
        await asyncio.to_thread(once_back)


def transcript(terminal, records, metrics):
    """What was seen, in the order in which one looks: terminal, log, metrics."""
    looks = [line.rstrip() for line in terminal]
    well = next(line for line in looks if "✓ healthy" in line)
    lost = next(index for index, line in enumerate(looks) if "not healthy" in line)
    back = next(index for index, line in enumerate(looks) if index > lost and "✓ healthy" in line)
    lines = ["$ jaf-memory doctor --watch 0.2", looks[0], well, *looks[lost : lost + 2], looks[back]]
    lines += ["", "# log"]
    lines += [f"{one.levelname:7} {one.getMessage()}" for one in records if "memory provider" in one.getMessage()]
    lines += ["", "# metrics"]
    for metric in (one for found in metrics.resource_metrics for scope in found.scope_metrics for one in scope.metrics):
        for point in metric.data.data_points:
            told = dict(point.attributes)
            reading = told.get("db.operation.name") == "get_recent_messages"
            if reading and metric.name in ("db.client.operation.duration", "jaf.memory.operation.retries"):
                value = f"count {point.count}" if hasattr(point, "count") else f"{point.value}"
                error = f', error.type="{told["error.type"]}"' if "error.type" in told else ""
                lines.append(f'{metric.name}{{db.system.name="{told["db.system.name"]}"{error}}} {value}')
    return "\n".join(lines) + "\n"


def block(name):
    """Where the page has a transcript."""
    return re.compile(rf"(<!-- outage: {name} -->\n\n```text\n)(.*?)(```\n)", re.DOTALL)


def shape(text):
    """A transcript without what differs each time."""
    text = re.sub(r"(?m)^( +✗) .*$", r"\1 the reason", text)
    text = re.sub(r"(?m)(✓ healthy  \d+\.\d ms)  .*$", r"\1", text)
    text = re.sub(r"(the store is lost:) .*", r"\1 the reason", text)
    return re.sub(r"\d+(?:[.:]\d+)*", "N", text).replace("operations", "operation").replace("connections", "connection")


def test_an_outage_is_seen(server, caplog):
    """Lost and back are a line each in the log, failures in what observers are told, and seen by `doctor --watch`."""
    caplog.set_level(logging.INFO, "jaf_memory_core")
    events, reader = [], InMemoryMetricReader()
    meters = MeterProvider([reader])
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    terminal = Terminal({**kept, **server.settings, "COLUMNS": "200"})
    terminal.wait_for(r"^\d\d:\d\d:\d\d ✓ healthy +\d+\.\d ms")
    asyncio.run(
        through_an_outage(
            server,
            [events.append, Telemetry(meter_provider=meters)],
            lambda: terminal.wait_for(r"^\d\d:\d\d:\d\d ✗ not healthy"),
            lambda: terminal.wait_for(r"^\d\d:\d\d:\d\d ✓ healthy +\d+\.\d ms"),
        )
    )
    assert terminal.end() == 130
    lines = [record.getMessage() for record in caplog.records if "memory provider" in record.getMessage()]
    name = server.settings["JAF_MEMORY_TYPE"]
    started, lost, back = lines
    assert started.startswith(f"memory provider {name} is open: jaf-memory-{name} ")
    assert lost.startswith(f"memory provider {name}: the store is lost: ")
    assert re.search(r"the store is back after \d+\.\d s, in which it was missing to \d+ operations$", back)
    failed = [event for event in events if event.error]
    assert {(event.operation, event.error) for event in failed} == {("get_recent_messages", "MemoryConnectionError")}
    assert len(failed) >= 3
    assert CANARY not in caplog.text + repr(events) + "".join(terminal.seen)
    seen = transcript(terminal.seen, caplog.records, reader.get_metrics_data())
    meters.shutdown()
    assert CANARY not in seen
    if os.environ.get("JAF_TEST_TRANSCRIPT"):
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(block(name).sub(lambda found: found[1] + seen + found[3], page), encoding="utf-8")
    # Times, ports and counts are others each time.
    assert shape(block(name).search(PAGE.read_text(encoding="utf-8"))[2]) == shape(seen)
