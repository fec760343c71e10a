"""The house stays as it is drawn: rooms, names, chains of imports."""

import pytest
import structure

KNOWN = structure.modules()


def test_the_page_shows_the_tree_that_there_is():
    """The list of rooms in docs/architecture.md is the tree: after a change, `python tests/structure.py --tree`."""
    text = structure.PAGE.read_text(encoding="utf-8")
    assert text == structure.page_with_tree(text)


def test_rooms_are_called_by_nouns():
    """No module is called after what somebody was doing, and none by a name that says nothing."""
    last = {name: name.rpartition(".")[2] for name in KNOWN}
    assert not [name for name, word in last.items() if word.endswith("ing") and name != "jaf_memory_testing"]
    assert not set(last.values()) & {"utils", "util", "helpers", "common", "manager", "misc"}


def test_the_core_is_shallow():
    """No chain of imports in the core is longer than eleven modules."""
    assert len(structure.chain(KNOWN)) <= 11


@pytest.mark.parametrize("distribution", sorted({module.distribution for module in KNOWN.values()}))
def test_every_room_says_what_it_is_for(distribution):
    """Each module begins with a sentence, and has at most 450 lines."""
    inside = [module for module in KNOWN.values() if module.distribution == distribution]
    assert all(structure._says(module) for module in inside)
    assert not [module.name for module in inside if module.lines > 450]
