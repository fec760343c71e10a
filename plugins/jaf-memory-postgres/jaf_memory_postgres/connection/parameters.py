"""The parameters of a connection string: libpq's, each of which is honoured or refused by name, and the server's."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

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
