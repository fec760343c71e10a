"""The house stays as it is drawn: rooms, names, chains of imports."""

import functools
import re
from collections import Counter

import pytest
import structure

known = functools.cache(structure.modules)
"""Every module by name; read once, and by the process that has the tests."""

DISTRIBUTIONS = sorted({place.name for pattern in structure.PACKAGES for place in structure.ROOT.glob(pattern)})


def test_the_page_shows_the_tree_that_there_is():
    """The list of rooms in docs/architecture.md is the tree: after a change, `python tests/structure.py --tree`."""
    text = structure.PAGE.read_text(encoding="utf-8")
    assert text == structure.page_with_tree(text)


def test_rooms_are_called_by_nouns():
    """No module is called after what somebody was doing, and none by a name that says nothing."""
    last = {name: name.rpartition(".")[2] for name in known()}
    assert not [name for name, word in last.items() if word.endswith("ing") and name != "jaf_memory_testing"]
    assert not set(last.values()) & {"utils", "util", "helpers", "common", "manager", "misc"}


def test_so_are_tests_and_benchmarks():
    """The same holds of their files."""
    places = ("benchmarks", "tests", "plugins/*/tests", "examples/*/tests")
    names = {file.stem for place in places for file in structure.ROOT.glob(f"{place}/**/*.py")}
    assert len(names) > 100
    assert not [name for name in names if name.endswith("ing")]


def left_over(texts):
    """Return the private names of modules that their package uses nowhere."""
    words = Counter(word for text in texts for word in re.findall(r"\w+", text))
    private = [name for text in texts for name in re.findall(r"^(?:def |class )?(_[a-zA-Z]\w*)", text, re.MULTILINE)]
    return {name for name in private if words[name] == 1}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_nothing_private_is_left_over(distribution):
    """Each private name of a module is used somewhere in its package."""
    inside = [module for module in known().values() if module.distribution == distribution]
    assert left_over([module.file.read_text(encoding="utf-8") for module in inside]) == set()


def test_what_is_left_over_is_found():
    """A private constant, function or class that nothing uses is found, and none that another module imports."""
    texts = ["_A = 1\n_B = 2\ndef _c():\n    return _A\nclass _D:\n    pass\n", "from x import _D\n_E: int = 1\n"]
    assert left_over(texts) == {"_B", "_c", "_E"}


def test_the_core_is_shallow():
    """No chain of imports in the core is longer than eleven modules."""
    assert len(structure.chain(known())) <= 11


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_room_says_what_it_is_for(distribution):
    """Each module begins with a sentence, and has at most 500 lines."""
    inside = [module for module in known().values() if module.distribution == distribution]
    assert all(structure._says(module) for module in inside)
    assert not [module.name for module in inside if module.lines > 500]
