"""One transaction for what waits together, and each operation's failure, cancellation and deadline its own."""

import asyncio
import contextlib
import gc
import random
import sqlite3
import threading
import time
import weakref

import pytest
from jaf_memory_sqlite import SqliteBackend, SqliteConfig, create_sqlite_provider, waiting, worker

from jaf_memory_core import MemoryConflictError, MemoryConnectionError, MemoryNotFoundError, MemoryStorageError, Message
from jaf_memory_core.testing.deadlines import GRACE, Stopwatch
from jaf_memory_core.testing.expect import done, refused, whole
from jaf_memory_core.testing.samples import ids, talk

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
    original = worker.answer

    def answer(jobs):
        if threading.current_thread().name.endswith("writer"):
            counts.append(len(jobs))
        return original(jobs)

    monkeypatch.setattr(worker, "answer", answer)
    return counts


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


def test_a_lock_that_is_held(path, use):
    """While another process holds the lock, writes wait; when it lets go, they are done; reads never wait."""

    async def work(provider):
        done(await provider.store_messages("c", talk(1)))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.ensure_future(provider.append_messages("c", talk(1, start=1)))
            await asyncio.sleep(waiting.PATIENCE + 0.2)  # longer than the worker itself tries
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


def test_many_loops(path):
    """Eight threads, each with a loop of its own, share one provider; each sees its own writes at once."""

    async def work(provider, number):
        for n in range(25):
            done(await provider.append_messages("c", talk(1, f"t{number}-{n}-"), create=True))
            assert f"t{number}-{n}-0" in ids(await provider.get_recent_messages("c", 50))

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


def workers():
    """Threads of ours, of this test."""
    return [one for one in set(threading.enumerate()) - _earlier if one.name.startswith("jaf-memory-sqlite")]


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


def test_close_fails_what_was_not_handed_in(path):
    """A write that is begun in the same moment as `close` succeeds or is refused; it never hangs."""

    async def work():
        provider = await create_sqlite_provider(SqliteConfig(path=path))
        provider.backend._writer.crowded = True
        first = asyncio.ensure_future(provider.store_messages("c", talk(1)))
        await asyncio.sleep(0)
        provider.backend._writer.stop()
        with pytest.raises(MemoryConnectionError, match="closed"):
            await asyncio.wait_for(first, 5)
        await provider.close()

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
