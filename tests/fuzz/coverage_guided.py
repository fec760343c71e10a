"""A target under atheris, which looks for inputs that reach new code, until it is stopped or finds something.

python tests/fuzz/coverage_guided.py intake -max_total_time=3600
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["jaf_memory_core", "jaf_memory_cli", "json"]):
    from targets import SEEDS, TARGETS


def prepared(folder: Path, seeds: tuple[bytes, ...]) -> list[str]:
    """Options for a start from these seeds, with their words as a dictionary: random bytes are hardly ever JSON."""
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)
    words = sorted({word.decode() for seed in seeds for word in re.findall(rb"[\w:.-]+", seed)})
    dictionary = folder.with_suffix(".words")
    dictionary.write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    return [str(folder), f"-dict={dictionary}"]


if __name__ == "__main__":
    name, *options = sys.argv[1:]
    start = prepared(Path(tempfile.mkdtemp()), SEEDS[name])
    atheris.Setup([sys.argv[0], *start, *options], TARGETS[name])
    atheris.Fuzz()
