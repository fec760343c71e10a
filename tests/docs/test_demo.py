"""The demonstration: what it shows, what it proposes, and that it does not claim what is not so."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def run_demo(folder, **environment):
    """Run the demonstration, in a terminal of 80 columns."""
    command = [sys.executable, "-W", "error", str(DEMO), "--folder", str(folder)]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    environment = {**inherited, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=environment, timeout=300)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the demonstration writes."""
    ran = run_demo(tmp_path_factory.mktemp("demo folder"))
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_it_reads_in_a_second_process(shown):
    """The conversation is read by another process than the one that wrote it."""
    writer, reader, count = re.search(r"process (\d+) wrote, process (\d+) read: (\d+) messages", shown).groups()
    assert writer != reader
    assert count == "4"


def test_it_fits_on_a_page(shown):
    """No line is longer than 80 columns, but for commands, which must not be broken."""
    lines = [line for line in shown.splitlines() if not line.startswith("  ")]
    assert max(map(len, lines)) <= 80
    assert len(shown.splitlines()) < 60


def test_it_shows_the_whole_conversation(shown):
    """Each message of the conversation is in the transcript, the call of a tool too."""
    transcript = shown.partition("The transcript")[2]
    assert re.findall(r"^ (user|assistant|tool) +\S", transcript, re.MULTILINE) == [
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]
    assert 'find_order({"number": 8812})' in transcript
    assert "👋" in transcript


def test_what_it_proposes_works(shown):
    """Each command that it tells the reader to try runs as it stands, in one shell, and ends well."""
    commands = [line.strip() for line in shown.splitlines() if re.match("  (export|[^ ]*jaf-memory) ", line)]
    assert [re.split("[ /]", command)[0] for command in commands[:1]] == ["export"]
    assert [shlex.split(command)[1] for command in commands[1:]] == ["list", "show", "doctor"]
    ran = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)], check=False, capture_output=True, encoding="utf-8", timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "user-123:support:2024-01-15" in ran.stdout


def test_it_may_be_repeated(tmp_path):
    """A second run on the same folder goes as well as the first."""
    for _ in range(2):
        assert run_demo(tmp_path).returncode == 0


def test_it_fails_when_something_is_not_so(tmp_path):
    """A store that does not keep what it is given ends the demonstration, with status 1 and the reason."""
    (tmp_path / "sitecustomize.py").write_text(
        "from jaf_memory_core.provider import BackendProvider\n"
        "whole = BackendProvider.get_conversation\n"
        "async def half(self, key):\n"
        "    found = await whole(self, key)\n"
        "    return type(found)(key, found.user_id, found.messages[:-1], found.metadata)\n"
        "BackendProvider.get_conversation = half\n",
        encoding="utf-8",
    )
    ran = run_demo(tmp_path, PYTHONPATH=str(tmp_path))
    assert ran.returncode == 1
    assert "not as it should be: every message came back equal" in ran.stderr
