"""One transaction for what waits together, and each operation's failure, cancellation and deadline its own."""

import asyncio
import contextlib
import gc
import os
import random
import sqlite3
import threading
import time
import weakref

import pytest
from jaf_memory_sqlite import (
    SqliteBackend,
    SqliteConfig,
    connection,
    create_sqlite_provider,
    locks,
)
from jaf_memory_sqlite.connection import writer
from jaf_memory_sqlite.operations import writes
from jaf_memory_testing.deadlines import GRACE, Stopwatch
from jaf_memory_testing.expectations import done, refused, whole
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import (
    MemoryConflictError,
    MemoryConnectionError,
    MemoryNotFoundError,
    MemoryStorageError,
    Message,
    codec,
)
from jaf_memory_core.records import Write

_earlier = set()


@pytest.fixture(autouse=True)
def earlier():
    """Note which threads there are: a test of another file may have left some of ours."""
    _earlier.update(threading.enumerate())
    yield
    _earlier.clear()


@pytest.fixture
def commits(monkeypatch):
    """How many jobs each commit has had."""
    counts = []
    original = writer.Writer._commit

    def commit(self, db, jobs, **options):
        counts.append(len(jobs))
        return original(self, db, jobs, **options)

    monkeypatch.setattr(writer.Writer, "_commit", commit)
    return counts


@pytest.fixture
def here(monkeypatch):
    """The disk is taken for a quick one: small writes are done in the caller's thread."""
    monkeypatch.setattr(writer, "QUICK", 60)


@pytest.fixture(params=["here", "in the thread"])
def place(request, monkeypatch):
    """Where small writes are done."""
    monkeypatch.setattr(writer, "QUICK", 60 if request.param == "here" else -60)


def held(provider):
    """A context in which the writer does nothing but wait: it has been given a job that does not end."""
    gate = threading.Event()

    @contextlib.asynccontextmanager
    async def standing():
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def stand(_):
            loop.call_soon_threadsafe(begun.set)
            gate.wait(60)

        job = asyncio.ensure_future(provider.backend._write(stand))
        await begun.wait()
        try:
            yield
        finally:
            gate.set()
            await job

    return standing()


def test_what_waits_together_is_committed_together(use, commits):
    """Writes that wait at the same moment travel in one transaction, and all succeed."""

    async def work(provider):
        async with held(provider):
            writes = [asyncio.ensure_future(provider.store_messages(f"c{n}", talk(2))) for n in range(50)]
            await asyncio.sleep(0.01)
        assert [done(answer).added for answer in await asyncio.gather(*writes)] == [2] * 50
        assert (await provider.get_stats())["total_messages"] == 100

    use(work)
    assert 50 in commits


def test_waves_are_committed_together(use, commits):
    """Tasks that go on together after a commit have their next writes in one commit again."""

    async def work(provider):
        async def task(number):
            for round_ in range(100):
                done(await provider.append_messages(f"c{number}", talk(1, f"r{round_}-"), create=True))

        await asyncio.gather(*map(task, range(16)))

    use(work)
    # By chance about half of them; a moment in which the machine stands still costs a few.
    assert commits.count(16) >= 75


@pytest.mark.usefixtures("place")
def test_a_refusal_is_ones_own(use):
    """What is refused in a transaction changes nothing, and the others of the same transaction succeed."""

    async def work(provider):
        done(await provider.store_messages("c", talk(2), user_id="u"))
        async with held(provider):
            calls = [
                provider.append_messages("c", talk(1, start=2)),
                provider.append_messages("absent", talk(1)),
                provider.append_messages("c", [Message("user", "other", message_id="m0"), *talk(1, start=7)]),
                provider.store_messages("c", [], user_id="v"),
                provider.append_messages("c", talk(1, start=3), expected_version=9),
                provider.append_messages("c", talk(1, start=3)),
            ]
            writes = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0.01)
        first, missing, other, foreign, version, last = await asyncio.gather(*writes)
        assert (done(first).version, done(last).version) == (2, 3)
        refused(missing, MemoryNotFoundError)
        for answer in (other, foreign, version):
            refused(answer, MemoryConflictError)
        assert ids((await whole(provider)).messages) == ["m0", "m1", "m2", "m3"]

    use(work)


