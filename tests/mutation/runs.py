"""The kit, collected once, and then run on one mutant after another: each in a forked child that imports it anew."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import math
import os
import pickle  # of our own traces, between a process and its own child
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, zip_longest
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NoReturn
from zlib import crc32

import pytest

from mutation.operators import Mutant
from mutation.reach import Trace, places, recorded
from mutation.subjects import ROOT, Subject

TIMES, MORE = 10, 5.0
"""A check may use so many times the seconds of a processor that it takes on the sound backend, and so many more."""

STILL = 60.0
"""Seconds for which a check, and what it has started, may use no processor at all. On a busy machine nothing else tells
what stands still from what waits for its turn."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        how: "caught", "hangs" (which is caught, too), "survived", "not reached" (which is survived, too), or
            "undecided", where not all checks that reach it were run.
        told: the check that failed or hung; how many passed.
    """

    how: str
    told: str


class Kit:
    """The checks of a subject, and what they do on the backend as it stands.

    Attributes:
        checks: their names.
        ids: what pytest calls them, and a number that changes with what they say.
        traces: what each of them does; `left_out` are those that fail, or that would stop a server.
    """

    def __init__(self, subject: Subject, items: Sequence[pytest.Item], folder: Path, shown: int) -> None:
        self._subject, self._items, self._folder, self._shown = subject, items, folder, shown
        self._failed: list[str] = []
        self._caught: Counter[int] = Counter()
        self.checks = [item.name for item in items]
        said = [inspect.getsource(item.function) for item in items]  # type: ignore[attr-defined]
        self.ids = [f"{item.nodeid} {crc32(text.encode())}" for item, text in zip(items, said, strict=True)]
        self.traces: list[Trace] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure. pytest calls this."""
        if report.failed:
            self._failed.append(report.nodeid)

    def say(self, line: str) -> None:
        """Show a line; what pytest says is not shown."""
        os.write(self._shown, line.encode() + b"\n")

    def record(self, told: Path | None = None) -> None:
        """Run each check once that is not told to pass in that file, of the package as it stands, and tell it there."""
        told = told or self._folder / "traces"
        package = ROOT / self._subject.package
        state = sha256(b"".join(file.read_bytes() for file in sorted(package.rglob("*.*")) if file.suffix != ".pyc"))
        known = pickle.loads(told.read_bytes()) if told.exists() else {}
        if known.get("") != state.digest():  # lines have moved
            known = {"": state.digest()}
        missing = [number for number, name in enumerate(self.ids) if name not in known or not known[name].passed]
        if missing:
            _forked(lambda _: self._write_traces(told, known, missing), self._folder / "said").wait()
            known = pickle.loads(told.read_bytes())
        self.traces = [known[name] for name in self.ids]

    def _write_traces(self, told: Path, known: dict[str, Any], numbers: Sequence[int]) -> None:
        following = [*numbers[1:], None]
        found = recorded(
            str(ROOT / self._subject.package), len(numbers), lambda at: self._passes(numbers[at], following[at])
        )
        known.update(zip((self.ids[number] for number in numbers), found, strict=True))
        self._leave()
        told.write_bytes(pickle.dumps(known))

    def _leave(self) -> None:
        """End what the checks of this process have started for the whole session."""
        if not self._subject.server:  # which all share, and only their parent may stop
            self._items[0].session._setupstate.teardown_exact(None)

    @property
    def left_out(self) -> list[str]:
        """Checks that cannot tell anything of a mutant: they fail, or would stop the server."""
        return [name for name, trace in zip(self.checks, self.traces, strict=True) if not trace.passed]

    def tried(self, file: Path, mutant: Mutant, seconds: float = math.inf) -> Outcome:
        """Run those checks that reach a mutant until one fails.

        Args:
            file: the module.
            mutant: what stands in it.
            seconds: only so many checks as take no longer on the backend as it is.
        """
        package = ROOT / self._subject.package
        where = places(file, file.read_text(encoding="utf-8"), mutant.line, package)
        reaching = [n for n, trace in enumerate(self.traces) if trace.passed and _reaches(trace, where)]
        if not where or (not reaching and file.suffix != ".py"):  # for example a part of other statements
            reaching = [n for n, trace in enumerate(self.traces) if trace.passed]
        others = [n for n, trace in enumerate(self.traces) if trace.passed and trace.processes]
        every = sorted({*reaching, *others}, key=self._cost)
        taken = accumulate(self.traces[number].seconds for number in every)
        order = [number for number, until in zip(every, taken, strict=True) if until <= seconds]
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            copy = Path(folder) / package.name
            shutil.copytree(package, copy)
            (copy / file.relative_to(package)).write_text(mutant.source, encoding="utf-8")
            child = _forked(lambda tell: self._try(copy, order, tell), self._folder / "said")
            outcome = self._outcome(child, order)
        if outcome.how == "survived" and not reaching:
            return Outcome("not reached", outcome.told)
        if outcome.how == "survived" and len(order) < len(every):
            return Outcome("undecided", f"{outcome.told}, of {len(every)}")
        return outcome

    def _cost(self, number: int) -> float:
        """Quick checks first, and before them such as have caught others."""
        return self.traces[number].seconds / (1 + 4 * self._caught[number])

    def _outcome(self, child: _Child, order: Sequence[int]) -> Outcome:
        running = None
        while (line := child.line()) is not None:
            word, _, number = line.partition(" ")
            if word == "passed":
                child.wait()
                return Outcome("survived", f"{len(order)} checks pass")
            if word == "import":
                child.wait()
                return Outcome("caught", "when it is imported")
            running = int(number)
            if word == "failed":
                child.wait()
                self._caught[running] += 1
                return Outcome("caught", self.checks[running])
        status = child.end()
        if running is None and status >= 0:
            raise RuntimeError(f"a child ends with {status}:\n{(self._folder / 'said').read_text()}")
        name = "its import" if running is None else self.checks[running]
        if running is not None:
            self._caught[running] += 1
        if status in (-signal.SIGKILL, -signal.SIGXCPU):
            return Outcome("hangs", f"{name} {'stands still' if status == -signal.SIGKILL else 'goes on and on'}")
        return Outcome("caught", f"{name}: the process ends with {status}")

    def _try(self, package: Path, order: Sequence[int], tell: Callable[[str], None]) -> None:
        """In the child: take the mutant in, and run the checks."""
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))  # an endless loop may fill the memory
        try:
            renew(self._subject.renewed or package.name, package, {item.module for item in self._items})  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001  (whatever a mutant may raise)
            tell("import")
            return
        for number, following in zip_longest(order, order[1:]):
            used = resource.getrusage(resource.RUSAGE_SELF)
            most = used.ru_utime + used.ru_stime + _limit(self.traces[number])
            resource.setrlimit(resource.RLIMIT_CPU, (int(most) + 1, resource.RLIM_INFINITY))
            tell(f"begun {number}")
            if not self._passes(number, following):
                self._leave()
                tell(f"failed {number}")
                return
        self._leave()
        tell("passed")

    def _passes(self, number: int, following: int | None = None) -> bool:
        """Run a check, and keep the fixtures that the following needs; those of the session stay as they are."""
        item = self._items[number]
        if self._subject.server and {"stall", "outage"}.intersection(getattr(item.function, "needs", ())):  # type: ignore[attr-defined]
            return False  # it would stop the server, that has another parent
        self._failed.clear()
        item.config.hook.pytest_runtest_protocol(
            item=item, nextitem=self._items[number - 1 if following is None else following]
        )
        return not self._failed

    def begin(self) -> None:
        """Start the server that all share."""
        if self._subject.server:
            self._passes(0)
        if threading.active_count() != 1:
            raise RuntimeError("a process with threads cannot be forked safely")


