"""`Target`: what the author of a provider tells the kit; `Store`: what a check works with, watched; `FourMethods`."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import inspect
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Any, TypeVar, cast

from jaf_memory_core import rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Damaged, Record, Stamp

FEATURES: Mapping[str, str] = {
    "processes": "other processes see the same conversations",
    "reopen": "a provider that is opened after another was closed finds what that one stored",
    "backend": "the provider stands on a `Backend`",
    "stall": "the target can keep the store from answering",
    "outage": "the target can take the store away, and bring it back",
    "dump": "the target can show everything that is stored",
    "damage": "the target can damage the stored form of a conversation",
    "newer": "the target can write the number of a newer format",
    "power_cut": "the target can lose what was not synced, as a power cut does",
}
"""What some checks need, by the name that `Target.declares` uses.

The first three are expected of every target; the others are the target's own help, and count as not offered without it.
"""

HELP = tuple(FEATURES)[3:]
"""Features that are a field of `Target`."""


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
        damage: a name → `await damage[name](conversation_id)` damages the stored form of that conversation in this way,
            behind the store's back, so that a whole read of it cannot succeed. A text cut off, a row that is gone, a
            value of another type, and, where each conversation has its own, a newer format are ways.
        newer: `await newer(conversation_id)` writes the number of a newer format, of that conversation or of the store.
        power_cut: awaited, it drops what was written and never synced. All providers on the store are given up then.
        declares: feature, check or class of checks → why the store does not offer it. The checks are skipped, and the
            report shows the reason.
    """

    open: Callable[..., Awaitable[Any]]
    elsewhere: Callable[..., Awaitable[Any]] | None = None
    clean: Callable[[], Awaitable[None]] | None = None
    stall: Callable[[], AbstractAsyncContextManager[None]] | None = None
    outage: Callable[[], AbstractAsyncContextManager[None]] | None = None
    dump: Callable[[], Awaitable[Any]] | None = None
    damage: Mapping[str, Callable[[str], Awaitable[None]]] = field(default_factory=dict)
    newer: Callable[[str], Awaitable[None]] | None = None
    power_cut: Callable[[], Awaitable[None]] | None = None
    declares: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, feature: str) -> str | None:
        """Why a feature is not offered, or `None` if it is."""
        if feature in self.declares:
            return self.declares[feature]
        if feature in HELP and not getattr(self, feature):
            return f"the target has no `{feature}`"
        return None


T = TypeVar("T")

PATIENCE = float(os.environ.get("JAF_TEST_PATIENCE", "60"))
"""Seconds after which a check that hangs is ended."""


def _exact(find: Callable[[MemoryQuery], Awaitable[Sequence[Record | Damaged]]]) -> Any:
    """The backend's `find`, which must give what matches and nothing else, whatever the check is about.

    The provider filters again, and so hides a filter that is too wide until there is a `limit`.
    """

    async def exact(query: MemoryQuery) -> Sequence[Record | Damaged]:
        answer = await find(query)
        found = [one for one in answer if isinstance(one, Record)]
        wide = [one.conversation_id for one in found if not rules.matches(one, query)]
        assert not wide, f"`find` of the backend gives {wide[:5]}, which do not match {query!r}: a filter is too wide"
        assert query.limit is None or len(found) <= query.limit, f"`find` gives {len(found)} for limit={query.limit}"
        return answer

    return exact


