"""What the provider can be told, and what it says when it was told wrongly."""

from __future__ import annotations

import os
import socket
import sys

import pytest
from jaf_memory_postgres import PostgresConfig
from jaf_memory_postgres.connection.address import parse
from pydantic import ValidationError

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import load
from jaf_memory_core.settings.environment import doctor_notes

URL = "postgresql://app:s3cret@db.example.com:5433/memory"


def test_the_documented_variables():
    """Every variable of the user's document is read."""
    config = load(
        PostgresConfig,
        {
            "JAF_POSTGRES_HOST": "db",
            "JAF_POSTGRES_PORT": "5433",
            "JAF_POSTGRES_DATABASE": "memory",
            "JAF_POSTGRES_USERNAME": "app",
            "JAF_POSTGRES_PASSWORD": "s3cret",
            "JAF_POSTGRES_SSL": "false",
            "JAF_POSTGRES_TABLE_NAME": "prod_conversations",
            "JAF_POSTGRES_MAX_CONNECTIONS": "20",
            "JAF_POSTGRES_POOL_MIN_SIZE": "5",
            "JAF_POSTGRES_POOL_MAX_SIZE": "30",
            "JAF_POSTGRES_POOL_MAX_QUERIES": "50000",
            "JAF_POSTGRES_POOL_MAX_INACTIVE_CONNECTION_LIFETIME": "300",
        },
    )
    address = config.address
    assert (address.hosts, address.database, address.user) == ((("db", 5433),), "memory", "app")
    assert (address.password, address.tls.mode) == ("s3cret", "disable")
    assert (config.table_name, config.most_connections, config.pool_min_size) == ("prod_conversations", 30, 5)
    assert (config.pool_max_queries, config.pool_max_inactive_connection_lifetime) == (50_000, 300.0)


def test_the_older_variables():
    """The names that jaf-py reads are read, too."""
    names = {"DB": "memory", "USER": "app", "TABLE": "talks", "SCHEMA": "chat"}
    config = load(PostgresConfig, {f"JAF_POSTGRES_{name}": text for name, text in names.items()})
    assert (config.database, config.username, config.table_name) == ("memory", "app", "talks")
    assert config.schema_name == "chat"


def test_the_documented_production_setup():
    """The document's production settings, `sslmode=require` beside `SSL=true`, verify the server fully."""
    config = load(
        PostgresConfig,
        {"JAF_POSTGRES_CONNECTION_STRING": f"{URL}?sslmode=require", "JAF_POSTGRES_SSL": "true"},
    )
    assert config.address.tls.mode == "verify-full"
    assert config.address.hosts == (("db.example.com", 5433),)


def test_a_connection_string_wins():
    """A connection string wins over single parameters, and doctor says so."""
    environ = {"JAF_POSTGRES_CONNECTION_STRING": URL, "JAF_POSTGRES_HOST": "elsewhere", "JAF_POSTGRES_PORT": "1"}
    assert load(PostgresConfig, environ).address.hosts == (("db.example.com", 5433),)
    assert any("host, port count for nothing" in note for note in doctor_notes(PostgresConfig, environ))


def test_no_variable_of_the_driver_counts(monkeypatch):
    """A config never looks at `PG…` variables, and neither does what it comes to."""
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.setenv(name, "1234")
    address = PostgresConfig().address
    assert (address.hosts, address.database, address.user) == ((("localhost", 5432),), "jaf_memory", "postgres")
    assert (address.password, address.tls.mode) == ("", "prefer")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql://u@a/d", (("a", 5432),)),
        ("postgres://u@a:6000,b,c:7000/d", (("a", 6000), ("b", 5432), ("c", 7000))),
        ("postgresql://u@[::1]:6000/d", (("::1", 6000),)),
        ("postgresql://u@%2Frun%2Fpostgresql/d", (("/run/postgresql", 5432),)),
        ("postgresql://u@/d?host=/run/postgresql&port=6000", (("/run/postgresql", 6000),)),
        ("postgresql:///d?host=a,b&port=1,2&user=u", (("a", 1), ("b", 2))),
    ],
)
def test_hosts_of_a_connection_string(text, hosts):
    """Several hosts, addresses and folders of sockets are understood."""
    parsed = parse(text)
    assert (parsed.hosts, parsed.database, parsed.user) == (hosts, "d", "u")


