"""What a store must show, from the rules in plain Python: the defaults of `Backend` over a dict, to compare with."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from jaf_memory_core import codec, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.provider.base import ends
from jaf_memory_core.records import Damaged, Page, Record, Stamp, Tail

Call = Callable[[Backend], Awaitable[Any]]

BUCKET = 300.0
"""Seconds within which two times count as the same moment after now; what checks ask for is further apart."""


class Model(Backend):
    """A dict of records: every answer comes from `rules` and `forks` by way of the defaults."""

    name = "model"
    waits = False

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def now(self) -> datetime:
        """The time of this machine."""
        return datetime.now(UTC)

    async def read(self, conversation_id: str) -> Record | None:
        """What stands in the dict."""
        return self.records.get(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put it there, if that still stands."""
        standing = self.records.get(record.conversation_id)
        if (standing and standing.stamp) != expected:
            return False
        self.records[record.conversation_id] = record
        return True

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Take it out, if that still stands."""
        standing = self.records.get(conversation_id)
        if standing is None or standing.stamp != expected:
            return False
        del self.records[conversation_id]
        return True

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        """All in order of creation, beyond the cursor."""
        above = rules.creation_cursor(query)
        for record in sorted(self.records.values(), key=rules.creation_key):
            if above is None or rules.creation_key(record) > above:
                yield record


async def tried(backend: Backend, call: Call, patience: int = 8) -> Any:
    """What a request answers, or its error as ours; what a store refuses for the moment is asked again."""
    for attempt in range(patience):
        try:
            return await call(backend)
        except MemoryError as error:
            problem = error
        except backend.driver_errors as error:
            problem = backend.translate(error, "check")
        if not (problem.retryable and problem.outcome == "not_applied" and attempt + 1 < patience):
            return problem
        await asyncio.sleep(0.01 * 2**attempt)
    raise AssertionError("not reached")


async def told(backend: Backend, call: Call) -> Any:
    """What a request answers, or its error's kind and `outcome`."""
    answer = await tried(backend, call)
    return (type(answer).__name__, answer.outcome) if isinstance(answer, MemoryError) else answer


MOMENTS = ("created_at", "active_at", "updated_at", "expires_at")
"""Fields of a record that hold a time."""


