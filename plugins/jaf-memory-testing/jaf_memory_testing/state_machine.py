"""Random histories of a store, against the in-memory provider as the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from jaf_memory_core.backends.in_memory import InMemoryBackend, InMemoryConfig
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryError
from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure
from jaf_memory_testing.checks import Checks, examples, in_full
from jaf_memory_testing.iteration import passed
from jaf_memory_testing.query import found
from jaf_memory_testing.samples import at, said
from jaf_memory_testing.target import Store

# They differ by case alone, which some stores do not see.
KEYS = ("a", "A")
# So small that it cuts nearly every batch.
CAP = 2

keys = st.sampled_from(KEYS)
message_ids = st.sampled_from(("m", "M", "n", "o"))
# Mostly nobody, and no version: else nearly every request would be a conflict.
owners = st.sampled_from((None, None, None, None, "u", "v"))
versions = st.sampled_from((None, None, None, None, None, None, 0, 1, 2))
labels = st.none() | st.dictionaries(
    st.sampled_from(("x", "y", "user_id")), st.sampled_from(("u", "v")) | st.just("u"), max_size=2
)
fresh = st.builds(lambda key: said(key, message_id=key), message_ids)
doubtful = st.builds(lambda key, n: said(f"{key}{n}", message_id=key), message_ids, st.sampled_from(("", "", "", "!")))
batches = st.lists(fresh, max_size=4, unique_by=lambda one: one.message_id) | st.lists(doubtful, max_size=4)
capped = st.sampled_from((True, True, False))

_Call = Callable[[BackendProvider], Awaitable[Any]]


class Pair:
    """The provider under test and the model, each without and with a cap, and each user's view of these."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tested = {cap: store.run(store.open(max_messages=cap)) for cap in (None, CAP)}
        self.backend = InMemoryBackend(InMemoryConfig(max_conversations=1000))

    def clear(self) -> None:
        """Begin anew, on both sides."""
        self.store.run(self.store.empty(self.tested[None]))
        self.backend = InMemoryBackend(InMemoryConfig(max_conversations=1000))
        self.model = {cap: BackendProvider(self.backend, InMemoryConfig(max_messages=cap)) for cap in (None, CAP)}

    def agree(self, call: _Call, *, owner: str | None = None, cap: bool = False) -> Any:
        """Do the same on both sides; the answers must be the same. Returns the tested one's."""
        tested, model = self.tested[CAP if cap else None], self.model[CAP if cap else None]
        if owner is not None:
            tested, model = tested.for_user(owner), model.for_user(owner)
        answer, expected = self.store.run(_answer(call, tested)), self.store.run(_answer(call, model))
        assert answer == expected, f"the store answered {answer!r}, the model {expected!r}"
        return answer


async def _answer(call: _Call, provider: BackendProvider) -> Any:
    try:
        return _comparable(await call(provider))
    except MemoryError as error:
        return _error(error)


def _error(error: MemoryError) -> Any:
    return type(error).__name__, getattr(error, "expected_version", None), getattr(error, "actual_version", None)


def _comparable(answer: Any) -> Any:
    if isinstance(answer, Failure):
        return _error(answer.error)
    if isinstance(answer, ConversationMemory):
        # Times and the incarnation are each side's own.
        return (
            answer.conversation_id,
            answer.user_id,
            answer.messages,
            dict(answer.metadata),
            answer.version,
            answer.message_count,
            answer.ttl,
            answer.expires_at is None,
        )
    if isinstance(answer, dict):
        own = ("oldest_conversation", "newest_conversation")
        return {key: value is None if key in own else value for key, value in answer.items()}
    return answer


