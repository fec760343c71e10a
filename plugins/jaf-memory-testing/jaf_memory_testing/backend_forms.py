"""What a backend overrides for speed, against the defaults over its four methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.backend import Backend
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.provider.base import ends
from jaf_memory_core.records import Amend, DeleteMessages, Fork, Origin, Record, Revise, Tail, Truncate, Write
from jaf_memory_core.results import WriteResult
from jaf_memory_core.values import freeze
from jaf_memory_testing.backends import records_of
from jaf_memory_testing.checks import Checks, examples, needs
from jaf_memory_testing.differential import IDS, USERS, queries, stored
from jaf_memory_testing.samples import FAR, at, said
from jaf_memory_testing.target import FourMethods, Store

_Call = Callable[[Backend, str], Awaitable[Any]]

MESSAGE_IDS = ("a", "A", "b", "c", "d")

message_ids = st.sampled_from(MESSAGE_IDS)
labels = st.dictionaries(st.sampled_from(("x", "y")), st.sampled_from((1, 1.0, None)), max_size=2).map(freeze)
versions = st.sampled_from((None, None, None, None, None, 0, 1, 2))
maybe_user = st.sampled_from((None, None, None, None, "u", "v"))


@st.composite
def messages(draw: st.DrawFn) -> list[Message]:
    """Messages with distinct ids, whose contents rarely differ."""
    keys = draw(st.lists(message_ids, max_size=5, unique=True))
    return [said(f"{key} {draw(st.sampled_from((1, 1, 1, 1, 2)))}", message_id=key) for key in keys]


@st.composite
def series(draw: st.DrawFn) -> list[_Call]:
    """Requests, of which the first makes the conversation."""
    user, metadata, batch = draw(maybe_user), draw(labels), draw(messages())
    first = Write("", tuple(batch), tuple(map(codec.encode, batch)), metadata, user, replace=True, create=True)

    def begin(backend: Backend, key: str) -> Awaitable[Any]:
        return backend.store(replace(first, conversation_id=key))

    return [begin, *draw(st.lists(calls(), min_size=4, max_size=12))]


@st.composite
def calls(draw: st.DrawFn) -> _Call:
    """One request to a backend, for a conversation that is named later."""
    kinds = (writes, writes, writes, amends, amends, truncates, deletes, revises, forks, reads, removes)
    scope = draw(maybe_user)
    return draw(draw(st.sampled_from(kinds))(scope))


def reads(scope: str | None) -> st.SearchStrategy[_Call]:
    """Reading the header, and a page with what may be asked for beside it."""
    leading = st.sampled_from((0, 0, 1, 3, 10**20))
    limits, positions = st.integers(0, 4), st.none() | st.integers(0, 9)
    after = st.sampled_from((None, None, -1, 0, 2, 10**20))
    tails = st.builds(Tail, st.just(""), limits, positions, st.just(scope), leading, st.booleans(), after)

    def call(tail: Tail) -> _Call:
        return lambda backend, key: _read(backend, replace(tail, conversation_id=key))

    return tails.map(call)


def truncates(scope: str | None) -> st.SearchStrategy[_Call]:
    """Cutting off."""
    return st.tuples(message_ids, versions).map(
        lambda asked: lambda backend, key: backend.truncate(Truncate(key, asked[0], scope, asked[1]))
    )


def deletes(scope: str | None) -> st.SearchStrategy[_Call]:
    """Deleting single messages."""
    some = st.lists(message_ids, max_size=3, unique=True).map(tuple)
    return st.tuples(some, versions).map(
        lambda asked: lambda backend, key: backend.delete_messages(DeleteMessages(key, asked[0], scope, asked[1]))
    )


def forks(scope: str | None) -> st.SearchStrategy[_Call]:
    """Copying."""
    ends = st.none() | message_ids
    return ends.map(lambda until: lambda backend, key: backend.fork(Fork(key, f"{key}-fork", until, scope)))


def removes(scope: str | None) -> st.SearchStrategy[_Call]:
    """Deleting."""
    return versions.map(lambda version: lambda backend, key: backend.remove(key, scope=scope, expected_version=version))


@st.composite
def revises(draw: st.DrawFn, scope: str | None) -> _Call:
    """Putting messages into the places of others."""
    new = draw(messages())
    old = draw(st.permutations(MESSAGE_IDS))[: len(new)]
    bodies = tuple(map(codec.encode, new))
    return lambda backend, key: backend.revise(Revise(key, tuple(old), tuple(new), bodies, scope))


@st.composite
def amends(draw: st.DrawFn, scope: str | None) -> _Call:
    """Changing metadata, owner or expiry."""
    metadata, user, ttl = draw(labels), draw(maybe_user), draw(st.sampled_from((UNSET, None, 600.0)))
    away = draw(st.sets(st.sampled_from(("x", "y")))) - metadata.keys() if draw(st.booleans()) else ()
    draft = Amend("", metadata, user, scope, ttl, removed=tuple(sorted(away)), expected_version=draw(versions))
    return lambda backend, key: backend.amend(replace(draft, conversation_id=key))


@st.composite
def writes(draw: st.DrawFn, scope: str | None) -> _Call:
    """A store or an append."""
    batch = draw(messages())
    cap = draw(st.none() | st.integers(1, 4))
    cut = max(0, len(batch) - cap) if cap else 0
    replacing = draw(st.booleans())
    draft = Write(
        conversation_id="",
        messages=tuple(batch[cut:]),
        bodies=tuple(map(codec.encode, batch[cut:])),
        metadata=draw(labels),
        user_id=draw(maybe_user) if scope is None else scope,
        scope=scope,
        replace=replacing,
        create=replacing or draw(st.sampled_from((True, True, False))),
        expected_version=draw(versions),
        ttl=draw(st.sampled_from((None, 600.0))),
        max_messages=cap,
        dropped=cut,
    )
    if replacing:
        return lambda backend, key: backend.store(replace(draft, conversation_id=key))
    return lambda backend, key: backend.append(replace(draft, conversation_id=key))


@st.composite
def appends(draw: st.DrawFn) -> Write:
    """An append, as an import or as an application makes it; its id is a digit."""
    batch, cap = draw(messages()), draw(st.none() | st.integers(1, 4))
    cut = max(0, len(batch) - cap) if cap else 0
    times = Origin(at(draw(st.integers(0, 3))), draw(st.none() | st.just(FAR)), draw(st.none() | st.just(600.0)))
    later = replace(times, active_at=at(draw(st.integers(4, 5))), updated_at=draw(st.none() | st.just(at(5))))
    origin = draw(st.sampled_from((times, later, None)))
    return Write(
        # Some come more often, so that several of a call are of one conversation.
        conversation_id=draw(st.sampled_from("0011234")),
        messages=tuple(batch[cut:]),
        bodies=tuple(map(codec.encode, batch[cut:])),
        metadata=draw(labels),
        user_id=draw(maybe_user),
        create=origin is not None or draw(st.booleans()),
        expected_version=draw(st.sampled_from((None, None, None, 0, 1))),
        ttl=draw(st.sampled_from((None, 600.0))),
        max_messages=cap,
        dropped=cut,
        origin=origin,
    )


class FormChecks(Checks):
    """What a backend overrides for speed gives what the defaults over its four methods give."""

    @needs("backend")
    def test_same_writes(self, store: Store) -> None:
        """Any series of requests has the same answers, and leaves the same record, in both forms."""
        provider = store.run(store.open())

        @examples(80)
        @given(series())
        def agree(requests: list[_Call]) -> None:
            store.run(self._compare_writes(store, provider, requests))

        agree()

    async def _compare_writes(self, store: Store, provider: Any, requests: list[_Call]) -> None:
        await store.empty(provider)
        own, default = provider.backend, FourMethods(provider.backend)
        for call in requests:
            assert await _answer(call, own, "own") == await _answer(call, default, "default")
            for kind in ("", "-fork"):
                assert timeless(await own.read(f"own{kind}")) == timeless(await own.read(f"default{kind}"))

    @needs("backend")
    def test_same_reads(self, store: Store) -> None:
        """Any query, tail and statistics give the same in both forms."""
        provider = store.run(store.open())

        @examples(60)
        @given(stored(), st.lists(queries(), max_size=4), st.integers(0, 4), st.none() | st.integers(0, 4))
        def agree(records: list[Record], asked: list[MemoryQuery], limit: int, before: int | None) -> None:
            beside = [(None, 0, False), ("u", limit, True), (None, 3, False)]
            tails = [Tail(key, limit, before, *more) for key in IDS for more in beside]
            tails += [Tail(key, limit, before, after=limit - 1) for key in IDS]
            store.run(self._compare_reads(store, provider, records, asked, tails))

        agree()

    async def _compare_reads(
        self, store: Store, provider: Any, records: list[Record], asked: list[MemoryQuery], tails: list[Tail]
    ) -> None:
        await store.empty(provider)
        own, default = provider.backend, FourMethods(provider.backend)
        for record in records:
            await own.write(record, expected=None)
        for query in asked:
            assert list(await own.find(query)) == list(await default.find(query))
        for tail in tails:
            assert await ends(own, tail) == await ends(default, tail)
        for user in (None, *USERS):
            assert await own.stats(user) == await default.stats(user)

    @needs("backend")
    def test_same_erasures(self, store: Store) -> None:
        """Clearing a user and purging remove the same, and count the same, in both forms."""
        provider = store.run(store.open())

        @examples(40)
        @given(stored(), st.sampled_from(USERS), st.sampled_from((None, *USERS)), st.integers(1, 4))
        def agree(records: list[Record], user: str, scope: str | None, limit: int) -> None:
            store.run(self._compare_erasures(store, provider, records, (user, scope, limit)))

        agree()

    async def _compare_erasures(
        self, store: Store, provider: Any, records: list[Record], asked: tuple[str, str | None, int]
    ) -> None:
        user, scope, limit = asked
        left = []
        for backend in (provider.backend, FourMethods(provider.backend)):
            await store.empty(provider)
            for record in records:
                await provider.backend.write(record, expected=None)
            purged = await backend.purge(limit, scope=scope)
            cleared = await backend.forget_user(user)
            standing = {record.conversation_id for record in await records_of(provider.backend, MemoryQuery())}
            expired = {record.conversation_id for record in records if record.expires_at == at(10)}
            # Which of the expired ones a limited purge takes is its own choice.
            left.append((purged, cleared, standing - expired, len(standing)))
        assert left[0] == left[1]

    @needs("backend")
    def test_same_appends(self, store: Store) -> None:
        """`append_many` gives the same answers, and leaves the same records, as one `append` after the other."""
        provider = store.run(store.open())

        @examples(60)
        @given(st.lists(st.lists(appends(), max_size=6), min_size=1, max_size=3))
        def agree(calls: list[list[Write]]) -> None:
            store.run(self._compare_appends(store, provider, calls))

        agree()

    async def _compare_appends(self, store: Store, provider: BackendProvider, calls: list[list[Write]]) -> None:
        await store.empty(provider)
        own, default = provider.backend, FourMethods(provider.backend)
        for writes in calls:
            assert await _answers(own, "own", writes) == await _answers(default, "default", writes)
            for key in "01234":
                ours, theirs = await own.read(f"own{key}"), await own.read(f"default{key}")
                assert timeless(ours) == timeless(theirs)
                created = [one.created_at for one in (ours, theirs) if one is not None]
                if created and min(created) <= at(3):  # a time of an import's own
                    assert created[0] == created[-1]


async def _read(backend: Backend, tail: Tail) -> Any:
    header = await backend.header(tail.conversation_id, scope=tail.scope)
    page = await ends(backend, tail)
    return page and replace(page, header=timeless(page.header)), timeless(header and replace(header, messages=()))


async def _answer(call: _Call, backend: Backend, key: str) -> Any:
    try:
        return await call(backend, key)
    except MemoryError as error:
        return type(error), getattr(error, "expected_version", None), getattr(error, "actual_version", None)


def timeless(record: Record | None) -> Any:
    """What two records have in common that were made in the same way, one a little later than the other."""
    if record is None:
        return None
    moment = at(0)
    return replace(
        record,
        conversation_id="",
        incarnation="",
        created_at=moment,
        updated_at=moment,
        expires_at=None if record.expires_at is None else moment,
    )


async def _answers(backend: Backend, name: str, writes: list[Write]) -> list[Any]:
    asked = [replace(write, conversation_id=f"{name}{write.conversation_id}") for write in writes]
    answers: dict[int, Any] = {}
    while waiting := [index for index in range(len(asked)) if index not in answers]:
        some = await backend.append_many([asked[index] for index in waiting])
        assert len(some) == len(waiting)
        assert any(answer is not None for answer in some), "nothing was tried"
        answers |= {index: answer for index, answer in zip(waiting, some, strict=True) if answer is not None}
    return [_told(answers[index]) for index in range(len(asked))]


def _told(answer: WriteResult | MemoryError) -> Any:
    if isinstance(answer, WriteResult):
        return answer
    return type(answer), getattr(answer, "expected_version", None), getattr(answer, "actual_version", None)