@pytest.fixture
def threads(monkeypatch):
    """In which threads writes were done."""
    seen = []
    original = writes.write

    def write(*arguments, **options):
        seen.append(threading.current_thread().name.removeprefix("jaf-memory-sqlite "))
        return original(*arguments, **options)

    monkeypatch.setattr(writes, "write", write)
    return seen


def test_a_slow_disk_is_the_threads(use, threads, monkeypatch):
    """Where no commit is quick, all writes are done in the writer's thread."""
    monkeypatch.setattr(writer, "QUICK", -60)

    async def work(provider):
        for n in range(3):
            done(await provider.append_messages("c", talk(1, start=n), create=True))

    use(work)
    assert threads == ["writer"] * 3


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1, 1, 0, *[0.005] * (writer.RECENT + 2)], "www" + "M" * writer.RECENT + "ww"),
        ([0, 1, 0.005, 1, 1, 1, 0, 0], "wMMMMwwM"),
    ],
    ids=["none of the recent ones quick", "two slow ones in a row"],
)
def test_where_writes_are_done(use, threads, monkeypatch, seconds, expected):
    """A quick commit brings the next ones to the caller's thread, until the disk turns out to be slow after all."""
    left = iter(seconds)
    original = writer.CommitLatency.learn
    monkeypatch.setattr(writer.CommitLatency, "learn", lambda self, _, jobs: original(self, next(left), jobs))

    async def work(provider):
        for n in range(len(seconds)):
            done(await provider.append_messages("c", talk(1, start=n), create=True))

    use(work)
    assert "".join(thread[0] for thread in threads) == expected


@pytest.mark.usefixtures("here")
def test_small_writes_are_done_where_they_are_asked_for(path, use, threads):
    """Small writes on a quick disk need no thread, and are in the file when they are acknowledged."""

    async def work(provider):
        answers = await asyncio.gather(*(provider.store_messages(f"c{n}", talk(2)) for n in range(20)))
        assert [done(answer).added for answer in answers] == [2] * 20
        with contextlib.closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count(*) FROM message").fetchone() == (40,)

    use(work)
    assert threads == ["MainThread"] * 20


@pytest.mark.usefixtures("here")
def test_writers_leave_others_their_turn(use):
    """A task that writes again and again, and never waits for anything else, does not keep others from running."""

    async def work(provider):
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.ensure_future(other())
        for n in range(50):
            done(await provider.append_messages("c", talk(1, start=n), create=True))
        running.cancel()
        assert turns >= 50

    use(work)


