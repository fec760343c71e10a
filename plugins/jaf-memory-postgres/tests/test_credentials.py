"""Who we are to the server: passwords that change, odd sources of them, and databases that are closed."""

from __future__ import annotations

import asyncio
import traceback

import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from pydantic import SecretStr

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError


def test_a_password_that_changes(postgres, table, tmp_path):
    """The next connection logs in with what the password's file holds by then, or with what a function gives."""
    role, file = f"rotating_{table}", tmp_path / "password"
    postgres.sql(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'one'")
    words = ["one"]

    async def given():
        return words[-1]

    async def main():
        file.write_text("one\n")
        right = {"host": "127.0.0.1", "port": postgres.port, "database": "jaf", "username": role, "table_name": table}
        configs = (
            PostgresConfig(**right, password_file=str(file)),
            PostgresConfig(**right, password=given),
        )
        providers = [await create_postgres_provider(config) for config in configs]
        postgres.sql(f"ALTER ROLE {role} PASSWORD 'two'")
        file.write_text("two\n")
        words.append("two")
        ended = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
        await asyncio.to_thread(postgres.sql, ended)
        for provider in providers:
            await provider.get_conversation("c")
            await provider.append_messages("c", [Message("user", "x")], create=True)
            await provider.close()

    asyncio.run(main())


PASSWORDS = {
    "a file with a byte order mark": (b"\xef\xbb\xbfone\r\n", None),
    "a file that is no text": (b"\xff\xfe", (MemoryConfigurationError, "no text in UTF-8")),
    "a secret": (lambda: SecretStr("one"), None),
    "nothing": (lambda: None, (MemoryConfigurationError, "must give a text, not a NoneType")),
    "bytes": (lambda: b"one", (MemoryConfigurationError, "must give a text, not a bytes")),
}


@pytest.mark.parametrize("kind", PASSWORDS)
def test_odd_sources_of_a_password(postgres, table, tmp_path, kind):
    """What gives a password is taken in each form that it has, or refused in words that say what it gave."""
    role, (given, refused) = f"odd_{table}", PASSWORDS[kind]
    postgres.sql(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'one'")
    if isinstance(given, bytes):
        (tmp_path / "password").write_bytes(given)
        source = {"password_file": str(tmp_path / "password")}
    else:
        source = {"password": given}
    config = PostgresConfig(
        host="127.0.0.1", port=postgres.port, database="jaf", username=role, table_name=table, **source
    )
    if refused is None:
        asyncio.run(_opened(config))
    else:
        with pytest.raises(refused[0], match=refused[1]):
            asyncio.run(_opened(config))


async def _opened(config):
    async with await create_postgres_provider(config):
        pass


def test_a_password_that_cannot_be_had(postgres, table, tmp_path):
    """Where the application's function fails, or the file of passwords is no text, that is said, without a secret."""

    async def vault():
        raise OSError("vault says hunz")

    right = {"host": "127.0.0.1", "port": postgres.port, "database": "jaf", "username": "jaf", "table_name": table}
    right["reconnect_timeout"] = 0.1
    with pytest.raises(MemoryConnectionError, match=r"gives the password failed \(OSError\)") as caught:
        asyncio.run(_opened(PostgresConfig(**right, password=vault)))
    assert caught.value.retryable
    assert "hunz" not in "".join(traceback.format_exception(caught.value))
    file = tmp_path / "pgpass"
    file.write_bytes(b"*:*:*:*:hunz\xff\n")
    file.chmod(0o600)
    with pytest.raises(MemoryConfigurationError, match="PGPASSFILE") as refused:
        asyncio.run(_opened(PostgresConfig(**right, passfile=str(file))))
    assert "hunz" not in "".join(traceback.format_exception(refused.value))


def test_a_database_that_takes_no_connections(postgres, table):
    """A database that is closed to all, or to this role, is told as such, and not as a server that is away."""
    postgres.sql(f"CREATE DATABASE closed_{table}")
    postgres.sql(f"ALTER DATABASE closed_{table} ALLOW_CONNECTIONS false")
    with pytest.raises(MemoryConnectionError, match="takes no connections") as caught:
        asyncio.run(_opened(PostgresConfig(connection_string=postgres.url(f"closed_{table}"), table_name=table)))
    assert not caught.value.retryable
