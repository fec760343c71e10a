"""Damaged rows: one kind of error, which names the conversation, and listings go on behind it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider

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
