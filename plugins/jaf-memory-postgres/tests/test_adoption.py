"""Moving in: older tables are recognised, never written over, and moved whole."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from jaf_memory_postgres import PostgresBackend, PostgresConfig, adoption, create_postgres_provider

from jaf_memory_core import MemoryQuery
from jaf_memory_core.errors import MemoryConfigurationError, MemoryStorageError
from jaf_memory_core.maintenance import Adopts, HasSchema

DOCUMENTED = """
CREATE TABLE {0} (
    id SERIAL PRIMARY KEY,
    conversation_id VARCHAR(255) UNIQUE NOT NULL,
    user_id VARCHAR(255),
    messages JSONB NOT NULL,
    metadata JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
CREATE INDEX idx_{0}_user_id ON {0}(user_id);
CREATE INDEX idx_{0}_created_at ON {0}(created_at);
"""

JAF_PY = "CREATE TABLE {0} (conversation_id TEXT PRIMARY KEY, user_id TEXT, messages JSONB, metadata JSONB);"


def message(number):
    """A message as jaf-py 2.6 stores it."""
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": f"text {number} é", "image_url": None, "file": None}],
        "message_id": f"m{number}",
        "tool_call_id": None,
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "attachments": None,
    }


def literal(value):
    """A JSON value as SQL."""
    return "'" + json.dumps(value).replace("'", "''") + "'"


def filled(table, layout, count):
    """SQL that makes an older table with so many conversations."""
    documented = layout == DOCUMENTED
    columns = "conversation_id, user_id, messages, metadata" + (", created_at, updated_at" if documented else "")
    rows = []
    for n in range(count):
        user = f"'u{n % 3}'" if n % 3 else "NULL"
        metadata = {"topic": n, "nested": {"b": 1.5, "a": None}, "created_at": "2024-01-15T10:00:00"}
        times = ", '2024-01-15T10:00:00Z', '2024-02-15T10:00:00Z'" if documented else ""
        messages = literal([message(k) for k in range(n % 4)])
        rows.append(f"('c{n:04}', {user}, {messages}, {literal(metadata)}{times})")
    return layout.format(table) + f"INSERT INTO {table} ({columns}) VALUES {', '.join(rows)};"


async def adopted(config, **options):
    """Every step of an adoption."""
    backend = PostgresBackend(config)
    try:
        return [step async for step in backend.adopt(**options)]
    finally:
        await backend.close()


def test_the_command_line_finds_it():
    """The backend offers what `jaf-memory schema` and `jaf-memory adopt` ask for."""
    backend = PostgresBackend(PostgresConfig())
    assert isinstance(backend, HasSchema)
    assert isinstance(backend, Adopts)


@pytest.mark.parametrize("layout", [DOCUMENTED, JAF_PY])
def test_adopt(postgres, table, layout):
    """A provider refuses to start over an older table; `adopt` moves it, and keeps it under a name that it tells."""
    postgres.sql(filled(table, layout, 120))
    before = postgres.sql(f"SELECT * FROM {table} ORDER BY conversation_id")
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    with pytest.raises(MemoryConfigurationError, match="jaf-memory adopt"):
        asyncio.run(create_postgres_provider(config))
    assert postgres.sql(f"SELECT * FROM {table} ORDER BY conversation_id") == before
    steps = asyncio.run(adopted(config))
    assert [step.conversation_id for step in steps if step.outcome == "moved"] == [f"c{n:04}" for n in range(120)]
    assert {step.total for step in steps if step.outcome == "moved"} == {120}
    assert f"'{table}__before'" in steps[-1].text
    assert postgres.sql(f"SELECT * FROM {table}__before ORDER BY conversation_id") == before
    asyncio.run(looks_right(config, documented=layout == DOCUMENTED))
    again = asyncio.run(adopted(config))
    assert {step.outcome for step in again} == {"note"}


async def looks_right(config, *, documented):
    """Assert that everything is there, with its times."""
    async with await create_postgres_provider(config) as provider:
        assert (await provider.get_stats())["total_conversations"] == 120
        found = await provider.get_conversation("c0007")
        assert found.user_id == "u1"
        assert [one.message_id for one in found.messages] == ["m0", "m1", "m2"]
        assert found.messages[0].content[0].text == "text 0 é"
        assert found.metadata["nested"] == {"b": 1.5, "a": None}
        if documented:
            assert found.created_at.isoformat() == "2024-01-15T10:00:00+00:00"
            assert found.updated_at.isoformat() == "2024-02-15T10:00:00+00:00"
        assert len(await provider.find_conversations(MemoryQuery(metadata={"topic": 7}))) == 1


def test_interrupted(postgres, table):
    """An adoption that stops in the middle goes on there, and until its end no provider starts."""
    postgres.sql(filled(table, JAF_PY, 120))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)

    async def first():
        backend = PostgresBackend(config)
        steps = backend.adopt()
        seen = [await steps.__anext__() for _ in range(60)]
        await steps.aclose()
        return [step.conversation_id for step in seen if step.outcome == "moved"]

    moved = asyncio.run(first())
    assert len(moved) == 59
    with pytest.raises(MemoryConfigurationError, match="let `jaf-memory adopt` end it"):
        asyncio.run(create_postgres_provider(config))
    steps = asyncio.run(adopted(config))
    assert "100 had been moved before" in steps[0].text
    assert sum(step.outcome == "moved" for step in steps) == 20
    assert postgres.sql(f"SELECT count(*) FROM {table}") == "120"


def test_what_reads_back_otherwise_stops_it(postgres, table, monkeypatch):
    """A digest that differs stops the adoption, and undoes the step."""
    postgres.sql(filled(table, JAF_PY, 3))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    digests = iter(range(100))
    monkeypatch.setattr(adoption, "_digest", lambda _record: next(digests))
    with pytest.raises(MemoryStorageError, match="reads back otherwise"):
        asyncio.run(adopted(config))
    assert postgres.sql(f"SELECT count(*) FROM {table}") == "0"
    assert postgres.sql(f"SELECT count(*) FROM {table}__before") == "3"


def test_refused(postgres, table):
    """What the contract forbids is refused and told, the rest is moved, and the older table stays, `remove` or not."""
    rows = [
        ("'good'", "NULL", literal([{"role": "user", "content": "x"}]), "NULL"),
        ("'role'", "NULL", literal([{"role": "robot", "content": "zqsecret"}]), "NULL"),
        ("'owner'", "'u'", "'[]'", literal({"user_id": "v"})),
        ("'shape'", "NULL", literal({"a": 1}), "NULL"),
        ("repeat('x', 300)", "NULL", "'[]'", "NULL"),
    ]
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    postgres.sql(JAF_PY.format(table) + f"INSERT INTO {table} VALUES {values}")
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    steps = asyncio.run(adopted(config, remove=True))
    refused = {step.conversation_id: step.text for step in steps if step.outcome == "refused"}
    assert refused.keys() == {"role", "owner", "shape", "x" * 300}
    assert "zqsecret" not in str(steps)
    assert "4 of its conversations were refused" in steps[-1].text
    assert postgres.sql(f"SELECT count(*) FROM {table}__before") == "5"
    assert postgres.sql(f"SELECT conversation_id FROM {table}") == "good"


def test_remove(postgres, table):
    """With `remove` the older table goes, once all of it was moved and verified."""
    postgres.sql(filled(table, JAF_PY, 5))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    steps = asyncio.run(adopted(config, remove=True))
    assert "was removed" in steps[-1].text
    assert postgres.sql(f"SELECT to_regclass('{table}__before') IS NULL") == "t"
    assert "nothing to move" in asyncio.run(adopted(config))[0].text


def test_finishing(postgres, table):
    """What was kept is described with what stands nowhere else, and goes when that is asked for, unless it is used."""
    postgres.sql(filled(table, JAF_PY, 5) + f"; INSERT INTO {table} VALUES ('role', NULL, '[{{\"role\": 1}}]', NULL)")
    backend = PostgresBackend(PostgresConfig(connection_string=postgres.url(), table_name=table))
    assert asyncio.run(backend.older()) is None
    postgres.sql(f"CREATE TABLE {table}__before (id int)")
    with pytest.raises(MemoryConfigurationError, match="not yet moved in"):
        asyncio.run(backend.older())
    postgres.sql(f"DROP TABLE {table}__before")
    asyncio.run(adopted(backend.config))
    assert "holds 6 conversations, 1 of which stand nowhere else" in asyncio.run(backend.older())
    postgres.sql(f"CREATE VIEW {table}_report AS SELECT user_id FROM {table}__before")
    with pytest.raises(MemoryStorageError, match=f"view {table}_report"):
        asyncio.run(backend.finish_adoption())
    postgres.sql(f"DROP VIEW {table}_report")
    assert "was removed" in asyncio.run(backend.finish_adoption())
    assert asyncio.run(backend.older()) is None


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE {0} (id int)",
        "CREATE VIEW {0} AS SELECT 1 AS one",
        "CREATE SEQUENCE {0}",
        JAF_PY.replace("conversation_id TEXT", "conversation_id UUID"),
        JAF_PY.replace("conversation_id TEXT", "conversation_id BIGINT"),
        JAF_PY.replace("user_id TEXT", "user_id BIGINT"),
        DOCUMENTED.replace("created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()", "created_at TEXT"),
    ],
)
def test_something_else_stands_there(postgres, table, sql):
    """Anything else under that name is left alone, by the provider and by `adopt`."""
    postgres.sql(sql.format(table))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    with pytest.raises(MemoryConfigurationError, match="stands in schema"):
        asyncio.run(create_postgres_provider(config))
    with pytest.raises(MemoryConfigurationError, match="in no layout"):
        asyncio.run(adopted(config))
    assert postgres.sql(f"SELECT to_regclass('{table}__header') IS NULL") == "t"


def test_nothing_to_adopt(postgres, table):
    """Without an older table `adopt` says so, and makes nothing."""
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    (note,) = asyncio.run(adopted(config))
    assert "nothing to move" in note.text
    assert postgres.sql(f"SELECT to_regclass('{table}__layout') IS NULL") == "t"


def test_odd_rows_are_refused_one_by_one(postgres, table):
    """A row that cannot be moved is refused with its reason, whatever is odd in it, and all behind it are moved."""
    twice = literal([{"role": "user", "content": text, "message_id": "1"} for text in ("a", "b")])
    rows = {
        "twice": (twice, "NULL", "'2024-01-01'"),
        "before christ": ("'[]'", "NULL", "'0044-03-15 BC'"),
        "far": ("'[]'", "NULL", "'12024-01-01'"),
        "never": ("'[]'", "NULL", "'infinity'"),
        "digits": ("'[]'", f"'{{\"n\": {'9' * 5000}}}'", "'2024-01-01'"),
        "self": (literal([{"role": "user", "content": "x", "self": 1}]), "NULL", "'2024-01-01'"),
        "zz good": (literal([{"role": "user", "content": "x"}]), "NULL", "'2024-01-01'"),
    }
    values = ", ".join(f"('{key}', {', '.join(row)})" for key, row in rows.items())
    postgres.sql(
        DOCUMENTED.format(table)
        + f"INSERT INTO {table} (conversation_id, messages, metadata, created_at) VALUES {values}"
    )
    steps = asyncio.run(adopted(PostgresConfig(connection_string=postgres.url(), table_name=table)))
    refused = {step.conversation_id for step in steps if step.outcome == "refused"}
    assert refused >= {"twice", "before christ", "far", "never", "digits"}
    assert "zz good" in postgres.sql(f"SELECT conversation_id FROM {table}").split("\n")
    opened(postgres, table)


def opened(server, table):
    """Start as an application does."""

    async def main():
        async with await create_postgres_provider(PostgresConfig(connection_string=server.url(), table_name=table)):
            pass

    asyncio.run(main())


def test_times_without_a_zone_are_the_servers(postgres, table):
    """A column that holds local time is read in the server's zone, which its NOW() used."""
    zone = postgres.sql("SHOW TimeZone")
    postgres.sql(DOCUMENTED.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMP").format(table))
    postgres.sql(f"INSERT INTO {table} (conversation_id, messages) VALUES ('c', '[]')")
    written = f"extract(epoch FROM created_at AT TIME ZONE '{zone}')"
    wanted = postgres.sql(f"SELECT {written} FROM {table}")
    steps = asyncio.run(adopted(PostgresConfig(connection_string=postgres.url(), table_name=table)))
    assert [step.conversation_id for step in steps if step.outcome == "moved"] == ["c"]
    assert postgres.sql(f"SELECT extract(epoch FROM created_at) FROM {table}__header") == wanted


def test_a_table_that_no_key_holds_together(postgres, table):
    """Of several rows with one id one is looked at; the others, and those without an id, are told."""
    postgres.sql(
        f"CREATE DOMAIN id_{table} AS varchar(255);"
        f"CREATE TABLE {table} (conversation_id id_{table}, user_id TEXT, messages JSONB, metadata JSONB);"
        f"INSERT INTO {table} SELECT 'twice', 'u', '[]', '{{}}' FROM generate_series(1, {2 * adoption.STEP + 1});"
        f"INSERT INTO {table} VALUES ('a', 'u', '[]', '{{}}'), ('z', 'u', '[]', '{{}}'), (NULL, 'u', '[]', '{{}}')"
    )
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    steps = asyncio.run(adopted(config, remove=True))
    assert {step.conversation_id for step in steps if step.outcome == "moved"} == {"a", "twice", "z"}
    refused = {step.conversation_id: step.text for step in steps if step.outcome == "refused"}
    assert refused.keys() == {"twice", ""}
    assert f"{2 * adoption.STEP + 1} rows have that conversation_id" in refused["twice"]
    # Something was refused, and so it stays, whatever was asked.
    assert postgres.sql(f"SELECT count(*) FROM {table}__before") == str(2 * adoption.STEP + 4)


def test_a_trigger_that_keeps_what_is_erased(postgres, table, caplog):
    """Where a trigger of the older table refuses to delete, the rest is erased, and a warning says what stays."""
    postgres.sql(filled(table, JAF_PY, 3))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    asyncio.run(adopted(config))
    postgres.sql(
        f"CREATE FUNCTION no_{table}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;"
        f"CREATE TRIGGER no BEFORE DELETE ON {table}__before FOR EACH ROW EXECUTE FUNCTION no_{table}()"
    )

    async def main():
        async with await create_postgres_provider(config) as provider:
            assert await provider.delete_conversation("c0001") is True
            assert await provider.get_conversation("c0001") is None

    asyncio.run(main())
    assert f"{table}__before" in caplog.text


def test_adopt_under_a_publication(postgres, table):
    """Where a publication of all tables is there, which refuses an UPDATE of a table without a key, all is moved."""
    postgres.sql(filled(table, JAF_PY, 60))
    postgres.sql(f"CREATE PUBLICATION p_{table} FOR ALL TABLES")
    try:
        asyncio.run(adopted(PostgresConfig(connection_string=postgres.url(), table_name=table)))
        opened(postgres, table)
    finally:
        postgres.sql(f"DROP PUBLICATION p_{table}")
    assert postgres.sql(f"SELECT count(*) FROM {table}") == "60"


def test_rights_and_followers_of_the_older_table(postgres, table):
    """Who could read or write the older table can do so now, and what follows the older table is named."""
    reader, writer = f'"read-{table}"', f'"Write ""{table}"""'
    postgres.sql(filled(table, DOCUMENTED, 3))
    postgres.sql(
        f"CREATE ROLE {reader}; GRANT SELECT ON {table} TO {reader};"
        f"CREATE ROLE {writer} LOGIN PASSWORD 'pw'; GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {writer};"
        f"CREATE VIEW seen_{table} AS SELECT user_id FROM {table};"
        f"CREATE TABLE refers_{table} (c varchar(255) REFERENCES {table} (conversation_id))"
    )
    steps = asyncio.run(adopted(PostgresConfig(connection_string=postgres.url(), table_name=table)))
    notes = " ".join(step.text for step in steps if step.outcome == "note")
    assert all(name in notes for name in (reader, writer, f"seen_{table}", f"refers_{table}"))
    assert postgres.sql(f"SET ROLE {reader}; SELECT count(*) FROM {table}") == "3"
    url = f"postgresql://Write%20%22{table}%22:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"

    async def main():
        async with await create_postgres_provider(PostgresConfig(connection_string=url, table_name=table)) as provider:
            await provider.delete_conversation("c0000")

    asyncio.run(main())


def test_erasing_reaches_the_older_table(postgres, table, caplog):
    """What is erased after an adoption is erased from the kept older table, or a warning says that it could not be."""
    postgres.sql(filled(table, JAF_PY, 9))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    asyncio.run(adopted(config))

    async def main(url):
        own = PostgresConfig(connection_string=url, table_name=table)
        async with await create_postgres_provider(own) as provider:
            await provider.clear_user_conversations("u1")
            await provider.delete_conversation("c0000")

    asyncio.run(main(postgres.url()))
    left = postgres.sql(f"SELECT conversation_id FROM {table}__before ORDER BY 1").split("\n")
    assert left == ["c0002", "c0003", "c0005", "c0006", "c0008"]
    role = f"e_{table}"
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON {table}__layout TO {role};")
    postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table}__header, {table}__message TO {role}")
    asyncio.run(main(f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"))
    assert f"{table}__before" in caplog.text
    assert "--finish" in caplog.text


def test_erasing_reaches_what_does_not_stand_here(postgres, table):
    """The older table loses what was refused, has expired, or was given to a user since, and nothing of another's."""
    rows = [
        ("'refused'", "NULL", literal([{"role": "robot", "content": "x"}]), "NULL"),
        ("'of u'", "'u'", literal([{"role": "robot", "content": "x"}]), "NULL"),
        ("'of v'", "NULL", literal([{"role": "robot", "content": "x"}]), literal({"user_id": "v"})),
        *((f"'{key}'", "NULL", literal([message(1)]), "NULL") for key in ("expired", "purged", "deleted", "given")),
        ("'kept'", "'v'", literal([message(1)]), "NULL"),
    ]
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    postgres.sql(JAF_PY.format(table) + f"INSERT INTO {table} VALUES {values}")
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    asyncio.run(adopted(config))

    def left():
        return set(postgres.sql(f"SELECT conversation_id FROM {table}__before").split("\n"))

    async def main():
        async with await create_postgres_provider(config) as provider:
            mine = provider.for_user("u")
            for key in ("refused", "of u", "of v", "kept"):
                assert await mine.delete_conversation(key) is False
            assert {"refused", "of v", "kept"} <= left()
            assert "of u" not in left()
            assert await provider.delete_conversation("refused") is False
            for key in ("expired", "purged"):
                await provider.set_expiry(key, 0.01)
            await asyncio.sleep(0.05)
            assert await provider.delete_conversation("expired") is False
            assert await provider.purge_expired() == 1
            found = await provider.backend.read("deleted")
            assert await provider.backend.delete("deleted", expected=found.stamp) is True
            await provider.append_messages("given", [], user_id="u")
            await mine.store_messages("of v", [])
            assert await provider.clear_user_conversations("u") == 2
            assert left() == {"of v", "kept"}

    asyncio.run(main())


def test_erasing_is_one_transaction(postgres, table):
    """Where the older table is held by somebody else, the erasure fails whole, and nothing is called erased."""
    postgres.sql(filled(table, JAF_PY, 3))
    asyncio.run(adopted(PostgresConfig(connection_string=postgres.url(), table_name=table)))
    config = PostgresConfig(connection_string=f"{postgres.url()}&lock_timeout=100", table_name=table)

    async def main():
        holder = await asyncpg.connect(postgres.url())
        async with await create_postgres_provider(config) as provider:
            async with holder.transaction():
                await holder.execute(f"LOCK TABLE {table}__before")
                # Not through the provider, which would try again until its deadline.
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await provider.backend.remove("c0001")
            assert await provider.get_conversation("c0001") is not None
            assert await provider.delete_conversation("c0001") is True
        await holder.close()

    asyncio.run(main())
    assert postgres.sql(f"SELECT count(*) FROM {table}__before WHERE conversation_id = 'c0001'") == "0"


@pytest.mark.parametrize("gone", ["all of a user", "what stands nowhere else"])
def test_rows_of_the_older_table_are_locked_in_one_order(postgres, table, gone):
    """Whoever erases several rows of the older table takes them in the order of their ids, so two never deadlock."""
    here = [f"('{key}', 'u', {literal([message(1)])}, NULL)" for key in ("b", "a")]
    # Refused, so that only the last step of a user's erasure meets them.
    odd = [row.replace('"assistant"', '"robot"') for row in here]
    rows = here if gone == "all of a user" else odd
    postgres.sql(JAF_PY.format(table) + f"INSERT INTO {table} VALUES {', '.join(rows)}")
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    asyncio.run(adopted(config))

    async def main():
        holder, other = await asyncpg.connect(postgres.url()), await asyncpg.connect(postgres.url())
        async with await create_postgres_provider(config) as provider:
            async with holder.transaction():
                pid = holder.get_server_pid()
                await holder.execute(f"SELECT FROM {table}__before WHERE conversation_id = 'b' FOR UPDATE")
                erasing = asyncio.ensure_future(provider.clear_user_conversations("u"))
                # Until it waits for the one that is held, it goes on by itself.
                waits = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
                while not erasing.done() and not await other.fetchval(waits, pid):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                free = await other.fetch(f"SELECT conversation_id FROM {table}__before FOR UPDATE SKIP LOCKED")
                assert free == []
            await erasing
        await holder.close()
        await other.close()

    asyncio.run(main())
    assert postgres.sql(f"SELECT count(*) FROM {table}__before") == "0"


def test_a_role_that_may_delete_and_not_lock(postgres, table):
    """A role with the right to delete from the older table, and no other, erases there all the same."""
    postgres.sql(filled(table, JAF_PY, 6))
    config = PostgresConfig(connection_string=postgres.url(), table_name=table)
    asyncio.run(adopted(config))
    role = f"d_{table}"
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT, DELETE ON {table}__before TO {role};")
    postgres.sql(f"GRANT SELECT ON {table}__layout, {table}__label TO {role};")
    postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table}__header, {table}__message TO {role}")
    url = f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/jaf?sslmode=disable"

    async def main():
        own = PostgresConfig(connection_string=url, table_name=table)
        async with await create_postgres_provider(own) as provider:
            assert await provider.clear_user_conversations("u1") == 2

    asyncio.run(main())
    assert postgres.sql(f"SELECT count(*) FROM {table}__before WHERE user_id = 'u1'") == "0"
