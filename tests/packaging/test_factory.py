"""From the environment to an open provider, in the environment and with the distributions of conftest.py."""

import asyncio

import pytest

from jaf_memory_core import (
    MemoryConfigurationError,
    create_memory_provider_from_env,
    get_memory_provider_info,
    test_memory_provider_connection,
)

PRELUDE = """
import asyncio, json, logging, os, sys
from jaf_memory_core import BackendProvider, MemoryError, MemoryQuery, Message, ProviderConfig, factory
from jaf_memory_core.factory import *
from jaf_memory_core.factory import test_memory_provider_connection

class Notes(logging.Handler):
    def emit(self, record):
        notes.append(f"{record.levelname}: {record.getMessage()}")

notes = []
logging.getLogger("jaf_memory_core").addHandler(Notes())

def answer(work):
    try:
        found = asyncio.run(work) if hasattr(work, "send") else work()
    except MemoryError as error:
        found = {"error": str(error), "kind": type(error).__name__}
    imported = sorted(name for name in sys.modules if name.startswith("acme"))
    print(json.dumps({"found": found, "notes": notes, "imported": imported}))
"""

STORE = """
async def work():
    provider = await create_memory_provider_from_env()
    await provider.store_messages("chat", [Message(role="user", content="hello")], {"topic": "greeting"})
    (message,) = await provider.get_recent_messages("chat")
    kind = type(provider).__name__
    if not factory.missing_methods(provider):
        await provider.close()
    return {"kind": kind, "content": message.content, "missing": factory.missing_methods(provider)}

answer(work())
"""


@pytest.fixture
def run(house):
    """Run a program in the fresh environment, with these variables; it ends in `answer(...)`."""

    def start(program, **environ):
        return house.run(PRELUDE + program, environ)

    return start


def test_in_memory_is_the_default(run):
    """With no variable at all, the provider is the in-memory one, open and complete."""
    answer = run(STORE)
    assert answer["found"] == {"kind": "BackendProvider", "content": "hello", "missing": []}
    assert answer["notes"] == []
    assert answer["imported"] == []


def test_a_plugin_by_its_name(run):
    """`JAF_MEMORY_TYPE` chooses an installed provider, and only its plugin is imported."""
    answer = run(STORE, JAF_MEMORY_TYPE="good")
    assert answer["found"]["content"] == "hello"
    assert answer["imported"] == ["acme_good"]


@pytest.mark.parametrize(("name", "made"), [("six", "by a coroutine"), ("six-plain", "by a function")])
def test_six_methods_are_a_full_citizen(run, name, made):
    """A class with the six documented methods and no base class comes out of the factory as it is, however made."""
    answer = run(STORE, JAF_MEMORY_TYPE=name)
    assert answer["found"]["kind"] == "Six", made
    assert answer["found"]["content"] == "hello"
    assert {"find_conversations", "get_stats", "for_user", "close"} <= set(answer["found"]["missing"])


def test_less_than_six_is_refused(run):
    """What lacks one of the six documented methods is refused by the names of those that it lacks."""
    answer = run("answer(create_memory_provider('three'))")
    assert "'three' (acme-six 1.0)" in answer["found"]["error"]
    assert "it lacks get_recent_messages, delete_conversation, health_check" in answer["found"]["error"]
    assert answer["found"]["kind"] == "MemoryConfigurationError"


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_refused_is_closed(run, fails):
    """What is no provider is closed before it is refused, and is refused for the same reason where that fails."""
    program = f"""
import acme_six
acme_six.Three.fails = {fails}
answer(create_memory_provider('three'))
print(json.dumps({{"closed": acme_six.Three.closed, "notes": notes}}))
"""
    answer = run(program)
    assert answer["closed"] == 1
    assert answer["notes"] == (["WARNING: memory provider 'three' could not be closed: ZeroDivisionError"] * fails)


def test_a_third_party_gets_the_deadline(run):
    """A third party's provider that does not come to be within the deadline is a connection error."""
    program = "answer(create_memory_provider('slow', ProviderConfig(operation_timeout=0.2)))"
    answer = run(program)
    assert answer["found"]["kind"] == "MemoryConnectionError"
    assert "creating it did not end within 0.2 s" in answer["found"]["error"]


@pytest.mark.parametrize("name", ["absent", "broken", "twin", "older"])
def test_a_plugin_that_does_not_load_stops_the_start(run, name):
    """A provider whose plugin is missing or broken is a configuration error from the factory, too."""
    answer = run("answer(create_memory_provider_from_env())", JAF_MEMORY_TYPE=name)
    assert answer["found"]["kind"] == "MemoryConfigurationError"
    assert repr(name) in answer["found"]["error"]


