"""Which checks reach which lines of a backend, and how long each takes: recorded once, before anything is changed."""

from __future__ import annotations

import ast
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any


@dataclass
class Trace:
    """What one check does on the backend as it stands.

    Attributes:
        passed: whether it passes.
        seconds: how long it takes.
        lines: file → the lines that it reaches, in this process.
        processes: whether it starts others, whose lines nobody sees.
    """

    passed: bool = True
    seconds: float = 0.0
    lines: dict[str, set[int]] = field(default_factory=dict)
    processes: bool = False


def recorded(package: str, checks: int, run: Callable[[int], bool]) -> Iterator[Trace]:
    """Run each check, and see what it reaches.

    Args:
        package: the folder whose files count.
        checks: how many there are.
        run: runs one of them, and tells whether it passes.
    """
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # from Python 3.12 on
    tool, trace = monitoring.PROFILER_ID, Trace()

    def reached(code: CodeType, line: int) -> Any:
        if code.co_filename.startswith(package):
            trace.lines.setdefault(code.co_filename, set()).add(line)
        return monitoring.DISABLE

    def heard(event: str, _arguments: tuple[Any, ...]) -> None:
        trace.processes |= event == "subprocess.Popen"

    sys.addaudithook(heard)
    monitoring.use_tool_id(tool, "mutation")
    monitoring.register_callback(tool, monitoring.events.LINE, reached)
    monitoring.set_events(tool, monitoring.events.LINE)
    for number in range(checks):
        trace = Trace()
        monitoring.restart_events()
        began = time.monotonic()
        trace.passed = run(number)
        trace.seconds = time.monotonic() - began
        yield trace


def places(file: Path, source: str, line: int, package: Path) -> list[tuple[str, range]]:
    """Where a check has to pass to meet a change: places in files, any of which will do.

    Of Python, the statement that has the line. Of SQL and Lua, whatever line of the package names the statement or
    script. Nothing where no line does, and for a module's or class's own statements, which run when it is imported:
    every check may meet those.
    """
    if file.suffix == ".py":
        found = _statement(source, line)
        return [(str(file), found)] if found else []
    name = file.stem.upper()
    if file.suffix == ".sql":
        name = re.findall(r"^-- name: *(\S+)", "\n".join(source.splitlines()[:line]), re.MULTILINE)[-1]
    found = []
    for module in package.rglob("*.py"):
        for number, text in enumerate(module.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"\"{name}\"" if file.suffix == ".sql" else rf"\b{name}\b", text):
                found.append((str(module), range(number, number + 1)))
    return found


def _statement(source: str, line: int) -> range | None:
    """The lines of the innermost statement, without those that stand under it; nothing outside of functions."""
    found, within = range(0), ast.parse(source)
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = False  # of a function: what stands there runs with a check
    node: ast.AST = within
    while True:
        below = [one for one in _statements(node) if one.lineno <= line <= (one.end_lineno or one.lineno)]
        if not below:
            return found if inside else None
        node = below[0]
        body = [one.lineno for one in _statements(node)]
        header = range(node.lineno, min(body)) if body else range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if line in header:
            return (header or range(line, line + 1)) if inside else None
        found = range(line, line + 1)
        inside = inside or isinstance(node, scopes)


def _statements(node: ast.AST) -> list[ast.stmt]:
    """The statements right under a node, those of its handlers and cases too."""
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            found.append(child)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            found += _statements(child)
    return found
