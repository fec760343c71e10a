"""A pytest plugin that lists, at the end of a run, what the targets do not offer, and why.

Load it with `pytest -p jaf_memory_testing.report`, or with `pytest_plugins` in the topmost `conftest.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from jaf_memory_testing.checks import NOT_OFFERED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the section."""
    counted = Counter(_not_offered(terminalreporter.stats.get("skipped", [])))
    if not counted:
        return
    terminalreporter.section("not offered")
    for (target, name, reason), checks in sorted(counted.items()):
        number = "1 check" if checks == 1 else f"{checks} checks"
        terminalreporter.line(f"{target}: {name} ({number}): {reason}")


def _not_offered(reports: Iterable[pytest.TestReport]) -> Iterator[tuple[str, str, str]]:
    for report in reports:
        target = report.nodeid.split("::")[-2]
        for key, value in report.user_properties:
            if key == NOT_OFFERED and isinstance(value, list | tuple):
                yield target, str(value[0]), str(value[1])