def _limit(trace: Trace) -> float:
    return TIMES * trace.seconds + MORE


def _reaches(trace: Trace, where: Sequence[tuple[str, range]]) -> bool:
    return any(not trace.lines.get(file, set()).isdisjoint(lines) for file, lines in where)


def ours() -> set[ModuleType]:
    """The modules of this repository that are imported."""
    return {one for one in sys.modules.values() if str(getattr(one, "__file__", "")).startswith(str(ROOT))}


def _forget() -> None:
    """Empty what our functions keep for the next call: it may come from a file of what is imported anew."""
    for module in ours():
        for value in vars(module).values():
            if isinstance(value, functools._lru_cache_wrapper):  # `pytest.mark` has whatever it is asked for, or fails
                value.cache_clear()


def renew(name: str, package: Path, users: set[ModuleType]) -> None:
    """Import a package, or one within it, anew from a copy, and hand that to all modules of ours that hold the old.

    Args:
        name: what is imported anew, with all below it.
        package: the copy.
        users: modules that hold the old, beside those that are imported.
    """
    sys.path.insert(0, str(package.parent))
    parent = name.rpartition(".")[0]
    if parent:
        sys.modules[parent].__path__.insert(0, str(package))
    old = [one for one in sys.modules if one == name or one.startswith(name + ".")]
    for one in old:
        del sys.modules[one]
    _forget()
    importlib.invalidate_caches()
    for one in old:
        importlib.import_module(one)
    for module in users | ours():
        for key, value in list(vars(module).items()):
            if isinstance(value, ModuleType) and value.__name__ in old:
                setattr(module, key, sys.modules[value.__name__])
            elif isinstance(value, type | FunctionType) and value.__module__ in old:
                setattr(module, key, getattr(sys.modules[value.__module__], value.__name__, value))


