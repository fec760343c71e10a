"""What a test leaves open is held against that test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = """
import socket

def test_that_leaves_a_socket_open():
    left = [socket.socket()]
    left.append(left)  # so that only the collector finds it

def test_that_is_innocent():
    pass
"""


def test_whoever_leaves_a_socket_open_fails(tmp_path):
    """A socket that only the garbage collector closes fails the test that made it, and not the next."""
    file = tmp_path / "test_left.py"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", ROOT / "pyproject.toml", "-n0", "-q", file]
    ran = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "FAILED" in ran.stdout
    assert "test_that_leaves_a_socket_open" in ran.stdout.partition("short test summary")[2]
