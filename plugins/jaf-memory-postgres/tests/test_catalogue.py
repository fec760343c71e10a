"""What stands in the database is believed, and not the ledger: what is missing is made again, or named."""

from __future__ import annotations

import asyncio

import pytest
from jaf_memory_postgres import PostgresBackend, PostgresConfig, create_postgres_provider, migrations
from services.postgres_tables import config_of, opened

from jaf_memory_core import MemoryQuery, Message
from jaf_memory_core.errors import MemoryConfigurationError

LOST = {
    "view": "DROP VIEW {0}",
    "functions": "DROP VIEW {0}; DROP FUNCTION {0}__shown, {0}__labels, {0}__refuses",
    "trigger": "DROP TRIGGER {0}__refuses ON {0}",
    "index": "DROP INDEX {0}__metadata",
    "tables": "DROP VIEW {0}; DROP TABLE {0}__header, {0}__message",
    "ledger": "DROP TABLE {0}__layout",
    "rows of the ledger": "DELETE FROM {0}__layout WHERE version > 1",
    "key of the conversations": "ALTER TABLE {0}__header DROP CONSTRAINT {0}__header_conversation_id_key",
    "key of the headers": "ALTER TABLE {0}__header DROP CONSTRAINT {0}__header_pkey",
    "key of the positions": "ALTER TABLE {0}__message DROP CONSTRAINT {0}__message_pkey",
    "key of the message ids": "ALTER TABLE {0}__message DROP CONSTRAINT {0}__message_id",
    "key of the labels": "ALTER TABLE {0}__label DROP CONSTRAINT {0}__label_pkey",
    "trigger that is switched off": "ALTER TABLE {0}__header DISABLE TRIGGER {0}__keeps_made",
    "index that was never finished": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{0}__updated_at'::regclass"
    ),
    "all that a restore makes last": (
        "ALTER TABLE {0}__header DROP CONSTRAINT {0}__header_conversation_id_key, DROP CONSTRAINT {0}__header_pkey;"
        "ALTER TABLE {0}__message DROP CONSTRAINT {0}__message_pkey, DROP CONSTRAINT {0}__message_id;"
        "DROP TABLE {0}__label; DROP FUNCTION {0}__keeps CASCADE; DROP VIEW {0};"
        "DROP INDEX {0}__user_id, {0}__created_at, {0}__updated_at, {0}__expires_at"
    ),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_is_missing_is_made_again(postgres, table, lost):
    """What a layout has and the catalogue has not is told where nothing may be made, and made again by `--apply`."""
    opened(config_of(postgres, table))
    before = sorted(_objects(postgres, table))
    postgres.sql(LOST[lost].format(table))
    with pytest.raises(MemoryConfigurationError, match=f"lack .*{table}.*schema --apply"):
        opened(config_of(postgres, table, auto_migrate=False))
    assert asyncio.run(PostgresBackend(config_of(postgres, table)).apply_schema())
    assert sorted(_objects(postgres, table)) == before
    assert postgres.sql(f"SELECT count(*) FROM {table}__layout") == str(len(migrations.migrations()))
    opened(config_of(postgres, table, auto_migrate=False))


def _objects(server, table):
    """Everything in the catalogue that is named after a table."""
    return server.sql(
        f"SELECT relname FROM pg_class WHERE relname LIKE '{table}%' AND relkind IN ('r', 'v', 'i')"
        f"UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '{table}%'"
        f"UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '{table}%'"
    ).split()


def test_what_a_trigger_missed_is_found(postgres, table):
    """Metadata that were changed while the copy for searches was switched off are found after the next start."""

    async def main():
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": 1})
            postgres.sql(f"ALTER TABLE {table}__header DISABLE TRIGGER ALL")
            await provider.update_metadata("c", {"a": 2})
        async with await create_postgres_provider(config_of(postgres, table)) as provider:
            found = await provider.find_conversations(MemoryQuery(metadata={"a": 2}))
            assert [one.conversation_id for one in found] == ["c"]

    asyncio.run(main())


