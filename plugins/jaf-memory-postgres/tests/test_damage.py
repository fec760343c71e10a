"""Damaged rows: one kind of error, which names the conversation, and listings go on behind it."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from services import damage

from jaf_memory_core import MemoryError, MemoryQuery, MemoryStorageError, Message

NAMES = [f"c{n}" for n in range(5)]
BODIES = ["", "null", "[]", "{}", '{"role":"user"', '{"role":5,"content":"SECRET"}', "x", '{"content":5,"role":"user"}']
METADATA = ["[]", "5", '{"a":5}', '{"a":[]}', '{"a":["SECRET"]}', '{"a":["{"]}', '{"\\\\u12":["1"]}']


async def calls(provider, name):
    """What each read of the conversation, and each listing, comes to."""
    query = MemoryQuery()
    tried = {
        "get": lambda: provider.get_conversation(name),
        "recent": lambda: provider.get_recent_messages(name),
        "page": lambda: provider.get_messages(name, None, 1_000),
        "find one": lambda: provider.find_conversations(MemoryQuery(conversation_id=name)),
        "find": lambda: provider.find_conversations(query, on_damaged="skip"),
        "headers": lambda: provider.find_conversations(MemoryQuery(include_messages=False), on_damaged="skip"),
        "iterate": lambda: listed(provider.iter_conversations(query, on_damaged="skip")),
        "find all": lambda: provider.find_conversations(query),
        "iterate all": lambda: listed(provider.iter_conversations(query)),
        "delete": lambda: provider.delete_conversation(name),
    }
    found = {}
    for key, call in tried.items():
        try:
            found[key] = await call()
        except MemoryError as error:
            found[key] = error
    return found


async def listed(conversations):
    """All of them."""
    return [one async for one in conversations]


def check(found, told):
    """The named calls say that `c2` is damaged, nothing shows content, and listings have the others."""
    for key, answer in found.items():
        if isinstance(answer, MemoryError):
            assert isinstance(answer, MemoryStorageError), key
            assert answer.conversation_id == "c2", key
            assert "SECRET" not in f"{answer} {answer.__cause__} {answer.__context__}", key
            assert "conversation 'c2' is damaged" in str(answer), key
    assert {key for key, answer in found.items() if isinstance(answer, MemoryError)} >= told
    for key in ("find", "iterate"):
        assert {one.conversation_id for one in found[key]} == set(NAMES) - {"c2"}, key
    assert found["delete"] is True


async def spoilt(postgres, table, statement, value):
    """A store of five conversations, one of which is changed by the statement; what its reads come to."""
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    async with await create_postgres_provider(config) as provider:
        for name in NAMES:
            messages = [Message("user", f"SECRET {n}", message_id=f"{name}-{n}") for n in range(4)]
            assert (await provider.store_messages(name, messages, {"a": 1})).data.added == 4
        connection = await asyncpg.connect(postgres.url())
        try:
            values = () if value is None else (value,)
            await connection.execute(statement.replace("{table}", table), *values)
        finally:
            await connection.close()
        found = await calls(provider, "c2")
        for name in NAMES:
            with contextlib.suppress(MemoryStorageError):
                await provider.delete_conversation(name)
        return found


READS = {"get", "recent", "page", "find one", "find all", "iterate all"}


@pytest.mark.parametrize("body", BODIES)
def test_damaged_bodies(postgres, table, body):
    """A body that is no message is told by every read of it."""
    statement = """UPDATE "{table}__message" SET body = $1 WHERE message_id = 'c2-2'"""
    check(asyncio.run(spoilt(postgres, table, statement, body)), READS)


@pytest.mark.parametrize("metadata", METADATA)
def test_damaged_metadata(postgres, table, metadata):
    """Metadata that are none of ours are told by whatever shows them."""
    statement = """UPDATE "{table}__header" SET metadata = $1::text::jsonb WHERE conversation_id = 'c2'"""
    check(asyncio.run(spoilt(postgres, table, statement, metadata)), {"get", "find one", "find all", "iterate all"})


def test_missing_messages(postgres, table):
    """A conversation that lacks a row is not shown as a shorter one."""
    statement = """DELETE FROM "{table}__message" WHERE message_id = 'c2-2'"""
    check(asyncio.run(spoilt(postgres, table, statement, None)), READS)


NUMBERS = ["-1", "0", "5", "9223372036854775807", "-9223372036854775808"]
TIMES = ["'infinity'", "'-infinity'", "'1970-01-01'"]
COLUMNS = {
    "user_id": ["''", "'x'", "NULL"],
    "incarnation": ["''", "'CONTENT'"],
    "version": NUMBERS,
    "metadata": ["'5'", "'[]'", """'{"a": "CONTENT"}'""", """'{"name": ["\\"c2"]}'"""],
    "first_position": NUMBERS,
    "message_count": NUMBERS,
    "size": NUMBERS,
    "trimmed": ["true"],
    "ttl": ["'NaN'", "'Infinity'", "-1", "0", "1e300", "NULL"],
    "expires_at": [*TIMES, "NULL"],
    "created_at": TIMES,
    "updated_at": TIMES,
    "amended_at": TIMES,
}


RECKONED = ("append", "held", "amend", "expire", "revise", "truncate", "fork", "stats")
"""Where the server itself reckons with what stands there, and its refusal may name nothing."""


async def written_columns(connection, table):
    """The names of a table's columns, but for those that the server makes of others."""
    statement = "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND is_generated = 'NEVER'"
    return ", ".join([row[0] for row in await connection.fetch(statement, table)])


