"""`SyncMemoryProvider`: any provider for scripts, notebooks and frameworks without asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from jaf_memory_core.errors import MemoryConnectionError, MemoryInvalidInputError
from jaf_memory_core.protocol import ManagedMemoryProvider, MemoryProvider

if TYPE_CHECKING:
    from jaf_memory_core.conversations import MemoryHealth
    from jaf_memory_core.observation import Observer
    from jaf_memory_core.processors import Processor
    from jaf_memory_core.sync_methods import SyncMethods
else:
    SyncMethods = object  # the methods are made at the end of this file; the stub tells type checkers of them

T = TypeVar("T")

BY_HAND = frozenset({"close", "for_user", "health_check"})
"""Methods of the protocol that are more than the same in blocking form."""


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.closed = False
        # A script that ends without `close` must not be kept alive.
        self._thread = threading.Thread(target=self._loop.run_forever, name="jaf-memory", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop, and wait for it."""
        with self._lock:
            # Under the lock: nothing is handed to a loop that `close` is about to stop.
            self._check()
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            text = "the provider was closed while the call was under way"
            raise MemoryConnectionError(text, retryable=False, outcome="unknown") from None
        finally:
            future.cancel()  # an interrupted caller takes no answer any more

    def _check(self) -> None:
        if self.closed:
            raise MemoryConnectionError("the provider is closed; create a new one", retryable=False)
        if self._pid != os.getpid():
            text = "the provider was made before a fork; create it in the process that uses it"
            raise MemoryConnectionError(text, retryable=False)
        if threading.current_thread() is self._thread:
            raise MemoryInvalidInputError(
                "a synchronous provider cannot be used in its own loop; use the async one there"
            )

    def close(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a last coroutine, end what is under way, and join the thread. Idempotent."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            # In the child of a fork there is no thread that could run it.
            if self._pid != os.getpid():
                return
            future = asyncio.run_coroutine_threadsafe(self._finish(work), self._loop)
        try:
            future.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _finish(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            # Callers in other threads wait for these; cancelled, each is told (see `run`).
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()


class SyncMemoryProvider(SyncMethods):
    """Every method of a provider, blocking; from any thread, also one whose event loop runs (which then stands still).

    Arguments, answers and errors are those of the async provider; its iterators are plain iterators. All of it runs on
    one private loop, in one thread, which `close` joins.

    Args:
        provider: the async provider; not to be used elsewhere from now on. Closing this one closes it.

    Raises:
        MemoryInvalidInputError: this is no provider.

    Example:
        with SyncMemoryProvider.from_env() as provider:
            provider.append_messages("user-123:chat", [Message("user", "Hello!")], create=True)
            for conversation in provider.iter_conversations():
                print(conversation.conversation_id, conversation.messages[-1].content)
    """

    def __init__(self, provider: MemoryProvider) -> None:
        if not isinstance(provider, MemoryProvider):
            raise MemoryInvalidInputError(f"an async provider is needed, not a {type(provider).__name__}")
        self._provider: Any = provider
        self._loop = _Loop()
        self._owner = True

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        processors: Sequence[Processor] = (),
        observers: Sequence[Observer] = (),
    ) -> SyncMemoryProvider:
        """Create and open the provider that the environment describes; see `create_memory_provider_from_env`."""
        # Late: any provider can be made synchronous, also where nobody asks the environment.
        from jaf_memory_core.factory import create_memory_provider_from_env

        loop = _Loop()
        try:
            provider = loop.run(
                lambda: create_memory_provider_from_env(environ, processors=processors, observers=observers)
            )
        except BaseException:
            loop.close(_nothing)
            raise
        return cls._on(loop, provider, owner=True)

    @classmethod
    def _on(cls, loop: _Loop, provider: MemoryProvider, *, owner: bool) -> SyncMemoryProvider:
        door = cls.__new__(cls)
        door._provider, door._loop, door._owner = provider, loop, owner  # noqa: SLF001  (our own)
        return door

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._provider!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        # Reached for what the class has not: what a provider offers beyond the protocol, and what it does not offer.
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._provider, name)
        if inspect.iscoroutinefunction(value):
            return functools.wraps(value)(lambda *given, **named: self._loop.run(lambda: value(*given, **named)))
        return value

    def for_user(self, user_id: str) -> SyncMemoryProvider:
        """A provider that sees and writes that user's conversations only; closing it closes nothing."""
        return self._on(self._loop, self._provider.for_user(user_id), owner=False)

    def health_check(self) -> MemoryHealth:
        """How the provider and its store are; never raises for a closed one."""
        try:
            health: MemoryHealth = self._loop.run(self._provider.health_check)
        except MemoryConnectionError as error:
            name = getattr(self._provider, "name", "")
            return {
                "healthy": False,
                "provider": name,
                "error": str(error),
                "latency_ms": 0.0,
                "warnings": [],
                "metrics": {"active_connections": 0, "memory_usage": 0, "avg_response_time": 0.0},
                "details": {},
            }
        return health

    def close(self) -> None:
        """Close the provider, and end the private loop and its thread. Idempotent."""
        if self._owner:
            self._loop.close(getattr(self._provider, "close", _nothing))


async def _nothing() -> None:
    return None


def _blocking(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: SyncMemoryProvider, *given: Any, **named: Any) -> Any:
        asked = getattr(self._provider, name)  # what it does not offer is an AttributeError, before anything runs
        return self._loop.run(lambda: asked(*given, **named))

    return call


def _iterating(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def iterate(self: SyncMemoryProvider, *given: Any, **named: Any) -> Iterator[Any]:
        asked: AsyncIterator[Any] = getattr(self._provider, name)(*given, **named)
        return _pulled(self._loop, asked)

    return iterate


def _pulled(loop: _Loop, source: Any) -> Iterator[Any]:
    async def pull() -> tuple[Any, bool]:
        try:
            return await source.__anext__(), True
        except StopAsyncIteration:
            return None, False

    try:
        while True:
            item, more = loop.run(pull)
            if not more:
                return
            yield item
    finally:
        # With its loop the iterator has ended as well (`shutdown_asyncgens`).
        if not loop.closed:
            loop.run(source.aclose)


def _generate() -> None:
    for name, method in {**vars(MemoryProvider), **vars(ManagedMemoryProvider)}.items():
        if name.startswith("_") or name in BY_HAND or not callable(method):
            continue
        make = _blocking if inspect.iscoroutinefunction(method) else _iterating
        door = make(name, method)
        door.__qualname__ = f"SyncMemoryProvider.{name}"
        setattr(SyncMemoryProvider, name, door)


_generate()
