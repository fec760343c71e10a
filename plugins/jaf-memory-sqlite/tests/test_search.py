"""The index for searches: used, kept by whoever writes, built beside others, dropped; and its answer is exact."""

import asyncio
import contextlib
import sqlite3

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from jaf_memory_sqlite.operations import erasure, search
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import said, talk
from services.searches import fill, found, state

from jaf_memory_core import MemoryStorageError, Message, MessageSearch, Processor, proposals, stretches


@pytest.fixture(autouse=True)
def by_the_index(monkeypatch):
    """The index is asked at once, and asked again whatever it said before."""
    monkeypatch.setattr(proposals, "FIRST", 0)
    monkeypatch.setattr(proposals, "REMEMBERED", 0.0)


class Sealed(Processor):
    """Turns every text round on its way in, and back."""

    name = "sealed"

    def outgoing(self, message, context):
        """Into the store, and out of it."""
        return Message(message.role, message.content[::-1], message_id=message.message_id)

    incoming = outgoing


@pytest.fixture
def unscanned(monkeypatch):
    """A scan fails."""

    async def never(_):
        raise AssertionError("all messages were looked through")

    monkeypatch.setattr(stretches.Reader, "read", never)


@pytest.mark.usefixtures("unscanned")
def test_index_is_used(use):
    """A search by a word that few messages have looks through nothing else, of one user and page by page too."""

    async def work(provider):
        await fill(provider)
        assert await found(provider, '"word17"') == ["c17"]
        assert await found(provider, "word17", user_id="u0") == []
        assert len(await found(provider, "word here fi", limit=50)) == 0
        first = await provider.search_messages(MessageSearch("word1", limit=4))
        second = await provider.search_messages(MessageSearch("word1", limit=40, cursor=first.cursor))
        assert [hit.conversation_id for hit in (*first, *second)] == [f"c{n}" for n in (*range(19, 9, -1), 1)]
        assert (await state(provider)).startswith("index")

    use(work, search="index")


def test_writers_without_the_setting(path, monkeypatch):
    """What other programs add, cut off, revise and delete, the index hears of."""
    monkeypatch.setattr(search, "TOGETHER", 0)

    async def work():
        async with (
            await create_sqlite_provider(SqliteConfig(path=path, search="index")) as ours,
            await create_sqlite_provider(SqliteConfig(path=path)) as theirs,
        ):
            await fill(theirs, 4)
            assert await found(ours, "word") == ["c3", "c2", "c1", "c0"]
            await theirs.delete_conversation("c3")
            await theirs.truncate_conversation_after("c2", "q")
            await theirs.revise_messages("c1", {"q": said("other1", message_id="q")})
            assert await found(ours, "word") == ["c0"]
            assert await found(ours, "other1") == ["c1"]
            assert await found(ours, "fine") == ["c1", "c0"]
            assert await found(theirs, "fine") == ["c1", "c0"]

    asyncio.run(work())


def test_build_that_was_interrupted(path, monkeypatch):
    """A half-built index is not gone by; whoever builds goes on with it, and others write meanwhile."""
    monkeypatch.setattr(search, "BATCH", 50)

    async def work():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as plain:
            await fill(plain)
            await plain.backend._write(search.make)
            await plain.backend._write(search.build)
        async with await create_sqlite_provider(SqliteConfig(path=path, search="index")) as provider:
            assert "being built (2" in await state(provider)
            assert "searches go through all messages" in str((await provider.health_check())["warnings"])
            assert await found(provider, '"word99"') == ["c99"]
            await provider.delete_conversation("c98")
            done(await provider.append_messages("c99", [said("later", message_id="l")]))
            told = await provider.backend.apply_search("index")
            assert told == "the index for searches is complete: index (0 messages wait)"
            assert (await provider.health_check())["warnings"] == []
            assert await found(provider, "word98") == []
            assert await found(provider, "later") == ["c99"]

    asyncio.run(work())


def test_a_build_that_lacks_the_end_is_not_told_as_done(path, monkeypatch):
    """As long as something is left of the newest conversation, no share is told as all of it."""
    monkeypatch.setattr(search, "BATCH", 50)

    async def work():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            done(await provider.store_messages("c", talk(60)))
            await provider.backend._write(search.make)
            await provider.backend._write(search.build)
            assert "being built (99 %)" in await state(provider)
            await provider.backend._write(search.build)
            assert (await state(provider)).startswith("index")

    asyncio.run(work())


