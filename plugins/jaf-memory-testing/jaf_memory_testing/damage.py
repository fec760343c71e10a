"""What cannot be read, damaged or of a newer format: told by name, never answered in part, in nobody's way.

The target damages the stored form (`Target.damage`, `Target.newer`). What may come of a request follows from the rules:
the answer that a sound conversation would give, or a refusal that names it. There is no third.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError, MemoryStorageError
from jaf_memory_core.hits import MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Record
from jaf_memory_core.results import Failure
from jaf_memory_testing.cells import PROMISES, REQUESTS, STATES, State, others, seed
from jaf_memory_testing.checks import Checks, in_full, needs
from jaf_memory_testing.expectations import absent, done, whole
from jaf_memory_testing.model import QUERIES, Call, Model, Seeds, comparable, looks, tried
from jaf_memory_testing.samples import OPERATIONS, ids, talk
from jaf_memory_testing.target import Store, left_to_default

PROMISE = (
    "A stored value that cannot be read (damaged, of a newer format, of inconsistent parts) is a MemoryStorageError "
    "that names the conversation and what to do; a listing names it, and goes on behind it where the caller asks for "
    "that."
)
"""The contract's line."""

WORDS = tuple(word for word in PROMISES if any(name.split()[0] == word for name in REQUESTS))
"""The kinds of requests about one conversation."""

REFUSED = "a MemoryStorageError that names it"

FEW = 6
"""So many requests of a kind meet each way of damage in the short form, too."""


