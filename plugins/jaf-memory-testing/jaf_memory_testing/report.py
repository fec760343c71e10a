"""The kit's pytest plugin: option `--jaf-slow`, order from basic to hostile, and what was not run, and why, at the end.

pytest loads it by itself where the kit is installed; without plugin autoload, `-p jaf_memory_testing.report` does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from jaf_memory_testing import watchdog
from jaf_memory_testing.checks import NOT_OFFERED, SLOW, Checks, in_full

MARK = "jaf_slow"
_LEFT_OUT = pytest.StashKey[Counter[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("jaf-memory").addoption(
        "--jaf-slow",
        action="store_true",
        help=f"run the long form, too: what is marked {MARK}, and more random examples (or {SLOW}=1)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark; hand the option on to the checks."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(reason, but=()): runs with --jaf-slow only, but for these classes of checks",
    )
    if config.getoption("--jaf-slow"):
        # In a variable: some modules of checks ask when they are imported, before there is any fixture.
        os.environ[SLOW] = "1"
    watchdog.keep_stderr()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, and put the checks of each class into order: the first failure is the one to look at."""
    left_out = [] if in_full() else [item for item in items if _is_slow(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = Counter(_topic(item) for item in left_out)
        items[:] = [item for item in items if not _is_slow(item)]
    # Checks change places among themselves: other tests stay where they are.
    ordered = iter(sorted((item for item in items if _is_check(item)), key=_place))
    items[:] = [next(ordered) if _is_check(item) else item for item in items]


def _is_slow(item: pytest.Item) -> bool:
    marks = list(item.iter_markers(MARK))
    if not marks or not _is_check(item):
        return bool(marks)
    name = item.function.__name__  # type: ignore[attr-defined]
    topic = next(kind.__name__ for kind in item.cls.__mro__ if name in vars(kind))  # type: ignore[attr-defined]
    return any(topic not in mark.kwargs.get("but", ()) for mark in marks)


def _is_check(item: pytest.Item) -> bool:
    kind = getattr(item, "cls", None)
    return isinstance(kind, type) and issubclass(kind, Checks)


def _place(item: pytest.Item) -> tuple[str, int]:
    kind, name = item.cls, item.function.__name__  # type: ignore[attr-defined]
    within = [place for place, topic in enumerate(kind.__mro__) if name in vars(topic)]
    return item.nodeid.rpartition("::")[0], within[-1]


def _topic(item: pytest.Item) -> tuple[str, str]:
    mark = item.get_closest_marker(MARK)
    reason = str(mark.args[0]) if mark is not None and mark.args else "slow"
    return item.nodeid.rpartition("::")[0], reason


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the sections."""
    counted = Counter(_not_offered(terminalreporter.stats.get("skipped", [])))
    if counted:
        terminalreporter.section("not offered")
        for (target, name, reason), checks in sorted(counted.items()):
            terminalreporter.line(f"{target}: {name} ({_number(checks)}): {reason}")
    left_out = config.stash.get(_LEFT_OUT, None) or _left_out_by_workers(terminalreporter)
    if left_out:
        terminalreporter.section(f"not run; --jaf-slow, or {SLOW}=1, runs it, and more random examples")
        for (place, reason), checks in sorted(left_out.items()):
            terminalreporter.line(f"{place} ({_number(checks)}): {reason}")


def _left_out_by_workers(terminalreporter: pytest.TerminalReporter) -> Counter[tuple[str, str]]:
    found = getattr(terminalreporter.config, _ATTRIBUTE, [])
    return Counter({(place, reason): number for place, reason, number in found})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand on, from a worker of pytest-xdist, what was left out; each worker collects the same."""
    output = getattr(session.config, "workeroutput", None)
    left_out = session.config.stash.get(_LEFT_OUT, None)
    if output is not None and left_out:
        output[_ATTRIBUTE] = [[place, reason, number] for (place, reason), number in left_out.items()]


_ATTRIBUTE = "jaf_memory_left_out"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take what a worker of pytest-xdist hands on."""
    output = getattr(node, "workeroutput", None) or {}
    if _ATTRIBUTE in output:
        setattr(node.config, _ATTRIBUTE, output[_ATTRIBUTE])  # type: ignore[attr-defined]


def _number(checks: int) -> str:
    return "1 check" if checks == 1 else f"{checks} checks"


def _not_offered(reports: Iterable[pytest.TestReport]) -> Iterator[tuple[str, str, str]]:
    for report in reports:
        target = report.nodeid.split("::")[-2]
        for key, value in report.user_properties:
            if key == NOT_OFFERED and isinstance(value, list | tuple):
                yield target, str(value[0]), str(value[1])
