"""Settings: what a configuration may hold, and how it is read from the environment.

A configuration that is built in code never looks at the environment; `load` makes one from variables, and
names the variable when a value is wrong. What else people are told about variables is in `environment.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings.errors import (
    MASK,
    allowed,
    disguised,
    has_credentials,
    is_secret,
    repeats_secret,
    shown,
    takes_none,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DAY = 86_400.0
CENTURY = 36_525 * DAY
MIB = 1 << 20

# A pattern, so that a connection string in the wrong variable is refused here, where it is not shown.
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[\w.-]+$")]


class Settings(BaseModel):
    """Base of everything that is read from variables.

    A field's variable is `env_prefix` and the field's name in capitals; its docstring is what `doctor` shows.
    In code fields are strict: `True` is no number, and `"5"` neither. From a variable, text becomes what the
    field's type wants; a field of several parts needs a "before" validator that takes them as one text.

    Attributes:
        env_prefix: what the names of the variables begin with: `JAF_<PROVIDER>_`.
        env_older_names: older variable → field; read where the newer one is unset.
    """

    model_config = ConfigDict(
        allow_inf_nan=False,
        defer_build=True,  # at first use: whoever only imports jaf_memory_core need not wait for it
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        loc_by_alias=False,
        populate_by_name=True,
        strict=True,
    )

    env_prefix: ClassVar[str] = ""
    env_older_names: ClassVar[Mapping[str, str]] = {}

    def notes(self) -> Sequence[str]:
        """What `doctor` should point out about these settings; a configuration may override it.

        Returns:
            sentences without secrets: a setting that another one overrides, or that weakens a promise.
        """
        return ()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # A URL in the wrong place, a table's name for one, is as secret there.
        return [(name, MASK if has_credentials(repr(value)) else value) for name, value in super().__repr_args__()]


class CoreSettings(Settings):
    """Which provider and which plugins the application wants."""

    env_prefix: ClassVar[str] = "JAF_MEMORY_"

    type: Name = "memory"
    """The memory provider: memory, sqlite, redis, postgres, or the name that an installed plugin has."""

    plugins: tuple[Name, ...] = ()
    """Plugins for redaction, encryption, telemetry: names with commas, in the order in which they act."""

    @field_validator("plugins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(name for name in value.split(",") if name.strip())
        if value.strip() and not names:
            # Whoever wrote a comma meant a name; to start without it would be to store past a redactor.
            raise ValueError("names no plugin")
        return names


class ProviderConfig(Settings):
    """What every provider can be told; a backend's configuration adds its own fields.

    Secrets are `SecretStr`, so that neither the `repr` nor an error shows them. A validator that refuses a
    secret should not repeat any of it; `load` drops a message that does.

    Raises:
        pydantic.ValidationError: a value is wrong; the text names the field, never the value.
    """

    operation_timeout: float = Field(default=30.0, gt=0, le=DAY)
    """Seconds within which every operation ends."""

    reconnect_timeout: float = Field(default=5.0, ge=0, le=DAY)
    """Seconds for which a server that refuses or cannot be reached is tried again."""

    health_timeout: float = Field(default=2.0, gt=0, le=DAY)
    """Seconds within which a health check ends, if operation_timeout is not shorter."""

    slow_operation: float | None = Field(default=None, gt=0, le=DAY)
    """Seconds from which on an operation is logged as slow; none for never."""

    max_messages: int | None = Field(default=None, ge=1)
    """Messages that a conversation keeps, the newest; none for all."""

    ttl: float | None = Field(default=None, gt=0, le=CENTURY)
    """Seconds from its last write until a conversation expires; none for never."""

    max_message_bytes: int = Field(default=16 * MIB, ge=1)
    """Bytes of one encoded message."""

    max_call_bytes: int = Field(default=64 * MIB, ge=1)
    """Bytes of all encoded messages of one call."""

    max_append_messages: int = Field(default=10_000, ge=1)
    """Messages of one append."""

    max_metadata_bytes: int = Field(default=MIB, ge=1)
    """Bytes of a conversation's encoded metadata."""

    max_nesting: int = Field(default=100, ge=1, le=200)
    """Depth of arrays and objects within each other."""

    max_integer_digits: int = Field(default=4_000, ge=1, le=4_300)
    """Decimal digits of an integer; Python itself reads no more than 4,300."""


S = TypeVar("S", bound=Settings)


class Given(dict[str, tuple[str, str]]):
    """Field → (variable, text), for the fields that the environment sets."""

    @property
    def texts(self) -> dict[str, str]:
        """Field → text."""
        return {field: text for field, (_, text) in self.items()}


def variables(config_type: type[Settings]) -> dict[str, tuple[str, ...]]:
    """The names of each field's variables: today's first, then the older ones.

    Args:
        config_type: a class of settings.

    Returns:
        field → names, in the order in which they are looked up.
    """
    names = {field: [config_type.env_prefix + field.upper()] for field in config_type.model_fields}
    for older, field in config_type.env_older_names.items():
        names[field].append(older)
    return {field: tuple(choices) for field, choices in names.items()}