class DamageChecks(Checks):
    """Conversations whose stored form cannot be read."""

    @needs("backend", "damage")
    @pytest.mark.parametrize("word", WORDS)
    async def test_table_of_the_damaged(self, store: Store, word: str) -> None:
        """A request for what cannot be read comes to what it would for a sound one, or is refused by name."""
        cells = _cells(store, word)
        case = await _Case(store).begun(cells)
        for kind, name in cells:
            await case.request(kind, name)

    @needs("backend", "damage")
    @pytest.mark.parametrize("word", WORDS)
    async def test_table_of_the_thinned_and_damaged(self, store: Store, word: str) -> None:
        """The same holds where single messages were deleted before, and what is left has to be looked for."""
        cells = _cells(store, word)
        case = await _Case(store, STATES["gaps"]).begun(cells)
        for kind, name in cells:
            await case.request(kind, name)

    @needs("backend", "damage")
    async def test_listings_go_on(self, store: Store) -> None:
        """A listing names what cannot be read, once, and goes on behind it where the caller asks for that."""
        case = await _Case(store).begun([(kind, name) for kind in store.target.damage for name in ("one", "other")])
        for name, query in QUERIES.items():
            if query.limit is None:
                for way in ("find_conversations", "iter_conversations"):
                    await case.listing(name, query, way)

    @needs("backend", "damage")
    async def test_last_messages_go_on(self, store: Store) -> None:
        """The last messages of several, and a search, name what cannot be read, once, and give what else there is."""
        case = await _Case(store).begun([(kind, name) for kind in store.target.damage for name in ("one", "other")])
        must = {key: one.messages[-1] for key, one in case.seeds.items() if one.expires_at is None}
        for name in ("get_last_messages", "search_messages"):
            told: list[MemoryStorageError] = []
            found = await _last(case.provider, name, list(case.seeds), told.append)
            named = [error.conversation_id for error in told if case.judged(error) == REFUSED]
            assert len(set(named)) == len(named), case.failure(name, f"names some twice: {named}")
            given = {key: found.get(key) for key in must if key not in named}
            expected = {key: must[key] for key in given}
            assert given == expected, case.failure(name, f"gives {given}, must be {expected}; it named {named}")
            assert found.keys() <= must.keys() - set(named), case.failure(name, f"gives {sorted(found)}")
            if named:
                with pytest.raises(MemoryStorageError) as caught:
                    await _last(case.provider, name, list(case.seeds), "raise")
                case.judged(caught.value)

    @needs("backend", "damage")
    async def test_damage_is_in_nobodys_way(self, store: Store) -> None:
        """Beside what cannot be read others are counted, purged, written and erased as ever, or are told of it."""
        case = await _Case(store).begun([(kind, "it") for kind in store.target.damage])
        for user in (None, "u", "v"):
            given = await tried(case.backend, _stats(user))
            expected = await case.model.stats(user)
            right = case.judged(given) == REFUSED or _counts(given) == _counts(expected)
            assert right, case.failure("get_stats", f"counted {given!r}, must be {expected!r} or a refusal")
        purged = await case.provider.purge_expired()
        assert purged <= 1, case.failure("purge", f"counted {purged}, where one has expired")
        done(await case.provider.append_messages("taken", talk(1, "more")))
        assert await case.provider.delete_conversation("taken") is True
        done(await case.provider.store_messages("new", talk(2), user_id="u"))
        refused = await tried(case.backend, lambda backend: backend.forget_user("u"))
        if case.judged(refused, in_steps=True) == REFUSED and not _of_a_newer_version(refused):
            assert left_to_default(case.backend, "forget_user"), case.failure("forget u", f"was refused: {refused!r}")
        await absent(case.provider, "new")

    @needs("backend", "damage")
    async def test_damage_can_be_erased(self, store: Store) -> None:
        """What cannot be read is deleted, alone and with its user; nothing of it remains, and its id is free."""
        backend = (await store.open()).backend
        if left_to_default(backend, "remove"):
            pytest.skip("the backend leaves 'remove' to its default, which has to read what it removes")
        case = await _Case(store).begun_erasable("alone", "with its user")
        for kind in case.ways:
            one = _key(kind, "alone")
            assert await case.provider.delete_conversation(one) is True, case.failure(
                "remove", f"says {one!r} was not there"
            )
            await absent(case.provider, one)
        if not left_to_default(case.backend, "forget_user"):
            counted = await case.provider.clear_user_conversations("u")
            assert counted == len(case.ways), case.failure("forget u", f"counted {counted}")
        if store.target.dump is not None and not store.target.lacks("dump"):
            kept = [key for key in case.damaged if f"({key})" in repr(await store.target.dump())]
            kept = kept if not left_to_default(case.backend, "forget_user") else [key for key in kept if "alone" in key]
            assert not kept, case.failure("remove", f"a dump still holds some of {kept}")
        for kind in case.ways:
            one = _key(kind, "alone")
            done(await case.provider.store_messages(one, talk(2), user_id="v"))
            assert ids((await whole(case.other, one)).messages) == ["m0", "m1"]

    @needs("backend", "newer")
    async def test_a_newer_format(self, store: Store) -> None:
        """What a newer version wrote is refused by reads and writes, stays as it is, and the error says what to do."""
        done(await (await store.open()).store_messages("c", talk(2), user_id="u"))
        assert store.target.newer is not None
        await store.target.newer("c")
        before = await _dumped(store)
        for name, call in _calls():
            error = await _opened_and_asked(store, call)
            kinds = (MemoryStorageError, MemoryConfigurationError)
            assert isinstance(error, kinds), f"{name} of what a newer version wrote gives {error!r}\n  {PROMISE}"
            assert "upgrade" in str(error), f"the error for a newer format must say what to do: {error}"
            assert getattr(error, "conversation_id", None) in (None, "c")
            assert await _dumped(store) == before, f"{name} has changed what a newer version wrote"


def _key(kind: str, name: str) -> str:
    return f"{kind}: {name}"


def _of_a_newer_version(answer: Any) -> bool:
    return isinstance(answer, MemoryStorageError) and "upgrade" in str(answer)


def _stats(user: str | None) -> Call:
    return lambda backend: backend.stats(user)


def _counts(stats: Any) -> tuple[int, int, int]:
    return stats.conversations, stats.messages, stats.size


def _calls() -> Iterator[tuple[str, Callable[[BackendProvider], Awaitable[Any]]]]:
    about_others = {"open", "renew_lease", "release_lease", "clear_user_conversations", "purge_expired", "get_stats"}
    for name, call in OPERATIONS.items():
        if name not in {*about_others, "delete_conversation", "import_conversation", "import_conversations"}:
            yield name, call


