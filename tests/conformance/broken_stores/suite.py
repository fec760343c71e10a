"""A class of checks for each store, sound or broken; `test_kit_catches.py` runs this file with a pytest of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jaf_memory_testing import Target

from broken_stores import BROKEN, sound_base

WANTED: dict[type[Any], set[str]] = {}
"""The checks that a store is run through: a broken one's, and for a sound one those of all that are made of it."""

for _store, _check in BROKEN.items():
    for _one in (_store, sound_base(_store)):
        WANTED.setdefault(_one, set()).add(_check.partition("[")[0])


def _checks(store: type[Any], wanted: set[str]) -> type[Any]:
    """Those checks alone: to collect all of them for each store takes longer than to run these."""
    topics = tuple(kind for kind in store.conformance.__mro__ if wanted & set(vars(kind)))

    class Checked(*topics):  # type: ignore[misc]
        @pytest.fixture
        def target(self, tmp_path: Path) -> Target:
            made: Target = store.target(tmp_path)
            return made

    for name in dir(Checked):
        if name.startswith("test_") and name not in wanted:
            setattr(Checked, name, None)
    return Checked


for _store, _names in WANTED.items():
    globals()[f"Test{_store.__name__}"] = _checks(_store, _names)
