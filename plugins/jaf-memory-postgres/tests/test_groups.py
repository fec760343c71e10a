"""Group commit: what waits at the same moment travels together, and nothing of it can be seen but the speed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from jaf_memory_postgres.connection import groups
from jaf_memory_postgres.operations.writes import Fast

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConflictError, MemoryConnectionError, MemoryNotFoundError, MemoryStorageError
from jaf_memory_core.results import Success

MANY = [f"c{number:02}" for number in range(32)]
"""Conversations that many tasks write to, each its own."""


def said(text, message_id=None):
    """One message."""
    return [Message("user", text, message_id=message_id)]


async def opened(url, table, **settings):
    """A provider."""
    return await create_postgres_provider(PostgresConfig(connection_string=url, table_name=table, **settings))


async def filled(provider, keys=MANY):
    """Make conversations of one message, which says whose it is."""
    for key in keys:
        await provider.store_messages(key, said(key))


async def texts(provider, key):
    """What a conversation says."""
    return [message.content for message in (await provider.get_conversation(key)).messages]


def holding_first(server, table):
    """Somebody holds the row of the first of `MANY`."""
    return holding(server, f"SELECT FROM {table}__header WHERE conversation_id = '{MANY[0]}' FOR UPDATE")


@contextlib.asynccontextmanager
async def holding(server, statement):
    """Somebody has run a statement, and forgot to commit."""
    connection = await asyncpg.connect(server.url())
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


def test_who_is_alone_goes_alone(postgres, table):
    """Calls one after the other never travel in a group; many at once do, and each stands."""

    async def main():
        async with await opened(postgres.url(), table) as provider:
            await filled(provider)
            for number in range(5):
                await provider.append_messages("c00", said(str(number)))
                await provider.get_recent_messages("c00")
            assert provider.backend.usage().committed == 0
            assert provider.backend._tails.sent == 0
            answers = await asyncio.gather(*(provider.append_messages(key, said("x")) for key in MANY))
            usage = provider.backend.usage()
            assert usage.committed >= 2 * usage.commits > 0
            assert [answer.data.message_count for answer in answers] == [7, *[2] * 31]

    asyncio.run(main())


@pytest.mark.parametrize("pooler", [False, True])
def test_everybody_gets_its_own_answer(request, table, pooler):
    """Of many different questions at once, through PgBouncer too, each is answered as it would be alone."""
    server = request.getfixturevalue("bouncer" if pooler else "postgres")
    large = "x" * 40_000

    async def main():
        async with await opened(server.url(), table) as provider:
            await filled(provider)
            await provider.store_messages("owned", said("hers"), {}, user_id="u")
            await provider.store_messages("empty", [])
            await provider.store_messages("large", said(large))

            async def ask(number):
                key = MANY[number % 32]
                kind = number % 5
                if kind == 0:
                    view = provider.for_user("u" if number % 2 else "v")
                    found = view.get_recent_messages("owned", 3)
                    expected = ["hers"] if number % 2 else None
                elif kind == 1:
                    found, expected = provider.get_recent_messages("nobody", 3), None
                elif kind == 2:
                    found, expected = provider.get_recent_messages("large", 3), [large]
                elif kind == 3:
                    found, expected = provider.get_recent_messages("empty", 3), []
                else:
                    found, expected = provider.get_recent_messages(key, 3), [key]
                try:
                    assert [message.content for message in await found] == expected
                except MemoryNotFoundError:
                    assert expected is None

            await asyncio.gather(*map(ask, range(200)))
            assert provider.backend._tails.carried > 100

    asyncio.run(main())


def test_appends_of_every_kind_at_once(postgres, table):
    """Of many appends at once each is decided by itself: what is held, missing, another's, or at another version."""

    async def main():
        async with await opened(postgres.url(), table) as provider:
            await filled(provider)
            await provider.append_messages("c00", said("held", "m"))
            other = provider.for_user("v")
            await provider.store_messages("owned", [], user_id="u")
            calls = {
                "held": provider.append_messages("c00", said("held", "m")),
                "conflict": provider.append_messages("c01", said("x"), expected_version=7),
                "version": provider.append_messages("c02", said("x"), expected_version=1),
                "missing": provider.append_messages("nobody", said("x")),
                "made": provider.append_messages("new", said("x"), create=True),
                "anothers": other.append_messages("owned", said("x")),
                "labelled": provider.append_messages("c03", said("x"), {"a": 1}),
                "long": provider.append_messages("c04", [Message("user", str(n)) for n in range(60)]),
                "four": provider.append_messages("c05", [Message("user", str(n)) for n in range(4)]),
                "twice": provider.append_messages("c06", said("x")),
                "thrice": provider.append_messages("c06", said("x")),
            }
            others = [provider.append_messages(key, said("x")) for key in MANY[7:]]
            answers = await asyncio.gather(*others, *calls.values(), return_exceptions=True)
            assert [answer.data.version for answer in answers[:25]] == [2] * 25
            found = dict(zip(calls, answers[25:], strict=True))
            assert found["held"].data.added == 0
            assert isinstance(found["conflict"].error, MemoryConflictError)
            assert isinstance(found["missing"].error, MemoryNotFoundError)
            assert isinstance(found["anothers"].error, MemoryNotFoundError)
            assert all(isinstance(found[name], Success) for name in ("version", "made", "labelled", "long", "four"))
            assert sorted(found[name].data.version for name in ("twice", "thrice")) == [2, 3]
            assert len(await texts(provider, "c05")) == 5

    asyncio.run(main())


