"""The guard: deadlines, retries, translation, events, loops."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from jaf_memory_testing.deadlines import GRACE, Stopwatch
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import (
    BackendProvider,
    Failure,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryQuery,
    MemoryStorageError,
    OperationEvent,
    ProviderConfig,
    Success,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.codec import damaged
from jaf_memory_core.deadline import Deadline, is_never_sent, never_sent, waiting
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.records import Damaged
from jaf_memory_core.steps import in_steps


class DriverError(Exception):
    """What a driver raises."""


class Line(InMemoryBackend):
    """A store behind a line, which does as the test says.

    Attributes:
        before, after: errors to raise before, or after, a request is done; each is raised once.
        hang: seconds for which a request waits.
        log: what was asked.
    """

    name = "line"
    waits = True
    driver_errors = (DriverError, OSError)

    def __init__(self):
        super().__init__()
        self.before = []
        self.after = []
        self.opening = []
        self.hang = 0.0
        self.log = []
        self.abandoned = 0

    async def open(self):
        """Open."""
        self.log.append("open")
        await asyncio.sleep(0)
        if self.opening:
            raise self.opening.pop(0)

    def abandon(self):
        """Forget."""
        self.abandoned += 1

    async def _line(self, name, request):
        self.log.append(name)
        try:
            await asyncio.sleep(self.hang)
            if self.before:
                raise self.before.pop(0)
            answer = await request
            if self.after:
                raise self.after.pop(0)
            return answer
        finally:
            request.close()

    async def read(self, conversation_id):
        """Read."""
        return await self._line("read", super().read(conversation_id))

    async def store(self, write):
        """Store."""
        return await self._line("store", super().store(write))

    async def append(self, write):
        """Append."""
        return await self._line("append", super().append(write))

    async def amend(self, amend):
        """Amend."""
        return await self._line("amend", super().amend(amend))

    async def tail(self, tail):
        """Read the end."""
        return await self._line("tail", super().tail(tail))

    async def remove(self, conversation_id, *, scope=None):
        """Delete."""
        return await self._line("remove", super().remove(conversation_id, scope=scope))

    async def ping(self):
        """Ping."""
        return await self._line("ping", super().ping())

    async def scan(self, query):
        """Scan."""
        self.log.append("scan")
        async for record in super().scan(query):
            await asyncio.sleep(self.hang)
            if self.before:
                raise self.before.pop(0)
            yield record

    def translate(self, error, operation):
        """Translate."""
        if isinstance(error, DriverError):
            return MemoryStorageError("the driver failed", operation=operation, retryable=error.args == ("again",))
        return super().translate(error, operation)


class Bound(Line):
    """The same, bound to one loop."""

    loop_bound = True


@pytest.fixture
def line():
    """The store."""
    return Line()


def over(line, **settings):
    """A provider over it."""
    return BackendProvider(line, ProviderConfig(**settings))


async def stored(line, **settings):
    """A provider with one conversation of two messages."""
    provider = over(line, **settings)
    await provider.store_messages("c", talk(2))
    line.log.clear()
    return provider


class TestRetries:
    """What is sent again."""

    def test_read(self, line):
        """A read whose answer was lost is sent again."""

        async def main():
            provider = await stored(line)
            line.after = [ConnectionResetError(), ConnectionResetError()]
            assert await provider.get_recent_messages("c") == talk(2)
            assert line.log == ["tail"] * 3

        asyncio.run(main())

    def test_append(self, line):
        """An append to an existing conversation whose answer was lost is sent again, and adds once."""

        async def main():
            provider = await stored(line)
            line.after = [ConnectionResetError()]
            result = await provider.append_messages("c", talk(2, "n"))
            assert isinstance(result, Success)
            assert line.log == ["append"] * 2
            assert ids(await provider.get_recent_messages("c")) == ["m0", "m1", "n0", "n1"]

        asyncio.run(main())

    @pytest.mark.parametrize(
        "call",
        [
            lambda provider: provider.store_messages("c", talk(3)),
            lambda provider: provider.append_messages("c", talk(3), create=True),
            lambda provider: provider.update_metadata("c", {"a": 1}),
            lambda provider: provider.set_expiry("c", 60),
            lambda provider: provider.delete_conversation("c"),
        ],
        ids=["store", "create", "update", "expiry", "delete"],
    )
    def test_other_writes(self, line, call):
        """Any other write whose answer was lost is not sent again: its outcome is unknown, and raised."""

        async def main():
            provider = await stored(line)
            line.after = [ConnectionResetError()]
            with pytest.raises(MemoryConnectionError) as caught:
                await call(provider)
            assert (caught.value.outcome, caught.value.retryable, caught.value.provider) == ("unknown", True, "line")
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            assert line.log.count(line.log[0]) == 1

        asyncio.run(main())

    @pytest.mark.parametrize(
        "later", [DriverError("no"), MemoryNotFoundError("c"), None], ids=["failed", "gone", "closed"]
    )
    def test_an_earlier_try_may_stand(self, line, monkeypatch, later):
        """What a later try says of itself is not told of the whole: one before, whose answer was lost, may stand."""

        async def main():
            provider = await stored(line)
            tries = [ConnectionResetError(), later]

            async def append(_):
                if later is None:
                    await provider.close()
                raise tries.pop(0)

            monkeypatch.setattr(line, "append", append)
            try:
                error = (await provider.append_messages("c", talk(3))).error
            except MemoryConnectionError as raised:
                error = raised
            assert error.outcome == "unknown"

        asyncio.run(main())

    def test_what_was_never_sent(self, line):
        """Where nothing was sent, any write is sent again."""

        async def main():
            provider = await stored(line)
            line.before = [ConnectionRefusedError(), ConnectionRefusedError()]
            assert await provider.update_metadata("c", {"a": 1}) == 2
            assert line.log == ["amend"] * 3

        asyncio.run(main())

    def test_not_retryable(self, line):
        """What cannot be helped by a retry is not tried again."""

        async def main():
            provider = await stored(line)
            line.before = [DriverError("no")]
            with pytest.raises(MemoryStorageError, match="the driver failed") as caught:
                await provider.get_recent_messages("c")
            assert caught.value.operation == "get_recent_messages"
            assert line.log == ["tail"]
            line.before = [DriverError("again")]
            assert await provider.get_recent_messages("c") == talk(2)

        asyncio.run(main())

    def test_refusals(self, line):
        """What the store refused is not tried again."""

        async def main():
            provider = await stored(line)
            with pytest.raises(MemoryNotFoundError) as caught:
                await provider.update_metadata("missing", {"a": 1})
            assert caught.value.provider == "line"
            assert line.log == ["amend"]

        asyncio.run(main())

    def test_storage_failure_is_an_answer(self, line):
        """A store that answered and failed is a `Failure` of the two writing methods."""

        async def main():
            provider = await stored(line)
            line.before = [DriverError("no")]
            result = await provider.append_messages("c", talk(3))
            assert isinstance(result, Failure)
            assert isinstance(result.error, MemoryStorageError)
            assert result.error.provider == "line"

        asyncio.run(main())

    def test_bugs_stay_bugs(self, line):
        """What no driver raises is a bug, and stays what it is."""

        async def main():
            provider = await stored(line)
            for error in (ZeroDivisionError(), KeyError("x"), RuntimeError("x")):
                line.before = [error]
                with pytest.raises(type(error)):
                    await provider.append_messages("c", talk(3))
            assert len(line.log) == 3

        asyncio.run(main())

    def test_until_the_deadline(self, line):
        """Retries end at the deadline, with the last reason."""

        async def main():
            provider = await stored(line, operation_timeout=0.5)
            line.before = [ConnectionRefusedError() for _ in range(1000)]
            started = time.monotonic()
            with (
                Stopwatch() as watch,
                pytest.raises(MemoryConnectionError, match=r"did not end within 0\.5 s; the last try failed") as caught,
            ):
                await provider.get_recent_messages("c")
            assert time.monotonic() - started > 0.45
            assert watch.seconds < 0.5 + GRACE
            assert 2 <= len(line.log) < 40
            assert caught.value.outcome == "not_applied"

        asyncio.run(main())

    def test_waits_between(self, line):
        """Retries wait longer and longer, so that they do not make things worse."""

        async def main():
            provider = await stored(line)
            line.before = [ConnectionRefusedError() for _ in range(4)]
            started = time.monotonic()
            await provider.get_recent_messages("c")
            assert time.monotonic() - started > 0.5 * 0.02 * (2 + 4 + 8 + 16)

        asyncio.run(main())

    def test_health_is_told_at_once(self, line):
        """`health_check` is not tried again: it tells how things stand."""

        async def main():
            provider = await stored(line)
            line.before = [ConnectionRefusedError()]
            health = await provider.health_check()
            assert health["healthy"] is False
            assert "could not be reached" in health["error"]
            assert line.log == ["ping"]

        asyncio.run(main())


class TestReconnecting:
    """A server that is away is waited for a while, and not until the deadline."""

    def test_gives_up(self, line):
        """After `reconnect_timeout` the call ends with what the server said."""

        async def main():
            provider = await stored(line, operation_timeout=30, reconnect_timeout=0.3)
            line.before = [ConnectionRefusedError() for _ in range(1000)]
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError, match="could not be reached") as caught:
                await provider.get_recent_messages("c")
            assert watch.seconds + watch.late >= 0.3  # how late a machine is shortens the former
            assert watch.seconds < 1.5 + GRACE
            assert (caught.value.outcome, caught.value.retryable) == ("not_applied", True)

        asyncio.run(main())

    def test_at_once(self, line):
        """0 seconds are one try."""

        async def main():
            provider = await stored(line, reconnect_timeout=0)
            line.before = [ConnectionRefusedError(), ConnectionRefusedError()]
            with pytest.raises(MemoryConnectionError):
                await provider.get_recent_messages("c")
            assert len(line.before) == 1

        asyncio.run(main())

    def test_back_in_time(self, line):
        """One that is back before is no matter."""

        async def main():
            provider = await stored(line, reconnect_timeout=2)
            line.before = [ConnectionRefusedError() for _ in range(3)]
            assert len(await provider.get_recent_messages("c")) == 2

        asyncio.run(main())

    def test_a_server_that_starts(self, line):
        """Who makes a provider waits for a server that is only starting, for `reconnect_timeout`, and for no other."""

        async def main():
            starting = MemoryConnectionError("it is loading its data", starting=True)
            line.opening = [starting] * 3
            provider = await BackendProvider(line, ProviderConfig(reconnect_timeout=60)).open()
            assert (provider.name, line.log) == ("line", ["open"] * 4)
            for timeout, error in ((0, starting), (60, MemoryConnectionError("it has gone"))):
                line.opening = [error] * 3
                with pytest.raises(MemoryConnectionError, match=str(error)):
                    await BackendProvider(line, ProviderConfig(reconnect_timeout=timeout)).open()
                assert len(line.opening) == 2

        asyncio.run(main())

    def test_what_is_in_use(self):
        """A store that is only in use, such as a locked file, is tried again until the deadline."""

        class Locked(Line):
            patient = True

        async def main():
            line = Locked()
            provider = await stored(line, operation_timeout=0.5, reconnect_timeout=0)
            line.before = [ConnectionRefusedError() for _ in range(1000)]
            with pytest.raises(MemoryConnectionError, match="did not end within"):
                await provider.get_recent_messages("c")

        asyncio.run(main())

    @pytest.mark.parametrize(("settings", "seconds"), [({}, 2), ({"operation_timeout": 0.3}, 0.3)])
    def test_health_has_a_deadline_of_its_own(self, line, settings, seconds):
        """A health check of a store that hangs ends within `health_timeout`, or the deadline where that is shorter."""

        async def main():
            provider = await stored(line, **settings)
            line.hang = 30
            with Stopwatch() as watch:
                health = await provider.health_check()
            assert health["healthy"] is False
            assert f"within {seconds:g} s" in health["error"]
            assert watch.seconds < seconds + GRACE

        asyncio.run(main())


class TestDeadline:
    """Every call ends in time."""

    @pytest.mark.parametrize(
        ("call", "outcome"),
        [
            (lambda provider: provider.get_recent_messages("c"), "not_applied"),
            (lambda provider: provider.append_messages("c", talk(3)), "unknown"),
            (lambda provider: provider.update_metadata("c", {}), "unknown"),
            (lambda provider: provider.delete_conversation("c"), "unknown"),
        ],
        ids=["read", "append", "update", "delete"],
    )
    def test_hanging(self, line, call, outcome):
        """A call that hangs ends at the deadline; a write's outcome is unknown."""

        async def main():
            provider = await stored(line, operation_timeout=0.5)
            line.hang = 30
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError, match="did not end within") as caught:
                await call(provider)
            assert watch.seconds < 0.5 + GRACE
            assert (caught.value.outcome, caught.value.retryable) == (outcome, True)
            assert isinstance(caught.value.__cause__, TimeoutError)

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("first", "outcome"),
        [(ConnectionRefusedError, "not_applied"), (ConnectionResetError, "unknown")],
        ids=["refused", "lost"],
    )
    def test_tries_that_were_refused(self, line, first, outcome):
        """A write whose every try was refused is known not to be applied, unless an answer was lost before."""

        async def main():
            provider = await stored(line, operation_timeout=0.5)
            line.before = [first(), *(ConnectionRefusedError() for _ in range(1000))]
            with pytest.raises(MemoryConnectionError, match="did not end within") as caught:
                await provider.append_messages("c", talk(3))
            assert caught.value.outcome == outcome

        asyncio.run(main())

    def test_what_was_still_waiting(self, line):
        """A write that waited for its turn in the process, and was sent nowhere, is known not to be applied."""

        async def main():
            provider = await stored(line, operation_timeout=0.5)

            async def waits(_write):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as error:
                    never_sent(error)
                    raise

            provider.backend.append = waits
            with pytest.raises(MemoryConnectionError, match="did not end within") as caught:
                await provider.append_messages("c", talk(3))
            assert caught.value.outcome == "not_applied"

        asyncio.run(main())

    def test_leaves_the_task_alone(self, line):
        """After a deadline the caller's task is not left cancelled."""

        async def main():
            provider = await stored(line, operation_timeout=0.5)
            line.hang = 30
            with pytest.raises(MemoryConnectionError):
                await provider.get_recent_messages("c")
            await asyncio.sleep(0.01)
            line.hang = 0
            assert await provider.get_recent_messages("c") == talk(2)

        asyncio.run(main())

    def test_cancelled_by_the_caller(self, line):
        """A caller's own cancellation stays one."""

        async def main():
            provider = await stored(line, operation_timeout=5)
            line.hang = 30
            task = asyncio.ensure_future(provider.get_recent_messages("c"))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_callers_shorter_timeout(self, line):
        """A shorter time-out of the caller's is the caller's."""

        async def main():
            provider = await stored(line, operation_timeout=5)
            line.hang = 30
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(provider.get_recent_messages("c"), 0.05)

        asyncio.run(main())

    def test_both_at_once(self):
        """Cancelled at the very moment of the deadline, a task is cancelled."""

        async def main():
            async def work():
                with Deadline(0.02) as deadline:
                    task = asyncio.current_task()
                    asyncio.get_running_loop().call_at(deadline.ends, task.cancel)
                    await asyncio.sleep(5)

            task = asyncio.ensure_future(work())
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_nested(self):
        """An outer deadline that comes first is the outer one's."""

        async def main():
            outer, inner = Deadline(0.02), Deadline(5)
            with pytest.raises(TimeoutError), outer, inner:
                await asyncio.sleep(5)
            assert outer.expired
            assert not inner.expired

        asyncio.run(main())

    def test_each_its_own(self):
        """Deadlines that share a timer end each in its own time, also while others go on or have ended before."""

        async def work(began, seconds, ends):
            await asyncio.sleep(began)
            started = time.monotonic()
            try:
                with Deadline(0.5):  # of which a machine that is busy leaves more than nothing
                    await asyncio.sleep(seconds)
            except TimeoutError:
                ends.append(time.monotonic() - started)

        async def main():
            ends = []
            await asyncio.gather(*(work(n * 0.02, 5 if n % 2 else 0.01, ends) for n in range(10)))
            assert len(ends) == 5
            assert all(0.49 < end < 2 for end in ends)

        asyncio.run(main())

    def test_one_timer(self):
        """Any number of deadlines of one length keep one timer, and it keeps none of them."""

        async def main():
            timers = set()
            for _ in range(100):
                with Deadline(30) as deadline, Deadline(60):
                    await asyncio.sleep(0)
                timers.add(deadline._timer)
            assert len(timers) == 1
            assert not deadline._timer.running

        asyncio.run(main())

    def test_iteration(self, line):
        """An iteration has the deadline for each record, however long all of it takes."""

        async def main():
            provider = over(line, operation_timeout=1)
            for n in range(6):
                await provider.store_messages(f"c{n}", talk(1))
            line.hang = 0.2
            assert len([one async for one in provider.iter_conversations()]) == 6
            line.hang = 30
            with pytest.raises(MemoryConnectionError):
                _ = [one async for one in provider.iter_conversations()]

        asyncio.run(main())


