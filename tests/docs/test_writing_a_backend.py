"""The distribution that docs/writing-a-backend.md builds, made as the page says: clean, and under the kit."""

import os
import re
import subprocess
import sys

import pytest
from jaf_memory_cli import scaffold
from page_code import BLOCK, ROOT

PAGE = ROOT / "docs" / "writing-a-backend.md"
REQUIRED = re.compile(r"^`(dependencies = .*)`\. The four files", re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What `new-provider lmdb` writes, with the page's files in it, and what it requires."""
    pytest.importorskip("lmdb", reason="pip install lmdb")
    place = tmp_path_factory.mktemp("backend") / "jaf-memory-lmdb"
    scaffold.write(place, scaffold.rendered("lmdb"))
    (place / "jaf_memory_lmdb" / "folder.py").unlink()
    text = PAGE.read_text(encoding="utf-8")
    project = (place / "pyproject.toml").read_text(encoding="utf-8")
    project = re.sub(r"^dependencies = .*$", REQUIRED.search(text)[1], project, flags=re.MULTILINE)
    (place / "pyproject.toml").write_text(project, encoding="utf-8")
    blocks = {path: block for mark, path, _, block in BLOCK.findall(text) if mark == "part"}
    assert len(blocks) == 4
    for path, block in blocks.items():
        (place / path).write_text(block, encoding="utf-8")
    return place


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_it_is_clean(place, tool):
    """What the page builds is clean by the rules that `new-provider` gave it: style, format, `mypy --strict`."""
    pytest.importorskip(tool[0], reason=f"pip install {tool[0]}")
    command = [sys.executable, "-m", *tool]
    ran = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_it_passes_the_kit(place):
    """What the page builds passes the kit: against wheels all of it, else the areas that its own code can get wrong."""
    whole = os.environ.get("JAF_TEST_INSTALLED") == "wheels"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [] if whole else ["--jaf-area", "basic,append,driver,cost,cap"]
    environ = {**os.environ, "PYTHONPATH": str(place)}
    ran = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=2400, env=environ)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) > (800 if whole else 100)
