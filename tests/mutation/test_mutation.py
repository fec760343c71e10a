"""The program that mutates: its operators, its list of equivalents, and one mutant that the kit catches."""

from __future__ import annotations

import pytest

from mutation.operators import OPERATORS, mutants
from mutation.runs import tried
from mutation.subjects import ROOT, SUBJECTS, equivalents, place

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
    files = {ROOT / module for module, _, _ in equivalents()}
    made = {place(file, mutant) for file in files for mutant in mutants(file.read_text(encoding="utf-8"))}
    assert [entry for entry in equivalents() if entry not in made] == []
    assert all(len(reason) > 20 for reason in equivalents().values())


def test_a_mutant_is_caught() -> None:
    """The kit passes on a copy that is as it was, and catches a write that never takes its place."""
    file = ROOT / "examples/jaf-memory-files/jaf_memory_files/folder.py"
    source = file.read_text(encoding="utf-8")
    (mutant,) = (one for one in mutants(source) if one.change == "fresh.replace(file) -> pass")
    assert tried(SUBJECTS["files"], file, source, areas="basic") is None
    assert "TestFiles" in str(tried(SUBJECTS["files"], file, mutant.source, areas="basic"))