class TestIteration:
    """Scans over a bad line."""

    def test_goes_on_behind_the_last(self, line):
        """After a lost connection an iteration goes on behind the last record, each once."""

        async def main():
            provider = over(line)
            names = [f"c{n}" for n in range(6)]
            for name in names:
                await provider.store_messages(name, talk(1))
            seen = []
            async for one in provider.iter_conversations():
                seen.append(one.conversation_id)
                if len(seen) in {2, 4}:
                    line.before = [ConnectionResetError()]
            assert seen == names

        asyncio.run(main())

    def test_gives_up(self, line):
        """It tries a line as long as any other read does, and gives up when it does not come back."""

        async def main():
            provider = over(line, reconnect_timeout=0.2)
            await provider.store_messages("c", talk(1))
            line.before = [ConnectionResetError() for _ in range(3)]
            assert len([one async for one in provider.iter_conversations(MemoryQuery())]) == 1
            line.before = [ConnectionResetError() for _ in range(500)]
            with pytest.raises(MemoryConnectionError):
                _ = [one async for one in provider.iter_conversations(MemoryQuery())]

        asyncio.run(main())

    def test_damaged_once(self):
        """What is damaged is told of once, also where the line is lost behind it, and it is met again."""

        class Damaging(Line):
            async def scan(self, query):
                if query.cursor is None:
                    yield Damaged(damaged("first"))
                async for record in super().scan(query):
                    yield record
                    yield Damaged(damaged("behind"))

        async def main():
            line, told = Damaging(), []
            provider = over(line)
            await provider.store_messages("c", talk(1))
            line.before = [ConnectionResetError() for _ in range(3)]
            seen = [one async for one in provider.iter_conversations(on_damaged=told.append)]
            assert [one.conversation_id for one in seen] == ["c"]
            assert [error.conversation_id for error in told] == ["first", "behind"]

        asyncio.run(main())

    def test_without_a_wait(self):
        """What comes without a wait needs no deadline, and keeps none running while its reader takes time over it."""

        class Ahead(Line):
            async def scan(self, query):
                async for record in InMemoryBackend.scan(self, query):
                    if self.before:
                        raise self.before.pop(0)
                    yield record

        async def main():
            ahead = Ahead()
            provider = over(ahead, operation_timeout=0.3)
            names = [f"c{n}" for n in range(4)]
            for name in names:
                await provider.store_messages(name, talk(1))
            seen = []
            async for one in provider.iter_conversations():
                seen.append(one.conversation_id)
                await asyncio.sleep(0.4 if len(seen) == 1 else 0)
                ahead.before = [ConnectionResetError(), ConnectionResetError()] if len(seen) == 2 else []
            assert seen == names
            ahead.before = [ZeroDivisionError()]
            with pytest.raises(ZeroDivisionError):
                _ = [one async for one in provider.iter_conversations()]

        asyncio.run(main())

    def test_an_iterator_of_any_kind(self):
        """A scan may be any asynchronous iterator; the deadline ends one that waits, and takes its time over that."""

        class Records:
            def __init__(self, records, waits):
                self.records, self.waits, self.ended = records, waits, False

            def __aiter__(self):
                return self

            async def __anext__(self):
                try:
                    await asyncio.sleep(self.waits)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.01)
                    self.ended = True
                    raise
                if not self.records:
                    raise StopAsyncIteration
                return self.records.pop(0)

        class Kept(Line):
            def scan(self, _query):
                return source

        async def main():
            nonlocal source
            provider = over(Kept(), operation_timeout=0.3)
            await provider.store_messages("c", talk(1))
            record = await InMemoryBackend.read(provider.backend, "c")
            source = Records([record, record], 0)
            assert len([one async for one in provider.iter_conversations()]) == 2
            source = Records([record], 30)
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError, match="did not end within"):
                _ = [one async for one in provider.iter_conversations()]
            assert watch.seconds < 0.3 + GRACE
            assert source.ended

        source = None
        asyncio.run(main())

    def test_closed_meanwhile(self, line):
        """It ends with a clear error when the provider is closed meanwhile."""

        async def main():
            provider = over(line)
            for n in range(3):
                await provider.store_messages(f"c{n}", talk(1))
            iteration = provider.iter_conversations()
            await anext(iteration)
            await provider.close()
            with pytest.raises(MemoryConnectionError, match="closed"):
                await anext(iteration)

        asyncio.run(main())


