"""Settings of the Redis provider."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from redis.credentials import CredentialProvider

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import DAY, ProviderConfig

SCHEMES = {"redis": False, "rediss": True, "unix": False}
_QUERY = {
    "db": "db",
    "username": "username",
    "password": "password",
    "ssl_cert_reqs": "ssl_cert_reqs",
    "ssl_ca_certs": "ssl_ca_certs",
    "ssl_certfile": "ssl_certfile",
    "ssl_keyfile": "ssl_keyfile",
}
_HOST = re.compile(r"^(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?$")
HIGHEST_PORT = 65_535


def address(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of `host:port`, `[::1]:port` or `host`.

    Raises:
        ValueError: anything else; the text is not repeated.
    """
    found = _HOST.match(text.strip())
    if found is None or int(found["port"] or 1) not in range(1, HIGHEST_PORT + 1):
        raise ValueError("an address is host:port, with a port from 1 to 65535")
    return found["six"] or found["host"], int(found["port"] or default_port)


class PasswordFile(CredentialProvider):
    """A password that stands in a file, and may be changed there.

    Args:
        username: whose it is.
        path: the file.
    """

    def __init__(self, username: str | None, path: str) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What the next connection logs in with.

        Raises:
            MemoryConfigurationError: the file is missing, empty, or may not be read.
        """
        try:
            password = Path(self._path).read_text("utf-8-sig").strip("\r\n")
        except (OSError, ValueError) as error:
            raise MemoryConfigurationError(
                f"password_file (JAF_REDIS_PASSWORD_FILE) cannot be read: {type(error).__name__}"
            ) from None
        if not password:
            raise MemoryConfigurationError("password_file (JAF_REDIS_PASSWORD_FILE) is empty")
        return (password,) if self._username is None else (self._username, password)


class RedisConfig(ProviderConfig):
    """Settings of the Redis provider; a URL wins over the single parameters that it names.

    Example:
        config = RedisConfig(url="rediss://:secret@redis.example:6379/0", key_prefix="app:", ttl=30 * 86_400.0)
    """

    env_prefix: ClassVar[str] = "JAF_REDIS_"
    env_older_names: ClassVar[Mapping[str, str]] = {"JAF_REDIS_PREFIX": "key_prefix"}

    url: SecretStr | None = None
    """redis://[user:password@]host:port/db, rediss:// for TLS, unix:///path; redis://token@host means a password."""

    host: str = Field(default="localhost", min_length=1)
    """Name or address of the server; in Cluster mode of any node, or of several with commas."""

    port: int = Field(default=6379, ge=1, le=HIGHEST_PORT)
    """Port of the server."""

    username: str | None = None
    """User name, where the server has users (ACL)."""

    password: SecretStr | None = None
    """Password."""

    password_file: str | None = Field(default=None, min_length=1)
    """File with the password, read for each new connection; it wins over the password."""

    db: int = Field(default=0, ge=0)
    """Number of the database."""

    key_prefix: str = Field(default="jaf:memory:", min_length=1, max_length=255)
    """What every key begins with."""

    max_messages: int | None = Field(
        default=None, ge=1, validation_alias=AliasChoices("max_messages", "max_messages_per_conversation")
    )
    """Messages that a conversation keeps, the newest; none for all."""

    sentinel_hosts: tuple[str, ...] = ()
    """Addresses of the sentinels, host:port with commas; they name the master, whatever host the URL names."""

    sentinel_service_name: str = Field(default="mymaster", min_length=1)
    """Name under which the sentinels know the master."""

    sentinel_username: str | None = None
    """User name for the sentinels."""

    sentinel_password: SecretStr | None = None
    """Password for the sentinels; the server's own is not sent to them."""

    sentinel_ssl: bool | None = None
    """TLS to the sentinels; when unset, as to the server."""

    cluster: bool = False
    """Whether the server is a Redis Cluster."""

    ssl: bool | None = None
    """TLS, verified; when unset, the URL decides."""

    ssl_ca_file: str | None = None
    """File with the authorities that may have signed the server's certificate; unset for the system's."""

    ssl_cert_file: str | None = None
    """File with our own certificate, where the server asks for one."""

    ssl_key_file: str | None = None
    """File with the key of our own certificate."""

    ssl_name: str | None = Field(default=None, min_length=1)
    """Name that the server's certificate must have; unset for the host that is connected to."""

    max_connections: int = Field(default=4, ge=1, le=1_000)
    """Connections to a server at most; each carries many operations at once."""

    connect_timeout: float = Field(default=5.0, gt=0, le=DAY)
    """Seconds for making a connection."""

    socket_timeout: float = Field(default=10.0, gt=0, le=DAY)
    """Seconds without a byte after which a connection that owes a reply is given up."""

    min_replicas: int = Field(default=0, ge=0)
    """Replicas that must have a write before it counts as done (WAIT)."""

    min_replicas_timeout: float = Field(default=2.0, gt=0, le=DAY)
    """Seconds to wait for them."""

    @field_validator("sentinel_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("sentinel_hosts")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            address(part, 26379)
        return value

    @field_validator("url")
    @classmethod
    def _readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            url_arguments(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RedisConfig:
        scheme = self._scheme
        if self.ssl is False and scheme == "rediss":
            raise ValueError("the URL asks for TLS (rediss://), and ssl is false")
        if self.cluster and self.sentinel_hosts:
            raise ValueError("cluster and sentinel_hosts exclude each other")
        if scheme == "unix" and (self.cluster or self.sentinel_hosts or self.ssl):
            raise ValueError("a unix:// URL goes with neither cluster, sentinel_hosts nor ssl")
        if self.cluster and set("{}") & set(self.key_prefix):
            raise ValueError("in Cluster mode key_prefix holds no braces: they decide where keys are kept")
        if self.cluster and self.arguments().get("db"):
            raise ValueError("a Cluster has database 0 only")
        if "," in self.host and not self.cluster:
            raise ValueError("several hosts go with cluster only")
        if self.cluster and self.url is None:
            for part in self.host.split(","):
                address(part, self.port)
        if self.min_replicas_timeout >= self.socket_timeout:
            raise ValueError("min_replicas_timeout must be below socket_timeout")
        return self

    def arguments(self) -> dict[str, Any]:
        """Connection arguments for redis-py: what the URL says, and for the rest the single parameters."""
        found = url_arguments(self.url.get_secret_value()) if self.url else {"host": self.host, "port": self.port}
        if not {"username", "password"} & found.keys():
            found["username"] = self.username
            found["password"] = self.password.get_secret_value() if self.password else None
        if self.password_file is not None:
            found["credential_provider"] = PasswordFile(
                cast("str | None", found.pop("username", None)), self.password_file
            )
            found.pop("password", None)
        found.setdefault("db", self.db)
        if self.tls:
            found.setdefault("ssl_ca_certs", self.ssl_ca_file)
            found.setdefault("ssl_certfile", self.ssl_cert_file)
            found.setdefault("ssl_keyfile", self.ssl_key_file)
            found.setdefault("ssl_cert_reqs", "required")
            found["ssl_check_hostname"] = found["ssl_cert_reqs"] == "required"
        else:
            found = {name: value for name, value in found.items() if not name.startswith("ssl_")}
        return found

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.ssl) if self.ssl is not None else SCHEMES.get(self._scheme, False)

    @property
    def _scheme(self) -> str:
        """The URL's, as its reader has it: in small letters (`REDISS://` is TLS too), without blanks before it."""
        return urlsplit(self.url.get_secret_value()).scheme if self.url else ""

    def notes(self) -> Sequence[str]:
        """What deserves a word: overridden settings, and unverified TLS."""
        said = []
        both = sorted({"host", "port", "username", "password", "db"} & self.model_fields_set)
        if self.url is not None and both:
            said.append(f"JAF_REDIS_URL is set, and so is {', '.join(both)}: the URL wins in all that it names.")
        if self.sentinel_hosts and (self.url is not None or "host" in self.model_fields_set):
            said.append(
                "JAF_REDIS_SENTINEL_HOSTS is set: the sentinels name the server, whatever host is given beside."
            )
        if self.arguments().get("ssl_cert_reqs", "required") != "required":
            said.append("The URL switches the verification of the server's certificate off.")
        return said


def url_arguments(url: str) -> dict[str, Any]:
    """redis-py's connection arguments in a URL.

    Raises:
        ValueError: with what is wrong, and nothing of the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL cannot be read; write / # ? @ and : in a password as %2F %23 %3F %40 %3A") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        instead = "; leave out the + and what stands behind it" if parts.scheme.partition("+")[0] in SCHEMES else ""
        raise ValueError(f"the URL must begin with redis://, rediss:// or unix://{instead}")
    found = _query(parts)
    credentials, _, place = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    if colon:
        found.update(username=unquote(user) or None, password=unquote(password) or None)
    elif user:
        # The documented form `redis://auth-token@host`: every driver would take it for a user's name.
        found.update(username=None, password=unquote(user))
    if parts.scheme == "unix":
        if not parts.path or place:
            raise ValueError("a unix:// URL is unix:///path/to/socket")
        return {**found, "path": unquote(parts.path)}
    host, port = _place(place)
    number = parts.path.strip("/")
    if number:
        found["db"] = _number(number)
    return {**found, "host": host, "port": port}


def _place(place: str) -> tuple[str, int]:
    try:
        return address(place, 6379) if place else ("localhost", 6379)
    except ValueError:
        raise ValueError(
            "what stands behind :// is not host:port; write / # ? @ and : in a password as %2F %23 %3F %40 %3A"
        ) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the URL's path must be the number of a database")
    return int(text)


def _query(parts: SplitResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query):
        if name not in _QUERY:
            raise ValueError(f"the URL's query may say {', '.join(_QUERY)}, and nothing else")
        found[_QUERY[name]] = _number(value) if name == "db" else value
    if parts.fragment:
        raise ValueError("the URL holds a #; write %23 for one in a password")
    if found.get("ssl_cert_reqs", "required") not in {"none", "optional", "required"}:
        raise ValueError("ssl_cert_reqs is none, optional or required")
    return found


def is_local(arguments: Mapping[str, Any]) -> bool:
    """Whether a server is on this machine, where nobody listens in between."""
    host = str(arguments.get("host", ""))
    return "path" in arguments or host in {"localhost", "::1"} or host.startswith("127.") or host == platform.node()
