"""What `jaf-memory new-provider` writes, as its author has it: built, installed, and under the kit, all for real."""

import os
import re
import subprocess
import sys

import pytest
from environments import ROOT, House, build, check
from jaf_memory_cli import scaffold


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    """An author's environment: the new distribution, core, kit and command line from wheels, and nothing else."""
    folder = tmp_path_factory.mktemp("author")
    place = folder / "jaf-memory-acme"
    scaffold.write(place, scaffold.rendered("acme"))
    check([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", place], cwd=folder)
    (wheel,), (_sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    ours = [ROOT, *(ROOT / "plugins" / f"jaf-memory-{name}" for name in ("cli", "testing"))]
    made = House(folder)
    made.install(wheel, *build(folder / "wheels", *ours))
    made.link_dependencies("jaf-memory-core", "jaf-memory-testing", "jaf-memory-cli")
    return made


def test_it_is_installed(author):
    """Its entry point is found, its settings are read, and a conversation comes back."""
    program = """
import asyncio, json
from jaf_memory_core import Message, create_memory_provider_from_env
async def work():
    provider = await create_memory_provider_from_env()
    await provider.store_messages("chat", [Message(role="user", content="hello")])
    (message,) = await provider.get_recent_messages("chat")
    await provider.close()
    return message.content
print(json.dumps(asyncio.run(work())))
"""
    environ = {"JAF_MEMORY_TYPE": "acme", "JAF_ACME_PATH": "kept"}
    assert author.run(program, environ) == "hello"
    assert [file.suffix for file in (author.folder / "kept").glob("*.json")] == [".json"]


def test_it_passes_its_own_kit(author):
    """Its own tests are green as they were written: against wheels all of the kit, else what no other run shows.

    The example, which is what the command writes, has all of the kit in the suite.
    """
    whole = os.environ.get("JAF_TEST_INSTALLED") == "wheels"
    command = [author.python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [] if whole else ["--jaf-area", "basic,append,lifecycle"]
    place = author.folder / "jaf-memory-acme"
    ran = subprocess.run([*map(str, command)], cwd=place, check=False, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) > (800 if whole else 50)
