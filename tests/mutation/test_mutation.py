"""The program that mutates: its operators, its list of equivalents, and one mutant that the kit catches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from mutation import texts
from mutation.operators import OPERATORS, mutants
from mutation.reach import places
from mutation.subjects import ROOT, equivalents, mutants_of, place
from mutation.texts import LUA, SQL, Rules

CHANGES = {
    "comparison": ("x = a < b", "a < b -> (a <= b)"),
    "constant": ("x = 3", "3 -> (4)"),
    "logic": ("x = a and b", "a and b -> (a or b)"),
    "not": ("x = not a", "not a -> (a)"),
    "arithmetic": ("x = a + b", "a + b -> (a - b)"),
    "choice": ("x = a if b else c", "a if b else c -> (c)"),
    "slice": ("x = a[b:]", "b: -> :"),
    "call": ("f(a, b)", "f(a, b) -> (f(b, a))"),
    "branch": ("while a: f()", "a -> (not a)"),
    "statement": ("f()", "f() -> pass"),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_makes_its_change(operator: str) -> None:
    """Each operator changes what it is for, and what it makes is a module."""
    source, change = CHANGES[operator]
    made = [mutant for mutant in mutants(source) if mutant.operator == operator]
    assert change in [mutant.change for mutant in made]
    for mutant in made:
        compile(mutant.source, "<mutant>", "exec")


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = min(a, b)", {"min(a, b) -> (max(a, b))"}),
        ("x = f(a, a)", set()),
        ("if a is b: f()", {"a is b -> (a is not b)", "f() -> pass"}),
        ("if not a: f()", {"not a -> (a)", "f() -> pass"}),
        ("if a < b: f()", {"a < b -> (a <= b)", "a < b -> (not a < b)", "f() -> pass"}),
    ],
)
def test_no_change_is_made_twice_or_for_nothing(source: str, changes: set[str]) -> None:
    """What says the same in other words, or what another operator has made, is no mutant."""
    made = [mutant.change for mutant in mutants(source)]
    assert sorted(made) == sorted(changes)


def test_types_and_texts_stay() -> None:
    """Annotations, docstrings and what is there for the type checker are left alone."""
    source = 'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1\ndef f(a: 3 = None) -> 4:\n    "5"\n'
    assert list(mutants(source)) == []


def test_equivalents_are_mutants() -> None:
    """What is listed as equivalent is still made, and has a reason."""
    listed = equivalents()
    made = set()
    for file in {ROOT / module for module, _, _ in listed}:
        there = mutants_of(file, file.read_text(encoding="utf-8"), lambda one, file=file: place(file, one) in listed)
        made |= {place(file, mutant) for mutant in there}
    assert [entry for entry in listed if entry not in made] == []
    assert all(len(reason) > 20 for reason in listed.values())


@pytest.mark.parametrize(
    ("rules", "source", "changes"),
    [
        (SQL, "SELECT a FROM b WHERE c < ? AND d = ? ORDER BY e", {"c <= ?", "WHERE c < ? ORDER BY e", "BY e DESC"}),
        (SQL, "-- a < b AND c\nSELECT max(a)", {"SELECT min(a)"}),
        (LUA, "  redis.call('ZREM', key, 1)\n", {"do end", "key, 2)"}),
        (LUA, "if a and not b then call('DEL', k) end", {"if a or not b", "if a and b", "then do end end"}),
    ],
)
def test_other_languages(rules: Rules, source: str, changes: set[str]) -> None:
    """SQL and Lua have operators of their own, and their comments stay."""
    made = [mutant.after for mutant in texts.mutants(source, rules)]
    assert [change for change in changes if not any(change in one for one in made)] == []


def test_a_change_is_reached_where_its_statement_runs() -> None:
    """A check reaches a change by its statement; what runs at the import may be met by any."""
    source = "A = 1\ndef f(x=2):\n    if (\n        x\n    ):\n        return g(\n            3)\n    return 4\n"
    file = ROOT / "f.py"
    found = {line: tuple(lines for _, lines in places(file, source, line, ROOT)) for line in range(1, 9)}
    assert found == {
        **dict.fromkeys((1, 2), ()),
        **dict.fromkeys((3, 4, 5), (range(3, 6),)),
        **dict.fromkeys((6, 7), (range(6, 8),)),
        8: (range(8, 9),),
    }


PROGRAM = """
import dataclasses, json, sys
from mutation.operators import mutants
from mutation.runs import collected
from mutation.subjects import ROOT, SUBJECTS

subject = SUBJECTS[sys.argv[2]]

def work(kit):
    kit.record()
    for name, text, new in json.loads(sys.argv[1]):
        file = ROOT / subject.package / name
        source = file.read_text()
        any_one = next(mutants("a < b"))
        line = source[: source.index(text)].count("\\n") + 1
        outcome = kit.tried(file, dataclasses.replace(any_one, line=line, source=source.replace(text, new, 1)))
        kit.say(outcome.how)

collected(subject, work, areas="basic")
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it sees what a check reaches by sys.monitoring, of Python 3.12")
def test_what_becomes_of_mutants() -> None:
    """What is as it was survives, as does what is equivalent; what is bad is caught, what hangs is told apart."""
    tried = {
        ("folder.py", "fresh.replace(file)", "fresh.replace(file)"): "survived",
        ("__init__.py", "return await to_thread(self._load, conversation_id)", "return self._load(conversation_id)"): (
            "survived"
        ),
        ("folder.py", "fresh.replace(file)", "pass"): "caught",
        ("__init__.py", 'name = "files"', "name = 1 / 0"): "caught",
        ("folder.py", "fresh.replace(file)", "\n            while True: pass"): "hangs",
        ("__init__.py", "found = damaged or", "found = not damaged or"): "not reached",
    }
    assert _became("files", list(tried)) == list(tried.values())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it sees what a check reaches by sys.monitoring, of Python 3.12")
def test_changed_statements_are_those_that_run() -> None:
    """What is kept of a file of SQL for the next time gives way to the changed one."""
    text, other = "WHERE conversation_id = ?", "WHERE conversation_id <> ?"
    tried = {("statements.sql", text, text): "survived", ("statements.sql", text, other): "caught"}
    assert _became("sqlite", list(tried)) == list(tried.values())


def _became(subject: str, changes: list[tuple[str, str, str]]) -> list[str]:
    """What became of changes of a subject's files, by the basic checks."""
    path = os.pathsep.join((str(ROOT / "tests"), *sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-c", PROGRAM, json.dumps(changes), subject]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it sees what a check reaches by sys.monitoring, of Python 3.12")
def test_own_tests_are_asked_about_what_is_left() -> None:
    """What the kit does not notice is tried on the backend's own tests, and told apart."""
    path = os.pathsep.join((str(ROOT / "tests"), *sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "mutation", "files", "--areas", "basic", "--only"]
    for only, told, status in (
        ("key if isinstance(key, str) else None -> (key)", "1 tried in # s: 1 caught by own tests\n", 0),
        ("_sync(fresh) -> pass", "1 tried in # s: 1 survived\n", 1),
    ):
        run = subprocess.run(
            [*command, only], env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800
        )
        assert re.sub(r"in \d+ s", "in # s", run.stdout).endswith(told), run.stdout + run.stderr
        assert run.returncode == status