class Machine(RuleBasedStateMachine):
    """Every operation, in any order, on few ids, so that they meet."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        self.last: str | None = None
        pair.clear()

    def _wrote(self, key: str, before: tuple[str, int] | None) -> None:
        after = self._stamp(key)
        self.last = key if after is not None and after != before else self.last

    def _stamp(self, key: str) -> tuple[str, int] | None:
        conversation = self.pair.store.run(self.pair.tested[None].get_conversation(key))
        return None if conversation is None else (conversation.incarnation, conversation.version)

    def _write(self, key: str, call: _Call, *, owner: str | None = None, cap: bool = False) -> None:
        before = self._stamp(key)
        self.pair.agree(call, owner=owner, cap=cap)
        self._wrote(key, before)

    @initialize(first=st.lists(fresh, min_size=2, unique_by=lambda one: one.message_id), second=batches, user=owners)
    def begin(self, *, first: list[Message], second: list[Message], user: Any) -> None:
        """Two conversations, one of which a cap has trimmed in most cases."""
        self._write(KEYS[0], lambda one: one.store_messages(KEYS[0], first, user_id=user), cap=True)
        self._write(KEYS[1], lambda one: one.store_messages(KEYS[1], second, {"x": "u"}))

    @rule(key=keys, batch=batches, metadata=labels, user=owners, version=versions, owner=owners, cap=capped)
    def store(
        self, *, key: str, batch: list[Message], metadata: Any, user: Any, version: Any, owner: Any, cap: bool
    ) -> None:
        """Store."""
        options = {"user_id": user, "expected_version": version}
        self._write(key, lambda one: one.store_messages(key, batch, metadata, **options), owner=owner, cap=cap)

    @rule(
        key=keys,
        batch=batches,
        metadata=labels,
        user=owners,
        version=versions,
        create=st.booleans(),
        owner=owners,
        cap=capped,
    )
    def append(
        self,
        *,
        key: str,
        batch: list[Message],
        metadata: Any,
        user: Any,
        version: Any,
        create: bool,
        owner: Any,
        cap: bool,
    ) -> None:
        """Append."""
        options = {"user_id": user, "expected_version": version, "create": create}
        self._write(key, lambda one: one.append_messages(key, batch, metadata, **options), owner=owner, cap=cap)

    @rule(key=keys, batch=batches, user=owners, expired=st.booleans())
    def import_(self, *, key: str, batch: list[Message], user: Any, expired: bool) -> None:
        """Import, in half of the cases what has expired already: the way to expired conversations without waiting."""
        distinct = {message.message_id: message for message in batch}
        source = ConversationMemory(
            key, user, tuple(distinct.values()), {"x": "i"}, created_at=at(0), expires_at=at(1) if expired else None
        )
        self._write(key, lambda one: one.import_conversation(source))

    @rule(key=keys, metadata=labels, owner=owners)
    def update(self, key: str, metadata: Any, owner: Any) -> None:
        """Update metadata."""
        self._write(key, lambda one: one.update_metadata(key, metadata or {}), owner=owner)

    @rule(key=keys, ttl=st.sampled_from((None, 600, 90.5)), owner=owners)
    def expiry(self, key: str, ttl: float | None, owner: Any) -> None:
        """Set the expiry."""
        self._write(key, lambda one: one.set_expiry(key, ttl), owner=owner)

    @rule(key=keys, message_id=message_ids, owner=owners)
    def truncate(self, key: str, message_id: str, owner: Any) -> None:
        """Truncate."""
        self._write(key, lambda one: one.truncate_conversation_after(key, message_id), owner=owner)

    @rule(key=keys, some=st.lists(message_ids, max_size=3), owner=owners)
    def delete_messages(self, key: str, some: list[str], owner: Any) -> None:
        """Delete single messages."""
        self._write(key, lambda one: one.delete_messages(key, some), owner=owner)

    @rule(key=keys, owner=owners)
    def delete(self, key: str, owner: Any) -> None:
        """Delete."""
        self.pair.agree(lambda one: one.delete_conversation(key), owner=owner)

    @rule(user=st.sampled_from(("u", "v")), owner=owners)
    def clear(self, user: str, owner: Any) -> None:
        """Clear a user."""
        self.pair.agree(lambda one: one.clear_user_conversations(user), owner=owner)

    @rule(key=keys, limit=st.integers(0, 4), before=st.none() | st.integers(0, 9), owner=owners)
    def pages(self, key: str, limit: int, before: int | None, owner: Any) -> None:
        """Read parts."""
        self.pair.agree(lambda one: one.get_recent_messages(key, limit), owner=owner)
        page = self.pair.agree(lambda one: one.get_messages(key, before, limit), owner=owner)
        if not isinstance(page[0] if page else None, str):
            self.pair.agree(lambda one: _place(one, key, before, limit), owner=owner)

    @rule(key=keys, message_id=message_ids, owner=owners)
    def until(self, key: str, message_id: str, owner: Any) -> None:
        """Read up to a message."""
        self.pair.agree(lambda one: one.get_conversation_until_message(key, message_id), owner=owner)

    @rule(user=owners, label=st.sampled_from((None, {"x": "u"}, {"user_id": "v"}, {"x": "i"})), owner=owners)
    def find(self, user: Any, label: Any, owner: Any) -> None:
        """Search, count and iterate."""
        query = MemoryQuery(user_id=user, metadata=label)
        self.pair.agree(lambda one: _sorted(found(one, query)), owner=owner)
        self.pair.agree(lambda one: _sorted(passed(one, query)), owner=owner)
        self.pair.agree(lambda one: one.get_stats(user), owner=owner)

    @rule()
    def purge(self) -> None:
        """Purge; a store that removes what expires by itself may count otherwise."""
        for provider in (self.pair.tested[None], self.pair.model[None]):
            self.pair.store.run(provider.purge_expired())

    @invariant()
    def same(self) -> None:
        """Every conversation is the same on both sides."""
        for key in KEYS:
            self.pair.agree(lambda one, key=key: one.get_conversation(key))  # type: ignore[misc]

    @invariant()
    def last_written_is_first(self) -> None:
        """No conversation was changed later than the one that was written last."""
        every = self.pair.store.run(self.pair.tested[None].find_conversations(MemoryQuery()))
        newest = max((one.updated_at for one in every if one.updated_at), default=None)
        for one in every:
            assert one.conversation_id != self.last or one.updated_at == newest


async def _sorted(ids: Awaitable[list[str]]) -> list[str]:
    return sorted(await ids)


async def _place(provider: BackendProvider, key: str, before: int | None, limit: int) -> int | None:
    return (await provider.get_messages(key, before, limit)).before


class StateMachineChecks(Checks):
    """Random histories."""

    def test_random_histories(self, store: Store) -> None:
        """After any series of operations the store answers, and holds, exactly what the model does."""
        pair = Pair(store)
        run: Any = run_state_machine_as_test  # typed in some versions of hypothesis only, and there too narrowly
        run(partial(Machine, pair), settings=examples(100 if in_full() else 20, steps=30))
