"""`jaf-memory`, and programs that use the core, in forks of a process that has imported both: starts take no time."""

import atexit
import json
import subprocess
import sys
import tempfile
from pathlib import Path


class Jobs:
    """A process that takes a job a line, as JSON, and answers each by a line with its exit status.

    It begins with the first job, and ends with ours.

    Args:
        command: what it runs.
        options: of `subprocess.Popen`.
    """

    def __init__(self, command, **options):
        self._command, self._options = command, options
        self._process = None

    def done(self, job):
        """Have a job done; its exit status."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **self._options
            )
            atexit.register(self._end)
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _end(self):
        with self._process as process:  # its input ends, and so does it
            process.stdin.close()


class ForkServer:
    """The process that forks."""

    def __init__(self):
        # Without its folder in the path: a module of ours must not stand in for one that a program imports.
        self._forks = Jobs([sys.executable, "-P", str(Path(__file__).with_name("fork_server.py"))])

    def run(self, arguments, folder, environ, text=""):
        """Run a program to its end.

        Args:
            arguments: `jaf-memory` or a file of Python, and what follows it.
            folder: where.
            environ: all its variables.
            text: its standard input.

        Returns:
            Its exit status, and what it wrote to standard output and to standard error.
        """
        with tempfile.TemporaryDirectory() as place:
            streams = Path(place)
            (streams / "stdin").write_text(text, encoding="utf-8")
            job = {"arguments": arguments, "folder": str(folder), "environ": environ, "streams": place}
            status = self._forks.done(job)
            encoding = environ.get("PYTHONIOENCODING", "utf-8")
            out, err = ((streams / name).read_bytes().decode(encoding) for name in ("stdout", "stderr"))
        return status, out, err


SERVER = ForkServer()
