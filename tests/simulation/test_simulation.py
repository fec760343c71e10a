"""A few schedules of every scenario on every store, the same each time, and some of the seeded faults."""

from importlib import resources

import pytest
from jaf_memory_testing import slow

from simulation import cycles, disk, engine, faults, features
from simulation.__main__ import SCENARIOS, opened

SCHEDULES = {"memory": 15, "sqlite": 4, "disk": 3, "redis": 4, "cluster": 1, "sentinel": 1, "postgres": 1}
"""So many of each scenario each time; `python3 dev.py simulate` runs as many as are wanted."""

LONGER = 20
"""So many times as many in the long form."""

LONG = slow("a process and some hundred schedules for each fault")

SAMPLE = (
    "a cancelled caller takes its place in the order of replies along",
    "a reply goes to the last who asked",
    "a lost connection is used again",
    "a lost answer is told as not applied",
    "a group is done again though it has committed",
    "the version does not grow",
)
"""Seeded faults that are looked for each time, as a handful of schedules shows them; the others in the long form."""


@pytest.fixture(scope="module", params=SCHEDULES)
def store(request):
    """A store under simulation."""
    if request.param == "disk":
        try:
            disk.shim()
        except (OSError, AttributeError) as error:
            pytest.skip(f"this Python hides its SQLite, so that nobody can come between it and the disk: {error}")
    with opened(request.param) as store:
        yield store


@pytest.mark.parametrize("times", [1, pytest.param(LONGER, marks=slow("many schedules"))])
@pytest.mark.parametrize("name", SCENARIOS)
def test_schedules(store, name, times):
    """No order of tasks, no cut and no cancellation shows anything that a provider promises not to do."""
    run = features.run_of(SCENARIOS[name], store)
    found = engine.explore(run, SCHEDULES[store.name] * times, seed=times)
    command = f"python3 dev.py simulate -- --store {store.name} --scenario {name} --replay"
    assert found is None, f"{found.text}\n{command} {found.token}"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{fault.store}: {fault.name}", marks=() if fault.name in SAMPLE else LONG)
        for fault in faults.FAULTS
    ],
)
def test_seeded_fault(fault):
    """A fault that was put into a copy of our code on purpose is found."""
    assert faults.run(fault, 400) is not None


def test_a_circle_is_seen():
    """Two who each see their own append, and not the other's which had ended before, see no one order."""
    history = engine.History()
    for client, chat, other in (("a", "x", "y"), ("b", "y", "x")):
        history.ok(history.invoke(client, "append", (chat, ((f"{client}0", "first"),))))
        history.ok(history.invoke(client, "read", (other,)), ((), 1))
    with pytest.raises(AssertionError, match="goes around in a circle"):
        cycles.check(history.operations, {"x": (("a0", "first"),), "y": (("b0", "first"),)})


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: f"{fault.store}: {fault.name}")
def test_the_place_of_a_fault_stands(fault):
    """What each seeded fault replaces is there, once: nearly all of them are put in by the long form alone."""
    place = resources.files(faults.PACKAGES[fault.package]) / fault.file
    assert place.read_text(encoding="utf-8").count(fault.old) == 1


def test_a_fault_has_its_place(tmp_path):
    """A fault whose place in the text is gone is an error, and not a fault that nobody finds."""
    (tmp_path / "guard.py").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="its place stands 0 times"):
        faults.put_into(tmp_path, faults.Fault("gone", "redis", "append", "core", "guard.py", "a place", ""))
