"""A class with just the six documented methods keeps the promises that concern these."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_stores import Six
from jaf_memory_testing import SixMethodConformance, Target


class TestSixMethods(SixMethodConformance):
    """Six methods over a dict, and no base class."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        """A store of its own."""
        return Six.target(tmp_path)
