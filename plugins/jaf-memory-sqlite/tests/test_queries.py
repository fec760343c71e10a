"""Queries go by indexes, and reads are done where they cost least."""

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from jaf_memory_sqlite.connection import reader
from jaf_memory_sqlite.operations import queries, reads, scans, writes
from jaf_memory_sqlite.rows import BUSY, LAG, RESTING, SQL, held
from jaf_memory_testing.expectations import done, refused, whole
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import ConversationMemory, MemoryQuery, MemoryStorageError, Message
from jaf_memory_core.records import Tail

NOW = datetime.now(UTC)
LAST = MemoryQuery(cursor=(NOW, NOW, "c"))


async def plan(provider, statement):
    """How SQLite goes about a statement."""
    text, values = statement
    rows = await provider.backend._write(lambda db: db.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall())
    return " | ".join(row[3] for row in rows)


async def plans(provider, query):
    """How SQLite goes about a list: all at once, or those that rest and those that are busy."""
    if queries._stand_together(query):
        return [await plan(provider, queries.newest(query, NOW))]
    return [await plan(provider, half(query, NOW)) for half in (queries.resting, queries.busily)]


FILTERS = {
    "conversation_of_user": {"user_id": "u"},
    "conversation_traced": {"trace_id": "t"},
    "conversation_updated": {"active_since": NOW},
    "sqlite_autoindex_conversation_1": {"conversation_id": "c"},
}


@pytest.mark.parametrize("index", FILTERS)
def test_find_goes_by_an_index(use, index):
    """A filter on owner, trace, activity or id leads to its rows by an index, with a cursor and without."""

    async def work(provider):
        for more in ({}, {"cursor": LAST.cursor}, {"limit": 10}):
            for steps in await plans(provider, MemoryQuery(**FILTERS[index], **more)):
                assert f"SEARCH conversation USING INDEX {index}" in steps
                assert "SCAN" not in steps

    use(work)


@pytest.mark.parametrize("more", [{"since": NOW}, {"until": NOW}, {"since": NOW, "until": NOW}])
def test_find_by_creation_goes_by_an_index(use, more):
    """A filter on the time of creation leads to its rows by an index."""

    async def work(provider):
        (steps,) = await plans(provider, MemoryQuery(**more))
        assert "SEARCH conversation USING INDEX conversation_created" in steps

    use(work)


@pytest.mark.parametrize("more", [{}, {"limit": 10}, {"cursor": LAST.cursor}, {"updated_until": NOW}])
def test_find_by_last_change_goes_by_two_indexes(use, more):
    """A bound on the last change leads to its rows by the two indexes of what may have been it, or by the owner's."""

    async def work(provider):
        (steps,) = await plans(provider, MemoryQuery(updated_since=NOW, **more))
        assert "MULTI-INDEX OR" in steps
        assert "SEARCH conversation USING INDEX conversation_updated (listed_at>?)" in steps
        assert "SEARCH conversation USING INDEX conversation_updated (listed_at>? AND listed_at<?)" in steps
        assert "SEARCH conversation USING INDEX conversation_amended (amended_at>?)" in steps
        assert "SCAN" not in steps
        for steps in await plans(provider, MemoryQuery(updated_since=NOW, user_id="u", **more)):
            assert "SEARCH conversation USING INDEX conversation_of_user (user_id=?" in steps

    use(work)


@pytest.mark.parametrize("query", [MemoryQuery(limit=10), MemoryQuery(user_id="u", limit=10), LAST])
def test_newest_need_no_sorting(use, query):
    """The newest of a user, and of all, are read in the index's order."""

    async def work(provider):
        for steps in await plans(provider, query):
            assert "ORDER BY" not in steps

    use(work)


def clock(provider, start=NOW):
    """Let a provider's time stand still; the list's only item moves it."""
    moment = [start]
    provider.backend.now = lambda: moment[0]
    return moment


async def listed(provider, page=7, **filters):
    """All conversations of a list, page by page."""
    query, found = MemoryQuery(**filters, limit=page, include_messages=False), []
    while some := await provider.find_conversations(query):
        found += some
        query = query.after(some[-1])
    return found


def by_activity(conversations):
    """As lists go."""
    return sorted(conversations, key=lambda one: (one.active_at, one.conversation_id), reverse=True)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("most", [0, 3, 256])