class TestEvents:
    """What observers are told."""

    def test_one_event_an_operation(self, line):
        """Each operation is one event: names, duration, attempts, and the error's name; no id, no content."""
        events = []

        async def main():
            provider = BackendProvider(line, observers=[events.append])
            await provider.store_messages("SENTINEL", talk(1, "SENTINEL"))
            line.after = [ConnectionResetError()]
            await provider.get_recent_messages("SENTINEL")
            with pytest.raises(MemoryNotFoundError):
                await provider.set_expiry("missing-SENTINEL", 60)

        asyncio.run(main())
        assert [(event.operation, event.attempts, event.error) for event in events] == [
            ("store_messages", 1, None),
            ("get_recent_messages", 2, None),
            ("set_expiry", 1, "MemoryNotFoundError"),
        ]
        assert all(event.provider == "line" and 0 <= event.seconds < 5 for event in events)
        assert "SENTINEL" not in repr(events)

    def test_a_scan_that_waited(self, line):
        """Of a scan whose line is lost, the time between its attempts is told as that of any operation is."""
        events = []

        async def main():
            provider = BackendProvider(line, observers=[events.append])
            await provider.store_messages("c", talk(1))
            line.before = [ConnectionResetError() for _ in range(2)]
            assert len([one async for one in provider.iter_conversations()]) == 1

        asyncio.run(main())
        event = events[-1]
        assert (event.operation, event.attempts) == ("iter_conversations", 3)
        assert 0.02 < event.waited <= event.seconds

    def test_failing_observer(self, line, caplog):
        """An observer that fails is told of in the log, and harms nothing."""

        def fail(_event: OperationEvent):
            raise ZeroDivisionError

        provider = BackendProvider(line, observers=[fail])
        assert isinstance(asyncio.run(provider.store_messages("c", talk(1))), Success)
        assert "an observer failed" in caplog.text

    def test_average(self, line):
        """The average response time of health is that of the operations."""

        async def main():
            provider = over(line)
            line.hang = 0.02
            await provider.store_messages("c", talk(1))
            metrics = (await provider.health_check())["metrics"]
            assert metrics["avg_response_time"] > 15

        asyncio.run(main())