def test_many_writers_of_one_conversation(postgres, table):
    """Appends to one conversation travel together, too: each has a version of its own, and stands where it was told."""

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=30.0) as provider:
            await filled(provider, ["c00"])
            await provider.store_messages("owned", [], user_id="u")

            async def write(task):
                key, view = ("owned", provider.for_user("u")) if task % 4 == 3 else ("c00", provider)
                told = []
                for number in range(10):
                    if task == 5 and number % 3 == 2:  # one that no other joins
                        standing = await view.get_conversation(key)
                        answer = await view.append_messages(key, said("x"), expected_version=standing.version)
                        if not isinstance(answer, Success):
                            assert isinstance(answer.error, MemoryConflictError)
                        continue
                    batch = [Message("user", f"{task}.{number}.{part}") for part in range(1 + task % 3)]
                    answer = await view.append_messages(key, batch)
                    told.append((key, answer.data.version, answer.data.message_count, batch))
                return told

            told = [one for some in await asyncio.gather(*map(write, range(32))) for one in some]
            for key in ("c00", "owned"):
                stored = await texts(provider, key)
                versions = [version for of, version, _, _ in told if of == key]
                assert len(versions) == len(set(versions))
                for of, _, count, batch in told:
                    if of == key:
                        assert stored[count - len(batch) : count] == [message.content for message in batch]
            usage = provider.backend.usage()
            assert usage.committed > 4 * usage.commits
            assert usage.waiting == 0

    asyncio.run(main())


def test_who_joins_nobody_is_decided_by_itself(postgres, table):
    """Of many appends to one conversation at once, who expects a version, or is another, is decided as alone."""

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=30.0) as provider:
            await provider.store_messages("owned", [], user_id="u")
            hers, his = provider.for_user("u"), provider.for_user("v")
            for _ in range(5):
                version = (await provider.get_conversation("owned")).version
                tasks = [
                    append("owned", said("x"), expected_version=expected)
                    for number in range(10)
                    for append, expected in (
                        (provider.append_messages, None),
                        (hers.append_messages, None),
                        (provider.append_messages, version + number),
                        (his.append_messages, None),
                    )
                ]
                answers = await asyncio.gather(*tasks)
                assert all(isinstance(answer, Success) for answer in (*answers[::4], *answers[1::4]))
                assert all(isinstance(answer.error, MemoryNotFoundError) for answer in answers[3::4])
                for number, answer in enumerate(answers[2::4]):
                    if isinstance(answer, Success):
                        assert answer.data.version == version + number + 1
                    else:
                        assert isinstance(answer.error, MemoryConflictError)

    asyncio.run(main())