async def _opened_and_asked(store: Store, call: Callable[[BackendProvider], Awaitable[Any]]) -> Any:
    try:
        provider = await store.target.open()
    except MemoryError as error:
        return error
    try:
        answer = await call(provider)
    except MemoryError as error:
        return error
    finally:
        await provider.close()
    return answer.error if isinstance(answer, Failure) else answer


async def _dumped(store: Store) -> Any:
    return None if store.target.dump is None or store.target.lacks("dump") else await store.target.dump()


async def _asked(backend: Any, call: Call) -> Any:
    try:
        return await tried(backend, call)
    except Exception as error:
        if isinstance(backend, Model):
            raise
        raise AssertionError(f"what cannot be read raises {type(error).__name__}: {error}. {PROMISE}") from error


def _cells(store: Store, word: str) -> list[tuple[str, str]]:
    """Ways of damage and requests of a kind: in the short form each with each only where there are few."""
    names = [name for name in REQUESTS if name.split()[0] == word]
    ways = list(store.target.damage)
    if in_full() or len(names) <= FEW:
        return [(kind, name) for kind in ways for name in names]
    met = [name for name in names if name == names[0] or " cap" in name]  # a cap has to find where to cut
    rest = [name for name in names if name not in met]
    return [(kind, name) for kind in ways for name in met] + [
        (ways[place % len(ways)], name) for place, name in enumerate(rest)
    ]


