"""A bridge without its engine says what to install."""

import importlib
import re
import sys
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ENGINES = {
    "jaf": ("jaf", "jaf-py"),
    "openai-agents": ("agents", "openai-agents"),
    "langchain": ("langchain_core", "langchain-core"),
    "pydantic-ai": ("pydantic_ai", "pydantic-ai-slim"),
    "adk": ("google.adk", "google-adk"),
}
"""Extra → the engine's module, and its distribution."""


@pytest.fixture
def reload(monkeypatch):
    """Imports a bridge again, as in a new process."""

    def reload(name):
        name = name.replace("-", "_")
        for loaded in [one for one in sys.modules if one.startswith(f"jaf_memory_bridges.{name}")]:
            monkeypatch.delitem(sys.modules, loaded)
        return importlib.import_module(f"jaf_memory_bridges.{name}")

    return reload


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_is_missing(name, reload, monkeypatch):
    """Without its engine, importing a bridge fails with the command that installs it."""
    module, distribution = ENGINES[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        reload(name)
    bridge = f"jaf_memory_bridges.{name.replace('-', '_')}"
    command = f'pip install "jaf-memory-bridges[{name}]"'
    assert str(caught.value) == f"{bridge} needs {distribution}, which is not installed: {command}"
    assert caught.value.name == module


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_is_another_version(name, reload, monkeypatch):
    """With a version of its engine that it was not made for, importing a bridge fails, and says which it needs."""
    module, distribution = ENGINES[name]
    monkeypatch.setattr(util, "find_spec", lambda _name: object())
    monkeypatch.setattr(metadata, "distributions", lambda **_: iter([SimpleNamespace(version="0.0.1")]))
    with pytest.raises(ModuleNotFoundError, match=rf"needs {distribution} .* not 0\.0\.1: pip install") as caught:
        reload(name)
    assert caught.value.name == module


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_is_an_extra(name):
    """The distribution needs the core only; each engine is an extra, in the versions that its bridge takes."""
    required = [Requirement(text) for text in metadata.requires("jaf-memory-bridges") or ()]
    always = {one.name for one in required if one.marker is None}
    _, distribution = ENGINES[name]
    (extra,) = (one for one in required if one.marker is not None and one.marker.evaluate({"extra": name}))
    assert (always, extra.name) == ({"jaf-memory-core"}, distribution)
    bridge = util.find_spec(f"jaf_memory_bridges.{name.replace('-', '_')}").origin
    (versions,) = re.findall(r'versions="([^"]+)"', Path(bridge).read_text(encoding="utf-8"))
    assert extra.specifier == SpecifierSet(versions)
