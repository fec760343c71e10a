"""The guard: how an operation is tried. Deadlines, retries, translated errors and observers stand only here."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.deadline import Begun, Deadline, begin, is_never_sent
from jaf_memory_core.errors import MemoryConflictError, MemoryConnectionError, MemoryError, MemoryStorageError
from jaf_memory_core.observation import Observation, Observer, Observers, Tally
from jaf_memory_core.outages import Outage, tell_slow
from jaf_memory_core.records import Damaged, Record

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend
    from jaf_memory_core.settings import ProviderConfig

logger = logging.getLogger("jaf_memory_core")

T = TypeVar("T")

REPEATABLE = frozenset(
    {
        "append_messages",
        "get_conversation",
        "get_recent_messages",
        "get_messages",
        "get_last_messages",
        "get_conversation_until_message",
        "get_condensed_conversation",
        "find_conversations",
        "search_messages",
        "iter_users",
        "iter_conversations",
        "get_stats",
    }
)
"""Operations that may be sent again after a lost answer: reads, and appends to existing conversations."""

READING = REPEATABLE - {"append_messages"}
"""Those of them that change nothing, whether they were sent or not."""

UNASKED = frozenset({"open", "iter_conversations"})
"""Operations whose end need not mean that the store has answered just now."""


class Guard:
    """Runs every operation of one backend, for a provider and for all its `for_user` views."""

    def __init__(self, backend: Backend, config: ProviderConfig, observers: Sequence[Observer] = ()) -> None:
        self.backend = backend
        self.operation_timeout = config.operation_timeout
        # A locked file is only in use; a server that refuses may be away for long, and who waits hears of it sooner.
        self.reconnect_timeout = config.operation_timeout if backend.patient else config.reconnect_timeout
        self.failures: tuple[type[Exception], ...] = (MemoryError, *backend.driver_errors)
        self._observers = Observers(observers, backend) or None  # what nobody watches pays for nothing
        self.outage = Outage(backend.name)
        self._slow = math.inf if config.slow_operation is None else config.slow_operation
        self._answered = 0.0
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self._operations = 0
        self._seconds = 0.0

    @property
    def average_seconds(self) -> float:
        """Mean duration of the operations so far."""
        return self._seconds / self._operations if self._operations else 0.0

    def run(
        self,
        operation: str,
        call: Callable[[], Awaitable[T]],
        request: object = None,
        *,
        repeatable: bool | None = None,
        retry: bool = True,
        seconds: float | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Run one operation of the backend within the deadline.

        Args:
            operation: the provider's method, for errors and observers.
            call: makes the backend's coroutine; called again for each attempt.
            request: what is asked for, or the conversation's id: of it observers are told the size.
            repeatable: whether it may be sent again after a lost answer (default: by its name).
            retry: `False` tells at once how things stand.
            seconds: of the deadline, where it is not `operation_timeout`.

        Raises:
            MemoryConnectionError: not reached, not in time, closed, or in the wrong loop or process.
            MemoryError: what the backend refused, or what its driver's error was translated to.
        """
        if not self.backend.waits and self._observers is None:
            return self._at_once(operation, call)
        seconds = self.operation_timeout if seconds is None else seconds
        repeatable = operation in REPEATABLE if repeatable is None else repeatable
        return self._in_time(_Attempt(self, operation, seconds, repeatable, retry), call, request)

    async def _in_time(self, attempt: _Attempt, call: Callable[[], Awaitable[T]], request: object) -> T:
        # A step of an iteration is told to its tally, and observers are told of all of it.
        watched: Tally | Observation | None = request if request.__class__ is Tally else None
        if watched is None and self._observers is not None:
            watched = self._observers.begun(self.backend.name, attempt.operation, request)
        started = time.perf_counter()
        answer: Any = None
        error: BaseException | None = None
        try:
            self.check()  # ahead of the deadline: in the child of a fork no event loop runs that it could be of
            if self.backend.waits:
                with attempt:
                    # The first try stands here, and mostly is the last: each coroutine on the way would cost.
                    try:
                        if asyncio.get_running_loop() is not self._loop:
                            await attempt.opened()
                        attempt.count = 1
                        # Behind the opening: before that nothing can have been sent (`too_late`).
                        attempt.sending = True
                        answer = await call()
                    except self.failures as failed:
                        attempt.failed = failed
                    # Outside of the handler, so that what fails later has no earlier error as its context.
                    if attempt.failed is not None:
                        answer = await attempt.until_done(call)
            else:
                # Without a deadline: what never waits cannot be late, and is spared the timer.
                await self.ready()
                answer = await attempt.once(call)
        # The end of a scan is no error, and none to observers.
        except StopAsyncIteration:
            raise
        except BaseException as other:
            error = self._told(other, attempt, started)
            if error is not other:
                raise error from other
            raise
        finally:
            seconds = self._ended(attempt, started, error)
            if watched is not None:
                watched.end(seconds, attempt.count, error, answer, waited=attempt.waited)
        return answer  # type: ignore[no-any-return]

    async def _at_once(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """Run one operation of a store that never waits, and that nobody watches: it is not late, nor tried again."""
        if self._closed or self._pid != os.getpid() or asyncio.get_running_loop() is not self._loop:
            await self.ready()
        started = time.perf_counter()
        try:
            return await call()
        except self.failures as error:
            problem = self.problem(error, operation)
            raise problem from problem.__cause__ if problem is error else error
        finally:
            seconds = time.perf_counter() - started
            self._operations += 1
            self._seconds += seconds
            if seconds >= self._slow:
                tell_slow(self.backend.name, operation, seconds, 0, 0.0)

    def _told(self, error: BaseException, attempt: _Attempt, started: float) -> BaseException:
        """What an operation's caller is told of an error: of the deadline's, how things stand."""
        # A driver may raise a TimeoutError of its own: the deadline's is told by `expired`.
        if not (attempt.expired and isinstance(error, TimeoutError)):
            return error
        late = attempt.too_late(error)
        # One that is only slow answers others meanwhile.
        if self._answered < started:
            attempt.met_outage(late, failed=True)
        return late

    def problem(self, error: Exception, operation: str) -> MemoryError:
        """The error as ours, with the provider's name."""
        problem = error if isinstance(error, MemoryError) else self.backend.translate(error, operation)
        problem.provider = problem.provider or self.backend.name
        if isinstance(problem, MemoryStorageError):
            problem.operation = problem.operation or operation
        return problem

    def _ended(self, attempt: _Attempt, started: float, error: BaseException | None) -> float:
        """Take notice of an operation's end; how long it took."""
        now = time.perf_counter()
        seconds = now - started
        self._operations += 1
        self._seconds += seconds
        if error is None or (isinstance(error, MemoryError) and not isinstance(error, MemoryConnectionError)):
            self._answered = now
            # An iteration's step may come from what was read before, and `open` asks nothing of an open store.
            if self.outage.since is not None and attempt.asks:
                self.outage.over()
        if seconds >= self._slow:
            tell_slow(self.backend.name, attempt.operation, seconds, attempt.count - 1, attempt.waited)
        return seconds

    def iterate(self, operation: str, query: MemoryQuery) -> AsyncGenerator[Record | Damaged, None]:
        """Scan with a deadline for each wait; what is tried again goes on behind the last record.

        Observers are told of it as of one operation.
        """
        if self._observers is None:
            return self._records(operation, query, Tally())
        return self._watched(operation, query, self._observers)

    async def _watched(
        self, operation: str, query: MemoryQuery, observers: Observers
    ) -> AsyncGenerator[Record | Damaged, None]:
        tally = Tally()
        watched = observers.begun(self.backend.name, operation, query.conversation_id, encloses=False)
        records = self._records(operation, query, tally)
        try:
            async for record in records:
                tally.conversations += 1
                tally.messages += len(record.messages) if isinstance(record, Record) else 0
                yield record
        except GeneratorExit:
            raise  # whoever iterated has seen enough
        except BaseException as error:
            tally.error = error
            raise
        finally:
            await records.aclose()
            watched.end(tally.seconds, tally.attempts, tally.error, tally, waited=tally.waited)

    async def _records(
        self, operation: str, query: MemoryQuery, tally: Tally
    ) -> AsyncGenerator[Record | Damaged, None]:
        source = self.backend.scan(query)
        broken = False
        begun: Record | Damaged | Begun[Record | Damaged] | None = None
        last: Record | None = None
        # Behind the last record: what is tried again meets them a second time.
        damaged: set[str] = set()

        async def step() -> Record | Damaged:
            # An attempt like any other's, within the deadline of its wait: one that failed has ended its source.
            nonlocal source, broken, begun
            if broken:
                await _close_source(source)
                # The cursor stands behind the last record that was passed on, so that none comes twice.
                source = self.backend.scan(query if last is None else replace(query, cursor=last.cursor))
            broken = True
            waiting, begun = begun, None
            record = await (waiting if isinstance(waiting, Begun) else anext(source))
            broken = False
            return record

        try:
            while True:
                try:
                    if self._closed or self._pid != os.getpid() or asyncio.get_running_loop() is not self._loop:
                        record = await self.run(operation, step, tally)
                    else:
                        started = time.perf_counter()
                        begun = begin(anext(source))
                        self._seconds += (seconds := time.perf_counter() - started)
                        tally.seconds += seconds
                        if isinstance(begun, Begun):
                            record = await self.run(operation, step, tally)
                        else:
                            # It is there without any wait, as most of a stretch are, and cannot be late.
                            record = begun
                            self._stepped(operation, seconds)
                except StopAsyncIteration:
                    return
                if isinstance(record, Record):
                    last = record
                    damaged.clear()
                elif (named := record.error.conversation_id) in damaged:
                    continue
                elif named is not None:
                    damaged.add(named)
                yield record
        finally:
            await _close_source(source)

    def _stepped(self, operation: str, seconds: float) -> None:
        """Take notice of a record that came without any wait, as `_ended` does of an operation."""
        self._operations += 1
        self._answered = time.perf_counter()
        if self.outage.since is not None and operation not in UNASKED:
            self.outage.over()
        if seconds >= self._slow:
            tell_slow(self.backend.name, operation, seconds, 0, 0.0)

    def is_ready(self) -> bool:
        """Whether the backend is open on this loop; refuses as `check` does."""
        if self._closed or self._pid != os.getpid():
            self.check()
        return asyncio.get_running_loop() is self._loop

    async def ready(self) -> None:
        """Open the backend on this loop if it is not yet; refuse what must not go on."""
        if self.is_ready():
            return
        loop = asyncio.get_running_loop()
        if self.backend.loop_bound:
            await self._move_to(loop)
        else:
            await self.backend.open()
            self._loop = loop

    def check(self) -> None:
        """Refuse a provider that is closed, or that a fork has copied, before anything touches its connections.

        Raises:
            MemoryConnectionError: not retryable.
        """
        if self._closed:
            raise self._refused("the provider is closed; create a new one")
        if self._pid != os.getpid():
            raise self._refused("the provider was made before a fork; create it in the process that uses it")

    async def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self._loop
        if before is not None:
            # Only connections of a loop that runs no more may be thrown away: nobody waits on them.
            if before.is_running():
                raise self._refused("the provider is in use on another event loop; create one for each loop")
            self.backend.abandon()
            self._loop = None
        if self._opening is None or self._opening.get_loop() is not loop or self._opening.done():
            # A task of its own: the caller who came first may be cancelled while others wait for the same.
            self._opening = loop.create_task(self._open_on(loop))
            self._opening.add_done_callback(_heard)
        await asyncio.shield(self._opening)

    async def _open_on(self, loop: asyncio.AbstractEventLoop) -> None:
        await self.backend.open()
        self._loop = loop

    def _refused(self, text: str) -> MemoryConnectionError:
        return MemoryConnectionError(text, provider=self.backend.name, retryable=False)

    async def close(self) -> None:
        """Close the backend, once, within the deadline."""
        if self._closed:
            return
        # First: whatever comes while this waits is refused, and a second call does nothing.
        self._closed = True
        # The child of a fork closes nothing: the sockets are its parent's, too.
        if self._pid != os.getpid():
            return
        # Its connections belong to another loop, and can only be left behind.
        if self.backend.loop_bound and self._loop is not asyncio.get_running_loop():
            self.backend.abandon()
            return
        try:
            with Deadline(self.operation_timeout):
                await self.backend.close()
        except TimeoutError:
            logger.warning("closing provider %s took too long; its connections were left", self.backend.name)
            self.backend.abandon()


class _Attempt(Deadline):
    """The attempts of one operation, and their deadline."""

    # Of the class, so that most operations, which end at the first try, need not set them.
    _away_since: float | None = None
    _last: MemoryError | None = None
    failed: Exception | None = None
    sending = False
    _lost = False
    _met = False
    count = 0
    waited = 0.0

    def __init__(self, guard: Guard, operation: str, seconds: float, repeatable: bool, retry: bool) -> None:  # noqa: FBT001  (by place: each operation makes one)
        self._guard = guard
        self.operation = operation
        self._seconds = seconds
        self._repeatable = repeatable
        self._retry = retry

    async def until_done(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try again behind the error of the first try, and behind those that follow, until it is done."""
        for tries in count(1):
            error, self.failed = self.failed, None  # whoever keeps an error keeps what it was raised in
            assert error is not None
            problem = self._guard.problem(error, self.operation)
            # A driver may answer the deadline's cancellation with an error of its own.
            again = not self.expired and self._again(problem)
            self.met_outage(problem, failed=not again)
            self.sending = False
            self._lost = self._lost or problem.outcome != "not_applied"
            if not again:
                if self._lost and self.operation not in READING:
                    problem.outcome = "unknown"  # of this try nothing stands, and an earlier one may
                raise problem from problem.__cause__ if problem is error else error
            self._last = problem
            # Longer each time, and for each caller another: a server that comes back is not met by all of them at once.
            pause = random.uniform(0.5, 1.0) * min(1.0, 0.02 * 2 ** min(tries, 10))
            self.waited += pause
            await asyncio.sleep(pause)
            try:
                if not self._guard.is_ready():
                    await self.opened()
                self.count += 1
                self.sending = True
                return await call()
            except self._guard.failures as failed:
                self.failed = failed
        raise AssertionError("the deadline ends it")

    @property
    def asks(self) -> bool:
        """Whether its end says that the store has answered just now."""
        return self.operation not in UNASKED

    def met_outage(self, error: BaseException, *, failed: bool) -> None:
        """Take notice of an error that means that the store is away."""
        # What fails at the opening is told to whoever opens; a locked file is only in use.
        away = isinstance(error, MemoryConnectionError) and error.retryable and not self._guard.backend.patient
        if away and self.operation != "open":
            self._guard.outage.met(error, anew=not self._met, failed=failed)
            self._met = True

    async def opened(self) -> None:
        """Open the store; an error of its driver says that nothing was sent."""
        try:
            await self._guard.ready()
        except self._guard.backend.driver_errors as error:
            problem = self._guard.problem(error, self.operation)
            problem.outcome = "not_applied"  # nothing of the operation was sent yet
            raise problem from error

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        self.count += 1
        try:
            return await call()
        except self._guard.failures as error:
            problem = self._guard.problem(error, self.operation)
            raise problem from problem.__cause__ if problem is error else error

    def _again(self, error: MemoryError) -> bool:
        if isinstance(error, MemoryConflictError):
            return False  # another attempt is the caller's to make: a lease that is held may be held for minutes
        # What is wrong at the start is told at the start; but a server that is still starting will be right.
        retry = self._retry or (
            self.operation == "open" and isinstance(error, MemoryConnectionError) and error.starting
        )
        # What may stand already is sent again only where that changes nothing.
        if not (retry and error.retryable and (self._repeatable or error.outcome == "not_applied")):
            return False
        if not isinstance(error, MemoryConnectionError):
            self._away_since = None  # it has answered
            return True
        now = time.monotonic()
        # Since the first failure in a row: an answer in between begins anew.
        self._away_since = self._away_since or now
        return now - self._away_since < self._guard.reconnect_timeout

    def too_late(self, error: TimeoutError) -> MemoryConnectionError:
        """The deadline's error: nothing was applied where each try was refused, or was never sent."""
        sending = self.sending and not is_never_sent(error.__cause__)
        unsent = not (sending or self._lost) or self.operation in READING
        reason = f"; the last try failed: {self._last}" if self._last else ""
        return MemoryConnectionError(
            f"{self.operation} did not end within {self._seconds:g} s{reason}",
            provider=self._guard.backend.name,
            outcome="not_applied" if unsent else "unknown",
        )


def _heard(opening: asyncio.Task[None]) -> None:
    # Whoever waited may be gone; asyncio would then complain that nobody took the exception.
    if not opening.cancelled():
        opening.exception()


async def _close_source(source: Any) -> None:
    if hasattr(source, "aclose"):
        await source.aclose()
