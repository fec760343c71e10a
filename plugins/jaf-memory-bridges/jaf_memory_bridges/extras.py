"""What an engine's bridge needs beside this distribution: the extra that installs it."""

from __future__ import annotations

import re
from importlib import metadata, util


def require(extra: str, *, module: str, distribution: str, versions: str) -> None:
    """Make sure that an engine is there before its bridge imports it.

    Args:
        extra: the extra of jaf-memory-bridges that installs the engine.
        module: the engine's module.
        distribution: what brings it.
        versions: which the bridge was made for, from one on and below another, such as `">=2.6.22,<2.7"`.

    Raises:
        ModuleNotFoundError: it is not installed, or in another version; the text names the command that installs it.
    """
    bridge = f"jaf_memory_bridges.{extra.replace('-', '_')}"
    command = f'pip install "jaf-memory-bridges[{extra}]"'
    if not is_there(module):
        raise ModuleNotFoundError(f"{bridge} needs {distribution}, which is not installed: {command}", name=module)
    found = next((one for one in metadata.distributions(name=distribution)), None)
    first, end = (_numbers(bound) for bound in versions.split(","))
    if found is not None and not first <= _numbers(found.version) < end:
        raise ModuleNotFoundError(
            f"{bridge} needs {distribution} {versions}, not {found.version}: {command}",
            name=module,
        )


def is_there(module: str) -> bool:
    """Whether a module can be found, without importing more than the packages above it."""
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it is not
        return False


def _numbers(version: str) -> tuple[int, ...]:
    """A release's numbers; what follows them (`rc1`, `.post2`) decides nothing here."""
    release = re.match(r"[<>=]*(\d+(?:\.\d+)*)", version)
    return tuple(map(int, release[1].split("."))) if release else ()
