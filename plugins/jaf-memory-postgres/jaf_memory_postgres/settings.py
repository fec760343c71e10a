"""`PostgresConfig`: what the provider can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_postgres.connection.address import Address, Parsed, parse, resolved
from jaf_memory_postgres.connection.tls import Mode, secured
from jaf_memory_postgres.names import checked_name

SINGLE = ("host", "port", "database", "username", "password")


class PostgresConfig(ProviderConfig):
    """Settings of the PostgreSQL provider.

    Nothing but these settings decides which server and which database the provider connects to: no `PG…` variable, no
    service file, and no other database of the same server. (`PGPASSFILE` gives a password only.)

    Raises:
        pydantic.ValidationError: a value is wrong, or two contradict each other; the text shows no secret.

    Example:
        config = PostgresConfig(connection_string="postgresql://app:secret@db.example/chat", max_connections=20)
    """

    env_prefix = "JAF_POSTGRES_"
    env_older_names: ClassVar[Mapping[str, str]] = {
        "JAF_POSTGRES_DB": "database",
        "JAF_POSTGRES_USER": "username",
        "JAF_POSTGRES_TABLE": "table_name",
        "JAF_POSTGRES_SCHEMA": "schema_name",
        "PGPASSFILE": "passfile",
    }

    connection_string: SecretStr | None = None
    """postgresql://user:password@host,host/database?sslmode=…; wins over host, port, database, username, password."""

    host: str = Field(default="localhost", min_length=1)
    """Name or address of the server, or the folder of its socket."""

    port: int = Field(default=5432, ge=1, le=65_535)
    """Port of the server."""

    database: str = Field(default="jaf_memory", min_length=1)
    """Name of the database; it has to be there."""

    username: str = Field(default="postgres", min_length=1)
    """Role to log in as."""

    password: SecretStr | Callable[[], Any] | None = None
    """Password of the role; in code also a function that gives it, awaited if need be, for each new connection."""

    password_file: str | None = Field(default=None, min_length=1)
    """File with the password, read for each new connection, so that a rotated one is taken up."""

    passfile: str | None = Field(default=None, min_length=1)
    """File of passwords in libpq's form (PGPASSFILE), looked up for each new connection where no other is given."""

    ssl: bool | Mode | None = None
    """TLS: true verifies fully, false is plain text, or one of libpq's words; unset leaves it to the URL."""

    ssl_ca_file: str | None = Field(default=None, min_length=1)
    """File of the authority's certificate (PEM), or `system`."""

    table_name: str = "conversations"
    """Name under which SQL finds the conversations; the storage tables are named after it. Up to 63 bytes."""

    schema_name: str = Field(default="public", validation_alias=AliasChoices("schema_name", "schema"))
    """Schema of that name. Up to 63 bytes."""

    max_connections: int = Field(default=10, ge=1)
    """Connections at most."""

    pool_min_size: int = Field(default=1, ge=0)
    """Connections that stay open."""

    pool_max_size: int | None = Field(default=None, ge=1)
    """Connections at most; wins over max_connections."""

    pool_max_queries: int = Field(default=50_000, ge=1)
    """Operations after which a connection is replaced."""

    pool_max_inactive_connection_lifetime: float = Field(default=300.0, ge=0)
    """Seconds after which an idle connection is closed; 0 for never."""

    pooler: bool | Literal["auto"] = "auto"
    """Whether PgBouncer or the like stands between, so that no prepared statement is kept; auto looks itself."""

    auto_migrate: bool = True
    """Whether the provider makes and upgrades its tables at start; if not, `jaf-memory schema --apply` does."""

    search: Literal["scan", "index"] = "scan"
    """index: searches go by a full-text index (GIN), which is made where there is none, and kept at each write."""

    @field_validator("connection_string")
    @classmethod
    def _connection_string(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse(value.get_secret_value())
        return value

    @field_validator("table_name")
    @classmethod
    def _table(cls, value: str) -> str:
        if "." in value:
            raise ValueError("a dot would be part of the name; the schema goes into schema_name")
        return checked_name(value)

    @field_validator("schema_name")
    @classmethod
    def _schema(cls, value: str) -> str:
        return checked_name(value)

    @model_validator(mode="after")
    def _agree(self) -> PostgresConfig:
        if self.pool_min_size > self.most_connections:
            raise ValueError(
                f"pool_min_size is {self.pool_min_size}, above the {self.most_connections} connections that are allowed"
            )
        _ = self.address
        return self

    @property
    def most_connections(self) -> int:
        """Connections at most."""
        return self.max_connections if self.pool_max_size is None else self.pool_max_size

    @cached_property
    def address(self) -> Address:
        """The server and the database that these settings name."""
        parsed = self._parsed()
        tls = secured(parsed.parameters, self.ssl_ca_file, setting=self.ssl)
        return resolved(parsed, tls, self._password(), self.passfile)

    def _parsed(self) -> Parsed:
        if self.connection_string is not None:
            return parse(self.connection_string.get_secret_value())
        password = self.password.get_secret_value() if isinstance(self.password, SecretStr) else ""
        return Parsed(((self.host, self.port),), self.database, self.username, password, {})

    def _password(self) -> str | Callable[[], Any]:
        """What counts where no password is written out."""
        if self.password_file is not None:
            return partial(_read, self.password_file)
        return self.password if callable(self.password) else ""

    def notes(self) -> Sequence[str]:
        """What `doctor` should point out."""
        notes = []
        given = [field for field in SINGLE if field in self.model_fields_set]
        if self.connection_string is not None and given:
            notes.append(f"connection_string is set, so {', '.join(given)} count for nothing.")
        if self.password_file is not None and self._parsed().password:
            notes.append("a password is written out, so password_file counts for nothing.")
        if self._parsed().parameters.get("channel_binding") == "require":
            notes.append("the driver binds no channels; ssl=true makes sure of the server in another way.")
        if self.pool_max_size is not None and "max_connections" in self.model_fields_set:
            notes.append("pool_max_size is set, so max_connections counts for nothing.")
        warning = unverified(self.address)
        return [*notes, warning] if warning else notes


def unverified(address: Address) -> str | None:
    """What is to be said about the line to another computer, or `None` if it is verified, or there is none."""
    if address.is_local or address.tls.verified:
        return None
    off = address.tls.mode in ("disable", "allow")
    what = "is plain text" if off else "does not verify the server's certificate"
    return f"the line to the server {what}; set ssl to true, with ssl_ca_file for an authority of your own"


def _read(file: str) -> str:
    """The password that a file holds now, without the end of its line.

    Raises:
        MemoryConfigurationError: it cannot be read.
    """
    try:
        return Path(file).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
    text = f"the file of JAF_POSTGRES_PASSWORD_FILE cannot be read: {reason}"
    raise MemoryConfigurationError(text, provider="postgres")
