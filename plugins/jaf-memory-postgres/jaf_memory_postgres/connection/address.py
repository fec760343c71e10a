"""Where the server is, and who we are there, read from a connection string; libpq's parameters are honoured or refused.

The drivers' own readers take what a string leaves out from the environment, and quote pieces of a password in their
errors. This one does neither.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from jaf_memory_postgres.connection.tls import Tls

if sys.platform != "win32":
    import pwd

SCHEMES = ("postgresql", "postgres")
PORT = 5432
LAST_PORT = 65_535
LOCAL = ("localhost", "127.0.0.1", "::1")


Password = str | Callable[[], Any]
"""A password, or what gives one for each new connection: a text, or an awaitable of one."""


@dataclass(frozen=True)
class Address:
    """One database, on one server or on several of which one is the primary.

    Attributes:
        hosts: (host or folder of a socket, port), in the order in which they are tried.
        database, user: where, and as whom.
        password: `""` for none.
        tls: how the connections are secured.
        session: which of several hosts will do: libpq's `target_session_attrs`.
        server_settings: further parameters of the string, for the server.
        passfile: libpq's file of passwords, or `None`.
        numeric: the address to connect to in the place of each host's name; libpq's `hostaddr`.
        timeout: seconds that a new connection may take, or `None`.
        is_balanced: whether each connection begins with any of the hosts.
        socket_options: (level, option) → value.
        gss: `krbsrvname` and `gsslib`.
        is_pooled: whether the string says that a pooler stands between.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str
    password: Password = field(default="", repr=False)
    tls: Tls = field(default=Tls(), repr=False)
    session: str = "any"
    server_settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    passfile: str | None = None
    numeric: tuple[str, ...] = ()
    timeout: float | None = None
    is_balanced: bool = False
    socket_options: Mapping[tuple[int, int], int] = field(default_factory=dict, repr=False)
    gss: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_pooled: bool = False

    @property
    def is_local(self) -> bool:
        """Whether every host is this computer, so that nobody listens on the line."""
        return all(host in LOCAL or host.startswith("/") for host, _ in self.hosts)


@dataclass(frozen=True)
class Parsed:
    """A connection string in parts; `sslmode` is a word that nobody has checked."""

    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str
    password: str = field(repr=False)
    parameters: Mapping[str, str] = field(repr=False)


def parse(text: str) -> Parsed:
    """Read a connection string.

    Args:
        text: `postgresql://user:password@host:port,host:port/database?parameter=value`.

    Raises:
        ValueError: it is no such string, or names no host or database. The text repeats nothing of it.
    """
    scheme, mark, rest = text.strip().partition("://")
    if not mark or scheme not in SCHEMES:
        with_driver = mark and scheme.partition("+")[0] in SCHEMES
        instead = "; leave out the + and the driver's name behind it" if with_driver else ""
        raise ValueError(f"it must begin with postgresql:// or postgres://{instead}")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    login, at, hosts = authority.rpartition("@")
    # An unescaped character of a password moves what follows into another part of the string.
    if "#" in rest or "@" in login or "@" in path or (not at and "@" in query):
        raise ValueError("a special character stands in it as it is; write it in % form (/ %2F, # %23, ? %3F, @ %40)")
    parameters = _parameters(query)
    user, _, password = login.partition(":")
    written = {"user": _decoded(user), "password": _decoded(password), "dbname": _decoded(path), "host": hosts}
    for name, value in written.items():
        # One of the two would be dropped, or go to the server as a setting.
        if value and name in parameters:
            raise ValueError(f"{name} stands in the URL twice")
    if "database" in parameters:
        raise ValueError("database in the URL is no parameter; it is dbname, or stands behind the /")
    listed = [_authority_host(part) for part in hosts.split(",") if part] or _named_hosts(parameters)
    found = _with_ports(listed, parameters.pop("port", ""))
    database = written["dbname"] or parameters.pop("dbname", "")
    if not found or not database:
        raise ValueError("it must name a host (or host=/folder for a socket) and a database")
    parameters.pop("host", None)
    return Parsed(
        hosts=found,
        database=database,
        user=written["user"] or parameters.pop("user", "") or _system_user(),
        password=written["password"] or parameters.pop("password", ""),
        parameters=parameters,
    )


