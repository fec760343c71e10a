"""The tables: made once however many start, shown as documented, and guarded against strangers."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import asyncpg
import pytest
from jaf_memory_cli.errors import Stop
from jaf_memory_cli.stores import Store
from jaf_memory_postgres import PostgresBackend, PostgresConfig, create_postgres_provider, migrations
from jaf_memory_postgres.names import derived
from jaf_memory_testing.checks import in_full
from services import postgres_faults as faults
from services import postgres_servers as servers
from services.postgres_tables import config_of, opened

from jaf_memory_core import MemoryQuery, Message
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError, MemoryStorageError
from jaf_memory_core.results import Failure, Success
from jaf_memory_core.statements import quoted


def schema_of(config):
    """What `jaf-memory schema` prints."""
    return asyncio.run(PostgresBackend(config).schema())


def test_many_processes_start_at_once(postgres, table):
    """Processes that start at once on an empty database all come up."""
    assert faults.started_at_once(postgres, table, 8 if in_full() else 4) == 0
    assert postgres.sql(f"SELECT count(*) FROM {table}__layout") == str(len(migrations.migrations()))


HOSTILE = ["\0", "\ud800", "a\\\0b", "\udc00\udc00", "\\ud800", "😀", "\\\\\0", '"\\', 2**70, 1e22, -0.0, 10**3999]


def test_the_documented_relation(postgres, table):
    """Under the table's name stands a relation with exactly the documented columns, whatever the messages hold."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            messages = [
                Message("user", f"text {value}", message_id=f"m{n}", further_field=value)
                for n, value in enumerate(HOSTILE)
            ]
            await provider.store_messages("c", messages, {"topic": {"b": 1, "a": HOSTILE}, "k\0": 1}, user_id="u")
            assert list((await provider.get_conversation("c")).messages) == messages
            await provider.store_messages("gone", [Message("user", "x")])
            await provider.set_expiry("gone", 0.001)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    columns = postgres.sql(
        f"SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert columns.split("\n") == [
        "id bigint",
        "conversation_id character varying(255)",
        "user_id character varying(255)",
        "messages jsonb",
        "metadata jsonb",
        "created_at timestamp with time zone",
        "updated_at timestamp with time zone",
    ]
    assert postgres.sql(f"SELECT conversation_id, user_id FROM {table}") == "c|u"
    shown = [
        json.loads(line) for line in postgres.sql(f"SELECT jsonb_array_elements(messages) FROM {table}").split("\n")
    ]
    assert [one["message_id"] for one in shown] == [f"m{n}" for n in range(len(HOSTILE))]
    assert shown[0] == {"role": "user", "content": "text \ufffd", "message_id": "m0", "further_field": "\ufffd"}
    assert [one["further_field"] for one in shown[:8]] == [
        *("\ufffd", "\ufffd", "a\\\ufffdb", "\ufffd\ufffd", "\\ud800", "😀", "\\\\\ufffd", '"\\'),
    ]
    assert shown[8]["further_field"] == 2**70
    metadata = json.loads(postgres.sql(f"SELECT metadata FROM {table}"))
    assert (metadata["user_id"], metadata["k\ufffd"], metadata["topic"]["b"]) == ("u", 1, 1)


def test_parts_are_shown_as_they_were_given(postgres, table):
    """In the view a message has the form that the application gave it, further fields of its parts included."""
    message = Message(
        "assistant",
        [{"type": "image_url", "image_url": {"url": "x", "further": 1}}],
        tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}", "strict": True}, "index": 0}],
        attachments=[{"kind": "file", "url": "u", "use_litellm_format": None}],
        reasoning={"further": {"deep": 1}},
        message_id="m",
    )

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            await provider.store_messages("c", [message, Message("user", None, message_id="n")])

    asyncio.run(main())
    shown = json.loads(postgres.sql(f"SELECT messages FROM {table}"))
    assert shown == [message.dict(), {"role": "user", "content": None, "message_id": "n"}]


