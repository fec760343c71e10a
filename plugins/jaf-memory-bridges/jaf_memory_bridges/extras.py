"""What an engine's bridge needs beside this distribution: the extra that installs it."""

from __future__ import annotations

from importlib import metadata, util


def require(extra: str, *, module: str, distribution: str, versions: tuple[str, ...]) -> None:
    """Make sure that an engine is there before its bridge imports it.

    Args:
        extra: the extra of jaf-memory-bridges that installs the engine.
        module: the engine's top-level module.
        distribution: what brings it.
        versions: beginnings of the versions that the bridge was made for, such as `("2.6.",)`.

    Raises:
        ModuleNotFoundError: it is not installed, or in another version; the text names the command that installs it.
    """
    bridge = f"jaf_memory_bridges.{extra.replace('-', '_')}"
    command = f'pip install "jaf-memory-bridges[{extra}]"'
    if util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{bridge} needs {distribution}, which is not installed: {command}", name=module)
    found = next((one for one in metadata.distributions(name=distribution)), None)
    if found is not None and not found.version.startswith(versions):
        raise ModuleNotFoundError(
            f"{bridge} needs {distribution} {' or '.join(f'{one}x' for one in versions)}, not "
            f"{found.version}: {command}",
            name=module,
        )