def _system_user() -> str:
    """The operating system's name for whom this process runs as: LOGNAME and the like say something else at will."""
    if sys.platform != "win32":
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            pass  # in a container, often
    raise ValueError("it must name a user (postgresql://user@…): the operating system has no name for this process's")


def _decoded(text: str) -> str:
    """A piece of the string without its % forms; a + is a +, as for libpq.

    Raises:
        ValueError: it has a % form of no text. What it holds is not repeated.
    """
    try:
        found = unquote(text, errors="strict")
        found.encode()
    except UnicodeError:
        found = "\0"
    if "\0" in found or _NO_FORM.search(text):
        raise ValueError("a % in it must stand before two hexadecimal digits, and all of them for UTF-8 without NUL")
    return found


_NO_FORM = re.compile("%(?![0-9A-Fa-f]{2})")


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in query.removesuffix("&").split("&") if query else []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError("what follows the ? must have the form name=value&name=value")
        name, value = _decoded(name), _decoded(text)
        check_parameter(name, value)
        if name in found:
            raise ValueError(f"{name} stands in the URL twice")
        found[name] = value
    return found


def _named_hosts(parameters: Mapping[str, str]) -> list[tuple[str, int | None]]:
    """The hosts of a parameter: no port stands with them, and so each colon is their own."""
    names = parameters.get("host") or parameters.get("hostaddr") or ""
    return [(name, None) for name in names.split(",") if name]


def _with_ports(listed: Sequence[tuple[str, int | None]], ports: str) -> tuple[tuple[str, int], ...]:
    defaults = [_port(port) for port in ports.split(",")] if ports else [PORT]
    if ports and listed and all(own for _, own in listed):
        raise ValueError("port stands in the URL twice")
    if len(defaults) == 1:
        defaults *= len(listed)
    if len(defaults) != len(listed):
        raise ValueError("it must have one port, or as many as hosts")
    return tuple((host, own or default) for (host, own), default in zip(listed, defaults, strict=True))


