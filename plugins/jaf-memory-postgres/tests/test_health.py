"""What `health_check` tells of a server, and what a standby does."""

from __future__ import annotations

import asyncio

import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from services import postgres_servers as servers

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConnectionError


async def health_of(config):
    """What the provider says of its server."""
    async with await create_postgres_provider(config) as provider:
        await provider.store_messages("c", [Message("user", "x")])
        return await provider.health_check()


def test_a_healthy_server(table):
    """Version, role, durability, connections and the size of our tables are told, and nothing to warn of."""
    with servers.serving(servers.machine()) as server:
        health = asyncio.run(health_of(PostgresConfig(connection_string=server.url(), table_name=table)))
        major = server.sql("SHOW server_version").partition(".")[0]
    assert health["healthy"] is True
    assert f"PostgreSQL {major}" in health["message"]
    assert health["warnings"] == []
    details, metrics = health["details"], health["metrics"]
    assert (details["role"], details["synchronous_commit"], details["fsync"]) == ("primary", "on", "on")
    assert details["size_bytes"] == metrics["memory_usage"] > 0
    assert metrics["active_connections"] == 1
    assert metrics["server_connections"] >= metrics["database_connections"] >= 1
    assert metrics["avg_response_time"] > 0


def test_a_careless_server(table):
    """`synchronous_commit`, `fsync` and `full_page_writes` that are off are warned of."""
    careless = dict.fromkeys(("synchronous_commit", "fsync", "full_page_writes"), "off")
    with servers.serving(servers.machine(), careless) as server:
        health = asyncio.run(health_of(PostgresConfig(connection_string=server.url(), table_name=table)))
    assert [warning.split()[0] for warning in health["warnings"]] == list(careless)
    assert health["details"]["durability"] == "committed with synchronous_commit=off"


def test_a_standby(postgres, standby, table):
    """On a standby reads work, writes end in time with what is the matter, and health says so."""

    async def main():
        config = PostgresConfig(connection_string=postgres.url(), table_name=table)
        async with await create_postgres_provider(config) as one:
            await one.store_messages("c", [Message("user", "x")])
        await asyncio.to_thread(standby.catch_up, postgres)
        config = PostgresConfig(connection_string=standby.url(), table_name=table, reconnect_timeout=0.5)
        async with await create_postgres_provider(config) as other:
            assert len(await other.get_recent_messages("c")) == 1
            health = await other.health_check()
            assert health["details"]["role"] == "standby"
            assert any("standby" in warning for warning in health["warnings"])
            with pytest.raises(MemoryConnectionError, match="read-only") as caught:
                await other.append_messages("c", [Message("user", "y")])
            assert "25006" in str(caught.value)

    asyncio.run(main())


def test_an_unreachable_server_is_an_answer(table):
    """`health_check` of a server that went away answers `healthy: False` with a reason and no secret."""

    async def main(server):
        config = PostgresConfig(connection_string=server.url(), table_name=table)
        async with await create_postgres_provider(config) as provider:
            server.stop()
            return await provider.health_check()

    with servers.serving(servers.machine()) as server:
        health = asyncio.run(main(server))
    assert health["healthy"] is False
    assert servers.PASSWORD not in str(health)
