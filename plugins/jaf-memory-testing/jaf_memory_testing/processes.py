"""Processes of their own, that work on the store beside the check: forked from one that has imported the kit, no more.

A process of Python that imports the kit takes half a second of a processor, and a check may ask for sixteen. What a
store brings is imported in the fork, so that no driver ever meets one.
"""

from __future__ import annotations

import atexit
import base64
import io
import json
import os
import pickle  # of our own callable, to a process of our own; nothing that is stored is read so
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, TracebackType
from typing import IO, Any, Self

from jaf_memory_testing import worker
from jaf_memory_testing.target import PATIENCE, Target

_LONGEST = 64
"""Bytes of a message: a process's number, or how it ended."""

_SERVING = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from jaf_memory_testing import processes
processes.serve()
"""
"""The program of the process that forks."""


class ForkServer:
    """The process that forks; it ends with ours.

    Args:
        path: its `sys.path`.
    """

    def __init__(self, path: list[str]) -> None:
        self._line, theirs = socket.socketpair()
        self._turn = threading.Lock()
        with theirs:
            command = [sys.executable, "-P", "-c", _SERVING, json.dumps(path)]
            self._process = subprocess.Popen(command, stdin=theirs.fileno())  # noqa: S603  (our own text)
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


def serve() -> None:
    """Be the process that forks, or one of its children, which does a job."""
    if _is_forked():
        worker.main()


PROCESS_PATIENCE = 0.75 * PATIENCE
"""Seconds after which a process is ended: before the check is, so that it says why."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> tuple[str, str, str] | None:
        if not isinstance(value, FunctionType | type):
            return None
        module = sys.modules.get(value.__module__)
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            return None
        if "<" in value.__qualname__:
            raise ValueError(
                f"another process cannot find {value.__qualname__}: `Target.open` (or `elsewhere`) must be at the "
                "top of a module, or a functools.partial of such a function"
            )
        return value.__module__, file, value.__qualname__


def _pickled(open_: Callable[..., Any]) -> str:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(open_)
    return base64.b64encode(buffer.getvalue()).decode()


class Process:
    """One process with one job of `worker.py`; it is ready when this returns, and works from `go()` on."""

    def __init__(self, target: Target, job: str, **arguments: Any) -> None:
        opens = _pickled(target.elsewhere or target.open)
        # A file: nobody reads it meanwhile, and a full pipe would hold the process up.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        self._child = python(worker.__file__, self._errors)
        self._timer = threading.Timer(PROCESS_PATIENCE, self._child.kill)
        self._timer.start()
        around = {"path": sys.path, "folder": str(Path.cwd()), "environ": dict(os.environ)}
        self._send(json.dumps({**around, "open": opens, "job": job, "arguments": arguments}))

    def _send(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._timer.cancel()
        self._timer.join()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                stream.close()

    def wait_until_ready(self) -> None:
        """Return when it has imported everything."""
        assert self.next() == ("ready", None)

    def go(self) -> None:
        """Let it work."""
        self._send("go")

    def next(self) -> tuple[str, Any] | None:
        """The next thing that it tells; `None` when it has ended."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            # Whole lines only: a process that was killed may have left half of one.
            if line.startswith(worker.MARK) and line.endswith("\n"):
                kind, value = json.loads(line.removeprefix(worker.MARK))
                return kind, value
        return None

    def result(self) -> Any:
        """What its job returned; an `AssertionError` with its traceback if it failed."""
        while (told := self.next()) is not None:
            if told[0] == "done":
                return told[1]
        self._child.wait()
        self._errors.seek(0)
        raise AssertionError(
            f"a process ended with status {self._child.returncode}:\n{self._errors.read().decode(errors='replace')}"
        )

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        self._child.kill()
        self._child.wait()


def at_once(target: Target, jobs: Sequence[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Run one process a job, all at the same time; what each returned."""
    processes = [Process(target, job, **arguments) for job, arguments in jobs]
    try:
        for process in processes:
            process.wait_until_ready()
        for process in processes:
            process.go()
        return [process.result() for process in processes]
    finally:
        for process in processes:
            process.__exit__(None, None, None)