def test_lists_are_in_order(use, monkeypatch, seed, most):
    """However close together conversations were active, and however many are busy, lists and pages are in order."""
    monkeypatch.setattr(writes, "MOST_BUSY", most)
    random = Random(seed)

    async def work(provider):
        moment = clock(provider)
        names = [f"c{number}" for number in range(40)]
        for step in range(250):
            pause = random.choice([0, 0, 1, 5_000, 400_000, 5_000_000]) if random.random() < 0.99 else 61_000_000
            moment[0] += timedelta(microseconds=pause)
            name = random.choice(names)
            await provider.append_messages(name, talk(1, start=step), create=True, user_id=f"u{int(name[1:]) % 2}")
            if random.random() < 0.1:
                await provider.update_metadata(name, {"n": random.random()})
        everything = [one async for one in provider.iter_conversations()]
        assert [one.conversation_id for one in await listed(provider)] == [
            one.conversation_id for one in by_activity(everything)
        ]
        since, until = sorted(one.active_at for one in everything)[5:30:24]
        for filters, keeps in (
            ({"user_id": "u1"}, lambda one: one.user_id == "u1"),
            ({"active_since": since}, lambda one: one.active_at >= since),
            ({"active_until": until, "user_id": "u0"}, lambda one: one.active_at < until and one.user_id == "u0"),
            ({"updated_since": since}, lambda one: one.updated_at >= since),
            ({"updated_until": until}, lambda one: one.updated_at < until),
            ({"updated_since": since, "user_id": "u1"}, lambda one: one.updated_at >= since and one.user_id == "u1"),
        ):
            assert await listed(provider, **filters) == by_activity(map(bare, filter(keeps, everything))), filters
        ordered = by_activity(everything)
        paged = MemoryQuery(offset=11, limit=9, include_messages=False)
        assert await provider.find_conversations(paged) == [bare(one) for one in ordered[11:20]]

    use(work, synchronous="NORMAL")


def bare(conversation):
    """Without messages."""
    return replace(conversation, messages=())


@pytest.mark.parametrize("appended", [False, True])
def test_newest_of_very_many_of_one_moment(use, appended):
    """The newest cost no more where thousands stand within the same second, made there or active there."""

    async def work(provider):
        moment = clock(provider)

        async def steps():
            taken = []

            def find(db):
                # Counted by hundreds; the first hundred may be another's.
                db.set_progress_handler(lambda: taken.append(100), 100)
                found = queries.find(db, MemoryQuery(user_id="u", limit=10, include_messages=False), NOW)
                db.set_progress_handler(None, 0)
                return [one.conversation_id for one in found]

            return await provider.backend._search(find), sum(taken)

        names = [f"c{number:04}" for number in range(3_000)]
        for start in range(0, len(names), 300):
            some = names[start : start + 300]
            for again in range(1 + appended):
                moment[0] += timedelta(milliseconds=10)
                await asyncio.gather(
                    *(provider.append_messages(one, talk(1, start=again), create=True, user_id="u") for one in some)
                )
        found, taken = await steps()
        assert found == names[:-11:-1]
        assert taken < 20_000

    use(work, synchronous="NORMAL")


def test_few_become_busy(use):
    """No more than a list puts in order become busy within a minute; the others stay in the very order."""

    async def work(provider):
        moment = clock(provider)
        for number in range(300):
            moment[0] += timedelta(milliseconds=1)
            await provider.append_messages(f"c{number}", talk(1), create=True)
        for count in range(2):
            for number in range(300):
                moment[0] += timedelta(milliseconds=1)
                await provider.append_messages(f"c{number}", talk(1, start=1 + count))
        rows = await provider.backend._search(
            lambda db: db.execute("SELECT listed_at, updated_at FROM conversation").fetchall()
        )
        busy = [row for row in rows if row[0] < RESTING]
        assert len(busy) == writes.MOST_BUSY
        assert all(BUSY + updated - LAG < listed < BUSY + updated for listed, updated in busy)
        assert all(listed == updated for listed, updated in rows if listed >= RESTING)

    use(work, synchronous="NORMAL")


@pytest.mark.parametrize("query", [MemoryQuery(), MemoryQuery(user_id="u"), MemoryQuery(trace_id="t"), LAST])
def test_a_scan_goes_by_an_index(use, query):
    """A scan's page is found by an index, too, from beyond its cursor on."""

    async def work(provider):
        above = scans.Key(1, "c")
        steps = await plan(provider, scans.in_order_of_creation(query, above, 100))
        assert "SEARCH conversation USING" in steps
        assert "SCAN" not in steps

    use(work)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("with_messages", [True, False])