class TestOpening:
    """Opening, loops, closing."""

    def test_refused_at_first(self, line):
        """Opening is tried again until the deadline, whatever the operation: nothing was sent yet."""

        async def main():
            line.opening = [ConnectionRefusedError(), ConnectionResetError()]
            provider = over(line)
            assert isinstance(await provider.store_messages("c", talk(1)), Success)
            assert line.log == ["open", "open", "open", "store"]

        asyncio.run(main())

    def test_open(self):
        """`open` connects now, and gives the provider."""

        async def main():
            bound = Bound()
            provider = over(bound)
            assert await provider.open() is provider
            await provider.open()
            assert bound.log == ["open"]

        asyncio.run(main())

    def test_once_for_many(self):
        """Many first operations open one connection, though the first of them is cancelled."""

        async def main():
            bound = Bound()
            provider = over(bound)
            tasks = [asyncio.ensure_future(provider.get_conversation("c")) for _ in range(10)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert answers[1:] == [None] * 9
            assert bound.log.count("open") == 1

        asyncio.run(main())

    def test_next_loop(self):
        """On the next loop a bound backend forgets the old connections, and opens anew."""
        bound = Bound()
        provider = over(bound)
        asyncio.run(provider.store_messages("c", talk(1)))
        assert asyncio.run(provider.get_recent_messages("c")) == talk(1)
        assert bound.log == ["open", "store", "open", "tail"]
        assert bound.abandoned == 1

    def test_loop_that_is_running(self):
        """While its loop runs, a bound provider refuses another one, and goes on."""

        async def main():
            provider = over(Bound())
            await provider.open()
            answers = []

            def elsewhere():
                try:
                    asyncio.run(provider.get_conversation("c"))
                except MemoryConnectionError as error:
                    answers.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert "another event loop" in str(answers[0])
            assert answers[0].retryable is False
            assert await provider.get_conversation("c") is None

        asyncio.run(main())

    def test_fork(self, line, monkeypatch):
        """In another process than its own, a provider refuses before it touches anything; closing does nothing."""

        async def main():
            provider = await stored(line)
            monkeypatch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(MemoryConnectionError, match="before a fork") as caught:
                await provider.get_recent_messages("c")
            assert caught.value.retryable is False
            await provider.close()
            assert line.log == []
            monkeypatch.undo()

        asyncio.run(main())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.parametrize("backend", ["InMemoryBackend()", "Waiting()"])
    def test_fork_of_a_running_loop(self, backend):
        """In a child that goes on where its parent was it refuses in the same words, though no loop runs there."""
        script = f"""
import asyncio, os
from jaf_memory_core import BackendProvider, MemoryConnectionError, MemoryQuery, Message
from jaf_memory_core.backends.in_memory import InMemoryBackend

class Waiting(InMemoryBackend):
    waits = True

async def main():
    provider = BackendProvider({backend})
    for key in "ab":
        (await provider.store_messages(key, [Message("user", "x")])).unwrap()
    begun = provider.iter_conversations()
    await anext(begun)
    if os.fork():
        os.wait()
        return
    for call in (
        provider.get_recent_messages("a"),
        provider.append_messages("a", [Message("user", "y")]),
        provider.find_conversations(MemoryQuery()),
        anext(provider.iter_conversations()),
        anext(begun),
    ):
        try:
            print(await call)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
    os._exit(0)

asyncio.run(main())
"""
        ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
        refusals = ended.stdout.splitlines()
        assert len(refusals) == 5
        assert all(one.startswith("MemoryConnectionError the provider was made before a fork") for one in refusals)

    def test_close_that_hangs(self, caplog):
        """Closing ends in time, too: connections that do not answer are left."""

        class Hanging(Bound):
            async def close(self):
                await asyncio.sleep(30)

        async def main():
            hanging = Hanging()
            provider = over(hanging, operation_timeout=0.3)
            await provider.open()
            with Stopwatch() as watch:
                await provider.close()
            assert watch.seconds < 0.3 + GRACE
            assert hanging.abandoned == 1

        with caplog.at_level(logging.WARNING):
            asyncio.run(main())
        assert "took too long" in caplog.text

    def test_close_on_another_loop(self):
        """Closed on another loop, or without one having been used, it only forgets."""
        bound = Bound()
        provider = over(bound)
        asyncio.run(provider.store_messages("c", talk(1)))
        asyncio.run(provider.close())
        assert bound.abandoned == 1


class TestTranslation:
    """The default translation of the system's errors."""

    @pytest.mark.parametrize(
        ("error", "kind", "outcome"),
        [
            (ConnectionRefusedError("secret"), MemoryConnectionError, "not_applied"),
            (ConnectionResetError("secret"), MemoryConnectionError, "unknown"),
            (BrokenPipeError("secret"), MemoryConnectionError, "unknown"),
            (TimeoutError("secret"), MemoryConnectionError, "unknown"),
            (OSError(28, "No space left on device", "/secret"), MemoryStorageError, "unknown"),
            (OSError("secret"), MemoryStorageError, "unknown"),
        ],
    )
    def test_errors(self, error, kind, outcome):
        """Lost lines may be tried again, other errors of the system are storage errors; no text repeats theirs."""
        problem = InMemoryBackend().translate(error, "read")
        assert type(problem) is kind
        assert problem.outcome == outcome
        assert "secret" not in str(problem)


def test_a_conflict_is_answered_at_once():
    """A held lease may be asked for again later, and says so; the provider itself does not wait for it."""

    class Waiting(InMemoryBackend):
        waits = True

    async def use():
        events = []
        async with BackendProvider(Waiting(), observers=[events.append]) as provider:
            await provider.acquire_lease("c", 600, user_id="u")
            with pytest.raises(MemoryConflictError) as caught:
                await provider.acquire_lease("c", 600)
            assert caught.value.retryable
            assert (events[-1].operation, events[-1].attempts) == ("acquire_lease", 1)

    asyncio.run(use())


def test_a_later_step_speaks_for_itself_only():
    """Of an operation in steps nothing follows from a later step that was still waiting: earlier ones may stand."""
    backend = InMemoryBackend()
    error = asyncio.CancelledError()
    never_sent(error)
    assert is_never_sent(error)
    with pytest.raises(asyncio.CancelledError), in_steps(backend, "clear_user_conversations", [1]):
        raise error
    assert not is_never_sent(error)


def test_what_is_cancelled_while_it_waits_was_never_sent():
    """A cancellation within `waiting` says so; another error, and a cancellation elsewhere, says nothing of it."""
    with pytest.raises(asyncio.CancelledError) as cancelled, waiting:
        raise asyncio.CancelledError
    assert is_never_sent(cancelled.value)
    with pytest.raises(OSError, match="x") as failed, waiting:
        raise OSError("x")
    assert not is_never_sent(failed.value)
    assert not is_never_sent(asyncio.CancelledError())
