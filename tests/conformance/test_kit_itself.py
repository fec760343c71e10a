"""What the kit tells its user: what is not offered, what hangs, and what a target got wrong."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jaf_memory_testing as kit
import pytest
from broken_stores import Plain
from jaf_memory_testing import FEATURES, Checks, ProviderConformance, SixMethodConformance, Store, Target
from jaf_memory_testing.cells import PROMISES, REQUESTS, WHOLE, cells
from jaf_memory_testing.fields import DERIVED, RECORD_VALUES
from jaf_memory_testing.processes import Process, at_once

from jaf_memory_core import BackendProvider, MemoryError, WriteResult
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Record, Revise, Truncate, Write

FILE = """
from functools import partial
import pytest
from broken_stores import Plain
from jaf_memory_testing import BasicChecks, Checks, Target, needs, slow

def target_that(**declares):
    @pytest.fixture
    def target(self, tmp_path):
        return Target(open=Plain.target(tmp_path).open, declares=declares)

    return target

class TestOne(BasicChecks):
    target = target_that(test_delete="it keeps everything", test_recent_zero="no zero")

class TestNothing(BasicChecks):
    target = target_that(BasicChecks="nothing basic")

class TestMisspelt(BasicChecks):
    target = target_that(test_delte="it keeps everything")

class TestOther(Checks):
    @pytest.fixture
    def target(self, tmp_path):
        return Target(open=Plain.target(tmp_path).open)

    @needs("outage")
    async def test_needs_help(self, store):
        raise AssertionError("never reached")

    async def test_skips(self, store):
        pytest.skip("nothing to ask")

    async def test_fails(self, store):
        "What is promised."
        assert not store

    async def test_hangs(self, store):
        import asyncio
        await asyncio.sleep(60)

    async def test_hangs_blocked(self, store):
        import threading
        threading.Lock().acquire(timeout=60) and threading.Event().wait(60)

    @slow("takes its time")
    async def test_slow(self, store):
        pass

    @pytest.fixture
    def aims(self):
        return []

    def test_hangs_once(self, store, aims):
        import asyncio
        from hypothesis import given, strategies as st
        from jaf_memory_testing.checks import examples

        @examples(50)
        @given(st.integers())
        def wait(number):
            aims.append(number)
            assert len(aims) == 1, "tried " + "again"
            store.run(asyncio.sleep(60))

        wait()
"""


WITHOUT_HANGS = ("-v", "-k", "not hangs and (not TestMisspelt or test_smoke)")
"""Most of the file, in one run."""


@functools.cache
def _told(*arguments: str, patience: str = "60") -> str:
    """What a pytest of its own tells of the file; the same run is made once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test_it.py"
        file.write_text(FILE)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "jaf_memory_testing.report"]
        command += ["-p", "no:langsmith_plugin"]  # which takes longer than most of these runs
        command += ["-c", os.devnull, f"--rootdir={folder}", f"--basetemp={folder}/tests", "-W", "error", str(file)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAF_TEST_PATIENCE": patience}
        ended = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=600
        )
    return ended.stdout + ended.stderr


def test_what_an_import_leaves_comes_again_in_its_place() -> None:
    """A write that a backend leaves for later is sent again, and each answer stands with its own write."""

    class Late(InMemoryBackend):
        async def append_many(self, writes: Sequence[Write]) -> Sequence[WriteResult | MemoryError | None]:
            if len(writes) == 1:
                return await super().append_many(writes)
            return [None, *await super().append_many(writes[1:])]

    async def main() -> None:
        backend = Late()
        assert await REQUESTS["append many"]("c")(backend) == [WriteResult(2, 3, 1), WriteResult(1, 2, 2)]
        record = await backend.read("c")
        assert record is not None
        assert [message.message_id for message in record.messages] == ["n1", "n2", "n0"]

    asyncio.run(main())


