"""Settings in code, and as they are read from variables."""

import logging
import pickle
import time
import traceback
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import CoreSettings, ProviderConfig, Settings, load, variables
from jaf_memory_core.settings.errors import has_credentials


class StoreConfig(ProviderConfig):
    """Settings as a provider over a network has them."""

    env_prefix: ClassVar[str] = "JAF_STORE_"
    env_older_names: ClassVar[dict[str, str]] = {"JAF_STORE_DB": "database", "JAF_STORE_NAME": "database"}

    url: SecretStr | None = None
    """Where the store is; wins over host and port."""

    host: str = Field("localhost", min_length=1)
    """Host name."""

    port: int = Field(5432, ge=1, le=65_535)
    """TCP port."""

    password: SecretStr | None = Field(None, min_length=2)
    """Password of the user."""

    database: str = Field("jaf_memory", pattern="^[a-z_]+$")
    """Name of the database."""

    ssl: bool | None = None
    """Whether to use TLS."""

    mode: Literal["fast", "safe"] = "safe"
    """How it writes."""

    hosts: tuple[str, ...] = ()
    """More hosts, separated by commas."""

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value):
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("url", "password")
    @classmethod
    def _parse(cls, value):
        if value and "broken" in value.get_secret_value():
            raise ValueError(f"cannot parse the port {value.get_secret_value()[9:20]!r}")
        if value and "old" in value.get_secret_value():
            raise ValueError("this form is not supported any longer")
        return value

    @model_validator(mode="after")
    def _agree(self):
        if self.ssl is False and self.url and "require" in self.url.get_secret_value():
            raise ValueError("ssl is false, but the URL asks for TLS")
        return self


def refusal(environ, config_type=StoreConfig):
    """Return the text of the error that loading raises."""
    with pytest.raises(MemoryConfigurationError) as caught:
        load(config_type, environ)
    return str(caught.value)


def test_defaults():
    """Without variables, a configuration is what it is in code without arguments."""
    assert load(StoreConfig, {}) == StoreConfig()
    assert StoreConfig().operation_timeout == 30
    assert StoreConfig().max_message_bytes == 16 * 1024**2
    assert StoreConfig().max_call_bytes == 64 * 1024**2


def test_every_kind_of_value():
    """Text becomes what each field wants: numbers, flags, choices, secrets, lists with commas."""
    environ = {
        "JAF_STORE_OPERATION_TIMEOUT": "2.5",
        "JAF_STORE_PORT": " 6379 ",
        "JAF_STORE_SSL": "true",
        "JAF_STORE_MODE": "fast",
        "JAF_STORE_PASSWORD": "hunter2",
        "JAF_STORE_HOSTS": "one:1,two:2",
        "JAF_STORE_HOST": "none",
    }
    assert load(StoreConfig, environ) == StoreConfig(
        operation_timeout=2.5,
        port=6379,
        ssl=True,
        mode="fast",
        password=SecretStr("hunter2"),
        hosts=("one:1", "two:2"),
        host="none",
    )


def test_none_is_a_word_for_no_limit():
    """A number that may be absent can be unset by the word `none`, whatever its default."""

    class Capped(ProviderConfig):
        env_prefix: ClassVar[str] = "JAF_CAPPED_"
        max_messages: int | None = 1000

    assert load(Capped, {}).max_messages == 1000
    assert load(Capped, {"JAF_CAPPED_MAX_MESSAGES": "None"}).max_messages is None
    assert "holds 'none'" in refusal({"JAF_STORE_PORT": "none"})


def test_empty_counts_as_unset():
    """An empty variable is no value, so the default holds, or an older name."""
    environ = {"JAF_STORE_PORT": "", "JAF_STORE_DATABASE": "", "JAF_STORE_DB": "older"}
    assert load(StoreConfig, environ) == StoreConfig(database="older")