def test_a_reader_needs_the_view_only(postgres, table):
    """A role that may read the view sees the conversations, and needs no right on the storage tables."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            await provider.store_messages("c", [Message("user", "hello", message_id="m")])

    asyncio.run(main())
    role = f"reader_{table}"
    postgres.sql(f"CREATE ROLE {role}; GRANT SELECT ON {table} TO {role}")
    shown = postgres.sql(f"SET ROLE {role}; SELECT messages -> 0 ->> 'content' FROM {table}")
    assert shown == "hello"
    with pytest.raises(RuntimeError, match="permission denied"):
        postgres.sql(f"SET ROLE {role}; SELECT * FROM {table}__message")


def test_the_documented_indexes(postgres, table):
    """User and creation time are indexed on the storage."""
    opened(config_of(postgres, table))
    found = postgres.sql(f"SELECT indexdef FROM pg_indexes WHERE tablename = '{table}__header'")
    assert "(user_id" in found
    assert "(created_at" in found


def test_one_conversation_by_sql_is_quick(postgres, table):
    """Reading the view by conversation id goes through the index."""
    opened(config_of(postgres, table))
    plan = postgres.sql(f"SET enable_seqscan = off; EXPLAIN SELECT * FROM {table} WHERE conversation_id = 'c'")
    assert "Index Scan" in plan
    assert "conversation_id)::text = 'c'" in plan


def test_a_role_without_rights(postgres, table):
    """A role that may not make tables is told so, with the GRANT that it needs; after `schema` it works."""
    role, schema = f"app_{table}", f"s_{table}"
    postgres.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {role}"
    )
    url = f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"
    config = PostgresConfig(connection_string=url, table_name="talks", schema_name=schema)
    with pytest.raises(MemoryConfigurationError) as caught:
        opened(config)
    assert f"the role '{role}' may not make tables in schema '{schema}'" in str(caught.value)
    assert f'GRANT USAGE, CREATE ON SCHEMA "{schema}" TO "{role}"' in str(caught.value)
    postgres.sql(schema_of(config))

    async def main():
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": 1})
            await provider.append_messages("c", [Message("user", "y")])
            assert await provider.truncate_conversation_after("c", "none") == 0
            assert await provider.delete_conversation("c") is True
            assert (await provider.health_check())["healthy"] is True

    asyncio.run(main())
    # Whoever reads by SQL has to be able to use the functions as well.
    assert postgres.sql(f"SET ROLE {role}; SELECT count(*) FROM {schema}.talks") == "0"


def test_rights_for_a_role(postgres, table):
    """An administrator who applies the schema with his own login can give the application's role its rights."""
    role = f"app_{table}"
    config = config_of(postgres, table, auto_migrate=False)
    asyncio.run(PostgresBackend(config).apply_schema())
    with pytest.raises(MemoryConfigurationError, match=f"no role '{role}'"):
        asyncio.run(PostgresBackend(config).grant(role))
    postgres.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC"
    )
    url = f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"

    async def main():
        await PostgresBackend(config).grant(role)
        config_of_role = PostgresConfig(connection_string=url, table_name=table, auto_migrate=False)
        async with await create_postgres_provider(config_of_role) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": 1})
            assert len(await provider.find_conversations(MemoryQuery(metadata={"a": 1}))) == 1

    asyncio.run(main())
    assert postgres.sql(f"SET ROLE {role}; SELECT count(*) FROM {table}") == "1"


def test_a_role_that_may_only_read(postgres, table):
    """A role without rights on the tables gets the GRANT that is missing, as a `Failure`."""
    opened(config_of(postgres, table))
    role = f"only_{table}"
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON {table}__layout TO {role}")
    url = f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"

    async def main():
        async with await create_postgres_provider(PostgresConfig(connection_string=url, table_name=table)) as provider:
            result = await provider.store_messages("c", [Message("user", "x")])
            assert isinstance(result, Failure)
            assert "GRANT" in str(result.error)
            with pytest.raises(MemoryStorageError, match="GRANT"):
                await provider.get_conversation("c")

    asyncio.run(main())


def test_schema_by_hand(postgres, table):
    """What `schema` prints makes all of it with psql, once; the second time it changes nothing."""
    config = config_of(postgres, table, auto_migrate=False)
    with pytest.raises(MemoryConfigurationError, match="schema --apply"):
        opened(config)
    postgres.sql(schema_of(config))
    opened(config)
    with pytest.raises(RuntimeError, match="already exists"):
        postgres.sql(schema_of(config))
    opened(config)


def test_apply_schema(postgres, table):
    """`schema --apply` makes what is missing, tells it, and finds nothing the second time."""
    config = config_of(postgres, table, auto_migrate=False)
    assert asyncio.run(PostgresBackend(config).apply_schema()) == [one.label for one in migrations.migrations()]
    assert asyncio.run(PostgresBackend(config).apply_schema()) == []
    opened(config)


def test_all_or_nothing(postgres, table):
    """A migration that fails half-way leaves nothing of itself."""
    postgres.sql(f"CREATE TYPE {table}__message AS ENUM ('x')")  # in the way of the second table
    with pytest.raises(MemoryConfigurationError, match="in the way"):
        opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT to_regclass('{table}__header') IS NULL") == "t"
    postgres.sql(f"DROP TYPE {table}__message")
    opened(config_of(postgres, table))


