"""Plugins as they are found out there: real distributions in a fresh environment, most of them broken.

Every test runs a process of its own in that environment; `distributions/` has what is installed there.
"""

import pytest

LOAD = """
import json, sys
from jaf_memory_core import MemoryConfigurationError, registry

names = {names!r}
answer = {{}}
try:
    if {plugins!r}:
        loaded = registry.load_plugins(names)
        answer["processors"] = len(loaded.processors)
        answer["observers"] = len(loaded.observers)
    else:
        answer["spec"] = [registry.load(name).name for name in names]
except MemoryConfigurationError as error:
    answer |= {{key: getattr(error, key) for key in ("provider", "distribution", "version", "install")}}
    answer["error"] = str(error)
    answer["cause"] = type(error.__cause__).__name__
answer["imported"] = sorted(name for name in sys.modules if name.startswith(("acme", "jaf_memory_redis")))
print(json.dumps(answer))
"""


@pytest.fixture
def load(house):
    """Load providers, or plugins, by their names, and tell what came of it."""

    def run(*names, plugins=False, path=()):
        return house.run(LOAD.format(names=names, plugins=plugins), path=path)

    return run


@pytest.fixture
def probe(house):
    """Probe a provider."""

    def run(name, timeout=30.0):
        return house.run(
            "import dataclasses, json\nfrom jaf_memory_cli.probe import probe\n"
            f"print(json.dumps(dataclasses.asdict(probe({name!r}, timeout={timeout}))))"
        )

    return run


def test_in_memory_comes_through_the_same_entry_point(house):
    """The in-memory provider is an entry point of the core's own distribution, as any other is of its plugin's."""
    listed = house.run(
        "import dataclasses, json\nfrom jaf_memory_core.registry import installed\n"
        "print(json.dumps([dataclasses.asdict(one) for one in installed()]))"
    )
    (memory,) = [one for one in listed if one["name"] == "memory"]
    assert memory["distribution"] == "jaf-memory-core"
    assert memory["value"] == "jaf_memory_core.backends.in_memory"
    assert {one["name"] for one in listed} >= {"good", "broken", "redis"}


def test_only_the_named_plugin_is_imported(load):
    """Loading one provider imports its plugin and no other, so that broken ones beside it do no harm."""
    assert load("good") == {"spec": ["good"], "imported": ["acme_good"]}
    assert load("memory") == {"spec": ["memory"], "imported": []}


def test_unknown(load):
    """A name that nobody offers is refused with the nearest one, and with all that is installed."""
    answer = load("godo")
    assert "there is no memory provider 'godo'; did you mean 'good'?" in answer["error"]
    assert "'memory' (jaf-memory-core " in answer["error"]
    assert "'broken' (acme-broken 1.5)" in answer["error"]
    assert answer["install"] is None
    assert answer["provider"] == "godo"
    assert answer["imported"] == []


def test_capitals_are_taken_for_a_slip(load):
    """A name in capitals is not accepted, but the right one is suggested."""
    assert "did you mean 'good'?" in load("GOOD")["error"]


def test_a_url_for_a_name_is_not_repeated(load):
    """A connection string in the place of a name does not get into the error."""
    answer = load("redis://user:hunter2@host")
    assert "there is no memory provider a value with credentials (not shown)" in answer["error"]
    assert "hunter2" not in str(answer["error"])


def test_ours_but_not_installed(load):
    """One of our own providers that is not installed is refused with the command that installs it."""
    answer = load("postgres")
    assert answer["install"] == 'pip install "jaf-memory-core[postgres]"'
    assert "the memory provider 'postgres' is not installed; to install it: pip install" in answer["error"]
    assert "(installed: " in answer["error"]


def test_the_driver_of_ours_is_missing(load):
    """One of our own without its driver names the module, the distribution and the command that installs it."""
    answer = load("redis")
    assert "'redis' (jaf-memory-redis 0.1.0)" in answer["error"]
    assert "it needs the module 'redis', which is not installed" in answer["error"]
    assert (answer["distribution"], answer["version"]) == ("jaf-memory-redis", "0.1.0")
    assert answer["install"] == 'pip install "jaf-memory-core[redis]"'
    assert answer["install"] in answer["error"]
    assert answer["cause"] == "ModuleNotFoundError"