@pytest.mark.parametrize(
    ("environ", "database"),
    [
        ({"JAF_STORE_DB": "older"}, "older"),
        ({"JAF_STORE_NAME": "oldest"}, "oldest"),
        ({"JAF_STORE_DB": "older", "JAF_STORE_NAME": "oldest"}, "older"),
        ({"JAF_STORE_DB": "older", "JAF_STORE_DATABASE": "newer"}, "newer"),
    ],
)
def test_older_names(environ, database):
    """An older name is read where the newer one is unset, and the newer one wins."""
    assert load(StoreConfig, environ).database == database


def test_names_of_variables():
    """A field's variable is the prefix and the field's name in capitals, and its older names come after."""
    assert variables(StoreConfig)["database"] == ("JAF_STORE_DATABASE", "JAF_STORE_DB", "JAF_STORE_NAME")
    assert variables(StoreConfig)["ttl"] == ("JAF_STORE_TTL",)


def test_case_counts():
    """A variable in small letters is another variable."""
    assert load(StoreConfig, {"jaf_store_port": "1", "JAF_STORE_port": "1"}) == StoreConfig()


def test_only_a_given_environment_is_read(monkeypatch):
    """Variables that are handed over replace those of the process; without any, those of the process are read."""
    monkeypatch.setenv("JAF_STORE_PORT", "1")
    assert load(StoreConfig, {}).port == 5432
    assert load(StoreConfig).port == 1


def test_code_never_reads_the_environment(monkeypatch):
    """A configuration that is built in code has its defaults, whatever the environment holds."""
    monkeypatch.setenv("JAF_STORE_PORT", "1")
    monkeypatch.setenv("port", "2")
    assert StoreConfig().port == 5432


def test_no_file_is_read(tmp_path, monkeypatch):
    """A .env file in the current folder changes nothing."""
    (tmp_path / ".env").write_text("JAF_STORE_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    assert load(StoreConfig) == StoreConfig()


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("PORT", "many", "a whole number, at least 1, at most 65535"),
        ("PORT", "0", "a whole number, at least 1, at most 65535"),
        ("PORT", "1.5", "a whole number"),
        ("TTL", "0", "a number, above 0, at most 3155760000, or none"),
        ("TTL", "nan", "a number"),
        ("OPERATION_TIMEOUT", "inf", "a number, above 0, at most 86400"),
        ("SSL", "perhaps", "true or false"),
        ("MODE", "slow", "'fast' or 'safe'"),
        ("MAX_NESTING", "201", "at most 200"),
        ("MAX_INTEGER_DIGITS", "5000", "at most 4300"),
        ("DATABASE", "My DB", "text, of the form ^[a-z_]+$"),
        ("DB", "My DB", "text, of the form ^[a-z_]+$"),
    ],
)
def test_a_wrong_value_names_its_variable(variable, text, allowed):
    """A wrong value is refused with the variable that it came from, what it holds and what is allowed."""
    said = refusal({f"JAF_STORE_{variable}": text})
    assert said.startswith(f"JAF_STORE_{variable} holds {text!r}; allowed: ")
    assert allowed in said


def test_all_wrong_values_come_at_once():
    """One error names every variable that is wrong, and no other."""
    said = refusal({"JAF_STORE_PORT": "x", "JAF_STORE_TTL": "y", "JAF_STORE_HOST": "fine"})
    assert "JAF_STORE_PORT holds 'x'" in said
    assert "JAF_STORE_TTL holds 'y'" in said
    assert "fine" not in said


def test_a_required_setting_is_asked_for():
    """A field without a default is asked for by its variable."""

    class Needy(ProviderConfig):
        env_prefix: ClassVar[str] = "JAF_NEEDY_"
        token: SecretStr

    assert refusal({}, Needy).startswith("JAF_NEEDY_TOKEN is not set; allowed: text")


def test_a_contradiction_names_what_is_set():
    """Settings that contradict each other are refused with the variables that are set and the reason."""
    said = refusal({"JAF_STORE_SSL": "false", "JAF_STORE_URL": "store://user:pw@host?sslmode=require"})
    assert said == ("contradiction in JAF_STORE_SSL, JAF_STORE_URL (ssl is false, but the URL asks for TLS)")


