"""One run of the kit on one mutant, in a copy of the package and a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mutation.subjects import ROOT, Subject

CAUGHT = {1: "by a check", 2: "when it was collected"}
"""What pytest's exit codes say of a mutant."""


def tried(subject: Subject, file: Path, source: str, *, areas: str = "", patience: float = 600) -> str | None:
    """Run the kit until its first failure on a package one of whose modules has that source.

    Args:
        subject: the backend.
        file: the module.
        source: what stands in it.
        areas: pytest's `--jaf-area`.
        patience: seconds after which the run counts as caught: it hangs.

    Returns:
        what caught it, or `None` if all checks pass.
    """
    package = ROOT / subject.package
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / file.relative_to(package)).write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]
        command += [f"--basetemp={folder}/tests", *([f"--jaf-area={areas}"] if areas else []), *subject.tests]
        path = os.pathsep.join((folder, *filter(None, [os.environ.get("PYTHONPATH")])))
        return _outcome(command, {"PYTHONPATH": path}, patience)


def _outcome(command: list[str], environment: dict[str, str], patience: float) -> str | None:
    variables = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "JAF_TEST_SHRINK": "0"}
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = run.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        return f"it takes more than {patience:g} s"
    finally:
        _end(run)
    if run.returncode == 0:
        return None
    if run.returncode not in CAUGHT and run.returncode > 0:
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{told}")
    named = [line.split(" ", 1)[1] for line in told.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (named or [f"the process ended with {run.returncode}"])[0][:160]


def _end(run: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)  # what the kit started is in its session
    run.wait()