@pytest.mark.usefixtures("here")
def test_what_the_thread_has_comes_first(use, threads):
    """A small write behind a large one that the thread has waits for its turn, though it could be done at once."""

    async def work(provider):
        large = asyncio.ensure_future(provider.store_messages("c", [Message("user", "x" * 1_000_000)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert provider.backend._writer.busy
        small = await provider.append_messages("c", talk(1))
        assert [done(await large).version, done(small).version] == [1, 2]
        done(await provider.append_messages("c", talk(1, start=1)))

    use(work)
    assert threads == ["writer", "writer", "MainThread"]


@pytest.mark.usefixtures("here")
def test_much_is_the_threads(use, threads):
    """Large writes, and those that take much away, are done in the writer's thread."""

    async def work(provider):
        done(await provider.store_messages("wide", [Message("user", "x" * 300_000)]))
        done(await provider.store_messages("long", talk(writes.INLINE_MESSAGES + 1)))
        done(await provider.append_messages("long", talk(1, "n")))
        assert threads == ["writer", "writer", "MainThread"]
        threads.clear()
        for name in ("wide", "long"):
            done(await provider.store_messages(name, []))
            assert threads.pop() == "writer"

    use(work)


def test_new_conversations_are_made_together(use, monkeypatch):
    """Of many that are not there yet none is looked up and written by itself."""
    monkeypatch.setattr(writes, "write", None)
    turn = talk(2)

    async def work(provider):
        asked = [Write(f"c{n}", tuple(turn), tuple(map(codec.encode, turn)), create=True) for n in range(20)]
        assert [one.added for one in await provider.backend.append_many(asked)] == [2] * 20
        assert len((await provider.get_conversation("c7")).messages) == 2

    use(work)


@pytest.mark.usefixtures("here")
def test_the_log_is_written_into_the_file(path, use, monkeypatch):
    """The writer's thread empties the log, before a commit in the caller's thread would have to."""
    monkeypatch.setattr(writer, "LOG", 20)

    async def work(provider):
        for n in range(400):
            done(await provider.append_messages("c", talk(1, start=n), create=True))
        await asyncio.sleep(0.05)
        assert path.with_name(path.name + "-wal").stat().st_size < 1_000_000

    use(work)


@pytest.mark.usefixtures("here")
def test_a_reader_never_sees_what_is_not_committed(use, monkeypatch):
    """While a transaction is open, reads go by another connection, from every thread."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        original, seen = writes.write, []

        def write(*arguments, **options):
            result = original(*arguments, **options)

            async def look():
                seen.append(len(await provider.get_recent_messages("c")))

            other = threading.Thread(target=asyncio.run, args=(look(),))
            other.start()
            other.join()
            return result

        monkeypatch.setattr(writes, "write", write)
        for n in (1, 2):
            done(await provider.append_messages("c", talk(1, start=n)))
        assert seen == [1, 2]

    use(work)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("broken", ["COMMIT", "BEGIN IMMEDIATE", "INSERT OR IGNORE"])
def test_what_fails_where_it_is_asked_for(use, broken):
    """What fails in the caller's thread, or in the commit of it, is done anew in the writer's."""

    class Failing:
        def __init__(self, db):
            self.db, self.left = db, 1

        def __getattr__(self, name):
            value = getattr(self.db, name)
            return self.tried(value) if name in {"execute", "executemany"} else value

        def tried(self, method):
            def run(statement, *values):
                if statement.startswith(broken) and self.left:
                    self.left = 0
                    raise sqlite3.OperationalError("database or disk is full")
                return method(statement, *values)

            return run

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        worker = provider.backend._writer
        worker.db = Failing(worker.db)
        writes = [provider.append_messages("c", talk(1, f"n{n}-")) for n in range(5)]
        answers = await asyncio.wait_for(asyncio.gather(*writes), 5)
        assert [done(answer).added for answer in answers] == [1] * 5
        assert worker.db.left == 0
        assert len((await whole(provider)).messages) == 6

    use(work)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("count", [1, 3])
def test_a_commit_in_doubt_is_not_made_again(use, count):
    """A commit that fails, and stands all the same, is told as unknown, and what it holds is done once."""

    class Failing:
        def __init__(self, db):
            self.db, self.left = db, 1

        def __getattr__(self, name):
            return getattr(self.db, name)

        def execute(self, statement, *values):
            cursor = self.db.execute(statement, *values)
            if statement == "COMMIT" and self.left:
                self.left = 0
                raise sqlite3.OperationalError("disk I/O error")
            return cursor

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        worker = provider.backend._writer
        failing = worker.db = Failing(worker.db)
        calls = [provider.update_metadata("c", {f"k{n}": n}) for n in range(count)]
        answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert failing.left == 0
        assert [(type(one), one.outcome) for one in answers] == [(MemoryStorageError, "unknown")] * count
        assert worker.db is not failing or worker._stale
        found = await whole(provider)
        assert found.metadata == {f"k{n}": n for n in range(count)}
        assert found.version == 1 + count
        assert await provider.update_metadata("c", {"then": 1}) == 2 + count

    use(work)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), sqlite3.OperationalError("disk I/O error")])
def test_a_failure_half_way_is_ones_own(use, error):
    """A job that fails after it has changed something is undone, and the others of its transaction succeed."""

    def spoil(db):
        db.execute("DELETE FROM message")
        raise error

    async def work(provider):
        done(await provider.store_messages("c", talk(2)))
        async with held(provider):
            calls = [provider.append_messages("c", talk(1, start=n)) for n in (2, 3, 4)]
            calls.insert(1, provider.backend._write(spoil))
            writes = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*writes, return_exceptions=True)
        assert answers.pop(1) is error
        assert [done(answer).added for answer in answers] == [1, 1, 1]
        assert ids((await whole(provider)).messages) == ["m0", "m1", "m2", "m3", "m4"]

    use(work)


def test_a_late_refusal_undoes(use):
    """A refusal that comes after a change, against the rules, is undone all the same."""

    def spoil(db):
        db.execute("DELETE FROM message")
        raise MemoryConflictError("too late")

    async def work(provider):
        done(await provider.store_messages("c", talk(2)))
        with pytest.raises(MemoryConflictError):
            await provider.backend._write(spoil)
        assert len((await whole(provider)).messages) == 2

    use(work)


def test_a_full_disk_is_the_large_ones_trouble(use):
    """Of writes that wait together, only those that do not fit any more fail when the disk is full."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        pages = await provider.backend._write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await provider.backend._write(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 1}").fetchone())
        async with held(provider):
            calls = [provider.append_messages("c", talk(1, f"s{n}-")) for n in range(4)]
            calls.insert(2, provider.append_messages("c", [Message("user", "x" * 100_000)]))
            writes = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*writes)
        assert "full" in str(refused(answers.pop(2), MemoryStorageError))
        assert [done(answer).added for answer in answers] == [1] * 4

    use(work)