def test_several_hosts_want_the_primary():
    """Of several hosts the one that can be written is taken, unless the string says otherwise."""
    assert PostgresConfig(connection_string="postgresql://u@a,b/d").address.session == "read-write"
    assert PostgresConfig(connection_string="postgresql://u@a/d").address.session == "any"
    named = PostgresConfig(connection_string="postgresql://u@a,b/d?target_session_attrs=any")
    assert named.address.session == "any"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("host=/cloudsql/project:region:instance", (("/cloudsql/project:region:instance", 5432),)),
        ("host=::1&port=5433", (("::1", 5433),)),
        ("hostaddr=::1", (("::1", 5432),)),
        ("host=a,b&port=1,2", (("a", 1), ("b", 2))),
    ],
)
def test_hosts_of_a_parameter(text, hosts):
    """No port stands with a host in a parameter: its colons are its own."""
    assert parse(f"postgresql://u:p@/d?{text}").hosts == hosts


def test_a_plus_is_a_plus():
    """Only % forms are read from a parameter, as by libpq."""
    parsed = parse("postgresql://u@h/d?password=a+b%2Bc%20d&application_name=x+y&")
    assert parsed.password == "a+b+c d"
    assert parsed.parameters == {"application_name": "x+y"}


def test_percent_forms():
    """User, password and database are read from their % form."""
    parsed = parse("postgresql://a%40b:p%2F%23%3Fw@h/d%20e")
    assert (parsed.user, parsed.password, parsed.database) == ("a@b", "p/#?w", "d e")


def test_a_string_without_a_user(monkeypatch):
    """It means the operating system's user, whatever the environment says; where there is none, it must name one."""
    pwd = pytest.importorskip("pwd")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "PGUSER"):
        monkeypatch.setenv(name, "somebody")
    assert parse("postgresql://h/d").user == pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    with pytest.raises(ValidationError, match="must name a user"):
        PostgresConfig(connection_string="postgresql://h/d")
    with pytest.raises(MemoryConfigurationError, match="must name a user"):
        load(PostgresConfig, {"JAF_POSTGRES_CONNECTION_STRING": "postgresql://h/d"})
    assert PostgresConfig(connection_string="postgresql://u@h/d").address.user == "u"


@pytest.mark.parametrize("character", ["/", "#", "?", "@", "/x#", "??", "@@"])
def test_an_unescaped_password_does_not_leak(character):
    """A special character in a password, as it is, is an error that repeats no piece of the string."""
    url = f"postgresql://zqapp:hunz{character}wxkv@zqhost:5432/zqdb"
    with pytest.raises(ValidationError) as caught:
        PostgresConfig(connection_string=url)
    with pytest.raises(MemoryConfigurationError) as loaded:
        load(PostgresConfig, {"JAF_POSTGRES_CONNECTION_STRING": url})
    assert "%2F" in str(caught.value)
    for text in (str(caught.value), repr(caught.value), str(loaded.value), repr(loaded.value.__context__)):
        assert not any(piece in text for piece in ("hunz", "wxkv", "zqapp", "zqhost", "zqdb"))


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:hunz@h/d",
        "host=h dbname=d password=hunz",
        "postgresql://u:hunz@/d",
        "postgresql://u:hunz@h/",
        "postgresql://u:hunz@h:port/d",
        "postgresql://u:hunz@h:70000/d",
        "postgresql://u:hunz@[::1/d",
        "postgresql://u:hunz@h/d?sslmode",
        "postgresql://u:hunz@h/d?sslmode=never",
        "postgresql://u:hunz@h/d?target_session_attrs=best",
        "postgresql://u:hunz@h/d?sslnegotiation=later",
        "postgresql://u:hunz@a,b/d?port=1,2,3",
        "postgresql://u:hunz%00@h/d",
        "postgresql://u:hunz@h/d?application_name=a%00options",
        "postgresql://u:hunz%FF@h/d",
        "postgresql://u:hunz%z@h/d",
        "postgresql://u:hunz\udcff@h/d",
        "postgresql://u:hunz@h/d?password=hunz",
        "postgresql://u:hunz@h/d?database=e",
    ],
)
def test_a_wrong_connection_string(text):
    """What is no connection string, or names no host or database, is an error without its secret."""
    with pytest.raises(ValidationError) as caught:
        PostgresConfig(connection_string=text)
    assert "hunz" not in str(caught.value)


