"""Every request in every state of a conversation, alone and twice at once: what must come of it follows from the rules.

What cannot happen is left out: a missing conversation has no owner, an empty one no summary, and a fork takes no cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.messages import Message
from jaf_memory_core.records import Amend, Fork, Origin, Record, Revise, Stamp, Truncate, Write, new_incarnation
from jaf_memory_core.values import freeze
from jaf_memory_testing.checks import Checks, in_full, needs
from jaf_memory_testing.model import Call, Model, differences, observed, surveyed, told
from jaf_memory_testing.samples import said
from jaf_memory_testing.target import Store


def _messages(name: str, count: int) -> tuple[Message, ...]:
    return tuple(said(f"({name}) text {n};", message_id=f"m{n}") for n in range(count))


def _seed(name: str, count: int = 5, **fields: Any) -> Record:
    # No whole milliseconds, so that a store which rounds is seen.
    now = datetime.now(UTC).replace(microsecond=123_456)
    times = {"created_at": now - timedelta(hours=2), "updated_at": now - timedelta(hours=1)}
    made = {
        "user_id": "u",
        "version": 3,
        "incarnation": new_incarnation(),
        "messages": _messages(name, count),
        "message_count": count,
        "metadata": freeze({"a": 1, "trace_id": "t", "of": f"({name}) label;"}),
        **times,
    }
    return Record(conversation_id=name, **{**made, **fields})


def _ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


_SUMMARY = {rules.SUMMARY: {"text": "what was said", "message_id": "m1", "position": 1, "kept": []}, "a": 1}

STATES: dict[str, Callable[[], Record | None]] = {
    "missing": lambda: None,
    "live": lambda: _seed("live"),
    "one": lambda: _seed("one", 1),
    "empty": lambda: _seed("empty", 0),
    "nobodys": lambda: _seed("nobodys", user_id=None),
    "anothers": lambda: _seed("anothers", user_id="v"),
    "expired": lambda: _seed("expired", expires_at=_ago(seconds=1)),
    "expired-renewing": lambda: _seed("expired-renewing", expires_at=_ago(seconds=1), ttl=600),
    "anothers-expired": lambda: _seed("anothers-expired", user_id="v", expires_at=_ago(seconds=1)),
    "renewing": lambda: _seed("renewing", expires_at=_ago(seconds=-3600), ttl=600),
    "ending": lambda: _seed("ending", expires_at=_ago(seconds=-3600)),
    "trimmed": lambda: _seed("trimmed", first_position=7, trimmed=True),
    # The next messages pass 2**16; `much-written` stands beyond 2**31.
    "far-trimmed": lambda: _seed("far-trimmed", first_position=65_533, trimmed=True),
    "summarised": lambda: _seed("summarised", metadata=freeze(_SUMMARY)),
    "before-1970": lambda: _seed("before-1970", created_at=_ago(days=45_000), updated_at=_ago(days=21_000)),
    "from-the-future": lambda: _seed("from-the-future", updated_at=_ago(days=-1)),
    "much-written": lambda: _seed("much-written", version=2**31 + 5),
    # On either side of a page that a store may read in a way of its own.
    "50": lambda: _seed("50", 50),
    "51": lambda: _seed("51", 51),
    **({f"{n}": lambda n=n: _seed(f"{n}", n) for n in (49, 1_000, 1_001)} if in_full() else {}),  # type: ignore[misc]
}
"""States of a conversation, by name, which is its id as well."""


def _write(key: str, texts: Mapping[str, str], **fields: Any) -> Write:
    messages = tuple(said(text, message_id=one) for one, text in texts.items())
    return Write(key, messages, tuple(map(codec.encode, messages)), **fields)


def _held(key: str) -> dict[str, str]:
    return {"m0": f"({key}) text 0;"}


NEW = {"n0": "new text 0", "n1": "new text 1"}

_Make = Callable[[str], Call]


def _store(texts: Mapping[str, str] = NEW, **fields: Any) -> _Make:
    return lambda key: lambda backend: backend.store(_write(key, texts, replace=True, create=True, **fields))


def _append(texts: Mapping[str, str] = NEW, **fields: Any) -> _Make:
    return lambda key: lambda backend: backend.append(_write(key, texts, **fields))


def _amend(**fields: Any) -> _Make:
    return lambda key: lambda backend: backend.amend(Amend(key, **fields))


def _revise(texts: Mapping[str, Message], scope: str | None = None) -> _Make:
    news = tuple(texts.values())
    return lambda key: (
        lambda backend: backend.revise(Revise(key, tuple(texts), news, tuple(map(codec.encode, news)), scope))
    )


def _fork(until: str | None = None, scope: str | None = None, new: str = "fork of {}") -> _Make:
    return lambda key: lambda backend: backend.fork(Fork(key, new.format(key), until, scope))


def _bulk(*batches: Mapping[str, str], **fields: Any) -> _Make:
    def make(key: str) -> Call:
        async def call(backend: Backend) -> Any:
            writes = [_write(key, texts, **fields) for texts in batches]
            answers: list[Any] = [None] * len(writes)
            # Again by place: what was left is not always what stands at the end.
            while left := [index for index, answer in enumerate(answers) if answer is None]:
                some = await backend.append_many([writes[index] for index in left])
                for index, answer in zip(left, some, strict=True):
                    answers[index] = answer
            return [one if not isinstance(one, Exception) else type(one).__name__ for one in answers]

        return call

    return make


REQUESTS: dict[str, _Make] = {
    "store": _store(),
    "store nothing": _store({}),
    "store with metadata and owner": _store(metadata=freeze({"a": 2, "b": [1, 1.0]}), user_id="u"),
    "store for u": _store(user_id="u", scope="u"),
    "store at version 3": _store(expected_version=3),
    "store where none is": _store(expected_version=0),
    "store with a ttl": _store(ttl=600.0),
    "store what is held": lambda key: lambda backend: backend.store(_write(key, _held(key), replace=True, create=True)),
    "store cut": _store(max_messages=2, dropped=3),
    "append": _append(),
    "append nothing": _append({}),
    "append labels only": _append({}, metadata=freeze({"b": 2}), user_id="u"),
    "append or make": _append(create=True, ttl=600.0, user_id="u"),
    "append or make with times": _append(
        create=True, origin=Origin(datetime(1950, 5, 5, tzinfo=UTC), datetime(2950, 5, 5, tzinfo=UTC), 1200.0)
    ),
    "append for u": _append(scope="u", user_id="u"),
    "append for w": _append(scope="w", user_id="w"),
    "append of v": _append(user_id="v"),
    "append at version 3": _append(expected_version=3),
    "append at version 2": _append(expected_version=2),
    "append where none is": _append(expected_version=0, create=True),
    "append what is held": lambda key: lambda backend: backend.append(_write(key, _held(key))),
    "append what is held, and more": lambda key: lambda backend: backend.append(_write(key, {**_held(key), **NEW})),
    "append more, and what is held": lambda key: lambda backend: backend.append(_write(key, {**NEW, **_held(key)})),
    "append another content": _append({**NEW, "m0": "another"}),
    "append under a cap": _append(max_messages=3),
    "append under a cap of one": _append({"n0": "new text 0"}, max_messages=1, dropped=1),
    "append under a wide cap": _append(max_messages=1_000),
    "append too much metadata": _append(metadata=freeze({"b": "x" * 90}), max_metadata_bytes=100),
    "store enough metadata": _store(metadata=freeze({"b": "x"}), max_metadata_bytes=1_000),
    "append many": _bulk(NEW, {"n1": NEW["n1"], "n2": "new text 2"}, create=True, user_id="u"),
    "append many under a cap": _bulk(NEW, {"n2": "new text 2"}, max_messages=2),
    "amend metadata": _amend(metadata=freeze({"a": None, "b": {"c": 1}})),
    "amend nothing": _amend(),
    "amend for u": _amend(metadata=freeze({"b": 1}), scope="u"),
    "amend for w": _amend(metadata=freeze({"b": 1}), scope="w"),
    "amend too much": _amend(metadata=freeze({"b": "x" * 90}), max_metadata_bytes=100),
    "amend the owner": _amend(user_id="u"),
    "amend to expire": _amend(ttl=600.0),
    "amend to stay": _amend(ttl=None),
    "amend at a state": _amend(metadata=freeze({"b": 1}), expected=Stamp("0" * 16, 3)),
    "truncate": lambda key: lambda backend: backend.truncate(Truncate(key, "m1")),
    "truncate all": lambda key: lambda backend: backend.truncate(Truncate(key, "m0")),
    "truncate at what is not there": lambda key: lambda backend: backend.truncate(Truncate(key, "none")),
    "truncate for u": lambda key: lambda backend: backend.truncate(Truncate(key, "m0", "u")),
    "revise": _revise({"m0": said("revised text", message_id="m0")}),
    "revise to another id": _revise({"m0": said("revised text", message_id="r0")}),
    "revise two into each other's places": _revise(
        {"m0": said("revised text 1", message_id="m1"), "m1": said("revised text 0", message_id="m0")}
    ),
    "revise to what is held": _revise({"m0": said("revised text", message_id="m1")}),
    "revise what is not there": _revise({"none": said("revised text", message_id="none")}),
    "revise for u": _revise({"m0": said("revised text", message_id="m0")}, "u"),
    "fork": _fork(),
    "fork until a message": _fork("m1"),
    "fork until what is not there": _fork("none"),
    "fork for u": _fork(scope="u"),
    "fork to itself": _fork(new="{}"),
    "fork to what has expired": _fork(new="taken-expired"),
    "fork to what is there": _fork(new="taken"),
    "remove": lambda key: lambda backend: backend.remove(key),
    "remove for u": lambda key: lambda backend: backend.remove(key, scope="u"),
}
"""Requests about one conversation, by name: one field at a time differs from the plain request of its kind."""

WHOLE: dict[str, Call] = {
    "forget u": lambda backend: backend.forget_user("u"),
    "forget nobody": lambda backend: backend.forget_user("nobody"),
    "purge": lambda backend: backend.purge(1_000),
    "purge for v": lambda backend: backend.purge(1_000, scope="v"),
}
"""Requests about the store as a whole."""

PROMISES: Mapping[str, str] = {
    "store": "store_messages creates, or replaces all messages; keeps created_at. All or nothing.",
    "append": "append_messages is atomic and idempotent; each write renews a ttl; caps keep the newest.",
    "amend": "update_metadata and set_expiry give the new version, and MemoryNotFoundError if there is none.",
    "truncate": "truncate_conversation_after removes that message and all after it, and a summary that covers them.",
    "revise": "revise_messages is all or nothing, is a write like others, and a summary goes.",
    "fork": "a fork is another conversation, of the same owner, with the same messages, metadata and ttl.",
    "remove": "delete_conversation: True if it was there. Nothing of it remains.",
    "forget": "clear_user_conversations is complete, and safe beside others; nothing remains.",
    "purge": "purge_expired removes what has expired, and nothing else; each is counted once.",
}
"""The contract's line, by the first word of a request's name."""


def _others() -> list[Record]:
    return [
        _seed("taken", user_id="v"),
        _seed("taken-expired", user_id="v", expires_at=_ago(seconds=1)),
    ]


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


class _Case:
    """One request in all states, on the store and on the model."""

    def __init__(self, store: Store, request_name: str) -> None:
        self.store, self.name, self.model = store, request_name, Model()
        self.seeds: dict[str, Record] = {}
        self.texts: set[str] = set()

    async def seed(self) -> None:
        """Bring both into the same state."""
        one, other = await self.store.open(), await self.store.open()
        await one.open()
        await other.open()
        self.own, self.other = one.backend, other.backend
        records = [record for make in STATES.values() if (record := make()) is not None]
        for record in [*records, *_others()]:
            self.seeds[record.conversation_id] = record
            assert await self.own.write(record, expected=None) is True
            assert await self.model.write(record, expected=None) is True
        self.texts = {str(message.content) for record in self.seeds.values() for message in record.messages}

    async def alone(self) -> None:
        """Do the request once in each state."""
        await self.seed()
        for state in STATES:
            call = REQUESTS[self.name](state)
            expected, given = await told(self.model, call), await told(self.own, call)
            assert given == expected, self.failure(state, f"the answer must be {expected!r}, but is {given!r}")
            await self.compare(state, "once")
        await self.compare_whole()

    async def at_once(self) -> None:
        """Do it twice at once in each state."""
        await self.seed()
        for state in STATES:
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


def cells() -> int:
    """How many cells the table has: requests in states, alone and twice at once, and requests about the whole."""
    return 2 * len(REQUESTS) * len(STATES) + len(WHOLE)