def test_a_held_conversation_is_waited_for_by_few(postgres, table):
    """Of many appends to a conversation that somebody holds two wait at the server, and all stand in the end."""

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=30.0) as provider:
            await filled(provider)
            async with holding_first(postgres, table):
                tasks = [asyncio.create_task(provider.append_messages("c00", said(str(n)))) for n in range(40)]
                await asyncio.sleep(1)
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                assert await asyncio.to_thread(postgres.sql, waits) == "2"
                began = time.monotonic()
                await asyncio.gather(*(provider.append_messages(key, said("x")) for key in MANY[1:]))
                assert time.monotonic() - began < 10
            answers = await asyncio.gather(*tasks)
            assert sorted(answer.data.version for answer in answers) == list(range(2, 42))
            assert sorted(await texts(provider, "c00")) == sorted(["c00", *map(str, range(40))])

    asyncio.run(main())


def test_one_that_is_refused_takes_nobody_along(postgres, table):
    """A row that the server refuses fails its own append, and none of those that travelled with it."""

    async def main():
        async with await opened(postgres.url(), table) as provider:
            await filled(provider)
            check = f"ALTER TABLE {table}__message ADD CHECK (body NOT LIKE '%forbidden%')"
            await asyncio.to_thread(postgres.sql, check)
            calls = [provider.append_messages(key, said("forbidden" if key == "c20" else "x")) for key in MANY]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            refused = [answer for answer in answers if not isinstance(answer, Success)]
            assert [type(answer.error) for answer in refused] == [MemoryStorageError]
            assert refused[0].error.outcome == "not_applied"
            for key in MANY:
                assert await texts(provider, key) == ([key] if key == "c20" else [key, "x"])

    asyncio.run(main())


def test_a_held_row_delays_nobody_else(postgres, table):
    """While somebody holds one conversation, appends to all others go on in their groups, round after round."""

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=30.0) as provider:
            await filled(provider)
            async with holding_first(postgres, table):
                waiting = []
                for _ in range(3):
                    began = time.monotonic()
                    waiting.append(asyncio.create_task(provider.append_messages("c00", said("late"))))
                    await asyncio.gather(*(provider.append_messages(key, said("x")) for key in MANY[1:]))
                    await asyncio.gather(*(provider.get_recent_messages(key) for key in MANY))
                    assert time.monotonic() - began < 10
                assert not any(task.done() for task in waiting)
                assert provider.backend.usage().committed > 31
            assert all(isinstance(answer, Success) for answer in await asyncio.gather(*waiting))
            assert len(await texts(provider, "c00")) == 4

    asyncio.run(main())


def test_whoever_gives_up_knows_how_it_stands(postgres, table):
    """Of those that time out, in a group or before it, nothing is stored that was told as not applied."""

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=1.5, max_connections=6) as provider:
            await filled(provider)
            calls = [provider.append_messages(key, said("x")) for key in MANY * 2]
            async with holding(postgres, f"LOCK TABLE {table}__header IN EXCLUSIVE MODE"):
                errors = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, MemoryConnectionError) for error in errors)
            assert {error.outcome for error in errors} >= {"unknown"}
            # Whoever gave up was the last of its group: the server has ended that, too, and all connections are free.
            await asyncio.gather(*(provider.append_messages(key, said("end")) for key in MANY))
            for place, key in enumerate(MANY):
                unsure = sum(error.outcome == "unknown" for error in (errors[place], errors[place + 32]))
                assert len(await texts(provider, key)) <= 2 + unsure
            assert provider.backend.usage().busy == 0

    asyncio.run(main())


def test_cancelled_members_leave_the_others(postgres, table):
    """Tasks that are cancelled at any moment take nobody's append along, and leave neither task nor noise."""
    noise = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context["message"]))
        async with await opened(postgres.url(), table) as provider:
            await filled(provider)
            for number in range(60):
                tasks = [asyncio.create_task(provider.append_messages(key, said(str(number)))) for key in MANY]
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                await asyncio.sleep(number % 5 / 2000)
                for task in tasks if number % 10 == 9 else tasks[number % 7 :: 3]:
                    task.cancel()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                for key, answer in zip(MANY, answers, strict=True):
                    assert isinstance(answer, Success | asyncio.CancelledError)
                    if isinstance(answer, Success):
                        assert (await texts(provider, key))[-1] == str(number)
            assert provider.backend.usage().committed > 100
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert noise == []
    assert postgres.sql(f"SELECT count(*) FROM {table}__header WHERE message_count <> version") == "0"