def test_a_scan_gives_each_as_it_stands(use, path, monkeypatch, where, with_messages):
    """What was read ahead is read again once anybody has changed anything."""
    monkeypatch.setattr(scans, "STALE", 60.0)

    async def work(provider):
        for key in "abcd":
            done(await provider.store_messages(key, talk(2)))
        scan = provider.backend.scan(MemoryQuery(include_messages=with_messages))
        assert (await anext(scan)).conversation_id == "a"
        if where == "here":
            await changed(provider)
        else:
            other = await create_sqlite_provider(SqliteConfig(path=path))
            await changed(other)
            await other.close()
        found = [(one.conversation_id, one.message_count, len(one.messages)) async for one in scan]
        assert found == [("b", 3, 3 if with_messages else 0), ("d", 2, 2 if with_messages else 0)]

    async def changed(provider):
        done(await provider.append_messages("b", talk(1, start=2)))
        assert await provider.delete_conversation("c")

    use(work)


def test_a_scan_reads_ahead(use, monkeypatch):
    """What nobody changes is read in one statement, and nothing of it by itself, whatever there is of it."""

    async def work(provider):
        for count, key in enumerate("abcd"):
            done(await provider.store_messages(key, talk(count)))
        monkeypatch.setattr(scans, "STALE", 60.0)
        monkeypatch.setattr(reads, "conversation", None)
        found = [one async for one in provider.backend.scan(MemoryQuery())]
        assert [one.messages for one in found] == [tuple(talk(count)) for count in range(4)]

    use(work)


@pytest.mark.parametrize("quick", [True, False])
def test_a_scan_reads_where_it_is_asked_for(use, monkeypatch, quick):
    """Short stretches are read in the caller's thread, and one that takes long there is left to the searcher's."""
    monkeypatch.setattr(scans, "INLINE_STRETCH", 3)
    if not quick:
        monkeypatch.setattr(queries, "INLINE_SECONDS", -1)
        monkeypatch.setattr(queries, "INLINE_STEPS", 1)

    async def work(provider):
        names = [f"c{number}" for number in range(8)]
        for name in names:
            done(await provider.store_messages(name, talk(2)))
        searcher = provider.backend._searcher
        asked, submit = [], searcher.submit
        monkeypatch.setattr(searcher, "submit", lambda call: asked.append(call) or submit(call))
        found = [one async for one in provider.backend.scan(MemoryQuery())]
        assert [(one.conversation_id, one.messages) for one in found] == [(name, tuple(talk(2))) for name in names]
        assert len(asked) == (0 if quick else 1)

    use(work)


def test_a_scan_beside_writers_reads_little_ahead(use, monkeypatch):
    """Where something is written at each step, a scan soon goes by keys, and tries again now and then."""
    monkeypatch.setattr(scans, "STRETCH", 10)
    lengths, rows = [], scans._rows

    def counted(db, query, above, most):
        lengths.append(most)
        return rows(db, query, above, most)

    monkeypatch.setattr(scans, "_rows", counted)

    async def work(provider):
        for number in range(35):
            done(await provider.store_messages(f"c{number:02}", talk(1)))
        found = []
        async for one in provider.backend.scan(MemoryQuery()):
            found.append(one.conversation_id)
            done(await provider.append_messages("c00", talk(1, start=len(found))))
        assert found == [f"c{number:02}" for number in range(35)]
        assert lengths == [10, 8]

    use(work, synchronous="NORMAL")


def test_a_short_list_brings_its_messages(use, monkeypatch):
    """A page of conversations that rest is one statement with its messages, unless they are many."""
    monkeypatch.setattr(queries, "INLINE_BYTES", 5_000)

    async def work(provider):
        for count in range(4):
            done(await provider.import_conversation(ConversationMemory(f"c{count}", "u", talk(count))))
        with monkeypatch.context() as patched:
            patched.setattr(queries, "all_bodies", None)
            found = await provider.find_conversations(MemoryQuery(user_id="u", limit=10))
        assert [one.messages for one in found] == [tuple(talk(count)) for count in (3, 2, 1, 0)]
        done(await provider.import_conversation(ConversationMemory("large", "u", talk(100))))
        found = await provider.find_conversations(MemoryQuery(user_id="u", limit=10))
        assert [len(one.messages) for one in found] == [100, 3, 2, 1, 0]

    use(work)


