"""What people are told about variables."""

from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from jaf_memory_core.backends.in_memory import InMemoryConfig
from jaf_memory_core.settings import CoreSettings, ProviderConfig
from jaf_memory_core.settings.environment import UnknownVariable, describe, doctor_notes, unknown_variables


class RedisConfig(ProviderConfig):
    """Settings as the Redis provider has them."""

    env_prefix: ClassVar[str] = "JAF_REDIS_"
    env_older_names: ClassVar[dict[str, str]] = {"JAF_REDIS_PREFIX": "key_prefix"}

    url: SecretStr | None = None
    """Where the server is."""

    host: str = "localhost"
    """Host name."""

    password: SecretStr = SecretStr("changeme")
    """Password."""

    key_prefix: str = "jaf:memory:"
    """What every key begins with."""

    hosts: tuple[str, ...] = Field(default_factory=lambda: ("one", "two"))

    def notes(self):
        """Warn of both."""
        return ["the URL wins over the host"] if {"url", "host"} <= self.model_fields_set else []


def rows(environ, config_type=RedisConfig):
    """Return the settings by their variables."""
    return {row.variable: row for row in describe(config_type, environ)}


def test_every_setting_has_a_row():
    """Each field has a row in the order of its class, with help, bounds and default."""
    found = describe(ProviderConfig, {})
    assert [row.field for row in found] == [*ProviderConfig.model_fields]
    assert all(row.help and row.source == "default" for row in found)
    timeout = found[0]
    assert (timeout.value_shown, timeout.default) == ("30", "30")
    assert timeout.help == ("Seconds within which every operation ends. Allowed: a number, above 0, at most 86400.")


def test_where_a_value_comes_from():
    """A row tells the variable that a value comes from, an older name as well."""
    found = rows({"JAF_REDIS_PREFIX": "old:", "JAF_REDIS_HOST": "cache"})
    assert (found["JAF_REDIS_KEY_PREFIX"].value_shown, found["JAF_REDIS_KEY_PREFIX"].source) == (
        "old:",
        "JAF_REDIS_PREFIX",
    )
    assert (found["JAF_REDIS_HOST"].value_shown, found["JAF_REDIS_HOST"].source) == ("cache", "JAF_REDIS_HOST")
    assert found["JAF_REDIS_URL"].value_shown == ""
    assert found["JAF_REDIS_HOSTS"].default == "(computed)"


def test_no_row_shows_a_secret():
    """Secrets are masked, defaults of secrets and credentials in other settings included."""
    found = describe(
        RedisConfig,
        {
            "JAF_REDIS_URL": "redis://hunter2@host",
            "JAF_REDIS_HOST": "redis://hunter2@host",
            "JAF_REDIS_TTL": "password=hunter2",
        },
    )
    assert "hunter2" not in str(found)
    assert "changeme" not in str(found)
    assert {row.value_shown for row in found if row.field in {"url", "host", "password", "ttl"}} == {"********"}


def test_a_wrong_value_has_a_row_too():
    """A wrong value is shown as it stands, so that `doctor` can list it beside its error."""
    assert rows({"JAF_REDIS_TTL": "soon"})["JAF_REDIS_TTL"].value_shown == "soon"


def test_notes_on_older_names():
    """A variable that is set beside its older name is noted, and no value with it."""
    environ = {"JAF_REDIS_PREFIX": "older", "JAF_REDIS_KEY_PREFIX": "newer"}
    assert doctor_notes(RedisConfig, environ) == [
        "JAF_REDIS_KEY_PREFIX is set, and JAF_REDIS_PREFIX too: the first one counts."
    ]
    assert doctor_notes(RedisConfig, {"JAF_REDIS_PREFIX": "older", "JAF_REDIS_KEY_PREFIX": ""}) == []


def test_notes_of_a_configuration():
    """A configuration's own notes are among them, as far as the settings are valid."""
    both = {"JAF_REDIS_URL": "redis://h", "JAF_REDIS_HOST": "h"}
    assert doctor_notes(RedisConfig, both) == ["the URL wins over the host"]
    assert doctor_notes(RedisConfig, {**both, "JAF_REDIS_TTL": "soon"}) == []
    assert doctor_notes(CoreSettings, {}) == []


def test_good_variables_are_known():
    """No variable of the core, of the selected provider, or an older name of one, is unknown."""
    environ = {
        "JAF_MEMORY_TYPE": "redis",
        "JAF_MEMORY_PLUGINS": "",
        "JAF_MEMORY_MAX_CONVERSATIONS": "5",
        "JAF_REDIS_PREFIX": "p",
        "JAF_REDIS_TTL": "5",
        "PATH": "/bin",
        "MY_JAF_THING": "1",
    }
    assert unknown_variables(environ, "redis", RedisConfig) == []


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("JAF_REDIS_HSOT", "JAF_REDIS_HOST"),
        ("JAF_REDIS_PASWORD", "JAF_REDIS_PASSWORD"),
        ("JAF_REDDIS_URL", "JAF_REDIS_URL"),
        ("JAF_MEMORY_TPYE", "JAF_MEMORY_TYPE"),
        ("JAF_MEMROY_TYPE", "JAF_MEMORY_TYPE"),
        ("JAF_MEMORY_MAX_MESSAGE", "JAF_MEMORY_MAX_MESSAGES"),
        ("jaf_redis_url", "JAF_REDIS_URL"),
        ("JAF_REDIS_FLUX", None),
        ("JAF_FLUX", None),
    ],
)
def test_misspelt_variables(name, suggestion):
    """A variable that nothing reads is found, with the one that was meant if any is like it."""
    assert unknown_variables({name: "x"}, "redis", RedisConfig) == [UnknownVariable(name, suggestion)]


def test_other_providers_keep_their_variables():
    """Variables of our own and of installed providers that are not selected are left alone."""
    environ = {"JAF_SQLITE_PHAT": "1", "JAF_POSTGRES_X": "2", "JAF_REDIS_X": "3", "JAF_MY_FILES_DIR": "4"}
    assert unknown_variables(environ, "memory", InMemoryConfig, ["memory", "my-files"]) == []
    assert [one.name for one in unknown_variables(environ, "redis", RedisConfig)] == [
        "JAF_MY_FILES_DIR",
        "JAF_REDIS_X",
    ]


def test_the_longest_prefix_decides():
    """A provider whose name begins like the selected one's keeps its variables."""
    environ = {"JAF_REDIS_STREAMS_X": "1", "JAF_REDIS_X": "2"}
    found = unknown_variables(environ, "redis", RedisConfig, ["redis", "redis-streams"])
    assert [one.name for one in found] == ["JAF_REDIS_X"]


def test_the_core_s_variables_are_looked_at_whatever_is_selected():
    """A misspelt `JAF_MEMORY_…` is found though another provider is selected and `memory` is installed."""
    found = unknown_variables({"JAF_MEMORY_PLUGIN": "redact"}, "redis", RedisConfig, ["memory", "redis"])
    assert found == [UnknownVariable("JAF_MEMORY_PLUGIN", "JAF_MEMORY_PLUGINS")]
