"""The simulated event loop. The one module that knows detangle, so that another engine can take its place."""

import asyncio
import dataclasses

import detangle

from simulation import clocks

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

STEPS = 400_000
"""Steps of a schedule after which it counts as one that never ends."""


ORDERS = 60_000
"""Steps of the search for an order that explains a history; beyond it the history is left undecided, and counted."""


def explained(operations, model):
    """Whether an order of the calls explains what came of them; false where that could not be decided in time.

    Raises:
        NotLinearizable: there is none.
    """
    try:
        result = detangle.lin.check(operations, model, budget=ORDERS)
    except RuntimeError:
        return False
    if not result.ok:
        raise NotLinearizable(result.explain(), result)
    return True


WOKEN = 0.25
"""How many of those who are impatient are cancelled behind a wake-up, and not where they begin to wait."""


async def impatient(work, points):
    """Wait for something, but be cancelled: at one of its first awaits, or behind what it waited for there has come.

    The second is what a hand-over has to stand: who was given a connection or a turn, and will not use it any more.

    Raises:
        Cancelled: it was.
    """
    if not flip(WOKEN):
        return await detangle.maybe_timeout(work, points=points)
    task = asyncio.ensure_future(work)
    woken = _Woken(task, randint(1, points))
    detangle.invariant(woken)
    try:
        return await task
    except asyncio.CancelledError:
        if woken.cancelled and not asyncio.current_task().cancelling():
            raise Cancelled("cancelled behind a wake-up") from None
        raise


class _Woken:
    """Looks after each step whether what a task waits for has come while the task has not gone on yet."""

    def __init__(self, task, which):
        self._task, self._left, self._last = task, which, None
        self.cancelled = False

    def __call__(self):
        waits = None if self._left == 0 or self._task.done() else self._task._fut_waiter
        if waits is None or waits is self._last or not waits.done():
            return
        self._last = waits
        self._left -= 1
        if self._left == 0:
            self.cancelled = True
            note("cancelled behind a wake-up")
            self._task.cancel()


def moment(history):
    """Now, as the calls of a history count it."""
    return history._tick()


def until(operations, moment):
    """Calls as they stood at that moment: those that came later are left out, what went on has no outcome."""
    known = [one for one in operations if one.call < moment]
    return [
        dataclasses.replace(one, status="info", output=None, ret=None) if (one.ret or 0) > moment else one
        for one in known
    ]


def seen(place, moment, what, arguments, output):
    """A call that shows how things stood at a moment."""
    return detangle.lin.Operation(place, "observer", what, arguments, moment, 0.0, output, "ok", moment + 1, 0.0)


@dataclasses.dataclass
class Found:
    """What a schedule showed that must not be.

    Attributes:
        text: what it says, with the interleaving that led there.
        token: replays it.
        schedules: how many were run until then.
    """

    text: str
    token: str
    schedules: int


OPTIONS = {
    "net": {"latency": (0.0005, 0.02), "fragment": 0.2},
    "check_leaks": True,
    "max_steps": STEPS,
}


@clocks.simulated()
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
        return Found(f"found a bug after 1 runs, before any fault: {error!r}", "", 1)
    try:
        detangle.explore(scenario, runs=schedules, seed=seed, shrink=shrink, database=False, **OPTIONS)
    except detangle.BugFound as bug:
        report = bug.report
        return Found(str(bug), report.token, report.runs)
    return None


@clocks.simulated()
def replay(scenario, token):
    """Run the one schedule of a token; raises what it shows."""
    detangle.run(scenario, **OPTIONS)
    detangle.explore(scenario, replay=token, database=False, **OPTIONS)
