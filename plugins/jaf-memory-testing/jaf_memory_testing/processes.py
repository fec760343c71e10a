"""Processes of their own, that work on the store beside the check."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle  # of our own callable, to a process of our own; nothing that is stored is read so
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Any, Self

from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_testing import fork_server, worker
from jaf_memory_testing.checks import Checks, in_full, needs
from jaf_memory_testing.expectations import absent, done, let_expire, whole
from jaf_memory_testing.samples import ids, rich, talk
from jaf_memory_testing.target import PATIENCE, Store, Target

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
        self._child = fork_server.python(worker.__file__, self._errors)
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


class ProcessChecks(Checks):
    """What holds between processes."""

    @needs("processes")
    async def test_read_by_another_process(self, store: Store) -> None:
        """What is acknowledged here is at once there for another process, equal in every value."""
        provider = await store.open()
        done(await provider.store_messages("c", rich(), {"a": [1, 1.0, -0.0]}, user_id="u"))
        there = at_once(store.target, [("read_digest", {"conversation_id": "c"})])
        assert there == [digest(await whole(provider))]

    @needs("processes")
    async def test_appends_of_many_processes(self, store: Store) -> None:
        """Appends by 16 tasks in each of 4 processes all stay, once, each batch contiguous and in order."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        work = {"conversation_id": "c", "tasks": 16, "batches": 3, "size": 3}
        added = at_once(store.target, [("append_many", {**work, "name": f"p{n}"}) for n in range(4)])
        assert added == [16 * 3 * 3] * 4
        conversation = await whole(provider)
        found = ids(conversation.messages)
        assert len(found) == len(set(found)) == 4 * 16 * 3 * 3
        assert conversation.version == 1 + 4 * 16 * 3
        for start in range(0, len(found), 3):
            batch = found[start].removesuffix("0")
            assert found[start : start + 3] == [f"{batch}{n}" for n in range(3)], "a batch is torn"

    @needs("processes")
    async def test_sixteen_start_at_once(self, store: Store) -> None:
        """Sixteen processes may start at once on an empty store, and all that they store is there (by default six)."""
        number = 16 if in_full() else 6
        jobs = [("store_one", {"conversation_id": f"c{n}", "user_id": "u"}) for n in range(number)]
        assert at_once(store.target, jobs) == [1] * number
        provider = await store.open()
        found = await provider.find_conversations(MemoryQuery(user_id="u"))
        assert sorted(one.conversation_id for one in found) == sorted(f"c{n}" for n in range(number))

    @needs("processes", "reopen")
    async def test_killed_while_appending(self, store: Store) -> None:
        """When a writing process is killed, every acknowledged append is there, once and whole."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        acknowledged: list[str] = []
        for n in range(3):
            with Process(store.target, "append_until_killed", conversation_id="c", name=f"p{n}") as process:
                process.wait_until_ready()
                process.go()
                # Killed at another moment each time.
                for _ in range(20 + 7 * n):
                    told = process.next()
                    assert told is not None, "the process ended by itself"
                    acknowledged += told[1]
                process.kill()
                # What it told before it died was acknowledged, though nobody had read it yet.
                while (told := process.next()) is not None:
                    acknowledged += told[1]
            found = ids((await whole(provider)).messages)
            assert len(found) == len(set(found))
            assert set(acknowledged) <= set(found)
            assert all(found[i : i + 3] == [f"{found[i][:-1]}{k}" for k in range(3)] for i in range(0, len(found), 3))
        done(await provider.append_messages("c", talk(1)))

    @needs("processes")
    async def test_purged_by_many_processes(self, store: Store) -> None:
        """Any number of processes may purge at once: each expired conversation is counted once."""
        provider = await store.open()
        for n in range(30):
            done(await provider.store_messages(f"c{n}", talk(1)))
        await let_expire(provider, *(f"c{n}" for n in range(20)))
        assert sum(at_once(store.target, [("purge", {})] * 4)) == 20
        assert (await provider.get_stats())["total_conversations"] == 10

    @needs("processes")
    async def test_cleared_by_many_processes(self, store: Store) -> None:
        """When several processes clear one user at once, each conversation is counted once, and none is left."""
        provider = await store.open()
        for n in range(30):
            done(await provider.store_messages(f"c{n}", talk(1), user_id="u" if n % 3 else "v"))
        assert sum(at_once(store.target, [("clear_user", {"user_id": "u"})] * 4)) == 20
        await absent(provider, "c1")
        assert (await provider.get_stats("v"))["user_conversations"] == 10
