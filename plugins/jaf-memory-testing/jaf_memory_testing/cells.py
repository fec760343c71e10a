"""Rows and columns of the table: the states that a conversation can be in, and requests about it.

What cannot happen is left out: a missing conversation has no owner, an empty one no summary, and a fork takes no cap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.messages import Message
from jaf_memory_core.records import (
    Amend,
    DeleteMessages,
    Fork,
    Origin,
    Record,
    Revise,
    Stamp,
    Truncate,
    Write,
    new_incarnation,
)
from jaf_memory_core.values import freeze
from jaf_memory_testing.checks import in_full
from jaf_memory_testing.model import Call
from jaf_memory_testing.samples import said


def _messages(name: str, count: int) -> tuple[Message, ...]:
    return tuple(said(f"({name}) text {n};", message_id=f"m{n}") for n in range(count))


def seed(name: str, count: int = 5, **fields: Any) -> Record:
    """A conversation of that id; its texts and its label `of` hold the id in brackets."""
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


# As `stored_form` has it: a store may go by its first member.
_SUMMARY = {rules.SUMMARY: {"position": 1, "message_id": "m1", "text": "what was said", "kept": []}, "a": 1}

State = Callable[[str], Record | None]


def _with_gaps(name: str, positions: tuple[int, ...], end: int, **fields: Any) -> Record:
    """Messages at these positions; what stood at others was deleted."""
    gaps = end - positions[0] - len(positions)
    placed = {"first_position": positions[0], "positions": positions, "gaps": gaps, "trimmed": True}
    return seed(name, len(positions), **placed, **fields)


def _of_length(count: int) -> State:
    return lambda name: seed(name, count)


STATES: dict[str, State] = {
    "missing": lambda _name: None,
    "live": seed,
    "one": lambda name: seed(name, 1),
    "empty": lambda name: seed(name, 0),
    "nobodys": lambda name: seed(name, user_id=None),
    "anothers": lambda name: seed(name, user_id="v"),
    "expired": lambda name: seed(name, expires_at=_ago(seconds=1)),
    "expired-renewing": lambda name: seed(name, expires_at=_ago(seconds=1), ttl=600),
    "anothers-expired": lambda name: seed(name, user_id="v", expires_at=_ago(seconds=1)),
    "renewing": lambda name: seed(name, expires_at=_ago(seconds=-3600), ttl=600),
    "ending": lambda name: seed(name, expires_at=_ago(seconds=-3600)),
    "trimmed": lambda name: seed(name, first_position=7, trimmed=True),
    # The next messages pass 2**16; `much-written` stands beyond 2**31.
    "far-trimmed": lambda name: seed(name, first_position=65_533, trimmed=True),
    "gaps": lambda name: _with_gaps(name, (0, 1, 2, 6, 9), 11),
    "gaps-far": lambda name: _with_gaps(name, (65_530, 65_534, 65_536), 65_537),
    "gaps-wide": lambda name: _with_gaps(name, (0, 20, 40), 41),
    "gap-of-one": lambda name: _with_gaps(name, (1, 3), 4, metadata=freeze(_SUMMARY)),
    "gap-at-the-end": lambda name: _with_gaps(name, (2, 3, 4), 6),
    "summarised": lambda name: seed(name, metadata=freeze(_SUMMARY)),
    "before-1970": lambda name: seed(name, created_at=_ago(days=45_000), updated_at=_ago(days=21_000)),
    "from-the-future": lambda name: seed(name, updated_at=_ago(days=-1)),
    "amended": lambda name: seed(name, active_at=_ago(hours=1.5)),
    "much-written": lambda name: seed(name, version=2**31 + 5),
    # On either side of a page that a store may read in a way of its own.
    "50": lambda name: seed(name, 50),
    "51": lambda name: seed(name, 51),
    **({f"{n}": _of_length(n) for n in (49, 1_000, 1_001)} if in_full() else {}),
}
"""States of a conversation, by name: what makes a record in that state, of an id."""

LONG: dict[str, State] = {"70,000": _of_length(70_000)}
"""More messages than 16 bits count."""

THOUSAND: dict[str, State] = {"1,001": _of_length(1_001)}
"""More messages than a page of a driver may have."""


def _write(key: str, texts: Mapping[str, str], **fields: Any) -> Write:
    messages = tuple(said(text, message_id=one) for one, text in texts.items())
    return Write(key, messages, tuple(map(codec.encode, messages)), **fields)


def _held(key: str) -> dict[str, str]:
    return {"m0": f"({key}) text 0;"}


LONG_TEXT = 20_000
"""Characters of a text that a store may take for a long one."""


def _texts(count: int, characters: int = 0) -> dict[str, str]:
    return {f"n{n}": f"new text {n}".ljust(characters, ".") for n in range(count)}


NEW = _texts(2)

_Make = Callable[[str], Call]


def _store(texts: Mapping[str, str] = NEW, **fields: Any) -> _Make:
    return lambda key: lambda backend: backend.store(_write(key, texts, replace=True, create=True, **fields))


def _append(texts: Mapping[str, str] = NEW, **fields: Any) -> _Make:
    return lambda key: lambda backend: backend.append(_write(key, texts, **fields))


def _amend(**fields: Any) -> _Make:
    return lambda key: lambda backend: backend.amend(Amend(key, **fields))


def _delete(*ids: str, **fields: Any) -> _Make:
    return lambda key: lambda backend: backend.delete_messages(DeleteMessages(key, ids, **fields))


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
    # A store may have a way of its own for so many, and for so much.
    **{f"append {count}": _append(_texts(count)) for count in (1, 3, 4, 5)},
    **{f"append {count}, {LONG_TEXT:,} characters each": _append(_texts(count, LONG_TEXT)) for count in (1, 2, 3, 4)},
    "append many": _bulk(NEW, {"n1": NEW["n1"], "n2": "new text 2"}, create=True, user_id="u"),
    "append many under a cap": _bulk(NEW, {"n2": "new text 2"}, max_messages=2),
    "amend metadata": _amend(metadata=freeze({"a": None, "b": {"c": 1}})),
    "amend to empty values": _amend(metadata=freeze({"a": "", "b": [], "c": {}, "trace_id": 0})),
    "amend to what stands": _amend(metadata=freeze({"a": 1})),
    "amend nothing": _amend(),
    "amend for u": _amend(metadata=freeze({"b": 1}), scope="u"),
    "amend for w": _amend(metadata=freeze({"b": 1}), scope="w"),
    "amend too much": _amend(metadata=freeze({"b": "x" * 90}), max_metadata_bytes=100),
    "amend the owner": _amend(user_id="u"),
    "amend to expire": _amend(ttl=600.0),
    "amend to stay": _amend(ttl=None),
    "amend away": _amend(metadata=freeze({"b": 1}), removed=("a", "trace_id", "none")),
    "amend at version 3": _amend(metadata=freeze({"b": 1}), expected_version=3),
    "amend at a state": _amend(metadata=freeze({"b": 1}), expected=Stamp("0" * 16, 3)),
    "truncate": lambda key: lambda backend: backend.truncate(Truncate(key, "m1")),
    "truncate near the end": lambda key: lambda backend: backend.truncate(Truncate(key, "m3")),
    "truncate all": lambda key: lambda backend: backend.truncate(Truncate(key, "m0")),
    "truncate at what is not there": lambda key: lambda backend: backend.truncate(Truncate(key, "none")),
    "truncate at version 3": lambda key: lambda backend: backend.truncate(Truncate(key, "m1", expected_version=3)),
    "truncate for u": lambda key: lambda backend: backend.truncate(Truncate(key, "m0", "u")),
    "delete messages": _delete("m3", "m1"),
    "delete messages at the beginning": _delete("m0"),
    "delete messages at the beginning and more": _delete("m0", "m1", "m3"),
    "delete messages at the end": _delete("m4", "m50", "m1000"),
    "delete messages that are not there": _delete("none", "M1"),
    "delete messages, of which some are there": _delete("none", "m2", "also none"),
    "delete messages, all of them": _delete(*(f"m{n}" for n in range(1_001))),
    "delete messages at version 3": _delete("m1", expected_version=3),
    "delete messages that are not there at version 3": _delete("none", expected_version=3),
    "delete messages for u": _delete("m1", scope="u"),
    "delete messages for w": _delete("m1", scope="w"),
    "delete no messages": _delete(),
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
    "fork until a later message": _fork("m3"),
    "fork until what is not there": _fork("none"),
    "fork for u": _fork(scope="u"),
    "fork to itself": _fork(new="{}"),
    "fork to what has expired": _fork(new="taken-expired"),
    "fork to what is there": _fork(new="taken"),
    "remove": lambda key: lambda backend: backend.remove(key),
    "remove for u": lambda key: lambda backend: backend.remove(key, scope="u"),
    "remove at version 3": lambda key: lambda backend: backend.remove(key, scope="u", expected_version=3),
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
    "delete": "delete_messages removes these messages and nothing else; positions of the others stay.",
    "revise": "revise_messages is all or nothing, is a write like others, and a summary goes.",
    "fork": "a fork is another conversation, of the same owner, with the same messages, metadata and ttl.",
    "remove": "delete_conversation: True if it was there. Nothing of it remains.",
    "forget": "clear_user_conversations is complete, and safe beside others; nothing remains.",
    "purge": "purge_expired removes what has expired, and nothing else; each is counted once.",
}
"""The contract's line, by the first word of a request's name."""


def others() -> list[Record]:
    """Conversations whose ids a fork may meet."""
    return [
        seed("taken", user_id="v"),
        seed("taken-expired", user_id="v", expires_at=_ago(seconds=1)),
    ]


def cells() -> int:
    """How many cells the table has: requests in states, alone and twice at once, and requests about the whole."""
    return 2 * len(REQUESTS) * len(STATES) + len(WHOLE)
