"""`Checks`: the base of all classes of checks; how many examples the random ones take."""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings

from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_testing.target import FEATURES, Store, Target

F = TypeVar("F", bound=Callable[..., Any])

NOT_OFFERED = "jaf_memory_not_offered"
"""Name of the property by which a report tells the feature and the reason of a check that was skipped."""


def needs(*features: str) -> Callable[[F], F]:
    """Mark a check that asks for something that not every store or target offers; see `FEATURES`."""

    def mark(check: F) -> F:
        check.__dict__["needs"] = features
        return check

    return mark


class Checks:
    """Checks as plain pytest methods; one that is a coroutine function runs on the loop of its `store`.

    A subclass named `Test…` gives the fixture `target`.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, check in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(check):
                setattr(cls, name, _on_loop(check))

    @pytest.fixture
    def target(self) -> Target:
        """The store under test; a subclass overrides this."""
        raise NotImplementedError("a class of checks needs a fixture `target` that returns a `Target`")

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest, target: Target) -> Iterator[Store]:
        """The target's store, if it offers what the check needs."""
        self._skip_what_is_not_offered(request, target)
        store = Store(target)
        try:
            yield store
        finally:
            store.finish()

    @pytest.fixture
    def local_time(self) -> Iterator[None]:
        """Local time ahead of UTC by five and a half hours."""
        if not hasattr(time, "tzset"):
            pytest.skip("this system cannot change its time zone")
        before = os.environ.get("TZ")
        os.environ["TZ"] = "KIT-05:30"
        time.tzset()
        yield
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()

    def _skip_what_is_not_offered(self, request: pytest.FixtureRequest, target: Target) -> None:
        topics = {kind.__name__: kind for kind in type(self).__mro__ if issubclass(kind, Checks)}
        for name in target.declares:
            if name not in FEATURES and name not in topics and not hasattr(self, name):
                raise ValueError(f"Target.declares names {name!r}: no feature, no check, and no class of checks")
        check = request.function.__name__
        within = [name for name, kind in topics.items() if check in vars(kind)]
        for name in (check, *within, *getattr(request.function, "needs", ())):
            reason = target.lacks(name)
            if reason is not None:
                request.node.user_properties.append((NOT_OFFERED, (name, reason)))
                pytest.skip(f"not offered: {reason}")


def _on_loop(check: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(check)
    def run(self: Checks, store: Store, **arguments: Any) -> None:
        store.run(check(self, store, **arguments))

    return run


SLOW = "JAF_TEST_SLOW"
"""`1` runs the long form, as `--jaf-slow` does."""


def in_full() -> bool:
    """Whether the long form runs."""
    return os.environ.get(SLOW, "0") not in ("", "0")


def slow(reason: str, *, but: tuple[type[Checks], ...] = ()) -> pytest.MarkDecorator:
    """Mark a check, or a target's class, that only the long form runs; `but` are classes of checks that always run.

    Raises:
        MemoryInvalidInputError: `but` is something else.
    """
    given: Any = but
    if not isinstance(given, tuple) or not all(isinstance(kind, type) and issubclass(kind, Checks) for kind in given):
        raise MemoryInvalidInputError("slow(but=...) takes a tuple of classes of checks")
    return pytest.mark.jaf_slow(reason, but=tuple(kind.__name__ for kind in but))


EXAMPLES = "JAF_TEST_EXAMPLES"
SHRINK = "JAF_TEST_SHRINK"
"""`0` shows the first failure that is found, without a search for the smallest."""


def examples(number: int, *, steps: int = 50) -> settings:
    """Settings for a random check: the same examples each time, unless the variable asks for so many new ones."""
    asked = os.environ.get(EXAMPLES)
    phases = [Phase.generate] if os.environ.get(SHRINK) == "0" else [Phase.generate, Phase.shrink]
    return settings(
        max_examples=int(asked) if asked else number if in_full() else min(number, 40),
        stateful_step_count=steps,
        # The same examples everywhere: what fails on one machine fails on the next.
        derandomize=not asked,
        database=None,
        phases=phases,
        # Hypothesis's own deadline would fail a check on a busy machine; the watchdog ends what hangs.
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
