"""The PostgreSQL provider keeps every promise: on the oldest and the newest server, and through PgBouncer."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest
from jaf_memory_postgres import PostgresBackend, PostgresConfig, backend, create_postgres_provider
from jaf_memory_postgres.names import Names
from jaf_memory_testing import (
    BRIEF,
    FourMethods,
    LifecycleChecks,
    ProcessChecks,
    ProviderConformance,
    SearchChecks,
    Target,
    slow,
)

from jaf_memory_core import BackendProvider, proposals


async def open_postgres(url, table, **settings):
    """Open a provider as an application does."""
    config = PostgresConfig(connection_string=url, table_name=table, **settings)
    return await create_postgres_provider(config)


async def open_four_methods(url, table, **settings):
    """Open a provider on the defaults of `Backend`."""
    config = PostgresConfig(connection_string=url, table_name=table, **settings)
    return await BackendProvider(FourMethods(PostgresBackend(config)), config).open()


@asynccontextmanager
async def stalled(url, table):
    """Keep everything from being answered that looks at conversations."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(
                Names("public", table).fill("LOCK TABLE {header}, {message} IN ACCESS EXCLUSIVE MODE")
            )
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def out(server, url):
    """Kill the server, and start it again."""
    server.kill()
    try:
        yield
    finally:
        server.start()
        await answering(url)


async def answering(url):
    """Wait until the server can be reached: PgBouncer refuses for a moment after a server has come back."""
    while True:
        try:
            connection = await asyncpg.connect(url, statement_cache_size=0)
            try:
                await connection.execute("SELECT 1")
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(0.05)
        else:
            return


async def dumped(url, table):
    """Every row of the storage tables."""
    connection = await asyncpg.connect(url)
    try:
        names = Names("public", table)
        queries = ("SELECT * FROM {header} ORDER BY id", "SELECT * FROM {message} ORDER BY conversation, position")
        return [tuple(row) for query in queries for row in await connection.fetch(names.fill(query))]
    finally:
        await connection.close()


OF = "(SELECT id FROM {header} WHERE conversation_id = $1)"
WAYS = {
    "a message": f"UPDATE {{message}} SET body = left(body, 40) WHERE message_id = 'm2' AND conversation = {OF}",
    "a missing message": f"DELETE FROM {{message}} WHERE message_id = 'm2' AND conversation = {OF}",
    "metadata": """UPDATE {header} SET metadata = '{"a":["{"]}' WHERE conversation_id = $1""",
}
"""Statements that damage a conversation, by what they damage."""


async def damaged(url, table, way, conversation_id):
    """Damage a conversation, as another connection."""
    connection = await asyncpg.connect(url)
    try:
        statement = WAYS[way]
        for place in ("header", "message"):
            statement = statement.replace(f"{{{place}}}", Names("public", table).fill(f"{{{place}}}"))
        assert (await connection.execute(statement, conversation_id)).endswith(" 1")
    finally:
        await connection.close()


async def upgraded(url, table, _conversation_id):
    """As if a newer version had upgraded the tables."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            Names("public", table).fill("INSERT INTO {layout} (version, name) VALUES (99, 'newer')")
        )
    finally:
        await connection.close()


async def emptied(url, table):
    """Remove what a check stored; to make the tables again takes longer than most checks."""
    connection = await asyncpg.connect(url)
    try:
        names = Names("public", table)
        if await connection.fetchval("SELECT to_regclass($1)", names.fill("{layout}")):
            await connection.execute(
                names.fill("DELETE FROM {header}; DELETE FROM {message}; DELETE FROM {layout} WHERE version = 99")
            )
    finally:
        await connection.close()


@pytest.fixture
def kept(request, table):
    """The name of the tables that the checks of a class share, one after the other; how a store begins has its own."""
    check = request.function.__name__
    if any(check in vars(kind) for kind in (LifecycleChecks, ProcessChecks)):
        return table
    return f"kit{os.getpid()}_{request.cls.__name__.lower()}"


def target_over(opens, server, url, table):
    """What the kit needs."""
    direct = server.url()
    return Target(
        open=partial(opens, url, table),
        stall=partial(stalled, direct, table),
        outage=partial(out, server, url),
        dump=partial(dumped, direct, table),
        damage={way: partial(damaged, direct, table, way) for way in WAYS},
        newer=partial(upgraded, direct, table),
        declares={"power_cut": "the server writes to the disk, and the kit cannot lose it"},
        clean=partial(emptied, direct, table),
    )


class TestPostgres(ProviderConformance):
    """On the machine's own server."""

    @pytest.fixture
    def target(self, postgres, kept):
        """The store under test."""
        return target_over(open_postgres, postgres, postgres.url(), kept)


class TestSearchIndex(SearchChecks):
    """With an index for searches, to which everything is carried over before each of them."""

    @pytest.fixture
    def target(self, postgres, table, monkeypatch):
        """The store under test."""
        monkeypatch.setattr(backend, "TOGETHER", 0)
        monkeypatch.setattr(proposals, "FIRST", 0)
        monkeypatch.setattr(proposals, "REMEMBERED", 0.0)
        return target_over(partial(open_postgres, search="index"), postgres, postgres.url(), table)


@slow("a second server", but=BRIEF)
class TestNewest(ProviderConformance):
    """On the newest server."""

    @pytest.fixture
    def target(self, newest, kept):
        """The store under test."""
        return target_over(open_postgres, newest, newest.url(), kept)


@slow("a second way to the server", but=BRIEF)
class TestPgBouncer(ProviderConformance):
    """Through PgBouncer in transaction mode."""

    @pytest.fixture
    def target(self, postgres, bouncer, kept):
        """The store under test."""
        return target_over(partial(open_postgres, pooler=True), postgres, bouncer.url(), kept)


@slow("a second way to the server", but=(*BRIEF, ProcessChecks))
class TestUntoldPgBouncer(ProviderConformance):
    """The same, without a word of it in the settings."""

    @pytest.fixture
    def target(self, postgres, bouncer, kept):
        """The store under test."""
        return target_over(open_postgres, postgres, bouncer.url(), kept)


@slow("the defaults over a server", but=BRIEF)
class TestFourMethods(ProviderConformance):
    """The defaults of `Backend`, over the four methods."""

    @pytest.fixture
    def target(self, postgres, kept):
        """The store under test."""
        return target_over(open_four_methods, postgres, postgres.url(), kept)