def test_the_driver_of_a_third_party_is_missing(load):
    """A third party's plugin without its driver names the module and the distribution, but no command."""
    answer = load("driverless")
    assert "'driverless' (acme-driverless 1.0)" in answer["error"]
    assert "it needs the module 'acme_driver', which is not installed" in answer["error"]
    assert answer["install"] is None
    assert "pip" not in answer["error"]


def test_a_driver_that_is_imported_late_is_missing(house):
    """A driver that is missed only when the provider is created is the same error as at import."""
    answer = house.run(
        "import asyncio, json\nfrom jaf_memory_core import MemoryConfigurationError\n"
        "from jaf_memory_core.factory import create_memory_provider\n"
        "try:\n    asyncio.run(create_memory_provider('late'))\n"
        "except MemoryConfigurationError as error:\n    print(json.dumps(str(error)))"
    )
    assert "'late' (acme-late 1.0) does not load: it needs the module 'acme_driver" in answer


@pytest.mark.parametrize(
    ("name", "cause", "said"),
    [
        ("broken", "RuntimeError", "RuntimeError: acme: the flux is not compensated"),
        ("half", "ImportError", "cannot import name 'missing_half'"),
        ("nowhere", "ImportError", "cannot import name 'missing_half'"),
        ("incomplete", "ValueError", "give exactly one of backend and create"),
        ("raising", "LookupError", "does not load: LookupError"),
        ("quit", "SystemExit", "SystemExit: acme has had enough"),
    ],
)
def test_broken(load, name, cause, said):
    """A plugin that fails as it loads is refused with its distribution and version, and the failure as cause."""
    answer = load(name)
    assert said in answer["error"]
    assert answer["cause"] == cause
    assert f"{name!r} ({answer['distribution']} {answer['version']})" in answer["error"]
    assert "hunter2" not in answer["error"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unmarked", "implements none of jaf_memory_provider; its jaf_memory_provider lacks the mark @hookimpl"),
        ("misspelt", "unknown hook 'jaf_memory_provder'"),
        ("signature", "Argument(s) {'environment'}"),
        ("none", "its jaf_memory_provider returns NoneType, not a ProviderSpec"),
        ("misnamed", "its entry point is called 'misnamed', but its ProviderSpec 'somebody-else'"),
    ],
)
def test_what_pluggy_and_we_refuse(load, name, said):
    """A plugin without a valid hook, or with another provider than its entry point says, is refused by name."""
    answer = load(name)
    assert said in answer["error"]
    assert f"the plugin {name!r} (acme-wrong 1.0) does not load" in answer["error"]


def test_a_newer_plugin(load):
    """A plugin for a newer plugin API says that the core must be upgraded, and how."""
    answer = load("newer")
    assert "it was built for plugin API 99, and jaf-memory-core " in answer["error"]
    assert "upgrade jaf-memory-core" in answer["error"]
    assert answer["install"] == "pip install --upgrade jaf-memory-core"


def test_an_older_plugin(load):
    """A plugin for an older plugin API says that the plugin must be upgraded."""
    answer = load("older")
    assert "it was built for plugin API 0" in answer["error"]
    assert "upgrade acme-wrong" in answer["error"]
    assert answer["install"] is None


def test_an_older_plugin_of_ours(load):
    """One of our own for an older plugin API comes with the command that upgrades it."""
    answer = load("sqlite")
    assert "upgrade jaf-memory-sqlite" in answer["error"]
    assert answer["install"] == 'pip install --upgrade "jaf-memory-core[sqlite]"'


def test_two_distributions_for_one_name(load):
    """A name that two distributions claim is refused with both, and neither is imported."""
    answer = load("twin")
    assert "two distributions claim the memory provider 'twin': " in answer["error"]
    assert "acme-other-twin 3.0 and acme-twin 2.0" in answer["error"]
    assert answer["imported"] == []


def test_nobody_shadows_ours(load, another):
    """A third party that claims the name of an installed one does not replace it, wherever on the path it is."""
    path = [another("acme-impostor", module="acme_good", providers={"memory": "acme_good"})]
    answer = load("memory", path=path)
    assert "acme-impostor 1.0 and jaf-memory-core " in answer["error"]
    assert answer["imported"] == []