def test_a_newer_layout_is_refused(postgres, table):
    """Tables of a newer layout than the code knows are refused, and stay as they are."""
    opened(config_of(postgres, table))
    postgres.sql(f"INSERT INTO {table}__layout (version, name) VALUES (99, 'later')")
    with pytest.raises(MemoryConfigurationError, match=r"layout 99.*upgrade"):
        opened(config_of(postgres, table))


def test_another_encoding_is_refused(postgres, table):
    """A database that cannot hold every text is refused."""
    postgres.sql(f"CREATE DATABASE {table} ENCODING 'SQL_ASCII' TEMPLATE template0", "postgres")
    config = PostgresConfig(connection_string=postgres.url(table))
    with pytest.raises(MemoryConfigurationError, match="SQL_ASCII"):
        opened(config)


@pytest.mark.parametrize(
    "name",
    ['x"; DROP TABLE victim; --', "select", "Ünï côdé", "a b", "{header}", "a'b", "%s $1 \\", "x" * 63, "x" * 62 + "y"],
)
def test_any_table_name(postgres, table, name):
    """A table name is a name, whatever it holds; two long ones that begin alike stay apart."""
    schema = f"s_{table}"
    postgres.sql("CREATE TABLE IF NOT EXISTS victim (x int)")

    async def main():
        providers = [
            await create_postgres_provider(config_of(postgres, one, schema_name=schema))
            for one in (name, "x" * 62 + "z")
        ]
        for number, provider in enumerate(providers):
            await provider.store_messages("c", [Message("user", str(number))])
        for number, provider in enumerate(providers):
            assert (await provider.get_conversation("c")).messages[0].content == str(number)
            assert await provider.clear_user_conversations("u") == 0
            assert len(await provider.find_conversations(MemoryQuery(metadata={"a": 1}))) == 0
            await provider.close()

    asyncio.run(main())
    assert postgres.sql(f"SELECT count(*) FROM {quoted(schema, name)}") == "1"
    assert postgres.sql("SELECT count(*) FROM victim") == "0"
    assert postgres.sql(f"SELECT count(*) FROM {quoted(schema, derived(name, 'header'))}") == "1"


def test_filter_keys_are_bound(postgres, table):
    """A metadata key is a key, whatever it holds."""
    key = "a' OR true --\0\ud800\""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            await provider.store_messages("c", [], {key: 1})
            await provider.store_messages("d", [], {"b": 1})
            found = await provider.find_conversations(MemoryQuery(metadata={key: 1}))
            assert [one.conversation_id for one in found] == ["c"]

    asyncio.run(main())


def test_erasure_is_complete(table):
    """After `clear_user_conversations` and VACUUM a dump, and the files of the tables, hold none of the user's text."""
    word = "zqerasedword"

    async def main(server):
        async with await create_postgres_provider(config_of(server, table)) as provider:
            for n in range(20):
                await provider.store_messages(
                    f"{word}-{n}",
                    [Message("user", f"{word} {k}") for k in range(5)],
                    {"note": word},
                    user_id=f"{word}-user",
                )
                await provider.append_messages(f"{word}-{n}", [Message("user", word)], {"more": word})
            await provider.store_messages("other", [Message("user", "kept")])
            assert word in server.dump()
            assert await provider.clear_user_conversations(f"{word}-user") == 20
        server.sql("VACUUM")

    with servers.serving(servers.machine()) as server:
        asyncio.run(main(server))
        dump = server.dump()
        assert word not in dump
        assert "kept" in dump