def test_closing_refuses_all_who_wait(postgres, table, monkeypatch):
    """However many wait for a group when the provider is closed, each is told at once, and not at its deadline."""
    monkeypatch.setattr(groups, "MEMBERS", 2)  # many groups, as of tens of thousands of tasks

    async def main():
        async with await opened(postgres.url(), table, operation_timeout=120.0) as provider:
            await filled(provider)
            calls = [provider.append_messages(f"n{number}", said("x"), create=True) for number in range(3000)]
            async with holding(postgres, f"LOCK TABLE {table}__header IN EXCLUSIVE MODE"):
                tasks = [asyncio.create_task(call) for call in calls]
                await asyncio.sleep(0.3)
                appends = provider.backend._appends
                assert appends.waiting > 2000
                await provider.close()
                done, late = await asyncio.wait(tasks, timeout=30)
        assert not late
        assert all(isinstance(task.exception(), MemoryConnectionError) for task in done)
        assert not appends._busy

    asyncio.run(main())


class Cutting:
    """A line to the server that is cut once, within the next group that goes up or within the answer to it.

    Attributes:
        up, down: bytes of it that still pass; `None` while nothing is to be cut.
        silent: whether no answer comes through.
        cuts: how often it was.
    """

    GROUP = 4000
    """A piece that is so long is a group."""

    def __init__(self, port):
        self._port = port
        self.up = self.down = None
        self.silent = False
        self.cuts = 0
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        grouped = asyncio.Event()
        ways = self._up(reader, back, grouped), self._down(there, writer, grouped)
        passing = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            for one in (writer, back):
                one.transport.abort()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _up(self, reader, writer, grouped):
        while data := await reader.read(1 << 17):
            if len(data) > self.GROUP:
                grouped.set()
                if self.up is not None:
                    most, self.up = self.up, None
                    writer.write(data[:most])
                    await writer.drain()
                    await asyncio.sleep(0.02)  # in which the server executes what has come
                    self.cuts += 1
                    return
            writer.write(data)

    async def _down(self, reader, writer, grouped):
        while data := await reader.read(1 << 17):
            if self.silent:
                continue
            if grouped.is_set() and self.down is not None:
                most, self.down = self.down, None
                writer.write(data[:most])
                await writer.drain()
                self.cuts += 1
                return
            writer.write(data)


def test_a_group_that_is_cut(postgres, table):
    """Wherever the line breaks, within a group or the answer to its commit, each append stands once."""

    async def main():
        async with Cutting(postgres.port) as line:
            url = postgres.url().replace(f":{postgres.port}/", f":{line.port}/")
            async with await opened(url, table) as provider:
                await filled(provider)
                places = [("up", at) for at in (0, 1, 700, 2100, 3900, 10**6)]
                places += [("down", at) for at in (0, 1, 40, 200)]
                for number, (way, at) in enumerate(places):
                    setattr(line, way, at)
                    answers = await asyncio.gather(
                        *(provider.append_messages(key, said(f"{number:400}")) for key in MANY)
                    )
                    assert all(isinstance(answer, Success) for answer in answers)
                assert line.cuts == len(places)
                for key in MANY:
                    assert await texts(provider, key) == [key, *(f"{number:400}" for number in range(len(places)))]

    asyncio.run(main())


def test_a_group_without_an_answer(postgres, table):
    """Of a line that falls silent behind the commit, nobody is told that nothing was applied, unless nothing was."""

    async def main():
        async with Cutting(postgres.port) as line:
            url = postgres.url().replace(f":{postgres.port}/", f":{line.port}/")
            # Open already: over a line that is silent nobody opens any, and one group alone would travel.
            async with await opened(url, table, operation_timeout=5.0, max_connections=8, pool_min_size=8) as provider:
                await filled(provider)
                await asyncio.gather(*(provider.append_messages(key, said("x")) for key in MANY))
                line.silent = True
                calls = [provider.append_messages(key, said("y")) for key in MANY]
                errors = await asyncio.gather(*calls, return_exceptions=True)
                line.silent = False
                assert all(isinstance(error, MemoryConnectionError) for error in errors)
                stored = {key for key in MANY if await texts(provider, key) == [key, "x", "y"]}
                assert len(stored) > 8
                assert {error.outcome for key, error in zip(MANY, errors, strict=True) if key in stored} == {"unknown"}

    asyncio.run(main())


