"""A scan of all conversations: what is read ahead of whoever iterates, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing, asynccontextmanager, closing

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.operations import reads
from jaf_memory_testing.deadlines import GRACE
from services.lines import Line

from jaf_memory_core import ConversationMemory, MemoryConnectionError, MemoryQuery, Message

COUNT = 2 * reads.WHOLE_PAGE + reads.WHOLE_PAGE // 2
HALF = reads.WHOLE_PAGE // 2 + 1
"""Conversations after which the next stretch has been asked for."""

OLD = 5 * reads.STALE
"""Seconds after which a scan looks again at what it has read."""

IDS = [f"c{number:03}" for number in range(COUNT)]


def said(text):
    """One message."""
    return [Message("user", text)]


@asynccontextmanager
async def filled(server, table, **settings):
    """A provider with so many conversations, in the order of their ids."""
    config = PostgresConfig(connection_string=server.url(), table_name=table, pool_min_size=1, **settings)
    async with await create_postgres_provider(config) as provider:
        await provider.import_conversations(
            [ConversationMemory(key, messages=said(key), created_at=reads.rules.BEGINNING) for key in IDS]
        )
        yield provider


def ids(conversations):
    """Of which conversations these are."""
    return [one.conversation_id for one in conversations]


async def after(scan, count):
    """The first so many of a scan."""
    return [await anext(scan) for _ in range(count)]


@pytest.mark.parametrize("whole", [True, False])
def test_what_comes_next_is_asked_for_ahead(postgres, table, whole, monkeypatch):
    """While the second half of a stretch is passed on, the next one is read; then nobody holds a connection."""
    monkeypatch.setattr(reads, "STALE", 60.0)

    async def main():
        async with filled(postgres, table) as provider:
            half = (reads.WHOLE_PAGE if whole else reads.PAGE) // 2
            async with aclosing(provider.iter_conversations(MemoryQuery(include_messages=whole))) as scan:
                seen, busy = [], []
                for _ in range(half + 1):
                    seen.append(await anext(scan))
                    busy.append(provider.backend.usage().busy)
                await asyncio.sleep(OLD)
                assert provider.backend.usage().busy == 0
                seen += [one async for one in scan]
            assert ids(seen) == IDS
            assert busy == [0] * half + [1]

    asyncio.run(main())


@pytest.mark.parametrize("wait", [0, OLD])
def test_a_scan_is_left_in_the_middle(postgres, table, wait):
    """Whoever has seen enough leaves neither a task nor a connection behind, whether all has come or not."""

    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        async with filled(postgres, table) as provider:
            before = asyncio.all_tasks()
            async with aclosing(provider.iter_conversations()) as scan:
                await after(scan, HALF)
                await asyncio.sleep(wait)
            assert provider.backend.usage().busy == 0
            left = asyncio.all_tasks() - before  # the driver's, which asks the server to end the statement
            assert not left or not (await asyncio.wait(left, timeout=5))[1]
            assert len((await provider.get_conversation(IDS[-1])).messages) == 1
        assert not told

    asyncio.run(main())


def test_what_was_read_ahead_is_shown_as_it_is_then(postgres, table):
    """Deleted, appended to, made again: what comes to be shown later than it was read is looked at again."""

    async def main():
        async with filled(postgres, table) as provider, aclosing(provider.iter_conversations()) as scan:
            seen = await after(scan, HALF)
            await asyncio.sleep(OLD)  # it has come
            gone, longer, anew = IDS[reads.WHOLE_PAGE + 1], IDS[reads.WHOLE_PAGE + 2], IDS[reads.WHOLE_PAGE + 3]
            assert await provider.delete_conversation(gone)
            (await provider.append_messages(longer, said("more"))).unwrap()
            assert await provider.delete_conversation(anew)
            (await provider.store_messages(anew, said("anew"))).unwrap()
            await asyncio.sleep(OLD)
            seen += [one async for one in scan]
            # Made now, its turn is the last.
            assert ids(seen) == [key for key in IDS if key not in {gone, anew}] + [anew]
            assert len(seen[IDS.index(longer) - 1].messages) == 2

    asyncio.run(main())


def test_the_server_ends_the_connection_of_what_is_read_ahead(postgres, table):
    """It is asked for again when it is its turn, and nothing comes twice."""

    async def main():
        async with filled(postgres, table) as provider, aclosing(provider.iter_conversations()) as scan:
            seen = await after(scan, HALF)
            name = provider.backend._names.table
            postgres.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE pid <> pg_backend_pid() AND query LIKE '%{name}%'"
            )
            seen += [one async for one in scan]
            assert ids(seen) == IDS

    asyncio.run(main())


def test_the_end_of_the_provider_is_the_end_of_what_is_read_ahead(postgres, table):
    """Closed in the middle of an iteration, the provider waits for nothing, and nothing complains."""

    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        async with filled(postgres, table) as provider:
            scan = provider.iter_conversations()
            await after(scan, HALF)
            await asyncio.wait_for(provider.close(), 5)
            await scan.aclose()
        assert not told

    asyncio.run(main())


def test_nothing_is_read_ahead_on_the_applications_connection(postgres, table):
    """Between two conversations an application's own connection is its own."""

    async def main():
        async with filled(postgres, table):
            pass
        connection = await asyncpg.connect(postgres.url())
        config = PostgresConfig(table_name=table)
        async with await create_postgres_provider(config, connection) as provider:
            seen = []
            async for one in provider.iter_conversations():
                assert await connection.fetchval("SELECT 1") == 1
                seen.append(one)
            assert ids(seen) == IDS
        await connection.close()

    asyncio.run(main())


