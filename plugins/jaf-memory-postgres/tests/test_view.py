"""The view under the documented name: it shows what is stored, under any session, and takes no writes."""

from __future__ import annotations

import asyncio

import pytest
from jaf_memory_postgres import PostgresBackend, PostgresConfig, create_postgres_provider
from services.postgres_tables import config_of

from jaf_memory_core import Message

PARALLEL = """
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 4;
"""

MANY = """
INSERT INTO {0}__header (conversation_id, incarnation, version, metadata, first_position, message_count, size, trimmed,
    created_at, updated_at)
SELECT 'n' || n, 'i', 1, jsonb_build_object('topic', jsonb_build_array('"' || n % 7 || '"')), 0, 0, 0, false,
    now(), now()
FROM generate_series(1, 50000) AS n;
ANALYZE {0}__header
"""


def filled(server, table):
    """A table with two users' conversations."""

    async def main():
        async with await create_postgres_provider(config_of(server, table)) as provider:
            await provider.store_messages("a", [Message("user", "hi \0 \\ \ud800")], {"topic": "x"}, user_id="ann")
            await provider.store_messages("b", [Message("user", "ho")], {"topic": "y"}, user_id="ben")

    asyncio.run(main())


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {0} (conversation_id, user_id) VALUES ('x', 'y')",
        "UPDATE {0} SET user_id = 'evil' WHERE conversation_id = 'a'",
        "UPDATE {0} SET messages = '[]'",
        "DELETE FROM {0} WHERE user_id = 'ann'",
        "DELETE FROM {0} WHERE user_id = 'nobody'",
        "COPY {0} (conversation_id) FROM stdin;\nx\n\\.",
        "MERGE INTO {0} AS t USING (SELECT 'a' AS c) AS s ON t.conversation_id = s.c WHEN MATCHED THEN DELETE",
    ],
)
@pytest.mark.parametrize("server", ["postgres", "newest"])
def test_the_view_takes_no_writes(request, table, server, statement):
    """Whatever would write through the view is refused with a sentence, and changes nothing."""
    server = request.getfixturevalue(server)
    filled(server, table)
    before = server.sql(f"SELECT * FROM {table} ORDER BY id")
    with pytest.raises(RuntimeError, match=r"is for reading|cannot execute MERGE"):
        server.sql(statement.format(table))
    assert server.sql(f"SELECT * FROM {table} ORDER BY id") == before
    assert server.sql(f"SELECT count(*) FROM {table}__message") == "2"


def test_the_view_under_parallel_plans(postgres, table):
    """Over 50,000 conversations, where the server would like to work in parallel, the view answers."""
    filled(postgres, table)
    postgres.sql(MANY.format(table))
    for query, expected in (
        ("SELECT count(DISTINCT metadata ->> 'topic') FROM {0}", "9"),
        ("SELECT count(*) FROM {0} WHERE metadata ->> 'topic' = '3'", "7143"),
        ("SELECT sum(jsonb_array_length(messages)) FROM {0}", "2"),
    ):
        assert postgres.sql(PARALLEL + query.format(table)) == expected


@pytest.mark.parametrize(
    "setting",
    ["standard_conforming_strings = off", "search_path = ''", "backslash_quote = off", "timezone = 'Asia/Tokyo'"],
)
def test_the_view_in_a_session_of_its_own_kind(postgres, table, setting):
    """What a session has set changes nothing of what the view shows."""
    filled(postgres, table)
    query = f"SELECT messages, metadata FROM public.{table} ORDER BY id"
    assert postgres.sql(f"SET {setting}; {query}") == postgres.sql(query)


def test_row_level_security_binds_the_readers_of_the_view(postgres, table):
    """Where an administrator has put policies on the tables, a reader of the view sees what they let him see."""
    filled(postgres, table)
    role = f"r_{table}"
    postgres.sql(f"CREATE ROLE {role}; GRANT SELECT ON {table} TO {role}")
    assert postgres.sql(f"SET ROLE {role}; SELECT count(*) FROM {table}") == "2"
    postgres.sql(
        f"GRANT SELECT ON {table}__header, {table}__message TO {role};"
        f"ALTER TABLE {table}__header ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY own ON {table}__header TO {role} USING (user_id = 'ann')"
    )
    assert postgres.sql(f"SET ROLE {role}; SELECT conversation_id FROM {table}") == "a"
    postgres.sql(
        f"ALTER TABLE {table}__message ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY none ON {table}__message TO {role} USING (false)"
    )
    assert postgres.sql(f"SET ROLE {role}; SELECT messages FROM {table}") == "[]"
    assert postgres.sql(f"SELECT count(*) FROM {table}") == "2"


def test_a_hardened_database(postgres, table):
    """Where nobody may execute new functions, the printed rights are enough for the provider's role and the view."""
    role = f"h_{table}"
    postgres.sql(f"CREATE DATABASE {table}", "postgres")
    postgres.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        table,
    )
    url = f"postgresql://{role}:pw@127.0.0.1:{postgres.port}/{table}?sslmode=disable"
    config = PostgresConfig(connection_string=url, table_name="talks")
    postgres.sql(asyncio.run(PostgresBackend(config).schema()), table)

    async def main():
        async with await create_postgres_provider(config) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": 1})

    asyncio.run(main())
    assert postgres.sql(f"SET ROLE {role}; SELECT messages -> 0 ->> 'content' FROM talks", table) == "x"
    postgres.sql(f"DROP DATABASE {table}", "postgres")