def given(config_type: type[Settings], environ: Mapping[str, str] | None = None) -> Given:
    """What the environment sets, as text; an empty variable counts as unset.

    Args:
        config_type: a class of settings.
        environ: the variables; `os.environ` when `None`.

    Returns:
        field → (variable, text). Nothing of it has been checked.
    """
    # Late, because this import takes 70 ms, and most who import jaf_memory_core never come here.
    from pydantic import create_model
    from pydantic_settings import BaseSettings, EnvSettingsSource

    environ = os.environ if environ is None else _checked_environ(environ)
    names = variables(config_type)
    # As text only: config_type itself converts it, so that one set of checks serves code and environment.
    fields: dict[str, Any] = {name: (str | None, None) for choices in names.values() for name in choices}
    source = EnvSettingsSource(create_model("Variables", __base__=BaseSettings, **fields), case_sensitive=True)
    source.env_vars = {name: text for name, text in environ.items() if text}
    texts = source()
    chosen = {field: [name for name in choices if name in texts] for field, choices in names.items()}
    return Given({field: (found[0], texts[found[0]]) for field, found in chosen.items() if found})


def _checked_environ(environ: Any) -> Mapping[str, str]:
    if not isinstance(environ, Mapping):
        raise MemoryConfigurationError(f"environ must be a dict of variables, not a {type(environ).__name__}")
    for name, text in environ.items():
        if not isinstance(name, str):
            raise MemoryConfigurationError(f"environ must have names of variables as keys, not a {type(name).__name__}")
        if not isinstance(text, str):
            raise MemoryConfigurationError(f"environ must hold texts, and {name} holds a {type(text).__name__}")
    return environ


def load(config_type: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Make a configuration from variables.

    Args:
        config_type: a class of settings.
        environ: the variables; `os.environ` when `None`.

    Returns:
        the configuration; a field whose variable is unset or empty has its default.

    Raises:
        MemoryConfigurationError: at least one value is wrong. The text names each such variable, what it
            holds unless that may be a secret, and what is allowed.
    """
    found = given(config_type, environ)
    values = {field: _value(config_type, field, text) for field, text in found.texts.items()}
    try:
        return config_type.model_validate(values, strict=False)  # text is all that a variable can hold
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    # Raised out here, or pydantic's error would come along as context, and may repeat a piece of a secret.
    raise MemoryConfigurationError(_explain(config_type, found, problems, _said_of_any(config_type, found)))


def _said_of_any(config_type: type[Settings], found: Given) -> set[str]:
    """What is wrong with the same settings, whatever their secrets are: it can be shown."""
    texts = {
        field: disguised(text) if _is_hidden(config_type, field, text) else text for field, text in found.texts.items()
    }
    try:
        config_type.model_validate(
            {field: _value(config_type, field, text) for field, text in texts.items()}, strict=False
        )
    except ValidationError as error:
        return {_wording(problem) for problem in error.errors(include_url=False, include_input=False)}
    return set()


def _is_hidden(config_type: type[Settings], field: str, text: str) -> bool:
    return is_secret(config_type.model_fields[field]) or has_credentials(text)


def _wording(problem: ErrorDetails) -> str:
    return problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _value(config_type: type[Settings], field: str, text: str) -> str | None:
    says_none = text.strip().lower() == "none" and takes_none(config_type.model_fields[field])
    return None if says_none else text


def _explain(config_type: type[Settings], found: Given, problems: Sequence[ErrorDetails], said_of_any: set[str]) -> str:
    """One part of a sentence for each field that is wrong."""
    hidden = [text for field, text in found.texts.items() if _is_hidden(config_type, field, text)]
    messages: dict[str, list[str]] = {}
    for problem in problems:
        said = _wording(problem)
        unsafe = said not in said_of_any and any(repeats_secret(said, text) for text in hidden)
        field = str(problem["loc"][0]) if problem["loc"] else ""
        messages.setdefault(field, []).extend([] if unsafe else [said])
    return "; ".join(_sentence(config_type, found, field, said) for field, said in messages.items())


def _sentence(config_type: type[Settings], found: Given, field: str, messages: Sequence[str]) -> str:
    said = "".join(f" ({message[:1].lower()}{message[1:]})" for message in dict.fromkeys(messages))
    if field not in config_type.model_fields:
        return "contradiction in " + ", ".join(sorted(name for name, _ in found.values())) + said
    info = config_type.model_fields[field]
    if field not in found:
        return f"{variables(config_type)[field][0]} is not set; allowed: {allowed(info)}{said}"
    variable, text = found[field]
    return f"{variable} holds {shown(info, text)}; allowed: {allowed(info)}{said}"