def test_groups_are_bounded(postgres, table, monkeypatch):
    """A group has no more members and bytes than it may, and what is long goes alone."""
    sent = []
    together = Fast.together

    async def recorded(self, connection, writes):
        sent.append([sum(map(len, write.bodies)) + len(write.conversation_id) for write in writes])
        return await together(self, connection, writes)

    monkeypatch.setattr(Fast, "together", recorded)

    async def main():
        keys = [f"c{number:03}" for number in range(400)]
        async with await opened(postgres.url(), table) as provider:
            await filled(provider, keys)
            await asyncio.gather(*(provider.append_messages(key, said("x")) for key in keys))
            assert max(map(len, sent)) == groups.MEMBERS
            sent.clear()
            await asyncio.gather(*(provider.append_messages(key, said("x" * 10_000)) for key in keys[:100]))
            assert 2 <= max(map(len, sent)) < 10
            assert max(map(sum, sent)) <= groups.BYTES
            sent.clear()
            await asyncio.gather(*(provider.append_messages(key, said("x" * 20_000)) for key in keys[:50]))
            assert sent == []

    asyncio.run(main())


def test_the_applications_pool_has_no_groups(postgres, table):
    """Over a pool of the application's each call is a statement of its own, as it was."""

    async def main():
        pool = await asyncpg.create_pool(postgres.url(), min_size=1, max_size=4)
        provider = await create_postgres_provider(PostgresConfig(table_name=table), pool)
        await filled(provider)
        await asyncio.gather(*(provider.append_messages(key, said("x")) for key in MANY))
        assert provider.backend.usage().commits is None
        await provider.close()
        await pool.close()

    asyncio.run(main())


WRITER = """
import asyncio, random, sys
from jaf_memory_core import Message
from jaf_memory_postgres import PostgresConfig, create_postgres_provider

async def main(url, table, name):
    config = PostgresConfig(connection_string=url, table_name=table, operation_timeout=120.0)
    async with await create_postgres_provider(config) as provider:
        async def write(task):
            order = random.Random(f"{name}{task}")
            for number in range(40):
                key = f"c0{order.randrange(8)}"
                batch = [Message("user", "x", message_id=f"{name}.{task}.{number}.{part}") for part in range(2)]
                for again in range(1 + (number % 25 == 24)):
                    result = await provider.append_messages(key, batch)
                    assert result.data.added == 2 * (not again), result

        await asyncio.gather(*map(write, range(16)))
        assert provider.backend.usage().committed > 50, provider.backend.usage()

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_processes_on_the_same_conversations(postgres, table):
    """Groups of two processes with sixteen tasks each lose nothing, leave no gap, and never wait in a circle."""
    before = postgres.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'jaf'")

    async def main():
        async with await opened(postgres.url(), table) as provider:
            await filled(provider, MANY[:8])
            writers = [
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", WRITER, postgres.url(), table, name), stderr=subprocess.PIPE
                )
                for name in ("p", "q")
            ]
            for writer in writers:
                _, errors = await writer.communicate()
                assert writer.returncode == 0, errors.decode()

    asyncio.run(main())
    rows = postgres.sql(f"SELECT sum(message_count), sum(version) FROM {table}__header")
    assert rows == f"{8 + 2 * 16 * 40 * 2}|{8 + 2 * 16 * 40}"
    gaps = (
        f"SELECT count(*) FROM {table}__header WHERE message_count <> (SELECT max(position) + 1 FROM {table}__message"
    )
    assert postgres.sql(f"{gaps} WHERE conversation = id)") == "0"
    assert postgres.sql(f"SELECT count(*) FROM {table}__message") == rows.partition("|")[0]
    time.sleep(0.6)  # the server's counters lag
    assert postgres.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'jaf'") == before