def test_the_format_on_disk(postgres, table):
    """What stands in the storage tables is what version 0.1 wrote: a change needs a migration."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            messages = [Message("user", "hi \0 é", message_id="m1", extra={"b": 1, "a": 2})]
            await provider.store_messages("c", messages, {"k": {"b": 1, "a": 2}, "n": 1.0, "é": None}, user_id="u")
        connection = await asyncpg.connect(postgres.url())
        try:
            header = await connection.fetchrow(f"SELECT * FROM {table}__header")
            message = await connection.fetchrow(f"SELECT * FROM {table}__message")
        finally:
            await connection.close()
        return dict(header), dict(message)

    header, message = asyncio.run(main())
    assert message == {
        "conversation": header["id"],
        "position": 0,
        "message_id": "m1",
        "body": '{"role":"user","content":"hi \\u0000 é","message_id":"m1","further":{"extra":{"b":1,"a":2}}}',
    }
    assert json.loads(header["metadata"]) == {
        "k": ['{"a":2,"b":1}', '{"b":1,"a":2}'],
        "n": ["1.0"],
        "\\u00e9": ["null"],
    }
    assert (header["version"], header["first_position"], header["message_count"], header["trimmed"]) == (1, 0, 1, False)
    assert header["size"] == len(message["body"].encode())
    assert (header["user_id"], header["ttl"], header["expires_at"]) == ("u", None, None)


def test_several_tables_start_at_once_in_a_new_schema(postgres, table):
    """Six table names that start at one moment in a schema that is not there yet all come up."""

    async def main():
        configs = [config_of(postgres, f"{table}_{n}", schema_name=f"new_{table}") for n in range(6)]
        for provider in await asyncio.gather(*map(create_postgres_provider, configs)):
            await provider.close()

    asyncio.run(main())


@pytest.mark.parametrize("layout", [1, 4])
def test_tables_of_an_older_layout_are_upgraded(postgres, table, monkeypatch, layout):
    """What older code made is upgraded in place by the first start, and everything in it is there."""
    every = migrations.migrations()
    monkeypatch.setattr(migrations, "migrations", lambda: every[:layout])
    monkeypatch.setattr(migrations, "MADE_AGAIN", 99)
    opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT max(version) FROM {table}__layout") == str(layout)
    # As that code wrote it.
    postgres.sql(
        f"""WITH header AS (
            INSERT INTO {table}__header (conversation_id, user_id, incarnation, version, metadata, first_position,
                message_count, size, trimmed, created_at, updated_at)
            VALUES ('c', 'u', '0123456789abcdef', 1, '{{"a": ["1"]}}', 0, 1, 2, false, now(), now()) RETURNING id
        )
        INSERT INTO {table}__message (conversation, position, message_id, body)
        SELECT id, 0, 'm', '{{"role":"user","content":"x","message_id":"m"}}' FROM header"""
    )
    monkeypatch.undo()
    opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT max(version) FROM {table}__layout") == str(every[-1].version)
    assert (
        postgres.sql(f"SELECT conversation_id, metadata ->> 'a', messages -> 0 ->> 'content' FROM {table}") == "c|1|x"
    )
    with pytest.raises(RuntimeError, match="is for reading"):
        postgres.sql(f"DELETE FROM {table}")


def test_an_administrator_upgrades_tables_of_another_role(postgres, table, monkeypatch):
    """Who owns the tables, and who could write, may use what the upgrade adds, whatever they are called."""
    owner, writer = f"own-{table}", f'Write "{table}'
    for name in (owner, writer):
        postgres.sql(f"CREATE ROLE {quoted(name)} LOGIN PASSWORD 'pw'")
    postgres.sql(f"GRANT CREATE, USAGE ON SCHEMA public TO {quoted(owner)}")
    urls = [postgres.url().replace("//jaf:pg-secret-7391@", f"//{quote(name)}:pw@") for name in (owner, writer)]
    configs = [PostgresConfig(connection_string=url, table_name=table) for url in urls]
    every = migrations.migrations()
    monkeypatch.setattr(migrations, "migrations", lambda: every[:3])
    monkeypatch.setattr(migrations, "MADE_AGAIN", (2,))
    opened(configs[0])
    monkeypatch.undo()
    postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table}__header, {table}__message TO {quoted(writer)}")
    postgres.sql(f"GRANT SELECT ON {table}__layout TO {quoted(writer)}")
    opened(config_of(postgres, table))

    async def main(config):
        async with await create_postgres_provider(config) as provider:
            assert isinstance(
                await provider.append_messages("c", [Message("user", "x")], {"a": 1}, create=True), Success
            )
            assert len(await provider.find_conversations(MemoryQuery(metadata={"a": 1}))) == 1

    for config in configs:
        asyncio.run(main(config))


def test_no_store_is_told_and_not_made(postgres, table):
    """Where there are no tables, a command that reads or erases says so, ends with status 2, and makes none."""
    environ = {
        "JAF_MEMORY_TYPE": "postgres",
        "JAF_POSTGRES_CONNECTION_STRING": postgres.url(),
        "JAF_POSTGRES_TABLE_NAME": table,
    }

    async def run():
        store = Store(environ, {})
        for _ in range(2):
            with pytest.raises(Stop, match=f"there is no store: there is no table '{table}'") as stopped:
                async with store.opened():
                    pass
            assert stopped.value.status == 2
        async with store.opened(create=True) as provider:
            await provider.store_messages("c", [Message("user", "a")])
        async with store.opened() as provider:
            assert await provider.get_conversation("c") is not None
        # A server that is away is told as such, and not as a store that is not there.
        away = {**environ, "JAF_POSTGRES_CONNECTION_STRING": "postgresql://u@127.0.0.1:1/x"}
        away["JAF_POSTGRES_RECONNECT_TIMEOUT"] = "0.1"
        with pytest.raises(MemoryConnectionError):
            async with Store(away, {}).opened():
                pass

    asyncio.run(run())