def test_a_scan_of_what_is_large_goes_in_stretches(use, monkeypatch):
    """It holds no more than there is room for, and reads by itself what is too large to be read ahead."""
    monkeypatch.setattr(scans, "ROOM", 3_000)
    monkeypatch.setattr(scans, "INLINE_BYTES", 2_000)

    async def work(provider):
        lengths = [1, 40, 3, 40, 12, 12, 12, 0]
        for number, length in enumerate(lengths):
            done(await provider.store_messages(f"c{number}", talk(length)))
        found = [one async for one in provider.backend.scan(MemoryQuery())]
        assert [len(one.messages) for one in found] == lengths

    use(work)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (f"{SQL['whole']} WHERE id = ?", (1, 1)),
        (SQL["tail"], (1, 1, 1, 1, 1, 1, "c")),
        (SQL["bodies"], (1, 2)),
        (SQL["bytes"], (1, 2)),
        (SQL["drop"], (1, 2)),
        (held(2), (1, "a", "b")),
        (SQL["row_of_message"], (1, "a")),
        (SQL["header"], ("c",)),
        (SQL["count_of_user"], ("u", 1)),
        (SQL["erase_user"], ("u",)),
        (SQL["purge"], (1, 1)),
        (SQL["purge_of_user"], ("u", 1, 1)),
        (SQL["stats_of_user"], (1, "u")),
    ],
)
def test_no_statement_reads_a_whole_table(use, text, values):
    """What reads or changes a part reads no more than that part."""

    async def work(provider):
        steps = await plan(provider, (text, values))
        assert "SCAN conversation" not in steps
        assert "SCAN message" not in steps
        assert "SEARCH" in steps

    use(work)


def test_metadata_filters(use):
    """Keys that any JSON writes alike are looked for in the text first; what is found is compared exactly."""
    kinds = [1, 1.0, True, "1", None, [1], {"a": 1}, -0.0, 0.0, 2**70]
    keys = ["plain", "with space", 'quo"te', "back\\slash", "ümlaut", "\ud800", "slash/", "\x7f", "user_id"]

    async def work(provider):
        for number, kind in enumerate(kinds):
            await provider.store_messages(f"k{number}", [], {"plain": kind})
        for number, key in enumerate(keys[1:-1]):
            await provider.store_messages(f"n{number}", [], {key: [key]})
        await provider.store_messages("owned", [], user_id="u")
        for number, kind in enumerate(kinds):
            found = await provider.find_conversations(MemoryQuery(metadata={"plain": kind}))
            assert [one.conversation_id for one in found] == [f"k{number}"]
        for number, key in enumerate(keys[1:-1]):
            found = await provider.find_conversations(MemoryQuery(metadata={key: [key]}))
            assert [one.conversation_id for one in found] == [f"n{number}"]
        assert len(await provider.find_conversations(MemoryQuery(metadata={"user_id": "u"}))) == 1
        assert len(await provider.find_conversations(MemoryQuery(metadata={"plain": 1, "other": 1}))) == 0
        paged = MemoryQuery(metadata={}, limit=5, offset=3)
        everything = await provider.find_conversations(MemoryQuery())
        assert await provider.find_conversations(paged) == everything[3:8]

    use(work)


def test_trace_ids(use):
    """A trace id is found by its index when it was given later, changed, or taken from the metadata filter."""

    async def traced(provider, **filters):
        return [one.conversation_id for one in await provider.find_conversations(MemoryQuery(**filters))]

    async def work(provider):
        await provider.store_messages("a", [], {"trace_id": "t"})
        await provider.store_messages("b", [])
        await provider.update_metadata("b", {"trace_id": "t"})
        await provider.store_messages("c", [], {"trace_id": 7})
        assert sorted(await traced(provider, trace_id="t")) == ["a", "b"]
        assert sorted(await traced(provider, metadata={"trace_id": "t"})) == ["a", "b"]
        await provider.append_messages("a", [], {"trace_id": "s"})
        assert await traced(provider, trace_id="t") == ["b"]
        assert await traced(provider, trace_id="7") == []
        assert await traced(provider, metadata={"trace_id": 7}) == ["c"]
        assert await traced(provider, trace_id="t", metadata={"trace_id": "s"}) == []
        await provider.update_metadata("a", {"trace_id": None})
        assert await traced(provider, metadata={"trace_id": None}) == ["a"]

    use(work)


