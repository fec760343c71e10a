"""Forks the kit's other processes from one that has imported the kit, and done nothing else.

A process of Python that imports the kit takes half a second of a processor, and a check may ask for sixteen. What a
store brings is imported in the fork, so that no driver ever meets one. This file is run as a program, too.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

_LONGEST = 64
"""Bytes of a message: a process's number, or how it ended."""


class ForkServer:
    """The process that forks; it ends with ours.

    Args:
        path: its `sys.path`.
    """

    def __init__(self, path: list[str]) -> None:
        self._line, theirs = socket.socketpair()
        self._turn = threading.Lock()
        with theirs:
            command = [sys.executable, str(Path(__file__)), json.dumps(path)]
            self._process = subprocess.Popen(command, stdin=theirs.fileno())  # noqa: S603  (our own file)
        atexit.register(self.close)

    @property
    def runs(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def start(self, streams: list[int]) -> int:
        """Fork; the number of the process that has these for its three streams."""
        with self._turn:
            socket.send_fds(self._line, [b"fork"], streams)
            return int(self._line.recv(_LONGEST))

    def wait(self, pid: int) -> int:
        """Wait until a process has ended; its status, as `Popen.returncode` tells it."""
        with self._turn:
            self._line.send(str(pid).encode())
            return int(self._line.recv(_LONGEST))

    def close(self) -> None:
        """End it."""
        atexit.unregister(self.close)
        self._line.close()
        self._process.wait()


class Forked:
    """A process from the server, with what the kit uses of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, errors: IO[bytes]) -> None:
        self._server = server
        self.returncode: int | None = None
        reads, writes = os.pipe()
        hears, tells = os.pipe()
        self.stdin, self.stdout = os.fdopen(writes, "w"), os.fdopen(hears)
        try:
            self.pid = server.start([reads, tells, errors.fileno()])
        finally:
            os.close(reads)
            os.close(tells)

    def kill(self) -> None:
        """End it at once, if it has not been waited for."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended."""
        if self.returncode is None:
            self.returncode = self._server.wait(self.pid)
        return self.returncode


_servers: dict[Any, ForkServer] = {}


def python(file: str, errors: IO[bytes]) -> Forked | subprocess.Popen[str]:
    """Start a process that runs `file`, the kit's worker: forked where the system is known to bear it."""
    if sys.platform != "linux":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, file], **pipes, stderr=errors, text=True)  # noqa: S603
    # What Python takes from these when it starts, it cannot take later.
    ours = tuple(sorted((name, text) for name, text in os.environ.items() if name.startswith("PYTHON")))
    like = (os.getpid(), tuple(sys.path), ours)
    if like not in _servers or not _servers[like].runs:
        _servers[like] = ForkServer(sys.path)
    return Forked(_servers[like], errors)


def _is_forked() -> bool:
    """Fork whenever somebody asks; `True` in each new process, `False` here when nobody will ask again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as line:
        while True:
            message, streams, _, _ = socket.recv_fds(line, _LONGEST, 3)
            if not message:
                return False
            if not streams:
                status = os.waitstatus_to_exitcode(os.waitpid(int(message), 0)[1])
                line.send(str(status).encode())
                continue
            child = os.fork()
            if not child:
                break
            for stream in streams:
                os.close(stream)
            line.send(str(child).encode())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return True


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    from jaf_memory_testing import worker

    if _is_forked():
        worker.main()