def test_cancelled_before_it_began(use):
    """A write that is cancelled while it waits is never done."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        async with held(provider):
            writes = [asyncio.ensure_future(provider.append_messages("c", talk(1, start=n))) for n in (1, 2, 3)]
            await asyncio.sleep(0.01)
            writes[1].cancel()
        await asyncio.gather(writes[0], writes[2])
        assert ids((await whole(provider)).messages) == ["m0", "m1", "m3"]

    use(work)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_cancelled_among_others(use, which):
    """Of writes that come together one is cancelled: the others are done, and it is whole or absent."""

    async def work(provider):
        done(await provider.store_messages("c", []))
        writes = [asyncio.ensure_future(provider.append_messages("c", talk(2, f"b{n}-"))) for n in range(3)]
        await asyncio.sleep(0)
        writes.pop(which).cancel()
        assert [done(answer).added for answer in await asyncio.gather(*writes)] == [2, 2]
        done(await provider.append_messages("c", talk(2, "last")))
        *found, _, _ = ids((await whole(provider)).messages)
        every = [f"b{n}-{m}" for n in range(3) for m in range(2)]
        others = [id for id in every if not id.startswith(f"b{which}-")]
        assert found in (others, every if which else None)

    use(work)


@pytest.mark.usefixtures("place")
def test_cancelled_at_any_moment(use):
    """Of writes that are cancelled at random moments each is there as a whole or not at all, and the next ones work."""
    moments = random.Random(7)

    async def work(provider):
        done(await provider.store_messages("c", []))
        told = []
        for n in range(300):
            write = asyncio.ensure_future(provider.append_messages("c", talk(3, f"b{n}-")))
            await asyncio.sleep(moments.choice((0, 0.00005, 0.0002, 0.001)))
            write.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                told.append(done(await write).added and n)
        # The write cancelled last may still be under way: this one comes behind it.
        version = done(await provider.append_messages("c", talk(1, "last"))).version
        *found, last = ids((await whole(provider)).messages)
        batches = [found[start : start + 3] for start in range(0, len(found), 3)]
        numbers = [int(batch[0][1:].split("-")[0]) for batch in batches]
        assert batches == [[f"b{n}-{m}" for m in range(3)] for n in numbers]
        assert numbers == sorted(set(numbers))
        assert set(told) <= set(numbers)
        assert (version, last) == (len(numbers) + 2, "last0")

    use(work)


def test_cancelled_reads(use):
    """A search holds up no other read, and is broken off when nobody waits for it any more."""

    def endless(db):
        return db.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT max(x) FROM n").fetchall()

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        read = asyncio.ensure_future(provider.backend._search(endless))
        await asyncio.sleep(0.05)
        assert len(await provider.get_recent_messages("c")) == 1
        assert len((await whole(provider)).messages) == 1
        read.cancel()
        assert (await asyncio.wait_for(provider.get_stats(), 5))["total_messages"] == 1

    use(work)


@pytest.mark.usefixtures("place")
def test_a_lock_that_is_held(path, use):
    """While another process holds the lock, writes wait; when it lets go, they are done; reads never wait."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.ensure_future(provider.append_messages("c", talk(1, start=1)))
            await asyncio.sleep(locks.PATIENCE + 0.2)  # longer than the worker itself tries
            assert not write.done()
            assert len(await provider.get_recent_messages("c")) == 1
            other.execute("ROLLBACK")
        assert done(await asyncio.wait_for(write, 5)).version == 2

    use(work)