class TestReport:
    """The report, in a run of its own."""

    def test_what_is_not_offered_is_listed(self) -> None:
        """The report lists each feature or check that is not offered, with its reason."""
        told = _told(*WITHOUT_HANGS)
        assert "= not offered =" in told
        assert "TestOne: test_delete (1 check): it keeps everything" in told
        assert "TestOne: test_recent_zero (1 check): no zero" in told
        assert "TestOther: outage (1 check): the target has no `outage`" in told
        assert "1 failed" in told  # which is meant to
        assert "1 error" in told  # the misspelt name

    def test_a_class_is_not_offered(self) -> None:
        """A whole class of checks may be declared, too."""
        told = _told(*WITHOUT_HANGS)
        number = sum(name.startswith("test_") for name in vars(kit.BasicChecks))
        assert f"TestNothing: BasicChecks ({number} checks): nothing basic" in told

    def test_a_name_that_means_nothing(self) -> None:
        """A declaration that names nothing is an error: it would hide a misspelling."""
        told = _told(*WITHOUT_HANGS)
        assert "Target.declares names 'test_delte': no feature, no check, and no class of checks" in told

    def test_a_check_that_hangs(self) -> None:
        """A check that hangs ends, and fails."""
        told = _told("-k", "hangs", patience="0.5")
        assert "the check hangs: it takes more than 0.5 s" in told
        assert "3 failed" in told

    def test_a_loop_that_is_blocked(self) -> None:
        """A check that blocks its event loop ends, fails, and shows where it stands."""
        told = _told("-k", "hangs", patience="0.5")
        assert "the event loop is blocked" in told
        assert "threading.Event().wait(60)" in told

    def test_a_hang_is_not_shrunk(self) -> None:
        """Hypothesis tries a check that hangs once, and looks for no smaller example."""
        told = _told("-k", "hangs", patience="0.5")
        assert "test_hangs_once" in told
        assert "tried again" not in told

    def test_what_python_cannot_end(self, tmp_path: Path) -> None:
        """What keeps the GIL is ended too, with the stacks of all threads."""
        program = "import jaf_memory_testing.target as t\nwith t.watching(0.3): sum(range(10**11))"
        command = [sys.executable, "-c", program]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )
        assert ended.returncode == 1
        assert "most recent call first" in ended.stderr

    def test_what_is_slow(self) -> None:
        """What only the long form runs is named at the end, and runs with `--jaf-slow`, or by the variable."""
        told = _told(*WITHOUT_HANGS)
        assert "= not run; --jaf-slow, or JAF_TEST_SLOW=1, runs it, and more random examples =" in told
        assert "TestOther (1 check): takes its time" in told
        assert "test_slow" not in told
        told = _told("-k", "test_slow or (TestOne and test_smoke)", "--jaf-slow")
        assert "2 passed" in told
        assert "not run" not in told

    def test_a_part_of_what_is_slow(self) -> None:
        """`--jaf-part` runs the short form and every second of what only the long form runs; a wrong one is told."""
        told = _told("-v", "-k", "test_slow or (TestOne and test_smoke)", "--jaf-part", "1/2")
        assert "2 passed" in told
        told = _told("-v", "-k", "test_slow or (TestOne and test_smoke)", "--jaf-part", "2/2")
        assert "1 passed" in told
        assert "TestOther (1 check): takes its time" in told
        assert "'5/4' is no part: 1/4, 2/4, 3/4 and 4/4" in _told("--jaf-part", "5/4")

    def test_from_basic_to_hostile(self) -> None:
        """The checks of a class run from basic to hostile, the smoke check first."""
        told = [line for line in _told(*WITHOUT_HANGS).splitlines() if "TestOne::" in line]
        assert "TestOne::test_smoke " in told[0]

    def test_one_area(self) -> None:
        """`--jaf-area` runs the checks of an area and nothing else; a wrong name lists all areas."""
        told = _told("--jaf-area", "basic", "--collect-only", "-q")
        assert "TestOne::test_smoke" in told
        assert "TestOther" not in told
        assert "no area is called tabel; there are activity, append, backend, basic" in _told("--jaf-area", "tabel")

    def test_a_failure_says_the_promise(self) -> None:
        """A failure shows the sentence that the check holds a store to, and how to run its area alone."""
        assert "What is promised." in _told(*WITHOUT_HANGS).split("the promise", 1)[1]

    def test_what_skips_itself_is_listed(self) -> None:
        """A check that finds out by itself that it has nothing to ask is listed with its reason."""
        assert "TestOther: test_skips (1 check): nothing to ask" in _told(*WITHOUT_HANGS)

    def test_the_reports_of_workers(self) -> None:
        """With pytest-xdist the list is the same."""
        pytest.importorskip("xdist")
        told = _told("-k", "TestOne and test_delete", "-n", "1")
        assert "TestOne: test_delete (1 check): it keeps everything" in told