def test_drop(use, path):
    """The same command drops it, and leaves nothing of it."""

    async def work(provider):
        await fill(provider, 3)
        assert await provider.backend.apply_search("scan") == "the index for searches is gone"
        assert await provider.backend.apply_search("scan") == "there is no index for searches"
        assert await state(provider) == "scan"
        assert await found(provider, "word") == ["c2", "c1", "c0"]

    use(work, search="index")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'search%'").fetchall() == []


@pytest.mark.parametrize(
    "statement", ["UPDATE search_state SET rule = 'another'", "DROP TRIGGER search_added", "DROP TABLE search"]
)
def test_index_that_is_of_no_use(use, path, monkeypatch, statement):
    """By another rule, or without one of its parts, it is not gone by; it is told, and made anew."""
    monkeypatch.setattr(search, "TOGETHER", 0)

    async def work(provider):
        await fill(provider, 3)
        await found(provider, "word")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(statement)
            if "TABLE" in statement:
                db.execute("DROP TRIGGER search_dropped")
        done(await provider.append_messages("later", [said("word")], create=True))
        assert await found(provider, "word") == ["later", "c2", "c1", "c0"]
        assert not (await state(provider)).startswith("index")
        assert (await provider.health_check())["warnings"] != []
        await provider.backend.apply_search("index")
        assert (await state(provider)).startswith("index")
        assert await found(provider, "word") == ["later", "c2", "c1", "c0"]

    use(work, search="index")


def waiting(path):
    """How many messages wait, as another connection sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute("SELECT count(*) FROM search_waiting").fetchone()[0]


def test_all_that_waits_is_carried_over(use, path, monkeypatch):
    """However many batches it takes."""

    async def work(provider):
        await fill(provider, 5)
        assert waiting(path) == 10
        monkeypatch.setattr(search, "BATCH", 3)
        assert await provider.backend.apply_search("index") == (
            "the index for searches is complete: index (0 messages wait)"
        )
        assert waiting(path) == 0
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE search_state SET built = 77")
            await provider.backend.apply_search("index")  # what is complete is not made anew
            assert db.execute("SELECT built FROM search_state").fetchone() == (77,)

    use(work, search="index")


def test_another_rules_index_is_left_to_whom_it_is(use, path, monkeypatch):
    """What waits for an index by another rule waits on: words by ours would be wrong in it."""
    monkeypatch.setattr(search, "TOGETHER", 0)

    async def work(provider):
        await fill(provider, 3)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE search_state SET rule = 'another'")
        waited = waiting(path)
        done(await provider.append_messages("later", [said("word")], create=True))
        assert await found(provider, "word") == ["later", "c2", "c1", "c0"]
        assert waiting(path) == waited + 1

    use(work, search="index")


@pytest.mark.parametrize(("name", "most", "parts"), [("PROPOSED", 2, 2), ("PROPOSED_BYTES", 1, 1)])
def test_a_stretch_is_bounded(use, monkeypatch, name, most, parts):
    """What the index proposes is read so many messages, and bytes of them, at a time; nothing is left out."""
    monkeypatch.setattr(search, "TOGETHER", 0)
    monkeypatch.setattr(search, name, most)
    read, proposed = [], search.proposed

    def counted(*arguments):
        stretch = proposed(*arguments)
        read.append(len(stretch.parts))
        return stretch

    monkeypatch.setattr(search, "proposed", counted)

    async def work(provider):
        await fill(provider, 3)
        done(await provider.append_messages("many", [said("word", message_id=f"{n}") for n in range(5)], create=True))
        page = await provider.search_messages(MessageSearch("word", limit=50))
        hits = [*page]
        while page.cursor is not None:
            page = await provider.search_messages(MessageSearch("word", limit=50, cursor=page.cursor))
            hits += page
        assert [hit.conversation_id for hit in hits] == [*["many"] * 5, "c2", "c1", "c0"]
        assert max(read) == parts

    use(work, search="index")


def test_texts_of_many_words(use, monkeypatch):
    """Words that are too long for an index, and messages that have too many, are found all the same."""
    monkeypatch.setattr(search, "TOGETHER", 0)
    long = "x" * 5_000

    async def work(provider):
        many = " ".join(f"w{n:05}" for n in range(40_000))
        done(await provider.append_messages("many", [said(many)], create=True))
        done(await provider.append_messages("long", [said(f"{long}a"), said(f"{long}b")], create=True))
        assert await found(provider, '"w39999"') == ["many"]
        assert await found(provider, f'"{long[:900]}"') == []
        assert await found(provider, long[:900]) == ["long", "long"]

    use(work, search="index")


def test_damage(use, path, monkeypatch):
    """A message that cannot be read is told by each search, waiting or carried over."""
    monkeypatch.setattr(search, "TOGETHER", 1_000)

    async def work(provider):
        await fill(provider, 3)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE message SET body = substr(body, 1, 30) WHERE id = (SELECT min(id) FROM message)")
        for _ in range(2):
            with pytest.raises(MemoryStorageError, match="'c0' is damaged"):
                await provider.search_messages(MessageSearch("word2"))
            hits = await provider.search_messages(MessageSearch("word2"), on_damaged="skip")
            assert [hit.conversation_id for hit in hits] == ["c2"]
            await provider.backend.apply_search("index")

    use(work, search="index")


def test_processors(path):
    """What a processor seals is searched all the same, through all messages; and that is told."""

    async def work():
        config = SqliteConfig(path=path, search="index")
        async with await create_sqlite_provider(config, processors=[Sealed()]) as provider:
            await fill(provider, 3)
            assert await found(provider, "word2") == ["c2"]
            assert "search=index is of no use" in str((await provider.health_check())["warnings"])

    asyncio.run(work())


def test_writers_at_once(use, monkeypatch):
    """Whoever carries over meets who writes: what stands in the end is found, and nothing else."""
    monkeypatch.setattr(search, "TOGETHER", 3)

    async def work(provider):
        async def write(n):
            for round_ in range(8):
                key = f"c{n}"
                first = said(f"word{n} round{round_}", message_id="first")
                done(await provider.append_messages(key, [first, said("next", message_id="next")], create=True))
                await provider.revise_messages(key, {"first": said(f"other{n}", message_id="first")})
                await found(provider, f"other{n}")
                await provider.truncate_conversation_after(key, "next")
                if round_ < 7:
                    await provider.delete_conversation(key)

        await asyncio.gather(*map(write, range(6)))
        assert sorted(await found(provider, "other")) == [f"c{n}" for n in range(6)]
        for gone in ("word", "round", "next"):
            assert await found(provider, gone) == []
        await provider.backend.apply_search("index")
        counts = "SELECT (SELECT count(*) FROM search), (SELECT count(*) FROM search_waiting)"
        assert await provider.backend._search(lambda db: db.execute(counts).fetchone()) == (6, 0)

    use(work, search="index")


READ = """
    import pathlib, sys

    for file in pathlib.Path(sys.argv[1]).iterdir():
        if sys.argv[2].encode() in file.read_bytes():
            print("in", file.name)
