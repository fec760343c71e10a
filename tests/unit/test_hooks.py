"""What a plugin may say of its provider."""

import dataclasses

import pluggy
import pytest

from jaf_memory_core import hooks
from jaf_memory_core.hooks import PLUGIN_API, ProviderSpec, ReaderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig

GOOD = {"name": "files", "config": ProviderConfig, "backend": object, "persistence": "Kept in files."}


def test_a_good_one():
    """A description is frozen, and says what it was given."""
    spec = ProviderSpec(**GOOD)
    assert spec.create is None
    assert spec.persistence_of(ProviderConfig()) == "Kept in files."
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


def test_persistence_may_depend_on_the_configuration():
    """Where the settings decide how durable a provider is, a function of them may say it."""
    spec = ProviderSpec(**{**GOOD, "persistence": lambda config: f"For {config.ttl:g} s."})
    assert spec.persistence_of(ProviderConfig(ttl=5)) == "For 5 s."


def test_silence_means_the_first_api():
    """A plugin that names no API was written for the first, whichever one the installed core has."""
    (field,) = [field for field in dataclasses.fields(ProviderSpec) if field.name == "api"]
    assert field.default == 1
    assert isinstance(PLUGIN_API, int)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"config": dict}, TypeError),
        ({"config": ProviderConfig()}, TypeError),
        ({"backend": None}, ValueError),
        ({"create": object}, ValueError),
        ({"backend": "files"}, TypeError),
        ({"name": ""}, ValueError),
        ({"persistence": ""}, ValueError),
        ({"api": "1"}, TypeError),
    ],
)
def test_a_wrong_one(change, error):
    """A description that could not work is refused where it is made, in the plugin."""
    with pytest.raises(error, match="ProviderSpec: "):
        ProviderSpec(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": ""}, ValueError),
        ({"read": "file"}, TypeError),
        ({"source": "url"}, ValueError),
        ({"api": "1"}, TypeError),
    ],
)
def test_a_wrong_reader(change, error):
    """A description of a reader that could not work is refused where it is made, too."""
    assert ReaderSpec("notes", read=iter).source == "file"
    with pytest.raises(error, match="ReaderSpec: "):
        ReaderSpec(**{"name": "notes", "read": iter, **change})


def test_every_hook_is_described():
    """Each hook has a docstring that says when it is called and what it returns: that is its contract."""
    manager = pluggy.PluginManager("jaf_memory")
    manager.add_hookspecs(hooks)
    specified = [name for name in vars(hooks) if name.startswith("jaf_memory_")]
    assert [name.removeprefix("jaf_memory_") for name in sorted(specified)] == [
        "observers",
        "processors",
        "provider",
        "reader",
    ]
    for name in specified:
        assert "Returns:" in getattr(hooks, name).__doc__
        assert "alled at each start" in getattr(hooks, name).__doc__
        assert getattr(manager.hook, name).spec is not None


def test_the_mark_is_pluggy_s():
    """A function that `hookimpl` marks is found by pluggy's manager of the project."""

    class Plugin:
        @hookimpl
        def jaf_memory_provider(self):
            return ProviderSpec(**GOOD)

    manager = pluggy.PluginManager("jaf_memory")
    manager.add_hookspecs(hooks)
    manager.register(Plugin())
    manager.check_pending()
    assert manager.hook.jaf_memory_provider().name == "files"