def test_large_conversations_come_few_at_a_time(postgres, table):
    """A stretch ends where there is no more room, and one conversation that is larger is a stretch of its own."""

    async def main():
        config = PostgresConfig(
            connection_string=postgres.url(), table_name=table, max_call_bytes=1 << 24, operation_timeout=60
        )
        async with await create_postgres_provider(config) as provider:
            part = "x" * (reads.PART // 8 - 1_000)
            sizes = [3, 3, 3, 17, 1, 1, 1]
            for number, size in enumerate(sizes):
                messages = [Message("user", part) for _ in range(size)]
                (await provider.store_messages(f"c{number}", messages)).unwrap()
            backend, above, found = provider.backend, None, []
            while True:
                stretch = await backend._reader._stretch(backend.run, MemoryQuery(), above)
                if not stretch.listed:
                    break
                found.append(len(stretch.listed))
                above = stretch.last
            assert found == [3, 1, 3]
            assert [len(one.messages) async for one in provider.iter_conversations()] == sizes

    asyncio.run(main())


@asynccontextmanager
async def locked(server, provider):
    """Nobody else reads the provider's conversations meanwhile."""
    connection = await asyncpg.connect(server.url())
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {provider.backend._names.table} IN ACCESS EXCLUSIVE MODE")
        yield connection
    await connection.close()


def test_what_is_read_ahead_ends_within_the_deadline(postgres, table, monkeypatch):
    """Whoever iterates may take long over one conversation; the connection is for others by then."""
    monkeypatch.setattr(reads, "STALE", 60.0)

    async def main():
        async with filled(postgres, table, operation_timeout=2, max_connections=1) as provider:
            scan = provider.iter_conversations()
            seen = await after(scan, HALF - 1)
            async with locked(postgres, provider):
                seen += await after(scan, 1)
                assert provider.backend.usage().busy == 1
                await asyncio.sleep(2 + GRACE)
                assert provider.backend.usage().busy == 0
            seen += [one async for one in scan]
            assert ids(seen) == IDS

    asyncio.run(main())


def test_a_scan_goes_on_in_another_event_loop(postgres, table):
    """Refused at once where the first still runs; else the scan goes on, without what was read ahead there."""
    with closing(asyncio.new_event_loop()) as first, closing(asyncio.new_event_loop()) as second:
        run = first.run_until_complete
        provider, scans = run(_begun(postgres, table))

        async def elsewhere():
            with pytest.raises(MemoryConnectionError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, asyncio.wait_for(anext(scans[0]), 5))

        run(elsewhere())
        rest = second.run_until_complete(after(scans[1], COUNT - HALF))
        assert ids(rest) == IDS[HALF:]
        second.run_until_complete(asyncio.wait_for(scans[2].aclose(), 5))
        second.run_until_complete(provider.close())
        run(asyncio.sleep(OLD))  # its connections were left, and their sockets end with a turn of it


@pytest.mark.parametrize("whole", [True, False])
def test_a_scan_over_a_slow_line(postgres, table, whole, monkeypatch):
    """What takes longer to come than it stays fresh is not asked for again for each conversation."""
    monkeypatch.setattr(reads, "STALE", 0.05)

    async def main():
        async with filled(postgres, table):
            pass
        async with Line(postgres.port, delay=0.04) as line:
            url = postgres.url().replace(f":{postgres.port}/", f":{line.port}/")
            async with await create_postgres_provider(
                PostgresConfig(connection_string=url, table_name=table)
            ) as provider:
                before = line.pieces
                seen = [one async for one in provider.iter_conversations(MemoryQuery(include_messages=whole))]
                assert ids(seen) == IDS
                assert line.pieces - before < HALF

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_scan_goes_on_behind_a_fork(postgres, table):
    """The child is refused at once, and ends nothing that is its parent's; the parent goes on."""

    async def main():
        async with filled(postgres, table) as provider, aclosing(provider.iter_conversations()) as scan:
            seen = await after(scan, HALF)
            child = os.fork()
            if not child:
                ended = 1
                signal.alarm(10)
                try:
                    await anext(scan)
                except MemoryConnectionError as error:
                    ended = 0 if "before a fork" in str(error) else 2
                finally:
                    os._exit(ended)
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
            seen += [one async for one in scan]
            assert ids(seen) == IDS

    asyncio.run(main())


async def _begun(server, table):
    async with filled(server, table):
        pass
    config = PostgresConfig(connection_string=server.url(), table_name=table)
    provider = await create_postgres_provider(config)
    scans = [provider.iter_conversations() for _ in range(3)]
    for scan in scans:
        await after(scan, HALF)
    return provider, scans
