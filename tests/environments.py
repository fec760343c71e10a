"""Fresh environments, and wheels that are built and installed for real.

Nothing is downloaded: what a distribution depends on is linked from the environment that runs the tests, one by one, so
that whatever else is installed there stays out.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from services.programs import Jobs

ROOT = Path(__file__).parents[1]

BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""


FORKS = """
import json, os, sys
import jaf_memory_core

def become(job):
    os.environ.clear()
    os.environ.update(job["environ"])
    sys.path[1:1] = job["path"]
    for number, name in (1, "out"), (2, "err"):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT), number)
    exec(compile(job["program"], "<string>", "exec"), {"__name__": "__main__"})

for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            become(json.loads(line))
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a process for each program, from one that has imported the core: most of a short program's time is that."""


class House:
    """An environment of its own, with nothing in it but the core, the command line and the distributions."""

    def __init__(self, folder):
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.python = folder / "venv" / "bin" / "python"
        self._forks = Jobs([str(self.python), "-W", "error", "-c", FORKS], cwd=folder, env=_ours())
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(check([self.python, "-c", where], cwd=folder).strip())

    def install(self, *wheels, target=None):
        """Install wheels without what they depend on."""
        place = ["--target", target] if target else ["--python", self.python]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        switches = ["--no-deps", "--no-index", "--no-warn-script-location"]
        if target:
            check([*pip, "install", *switches, *place, *wheels], cwd=self.folder)
        else:
            check([*pip, *place, "install", *switches, *wheels], cwd=self.folder)

    def link_dependencies(self, *distributions):
        """Make what distributions depend on importable, and nothing else that is installed beside it."""
        links = self.folder / "dependencies"
        links.mkdir()
        waiting, linked = [], set(distributions)
        for name in distributions:
            (installed,) = metadata.distributions(name=name, path=[str(self.site)])
            waiting += installed.requires or ()
        while waiting:
            required = Requirement(waiting.pop())
            if required.name in linked or (required.marker and not required.marker.evaluate({"extra": ""})):
                continue
            linked.add(required.name)
            found = metadata.distribution(required.name)
            waiting += found.requires or ()
            for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                (links / part).symlink_to(found.locate_file(part))
        (self.site / "dependencies.pth").write_text(f"{links}\n", encoding="utf-8")

    def run(self, program, environ=None, path=()):
        """Run a program in here, where the core is, and return what it writes in its last line, as JSON."""
        found = {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = {"program": program, "path": list(map(str, path)), "out": str(out), "err": str(err)}
            status = self._forks.done({**job, "environ": {**_ours(), **found, **(environ or {})}})
            assert status == 0, err.read_text(encoding="utf-8")
            return json.loads(out.read_text(encoding="utf-8").splitlines()[-1])


def _ours():
    """Our variables, but those that change what Python or jaf-memory does."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAF_"))}


def check(command, **options):
    """Run a command that has to end well, and return what it writes."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder, *projects):
    """Build the wheels of projects into a folder."""
    folder.mkdir()
    check([sys.executable, "-c", BUILD, folder, *projects], cwd=folder)
    return sorted(folder.glob("*.whl"))
