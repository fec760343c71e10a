"""A few hundred schedules of every scenario on every store, the same each time, and some of the seeded faults."""

import pytest
from jaf_memory_testing import slow

from simulation import engine, faults, scenarios
from simulation.__main__ import opened

SCHEDULES = {"memory": 50, "sqlite": 15, "redis": 15, "postgres": 2}
"""So many of each scenario; `python3 dev.py simulate` runs as many as are wanted."""

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
    with opened(request.param) as store:
        yield store


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_schedules(store, name):
    """No order of tasks, no cut and no cancellation shows anything that a provider promises not to do."""
    found = engine.explore(scenarios.run_of(scenarios.SCENARIOS[name], store), SCHEDULES[store.name], seed=1)
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


def test_a_fault_has_its_place(tmp_path):
    """A fault whose place in the text is gone is an error, and not a fault that nobody finds."""
    (tmp_path / "guard.py").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="its place stands 0 times"):
        faults.put_into(tmp_path, faults.Fault("gone", "redis", "append", "core", "guard.py", "a place", ""))