def test_a_distribution_that_is_there_twice_is_one(load, house, another):
    """The same distribution twice on the path counts once, as imports have it, whatever way its name is spelt."""
    path = [another("acme.good", module="acme_good", version="2.0", providers={"good": "acme_good"})]
    assert load("good", path=path)["spec"] == ["good"]
    listed = "import json\nfrom jaf_memory_core.registry import find\nprint(json.dumps(find('good').version))"
    assert house.run(listed, path=path) == "2.0"
    assert house.run(listed) == "1.0"


def test_the_remains_of_an_uninstall_count_for_nothing(load, tmp_path):
    """A metadata folder without metadata, as an interrupted uninstall leaves it, offers nothing and harms nothing."""
    remains = tmp_path / "acme_gone-1.0.dist-info"
    remains.mkdir()
    (remains / "entry_points.txt").write_text("[jaf.memory.providers]\ngood = acme_gone\ngone = acme_gone\n")
    assert load("good", path=[tmp_path])["spec"] == ["good"]
    assert "there is no memory provider 'gone'" in load("gone", path=[tmp_path])["error"]


@pytest.mark.parametrize(
    "content",
    [b"[jaf.memory.providers]\ntorn\n", b"[x]\na = \xff\n", b"[jaf.memory.providers]\ntorn = a b !\n"],
    ids=["no value", "no text", "no module"],
)
@pytest.mark.parametrize("metadata", ["Name: acme-torn\nVersion: 1\n", "Summary: no name\n"])
def test_torn_metadata_hides_nothing(load, tmp_path, content, metadata):
    """A distribution whose metadata cannot be read does no harm to others, and what it claims is an error."""
    torn = tmp_path / "acme_torn-1.dist-info"
    torn.mkdir()
    (torn / "entry_points.txt").write_bytes(content)
    (torn / "METADATA").write_text(metadata)
    assert load("good", "memory", path=[tmp_path])["spec"] == ["good", "memory"]
    assert "'torn'" in load("torn", path=[tmp_path])["error"]


def test_plugins_in_their_order(load):
    """Cross-cutting plugins offer processors and observers, and only those that are named are imported."""
    assert load("exclaim", "watch", "shout", plugins=True) == {
        "processors": 2,
        "observers": 1,
        "imported": ["acme_plugins"],
    }
    assert load(plugins=True) == {"processors": 0, "observers": 0, "imported": []}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shuot", "there is no plugin 'shuot'; did you mean 'shout'?"),
        ("broken", "RuntimeError: acme: the flux is not compensated"),
        ("single", "its jaf_memory_processors does not return a list of processors"),
        ("mixed", "its jaf_memory_observers does not return a list of observers"),
        ("good", "implements none of jaf_memory_processors, jaf_memory_observers"),
        ("watch", "the plugin 'watch' is named twice"),
        ("redis", "there is no plugin 'redis' (installed: "),
    ],
)
def test_a_plugin_that_fails_stops_the_start(load, name, said):
    """A cross-cutting plugin that is missing, broken or offers nothing is an error, never skipped."""
    answer = load("watch", name, plugins=True)
    assert said in answer["error"]
    assert "processors" not in answer


def test_probe_of_a_good_one(probe):
    """A probe tells that a provider loads, and what it says of itself."""
    assert probe("good") == {"ok": True, "error": None, "summary": "a good one"}


def test_probe_reads_its_own_answer_only(probe):
    """What a plugin writes to standard output does not confuse the probe."""
    assert probe("chatter")["ok"] is True


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "the flux is not compensated"),
        ("absent", "there is no memory provider 'absent'"),
        ("crash", "ended Python with status 7"),
    ],
)
def test_probe_of_a_bad_one(probe, name, said):
    """A probe survives a plugin that is broken, missing or ends Python, and says which."""
    answer = probe(name)
    assert answer["ok"] is False
    assert said in answer["error"]


def test_probe_of_one_that_hangs(probe):
    """A probe ends after its time-out, whatever the plugin does."""
    answer = probe("hang", timeout=3.0)
    assert answer["ok"] is False
    assert "takes more than 3 s" in answer["error"]