@pytest.mark.parametrize(
    ("ssl", "word", "authority", "mode"),
    [
        (None, None, None, "prefer"),
        (None, "disable", None, "disable"),
        (None, "allow", None, "allow"),
        (None, "prefer", None, "prefer"),
        (None, "require", None, "require"),
        (None, "require", "ca.pem", "verify-ca"),
        (None, "verify-ca", "ca.pem", "verify-ca"),
        (None, "verify-full", "ca.pem", "verify-full"),
        (None, "verify-full", "system", "verify-full"),
        (True, None, None, "verify-full"),
        (True, "require", None, "verify-full"),
        (True, "prefer", None, "verify-full"),
        (True, "verify-ca", "ca.pem", "verify-full"),
        (False, None, None, "disable"),
        (False, "disable", None, "disable"),
        (False, "allow", None, "disable"),
        (False, "prefer", None, "disable"),
        ("require", "verify-full", "ca.pem", "verify-full"),
        ("verify-full", "require", "ca.pem", "verify-full"),
        ("disable", None, None, "disable"),
    ],
)
def test_tls(ssl, word, authority, mode):
    """Setting and connection string together come to the stricter of the two."""
    url = URL + (f"?sslmode={word}" if word else "")
    config = PostgresConfig(connection_string=url, ssl=ssl, ssl_ca_file=authority)
    assert config.address.tls.mode == mode


@pytest.mark.parametrize(
    ("ssl", "word"),
    [
        (False, "require"),
        (False, "verify-ca"),
        (False, "verify-full"),
        (True, "disable"),
        ("require", "disable"),
        ("disable", "require"),
        (None, "verify-ca"),
        (None, "verify-full"),
        ("verify-full", None),
    ],
)
def test_tls_that_contradicts_itself(ssl, word):
    """One that forbids TLS beside one that asks for it is an error, and so is `verify-…` without an authority."""
    with pytest.raises(ValidationError) as caught:
        PostgresConfig(connection_string=URL + (f"?sslmode={word}" if word else ""), ssl=ssl)
    assert "s3cret" not in str(caught.value)


def test_nothing_shows_the_password():
    """Neither the `repr` of a config nor that of its parts holds a password or a connection string."""
    config = PostgresConfig(connection_string=URL, password="hunter2")
    for shown in (repr(config), str(config), repr(config.address), repr(parse(URL))):
        assert "s3cret" not in shown
        assert "hunter2" not in shown


@pytest.mark.parametrize("name", ["", "a.b", "x" * 64, "é" * 32, "a\0b", "a\ud800"])
def test_a_table_name_that_the_server_would_change(name):
    """A table name that is empty, too long, or qualified is refused."""
    with pytest.raises(ValidationError):
        PostgresConfig(table_name=name)


def test_pool_bounds_that_contradict_each_other():
    """More idle connections than connections at all is an error."""
    with pytest.raises(ValidationError, match="pool_min_size"):
        PostgresConfig(pool_min_size=5, max_connections=3)


def test_notes_on_the_line():
    """Doctor warns of a line to another computer that is plain or unverified, and not of one to this computer."""
    assert any("does not verify" in note for note in PostgresConfig(host="db.example.com").notes())
    assert any("plain text" in note for note in PostgresConfig(host="db.example.com", ssl=False).notes())
    assert not PostgresConfig(host="db.example.com", ssl=True).notes()
    assert not PostgresConfig(host="localhost").notes()