def collected(subject: Subject, work: Callable[[Kit], None], *, areas: str = "", checks: str = "") -> None:
    """Collect the kit of a subject, and hand it over; in a process that does nothing else.

    Args:
        subject: the backend.
        work: what is done with the kit.
        areas: pytest's `--jaf-area`.
        checks: pytest's `-k`.
    """
    os.environ.update(JAF_TEST_SHRINK="0", PYTHONDONTWRITEBYTECODE="1", PYTHONSAFEPATH="1")
    os.environ.setdefault("JAF_TEST_PATIENCE", "600")  # our own limits come first
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        hidden = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        shown = os.dup(1)
        os.dup2(hidden, 1)  # what pytest says
        arguments = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/tests"]
        arguments += ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-o", "tmp_path_retention_policy=failed"]
        arguments += [f"--jaf-area={areas}"] if areas else []
        arguments += ["-k", checks] if checks else []
        room = _Room(subject, work, Path(folder), shown)
        try:
            pytest.main([*arguments, *(str(ROOT / one) for one in subject.tests)], plugins=[room])
        finally:
            os.dup2(shown, 1)
        if room.trouble is not None:
            raise room.trouble
        if not room.worked:
            raise RuntimeError(f"the kit cannot be collected:\n{said.read_text()}")


class _Room:
    """pytest's plugin that has its checks tried on mutants, in the place of running them."""

    def __init__(self, subject: Subject, work: Callable[[Kit], None], folder: Path, shown: int) -> None:
        self._subject, self._work, self._folder, self._shown = subject, work, folder, shown
        self.worked = False
        self.trouble: Exception | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work."""
        kit = Kit(self._subject, session.items, self._folder, self._shown)
        session.config.pluginmanager.register(kit)
        try:
            kit.begin()
            self._work(kit)
        except Exception as error:  # noqa: BLE001  (pytest would make a line of it, and go on)
            self.trouble = error
        self.worked = True
        return True


class _Child:
    """A forked process that tells lines."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid, self._pipe, self._rest = pid, pipe, b""

    def line(self) -> str | None:
        """What it tells next; `None` where it stands still, or has ended."""
        used = -1
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._pipe], [], [], STILL)
            more = os.read(self._pipe, 1 << 16) if ready else b""
            before, used = used, self._used()
            if not more and (ready or used == before):
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def _used(self) -> int:
        """What it and all that it has started have used of processors, in ticks of the system."""
        used = 0
        for place in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = place.read_text().rpartition(")")[2].split()
                used += int(fields[11]) + int(fields[12]) if int(fields[3]) == self._pid else 0
        return used

    def wait(self) -> int:
        """Its exit status, once it ends; what it started is ended as well."""
        _, status = os.waitpid(self._pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)

    def end(self) -> int:
        """The same, at once."""
        ready, _, _ = select.select([self._pipe], [], [], 0)  # it has ended by itself, then
        if not ready:
            os.killpg(self._pid, signal.SIGKILL)
        return self.wait()


def _forked(work: Callable[[Callable[[str], None]], object], said: Path) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _in_child(work, reading, writing, said)
    os.close(writing)
    return _Child(pid, reading)


def _in_child(work: Callable[[Callable[[str], None]], object], reading: int, writing: int, said: Path) -> NoReturn:
    status = 70
    try:
        os.setsid()
        os.close(reading)
        hidden = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(hidden, 1)
        os.dup2(hidden, 2)
        work(lambda line: (os.write(writing, line.encode() + b"\n"), None)[1])
        status = 0
    except BaseException:  # noqa: BLE001  (whatever it is, the parent tells of it)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
