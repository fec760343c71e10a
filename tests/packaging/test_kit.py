"""The wheel of the conformance kit works alone: beside the core, hypothesis and pytest nothing is needed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""

FILE = """
import functools, pytest
from jaf_memory_core import BackendProvider, InMemoryConfig
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_testing import SixMethodConformance, Target

async def open_on(backend, **settings):
    return BackendProvider(backend, InMemoryConfig(**settings))

class TestIt(SixMethodConformance):
    @pytest.fixture
    def target(self):
        return Target(open=functools.partial(open_on, InMemoryBackend()))
"""


def test_the_kits_wheel_works_alone(tmp_path):
    """From the two wheels alone, unpacked, a class of checks runs, with the kit's plugin and its option."""
    wheels, unpacked = tmp_path / "wheels", tmp_path / "unpacked"
    wheels.mkdir()
    projects = [ROOT, ROOT / "plugins" / "jaf-memory-testing"]
    subprocess.run([sys.executable, "-c", BUILD, wheels, *projects], check=True, capture_output=True)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(unpacked)
    (tmp_path / "test_it.py").write_text(FILE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    run = subprocess.run(
        [*command, "-k", "smoke", "--jaf-slow", tmp_path / "test_it.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr
    where = "import jaf_memory_testing as kit; print(kit.__file__)"
    found = subprocess.run([sys.executable, "-c", where], check=True, capture_output=True, text=True, env=environment)
    assert Path(found.stdout.strip()).is_relative_to(unpacked)