SECRETS = {
    "a secret": ("JAF_STORE_PASSWORD", "broken-hunter-2"),
    "a short secret": ("JAF_STORE_PASSWORD", "x"),
    "a URL in a secret": ("JAF_STORE_URL", "store://:broken/hunter#2@host:1/db"),
    "a URL that is percent-encoded": ("JAF_STORE_URL", "store://u:broken%2Fhunter@host"),
    "a URL in the wrong variable": ("JAF_STORE_PORT", "store://user:hunter@host"),
    "a token in the wrong variable": ("JAF_STORE_TTL", "redis://hunter@host:6379"),
    "a DSN in the wrong variable": ("JAF_STORE_DATABASE", "host=db password=hunter"),
}


@pytest.mark.parametrize("case", SECRETS)
def test_no_error_shows_a_secret(case):
    """A wrong secret is refused by its variable, and no piece of it is in the error or anything chained to it."""
    variable, text = SECRETS[case]
    with pytest.raises(MemoryConfigurationError) as caught:
        load(StoreConfig, {variable: text})
    everything = "".join(traceback.format_exception_only(type(caught.value), caught.value))
    assert variable in everything
    assert "hunter" not in everything
    assert "broken" not in everything
    assert "not shown" in everything
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_harmless_message_about_a_secret_is_shown():
    """A message about a secret that repeats nothing of it reaches the user."""
    assert "this form is not supported any longer" in refusal({"JAF_STORE_URL": "store://bold:bold@host"})


@pytest.mark.parametrize("text", ["store://store:store@host", "store://longer@host", "store://this:form%20is@host"])
def test_a_hint_is_not_withheld_for_words_that_it_shares_with_a_secret(text):
    """What would be said whatever the secret is tells nothing of it, and is shown."""
    assert "this form is not supported any longer" in refusal({"JAF_STORE_URL": text.replace("store://", "bold://", 1)})


def test_a_hint_that_repeats_a_secret_is_withheld_in_any_form():
    """What is said of this secret only is not shown: not whole, not cut, not percent-encoded."""

    class Telling(Settings):
        env_prefix = "JAF_TELLING_"
        url: SecretStr

        @field_validator("url")
        @classmethod
        def _tells(cls, value):
            text = value.get_secret_value()
            raise ValueError(f"no port: {text[text.rindex(':') :][:6]!r}; write store:// first")

    for text in (
        "store://u:hunter2@h",
        "u:hunter2",
        "store://u:%68unter2@h",
        "store://h/d?password=hunter2&port=:hunter2",
    ):
        said = refusal({"JAF_TELLING_URL": text}, Telling)
        assert "unt" not in said
        assert "68" not in said


@pytest.mark.parametrize(
    "text",
    [
        "store:/u:hunter2@h",
        "store:///u:hunter2@h",
        "u:hunter2@h",
        "see store://u:hunter2@h.",
        "jdbc:store:/u:hunter2@h",
        "store://u:very hunter2@h",
    ],
)
def test_what_was_a_url_once_is_not_shown(text):
    """A URL that somebody has taken for a path, or written without its scheme, holds the same password."""
    assert has_credentials(text)
    assert "hunter2" not in refusal({"JAF_STORE_PORT": text})


@pytest.mark.parametrize("text", ["C:/data/x.db", "/data/a:b.db", "10:30", "a@b.c", "user@host", "12:5@", "x:y"])
def test_other_texts_are_shown(text):
    """What cannot hold a password is shown: a hidden value helps nobody."""
    assert not has_credentials(text)


