"""The command line, `jaf-memory`. It needs typer and rich; importing this module does not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

INSTALL = "pip install typer rich"


def main() -> int:
    """Run `jaf-memory` with the arguments of this process.

    Returns:
        the exit status; `docs/command-line.md` has what each means.
    """
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"jaf-memory needs {' and '.join(missing)}; to install what is missing: {INSTALL}\n")
        return 2
    from jaf_memory_cli.app import run

    return run()
