"""The index for searches: used, kept by whoever writes, built beside others, dropped; and its answer is exact."""

from __future__ import annotations

import asyncio
import functools
from contextlib import asynccontextmanager
from urllib.parse import quote

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, backend, create_postgres_provider
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations import search
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import said
from services.searches import fill, found, state

from jaf_memory_core import MemoryStorageError, MessageSearch, proposals, stretches


@pytest.fixture(autouse=True)
def by_the_index(monkeypatch):
    """The index is asked at once, and asked again whatever it said before."""
    monkeypatch.setattr(proposals, "FIRST", 0)
    monkeypatch.setattr(proposals, "REMEMBERED", 0.0)


def at_once(test):
    """Run the test in a loop of its own."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture
def opened(postgres, table):
    """Open a provider on the table."""

    def open_(**settings):
        return create_postgres_provider(PostgresConfig(connection_string=postgres.url(), table_name=table, **settings))

    return open_


@pytest.fixture
def execute(postgres, table):
    """Run statements, with our names in them, as another connection."""

    async def run(text):
        connection = await asyncpg.connect(postgres.url())
        try:
            return await connection.fetch(Names("public", table).fill(text))
        finally:
            await connection.close()

    return run


@at_once
async def test_index_is_used(opened, monkeypatch):
    """A search by a word that few messages have looks through nothing else, of one user and page by page too."""

    async def never(_):
        raise AssertionError("all messages were looked through")

    monkeypatch.setattr(stretches.Reader, "read", never)
    async with await opened(search="index") as provider:
        await fill(provider)
        assert await found(provider, '"word17"') == ["c17"]
        assert await found(provider, "word17", user_id="u0") == []
        first = await provider.search_messages(MessageSearch("word1", limit=4))
        second = await provider.search_messages(MessageSearch("word1", limit=40, cursor=first.cursor))
        assert [hit.conversation_id for hit in (*first, *second)] == [f"c{n}" for n in (*range(19, 9, -1), 1)]
        assert (await state(provider)).startswith("index")


@at_once
async def test_writers_without_the_setting(opened, monkeypatch):
    """What other programs add, cut off, revise and delete, the index hears of."""
    monkeypatch.setattr(backend, "TOGETHER", 0)
    async with await opened(search="index") as ours, await opened() as theirs:
        await fill(theirs, 4)
        assert await found(ours, "word") == ["c3", "c2", "c1", "c0"]
        await theirs.delete_conversation("c3")
        await theirs.truncate_conversation_after("c2", "q")
        await theirs.revise_messages("c1", {"q": said("other1", message_id="q")})
        assert await found(ours, "word") == ["c0"]
        assert await found(ours, "other1") == ["c1"]
        assert await found(ours, "fine") == ["c1", "c0"]
        assert await found(theirs, "fine") == ["c1", "c0"]


@at_once
async def test_build_that_was_interrupted(opened, monkeypatch):
    """A half-built index is not gone by; whoever builds goes on with it, and others write meanwhile."""
    monkeypatch.setattr(search, "BATCH", 50)
    async with await opened() as plain:
        await fill(plain)
        await plain.backend.apart(plain.backend._index.make)
        await plain.backend.apart(plain.backend._index.build)
    async with await opened(search="index") as provider:
        assert "being built (2" in await state(provider)
        assert "searches go through all messages" in str((await provider.health_check())["warnings"])
        assert await found(provider, '"word99"') == ["c99"]
        await provider.delete_conversation("c98")
        done(await provider.append_messages("c99", [said("later", message_id="l")]))
        assert "is complete" in await provider.backend.apply_search("index")
        assert "searches go through" not in str((await provider.health_check())["warnings"])
        assert await state(provider) == "index (0 messages wait)"
        assert await found(provider, "word98") == []
        assert await found(provider, "later") == ["c99"]


@at_once
async def test_a_build_by_another_rule_is_left_alone(opened, execute):
    """What another Python builds by its own rule is not told as complete by this one."""
    async with await opened() as provider:
        await fill(provider, 3)
        index = provider.backend._index
        await provider.backend.apart(index.make)
        await execute("UPDATE {search_state} SET rule = 'another'")
        assert await provider.backend.apart(index.build) is False
        (row,) = await execute("SELECT complete FROM {search_state}")
        assert not row["complete"]


@at_once
async def test_drop(opened, execute):
    """The same command drops it, and leaves nothing of it."""
    async with await opened(search="index") as provider:
        await fill(provider, 3)
        (row,) = await execute("SELECT to_regclass('{search}') IS NULL AS gone")
        assert not row["gone"]
        assert await provider.backend.apply_search("scan") == "the index for searches is gone"
        assert await provider.backend.apply_search("scan") == "there is no index for searches"
        (row,) = await execute("SELECT to_regclass('{search}') IS NULL AS gone")
        assert row["gone"]
        assert await state(provider) == "scan"
        assert await found(provider, "word") == ["c2", "c1", "c0"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {search_state} SET rule = 'another'",
        "DROP TRIGGER {index:search_added} ON {message}",
        "ALTER TABLE {message} DISABLE TRIGGER {index:search_added}",
        "DROP TABLE {search_state}",
    ],
)
@at_once
async def test_index_that_is_of_no_use(opened, execute, monkeypatch, statement):
    """By another rule, or without one of its parts, it is not gone by; it is told, and made anew."""
    monkeypatch.setattr(backend, "TOGETHER", 0)
    async with await opened(search="index") as provider:
        await fill(provider, 3)
        await found(provider, "word")
        await execute(statement)
        done(await provider.append_messages("later", [said("word")], create=True))
        assert await found(provider, "word") == ["later", "c2", "c1", "c0"]
        assert not (await state(provider)).startswith("index")
        assert (await provider.health_check())["warnings"] != []
        await provider.backend.apply_search("index")
        assert (await state(provider)).startswith("index")
        assert await found(provider, "word") == ["later", "c2", "c1", "c0"]


@at_once
async def test_texts_of_many_words(opened, monkeypatch):
    """Words that are too long for an index, and messages that have too many, are found all the same."""
    monkeypatch.setattr(backend, "TOGETHER", 0)
    long = "x" * 5_000
    async with await opened(search="index") as provider:
        many = " ".join(f"w{n:05}" for n in range(40_000))
        done(await provider.append_messages("many", [said(many)], create=True))
        done(await provider.append_messages("long", [said(f"{long}a"), said(f"{long}b")], create=True))
        assert await found(provider, '"w39999"') == ["many"]
        assert await found(provider, f'"{long[:900]}"') == []
        assert await found(provider, long[:900]) == ["long", "long"]
        assert await state(provider) == "index (0 messages wait)"


@at_once
async def test_damage(opened, execute):
    """A message that cannot be read is told by each search, waiting or carried over."""
    async with await opened(search="index") as provider:
        await fill(provider, 3)
        await execute("UPDATE {message} SET body = left(body, 30) WHERE conversation = 1 AND position = 0")
        for _ in range(2):
            with pytest.raises(MemoryStorageError, match="'c0' is damaged"):
                await provider.search_messages(MessageSearch("word2"))
            hits = await provider.search_messages(MessageSearch("word2"), on_damaged="skip")
            assert [hit.conversation_id for hit in hits] == ["c2"]
            await provider.backend.apply_search("index")


@asynccontextmanager
async def held(postgres, table, conversation_id):
    """Another transaction holds a conversation."""
    connection = await asyncpg.connect(postgres.url())
    try:
        async with connection.transaction():
            lock = Names("public", table).fill("SELECT FROM {header} WHERE conversation_id = $1 FOR UPDATE")
            await connection.execute(lock, conversation_id)
            yield
    finally:
        await connection.close()


@at_once
async def test_conversation_that_is_held(opened, postgres, table, monkeypatch):
    """What somebody else holds is not waited for: it is read where it stands, and carried over later."""
    monkeypatch.setattr(backend, "TOGETHER", 0)
    async with await opened(search="index", operation_timeout=5) as provider:
        await fill(provider, 3)
        async with held(postgres, table, "c2"):
            assert await found(provider, "word") == ["c2", "c1", "c0"]
            assert await state(provider) == "index (2 messages wait)"
        assert await found(provider, "word") == ["c2", "c1", "c0"]
        assert await state(provider) == "index (0 messages wait)"


@at_once
async def test_writers_at_once(opened, execute, monkeypatch):
    """Whoever carries over meets who writes: what stands in the end is found, and nothing else."""
    monkeypatch.setattr(backend, "TOGETHER", 3)
    async with await opened(search="index") as provider, await opened(search="index") as other:

        async def write(n):
            for round_ in range(8):
                key, one, two = f"c{n}", *((provider, other) if n % 2 else (other, provider))
                first = said(f"word{n} round{round_}", message_id="first")
                done(await one.append_messages(key, [first, said("next", message_id="next")], create=True))
                await two.revise_messages(key, {"first": said(f"other{n}", message_id="first")})
                assert key in await found(one, f"other{n}")
                await two.truncate_conversation_after(key, "next")
                if round_ < 7:
                    await one.delete_conversation(key)

        await asyncio.gather(*map(write, range(6)))
        assert sorted(await found(provider, "other")) == [f"c{n}" for n in range(6)]
        for gone in ("word", "round", "next"):
            assert await found(provider, gone) == []
        await provider.backend.apply_search("index")
        counts = "SELECT (SELECT count(*) FROM {search}) AS kept, (SELECT count(*) FROM {search_waiting}) AS waiting"
        (row,) = await execute(counts)
        assert tuple(row) == (6, 0)


@at_once
async def test_role_without_rights_on_the_index(opened, postgres, table):
    """A role that may write conversations may carry over, and search by the index, if it had those rights before."""
    role = f"r{table}"
    async with await opened() as owner:
        await owner.backend.apart(lambda connection: connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'"))
        await owner.backend.grant(role)
        await owner.backend.apply_search("index")
    url = postgres.url().replace("//jaf:pg-secret-7391@", f"//{role}:x@")
    settings = PostgresConfig(connection_string=url, table_name=table, search="index")
    async with await create_postgres_provider(settings) as provider:
        await fill(provider, 40)
        assert await found(provider, '"word17"') == ["c17"]
        await provider.backend._index.carry_over(provider.backend.run, 1_000)
        assert await state(provider) == "index (0 messages wait)"
        assert await found(provider, '"word17"') == ["c17"]


@at_once
async def test_role_that_comes_later(opened, postgres, table):
    """A role without rights on the index searches and asks how it stands all the same; `--role` gives it these, too."""
    role = f"r{table}"
    async with await opened() as owner:
        await fill(owner, 20)
        await owner.backend.apart(lambda connection: connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'"))
        await owner.backend.grant(role)
        await owner.backend.apply_search("index")
        rights = Names("public", table).fill("{search}, {search_waiting}, {search_state}")
        await owner.backend.apart(lambda connection: connection.execute(f"REVOKE ALL ON {rights} FROM {role}"))
        url = postgres.url().replace("//jaf:pg-secret-7391@", f"//{role}:x@")
        for way in ("scan", "index"):
            settings = PostgresConfig(connection_string=url, table_name=table, search=way)
            async with await create_postgres_provider(settings) as provider:
                health = await provider.health_check()
                assert health["healthy"], health
                assert health["details"]["search"].startswith("an index that this role may not use")
                assert any("may not use" in one for one in health["warnings"]) == (way == "index")
                for n in range(70):
                    done(await provider.append_messages("late", [said(f"late{way}{n}")], create=True))
                assert await found(provider, '"word17"') == ["c17"]
        await owner.backend.grant(role)
        async with await create_postgres_provider(settings) as provider:
            assert (await state(provider)).startswith("index")
            await provider.backend._index.carry_over(provider.backend.run, 1_000)
            assert await state(provider) == "index (0 messages wait)"


@at_once
async def test_publication_of_all_tables(opened, postgres):
    """Where all tables are published, which lets none without a key be changed, the index is built like elsewhere."""
    async with await opened() as provider:
        await fill(provider, 10)
        await asyncio.to_thread(postgres.sql, "CREATE PUBLICATION everything FOR ALL TABLES")
        try:
            assert "is complete" in await provider.backend.apply_search("index")
        finally:
            await asyncio.to_thread(postgres.sql, "DROP PUBLICATION everything")


@at_once
async def test_index_beside_a_long_reader(opened, postgres, table, execute):
    """Beside a backup, the index is made; dropping it, or making it anew, gives up before others wait for long."""
    reading = await asyncpg.connect(postgres.url())
    try:
        async with await opened() as provider:
            await fill(provider, 10)
            async with reading.transaction():
                await reading.fetch(f"SELECT FROM {table}__message")
                assert "is complete" in await provider.backend.apply_search("index")
                await execute("UPDATE {search_state} SET rule = 'another'")
                for way in ("scan", "index"):
                    changing = asyncio.create_task(provider.backend.apply_search(way))
                    await asyncio.sleep(0.5)
                    async with asyncio.timeout(20):
                        done(await provider.append_messages("c1", [said("meanwhile")]))
                    with pytest.raises(MemoryStorageError, match="is in use"):
                        await changing
            assert await provider.backend.apply_search("scan") == "the index for searches is gone"
    finally:
        await reading.close()


@at_once
async def test_tables_that_somebody_dropped(opened, execute):
    """With the tables of conversations what the index has of their words goes."""
    async with await opened(search="index") as provider:
        await fill(provider, 10)
        await provider.backend.apply_search("index")
    await execute("DROP TABLE {message}, {header} CASCADE")
    async with await opened():
        (row,) = await execute("SELECT to_regclass('{search}') AS left")
        assert row["left"] is None


@at_once
async def test_searches_and_writers_beside(opened, execute):
    """While the index is made and dropped again and again, nobody fails: neither who writes or searches, nor that."""
    async with await opened(search="index") as provider, await opened(search="index") as other:
        await fill(provider, 20)
        ended = asyncio.Event()

        async def write(n):
            while not ended.is_set():
                done(await provider.append_messages(f"c{n}", [said("more")]))

        async def look():
            while not ended.is_set():
                assert await found(other, "word17") == ["c17"]
                await other.backend._index.carry_over(other.backend.run, 1_000)

        async def change():
            try:
                for _ in range(15):
                    assert await provider.backend.apply_search("scan") == "the index for searches is gone"
                    assert "is complete" in await provider.backend.apply_search("index")
            finally:
                ended.set()

        await asyncio.gather(*map(write, range(4)), *(look() for _ in range(4)), change())
        await provider.backend.apply_search("scan")
        await asyncio.gather(*(one.backend.apart(one.backend._index.make_missing) for one in (provider, other) * 3))
        assert len(await execute("SELECT FROM {search_state}")) == 1
        assert "being built" in await state(provider)


@at_once
async def test_index_that_an_administrator_makes(opened, postgres, table):
    """Whoever makes it, the tables' owner may use it, and so may roles of any name that write."""
    owner, writer = f"own-{table}", f"Write {table}"
    roles = f"""
        CREATE ROLE "{owner}" LOGIN PASSWORD 'x'; GRANT CREATE, USAGE ON SCHEMA public TO "{owner}";
        CREATE ROLE "{writer}" LOGIN PASSWORD 'x'
    """
    await asyncio.to_thread(postgres.sql, roles)
    urls = [postgres.url().replace("//jaf:pg-secret-7391@", f"//{quote(name)}:x@") for name in (owner, writer)]
    settings = [PostgresConfig(connection_string=url, table_name=table, search="index") for url in urls]
    plain = PostgresConfig(connection_string=urls[0], table_name=table)
    async with await create_postgres_provider(plain) as provider:
        await provider.backend.grant(writer)
        await fill(provider, 20)
    async with await opened() as administrator:
        assert "is complete" in await administrator.backend.apply_search("index")
    for one in settings:
        async with await create_postgres_provider(one) as provider:
            await fill(provider, 40)
            await provider.backend._index.carry_over(provider.backend.run, 1_000)
            assert await state(provider) == "index (0 messages wait)"
