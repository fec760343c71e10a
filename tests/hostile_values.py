"""Hostile values, for whatever argument of whatever function, and what a call with each of them comes to."""

import asyncio
import datetime as dt
import decimal
import enum
import inspect
import uuid
from unittest import mock

from jaf_memory_testing.samples import nested
from pydantic import BaseModel, ValidationError

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    MemoryError,
    MemoryQuery,
    Message,
    ProviderConfig,
    SyncMemoryProvider,
    create_in_memory_provider,
    registry,
)


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


def described(value):
    """A value in a few characters, whatever its `repr` does."""
    try:
        return repr(value)[:60]
    except (RuntimeError, RecursionError, ValueError):
        return type(value).__name__


def read_once(read):
    """Return a `registry.installed` that reads once a group: some hundred files, and nothing is installed meanwhile."""
    known = {}

    def installed(group=registry.PROVIDERS):
        if not isinstance(group, str):
            return read(group)
        if group not in known:
            known[group] = read(group)
        return list(known[group])

    return installed


async def wrong_answers(function, argument, sound):
    """What a function lets out, given each hostile value for one argument, that is no error of ours and not pydantic's.

    Args:
        function: what is called.
        argument: the name of the argument that each value is given for.
        sound: makers of the other arguments.
    """
    wrong = []
    with mock.patch.object(registry, "installed", read_once(registry.installed)):
        for value in HOSTILE:
            given = {**{name: make() for name, make in sound.items()}, argument: value}
            try:
                await asyncio.wait_for(outcome(lambda given=given: function(**given)), 20)
            except (MemoryError, ValidationError):
                continue
            except Exception as error:  # noqa: BLE001  (each is told below)
                wrong.append(f"{described(value)} → {type(error).__name__}: {described(error)}")
    return wrong
