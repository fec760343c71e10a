"""The simulated event loop. The one module that knows detangle, so that another engine can take its place."""

import asyncio
import dataclasses

import detangle

NotLinearizable = detangle.NotLinearizable
History = detangle.History
Model = detangle.lin.Model
flip, choice, randint, note, spawn, now = (
    detangle.flip,
    detangle.choice,
    detangle.randint,
    detangle.note,
    detangle.spawn,
    detangle.now,
)
Cancelled = detangle.InjectedTimeout
pause = asyncio.sleep
impatient = detangle.maybe_timeout
"""Wait for something, but be cancelled at any of its awaits."""

STEPS = 400_000
"""Steps of a schedule after which it counts as one that never ends."""


ORDERS = 60_000
"""Steps of the search for an order that explains a history; beyond it the history is left undecided, and counted."""


def explained(history, model):
    """Whether an order of the calls explains a history; false where that could not be decided in time.

    Raises:
        NotLinearizable: there is none.
    """
    try:
        result = detangle.lin.check(history.operations, model, budget=ORDERS)
    except RuntimeError:
        return False
    if not result.ok:
        raise NotLinearizable(result.explain(), result)
    return True


@dataclasses.dataclass
class Found:
    """What a schedule showed that must not be.

    Attributes:
        kind: what went wrong: an exception, a deadlock, something left behind.
        text: what it says, with the interleaving that led there.
        token: replays it.
        schedules: how many were run until then.
    """

    kind: str
    text: str
    token: str
    schedules: int


OPTIONS = {
    "net": {"latency": (0.0005, 0.02), "fragment": 0.2},
    "check_leaks": True,
    "max_steps": STEPS,
}


def explore(scenario, schedules, seed, *, shrink=False):
    """Run a scenario under so many schedules, by turns at random and as a few context switches would order them.

    Returns:
        the first fault, as `Found`, or `None`.
    """
    try:
        # The first one, in the order of asyncio's own loop and over a calm line, warms what a process and a server keep
        # (scripts, prepared formats), so that a token replays the same in another process.
        detangle.run(scenario, **OPTIONS)
    except Exception as error:  # noqa: BLE001  (whatever it is, this schedule shows it)
        return Found(type(error).__name__, f"found a bug after 1 runs, before any fault: {error!r}", "", 1)
    try:
        detangle.explore(scenario, runs=schedules, seed=seed, shrink=shrink, database=False, **OPTIONS)
    except detangle.BugFound as bug:
        report = bug.report
        return Found(report.failure.kind, str(bug), report.token, report.runs)
    return None


def replay(scenario, token):
    """Run the one schedule of a token; raises what it shows."""
    detangle.run(scenario, **OPTIONS)
    detangle.explore(scenario, replay=token, database=False, **OPTIONS)
