"""A target under atheris, which looks for inputs that reach new code, until it is stopped or finds something.

python tests/fuzz/coverage_guided.py intake -max_total_time=3600
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["jaf_memory_core", "jaf_memory_cli"]):
    from targets import TARGETS

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
