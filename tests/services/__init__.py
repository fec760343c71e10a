"""Real servers for tests: each module starts one kind, in temporary folders and on free ports.

Where a program is not installed, the servers that PyPI's wheels bring stand in for it; what no wheel brings is skipped,
and the skip says what to install. In CI (`CI` is set) a missing program is an error: nothing may go untested there.
"""

import os
from typing import NoReturn

import pytest


def in_ci():
    """Whether a missing program is an error."""
    return bool(os.environ.get("CI"))


def absent(what: str, package: str) -> NoReturn:
    """Say that a program is missing: an error in CI, elsewhere a skip with its reason."""
    text = f"{what} is not on this machine, and what needs it is not tested: apt-get install {package}"
    if in_ci():
        raise FileNotFoundError(text)
    pytest.skip(text)