class TestChecks:
    """The classes of checks themselves."""

    @pytest.fixture
    def checks(self) -> dict[str, Any]:
        """Every check, by its name."""
        return {
            name: value
            for kind in ProviderConformance.__mro__
            for name, value in vars(kind).items()
            if name.startswith("test_")
        }

    def test_number(self, checks: dict[str, Any]) -> None:
        """There are more than three hundred and fifty checks."""
        assert len(checks) > 350

    def test_each_says_what_it_promises(self, checks: dict[str, Any]) -> None:
        """Each check has a docstring: the sentence that it holds a provider to."""
        assert [name for name, check in checks.items() if not (check.__doc__ or "").endswith(".")] == []

    def test_the_table_of_mistakes_names_checks(self, checks: dict[str, Any]) -> None:
        """Each check that the documentation names is there."""
        page = (Path(__file__).parents[2] / "docs/conformance.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`(test_[a-z_]+)`", page))
        assert named
        assert sorted(named - set(checks)) == []

    def test_none_hides_another(self) -> None:
        """No two classes of checks have a check of the same name: one would hide the other."""
        seen: dict[str, str] = {}
        for kind in ProviderConformance.__mro__:
            for name in vars(kind):
                if name.startswith("test_"):
                    assert seen.setdefault(name, kind.__name__) == kind.__name__

    def test_all_classes_are_in_the_whole(self) -> None:
        """`ProviderConformance` has every class of checks that the kit exports."""
        exported = {getattr(kit, name) for name in kit.__all__ if name.endswith("Checks")}
        assert exported <= set(ProviderConformance.__mro__)
        assert set(SixMethodConformance.__mro__) < set(ProviderConformance.__mro__)
        assert Checks in exported

    def test_public_names(self) -> None:
        """`__all__` is sorted, and is all that the package offers."""
        offered = {name for name, value in vars(kit).items() if not name.startswith("_") and not _is_module(value)}
        assert offered - {"annotations", "Path"} == set(kit.__all__)
        assert len(set(kit.__all__)) == len(kit.__all__)

    def test_needs_are_features(self, checks: dict[str, Any]) -> None:
        """A check asks for features that there are."""
        assert {feature for check in checks.values() for feature in getattr(check, "needs", ())} == set(FEATURES)


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"


class TestTable:
    """The derived table."""

    def test_every_field_of_a_request_is_varied(self) -> None:
        """For each field of each request some entry of the table differs from the plain one; a new field needs one."""
        asked: list[Any] = []

        class Recorder(Plain):
            def __getattribute__(self, name: str) -> Any:
                if name in (
                    "store",
                    "append",
                    "amend",
                    "truncate",
                    "delete_messages",
                    "revise",
                    "fork",
                    "remove",
                    "append_many",
                ):
                    return partial(self._take)
                return super().__getattribute__(name)

            async def _take(self, request: Any, **_options: Any) -> Any:
                asked.extend(request if isinstance(request, list) else [request])
                return [0] * len(request) if isinstance(request, list) else 0

        async def collect() -> None:
            for make in REQUESTS.values():
                await make("key")(Recorder())

        asyncio.run(collect())
        for kind in (Write, Amend, Truncate, DeleteMessages, Revise, Fork):
            fixed = {"conversation_id", "bodies", "incarnation", "ids"}
            for field in set(kind.__struct_fields__) - fixed:
                values = [getattr(one, field) for one in asked if type(one) is kind]
                assert any(value != values[0] for value in values), f"nothing varies {kind.__name__}.{field}"

    def test_every_field_of_a_record_is_varied(self) -> None:
        """Each field of a record has values to be kept, or is a time."""
        times = {name for name in Record.__struct_fields__ if name.endswith("_at")}
        assert set(Record.__struct_fields__) - DERIVED - set(RECORD_VALUES) <= times

    def test_number_of_cells(self) -> None:
        """The table has more than two thousand cells."""
        assert cells() > 2_000

    def test_each_request_names_its_promise(self) -> None:
        """A failure can tell the contract's line."""
        assert {name.split()[0] for name in (*REQUESTS, *WHOLE)} == set(PROMISES)


