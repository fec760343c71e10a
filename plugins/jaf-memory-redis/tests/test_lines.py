"""Lines that are far or slow: few round trips, no small thing behind a large one, nothing sent for nobody."""

import asyncio
import time

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_testing import slow
from services.lines import Line

from jaf_memory_core import MemoryQuery, Message, Success

BUSY = 10
"""How many times longer than on a quiet machine things may take."""

PIECES = 1_500
"""In how many pieces the commands for `MANY` conversations go at most; sixteen operations travel together."""

FRONT = 256 << 10
"""Bytes of others that may go before a small operation."""

MANY = 5_000

RATE = 1e6
"""Bytes a second of a slow line."""


def opened(line, prefix, **more):
    """A provider at the end of a line."""
    return create_redis_provider(RedisConfig(port=line.port, key_prefix=prefix, **more))


def test_many_small_things_travel_together(server7, prefix):
    """Over 10 ms, erasing a user of 5,000 conversations, purging, iterating and statistics take a second or two."""

    async def fill(near, name):
        for start in range(0, MANY, 500):
            names = [f"{name}{number}" for number in range(start, start + 500)]
            await asyncio.gather(*(near.store_messages(one, [Message("user", "x")], user_id=name) for one in names))

    async def main():
        async with (
            await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as near,
            await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix, ttl=0.001)) as brief,
            Line(server7.port, delay=0.005) as line,
            await opened(line, prefix) as far,
        ):
            await fill(near, "u")
            for work, most in (
                (lambda: far.get_stats("u"), 2.0),
                (lambda: far.find_conversations(MemoryQuery(user_id="u", limit=3, offset=MANY - 5)), 2.0),
                (lambda: drained(far), 3.0),
                (lambda: far.clear_user_conversations("u"), 2.0),
            ):
                started, pieces = time.monotonic(), line.pieces
                await work()
                assert time.monotonic() - started < most * BUSY  # one after the other: 50 s and more
                assert line.pieces - pieces < PIECES
            await fill(brief, "v")
            pieces = line.pieces
            assert await far.purge_expired() == MANY
            assert line.pieces - pieces < PIECES
        assert server7.command("KEYS", f"{prefix}*") == []

    async def drained(far):
        assert len([one async for one in far.iter_conversations(MemoryQuery(user_id="u"))]) == MANY

    asyncio.run(main())


def test_nothing_is_read_that_is_skipped(server7, prefix):
    """A page behind an offset brings the messages of that page alone, of small conversations and of large ones."""

    async def main():
        async with Line(server7.port) as line, await opened(line, prefix) as provider:
            for number in range(60):
                await provider.store_messages(f"c{number}", [Message("user", "x" * 20_000)], user_id="u")
            before = line.received
            found = await provider.find_conversations(MemoryQuery(user_id="u", offset=50, limit=2))
            assert [len(one.messages) for one in found] == [1, 1]
            assert line.received - before < 100_000  # of 1,200,000

    asyncio.run(main())


@pytest.mark.parametrize("size", [3 << 20, pytest.param((16 << 20) - 100, marks=slow("half a minute"))])
def test_large_message_on_a_slow_line(server7, prefix, size):
    """A large message arrives over 1 MB/s, and is read; every small read beside it takes less than a tenth of a second.

    That is told by what the line carries meanwhile, and not by a clock: a busy machine is no slower line.
    """

    async def main():
        # 16 MiB take 17 s, and 10 s of silence would end the connection.
        patience = {"operation_timeout": 600.0, "reconnect_timeout": 0}
        async with Line(server7.port, rate=RATE) as line, await opened(line, prefix, **patience) as provider:
            await provider.store_messages("small", [Message("user", "s")])
            await provider.store_messages("big", [])
            big = asyncio.create_task(provider.append_messages("big", [Message("user", "x" * size)]))
            writing = await fronts_beside(line, provider, big)
            assert isinstance(await big, Success)
            reading = asyncio.create_task(provider.get_conversation("big"))
            await asyncio.sleep(0.5)
            fronts = writing + await fronts_beside(line, provider, reading)
            assert (await reading).message_count == 1
            assert len(fronts) > size / 200_000
            assert max(fronts) < RATE / 10, max(fronts)

    asyncio.run(main())


async def fronts_beside(line, provider, other):
    """How many bytes go over the line, in its busier direction, during each small read while something else does."""
    fronts = []
    while not other.done():
        sent, received = line.sent, line.received
        await provider.get_recent_messages("small", 1)
        fronts.append(max(line.sent - sent, line.received - received))
        await asyncio.sleep(0.05)
    return fronts


@pytest.mark.parametrize(("count", "size"), [(8, 1_000_000), (120, 60_000)])
def test_what_goes_before_a_small_operation(server7, prefix, count, size):
    """However much others have to send, of whatever size, no more than 256 KiB of it goes before what is small."""

    async def main():
        async with Line(server7.port, rate=4e6) as line, await opened(line, prefix, max_connections=2) as provider:
            await provider.store_messages("small", [Message("user", "s")])
            await provider.store_messages("big", [])
            some = [Message("user", "x" * size) for _ in range(count)]
            writers = [asyncio.create_task(provider.append_messages("big", [one])) for one in some]
            await asyncio.sleep(0.1)
            fronts = []
            while not all(writer.done() for writer in writers):
                before = line.sent
                await provider.get_recent_messages("small", 1)
                # The other connection has its turns meanwhile: as much again.
                fronts.append((line.sent - before) // 2)
            assert len(fronts) > 5
            assert max(fronts) <= FRONT, fronts

    asyncio.run(main())


def test_what_nobody_waits_for_is_not_sent(server7, prefix):
    """Requests whose callers have gone before there was room for them are dropped."""

    async def main():
        async with Line(server7.port, rate=2e6) as line, await opened(line, prefix, max_connections=2) as provider:
            await provider.store_messages("c", [])
            large = [Message("user", "x" * 500_000) for _ in range(40)]
            writers = [asyncio.create_task(provider.append_messages("c", [one])) for one in large]
            await asyncio.sleep(0.5)
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
            before = line.sent
            assert isinstance(await provider.append_messages("c", [Message("user", "after")]), Success)
            await asyncio.sleep(0.5)
            assert line.sent - before < 1_000_000
            assert line.sent < 4_000_000  # of 20

    asyncio.run(main())
