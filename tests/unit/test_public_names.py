"""The public names."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jaf_memory_core


def test_all_is_the_truth():
    """`__all__` is what the package's own file imports, all of it, and sorted."""
    tree = ast.parse(Path(jaf_memory_core.__file__).read_text(encoding="utf-8"))
    imported = [
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(set(imported) - {"annotations", "session"}) == sorted(jaf_memory_core.__all__)
    assert jaf_memory_core.__all__ == sorted(jaf_memory_core.__all__)
    assert len(set(jaf_memory_core.__all__)) == len(jaf_memory_core.__all__)


@pytest.mark.parametrize("name", jaf_memory_core.__all__)
def test_is_documented(name):
    """Each public name is there, and has a docstring of its own."""
    thing = getattr(jaf_memory_core, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)
        assert thing.__doc__


@pytest.mark.parametrize(
    "name", [name for name in jaf_memory_core.__all__ if inspect.isclass(getattr(jaf_memory_core, name))]
)
def test_methods_are_documented(name):
    """So does each public method of a public class."""
    kind = getattr(jaf_memory_core, name)
    methods = {
        method: value
        for method, value in vars(kind).items()
        if inspect.isfunction(value) and not method.startswith("_")
    }
    assert [method for method, value in methods.items() if not inspect.getdoc(value)] == []


def test_star_import():
    """`from jaf_memory_core import *` gives exactly these, and shadows the built-in `MemoryError` only."""
    program = "import builtins; from jaf_memory_core import *; names = set(dir()) - {'builtins'};"
    program += "print(sorted(name for name in names if hasattr(builtins, name) and not name.startswith('__')))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['MemoryError']"


def test_type_checkers_see_no_getattr():
    """What the package imports late is hidden from type checkers' view: to them any name would be one of its own."""
    body = ast.parse(Path(jaf_memory_core.__file__).read_text(encoding="utf-8")).body
    assert "__getattr__" not in [getattr(node, "name", None) for node in body]
    assert not hasattr(jaf_memory_core, "MemorySesion")


def test_tests_are_not_collected():
    """`test_memory_provider_connection` is no test, wherever it is imported."""
    assert jaf_memory_core.test_memory_provider_connection.__test__ is False
