"""What the log is told: a store that is lost and back, slow operations, the start; and no line that is not ours."""

import asyncio
import logging
import re

import pytest
from jaf_memory_testing.samples import talk

from jaf_memory_core import (
    BackendProvider,
    MemoryConnectionError,
    ProviderConfig,
    create_in_memory_provider,
    create_memory_provider,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.outages import one_line


class Line(InMemoryBackend):
    """A store whose line is cut, or hangs, as the test says."""

    name = "line"
    waits = True
    driver_errors = (OSError,)

    def __init__(self, *, patient=False):
        super().__init__()
        self.cut = 0
        self.hangs = False
        self.arrived, self.mended = asyncio.Event(), asyncio.Event()
        self.patient = patient

    async def tail(self, tail):
        """Read the end."""
        if self.hangs:
            self.arrived.set()
            await self.mended.wait()
        if self.cut:
            self.cut -= 1
            raise ConnectionResetError("SENTINEL")
        return await super().tail(tail)


def lines(caplog):
    """What was logged, a line a record."""
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def told(caplog):
    """The beginnings of what was logged."""
    return [line.partition(": ")[2][:17] for line in lines(caplog)]


async def read(provider, times=1):
    """Read at once so many times; what fails, fails."""
    return await asyncio.gather(
        *(provider.get_recent_messages("SENTINEL") for _ in range(times)), return_exceptions=True
    )


def run(line, work, **settings):
    """Work with a provider over a line, on which a conversation stands."""

    async def main():
        provider = BackendProvider(line, ProviderConfig(**settings))
        await provider.store_messages("SENTINEL", talk(1))
        await work(provider)

    asyncio.run(main())


class TestOutages:
    """A store that is lost is told of once, and once when it is back."""

    def test_lost_and_back(self, caplog):
        """Many operations that meet one outage are two lines; operations that got through again are counted."""

        async def work(provider):
            provider.backend.cut = 5
            answers = await read(provider, times=5)
            assert [len(answer) for answer in answers] == [1] * 5

        run(Line(), work)
        lost, back = lines(caplog)
        reason = "the store could not be reached: ConnectionResetError"
        assert lost == f"WARNING memory provider line: the store is lost: {reason}"
        said = (
            r"WARNING memory provider line: the store is back after \d+\.\d s, in which it was missing to 5 operations"
        )
        assert re.fullmatch(said, back)
        assert "SENTINEL" not in caplog.text

    def test_one_broken_connection(self, caplog):
        """A connection that breaks, and another that answers at once, wake nobody, however often."""

        async def work(provider):
            for _ in range(3):
                provider.backend.cut = 1
                assert [len(answer) for answer in await read(provider)] == [1]
            assert lines(caplog) == []
            provider.backend.cut = 2
            await read(provider)

        run(Line(), work)
        assert told(caplog) == ["the store is lost", "the store is back"]
        assert lines(caplog)[1].endswith("missing to 1 operation")

    def test_operations_that_fail(self, caplog):
        """What gives up leaves the store lost, and nothing more is said until it answers: whoever asks, counts once."""

        async def work(provider):
            provider.backend.cut = 3
            for _ in range(3):
                (answer,) = await read(provider)
                assert isinstance(answer, MemoryConnectionError)
            assert len(lines(caplog)) == 1
            await read(provider)
            provider.backend.cut = 1
            await provider.health_check()
            await read(provider)

        run(Line(), work, reconnect_timeout=0)
        assert told(caplog) == ["the store is lost", "the store is back", "the store is lost"]
        assert lines(caplog)[1].endswith("missing to 3 operations")

    def test_a_store_that_hangs(self, caplog):
        """A store that answers nobody in time is lost; one that is slow to one of several is not."""

        async def work(provider):
            provider.backend.hangs = True
            hanging = asyncio.ensure_future(read(provider))
            await provider.backend.arrived.wait()
            await provider.update_metadata("SENTINEL", {"a": 1})
            await hanging
            assert lines(caplog) == []
            await read(provider)
            provider.backend.mended.set()
            await read(provider)

        run(Line(), work, operation_timeout=1)
        assert told(caplog) == ["the store is lost", "the store is back"]
        assert "get_recent_messages did not end within 1 s" in lines(caplog)[0]

    def test_a_locked_file_is_not_lost(self, caplog):
        """Where what cannot be reached is only in use, waiting for it is no outage."""

        async def work(provider):
            provider.backend.cut = 2
            await read(provider)

        run(Line(patient=True), work)
        assert lines(caplog) == []

    def test_refusals_are_no_outage(self, caplog):
        """A closed provider, and what the store refuses, is told to the caller only."""

        async def work(provider):
            await provider.append_messages("missing", talk(1))
            await provider.close()
            await read(provider)

        run(Line(), work)
        assert lines(caplog) == []


def test_slow_operations(caplog):
    """What takes as long as the setting says is logged: operation, duration, retries; nothing of its content."""

    async def work(provider):
        provider.backend.cut = 1
        await read(provider)
        caplog.clear()
        provider.backend.cut = 1
        provider.backend.patient = True  # the outage is another test's
        await read(provider)

    run(Line(), work, slow_operation=0.001)
    (line,) = [line for line in lines(caplog) if "took" in line]
    said = r"get_recent_messages took \d+\.\d\d s; retries: 1, with \d\.\d\d s between"
    assert re.fullmatch(f"WARNING memory provider line: {said}", line)
    assert "SENTINEL" not in caplog.text


def test_without_the_setting_nothing_is_slow(caplog):
    """Unless a setting says what is slow, nothing is."""
    run(Line(), read)
    assert lines(caplog) == []


def test_the_start(caplog):
    """At INFO the start tells type, distribution, version, durability; a store made in code its name."""
    caplog.set_level(logging.INFO)
    asyncio.run(create_memory_provider("memory"))
    (line,) = lines(caplog)
    assert line.startswith("INFO memory provider memory is open: jaf-memory-core 0.")
    assert "gone when the process ends" in line
    create_in_memory_provider()
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is: ü 日本", "as it is: ü 日本"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[2J\x9b31m\x07", r"\x1b[2J\x9b31m\x07"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
    ],
)
def test_a_text_stays_one_line(text, line):
    """A server's words cannot end a line of the log, nor move a terminal's cursor or turn its letters round."""
    assert one_line(text) == line


def test_a_servers_words_cannot_forge_a_line(caplog):
    """The error that a hostile server sends is one line of the log, with its escapes spelled out."""

    async def work(provider):
        error = MemoryConnectionError("gone\n2026-01-01 INFO all is well\x1b[2J", retryable=True)
        provider.backend.tail = lambda _tail: _raise(error)
        await read(provider)

    run(Line(), work, reconnect_timeout=0)
    (line,) = lines(caplog)
    assert line.isprintable()
    assert r"gone\n2026-01-01 INFO all is well\x1b[2J" in line


async def _raise(error):
    raise error
