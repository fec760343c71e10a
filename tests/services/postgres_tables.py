"""A provider over a table of its own on one of the servers."""

import asyncio

from jaf_memory_postgres import PostgresConfig, create_postgres_provider


def config_of(server, table, **settings):
    """Settings for a server and a table."""
    return PostgresConfig(connection_string=server.url(), table_name=table, **settings)


def opened(config):
    """Open and close a provider."""

    async def main():
        async with await create_postgres_provider(config):
            pass

    asyncio.run(main())
