"""Settings as type checkers read them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = [
    file
    for place in ("jaf_memory_core", "plugins/*/jaf_memory_*", "examples/*/jaf_memory_*")
    for file in ROOT.glob(place)
]


@pytest.mark.parametrize("package", SETTINGS, ids=lambda folder: folder.name)
def test_a_default_is_given_by_its_name(package):
    """`Field(default=…)`: pyright does not see one that is given by its place."""
    calls = [
        (file.name, node.lineno)
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Field" and node.args
    ]
    assert not calls
