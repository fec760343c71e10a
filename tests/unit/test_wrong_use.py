"""Wrong use gets the sentence that helps: hostile values for every argument of the whole public surface.

The table is made from `__all__` of each distribution, so that a new function, method or argument is in it by itself.
An argument of a name that is not in `SOUND` fails: say there what is right for it.
"""

import asyncio
import importlib
import inspect

import pytest
from hostile_values import HELLO, HOSTILE, NOW, parameters, wrong_answers
from jaf_memory_postgres import PostgresBackend
from jaf_memory_sqlite import SqliteBackend
from jaf_memory_testing import Checks, FourMethods
from msgspec import Struct

import jaf_memory_core
from jaf_memory_core import (
    BackendProvider,
    Context,
    ConversationMemory,
    Lease,
    MemoryConfig,
    MemoryConfigurationError,
    MemoryQuery,
    MemorySession,
    Message,
    MessageSearch,
    OperationEvent,
    Success,
    Summary,
    SyncMemoryProvider,
    WriteResult,
    create_in_memory_provider,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.values import FrozenDict

DISTRIBUTIONS = (
    "jaf_memory_core",
    "jaf_memory_sqlite",
    "jaf_memory_redis",
    "jaf_memory_postgres",
    "jaf_memory_testing",
)

SOUND = {
    "backend": InMemoryBackend,
    "before": lambda: None,
    "chain": lambda: None,
    "client": lambda: None,
    "connection": lambda: 5,
    "context": lambda: Context("c", "u", "m", "store_messages"),
    "conversation": lambda: ConversationMemory("c", messages=[HELLO]),
    "conversation_id": lambda: "c",
    "conversation_ids": lambda: ["c"],
    "message_ids": lambda: ["m"],
    "conversations": lambda: [ConversationMemory("c", messages=[HELLO])],
    "config": lambda: None,
    "create": lambda: True,
    "environ": dict,
    "event": lambda: OperationEvent("memory", "close", 0.1, 1, None),
    "expected_version": lambda: None,
    "held": lambda: Lease("c", "t", 1, NOW),
    "kind": lambda: "image",
    "type": lambda: "text",
    "inner": InMemoryBackend,
    "incarnation": lambda: "0" * 16,
    "last": lambda: ConversationMemory("c", created_at=NOW, updated_at=NOW),
    "limit": lambda: 5,
    "message": lambda: HELLO,
    "message_id": lambda: "m",
    "messages": lambda: [HELLO],
    "metadata": dict,
    "name": lambda: "memory",
    "new_id": lambda: "d",
    "observers": tuple,
    "open": lambda: None,
    "operation": lambda: "close",
    "on_damaged": lambda: "raise",
    "only_missing": lambda: False,
    "patch": dict,
    "plugins": tuple,
    "processors": tuple,
    "provider": create_in_memory_provider,
    "query": MemoryQuery,
    "reason": lambda: "long",
    "regeneration_metadata": lambda: None,
    "remove": tuple,
    "revised": dict,
    "role": lambda: "user",
    "search": lambda: MessageSearch("hello"),
    "seconds": lambda: 5,
    "summary": lambda: Summary("said", "m"),
    "text": lambda: "hello",
    "token": lambda: None,
    "ttl": lambda: None,
    "until_message_id": lambda: None,
    "user_id": lambda: "u",
}
"""Argument → what is right for it. A constructor's optional arguments are left out where it is not here."""

SPECIAL = {("MemorySession", "config"): lambda: MemoryConfig(provider=create_in_memory_provider())}
"""Where the same name means something else."""

UNCHECKED = {
    "Store": "a check's own, made and ended by the base of all checks",
    "Processor": "its methods are the application's own to override, and called by the provider only",
}


def made(kind):
    """An object of a public class, whose methods are called, or `None`."""
    if kind is BackendProvider:
        return create_in_memory_provider()
    if kind is SyncMemoryProvider:
        return SyncMemoryProvider(create_in_memory_provider())
    if kind is MemorySession:
        return MemorySession(MemoryConfig(provider=create_in_memory_provider()), conversation_id="c")
    if kind is MemoryQuery:
        return MemoryQuery()
    if kind is Success:
        return Success(WriteResult(1, 1, 1))
    return HELLO if kind is Message else None


def surface():
    """(label, callable of the object or `None`, argument) for each argument of each public callable."""
    for distribution in DISTRIBUTIONS:
        module = importlib.import_module(distribution)
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing) or name in UNCHECKED or getattr(thing, "_is_protocol", False):
                continue
            if not isinstance(thing, type):
                yield from ((name, None, argument) for argument in parameters(thing))
                continue
            # Tests are called by pytest, and a backend's settings have a test of their own.
            plain = issubclass(thing, dict | list | tuple | Exception | Backend | Checks) and thing is not FourMethods
            # A plain record of what a provider answers is made by the provider.
            if not plain and (not issubclass(thing, Struct) or hasattr(thing, "_check") or hasattr(thing, "_coerce")):
                yield from ((name, None, argument) for argument in parameters(thing))
            if made(thing) is not None:
                for method, function in inspect.getmembers(thing, inspect.isroutine):
                    if not method.startswith("_") and function.__qualname__.split(".")[0] != "Struct":
                        yield from ((name, method, argument) for argument in parameters(function) if argument != "cls")


ROWS = sorted({(label, method or "", argument) for label, method, argument in surface()})


def thing_of(label):
    """The public object of that name."""
    return next(
        getattr(module, label) for module in map(importlib.import_module, DISTRIBUTIONS) if hasattr(module, label)
    )


@pytest.mark.parametrize(("label", "method", "argument"), ROWS)
def test_hostile_values(label, method, argument, monkeypatch, tmp_path):
    """Whatever is given for an argument, the answer is a value, an error of ours, or pydantic's own."""
    monkeypatch.chdir(tmp_path)  # where a database of the default name may be made
    kind = thing_of(label)
    callee = getattr(kind, method) if method else kind
    needed = {name for name, required in parameters(callee).items() if required}
    lacking = needed - SOUND.keys() - {argument}
    assert not lacking, f"say in SOUND what is right for {lacking}"
    sound = {
        name: SPECIAL.get((label, name), SOUND[name])
        for name in parameters(callee)
        if name in SOUND and name != argument
    }

    async def main():
        owner = made(kind) if method else None
        if isinstance(owner, BackendProvider):
            await owner.store_messages("c", [HELLO], user_id="u")
        wrong = await wrong_answers(getattr(owner, method) if method else kind, argument, sound)
        if isinstance(owner, SyncMemoryProvider):
            owner.close()
        return wrong

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("backend", [InMemoryBackend, SqliteBackend, PostgresBackend])
def test_settings_of_backends(backend):
    """A backend that an application makes itself takes its own settings, or none, and says so of anything else."""
    for value in HOSTILE:
        if value is not None:
            with pytest.raises(MemoryConfigurationError, match="takes a"):
                backend(value)
    assert backend(None).config == type(backend().config)()


def test_the_table_is_the_surface():
    """It is not empty by mistake: every public function and the methods of the provider are in it."""
    labels = {label for label, _, _ in ROWS}
    functions = [name for name in jaf_memory_core.__all__ if inspect.isfunction(getattr(jaf_memory_core, name))]
    assert labels >= {name for name in functions if parameters(getattr(jaf_memory_core, name))}
    assert len(ROWS) > 150
    assert FrozenDict() == {}