def test_one_missing_table_is_named(postgres, table):
    """One table without the other is refused by its name: nothing could be made of what is left."""
    opened(config_of(postgres, table))
    postgres.sql(f"DROP VIEW {table}; DROP TABLE {table}__message")
    for act in (opened, lambda config: asyncio.run(PostgresBackend(config).apply_schema())):
        with pytest.raises(MemoryConfigurationError, match=f"'{table}__message' is missing"):
            act(config_of(postgres, table))


@pytest.mark.parametrize("column", ["header.active_span", "header.size", "message.body"])
def test_a_missing_column_is_named(postgres, table, column):
    """A column that is gone is refused by its name at the start, and not by each operation."""
    opened(config_of(postgres, table))
    relation, name = column.split(".")
    postgres.sql(f"ALTER TABLE {table}__{relation} DROP COLUMN {name} CASCADE")
    with pytest.raises(MemoryConfigurationError, match=f"the column '{table}__{column}' is missing"):
        opened(config_of(postgres, table))


def test_a_key_that_cannot_be_made_again_is_named(postgres, table):
    """Where what a lost key held together has come to be twice, it is named, and nothing is changed."""
    opened(config_of(postgres, table))
    postgres.sql(
        f"ALTER TABLE {table}__message DROP CONSTRAINT {table}__message_pkey;"
        f"INSERT INTO {table}__message VALUES (1, 0, 'a', ''), (1, 0, 'b', '')"
    )
    with pytest.raises(MemoryConfigurationError, match=rf"'{table}__message \(conversation, position\)' is missing"):
        opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT count(*) FROM {table}__message") == "2"


@pytest.mark.parametrize("suffix", ["header", "label", "user_id", "layout", "adoption"])
def test_a_stranger_under_one_of_our_names_is_named(postgres, table, suffix):
    """A table of others under the name of one of ours is refused by that name, and left alone."""
    postgres.sql(f"CREATE TABLE {table}__{suffix} (x int)")
    with pytest.raises(MemoryConfigurationError, match=f"'{table}__{suffix}' stands in schema"):
        opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT count(*) FROM {table}__{suffix}") == "0"


def test_a_view_of_others_in_the_place_of_ours_is_named(postgres, table):
    """A view that somebody else put in the place of ours is refused, and left alone."""
    opened(config_of(postgres, table))
    postgres.sql(f"DROP VIEW {table}; CREATE VIEW {table} AS SELECT 7 AS x")
    with pytest.raises(MemoryConfigurationError, match=f"view that jaf-memory did not make stands where .*'{table}'"):
        opened(config_of(postgres, table))
    assert postgres.sql(f"SELECT x FROM {table}") == "7"


def test_timeouts_of_a_role_end_no_upgrade(postgres, table):
    """Making the tables ends by its own deadline, and not by what is set for the role's short statements."""
    role = f"hurried_{table}"
    postgres.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO {role};"
        f"ALTER ROLE {role} SET lock_timeout = '1ms'; ALTER ROLE {role} SET statement_timeout = '500ms'"
    )
    url = f"postgresql://{role}:x@127.0.0.1:{postgres.port}/jaf"

    async def main():
        backend = PostgresBackend(PostgresConfig(connection_string=url, table_name=table))
        names = backend._names

        async def held(connection):
            await connection.execute("BEGIN")
            await connection.execute(migrations.locking(names))
            applying = asyncio.ensure_future(backend.apply_schema())
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            while not applying.done() and not await connection.fetchval(waiting):  # noqa: ASYNC110  (only the server knows)
                await asyncio.sleep(0.01)
            # Longer than either of the role's: what waits for the lock is not ended by them.
            await connection.execute("SELECT pg_sleep(0.7)")
            await connection.execute("COMMIT")
            return await applying

        admin = PostgresBackend(config_of(postgres, table))
        assert await admin.apart(held)

    asyncio.run(main())


def test_a_server_that_is_too_old_is_named(postgres, table):
    """A server without what our statements use is refused by its version, before anything is made."""

    async def look(connection):
        return await migrations.look(connection, backend._names)

    backend = PostgresBackend(config_of(postgres, table))
    found = asyncio.run(backend.apart(look))
    with pytest.raises(MemoryConfigurationError, match="PostgreSQL 13; jaf-memory needs 14 or newer"):
        migrations.check(found._replace(server=130_021), backend._names)
