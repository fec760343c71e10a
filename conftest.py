"""For every test below."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaf_memory_testing.checks import EXAMPLES

pytest_plugins = ["jaf_memory_testing.report"]

# As in the kit: the same examples at each run, unless new ones are asked for. Time decides nothing: Hypothesis fails an
# example above 200 ms, and examples that are slow to make, and a busy machine has both.
settings.register_profile(
    "repeatable",
    derandomize=EXAMPLES not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# What mypy knows of the core and of pydantic it learns once, and not in each folder in which a test runs it.
os.environ.setdefault("MYPY_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"jaf-memory-mypy-{os.getuid()}"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among modules that are being imported: that took a sixth of the time until the first test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Leave what stands before the first test to itself, so that collecting garbage after each one takes no time."""
    gc.collect()
    gc.freeze()


WHILE = 0.005
"""Seconds of collecting after which what has come since, an engine's modules for example, is left to itself as well."""


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Find a connection or a file that was left open in the test that left it, not in whichever comes later."""
    try:
        return (yield)
    finally:
        started = time.perf_counter()
        gc.collect()
        if time.perf_counter() - started > WHILE:
            gc.freeze()