def test_a_wrong_setting_stops_the_start(run):
    """A wrong value is refused as the provider is created, by the name of its variable."""
    environ = {"JAF_MEMORY_MAX_MESSAGES": "many"}
    answer = run("answer(create_memory_provider_from_env())", **environ)
    assert answer["found"]["error"].startswith("JAF_MEMORY_MAX_MESSAGES holds 'many'; allowed: a whole number")


def test_processors_are_applied_in_order(run):
    """`JAF_MEMORY_PLUGINS` applies its processors in its order, and tells its observers of each operation."""
    program = """
async def work():
    provider = await create_memory_provider_from_env()
    await provider.store_messages("chat", [Message(role="user", content="hello")])
    (message,) = await provider.get_recent_messages("chat")
    await provider.close()
    import acme_plugins
    return [message.content, [event.operation for event in acme_plugins.events]]
answer(work())
"""
    answer = run(program, JAF_MEMORY_PLUGINS="exclaim, watch ,shout")
    content, operations = answer["found"]
    assert content == "HELLO, HE SAID"
    assert {"store_messages", "get_recent_messages"} <= set(operations)
    assert run(program, JAF_MEMORY_PLUGINS="shout,watch,exclaim")["found"][0] == "HELLO, he said"


def test_a_plugin_that_fails_stops_the_start(run):
    """A plugin that `JAF_MEMORY_PLUGINS` names and that does not load is an error: a skipped redactor would leak."""
    answer = run("answer(create_memory_provider_from_env())", JAF_MEMORY_PLUGINS="shout,broken")
    assert "'broken' (acme-broken 1.5) does not load" in answer["found"]["error"]


@pytest.mark.parametrize("plugin", ["shout", "watch"])
def test_plugins_are_never_skipped(run, plugin):
    """A provider that plugins cannot be applied to is refused beside them, before it is created."""
    environ = {"JAF_MEMORY_TYPE": "six", "JAF_MEMORY_PLUGINS": plugin}
    answer = run("answer(create_memory_provider_from_env())", **environ)
    assert f"plugins ({plugin}) cannot be applied to the memory provider 'six'" in answer["found"]["error"]


def test_settings_of_another_provider(run):
    """A configuration of another provider's class is refused with both classes."""
    answer = run("answer(create_memory_provider('good', ProviderConfig()))")
    assert answer["found"]["error"] == "the memory provider 'good' takes a GoodConfig, not a ProviderConfig"


def test_code_does_not_look_at_the_environment(run):
    """`create_memory_provider` takes its settings from the code alone, defaults included."""
    program = """
async def work():
    provider = await create_memory_provider("memory")
    await provider.close()
    return provider.config.max_messages
answer(work())
"""
    environ = {"JAF_MEMORY_TYPE": "absent", "JAF_MEMORY_MAX_MESSAGES": "7", "JAF_MEMORY_PLUGINS": "absent"}
    assert run(program, **environ)["found"] == 1000


def test_a_given_environment_is_the_only_one(run):
    """Variables that are handed over replace those of the process altogether."""
    program = "answer(lambda: get_memory_provider_info({'JAF_MEMORY_TYPE': 'good'}))"
    assert run(program, JAF_MEMORY_TYPE="absent", JAF_GOOD_DATABASE="other")["found"]["type"] == "good"


@pytest.mark.parametrize("call", ["create_memory_provider_from_env()", "test_memory_provider_connection()"])
def test_unknown_variables_are_warned_of(run, call):
    """Each `JAF_…` variable that nothing reads is warned of by name, with what was meant, and never its value."""
    environ = {
        "JAF_MEMORY_TYPE": "good",
        "JAF_GOOD_DATABSE": "secret-1",
        "JAF_MEMORY_MAX_CONVERSATION": "secret-2",
        "JAF_FLUX": "secret-3",
        "JAF_SQLITE_PHAT": "another provider's",
        "JAF_SHOUT_LOUDER": "a plugin's",
    }
    program = f"async def work():\n    found = await {call}\n    return type(found).__name__\nanswer(work())"
    assert (answer := run(program, **environ))["found"] in {"BackendProvider", "dict"}
    assert answer["notes"] == [
        "WARNING: nothing reads the variable JAF_FLUX",
        "WARNING: nothing reads the variable JAF_GOOD_DATABSE; did you mean JAF_GOOD_DATABASE?",
        "WARNING: nothing reads the variable JAF_MEMORY_MAX_CONVERSATION; did you mean JAF_MEMORY_MAX_CONVERSATIONS?",
    ]


