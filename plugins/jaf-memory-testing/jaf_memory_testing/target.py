"""`Target`: what the author of a provider tells the kit, and what the kit can do with a store by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

FEATURES: Mapping[str, str] = {
    "processes": "other processes see the same conversations",
    "reopen": "a provider that is opened after another was closed finds what that one stored",
    "backend": "the provider stands on a `Backend`",
    "stall": "the target can keep the store from answering",
    "outage": "the target can take the store away, and bring it back",
    "dump": "the target can show everything that is stored",
}
"""What some checks need, by the name that `Target.declares` uses.

The first three are expected of every target; the others are the target's own help, and count as not offered without it.
"""


@dataclass(frozen=True)
class Target:
    """One store, empty at the beginning of each check, and how to open providers on it.

    Attributes:
        open: opens a provider on the store: `await open(max_messages=3)`. Called several times, it gives several
            providers on the same store. The settings are fields of `ProviderConfig`; where there are none, yours count.
        elsewhere: the same, as another process calls it; `open` itself when `None`. A function at the top of a module
            (a test file will do), or a `functools.partial` of one.
        clean: awaited after each check, when all its providers are closed; for what a fixture cannot do without a loop.
        stall: `async with stall():` keeps the store from answering a write.
        outage: `async with outage():` makes the store unreachable; behind it, it is back.
        dump: everything that is stored, indexes included, as one comparable value whose `repr` shows texts and ids.
        declares: feature, check or class of checks → why the store does not offer it. The checks are skipped, and the
            report shows the reason.
    """

    open: Callable[..., Awaitable[Any]]
    elsewhere: Callable[..., Awaitable[Any]] | None = None
    clean: Callable[[], Awaitable[None]] | None = None
    stall: Callable[[], AbstractAsyncContextManager[None]] | None = None
    outage: Callable[[], AbstractAsyncContextManager[None]] | None = None
    dump: Callable[[], Awaitable[Any]] | None = None
    declares: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, feature: str) -> str | None:
        """Why a feature is not offered, or `None` if it is."""
        if feature in self.declares:
            return self.declares[feature]
        if feature in {"stall", "outage", "dump"} and getattr(self, feature) is None:
            return f"the target has no `{feature}`"
        return None
