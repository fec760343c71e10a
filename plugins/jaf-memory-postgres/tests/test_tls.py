"""TLS: what each word does against a real server, whose certificate may have another name."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from jaf_memory_postgres import PostgresConfig, create_postgres_provider
from services import postgres_servers as servers

from jaf_memory_core.errors import MemoryConfigurationError, MemoryConnectionError


@pytest.fixture(scope="module")
def files():
    """Certificates for `localhost` and for another computer, each with an authority of its own."""
    places = {name: servers.folder() for name in ("localhost", "other.example.com")}
    yield {name: servers.certificates(place, name) for name, place in places.items()}
    for place in places.values():
        shutil.rmtree(place)


def tls_server(certificates, *hba):
    """A server with TLS."""
    on = {"ssl": "on", "ssl_cert_file": str(certificates.certificate), "ssl_key_file": str(certificates.key)}
    return servers.serving(servers.machine(), on, hba)


@pytest.fixture(scope="module")
def wrong_name(files):
    """A server whose certificate has another name than the one by which it is reached."""
    with tls_server(files["other.example.com"]) as server:
        yield server


@pytest.fixture(scope="module")
def right_name(files):
    """A server that is what it says, and takes TLS alone."""
    with tls_server(files["localhost"], "local all all trust", "hostssl all all 127.0.0.1/32 scram-sha-256") as server:
        yield server


async def encrypted(server, table, parameters="", host="localhost", **settings):
    """Connect, and return whether the line is encrypted."""
    url = server.url(host=host, parameters=parameters).rstrip("?")
    # Long enough for a busy machine; what is refused is not waited for.
    settings = {"operation_timeout": 60.0, "health_timeout": 60.0, "reconnect_timeout": 0.1, **settings}
    config = PostgresConfig(connection_string=url, table_name=table, **settings)
    async with await create_postgres_provider(config) as provider:
        return (await provider.health_check())["details"]["tls"]


@pytest.mark.parametrize(
    ("parameters", "settings", "outcome"),
    [
        ("", {}, True),
        ("sslmode=prefer", {}, True),
        ("sslmode=allow", {}, False),
        ("sslmode=disable", {}, False),
        ("sslmode=require", {}, True),
        ("", {"ssl": "require"}, True),
        ("", {"ssl": False}, False),
        ("sslmode=prefer", {"ssl": False}, False),
    ],
)
def test_words_that_verify_nothing(wrong_name, table, parameters, settings, outcome):
    """These connect to a server with a wrong name, encrypted or not as the word says."""
    assert asyncio.run(encrypted(wrong_name, table, parameters, **settings)) is outcome


def test_the_drivers_variable_counts_for_nothing(wrong_name, table, monkeypatch):
    """`PGSSLMODE=disable` does not take TLS away."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert asyncio.run(encrypted(wrong_name, table)) is True


def test_verify_ca_takes_a_wrong_name(wrong_name, files, table):
    """`verify-ca`, and `require` with an authority, ask who signed, and not for whom."""
    root = str(files["other.example.com"].root)
    assert asyncio.run(encrypted(wrong_name, table, f"sslmode=verify-ca&sslrootcert={root}")) is True
    assert asyncio.run(encrypted(wrong_name, table, "sslmode=require", ssl_ca_file=root)) is True


@pytest.mark.parametrize("word", ["verify-ca", "require", "verify-full"])
def test_another_authority_is_refused(wrong_name, files, table, word):
    """A certificate that another authority signed is refused at once, without a retry."""
    with pytest.raises(MemoryConnectionError, match="certificate was refused") as caught:
        asyncio.run(encrypted(wrong_name, table, f"sslmode={word}", ssl_ca_file=str(files["localhost"].root)))
    assert caught.value.retryable is False


@pytest.mark.parametrize("settings", [{"ssl": "verify-full"}, {"ssl": True}])
def test_a_wrong_name_is_refused(wrong_name, files, table, settings):
    """Full verification refuses a certificate for another name."""
    with pytest.raises(MemoryConnectionError, match="certificate was refused"):
        asyncio.run(encrypted(wrong_name, table, ssl_ca_file=str(files["other.example.com"].root), **settings))


@pytest.mark.parametrize("parameters", ["", "sslmode=require"])
def test_true_asks_the_systems_authorities(right_name, table, parameters):
    """`ssl=True` alone verifies against the system's authorities, which do not know ours."""
    with pytest.raises(MemoryConnectionError, match="certificate was refused"):
        asyncio.run(encrypted(right_name, table, parameters, ssl=True))


@pytest.mark.parametrize(
    ("parameters", "settings"),
    [("", {"ssl": True}), ("sslmode=verify-full", {}), ("sslmode=require", {"ssl": True}), ("", {"ssl": "verify-ca"})],
)
def test_the_right_name_is_taken(right_name, files, table, parameters, settings):
    """Full verification takes a certificate of the named authority for the right name."""
    root = str(files["localhost"].root)
    assert asyncio.run(encrypted(right_name, table, parameters, ssl_ca_file=root, **settings)) is True


def test_allow_goes_on_to_tls(right_name, table):
    """`allow` begins in plain text, and takes TLS where the server wants it."""
    assert asyncio.run(encrypted(right_name, table, "sslmode=allow")) is True


def test_plain_text_is_refused_by_a_server_that_wants_tls(right_name, table):
    """`disable` never falls back to TLS."""
    with pytest.raises(MemoryConnectionError):
        asyncio.run(encrypted(right_name, table, "sslmode=disable"))


def test_a_server_without_tls(postgres, table):
    """`prefer` falls back to plain text; `require` and `ssl=True` do not."""
    assert asyncio.run(encrypted(postgres, table, "sslmode=prefer")) is False
    for settings in ({"ssl": "require"}, {"ssl": True}):
        with pytest.raises(MemoryConnectionError, match="offers no TLS"):
            asyncio.run(encrypted(postgres, table, "", **settings))


def test_a_missing_file_is_named_as_such(right_name, table):
    """A file of certificates that is not there is a configuration error."""
    with pytest.raises(MemoryConfigurationError, match="certificates cannot be read"):
        asyncio.run(encrypted(right_name, table, "", ssl=True, ssl_ca_file="/nowhere/ca.pem"))
