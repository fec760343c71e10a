"""What several test files use."""

import asyncio
import subprocess
import sys
import textwrap

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider


@pytest.fixture
def path(tmp_path):
    """A file that is not there yet."""
    return tmp_path / "conversations.db"


@pytest.fixture
def use(path):
    """Run a coroutine function with a provider on the file, closed behind it."""

    def run(work, **settings):
        async def whole():
            async with await create_sqlite_provider(SqliteConfig(**{"path": path, **settings})) as provider:
                return await work(provider)

        return asyncio.run(whole())

    return run


@pytest.fixture
def python():
    """Run a program in a process of its own, warnings being errors; what it writes to standard output."""

    def run(program, *arguments, **options):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run
