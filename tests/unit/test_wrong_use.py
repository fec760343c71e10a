"""Wrong use gets the sentence that helps: hostile values for every argument of the whole public surface.

The table is made from `__all__` of each distribution, so that a new function, method or argument is in it by itself.
An argument of a name that is not in `SOUND` fails: say there what is right for it.
"""

import asyncio
import datetime as dt
import decimal
import enum
import importlib
import inspect
import uuid

import pytest
from jaf_memory_postgres import PostgresBackend
from jaf_memory_sqlite import SqliteBackend
from jaf_memory_testing.samples import nested
from msgspec import Struct
from pydantic import BaseModel, ValidationError

import jaf_memory_core
from jaf_memory_core import (
    BackendProvider,
    Context,
    ConversationMemory,
    Lease,
    MemoryConfig,
    MemoryConfigurationError,
    MemoryError,
    MemoryQuery,
    MemorySession,
    Message,
    OperationEvent,
    ProviderConfig,
    Success,
    Summary,
    SyncMemoryProvider,
    WriteResult,
    create_in_memory_provider,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.values import FrozenDict

DISTRIBUTIONS = ("jaf_memory_core", "jaf_memory_sqlite", "jaf_memory_redis", "jaf_memory_postgres")


class Weird:
    """Its `repr` fails."""

    def __repr__(self):
        raise RuntimeError


class Text(str):
    """A subclass."""

    __slots__ = ()


class Choice(enum.StrEnum):
    """Another."""

    A = "a"


def cyclic():
    """A dict that holds itself."""
    value = {}
    value["a"] = value
    return value


NOW = dt.datetime.now(dt.UTC)
HELLO = Message(role="user", content="Hello!", message_id="m")

HOSTILE = [
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 2**70, 2**63, -(2**70), 10**4299, 1e300,
    "", "x", "\0", "\ud800", "x" * 256, "a://b:c@d", b"x", Text("s"), Choice.A, decimal.Decimal(1), uuid.uuid4(),
    [], (), {}, set(), iter([]), range(3), [None], [1], ["x"], [{}], [[]], [HELLO], (HELLO,), HELLO, [Weird()],
    {"a": 1}, {1: 2}, {"a": {1: 2}}, {"a": float("nan")}, {"a": Weird()}, {"a": 10**4001}, {"user_id": 5},
    {"user_id": ""}, {"jaf-memory:lease": 1}, nested(5000), {"a": nested(5000)}, cyclic(),
    dt.datetime.max, dt.datetime(2020, 1, 1), dt.date(2020, 1, 1),  # naive ones
    object(), Weird(), lambda: 0, str, MemoryQuery(), ProviderConfig(), ConversationMemory("c"),
    create_in_memory_provider(), SyncMemoryProvider,
]  # fmt: skip

SOUND = {
    "backend": InMemoryBackend,
    "before": lambda: None,
    "chain": lambda: None,
    "client": lambda: None,
    "connection": lambda: 5,
    "context": lambda: Context("c", "u", "m", "store_messages"),
    "conversation": lambda: ConversationMemory("c", messages=[HELLO]),
    "conversation_id": lambda: "c",
    "conversations": lambda: [ConversationMemory("c", messages=[HELLO])],
    "config": lambda: None,
    "create": lambda: True,
    "environ": dict,
    "event": lambda: OperationEvent("memory", "close", 0.1, 1, None),
    "expected_version": lambda: None,
    "held": lambda: Lease("c", "t", 1, NOW),
    "kind": lambda: "image",
    "type": lambda: "text",
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
    "on_damaged": lambda: "raise",
    "only_missing": lambda: False,
    "patch": dict,
    "plugins": tuple,
    "processors": tuple,
    "provider": create_in_memory_provider,
    "query": MemoryQuery,
    "regeneration_metadata": lambda: None,
    "remove": tuple,
    "revised": dict,
    "role": lambda: "user",
    "seconds": lambda: 5,
    "summary": lambda: Summary("said", "m"),
    "token": lambda: None,
    "ttl": lambda: None,
    "until_message_id": lambda: None,
    "user_id": lambda: "u",
}
"""Argument → what is right for it. A constructor's optional arguments are left out where it is not here."""

SPECIAL = {("MemorySession", "config"): lambda: MemoryConfig(provider=create_in_memory_provider())}
"""Where the same name means something else."""

UNCHECKED = {
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


def parameters(thing):
    """Names of a callable's arguments, and which of them it cannot do without."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return {name: field.is_required() for name, field in thing.model_fields.items()}
    found = inspect.signature(thing).parameters.values()
    return {
        one.name: one.default is one.empty
        for one in found
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and one.name != "self"
    }


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
            plain = issubclass(thing, dict | tuple | Exception | Backend)
            # A plain record of what a provider answers is made by the provider.
            if not plain and (not issubclass(thing, Struct) or hasattr(thing, "_check") or hasattr(thing, "_coerce")):
                yield from ((name, None, argument) for argument in parameters(thing))
            if made(thing) is not None:
                for method, function in inspect.getmembers(thing, inspect.isroutine):
                    if not method.startswith("_") and function.__qualname__.split(".")[0] != "Struct":
                        yield from ((name, method, argument) for argument in parameters(function) if argument != "cls")


ROWS = sorted({(label, method or "", argument) for label, method, argument in surface()})


async def outcome(call):
    """What a call comes to; an iterator's first few items, an awaitable's answer."""
    answer = call()
    if inspect.isasyncgen(answer):
        return [one async for one in answer]
    if inspect.isgenerator(answer):
        return list(answer)
    answer = await answer if inspect.isawaitable(answer) else answer
    if isinstance(answer, BackendProvider):
        await answer.close()
    return answer


def thing_of(label):
    """The public object of that name."""
    return next(
        getattr(module, label) for module in map(importlib.import_module, DISTRIBUTIONS) if hasattr(module, label)
    )


def described(value):
    """A value in a few characters, whatever its `repr` does."""
    try:
        return repr(value)[:60]
    except (RuntimeError, RecursionError, ValueError):
        return type(value).__name__


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
        wrong = []
        owner = made(kind) if method else None
        if isinstance(owner, BackendProvider):
            await owner.store_messages("c", [HELLO], user_id="u")
        bound = getattr(owner, method) if method else kind
        for value in HOSTILE:
            given = {**{name: make() for name, make in sound.items()}, argument: value}
            try:
                await asyncio.wait_for(outcome(lambda given=given: bound(**given)), 20)
            except (MemoryError, ValidationError):
                continue
            except Exception as error:  # noqa: BLE001  (each is told below)
                wrong.append(f"{described(value)} → {type(error).__name__}: {described(error)}")
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