def test_a_lock_that_is_never_let_go(path, use):
    """A write that never gets the lock ends at its deadline, says why, and is not done later."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with Stopwatch() as watch, pytest.raises(MemoryConnectionError, match="lock"):
                await provider.append_messages("c", talk(1, start=1))
            assert watch.seconds < 1.5 + GRACE
            assert not (await provider.health_check())["healthy"]
            other.execute("ROLLBACK")
        assert (await provider.health_check())["healthy"]
        assert len((await whole(provider)).messages) == 1

    use(work, operation_timeout=1.5)


@pytest.mark.usefixtures("place")
def test_many_loops(path):
    """Eight threads, each with a loop of its own, share one provider; each sees its own writes at once."""

    async def work(provider, number):
        for n in range(25):
            done(await provider.append_messages("c", talk(1, f"t{number}-{n}-"), create=True))
            assert f"t{number}-{n}-0" in ids(await provider.get_recent_messages("c", 200))

    provider = asyncio.run(create_sqlite_provider(SqliteConfig(path=path)))
    threads = [threading.Thread(target=asyncio.run, args=(work(provider, number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def finish():
        assert len((await whole(provider)).messages) == 200
        await provider.close()
        await provider.close()
        with pytest.raises(MemoryConnectionError, match="closed"):
            await provider.get_stats()

    asyncio.run(finish())


@pytest.mark.usefixtures("here")
def test_a_loop_that_ends_in_between(path):
    """What a loop had asked for when it was closed is not done by another, and leaves nothing behind."""
    loop = asyncio.new_event_loop()
    provider = loop.run_until_complete(create_sqlite_provider(SqliteConfig(path=path)))
    loop.run_until_complete(provider.store_messages("c", talk(1)))
    left = loop.create_task(provider.append_messages("c", talk(1, "left")))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    async def work():
        done(await provider.append_messages("c", talk(1, start=1)))
        assert ids((await whole(provider)).messages) == ["m0", "m1"]
        assert list(provider.backend._writer._waiting) == [asyncio.get_running_loop()]
        await provider.close()

    asyncio.run(work())
    assert not left.done()


@pytest.mark.usefixtures("here")
def test_interrupted_from_the_keyboard(path, monkeypatch):
    """An interrupt in the middle of a transaction undoes it; who waited for the same is not told of a success."""
    loop = asyncio.new_event_loop()
    provider = loop.run_until_complete(create_sqlite_provider(SqliteConfig(path=path)))
    loop.run_until_complete(provider.store_messages("c", talk(1)))
    tasks = [loop.create_task(provider.append_messages("c", talk(1, start=n), create=True)) for n in (1, 2)]
    original, interrupts = writes.write, iter([None, KeyboardInterrupt])

    def write(*arguments, **options):
        result = original(*arguments, **options)
        if (interrupt := next(interrupts, None)) is not None:
            raise interrupt
        return result

    monkeypatch.setattr(writes, "write", write)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.gather(*tasks))
    with pytest.raises(MemoryConnectionError) as caught:
        loop.run_until_complete(tasks[1])
    assert caught.value.outcome == "unknown"
    done(loop.run_until_complete(provider.append_messages("c", talk(1, start=3))))
    assert ids(loop.run_until_complete(whole(provider)).messages) == ["m0", "m3"]
    loop.run_until_complete(provider.close())
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_in_between(path, python):
    """What a loop was about to do when the process forked is done by the parent, and refused in the child."""
    said = python(
        """
        import asyncio, os, sys, warnings
        from jaf_memory_core import MemoryConnectionError, Message
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
        from jaf_memory_sqlite.connection import writer

        warnings.simplefilter("ignore")
        writer.QUICK = 60

        async def main():
            provider = await create_sqlite_provider(SqliteConfig(path=sys.argv[1]))
            await provider.store_messages("c", [])
            write = asyncio.ensure_future(provider.append_messages("c", [Message("user", "hi")]))
            await asyncio.sleep(0)
            child = os.fork()
            if not child:
                for _ in range(9):
                    await asyncio.sleep(0)
                refused = write.done() and isinstance(write.exception(), MemoryConnectionError)
                os._exit(3 if refused else 4)
            answer = await write
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answer.data.message_count)
            await provider.close()

        asyncio.run(main())
        """,
        path,
    )
    assert said == "3 1\n"


def workers():
    """Threads of ours, of this test."""
    return [one for one in set(threading.enumerate()) - _earlier if one.name.startswith("jaf-memory-sqlite")]


@pytest.mark.usefixtures("place")
def test_close_does_what_waits(path):
    """Closing does the writes that wait, fails later ones, ends the threads, and leaves one file behind."""

    async def work():
        provider = await create_sqlite_provider(SqliteConfig(path=path))
        writes = [asyncio.ensure_future(provider.store_messages(f"c{n}", talk(1))) for n in range(20)]
        await asyncio.sleep(0)
        await asyncio.gather(provider.close(), provider.close())
        assert not workers()
        with pytest.raises(MemoryConnectionError) as caught:
            await provider.store_messages("c", talk(1))
        assert not caught.value.retryable
        assert [done(answer).added for answer in await asyncio.gather(*writes)] == [1] * 20

    asyncio.run(work())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.usefixtures("place")
def test_close_at_the_same_moment(path):
    """Writes that are begun in the same moment as `close`, before it and after it, are done or refused; none hangs."""

    async def work():
        provider = await create_sqlite_provider(SqliteConfig(path=path))
        before = [asyncio.ensure_future(provider.store_messages(f"b{n}", talk(1))) for n in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(provider.close())
        after = [asyncio.ensure_future(provider.store_messages(f"a{n}", talk(1))) for n in range(5)]
        await asyncio.wait_for(closing, 5)
        assert [done(answer).added for answer in await asyncio.gather(*before)] == [1] * 5
        answers = await asyncio.wait_for(asyncio.gather(*after, return_exceptions=True), 5)
        assert {type(answer) for answer in answers} == {MemoryConnectionError}

    asyncio.run(work())


def test_close_never_opened(path):
    """A backend that was never opened can be closed, makes no file, and refuses to work."""

    async def work():
        backend = SqliteBackend(SqliteConfig(path=path))
        with pytest.raises(MemoryConnectionError):
            await backend.read("c")
        with pytest.raises(MemoryConnectionError):
            await backend.stats(None)
        with pytest.raises(MemoryConnectionError):
            await backend.ping()
        with pytest.raises(MemoryConnectionError):
            await backend.remove("c")
        await backend.close()
        with pytest.raises(MemoryConnectionError):
            await backend.open()

    asyncio.run(work())
    assert not path.exists()


def test_close_that_takes_too_long(path):
    """`close` ends within the deadline though a job hangs, and the threads end as soon as that does."""

    async def work():
        await (await create_sqlite_provider(SqliteConfig(path=path))).close()  # making a file takes its time
        provider = await create_sqlite_provider(SqliteConfig(path=path, operation_timeout=0.5))
        async with held(provider):
            with Stopwatch() as watch:
                await provider.close()
            assert watch.seconds < 0.5 + GRACE

    asyncio.run(work())
    end = time.monotonic() + 5
    while workers() and time.monotonic() < end:
        time.sleep(0.01)
    assert not workers()


def test_abandon_breaks_off(path):
    """Abandoning breaks off what runs, without waiting for anything."""

    async def work():
        provider = await create_sqlite_provider(SqliteConfig(path=path))
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT max(x) FROM n"
        read = asyncio.ensure_future(provider.backend._search(lambda db: db.execute(endless).fetchall()))
        await asyncio.sleep(0.05)
        provider.backend.abandon()
        with pytest.raises(sqlite3.OperationalError, match="interrupted") as caught:
            await asyncio.wait_for(read, 5)
        assert isinstance(provider.backend.translate(caught.value, "find_conversations"), MemoryConnectionError)
        await provider.close()

    asyncio.run(work())
    assert not workers()


def test_forgotten(path):
    """A provider that nobody closes ends its threads when it is collected, and leaves nothing open."""

    async def work():
        provider = await create_sqlite_provider(SqliteConfig(path=path))
        done(await provider.store_messages("c", talk(1)))
        return weakref.ref(provider.backend)

    forgotten = asyncio.run(work())
    end = time.monotonic() + 5
    while (forgotten() or workers()) and time.monotonic() < end:  # the threads may be in the middle of their last job
        gc.collect()
        time.sleep(0.01)
    assert forgotten() is None
    assert not workers()
    gc.collect()


def test_never_closed(path, python):
    """A program that ends without closing its provider ends at once, silently, and keeps what was acknowledged."""
    said = python(
        """
        import asyncio, sys
        from jaf_memory_core import Message
        from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider

        async def main():
            provider = await create_sqlite_provider(SqliteConfig(path=sys.argv[1]))
            await provider.store_messages("c", [Message("user", "hi")])
            return provider

        provider = asyncio.run(main())
        print("done")
        """,
        path,
    )
    assert said == "done\n"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (1,)


@pytest.mark.parametrize("replace", [lambda path: path.unlink(), lambda path: path.rename(path.with_name("elsewhere"))])
def test_file_that_was_removed(path, use, caplog, replace):
    """When the file is removed or replaced under an open provider, it goes on with what is there now, and says so."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        replace(path)
        await asyncio.sleep(0.15)
        done(await provider.store_messages("d", talk(2)))
        assert path.is_file()
        assert (await provider.get_stats())["total_messages"] == 2
        assert await provider.get_conversation("c") is None
        assert len(await provider.get_recent_messages("d")) == 2

    use(work)
    assert "removed or replaced" in caplog.text
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (2,)


