"""Every request in every state of a conversation, alone and twice at once: what comes of it follows from the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.protocol import MemoryProvider
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure
from jaf_memory_testing.cells import LONG, PROMISES, REQUESTS, STATES, THOUSAND, WHOLE, State, others
from jaf_memory_testing.checks import Checks, needs, slow
from jaf_memory_testing.model import Model, Seeds, differences, observed, surveyed, told
from jaf_memory_testing.processes import Process
from jaf_memory_testing.samples import said, talk
from jaf_memory_testing.target import Store

OF_LONG = (
    "append what is held, and more",
    "append under a cap",
    "truncate",
    "delete messages",
    "revise",
    "fork",
    "store",
    "remove",
)
"""Requests that are tried on long conversations."""

NOT_BESIDE = ("append many", "append many under a cap", "fork to what has expired")
"""Requests whose answers depend on who is how far with other conversations."""


class TableChecks(Checks):
    """Requests in states, with others beside them, against what the rules say."""

    @needs("backend")
    @pytest.mark.parametrize("request_name", REQUESTS)
    async def test_table(self, store: Store, request_name: str) -> None:
        """In each state a request answers, and leaves, what the rules say, as a second provider sees it."""
        await _Case(store, request_name).alone()

    @needs("backend")
    @pytest.mark.parametrize("request_name", REQUESTS)
    async def test_table_at_once(self, store: Store, request_name: str) -> None:
        """The same request from two providers at once comes to the same as one after the other."""
        await _Case(store, request_name).at_once()

    @needs("backend")
    @pytest.mark.parametrize("request_name", WHOLE)
    async def test_table_of_the_whole(self, store: Store, request_name: str) -> None:
        """What concerns many conversations leaves, and counts, what the rules say, from two providers at once."""
        case = _Case(store, request_name)
        await case.seed()
        call = WHOLE[request_name]
        expected = [await told(case.model, call), await told(case.model, call)]
        given = await asyncio.gather(told(case.own, call), told(case.other, call))
        gone = request_name.startswith("purge")  # a store may have let go of some by itself
        right = sum(given) <= sum(expected) if gone else sum(given) == sum(expected)
        assert right, case.failure("both at once", f"counted {given}, must be {expected}")
        for name in STATES:
            await case.compare(name, "both at once")
        await case.compare_whole()

    @needs("backend")
    @pytest.mark.parametrize("request_name", OF_LONG)
    async def test_table_of_a_thousand(self, store: Store, request_name: str) -> None:
        """The same holds of a conversation of 1,001 messages: nothing ends at a thousand."""
        await _Case(store, request_name, THOUSAND).alone()

    @slow("a conversation of 70,000 messages")
    @needs("backend")
    @pytest.mark.parametrize("request_name", OF_LONG)
    async def test_table_of_the_long(self, store: Store, request_name: str) -> None:
        """The same holds of a conversation that has more messages than 16 bits count."""
        await _Case(store, request_name, LONG).alone()

    @needs("backend", "processes")
    async def test_table_beside_another_process(self, store: Store) -> None:
        """A request from here and one from another process at once come to the same as one after the other."""
        states = ("missing", "live", "expired")
        cells = [(name, f"{state}: {name}") for name in REQUESTS if name not in NOT_BESIDE for state in states]
        case = _Case(store, "append", {key: STATES[key.partition(":")[0]] for _, key in cells})
        await case.seed()
        with Process(store.target, "request", cells=cells) as process:
            process.wait_until_ready()
            process.go()
            assert process.next() == ("opened", None), process.result()
            given = [await told(case.own, REQUESTS[name](key)) for name, key in cells]
            others_given = await asyncio.to_thread(process.result)
        for (name, key), here, there in zip(cells, given, others_given, strict=True):
            case.name = name
            expected = [await told(case.model, REQUESTS[name](key)) for _ in range(2)]
            right = sorted([repr(here), there]) == sorted(map(repr, expected))
            assert right, case.failure(
                key, f"the two answers must be {expected!r}, but are {here!r} and, there, {there}"
            )
            await case.compare(key, "here and in another process", pages=False)


class _Case:
    """One request in some states, on the store and on the model."""

    def __init__(self, store: Store, request_name: str, states: Mapping[str, State] = STATES) -> None:
        self.store, self.name, self.states, self.model = store, request_name, states, Model()
        self.seeds = Seeds(())
        self.texts: set[str] = set()

    async def seed(self) -> None:
        """Bring both into the same state."""
        one, other = await self.store.open(), await self.store.open()
        await one.open()
        await other.open()
        self.own, self.other = one.backend, other.backend
        records = [record for name, make in self.states.items() if (record := make(name)) is not None]
        self.seeds = Seeds([*records, *others()])
        for record in self.seeds.values():
            assert await self.own.write(record, expected=None) is True
            assert await self.model.write(record, expected=None) is True
        self.texts = {str(message.content) for record in self.seeds.values() for message in record.messages}

    async def alone(self) -> None:
        """Do the request once in each state."""
        await self.seed()
        for state in self.states:
            call = REQUESTS[self.name](state)
            expected, given = await told(self.model, call), await told(self.own, call)
            assert given == expected, self.failure(state, f"the answer must be {expected!r}, but is {given!r}")
            await self.compare(state, "once")
        await self.compare_whole()

    async def at_once(self) -> None:
        """Do it twice at once in each state."""
        await self.seed()
        for state in self.states:
            call = REQUESTS[self.name](state)
            expected = [await told(self.model, call), await told(self.model, call)]
            given = await asyncio.gather(told(self.own, call), told(self.other, call))
            # Two bulks may take turns, append by append: what they leave is the same, what each is told is not.
            right = sorted(map(repr, given)) == sorted(map(repr, expected)) or self.name.startswith("append many")
            assert right, self.failure(state, f"the two answers must be {expected!r}, but are {given!r}")
            await self.compare(state, "twice at once", pages=False)
        await self.compare_whole()

    async def compare(self, state: str, how: str, *, pages: bool = True) -> None:
        """Look at the conversation and at what the request may have made beside it."""
        beside = (f"fork of {state}", "taken-expired") if self.name.startswith("fork") else ()
        for key in (state, *beside):
            expected = await observed(self.model, key, self.seeds, pages=pages)
            given = await observed(self.other, key, self.seeds, pages=pages)
            problems = differences(expected, given)
            assert not problems, self.failure(state, f"done {how}; of {key!r} then\n  " + "\n  ".join(problems))

    async def compare_whole(self) -> None:
        """Look at indexes, counts and sizes, and at what a dump still holds."""
        problems = differences(await surveyed(self.model, self.seeds), await surveyed(self.other, self.seeds))
        assert not problems, self.failure("each of them", "in the whole store then\n  " + "\n  ".join(problems))
        if self.store.target.dump is None or self.store.target.lacks("dump"):
            return
        held = {str(message.content) for record in self.model.records.values() for message in record.messages}
        held_labels = {str(record.metadata.get("of")) for record in self.model.records.values()}
        dumped = repr(await self.store.target.dump())
        labels = {str(record.metadata.get("of")) for record in self.seeds.values()} - {"None"}
        kept = sorted(text for text in (self.texts - held) | (labels - held_labels) if text in dumped)
        assert not kept, self.failure("each of them", f"a dump still holds what was removed: {kept[:5]}")

    def failure(self, state: str, what: str) -> str:
        """Promise, what was done in which order, and what came of it."""
        word = self.name.split()[0]
        return (
            f"request {self.name!r} in state {state!r}: {what}\n"
            f"  the promise: {PROMISES[word]}\n"
            f"  what was done: a record in each state of table.STATES was written; then {self.name!r} (table.REQUESTS) "
            f"in the order of the states, up to {state!r}; then another provider looked"
        )


Step = Callable[[MemoryProvider, str], Awaitable[Any]]


def _store(*batch: Any, **labels: Any) -> Step:
    return lambda provider, key: provider.store_messages(key, list(batch), labels or None)


def _append(*batch: Any, **labels: Any) -> Step:
    return lambda provider, key: provider.append_messages(key, list(batch), labels or None)


def _delete() -> Step:
    return lambda provider, key: provider.delete_conversation(key)


SIX_STATES: dict[str, tuple[Step, ...]] = {
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
        for state, steps in SIX_STATES.items():
            for number, step in enumerate((*steps, *[SIX_REQUESTS[request_name]] * 2)):
                expected, given = await _answered(model, step, state), await _answered(provider, step, state)
                done = f"{request_name!r} in state {state!r}, step {number + 1}"
                assert given == expected, f"{done}: the answer must be {expected!r}, but is {given!r}"
            must, shown = await _seen(model, state), await _seen(provider, state)
            wrong = {name: (must[name], shown[name]) for name in must if must[name] != shown[name]}
            assert not wrong, f"{request_name!r} in state {state!r}, twice: (must be, is) {wrong!r}"
        await model.close()
