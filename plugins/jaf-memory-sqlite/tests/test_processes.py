"""Several processes on one file, and processes that are killed."""

import asyncio
import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from jaf_memory_testing.expectations import done, whole
from jaf_memory_testing.samples import talk

APPENDING = """
    import asyncio, sys
    from jaf_memory_core import Message
    from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

    path, name, tasks, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    async def task(provider, number):
        for round_ in range(rounds):
            batch = [f"{name}.{number}.{round_}.{n}" for n in range(3)]
            answer = await provider.append_messages(
                "c", [Message("user", "of " + id, message_id=id) for id in batch], create=True
            )
            assert answer.data.added == 3, answer
            sys.stdout.write(" ".join(batch) + "\\n")
            sys.stdout.flush()

    async def main():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            await asyncio.gather(*(task(provider, number) for number in range(tasks)))

    asyncio.run(main())
"""


def start(path, name, tasks, rounds, output):
    """Start a process that appends, and writes down what was acknowledged."""
    program = textwrap.dedent(APPENDING)
    arguments = map(str, (path, name, tasks, rounds))
    return subprocess.Popen([sys.executable, "-W", "error", "-c", program, *arguments], stdout=output)


def stored(path):
    """The ids of the one conversation's messages, in order, once it is sure that the file is whole."""

    async def read():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            conversation = await whole(provider)
            assert all(message.content == f"of {message.message_id}" for message in conversation.messages)
            assert conversation.message_count == len(conversation.messages)
            stats = await provider.get_stats()
            assert stats["total_messages"] == len(conversation.messages)
            return [message.message_id for message in conversation.messages]

    found = asyncio.run(read())
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        (size,) = db.execute("SELECT sum(length(CAST(body AS BLOB))) FROM message").fetchone()
        assert db.execute("SELECT size FROM conversation").fetchall() == [(size,)]
    return found


def in_order(found):
    """Every batch is whole and contiguous, and each task's batches stand in the order in which it wrote them."""
    assert len(set(found)) == len(found), "a message is there twice"
    batches = [found[start : start + 3] for start in range(0, len(found), 3)]
    last = {}
    for batch in batches:
        name, number, round_, _ = batch[0].split(".")
        assert batch == [f"{name}.{number}.{round_}.{n}" for n in range(3)], "a batch is torn"
        assert last.get((name, number), -1) < int(round_), "a task's batches have changed places"
        last[name, number] = int(round_)


def test_sixteen_tasks_in_four_processes(path, tmp_path):
    """16 tasks in each of 4 processes that append to one conversation lose, double, tear and reorder nothing."""
    outputs = [(tmp_path / f"out{n}").open("wb") for n in range(4)]
    processes = [start(path, f"p{n}", 16, 10, output) for n, output in enumerate(outputs)]
    for process, output in zip(processes, outputs, strict=True):
        assert process.wait(100) == 0
        output.close()
    found = stored(path)
    in_order(found)
    assert set(found) == {f"p{p}.{t}.{r}.{n}" for p in range(4) for t in range(16) for r in range(10) for n in range(3)}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed in another way there")
def test_killed_while_writing(path, tmp_path):
    """Of a process that is killed 20 times under load, every acknowledged append is there once, and none is torn."""
    output = tmp_path / "acknowledged"
    pauses = random.Random(20)
    for round_ in range(20):
        seen = output.stat().st_size if output.exists() else 0
        with output.open("ab") as file:
            process = start(path, f"k{round_}", 8, 1_000_000, file)
            while output.stat().st_size < seen + 300:  # some lines, of some 25 bytes
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(pauses.uniform(0, 0.05))
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
    # The last line of a process may be cut; what it says was not told to anybody then.
    lines = [line.split() for line in output.read_text().splitlines()]
    acknowledged = [line for line in lines if len(line) == 3 and line[2].endswith(".2")]
    assert len(acknowledged) > 100
    found = stored(path)
    in_order(found)
    assert {name for line in acknowledged for name in line} <= set(found)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped in another way there")
def test_stopped_while_writing(path, tmp_path):
    """A process that stands still for a while, perhaps with the lock, holds up others no longer than that."""
    with (tmp_path / "out").open("wb") as output:
        process = start(path, "s", 8, 1_000_000, output)
        while not (tmp_path / "out").stat().st_size:
            time.sleep(0.005)

        async def write(provider, round_):
            process.send_signal(signal.SIGSTOP)
            timer = asyncio.get_running_loop().call_later(0.2, process.send_signal, signal.SIGCONT)
            done(await provider.append_messages("mine", talk(2, f"r{round_}-"), create=True))
            timer.cancel()
            process.send_signal(signal.SIGCONT)

        async def work():
            async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
                for round_ in range(10):
                    await write(provider, round_)
                assert (await whole(provider, "mine")).message_count == 20

        try:
            asyncio.run(work())
        finally:
            process.kill()
            process.wait(60)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no fork")
def test_fork(path, python):
    """The child of a fork is refused, ends in peace, and does no harm to what its parent goes on to write."""
    said = python(
        """
        import asyncio, gc, os, sys, warnings
        from jaf_memory_core import MemoryConnectionError, Message
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def child(provider):
            try:
                await provider.get_recent_messages("c")
            except MemoryConnectionError as error:
                print("before a fork" in str(error), error.retryable)
            await provider.close()

        async def go_on(provider):
            for n in range(100):
                await provider.append_messages("c", [Message("user", f"after {n}")])
            print(len((await provider.get_conversation("c")).messages))
            await provider.close()

        # No loop is alive at the fork: a child that clears one away would disturb its parent's.
        provider = asyncio.run(create_sqlite_provider(SqliteConfig(path=sys.argv[1])))
        asyncio.run(provider.store_messages("c", [Message("user", "before")]))
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork: the child uses none
        process = os.fork()
        if process:
            assert os.waitpid(process, 0)[1] == 0
            asyncio.run(go_on(provider))
        else:
            asyncio.run(child(provider))
            del provider
            gc.collect()
        """,
        path,
    )
    assert said.split() == ["True", "False", "101"]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM message").fetchone() == (101,)
