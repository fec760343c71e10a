"""The kit's pytest plugin: its options, the order of checks from basic to hostile, and what was not run, and why.

pytest loads it by itself where the kit is installed; without plugin autoload, `-p jaf_memory_testing.report` does.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator

import pytest

from jaf_memory_testing import target
from jaf_memory_testing.checks import NOT_OFFERED, SLOW, Checks, in_full

MARK = "jaf_slow"
_LEFT_OUT = pytest.StashKey[Counter[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("jaf-memory")
    group.addoption(
        "--jaf-area",
        action="append",
        default=[],
        metavar="AREA[,AREA]",
        help="run only these areas of the conformance kit, such as table or erasure; a wrong name lists all",
    )
    group.addoption(
        "--jaf-part",
        type=_part,
        metavar="K/N",
        help="run beside the short form one of N parts of what only the long form runs, the K-th",
    )
    group.addoption(
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
    target.keep_stderr()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out other areas and what is slow, and put the checks of each class into order, the first to mend first."""
    wanted = _wanted(config.getoption("--jaf-area"))
    if wanted:
        config.hook.pytest_deselected(items=[item for item in items if _area(item) not in wanted])
        items[:] = [item for item in items if _area(item) in wanted]
    left_out = [] if in_full() else [item for item in items if _is_slow(item)]
    if config.getoption("--jaf-part"):
        number, parts = config.getoption("--jaf-part")
        left_out = [item for place, item in enumerate(left_out) if place % parts != number - 1]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = Counter(_topic(item) for item in left_out)
        gone = set(map(id, left_out))
        items[:] = [item for item in items if id(item) not in gone]
    # Checks change places among themselves: other tests stay where they are.
    ordered = iter(sorted((item for item in items if _is_check(item)), key=_place))
    items[:] = [next(ordered) if _is_check(item) else item for item in items]


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    number, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= parts:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: 1/4, 2/4, 3/4 and 4/4 are the parts of four")
    return number, parts


def area_of(kind: type[Checks]) -> str:
    """The name of a class of checks as an area: `query-page` for `QueryPageChecks`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__.removesuffix("Checks")).lower()


def _wanted(options: list[str]) -> set[str]:
    wanted = {name for option in options for name in option.split(",")}
    if wanted:
        import jaf_memory_testing as kit  # not above: whoever runs pytest without the option need not wait for it

        known = [area_of(kind) for kind in kit.ProviderConformance.__mro__ if kind.__name__.endswith("Checks")]
        unknown = sorted(wanted.difference(known))
        if unknown:
            areas = ", ".join(sorted(name for name in known if name))
            raise pytest.UsageError(f"--jaf-area: no area is called {', '.join(unknown)}; there are {areas}")
    return wanted


def _area(item: pytest.Item) -> str | None:
    return area_of(_kind(item)) if _is_check(item) else None


def _kind(item: pytest.Item) -> type[Checks]:
    """The class of checks that a check stands in."""
    name = item.function.__name__  # type: ignore[attr-defined]
    kinds: tuple[type[Checks], ...] = item.cls.__mro__  # type: ignore[attr-defined]
    return next(kind for kind in kinds if name in vars(kind))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure what the check promises, and how to run its area alone."""
    report = yield
    if report.failed and _is_check(item):
        promise = inspect.getdoc(item.function) or ""  # type: ignore[attr-defined]
        ours = _kind(item).__module__.startswith(__package__)
        again = f"\n(pytest --jaf-area {_area(item)} runs this area alone)" if ours else ""
        report.sections.append(("the promise", promise + again))
    elif report.skipped and _is_check(item) and NOT_OFFERED not in dict(report.user_properties):
        check = item.function.__name__  # type: ignore[attr-defined]
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        report.user_properties.append((NOT_OFFERED, (check, reason.removeprefix("Skipped: "))))
    return report


def _is_slow(item: pytest.Item) -> bool:
    marks = list(item.iter_markers(MARK))
    if not marks or not _is_check(item):
        return bool(marks)
    topic = _kind(item).__name__
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