def _authority_host(part: str) -> tuple[str, int | None]:
    if part.startswith("["):
        host, closed, port = part[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError("an IPv6 host has the form [address]:port")
        return _decoded(host), _port(port[1:]) if port else None
    host, _, port = part.partition(":")
    return _decoded(host), _port(port) if port else None


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= LAST_PORT:
        return int(text)
    raise ValueError(f"each port in it must be a whole number from 1 to {LAST_PORT}")


def resolved(parsed: Parsed, tls: Tls, password: Password, passfile: str | None) -> Address:
    """The address that a parsed string comes to.

    Args:
        parsed: the string.
        tls: how the connections are secured.
        password: what counts where the string has none.
        passfile: libpq's file of passwords, which counts where there is no other password.

    Raises:
        ValueError: a parameter contradicts another.
    """
    rest = {name: value for name, value in parsed.parameters.items() if not is_about_tls(name)}
    taken = {name: rest.pop(name) for name in [*rest] if name in HONOURED or name in WORDS}
    if "fallback_application_name" in taken:
        rest.setdefault("application_name", taken["fallback_application_name"])
    numeric = tuple(filter(None, taken.get("hostaddr", "").split(",")))
    if numeric and len(numeric) != len(parsed.hosts):
        raise ValueError("hostaddr in the URL must have as many addresses as there are hosts")
    seconds = float(taken.get("connect_timeout", "0"))
    given = parsed.password or password
    return Address(
        parsed.hosts,
        parsed.database,
        parsed.user,
        given,
        tls,
        # Of several servers one is the primary, and a memory has to be written.
        session=taken.get("target_session_attrs", "any" if len(parsed.hosts) == 1 else "read-write"),
        server_settings=rest,
        passfile=taken.get("passfile", passfile) if not given else None,
        numeric=numeric,
        timeout=seconds if seconds > 0 else None,
        is_balanced=taken.get("load_balance_hosts") == "random",
        socket_options=socket_options(taken),
        gss={**GSS, **{name: taken[name] for name in GSS if name in taken}},
        is_pooled=taken.get("pgbouncer") == "true",
    )


WORDS: Mapping[str, tuple[str, ...]] = {
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "ssl": ("true",),
    "requiressl": ("0", "1"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "sslcompression": ("0", "1"),
    "sslsni": ("1",),
    "sslcertmode": ("disable", "allow"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "load_balance_hosts": ("disable", "random"),
    "keepalives": ("0", "1"),
    "client_encoding": ("auto", "utf8", "UTF8", "utf-8", "UTF-8"),
    "min_protocol_version": ("3.0",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "pgbouncer": ("true", "false"),
}
"""Parameters of which only these values are honoured."""

NUMBERS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
HONOURED = frozenset((*NUMBERS, "fallback_application_name", "hostaddr", "krbsrvname", "gsslib", "passfile"))
"""Those with a value of their own; what is about TLS stands in `TLS`."""

TLS = frozenset(
    (
        *("ssl", "requiressl", "channel_binding", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"),
        *("sslcrl", "sslcrldir", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("sslcompression", "sslsni", "sslcertmode"),
    )
)

GSS: Mapping[str, str] = {"krbsrvname": "postgres", "gsslib": "sspi" if sys.platform == "win32" else "gssapi"}
"""The driver's own choice, said out loud: what it is not told it takes from `PGKRBSRVNAME` and `PGGSSLIB`."""

REFUSED: Mapping[str, str] = {
    "service": "no service file is read; write out what it says",
    "servicefile": "no service file is read; write out what it says",
    "require_auth": "the driver cannot require a way to log in; sslmode=verify-full makes sure of the server",
    "requirepeer": "the driver does not look whose process the server is; sslmode=verify-full makes sure of the server",
    "replication": "a replication connection runs no statements",
    "sslkeylogfile": "keys are not logged",
    "scram_client_key": "the driver takes a password",
    "scram_server_key": "the driver takes a password",
}
"""Parameters of libpq that this driver cannot honour, and why."""

_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def is_about_tls(name: str) -> bool:
    """Whether a parameter is one of those about TLS."""
    return name in TLS


def check_parameter(name: str, value: str) -> None:
    """Look whether a parameter can be honoured; one that nobody here knows is for the server.

    Raises:
        ValueError: it cannot; the text names it, and does not repeat its value.
    """
    if name in REFUSED or name.startswith("oauth_"):
        raise ValueError(f"{name} in the URL cannot be honoured: {REFUSED.get(name, 'the driver has no OAuth')}")
    if name not in TLS and any(word in name.lower() for word in ("ssl", "tls")):
        raise ValueError(f"{name} in the URL is no parameter; TLS is asked for with sslmode")
    if not value and name != "password":
        raise ValueError(f"{name} in the URL has no value")
    allowed = WORDS.get(name)
    if allowed is not None and value not in allowed:
        words = f"one of {', '.join(allowed)}" if len(allowed) > 1 else allowed[0]
        raise ValueError(f"{name} in the URL must be {words}")
    if name in NUMBERS and not (value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()):
        raise ValueError(f"{name} in the URL must be a whole number")


def socket_options(parameters: Mapping[str, str]) -> dict[tuple[int, int], int]:
    """What `keepalives…` and `tcp_user_timeout` come to on this computer; 0 leaves the system's own value."""
    if parameters.get("keepalives") == "0":
        return {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 0}
    given = {name: int(parameters[name]) for name in _OPTIONS if name in parameters}
    options = {
        (socket.IPPROTO_TCP, getattr(socket, _OPTIONS[name])): value
        for name, value in given.items()
        if value > 0 and hasattr(socket, _OPTIONS[name])
    }
    return {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1, **options} if given or "keepalives" in parameters else {}