class Seeds(dict[str, Record]):
    """Records as they were written, by id, and by which times and incarnations they are known again."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__({one.conversation_id: one for one in records})
        self.moments = {field: {getattr(one, field) for one in self.values()} for field in MOMENTS}
        self.incarnations = {one.incarnation for one in self.values()}


def shown(record: Record | None, seeds: Seeds) -> Any:
    """A live record field by field; a time as the one that the seed had, or as so long from now."""
    if record is None or rules.live(record, datetime.now(UTC)) is None:
        return None  # a store may let go of what has expired when it likes
    seed = seeds.get(record.conversation_id)
    found: dict[str, Any] = {}
    for field in record.__struct_fields__:
        value = getattr(record, field)
        if field == "incarnation":
            known = value in seeds.incarnations
            value = "as seeded" if seed and value == seed.incarnation else "another's" if known else "new"
        elif field == "messages":
            value = [codec.encode(message) for message in value]
        elif field == "metadata":
            value = codec.canonical(value)
        elif isinstance(value, datetime):
            value = _moment(value, seeds.moments[field])
        found[field] = value
    return found


def _moment(value: datetime, seeded: AbstractSet[datetime | None]) -> str:
    if value in seeded:
        return value.isoformat()
    return f"now + {BUCKET * round((value - datetime.now(UTC)).total_seconds() / BUCKET):g} s"


AHEAD: tuple[tuple[int, int, int | None], ...] = ((2, 2, None), (3, 9, None), (1, 2, 2), (60, 60, 65_535))
"""Pages with so many first messages, and the header, beside them: how many, of how many, before which position."""

TAILS: tuple[tuple[int, int | None, int | None], ...] = (
    *((50, None, None), (3, None, None), (0, None, None), (1, 2, None), (3, 9, None), (3, 65_537, None), (3, 0, None)),
    *((60, None, -1), (2, None, 1), (2, None, 8), (2, 3, 0), (3, None, 65_534)),
)
"""Pages that are looked at after each request."""


@functools.cache
def looks(key: str, *, pages: bool = True) -> Mapping[str, Call]:
    """All ways to look at one conversation, by what is asked."""
    headers = {f"header, scope={scope!r}": _header(key, scope) for scope in (None, "u")}
    tails = {
        f"tail, limit={limit}, before={before}, after={after}": _tail(Tail(key, limit, before, after=after))
        for limit, before, after in TAILS
    }
    ahead = {
        f"tail, limit={limit}, before={before}, leading={leading}, with its header": _tail(
            Tail(key, limit, before, leading=leading, with_header=True)
        )
        for limit, leading, before in AHEAD
    }
    return {"read": lambda backend: backend.read(key), **headers, **({**tails, **ahead} if pages else {})}


def _header(key: str, scope: str | None) -> Call:
    return lambda backend: backend.header(key, scope=scope)


def _tail(tail: Tail) -> Call:
    return lambda backend: ends(backend, tail)


def comparable(found: Any, seeds: Seeds) -> Any:
    """What a look gave, as it can be compared."""
    if isinstance(found, Page):
        places = [found.position(index) for index in range(len(found.messages))]
        messages, ahead = ([codec.encode(one) for one in some] for some in (found.messages, found.leading or ()))
        return messages, places, found.first, found.more, found.end, ahead, shown(found.header, seeds)
    return shown(found, seeds) if isinstance(found, Record) else found


async def observed(backend: Backend, key: str, seeds: Seeds, *, pages: bool = True) -> dict[str, Any]:
    """All that can be seen of one conversation, by what was asked."""
    return {way: comparable(await look(backend), seeds) for way, look in looks(key, pages=pages).items()}


QUERIES: Mapping[str, MemoryQuery] = {
    "of u": MemoryQuery(user_id="u"),
    "of v, without messages": MemoryQuery(user_id="v", include_messages=False),
    "of nobody": MemoryQuery(user_id="nobody"),
    "by trace": MemoryQuery(trace_id="t"),
    "by metadata": MemoryQuery(metadata={"a": 1}),
    "by owner in metadata": MemoryQuery(metadata={"user_id": "u"}),
    "the newest": MemoryQuery(limit=1),
    "the newest of u by metadata": MemoryQuery(user_id="u", metadata={"a": 1}, limit=1),
    "all": MemoryQuery(),
}
"""What is looked for after a request, by name."""


async def surveyed(backend: Backend, seeds: Seeds) -> dict[str, Any]:
    """All that can be seen of the store as a whole: indexes by find, order by scan, counts and sizes."""
    seen: dict[str, Any] = {}
    for name, query in QUERIES.items():
        found = [shown(one, seeds) if isinstance(one, Record) else repr(one) for one in await backend.find(query)]
        seen[f"find {name}"] = _ordered(found, query)
    passed = [one async for one in backend.scan(MemoryQuery())]
    assert not any(isinstance(one, Damaged) for one in passed), "a sound record is called damaged"
    records = [shown(one, seeds) for one in passed if isinstance(one, Record)]
    seen["scan"] = sorted((_unplaced(one) for one in records if one is not None), key=_key)
    for user in (None, "u", "v"):
        stats = await backend.stats(user)
        ends = [moment and _moment(moment, seeds.moments["created_at"]) for moment in (stats.oldest, stats.newest)]
        seen[f"stats of {user!r}"] = (stats.conversations, stats.messages, stats.size, *ends)
    return seen


def _unplaced(one: Any) -> Any:
    return one if one is None or isinstance(one, str) else {**one, "positions": "left out"}


def _ordered(found: list[Any], query: MemoryQuery) -> Any:
    found = [_unplaced(one) for one in found]
    if not query.include_messages:
        found = [{**one, "messages": "left out"} for one in found]
    if query.limit is not None:
        return len(found)  # which is the newest of those that were written just now is the clock's choice
    return sorted(found, key=_key)


def _key(one: Any) -> str:
    return str(one["conversation_id"])


def differences(expected: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What differs, as a reader can use it: where, what must be there, what is there."""
    lines = []
    for name, value in expected.items():
        if given[name] != value:
            lines.append(f"{name}:\n    must be {_short(value)}\n    but is  {_short(given[name])}")
            if isinstance(value, dict) and isinstance(given[name], dict):
                other = given[name]
                lines[-1] = "\n".join(
                    f"{name}: {field} must be {_short(value[field])}, but is {_short(other[field])}"
                    for field in value
                    if value[field] != other[field]
                )
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} … {text[-150:]} ({len(text)} characters)"
