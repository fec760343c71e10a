"""For every test below."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from jaf_memory_testing.checks import EXAMPLES

pytest_plugins = ["jaf_memory_testing.report"]

# As in the kit: the same examples at each run, unless new ones are asked for. Time decides nothing: Hypothesis fails an
# example above 200 ms, and examples that are slow to make, and a busy machine has both.
settings.register_profile(
    "repeatable",
    derandomize=EXAMPLES not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