class Store:
    """The target's store during one check, with an event loop of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        # One for the whole check: providers are opened, used and closed in several calls of `run`.
        self._loop = asyncio.new_event_loop()
        self._opened: list[BackendProvider] = []
        self.last_error: str | None = None

    async def open(self, **settings: Any) -> BackendProvider:
        """Open one more provider on the store; it is closed when the check ends."""
        provider = cast("BackendProvider", await self.target.open(**settings))
        self._opened.append(provider)
        self._listen(provider)
        return provider

    def _listen(self, provider: BackendProvider) -> None:
        backend = getattr(provider, "backend", None)
        # Listened to already: several providers may stand on one backend.
        if not isinstance(backend, Backend) or "translate" in vars(backend):
            return
        translate = backend.translate

        def heard(error: Exception, operation: str) -> MemoryError:
            ours = translate(error, operation)
            self.last_error = f"{error!r}, translated to {ours!r} in {operation}"
            return ours

        with contextlib.suppress(AttributeError):  # it may have slots
            backend.translate = heard  # type: ignore[method-assign]
            backend.find = _exact(backend.find)  # type: ignore[method-assign]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the check's loop."""
        with watching(PATIENCE):
            return self._loop.run_until_complete(self._patiently(work))

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        _, hanging = await asyncio.wait({task}, timeout=PATIENCE)
        if hanging:
            task.cancel()
            # Not for ever: what hangs may not hear of its cancellation either.
            await asyncio.wait({task}, timeout=PATIENCE / 10)
            told = f"; the last error of its driver: {self.last_error}" if self.last_error else ""
            raise CheckHangs(f"the check hangs: it takes more than {PATIENCE:g} s (JAF_TEST_PATIENCE){told}")
        try:
            return await task
        except MemoryError as error:
            if self.last_error:
                error.add_note(f"the last error of the driver: {self.last_error}")
            raise

    def finish(self) -> None:
        """Close every provider that the check opened, clean the store, and end the loop."""
        try:
            with watching(PATIENCE):
                self._loop.run_until_complete(self._clear())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _clear(self) -> None:
        for provider in reversed(self._opened):
            if hasattr(provider, "close"):
                await asyncio.wait_for(provider.close(), PATIENCE)
        if self.target.clean is not None:
            await self.target.clean()

    async def empty(self, provider: BackendProvider) -> None:
        """Remove every conversation, so that one check can try many cases."""
        async for conversation in provider.iter_conversations():
            await provider.delete_conversation(conversation.conversation_id)
        # An iteration does not show what has expired, and the next case would meet it.
        await provider.purge_expired()


def left_to_default(backend: Backend, name: str) -> bool:
    """Whether the backend has no form of its own for a request: the default over four methods answers."""
    return getattr(type(backend), name) is getattr(Backend, name)


class FourMethods(Backend):
    """Hides what a backend overrides for speed, so that the defaults of `Backend` work over its four methods."""

    def __init__(self, inner: Backend) -> None:
        if not isinstance(inner, Backend):
            raise MemoryConfigurationError(f"FourMethods is made over a Backend, not over a {type(inner).__name__}")
        self.inner = inner
        # All that `Backend` declares: the guard treats the two alike, whatever else it may be told one day.
        for attribute in inspect.get_annotations(Backend):
            setattr(self, attribute, getattr(inner, attribute))

    async def read(self, conversation_id: str) -> Record | None:
        """The inner backend's."""
        return await self.inner.read(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """The inner backend's."""
        return await self.inner.write(record, expected=expected)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """The inner backend's."""
        return await self.inner.delete(conversation_id, expected=expected)

    def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """The inner backend's."""
        return self.inner.scan(query)

    async def open(self) -> None:
        """The inner backend's."""
        await self.inner.open()

    async def close(self) -> None:
        """The inner backend's."""
        await self.inner.close()

    def abandon(self) -> None:
        """The inner backend's."""
        self.inner.abandon()

    def now(self) -> datetime:
        """The inner backend's."""
        return self.inner.now()

    def translate(self, error: Exception, operation: str) -> MemoryError:
        """The inner backend's."""
        return self.inner.translate(error, operation)


_stderr: list[int] = []


class CheckHangs(BaseException):
    """A check takes too long. No `Exception`: Hypothesis would look for the smallest example that hangs as well."""


def keep_stderr() -> None:
    """Remember where to write to, before pytest captures it."""
    if not _stderr:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _stderr.append(os.dup(sys.stderr.fileno()))


@contextlib.contextmanager
def watching(seconds: float) -> Iterator[None]:
    """Raise `CheckHangs` when the block takes longer though its loop is blocked; end the process if that fails, too.

    The alarm reaches what waits in Python: a lock, a sleep, a read. What keeps the GIL is ended by `faulthandler`'s
    thread of its own, with the stacks of all threads on stderr.
    """
    # Only the main thread hears signals, and an alarm of somebody else's is left alone.
    armed = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, None)
    )
    # The last of three: the loop's own time-out comes first, then the alarm, and both can say more.
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_stderr[0] if _stderr else sys.__stderr__ or 2)
    if armed:
        signal.signal(signal.SIGALRM, _alarm(seconds))
        signal.setitimer(signal.ITIMER_REAL, 1.2 * seconds)
    try:
        yield
    finally:
        if armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.cancel_dump_traceback_later()


def _alarm(seconds: float) -> Callable[[int, FrameType | None], None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise CheckHangs(
            f"the event loop is blocked: for more than {seconds:g} s (JAF_TEST_PATIENCE) nothing else got a turn. "
            "The traceback shows what blocks it; a backend must wait in a thread, or with `await`"
        )

    return ring
