"""`jaf-memory`, and programs that use the core, in forks of a process that has imported both: starts take no time."""

import atexit
import json
import subprocess
import sys
import tempfile
from pathlib import Path


class ForkServer:
    """The process that forks; it begins with the first program, and ends with ours."""

    def __init__(self):
        self._process = None

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
            status = self._answer(job)
            encoding = environ.get("PYTHONIOENCODING", "utf-8")
            out, err = ((streams / name).read_bytes().decode(encoding) for name in ("stdout", "stderr"))
        return status, out, err

    def _answer(self, job):
        if self._process is None:
            # Without its folder in the path: a module of ours must not stand in for one that a program imports.
            command = [sys.executable, "-P", str(Path(__file__).with_name("fork_server.py"))]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self._end)
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _end(self):
        with self._process as process:  # its input ends, and so does it
            process.stdin.close()


SERVER = ForkServer()