def test_info(run):
    """The information names the provider, its durability, its distribution and its settings, secrets masked."""
    environ = {
        "JAF_MEMORY_TYPE": "good",
        "JAF_GOOD_DB": "mine",
        "JAF_GOOD_PASSWORD": "hunter2",
        "JAF_MEMORY_PLUGINS": "shout",
    }
    answer = run("answer(lambda: get_memory_provider_info())", **environ)
    info = answer["found"]
    assert info["type"] == "good"
    assert info["persistence"] == "none, in database mine"
    assert (info["distribution"], info["version"], info["api"]) == ("acme-good", "1.0", 1)
    assert info["settings"]["JAF_GOOD_DATABASE"] == "mine"
    assert info["settings"]["JAF_GOOD_PASSWORD"] == "********"
    assert info["settings"]["JAF_GOOD_OPERATION_TIMEOUT"] == "30"
    assert info["plugins"] == [{"name": "shout", "distribution": "acme-plugins", "version": "1.0"}]
    assert "hunter2" not in str(info)


@pytest.mark.parametrize(
    "environ",
    [
        {"JAF_MEMORY_TYPE": "absent"},
        {"JAF_MEMORY_TTL": "-1"},
        {"JAF_MEMORY_PLUGINS": "absent"},
    ],
)
def test_info_of_a_wrong_configuration(run, environ):
    """The information about a wrong configuration is the error that creating the provider would be."""
    answer = run("answer(lambda: get_memory_provider_info())", **environ)
    assert answer["found"]["kind"] == "MemoryConfigurationError"


@pytest.mark.parametrize("name", ["memory", "good", "six"])
def test_connection_of_a_good_one(run, name):
    """Testing the connection of a provider that works says so, with a message."""
    found = run("answer(test_memory_provider_connection())", JAF_MEMORY_TYPE=name)["found"]
    assert found["healthy"] is True
    assert found["provider"] == name
    assert found["message"]


@pytest.mark.parametrize(
    ("environ", "provider", "said"),
    [
        ({"JAF_MEMORY_TYPE": "absent"}, "absent", "there is no memory provider 'absent'"),
        ({"JAF_MEMORY_TYPE": "redis"}, "redis", 'pip install "jaf-memory-core[redis]"'),
        ({"JAF_MEMORY_TYPE": "redis://user:hunter2@host"}, "", "JAF_MEMORY_TYPE holds a value with credentials"),
        ({"JAF_MEMORY_TTL": "soon"}, "memory", "JAF_MEMORY_TTL holds 'soon'"),
        ({"JAF_MEMORY_PLUGINS": "broken"}, "memory", "the flux is not compensated"),
        ({"JAF_MEMORY_TYPE": "unreachable"}, "unreachable", "ConnectionRefusedError"),
    ],
)
def test_connection_of_a_bad_one(run, environ, provider, said):
    """Testing the connection never raises for trouble with it or the configuration: it answers, without secrets."""
    found = run("answer(test_memory_provider_connection())", **environ)["found"]
    assert found["healthy"] is False
    assert found["provider"] == provider
    assert said in found["error"]
    assert "hunter2" not in str(found)


def test_the_document_s_test_function_is_no_test(run):
    """Where `test_memory_provider_connection` is imported, pytest does not take it for a test."""
    assert run("answer(lambda: test_memory_provider_connection.__test__)")["found"] is False


def test_importing_the_core_imports_no_library_of_the_registry(run):
    """Importing the core leaves alone what only the registry and the environment need."""
    program = """
names = {"importlib_metadata", "pydantic_settings", "jaf_memory_core.registry"}
answer(lambda: sorted(names & set(sys.modules)))
"""
    assert run(program)["found"] == []


@pytest.mark.parametrize(
    "given",
    [{}, {"redis": object()}, {"A": 1}, {1: "a"}, {"A": None}, ["JAF_MEMORY_TYPE"], "memory"],
    ids=["empty", "clients", "number", "numbered", "none", "list", "text"],  # the same in each process that collects
)
def test_what_is_no_environment_is_refused(given):
    """Clients, or nothing, in the place of the variables are refused: they would give a store that forgets all."""
    with pytest.raises(MemoryConfigurationError, match="environ must be a mapping of variables to their texts, not "):
        asyncio.run(create_memory_provider_from_env(given))
    with pytest.raises(MemoryConfigurationError, match="leave it out for"):
        get_memory_provider_info(given)
    health = asyncio.run(test_memory_provider_connection(given))
    assert health["healthy"] is False
    assert "environ must be" in health["error"]