class TestProcesses:
    """Handing a store to another process."""

    def test_nested_function(self) -> None:
        """A function within a function is refused with a word on what to do."""

        async def open_nested() -> BackendProvider:
            raise NotImplementedError

        with pytest.raises(ValueError, match="must be at the top of a module"):
            Process(Target(open=open_nested), "purge")

    def test_function_of_a_test_file(self) -> None:
        """A function at the top of a test file is found by the other process."""
        target = Target(open=partial(_open_here, "hello"))
        assert at_once(target, [("store_one", {"conversation_id": "c", "user_id": "u"})]) == [1]

    def test_what_is_around_a_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process has the folder, the variables and the time zone that its check has at that moment."""
        job = ("store_one", {"conversation_id": "c", "user_id": "u"})
        for name, zone in (("one", "KIT-05:30"), ("two", "UTC0")):
            place = tmp_path / name
            place.mkdir()
            monkeypatch.chdir(place)
            monkeypatch.setenv("TZ", zone)
            assert at_once(Target(open=partial(_open_where, str(place), zone)), [job]) == [1]

    def test_a_killed_process(self) -> None:
        """A process that is killed has ended when `kill` returns, and its status says how."""
        with Process(
            Target(open=partial(_open_here, "hello")), "append_until_killed", conversation_id="c", name="p"
        ) as one:
            one.wait_until_ready()
            one.kill()
            assert one._child.returncode == -signal.SIGKILL
            with pytest.raises(ProcessLookupError):
                os.kill(one._child.pid, 0)
            one.kill()

    def test_trouble_of_a_process(self) -> None:
        """What goes wrong in another process is shown with its traceback."""
        with pytest.raises(AssertionError, match=r"(?s)ended with status 1:.*ZeroDivisionError"):
            at_once(Target(open=_open_badly), [("purge", {})])

    def test_what_cannot_be_handed_over(self) -> None:
        """Arguments that cannot be pickled are said to be so."""
        with pytest.raises((TypeError, pickle.PicklingError)):
            Process(Target(open=partial(_open_here, threading.Lock())), "purge")


async def _open_here(word: str) -> BackendProvider:
    assert word == "hello"
    return BackendProvider(Plain())


async def _open_where(folder: str, zone: str) -> BackendProvider:
    assert (str(Path.cwd()), os.environ["TZ"], time.strftime("%z")) == (folder, zone, _OFFSETS[zone])
    return BackendProvider(Plain())


_OFFSETS = {"KIT-05:30": "+0530", "UTC0": "+0000"}


async def _open_badly() -> BackendProvider:
    raise ZeroDivisionError


class TestStore:
    """The loop and the providers of a check."""

    def test_closes_what_it_opened(self, tmp_path: Path) -> None:
        """Every provider that a check opened is closed, and the store cleaned, when it ends."""
        cleaned: list[bool] = []

        async def clean() -> None:
            await asyncio.sleep(0)
            cleaned.append(True)

        store = Store(Target(open=Plain.target(tmp_path).open, clean=clean))
        providers = [store.run(store.open()) for _ in range(3)]
        store.finish()
        assert cleaned == [True]
        assert all(provider._guard._closed for provider in providers)

    def test_ends_though_closing_fails(self) -> None:
        """The loop ends though a provider cannot be closed."""

        class Bad(BackendProvider):
            async def close(self) -> None:
                raise OSError("no")

        async def open_bad() -> BackendProvider:
            return Bad(Plain())

        store = Store(Target(open=open_bad))
        store.run(store.open())
        with pytest.raises(OSError, match="no"):
            store.finish()
        assert store._loop.is_closed()
