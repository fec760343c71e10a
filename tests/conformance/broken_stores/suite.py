"""A class of checks for each store, sound or broken; `test_kit_catches.py` runs this file with a pytest of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jaf_memory_testing import Target

from broken_stores import BROKEN, SOUND


def _checks(store: type[Any]) -> type[Any]:
    class Checked(store.conformance):  # type: ignore[misc, name-defined]
        @pytest.fixture
        def target(self, tmp_path: Path) -> Target:
            made: Target = store.target(tmp_path)
            return made

    return Checked


for _store in (*SOUND, *BROKEN):
    globals()[f"Test{_store.__name__}"] = _checks(_store)