@pytest.mark.parametrize(
    "parameter",
    [
        *("service=x", "servicefile=x", "require_auth=scram-sha-256", "requirepeer=x", "replication=database"),
        *("sslkeylogfile=x", "scram_client_key=x", "oauth_issuer=x", "gssencmode=require", "gssdelegation=1"),
        *("ssl=false", "ssl=no-verify", "sslmod=require", "ssl_mode=verify-full", "SSLMODE=require", "tls=true"),
        *("sslsni=0", "sslcertmode=require", "ssl_min_protocol_version=TLSv9", "channel_binding=maybe"),
        *(
            "client_encoding=latin1",
            "load_balance_hosts=all",
            "keepalives=2",
            "keepalives_idle=x",
            "connect_timeout=soon",
        ),
        *("min_protocol_version=3.2", "sslmode=", "sslmode=require&sslmode=disable", "sslmode=disable&ssl=true"),
        *("user=other", "dbname=other", "host=other", "password=other", "port=1"),
        *("sslmode=disable&channel_binding=require", "sslmode=disable&requiressl=1", "hostaddr=10.0.0.1,10.0.0.2"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_named(parameter):
    """A parameter of libpq, or what looks like TLS, that cannot be honoured is refused by name before it connects."""
    with pytest.raises(ValidationError) as caught:
        PostgresConfig(connection_string=f"{URL}?{parameter}")
    assert parameter.partition("=")[0] in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "attribute", "value"),
    [
        ("ssl=true", "tls.mode", "require"),
        ("requiressl=1", "tls.mode", "require"),
        ("channel_binding=require", "tls.mode", "require"),
        ("channel_binding=prefer", "tls.mode", "prefer"),
        ("sslcrl=/crl.pem", "tls.revoked", "/crl.pem"),
        ("ssl_min_protocol_version=TLSv1.3", "tls.oldest", "TLSv1.3"),
        ("ssl_max_protocol_version=TLSv1.2", "tls.newest", "TLSv1.2"),
        ("sslcert=c.pem&sslcertmode=disable", "tls.certificate", None),
        ("hostaddr=10.0.0.1", "numeric", ("10.0.0.1",)),
        ("connect_timeout=7", "timeout", 7.0),
        ("connect_timeout=0", "timeout", None),
        ("load_balance_hosts=random", "is_balanced", True),
        ("krbsrvname=pg", "gss", {"krbsrvname": "pg", "gsslib": "sspi" if sys.platform == "win32" else "gssapi"}),
        ("fallback_application_name=a", "server_settings", {"application_name": "a"}),
        ("fallback_application_name=a&application_name=b", "server_settings", {"application_name": "b"}),
        ("options=endpoint%3Dquiet-sun", "server_settings", {"options": "endpoint=quiet-sun"}),
        ("gssencmode=disable", "server_settings", {}),
        ("client_encoding=utf8", "server_settings", {}),
        ("statement_timeout=5s", "server_settings", {"statement_timeout": "5s"}),
        ("keepalives=0", "socket_options", {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 0}),
        (
            "keepalives_idle=30&tcp_user_timeout=5000",
            "socket_options",
            {
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 30,
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 5000,
            },
        ),
    ],
)
def test_a_parameter_that_is_honoured(parameter, attribute, value):
    """Every other parameter of libpq comes to what it says, and none of them reaches the server as a setting of its."""
    found = PostgresConfig(connection_string=f"{URL}?{parameter}").address
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == value


def test_where_a_password_comes_from(tmp_path):
    """A written password counts first, then a file, read at each use, a function, and libpq's file of passwords."""
    file = tmp_path / "password"
    file.write_text("one\n")
    config = PostgresConfig(connection_string="postgresql://u@h/d", password_file=str(file), passfile="pgpass")
    assert config.address.password() == "one"
    file.write_text("two")
    assert config.address.password() == "two"
    assert config.address.passfile is None
    assert PostgresConfig(connection_string=URL, password_file=str(file)).address.password == "s3cret"
    assert PostgresConfig(password=lambda: "three").address.password() == "three"
    assert load(PostgresConfig, {"PGPASSFILE": "pgpass"}).address.passfile == "pgpass"
    file.unlink()
    with pytest.raises(MemoryConfigurationError, match="JAF_POSTGRES_PASSWORD_FILE"):
        config.address.password()
