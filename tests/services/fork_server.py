"""Runs a program in a child of its own for each line of standard input, and answers with the exit status.

All that `jaf-memory` imports is here already, so that a test waits for its work and not for Python's start.
"""

import importlib
import json
import os
import runpy
import sys
import time
import traceback
from pathlib import Path

from jaf_memory_cli import main

LIBRARIES = ("importlib_metadata", "pydantic_settings", "jaf_memory_sqlite")
COMMANDS = ("app", "conversations", "diagnosis", "erasure", "migration", "transfer")
for module in (*LIBRARIES, *(f"jaf_memory_cli.{one}" for one in COMMANDS)):
    importlib.import_module(module)


def take_over(streams, encoding):
    """Make files the three streams, as a shell would, in the encoding that Python would give them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
        descriptor = os.open(Path(streams) / name, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
        errors = "backslashreplace" if name == "stderr" else "strict"
        opened = os.fdopen(number, "w" if number else "r", encoding=encoding, errors=errors, closefd=False)
        setattr(sys, name, opened)


def run(job):
    """Run one job; the exit status."""
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    time.tzset()
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    take_over(job["streams"], os.environ.get("PYTHONIOENCODING", "utf-8"))
    sys.argv = job["arguments"]
    try:
        if sys.argv[0] == "jaf-memory":
            return main()
        sys.path.insert(0, job["folder"])
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:  # noqa: BLE001  (the test shall see it)
        traceback.print_exc()
        return 1
    else:
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(run(json.loads(line)))
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    sys.stdout.flush()
