"""Whether a provider loads, tried in a process of its own, because a broken plugin may crash or hang.

`python -m jaf_memory_cli.probe NAME` is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.registry import load


@dataclass(frozen=True)
class Probe:
    """How a provider loads in a process of its own.

    Attributes:
        ok: whether it does.
        error: why not, or `None`.
        summary: what its plugin says it is.
    """

    ok: bool
    error: str | None = None
    summary: str = ""


def probe(name: str, timeout: float = 30.0) -> Probe:
    """Try to load a provider in a process of its own, so that nothing of it stays in this one.

    Args:
        name: a provider's name.
        timeout: seconds after which the process is killed.

    Returns:
        whether it loads, and why not.
    """
    # The same path as here; without the flag, Python would put the current folder before it.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "jaf_memory_cli.probe", name]
    # A file, not a pipe: a pipe would wait for whatever the plugin itself has started.
    with tempfile.TemporaryFile() as output:
        try:
            status = subprocess.run(  # noqa: S603  (our own module; the name is no shell's business)
                command,
                check=False,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
            ).returncode
        except subprocess.TimeoutExpired:
            return Probe(ok=False, error=f"loading it takes more than {timeout:g} s")
        output.seek(0)
        # The last line only: the plugin may have written to standard output as well.
        last = output.read().decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    try:
        return Probe(**json.loads(last))
    except (ValueError, TypeError):
        return Probe(ok=False, error=f"loading it ended Python with status {status}")


def main(name: str) -> None:
    """Load one provider, and write what `probe` reads as the last line of standard output."""
    try:
        result = Probe(ok=True, summary=load(name).summary)
    except MemoryConfigurationError as error:
        result = Probe(ok=False, error=str(error))
    sys.stdout.write(f"\n{json.dumps(asdict(result))}\n")


if __name__ == "__main__":
    main(sys.argv[1])
