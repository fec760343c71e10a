"""Each distribution alone in an empty environment: installed from its wheel, and asked to do something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from release.files import wheel_of
from release.sources import Source

SMOKE = Path(__file__).parent / "smoke.py"
WAYS = {"lowest-direct": "the lowest", "highest": "the newest"}
"""How uv chooses what a distribution requires itself → how it is told."""


def pythons(versions: Iterable[str]) -> dict[str, str]:
    """Which of these versions are here: version → interpreter. A shim may stand on the path without its version."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in versions:
        places = [*map(str, sorted(root.glob(f"{version}.*/bin/python"))), f"python{version}", sys.executable]
        for place in places:
            program = "import sys; print('%d.%d' % sys.version_info[:2])"
            if shutil.which(place) and _said(place, "-c", program) == version:
                found[version] = place
                break
    return found


def _said(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def tried(source: Source, folder: Path, python: str, way: str) -> tuple[bool, str]:
    """Install one distribution from `folder` with the lowest or the newest of what it requires, and run its smoke test.

    Returns:
        whether it went well, and which versions it was, or what went wrong.
    """
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "environment"
        inside = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        _uv("venv", "--quiet", "--python", python, str(home))
        install = ["pip", "install", "--quiet", "--python", str(inside), "--resolution", way]
        # Named beside the wheel: what only the wheel requires is no direct requirement to uv, and comes in the newest.
        named = [f"{source.name} @ {wheel_of(source, folder).as_uri()}", *source.project["dependencies"]]
        done = _uv(*install, "--find-links", str(folder), *named)
        if done.returncode:
            return False, done.stderr
        environ = {name: text for name, text in os.environ.items() if not name.startswith(("JAF_", "PYTHON"))}
        command = [str(inside), "-W", "error", str(SMOKE), source.name]
        done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=300, env=environ)
        if done.returncode:
            return False, f"{_frozen(inside)}\n{done.stdout}{done.stderr}"
        return True, f"{_required(source, inside)}{done.stdout.strip()}"


def _uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "--no-config", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)


def _frozen(python: Path) -> str:
    return " ".join(_uv("pip", "freeze", "--python", str(python)).stdout.split())


def _required(source: Source, python: Path) -> str:
    """What it requires itself, in the versions that were taken."""
    names = {Requirement(text).name for text in source.project["dependencies"]}
    taken = [one.replace("==", " ") for one in _frozen(python).split() if one.partition("==")[0] in names]
    return f"with {', '.join(taken)}; " if taken else ""


def lowest_and_highest(found: Sequence[str]) -> list[str]:
    """The first and the last."""
    return list(dict.fromkeys([found[0], found[-1]])) if found else []
