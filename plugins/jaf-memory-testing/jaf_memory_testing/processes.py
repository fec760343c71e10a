"""Processes of their own, that work on the store beside the check."""

from __future__ import annotations

import base64
import io
import json
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Any, Self

from jaf_memory_testing import store, worker
from jaf_memory_testing.target import Target

PATIENCE = 0.75 * store.PATIENCE
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
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        self._child = subprocess.Popen(  # noqa: S603  (our own file)
            [sys.executable, str(Path(worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._timer = threading.Timer(PATIENCE, self._child.kill)
        self._timer.start()
        self._send(json.dumps({"path": sys.path, "open": opens, "job": job, "arguments": arguments}))

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
