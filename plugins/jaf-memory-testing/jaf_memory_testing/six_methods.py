"""The table for the six documented methods: every request in every state that these methods can bring about.

What must come of it follows from the rules: a provider over `Model` is asked the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure
from jaf_memory_testing.checks import Checks
from jaf_memory_testing.model import Model
from jaf_memory_testing.samples import said, talk
from jaf_memory_testing.target import Store

Step = Callable[[MemoryProvider, str], Awaitable[Any]]


def _store(*batch: Any, **labels: Any) -> Step:
    return lambda provider, key: provider.store_messages(key, list(batch), labels or None)


def _append(*batch: Any, **labels: Any) -> Step:
    return lambda provider, key: provider.append_messages(key, list(batch), labels or None)


def _delete() -> Step:
    return lambda provider, key: provider.delete_conversation(key)


STATES: dict[str, tuple[Step, ...]] = {
    "missing": (),
    "empty": (_store(),),
    "live": (_store(*talk(5), a=1, b={"c": 1}),),
    "owned": (_store(*talk(5), a=1, user_id="u"),),
    "grown": (_store(*talk(2)), _append(*talk(5), a=1)),
    "replaced": (_store(*talk(9, "old"), old=1), _store(*talk(5), a=1)),
    "deleted": (_store(*talk(5), a=1, user_id="u"), _delete()),
    "made again": (_store(*talk(9, "old"), old=1, user_id="v"), _delete(), _store(*talk(5), a=1)),
    "50": (_store(*talk(50)),),
    "51": (_store(*talk(51)),),
}
"""States of a conversation, by name: what leads there."""

_NEW = talk(2, "n")

SIX_REQUESTS: dict[str, Step] = {
    "store": _store(*_NEW),
    "store nothing": _store(),
    "store with metadata": _store(*_NEW, a=2, d=None),
    "store with an owner": _store(*_NEW, user_id="u"),
    "store of v": _store(*_NEW, user_id="v"),
    "store what is held": _store(*talk(1), *_NEW),
    "append": _append(*_NEW),
    "append nothing": _append(),
    "append metadata only": _append(a=2, b={"d": 1}),
    "append with an owner": _append(*_NEW, user_id="u"),
    "append of v": _append(*_NEW, user_id="v"),
    "append what is held": _append(*talk(2), a=2),
    "append what is held, and more": _append(*talk(2), *_NEW, a=2),
    "append more, and what is held": _append(*_NEW, *talk(2)),
    "append another content": _append(*_NEW, said("another", message_id="m0"), a=2),
    "append what was replaced": _append(*talk(2, "old")),
    "delete": _delete(),
}
"""Requests, by name: one thing at a time differs from the plain request of its kind."""


async def _answered(provider: MemoryProvider, step: Step, key: str) -> Any:
    """What a request answers, as two providers must agree on: a version is not among what six methods promise."""
    try:
        answer = await step(provider, key)
    except MemoryError as error:
        return type(error).__name__, error.outcome
    if isinstance(answer, bool):
        return answer
    if isinstance(answer, Failure):
        return type(answer.error).__name__, answer.error.outcome
    return "Success", answer.data.message_count, answer.data.added


async def _seen(provider: MemoryProvider, key: str) -> dict[str, Any]:
    """All that six methods show of a conversation."""
    one = await provider.get_conversation(key)
    seen: dict[str, Any] = {"conversation": one and (one.user_id, codec.canonical(one.metadata), _texts(one.messages))}
    for limit in (0, 1, 3, 50, 10**6):
        try:
            seen[f"the last {limit}"] = _texts(await provider.get_recent_messages(key, limit=limit))
        except MemoryError as error:
            seen[f"the last {limit}"] = type(error).__name__
    return seen


def _texts(messages: Any) -> list[bytes]:
    return [codec.encode(message) for message in messages]


class SixMethodTableChecks(Checks):
    """The six methods in every state that they lead to, against what the rules say."""

    @pytest.mark.parametrize("request_name", SIX_REQUESTS)
    async def test_table_of_six_methods(self, store: Store, request_name: str) -> None:
        """In each state a request answers, leaves and shows what the rules say, and the same when it is repeated."""
        provider, model = await store.open(), BackendProvider(Model())
        for state, steps in STATES.items():
            for number, step in enumerate((*steps, *[SIX_REQUESTS[request_name]] * 2)):
                expected, given = await _answered(model, step, state), await _answered(provider, step, state)
                done = f"{request_name!r} in state {state!r}, step {number + 1}"
                assert given == expected, f"{done}: the answer must be {expected!r}, but is {given!r}"
            must, shown = await _seen(model, state), await _seen(provider, state)
            wrong = {name: (must[name], shown[name]) for name in must if must[name] != shown[name]}
            assert not wrong, f"{request_name!r} in state {state!r}, twice: (must be, is) {wrong!r}"
        await model.close()
