"""Real servers for tests: each module starts one kind, in temporary folders and on free ports.

Where a program is not installed, the servers that PyPI's wheels bring stand in for it; what no wheel brings is skipped,
and the skip says what to install. In CI (`CI` is set) a missing program is an error: nothing may go untested there.
With `JAF_TEST_SERVERS=wheels` the machine's own servers are left alone, as on a newcomer's machine, which has none.
"""

import os
import shutil
from typing import NoReturn

import pytest


def in_ci():
    """Whether a missing program is an error."""
    return bool(os.environ.get("CI"))


def wheels_only():
    """Whether the machine's own servers are left alone."""
    return os.environ.get("JAF_TEST_SERVERS") == "wheels"


def installed(program, *, beside=""):
    """Return the path of a server's program, or `None`; `beside` has further folders, as PATH has them."""
    if wheels_only():
        return None
    return shutil.which(program) or (shutil.which(program, path=beside) if beside else None)


def absent(what: str, package: str) -> NoReturn:
    """Say that a program is missing: an error in CI, elsewhere a skip with its reason."""
    text = f"{what} is not on this machine, and what needs it is not tested: apt-get install {package}"
    if in_ci():
        raise FileNotFoundError(text)
    pytest.skip(text)
