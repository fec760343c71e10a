"""The parent: it starts servers, lets one worker after the other measure, and puts together what they found."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import processors
from benchmarks.competitors import Place
from benchmarks.figures import Figure, Report, as_figure, merged
from benchmarks.payload import ROOT
from benchmarks.peers import DISTRIBUTIONS, PEERS
from benchmarks.plan import Job, Plan, jobs
from benchmarks.servers import STAGES, Stage
from benchmarks.targets import target_of

PATIENCE, PATIENCE_EACH = 900.0, 3e-3
"""Seconds for one worker, and for each operation where more of them are asked for than that would do."""

DRIVERS = ("asyncpg", "redis", "hiredis", "msgspec", "pydantic", "uvloop")


def run(plan: Plan) -> Report:
    """Measure everything that a plan names."""
    found: list[Figure] = []
    processors.keep_for_servers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=plan.folder, prefix="jaf-bench-")))

        def filling(backend: str) -> Any:
            order = {"kind": "fill", "backend": backend, "loop": "asyncio", "conversations": plan.conversations}
            return lambda place: _obeyed(Job(order), place, folder, "once: ")

        stages = {name: stack.enter_context(STAGES[name](folder, filling(name))) for name in plan.backends}
        work = list(jobs(plan))
        for number, job in enumerate(work, 1):
            found += _done(job, stages, folder, f"{number:>3}/{len(work)} ")
    figures = [replace(figure, target=target_of(figure)) for figure in merged(found)]
    return Report(machine(plan), figures)


def _done(job: Job, stages: dict[str, Stage], folder: Path, number: str) -> list[Figure]:
    """Let a worker do a job in a place of its own."""
    if not job.place:
        return _obeyed(job, {}, folder, number)
    stage = stages[job.order["backend"]]
    place: AbstractContextManager[Place] = stage.filled() if job.place == "filled" else stage.empty()
    with place as where:
        return _obeyed(job, where, folder, number)


def _obeyed(job: Job, place: Place, folder: Path, number: str) -> list[Figure]:
    """Start a worker and wait for its answer.

    Raises:
        RuntimeError: it failed. Where peers alone were to be measured, that is a figure of each of them.
    """
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    started = time.perf_counter()
    where = processors.of_client(job.order["backend"])
    order = {**job.order, "place": place, "processors": where, "answer": str(answer)}
    failure = _start(order, folder / "errors")
    sys.stderr.write(f"{number}{job}: {time.perf_counter() - started:.1f} s{' FAILED' if failure else ''}\n")
    if not failure:
        return [as_figure(fields) for fields in json.loads(answer.read_text(encoding="utf-8"))]
    if job.order["kind"] != "peers":
        raise RuntimeError(f"{job}: {failure}")
    backend, last = job.order["backend"], failure.strip().rpartition("\n")[2][:200]
    return [Figure("peers", backend, "", None, name, error=last) for name in PEERS[backend]]


def _start(order: dict[str, Any], errors: Path) -> str:
    """Run a worker; what went wrong, or nothing. What it prints is thrown away: some peers print at every step."""
    patience = max(PATIENCE, PATIENCE_EACH * order.get("operations", 0))
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1", "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **quiet}
    environment.pop("PYTHONSAFEPATH", None)  # a worker is a module of the folder that it starts in
    with errors.open("wb") as file:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.worker"],
                input=json.dumps(order).encode(),
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd=ROOT,
                timeout=patience,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {patience:g} s"
    return errors.read_text(errors="replace")[-2_000:] or "it failed without a word" if done.returncode else ""


def machine(plan: Plan) -> dict[str, str]:
    """What this runs on, and how much is measured."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "servers": "on processors of their own" if processors.are_apart() else "on the client's processors",
        "processes": f"{plan.processes}, of {plan.rounds} rounds",
    }
    for name in (*DRIVERS, *DISTRIBUTIONS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