async def swept(postgres, table, statements):
    """What goes wrong of all reads and writes behind each statement that changes what is stored of `c2`."""
    config = PostgresConfig(connection_string=postgres.url(), table_name=table, operation_timeout=20)
    connection = await asyncpg.connect(postgres.url())
    wrong = []
    try:
        async with await create_postgres_provider(config) as provider:
            await damage.fill(provider)
        columns = {part: await written_columns(connection, f"{table}__{part}") for part in ("header", "message")}
        for part, names in columns.items():
            await connection.execute(f'CREATE TABLE "{table}__kept_{part}" AS SELECT {names} FROM "{table}__{part}"')
        for number, statement in enumerate(statements):
            for part, names in columns.items():
                await connection.execute(f'DELETE FROM "{table}__{part}"')
                kept = f'SELECT {names} FROM "{table}__kept_{part}"'
                await connection.execute(f'INSERT INTO "{table}__{part}" ({names}) OVERRIDING SYSTEM VALUE {kept}')
            await connection.execute(*statement)
            async with await create_postgres_provider(config) as provider:
                found = damage.problems(*await damage.answers(provider), unnamed=RECKONED)
                wrong += [f"{number}: {one}" for one in found]
    finally:
        await connection.close()
    return wrong


@pytest.mark.parametrize("column", COLUMNS)
def test_damaged_headers(postgres, table, column):
    """Whatever a header's column may hold, the others are found, and that one can be deleted."""
    statement = f"""UPDATE "{table}__header" SET {column} = {{}} WHERE conversation_id = 'c2'"""
    assert asyncio.run(swept(postgres, table, [(statement.format(value),) for value in COLUMNS[column]])) == []


ROWS = [
    "position = -1",
    "message_id = ''",
    "message_id = 'other'",
    "conversation = 0",
    "body = replace(body, 'c2-2', 'c3-2')",
]


def test_damaged_rows(postgres, table):
    """The same for a message's row, which may say that it is another's."""
    statement = """UPDATE "{table}__message" SET {change} WHERE message_id = 'c2-2'"""
    changes = [one.format(header=f'"{table}__header"') for one in ROWS]
    statements = [(statement.format(table=table, change=change),) for change in changes]
    assert asyncio.run(swept(postgres, table, statements)) == []


@pytest.mark.parametrize("kind", ["flip", "cut", "zero", "spoil"])
def test_spoilt_bytes(postgres, table, kind):
    """The same for bytes of a body; what no text can hold stands in it as a space."""
    body = b'{"role":"user","content":"CONTENT c2 2","message_id":"c2-2"}'
    spoilt = [damage.changed(kind, body, seed).decode("utf-8", "replace").replace("\0", " ") for seed in range(16)]
    statement = f"""UPDATE "{table}__message" SET body = $1 WHERE message_id = 'c2-2'"""
    assert asyncio.run(swept(postgres, table, [(statement, one) for one in spoilt])) == []


@pytest.mark.parametrize("time", ["0001-01-01 BC", "294276-12-31"])
def test_times_beyond_pythons(postgres, table, time):
    """A time that Python has no datetime for is an error of ours, too, and no driver's."""
    statement = f"""UPDATE "{{table}}__header" SET updated_at = '{time}' WHERE conversation_id = 'c2'"""
    found = asyncio.run(spoilt(postgres, table, statement, None))
    for key in ("get", "find one", "find all", "iterate all"):
        assert isinstance(found[key], MemoryStorageError), key
        assert "outside of the years 1 to 9999" in str(found[key]), key