@pytest.mark.parametrize("piece", ["9", "://", ":/", "a:b", "x@", "password "])
def test_a_long_value_is_cut(piece):
    """A value of any length makes an error of one readable line, and soon."""
    began = time.perf_counter()
    assert len(refusal({"JAF_STORE_PORT": piece * (100_000 // len(piece))})) < 400
    assert time.perf_counter() - began < 5


def test_representations_hide_secrets():
    """Neither `repr` nor `str` of a configuration shows a secret, nor does what it raises in code."""
    config = StoreConfig(url=SecretStr("store://u:hunter2@host"), password=SecretStr("hunter2"))
    assert "hunter2" not in f"{config!r} {config} {config.model_dump()}"
    assert "hunter2" not in repr(StoreConfig(host="store://u:hunter2@h", hosts=("h", "u:hunter2@h")))
    assert "host='h'" in repr(StoreConfig(host="h"))
    with pytest.raises(ValidationError) as caught:
        StoreConfig(port="hunter2", hunter=2)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_messages": True},
        {"max_messages": "5"},
        {"max_messages": 5.0},
        {"max_messages": 0},
        {"operation_timeout": True},
        {"operation_timeout": 0},
        {"operation_timeout": float("nan")},
        {"operation_timeout": float("inf")},
        {"operation_timeout": 86_401},
        {"ttl": -1},
        {"ttl": 1e11},
        {"ttl": 10**400},
        {"max_nesting": 0},
        {"max_nesting": 201},
        {"max_integer_digits": 4_301},
        {"max_mesages": 5},
        {"ssl": "true"},
        {"ssl": 1},
    ],
)
def test_code_is_strict(wrong):
    """In code, a value of another type, out of its bounds, or for a field that there is not, is refused."""
    with pytest.raises(ValidationError):
        StoreConfig(**wrong)


def test_the_longest_ttl_is_a_date():
    """The longest ttl added to now is still a datetime."""
    longest = StoreConfig(ttl=36_525 * 86_400).ttl
    assert datetime.now(UTC) + timedelta(seconds=longest)


def test_whole_seconds_are_fine():
    """A whole number is accepted where a number of seconds is wanted, as in the document."""
    assert StoreConfig(ttl=86_400).ttl == 86_400


def test_frozen_and_pickled():
    """A configuration cannot be changed, and survives pickling."""
    config = StoreConfig(port=1)
    with pytest.raises(ValidationError):
        config.port = 2
    assert pickle.loads(pickle.dumps(config)) == config


def test_core_settings():
    """The core reads the provider's name and the plugins in their order, blanks and empty places aside."""
    assert load(CoreSettings, {}) == CoreSettings(type="memory", plugins=())
    environ = {"JAF_MEMORY_TYPE": " redis ", "JAF_MEMORY_PLUGINS": " encrypt,, redact ,"}
    assert load(CoreSettings, environ) == CoreSettings(type="redis", plugins=("encrypt", "redact"))


@pytest.mark.parametrize("text", [",", " , ,"])
def test_commas_alone_name_no_plugin(text):
    """Whoever wrote that meant a name: a start without it would store past a redactor. Blanks count as unset."""
    with pytest.raises(MemoryConfigurationError, match=r"JAF_MEMORY_PLUGINS holds .*names no plugin"):
        load(CoreSettings, {"JAF_MEMORY_PLUGINS": text})
    assert load(CoreSettings, {"JAF_MEMORY_PLUGINS": "  "}).plugins == ()


@pytest.mark.parametrize("name", [" ", "a b", "redis://user:hunter2@host", "../up", "a\nb"])
def test_a_name_is_a_word(name):
    """What cannot be a provider's name is refused by its variable, unshown if it may hold a secret."""
    said = refusal({"JAF_MEMORY_TYPE": name}, CoreSettings)
    assert said.startswith("JAF_MEMORY_TYPE holds ")
    assert "hunter2" not in said


def test_loading_logs_nothing(caplog):
    """Loading settings writes nothing to any log."""
    with caplog.at_level(logging.DEBUG):
        load(StoreConfig, {"JAF_STORE_PASSWORD": "hunter2"})
    assert caplog.records == []