def test_a_file_that_is_replaced_while_it_is_opened(path, monkeypatch):
    """What is put in the file's place between its opening and the first look is opened instead."""
    other = path.with_name("other")

    async def make(where, key):
        async with await create_sqlite_provider(SqliteConfig(path=where)) as provider:
            done(await provider.store_messages(key, talk(1)))

    asyncio.run(make(path, "old"))
    asyncio.run(make(other, "new"))
    connect, opened = sqlite3.connect, []

    def replacing(target, *arguments, **options):
        db = connect(target, *arguments, **options)
        opened.append(target)
        if len(opened) == 1:
            other.replace(path)
        return db

    async def work():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            assert await provider.get_conversation("new") is not None
            assert await provider.get_conversation("old") is None
            done(await provider.append_messages("new", talk(1, start=1)))

    monkeypatch.setattr(connection.sqlite3, "connect", replacing)
    asyncio.run(work())


@pytest.mark.parametrize("way", ["_write", "_search", "_read"])
def test_a_connection_in_doubt_is_replaced(use, way):
    """After an error of the disk the next operation has a new connection, and works."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        backend = provider.backend
        users = {"_write": backend._writer, "_search": backend._searcher, "_read": backend._writer}
        before = users[way].db

        def failing(_):
            raise sqlite3.OperationalError("disk I/O error")

        with pytest.raises(sqlite3.OperationalError) as caught:
            await getattr(backend, way)(*[failing] * (2 if way == "_read" else 1))
        error = backend.translate(caught.value, "append_messages")
        assert isinstance(error, MemoryStorageError)
        assert error.outcome == "unknown"
        done(await provider.append_messages("c", talk(1, start=1)))
        assert (await provider.get_stats())["total_messages"] == 2
        assert len(await provider.get_recent_messages("c")) == 2
        assert users[way].db is not before

    use(work)