def test_without_messages_no_message_is_read(use, monkeypatch):
    """`include_messages=False` never touches the messages' rows."""
    for module in (reads, queries):
        monkeypatch.setattr(module, "all_bodies", None)

    async def work(provider):
        for n in range(3):
            await provider.store_messages(f"c{n}", talk(4), user_id="u")
        query = MemoryQuery(user_id="u", include_messages=False)
        found = await provider.find_conversations(query)
        passed = [conversation async for conversation in provider.iter_conversations(query)]
        assert [one.message_count for one in [*found, *passed]] == [4] * 6
        assert {one.messages for one in [*found, *passed]} == {()}

    use(work)


@pytest.fixture
def threads(monkeypatch):
    """In which threads messages were read."""
    seen = []
    for name in ("conversation", "tail", "small_tail"):
        original = getattr(reads, name)

        def spy(*arguments, original=original, **options):
            answer = original(*arguments, **options)
            seen.append(threading.current_thread().name.removeprefix("jaf-memory-sqlite "))
            return answer

        monkeypatch.setattr(reads, name, spy)
    return seen


def test_what_is_small_is_read_at_once(use, threads, monkeypatch):
    """Little is read in the caller's thread, also at the end of a long conversation; much is not."""
    monkeypatch.setattr(reader, "SLOW", 60)  # reads are slow on a busy machine, too

    async def work(provider):
        done(await provider.store_messages("small", talk(20)))
        done(await provider.store_messages("long", talk(5000)))
        done(await provider.store_messages("wide", [Message("user", "x" * 100_000) for _ in range(10)]))
        for call, where in (
            (provider.get_recent_messages("small"), "MainThread"),
            (provider.get_conversation("small"), "MainThread"),
            (provider.get_recent_messages("long", 20), "MainThread"),
            (provider.get_messages("long", 4000, 20), "MainThread"),
            (provider.backend.tail(Tail("long", 20, leading=3)), "MainThread"),
            (provider.get_recent_messages("wide", 2), "MainThread"),
            (provider.get_conversation("long"), "reader"),
            (provider.get_recent_messages("long", 5000), "reader"),
            (provider.get_recent_messages("wide", 5), "reader"),
        ):
            threads.clear()
            await call
            assert threads == [where]

    use(work)


def test_a_slow_disk_is_left_to_the_thread(use, threads, monkeypatch):
    """After two slow reads reads go to the thread for a while, so that a slow disk does not hold up the loop."""
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)  # a busy machine is slow, too
    monkeypatch.setattr(reader, "time", clock)

    async def work(provider):
        nonlocal now
        done(await provider.store_messages("c", talk(2)))
        original, seconds = reads.small_tail, [0.02, 0, 0.02, 0.02, 0]

        def sleepy(*arguments):
            nonlocal now
            now += seconds.pop(0)
            return original(*arguments)

        monkeypatch.setattr(reads, "small_tail", sleepy)
        for _ in range(6):
            assert len(await provider.get_recent_messages("c")) == 2
        assert threads == [*["MainThread"] * 4, "reader", "reader"]
        now += reader.PAUSE
        assert len(await provider.get_recent_messages("c")) == 2
        assert threads[6:] == ["MainThread"]

    use(work)


@pytest.mark.parametrize("gone", [[], ["m3"]])
def test_what_is_asked_for_beside_a_page_comes_with_it(use, gone):
    """First messages and the header come with a page in one go: nobody has to ask again."""

    async def work(provider):
        done(await provider.store_messages("c", talk(6)))
        assert await provider.delete_messages("c", gone) == len(gone)
        for with_header in (True, False):
            page = await provider.backend.tail(Tail("c", 2, leading=2, with_header=with_header))
            assert ids(page.leading) == ["m0", "m1"]
            assert (page.header is not None) is with_header
        page = await provider.backend.tail(Tail("c", 2, after=0))
        assert (ids(page.messages), page.end) == (["m1", "m2"], 6)

    use(work)