class _Case:
    """Conversations on the store, each damaged in one way and for one request; and the same, sound, on the model."""

    def __init__(self, store: Store, state: State = seed) -> None:
        self.store, self.model, self.state = store, Model(), state
        self.copies = {"taken-expired"}  # what a fork may have copied damage to

    async def begun(self, cells: Sequence[tuple[str, str]]) -> _Case:
        """Write a conversation for each way of damage and name, and others; damage them."""
        await self._open()
        self.damaged = {_key(kind, name): kind for kind, name in cells}
        self.seeds = Seeds((*filter(None, map(self.state, self.damaged)), *others()))
        for record in self.seeds.values():
            assert await self.backend.write(record, expected=None) is True
            assert await self.model.write(record, expected=None) is True
        for key, kind in self.damaged.items():
            await self.store.target.damage[kind](key)
            found = self.judged(await _asked(self.other.backend, looks(key)["read"]))
            assert found == REFUSED, self.failure("read", f"gives {found!r}")
        return self

    async def begun_erasable(self, *names: str) -> _Case:
        """The same without newer formats: what else a newer version keeps of a conversation, this one cannot erase."""
        await self._open()
        self.ways = [kind for kind in self.store.target.damage if not await self._is_newer(kind)]
        return await self.begun([(kind, name) for kind in self.ways for name in names])

    async def _open(self) -> None:
        self.provider, self.other = await self.store.open(), await self.store.open()
        await self.provider.open()
        await self.other.open()
        self.backend = self.provider.backend

    async def _is_newer(self, kind: str) -> bool:
        record = seed(f"looked at for {kind}", user_id="w")
        assert await self.backend.write(record, expected=None) is True
        await self.store.target.damage[kind](record.conversation_id)
        return _of_a_newer_version(await tried(self.backend, looks(record.conversation_id)["read"]))

    async def request(self, kind: str, name: str) -> None:
        """Make a request: it is refused, and nothing has changed, or comes to what it would for a sound one."""
        key = _key(kind, name)
        call = REQUESTS[name](key)
        before = dict(self.model.records)
        expected = self.judged(await tried(self.model, call))
        given = self.judged(await _asked(self.backend, call))
        if name.startswith("append many"):
            right = all(one in (may, "MemoryStorageError") for one, may in zip(given, expected, strict=True))
            assert right, self.failure(name, f"answers {given!r}, must be {expected!r} or refused")
            return
        right = given in (REFUSED, expected)
        assert right, self.failure(name, f"answers {given!r}, must be {expected!r} or {REFUSED}")
        if given == REFUSED:
            self.model.records = before
        for seen in (key, f"fork of {key}", "taken-expired"):
            await self.compare(name, seen)

    async def compare(self, name: str, key: str) -> None:
        """Look at a conversation: what is shown is right, or refused."""
        for way, look in looks(key).items():
            must = comparable(await tried(self.model, look), self.seeds)
            found = comparable(self.judged(await _asked(self.other.backend, look)), self.seeds)
            assert found in (REFUSED, must), self.failure(name, f"{way} of {key!r} gives {found!r}, must be {must!r}")

    def judged(self, answer: Any, *, in_steps: bool = False) -> Any:
        """The answer, or `REFUSED`, or another error's kind and `outcome`; of steps some may have been done."""
        if not isinstance(answer, MemoryError):
            return answer
        if type(answer) is not MemoryStorageError:
            return type(answer).__name__, answer.outcome
        told, named = _told(answer), answer.conversation_id
        shown = [key for key in self.damaged if f"({key})" in told]
        for text, wrong in (
            (f"names {named!r}", named is None or named.removeprefix("fork of ") not in {*self.damaged, *self.copies}),
            ("does not say that nothing was written", answer.outcome != "not_applied" and not in_steps),
            ("says that another try may help", answer.retryable),
            ("shows content", bool(shown)),
        ):
            assert not wrong, self.failure("the error", f"{text}: {answer!r}")
        return REFUSED

    async def listing(self, name: str, query: MemoryQuery, way: str) -> None:
        """Look for conversations, going on behind what is damaged, and strictly."""
        right = [one.conversation_id for one in await self.model.find(query) if isinstance(one, Record)]
        wanted = set(right)
        in_order = sorted(self.model.records.values(), key=lambda one: (one.created_at, one.conversation_id))
        if way == "iter_conversations":
            right = [one.conversation_id for one in in_order if one.conversation_id in wanted]
        told: list[MemoryStorageError] = []
        seen = await _listed(self.provider, way, query, told.append)
        named = [str(error.conversation_id) for error in told if self.judged(error) == REFUSED]
        what = f"{way} {name}"
        assert len(set(named)) == len(named), self.failure(what, f"names some twice: {named}")
        must = [key for key in right if key not in self.damaged or key in seen]
        assert seen == must, self.failure(what, f"gives {seen}, must be {must}")
        if query.include_messages and not query.metadata and not query.trace_id:  # an index need not lead to it
            silent = [key for key in right if key in self.damaged and key not in named]
            assert not silent, self.failure(what, f"leaves out {silent}, and says nothing")
            if wanted & set(self.damaged):
                with pytest.raises(MemoryStorageError) as caught:
                    await _listed(self.provider, way, query, "raise")
                self.judged(caught.value)

    def failure(self, what: str, came: str) -> str:
        """Promise, what was done, and what came of it."""
        return (
            f"{what}: {came}\n  the promise: {PROMISE}\n  what was done: {len(self.damaged)} records were written; "
            f"each was damaged in the way that its id begins with (Target.damage); then {what}; then another provider "
            "looked"
        )


def _told(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts += [str(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    return " ".join(texts)


async def _listed(provider: BackendProvider, way: str, query: MemoryQuery, on_damaged: Any) -> list[str]:
    if way == "find_conversations":
        return [one.conversation_id for one in await provider.find_conversations(query, on_damaged=on_damaged)]
    return [one.conversation_id async for one in provider.iter_conversations(query, on_damaged=on_damaged)]


async def _last(provider: BackendProvider, way: str, keys: list[str], on_damaged: Any) -> dict[str, Message]:
    """The last message of each, which says `text 4`."""
    if way == "get_last_messages":
        return await provider.get_last_messages(keys, on_damaged=on_damaged)
    hits = await provider.search_messages(MessageSearch("text 4", limit=100), on_damaged=on_damaged)
    return {hit.conversation_id: hit.message for hit in hits}
