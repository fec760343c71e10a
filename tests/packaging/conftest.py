"""A fresh environment with core, command line and the distributions of distributions/, built and installed for real.

Nothing is downloaded: what the core depends on is linked from the environment that runs the tests, one by one, so
that whatever else is installed there stays out.
"""

import json
import os
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "distributions"

BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
[project.entry-points."jaf.memory.providers"]
{providers}
[project.entry-points."jaf.memory.plugins"]
{plugins}
[tool.hatch.build]
include = ["{module}.py"]
"""


class House:
    """An environment of its own, with nothing in it but the core, the command line and the distributions."""

    def __init__(self, folder):
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
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

    def link_dependencies(self, distribution):
        """Make what a distribution depends on importable, and nothing else that is installed beside it."""
        links = self.folder / "dependencies"
        links.mkdir()
        (installed,) = metadata.distributions(name=distribution, path=[str(self.site)])
        waiting = [*(installed.requires or ())]
        linked = set()
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
        """Run a program in here, and return what it writes in its last line, as JSON."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAF_"))}
        found = {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
        command = [self.python, "-W", "error", "-c", program]
        output = check(command, cwd=self.folder, env={**ours, **found, **(environ or {})})
        return json.loads(output.splitlines()[-1])


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


def project(folder, name, *, module=None, version="1.0", providers=None, plugins=None):
    """Write the project of a distribution of one module, and return its folder."""
    module = module or name.replace("-", "_")
    place = folder / name
    place.mkdir(parents=True)
    entries = {
        group: "\n".join(f'{entry} = "{value}"' for entry, value in (found or {}).items())
        for group, found in {"providers": providers, "plugins": plugins}.items()
    }
    text = PYPROJECT.format(name=name, version=version, module=module, **entries)
    (place / "pyproject.toml").write_text(text, encoding="utf-8")
    (place / f"{module}.py").write_bytes((SOURCES / f"{module}.py").read_bytes())
    return place


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """The environment with the core, the command line without its libraries, and all of distributions.toml."""
    folder = tmp_path_factory.mktemp("house")
    table = tomllib.loads((SOURCES / "distributions.toml").read_text(encoding="utf-8"))
    projects = [project(folder / "projects", name, **entry) for name, entry in table.items()]
    made = House(folder)
    made.install(*build(folder / "wheels", ROOT, ROOT / "plugins" / "jaf-memory-cli", *projects))
    made.link_dependencies("jaf-memory-core")
    return made


@pytest.fixture
def another(house, tmp_path):
    """Build another distribution of a module of distributions/, and return the folder that it is installed in."""

    def install(name, **entry):
        target = tmp_path / f"target-{name}"
        wheels = build(tmp_path / f"wheels-{name}", project(tmp_path / f"project-{name}", name, **entry))
        house.install(*wheels, target=target)
        return target

    return install