def test_pages_meet(use):
    """Pages of every size, read at once or in the thread, are the same messages; numbers beyond 64 bits will do."""

    async def work(provider):
        done(await provider.store_messages("c", talk(100)))
        for limit in (1, 7, 50, 99, 100, 101, 2**70):
            seen, before = [], 2**70
            while before is not None:
                page = await provider.get_messages("c", before, limit)
                seen[:0] = ids(page)
                before = page.before
            assert seen == [f"m{n}" for n in range(100)]
        assert await provider.get_messages("c", 0) == ()

    use(work)


def test_positions_end(use, monkeypatch):
    """A conversation that has used up all positions refuses more, and never runs into the next one's rows."""
    monkeypatch.setattr(writes, "BEYOND", 5)

    async def work(provider):
        done(await provider.store_messages("c", talk(3)))
        done(await provider.append_messages("c", talk(1, start=3)))
        refused(await provider.append_messages("c", talk(1, start=4)), MemoryStorageError)
        refused(await provider.store_messages("d", talk(5)), MemoryStorageError)
        assert ids((await whole(provider)).messages) == ["m0", "m1", "m2", "m3"]
        assert await provider.get_conversation("d") is None

    use(work)


def test_a_long_scan_lets_others_have_their_turn(use):
    """An iteration that never waits for anything still lets other tasks run."""

    async def work(provider):
        await asyncio.gather(*(provider.store_messages(f"c{n:03}", talk(1)) for n in range(350)))
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        passed = [conversation.conversation_id async for conversation in provider.iter_conversations()]
        counting.cancel()
        assert len(passed) == len(set(passed)) == 350
        assert turns >= 3

    use(work)


def test_times_are_exact(use):
    """Times keep their microseconds, also those that an import brings from far away."""

    async def work(provider):
        moment = datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
        for name, created in (("a", moment), ("z", datetime.max.replace(tzinfo=UTC))):
            await provider.store_messages("c", talk(1))
            source = await whole(provider)
            done(await provider.import_conversation(_with(source, name, created)))
            assert (await whole(provider, name)).created_at == created
        passed = [one.conversation_id async for one in provider.iter_conversations()]
        assert passed == ["a", "c", "z"]

    use(work)


def _with(source, name, created):
    return type(source)(conversation_id=name, messages=source.messages, created_at=created)


def test_heavy_metadata_goes_to_the_thread(use, monkeypatch):
    """A list whose metadata are large is left to the thread, whether they rest or are busy; one of few bytes is not."""
    seen = []
    find = queries.find

    def watched(db, query, now, most=reads.ANY):
        found = find(db, query, now, most)
        seen.append(threading.current_thread() is threading.main_thread())
        return found

    monkeypatch.setattr(queries, "find", watched)
    monkeypatch.setattr(queries, "INLINE_SECONDS", 60)
    monkeypatch.setattr(reader, "SLOW", 60)

    async def work(provider):
        for name in "abcd":
            done(await provider.store_messages(name, [Message("user", name)]))
            done(await provider.append_messages(name, [Message("user", name)], metadata={"text": "x" * 100_000}))
            if name == "b":
                assert len(await provider.find_conversations(MemoryQuery(limit=2))) == 2
        for query in (MemoryQuery(limit=4), MemoryQuery(limit=4, include_messages=False), MemoryQuery(limit=1)):
            assert len(await provider.find_conversations(query)) == query.limit
        monkeypatch.setattr(writes, "MOST_BUSY", 0)
        monkeypatch.setattr(writes, "LAG", 0)
        for name in "abcd":
            done(await provider.append_messages(name, [Message("user", name)]))
        for limit in (4, 1):
            assert len(await provider.find_conversations(MemoryQuery(limit=limit))) == limit
        assert seen == [True, False, False, False, False, True]

    use(work)


def test_a_list_that_is_broken_off_leaves_no_transaction(use, monkeypatch):
    """Whichever statement a list's time ends in, also the one that ends the snapshot, the connection can be used on."""
    monkeypatch.setattr(queries, "INLINE_SECONDS", 0)
    monkeypatch.setattr(reader, "SLOW", 60)

    async def work(provider):
        backend = provider.backend
        for name in "abc":
            done(await provider.store_messages(name, talk(3)))
        for steps in (20, 30, 50, 100) * 25:
            monkeypatch.setattr(queries, "INLINE_STEPS", steps)
            assert len(await provider.find_conversations(MemoryQuery(limit=3))) == 3
            for worker in (backend._writer, backend._reader):
                with worker.lock:
                    assert not worker.db.in_transaction
        done(await provider.append_messages("a", [Message("user", "on")]))

    use(work)
