"""How many examples random checks take."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = "JAF_TEST_EXAMPLES"
SHRINK = "JAF_TEST_SHRINK"
"""`0` shows the first failure that is found, without a search for the smallest."""


def examples(number: int, *, steps: int = 50) -> settings:
    """Settings for a random check: the same examples each time, unless the variable asks for so many new ones."""
    asked = os.environ.get(EXAMPLES)
    phases = [Phase.generate] if os.environ.get(SHRINK) == "0" else [Phase.generate, Phase.shrink]
    return settings(
        max_examples=int(asked) if asked else number,
        stateful_step_count=steps,
        derandomize=not asked,
        database=None,
        phases=phases,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
