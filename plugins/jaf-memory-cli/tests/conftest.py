"""`jaf-memory` as a user runs it: a process of its own, variables, files."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from sample_conversations import REAL, WITHOUT_REAL, lines, sample_conversations
from services.programs import SERVER

HERE = Path(__file__).parent
SAMPLES = ("six", "unreachable", "sleepy", "torn", "endless", "tidy")

LOOKS = ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TTY_")
"""Beginnings of variables that change how output looks."""


class Program:
    """Runs `jaf-memory` in a folder, with no variable of this package's but those that are given."""

    def __init__(self, folder, **variables):
        self.folder = folder
        self.command = [
            self.installed() or sys.executable,
            *([] if self.installed() else ["-m", "jaf_memory_cli"]),
        ]
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("JAF_", *LOOKS))}
        self.environ = {**kept, **variables}

    @staticmethod
    def installed():
        """Return the script that pip made, if it did."""
        return shutil.which("jaf-memory", path=str(Path(sys.executable).parent))

    def given(self, **variables):
        """Return the same program with more variables."""
        again = Program(self.folder)
        again.environ = {**self.environ, **{name: str(text) for name, text in variables.items()}}
        return again

    def start(self, *arguments, **options):
        """Start it, and leave it running."""
        command = [*self.command, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        return subprocess.Popen(command, cwd=self.folder, env=self.environ, **{**pipes, **options})

    def run(self, *arguments, status=0, text=""):
        """Run it to its end, which must have that status, and return what it wrote."""
        if self.command == Program(self.folder).command:
            ended, *wrote = SERVER.run(["jaf-memory", *map(str, arguments)], self.folder, self.environ, text)
            ran = Ran(*wrote)
            assert ended == status, f"ended with {ended}\n{ran.out}\n{ran.err}"
            assert "Traceback" not in ran.err, ran.err
            return ran
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(text, timeout=300)
        assert process.returncode == status, f"ended with {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return Ran(out, err)


class Ran:
    """What a run wrote."""

    def __init__(self, out, err):
        self.out = out
        self.err = err

    @property
    def document(self):
        """The one JSON document of the output."""
        return json.loads(self.out)

    @property
    def lines(self):
        """The JSON documents of the output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def hundred(tmp_path_factory):
    """The file of a hundred conversations that the repository makes."""
    file = tmp_path_factory.mktemp("hundred") / "conversations.jsonl"
    file.write_text(lines(sample_conversations()), encoding="utf-8")
    return file


@pytest.fixture(params=["made", "real"])
def conversations_file(request):
    """A file of conversations: the hundred of the repository, then those of real agents, where they are."""
    if request.param == "made":
        return request.getfixturevalue("hundred")
    if not REAL.is_file():
        pytest.skip(WITHOUT_REAL)
    return REAL


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """A folder with the distribution of the providers in sample_providers.py, as pip would install it."""
    folder = tmp_path_factory.mktemp("samples")
    shutil.copy(HERE / "sample_providers.py", folder)
    info = folder / "sample_providers-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-providers\nVersion: 1.5\n")
    entries = [f"{name} = sample_providers:{name}" for name in SAMPLES]
    readers = [f"{name} = sample_providers:{name}" for name in ("notes", "afar", "misnamed", "six")]
    groups = ["[jaf.memory.providers]", *entries, "broken = sample_missing", "[jaf.memory.readers]", *readers]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A SQLite store without conversations."""
    path = tmp_path_factory.mktemp("empty") / "store.db"

    async def make():
        await (await create_sqlite_provider(SqliteConfig(path=path))).close()

    asyncio.run(make())
    return path


@pytest.fixture
def fresh(tmp_path):
    """`jaf-memory` on a SQLite file that is not there."""
    return Program(tmp_path, JAF_MEMORY_TYPE="sqlite", JAF_SQLITE_PATH=str(tmp_path / "store.db"))


@pytest.fixture
def program(fresh, empty):
    """`jaf-memory` on a SQLite file without conversations."""
    shutil.copy(empty, fresh.folder / "store.db")
    return fresh


@pytest.fixture
def sampled(program, samples):
    """`jaf-memory` with the sample providers installed."""
    return program.given(PYTHONPATH=samples)


@pytest.fixture(scope="session")
def filled(tmp_path_factory, hundred):
    """`jaf-memory` on a SQLite file with the 100 conversations; nobody may write to it."""
    folder = tmp_path_factory.mktemp("filled")
    program = Program(folder, JAF_MEMORY_TYPE="sqlite", JAF_SQLITE_PATH=str(folder / "store.db"))
    program.run("import", hundred)
    return program
