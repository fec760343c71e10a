"""The kit itself: each store that is broken on purpose is caught by the check that names its fault."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from broken_stores import BROKEN, sound_base

CHECKED = Path(__file__).parent / "broken_stores" / "suite.py"
Outcomes = dict[tuple[str, str], str]

TOGETHER = 2
"""Runs of pytest that share the stores: some wait for tens of seconds, until their fault shows."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """(store, check) → what became of it, from runs of pytest over all of them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers share them
    reports = [folder / f"kit-{part}.xml" for part in range(TOGETHER)]
    with (folder / "kit.lock").open("w") as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(report.exists() for report in reports):
            wanted = {(store.__name__, check) for store, check in BROKEN.items()}
            wanted |= {(sound_base(store).__name__, check) for store, check in BROKEN.items()}
            parts = [sorted(wanted)[part::TOGETHER] for part in range(TOGETHER)]
            list(pool.map(_run, reports, parts))
    found: Outcomes = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            found.setdefault(_name(case), _outcome(case))  # an error while cleaning up comes as a second one
    return found


def _run(report: Path, wanted: Iterable[tuple[str, str]]) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--import-mode=importlib",
        "--tb=native",  # hundreds fail; to find the statement of each failure takes a fifth of the time
    ]
    command += ["-c", os.devnull, f"--rootdir={CHECKED.parent}", "-W", "error", f"--junitxml={report}"]
    command += [f"{CHECKED}::Test{store}::{check}" for store, check in wanted]
    path = os.pathsep.join(sys.path)
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTEST_ADDOPTS": "",
        "JAF_TEST_SHRINK": "0",
        "JAF_TEST_SLOW": "0",
        "JAF_TEST_PATIENCE": "60",
    }
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=1800)
    assert run.returncode in (0, 1), run.stdout + run.stderr


def _name(case: ET.Element) -> tuple[str, str]:
    return case.attrib["classname"].rpartition(".")[2].removeprefix("Test"), case.attrib["name"]


def _outcome(case: ET.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return f"{kind}: {found.attrib.get('message', '')}\n{found.text}"
    return "passed"


def test_each_has_a_name_of_its_own() -> None:
    """What becomes of a store is told by its name, so that no two share one."""
    assert len({store.__name__ for store in BROKEN}) == len(BROKEN)


@pytest.mark.parametrize("store", list(BROKEN), ids=lambda store: store.__name__)
def test_broken_is_caught(store: type[Any], outcomes: Outcomes) -> None:
    """A store with this fault fails the check that names it, by an assertion and not by an accident."""
    outcome = outcomes[store.__name__, BROKEN[store]]
    told = (
        "failure: AssertionError",
        "failure: assert ",
        "failure: Failed: DID NOT RAISE",
        "failure: jaf_memory_testing.",
        "failure: jaf_memory_core.",
    )
    assert outcome.startswith(told), f"{BROKEN[store]} did not catch it: {outcome}"


@pytest.mark.parametrize("check", sorted(set(BROKEN.values())))
def test_sound_passes(check: str, outcomes: Outcomes) -> None:
    """The sound stores, of which the broken ones are made, pass the same checks."""
    bases = {sound_base(store).__name__ for store, one in BROKEN.items() if one == check}
    assert {base: outcomes[base, check] for base in bases} == dict.fromkeys(bases, "passed")


def test_enough_faults() -> None:
    """The table has all the faults that the issue names, and more."""
    assert len(BROKEN) >= 60