"""


@pytest.mark.parametrize("small", [True, False], ids=["small", "large"])
def test_nothing_remains(use, path, python, monkeypatch, small):
    """Words of what was erased stand in no byte of the index, once it has been quiet; of a large one, step by step."""
    monkeypatch.setattr(search, "TOGETHER", 0)
    monkeypatch.setattr(erasure, "QUIET", 0.1)
    if not small:
        monkeypatch.setattr(search, "is_large", lambda _: True)
        monkeypatch.setattr(search, "STEP", 4)
        monkeypatch.setattr(erasure, "SMALL", 0)

    async def work(provider):
        await fill(provider, 60, "zyx")
        await fill(provider, 60, "other", "d")
        await found(provider, "zyx")
        for n in range(60):
            await provider.delete_conversation(f"c{n}")
        await fill(provider, 20, "more", "e")
        for _ in range(200):
            await asyncio.sleep(0.05)
            if not python(READ, path.parent, "zyx"):
                return
        raise AssertionError(python(READ, path.parent, "zyx"))

    use(work, search="index")


@pytest.mark.parametrize("small", [True, False], ids=["small", "large"])
def test_what_is_small_is_written_anew_at_once(use, monkeypatch, small):
    """A small index is rid of what was erased in one go, which a close waits for; a large one by steps."""
    monkeypatch.setattr(search, "STEP", 1)
    if not small:
        monkeypatch.setattr(search, "is_large", lambda _: True)

    async def work(provider):
        for key in "cde":
            await fill(provider, 5, key=key)
            await provider.backend._write(search.carry)  # a part of the index
        await provider.delete_conversation("c1")
        assert await provider.backend._write(lambda db: search.clear_out(db, first=True)) is small

    use(work, search="index")
