"""`MemorySession`: what it shows, what it writes, what it never does."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from chat_rules import problem
from hypothesis import given, settings
from hypothesis import strategies as st
from jaf_memory_testing.samples import ids, said, talk
from msgspec.structs import replace
from sample_conversations import WITHOUT_REAL, real_conversations, sample_conversations

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    InMemoryConfig,
    MemoryConfig,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemorySession,
    Message,
    Processor,
    Summary,
    WriteResult,
    create_in_memory_provider,
    digest,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.errors import MemoryError as AnyMemoryError
from jaf_memory_core.results import Failure


def store(**settings):
    """A provider that keeps everything."""
    return create_in_memory_provider(InMemoryConfig(**{"max_messages": None, **settings}))


def session(provider, **arguments):
    """A session of one user's conversation."""
    fields = ("auto_store", "max_messages", "ttl", "compression_threshold")
    config = MemoryConfig(provider=provider, **{name: arguments.pop(name) for name in fields if name in arguments})
    return MemorySession(config, conversation_id="c", **{"user_id": "u", **arguments})


class SixMethods:
    """A provider with just the documented methods, over ours."""

    def __init__(self):
        self.inner = store()
        for name in ("store_messages", "get_conversation", "append_messages"):
            setattr(self, name, self._documented(name))
        self.get_recent_messages = self.inner.get_recent_messages
        self.delete_conversation = self.inner.delete_conversation
        self.health_check = self.inner.health_check

    def _documented(self, name):
        async def method(conversation_id, *arguments):
            return await getattr(self.inner, name)(conversation_id, *arguments)

        return method


# ---- recording -----------------------------------------------------------------------------------------------


def test_the_documented_use():
    """A first turn makes the conversation with its owner; the next session sees it and adds to it."""

    async def use():
        provider = store()
        async with session(provider) as one:
            assert await one.load() == []
            assert await one.record(talk(2)) == WriteResult(1, 2, 2)
        async with session(provider) as two:
            assert await two.load() == talk(2)
            assert await two.record(talk(4)) == WriteResult(2, 4, 2)
        conversation = await provider.get_conversation("c")
        assert ids(conversation.messages) == ["m0", "m1", "m2", "m3"]
        assert conversation.user_id == "u"

    asyncio.run(use())


def test_recording_what_is_known_writes_nothing():
    """A list of nothing but known messages is no write, and neither is what a view made up."""

    async def use():
        provider = store()
        async with session(provider, compression_threshold=5) as one:
            await one.record(talk(20))
            view = await one.load()
            assert len(view) < 20
            assert await one.record(view) is None
            assert await one.record([*view, said("new", message_id="new")]) == WriteResult(2, 21, 1)
        assert ids((await provider.get_conversation("c")).messages) == [*ids(talk(20)), "new"]

    asyncio.run(use())


def test_a_known_message_with_other_content_is_a_conflict():
    """A session never rewrites: the same id with other content is refused, and the next turn goes on."""

    async def use():
        provider = store()
        async with session(provider) as one:
            await one.record(talk(2))
            with pytest.raises(MemoryConflictError):
                await one.record([said("other", message_id="m1"), said("new", message_id="m2")])
            await one.record([said("newer", message_id="m3")])
        assert ids((await provider.get_conversation("c")).messages) == ["m0", "m1", "m3"]

    asyncio.run(use())


def test_without_auto_store_nothing_is_written_until_asked():
    """What is recorded is in the view at once, and in the store when `save` is called."""

    async def use():
        provider = store()
        async with session(provider, auto_store=False) as one:
            assert await one.record(talk(2)) is None
            assert await provider.get_conversation("c") is None
            assert await one.load() == talk(2)
            assert list(one.unsaved) == talk(2)
            assert await one.save() == WriteResult(1, 2, 2)
            assert await one.save() is None
        assert list((await provider.get_conversation("c")).messages) == talk(2)

    asyncio.run(use())


def test_a_cancelled_turn_is_kept():
    """A caller who is cancelled while something is recorded finds it stored, and is cancelled all the same."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Slow(InMemoryBackend):
        waits = True

        async def append(self, write):
            begun.set()
            await cancelled.wait()
            return await super().append(write)

    async def use():
        provider = BackendProvider(Slow())
        async with session(provider) as one:
            recording = asyncio.ensure_future(one.record(talk(2)))
            await begun.wait()
            for _ in range(2):
                recording.cancel()
                await asyncio.sleep(0.05)
            cancelled.set()
            with pytest.raises(asyncio.CancelledError):
                await recording
            assert one.unsaved == ()
        assert list((await provider.get_conversation("c")).messages) == talk(2)

    asyncio.run(use())


def test_what_could_not_be_sent_is_sent_with_the_next():
    """After a lost connection the messages wait, and the next record stores them in order, once."""

    class Broken(InMemoryBackend):
        fails = True

        async def append(self, write):
            if self.fails:
                raise MemoryConnectionError("gone", retryable=False)
            return await super().append(write)

    async def use():
        backend = Broken()
        provider = BackendProvider(backend)
        async with session(provider) as one:
            with pytest.raises(MemoryConnectionError):
                await one.record(talk(1))
            backend.fails = False
            await one.record(talk(1, "n"))
        assert ids((await provider.get_conversation("c")).messages) == ["m0", "n0"]

    asyncio.run(use())


def test_what_was_deleted_meanwhile_is_not_made_again():
    """A turn that was under way when its conversation was erased is refused; the next begins anew."""

    async def use():
        provider = store()
        async with session(provider) as one:
            await one.record(talk(2))
            await one.load()
            assert await provider.clear_user_conversations("u") == 1
            with pytest.raises(MemoryNotFoundError):
                await one.record(talk(3))
            assert await provider.get_conversation("c") is None
            assert await one.load() == []
            await one.record(talk(1, "n"))
        assert ids((await provider.get_conversation("c")).messages) == ["n0"]

    asyncio.run(use())


def test_ttl_sets_the_expiry_with_each_record():
    """The conversation has the session's ttl from its first record on, also one that was there before without."""

    async def use():
        provider = store(ttl=10)
        async with session(provider, ttl=1000) as one:
            await one.record(talk(1))
            first = await provider.get_conversation("c")
            assert (first.ttl, first.version) == (1000, 1)
            await one.record(talk(2))
            second = await provider.get_conversation("c")
            assert second.expires_at > first.expires_at
            assert second.version == 2
        async with session(provider, ttl=5) as two:
            await two.load()
            await two.record(talk(3))
            assert (await provider.get_conversation("c")).ttl == 5
        async with session(provider, ttl=7) as three:
            await three.record(talk(4))
            assert (await provider.get_conversation("c")).ttl == 7

    asyncio.run(use())


def test_something_else_than_messages_is_refused():
    """`record` says what it takes."""

    async def use():
        async with session(store()) as one:
            for wrong in ("text", [{"role": "user"}], None):
                with pytest.raises(MemoryInvalidInputError):
                    await one.record(wrong)
        with pytest.raises(MemoryInvalidInputError):
            session(store(), max_tokens=5)

    asyncio.run(use())


# ---- six methods ---------------------------------------------------------------------------------------------


def test_six_methods_are_enough():
    """A provider with the six documented methods serves a session, which says what it lacks."""

    async def use():
        provider = SixMethods()
        async with session(provider, max_messages=4, ttl=5) as one:
            await one.record(talk(6))
            assert ids(await one.load()) == ["m2", "m3", "m4", "m5"]
            await one.record(talk(8))
            assert [text.split(":")[0] for text in one.lacks] == [
                "append_messages(create=True)",
                "set_expiry",
                "get_condensed_conversation",
                "revise_messages",
                "acquire_lease",
                "search_messages",
            ]
        assert (await provider.get_conversation("c")).messages == tuple(talk(8))
        with pytest.raises(MemoryInvalidInputError):
            session(provider, lease=5)
        async with session(store()) as full:
            assert full.lacks == ()

    asyncio.run(use())


def test_six_methods_keep_a_summary_as_long_as_the_session():
    """Where a summary cannot be stored it is made once a session."""
    calls = []

    async def use():
        provider = SixMethods()
        async with session(provider, compression_threshold=10, summarize=lambda m: calls.append(m) or "before") as one:
            await one.record(talk(20))
            view = await one.load()
            assert view == await one.load()
            assert len(view) <= 10
            assert view[0].content == "before"
        assert len(calls) == 1

    asyncio.run(use())


# ---- compression ---------------------------------------------------------------------------------------------


def test_a_summary_covers_what_leaves_the_view():
    """Above the threshold a summary is made once, stored beside the conversation, hidden, and every original stays."""
    calls = []

    async def summarize(messages):
        calls.append(ids(messages))
        return f"summary {len(calls)}"

    async def use():
        provider = store()
        everything = [said("be kind", "system", message_id="s"), *talk(60)]
        for end in range(1, len(everything) + 1, 2):
            async with session(provider, compression_threshold=20, summarize=summarize) as one:
                await one.record(everything[:end])
                view = await one.load()
                assert problem(view) is None
                assert len(view) <= 20
                assert view[0].content == "be kind"
        conversation = await provider.get_conversation("c")
        assert list(conversation.messages) == everything
        assert conversation.metadata == {"user_id": "u"}
        assert digest(conversation) == digest(ConversationMemory(conversation_id="x", user_id="u", messages=everything))
        assert view[1].content == f"summary {len(calls)}"
        covered = [key for call in calls for key in call if not key.startswith("jaf-memory:")]
        assert covered == ids(everything[1 : len(covered) + 1])
        assert ids(view[2:]) == ids(everything[len(covered) + 1 :])
        assert len(calls) < 12

    asyncio.run(use())


def test_a_summary_passes_the_processors():
    """What a redacting processor takes out is neither in a stored message nor in a stored summary."""

    class Redact(Processor):
        def outgoing(self, message, _context):
            fields = message.dict()
            return Message(**{**fields, "content": str(fields["content"]).replace("secret", "[redacted]")})

    async def use():
        backend = InMemoryBackend()
        provider = BackendProvider(backend, processors=[Redact()])
        async with session(provider, compression_threshold=5, summarize=lambda _: "the secret is out") as one:
            await one.record([*talk(10), said("the secret", message_id="s")])
            view = await one.load()
        assert "secret" not in repr(await backend.read("c"))
        assert view[0].content == "the [redacted] is out"

    asyncio.run(use())


def test_a_sleeping_summariser_loses_nothing():
    """While a summariser sleeps another appends: both stay, and the view has the new message too."""

    async def use():
        provider = store()
        asleep, wake = asyncio.Event(), asyncio.Event()

        async def summarize(_messages):
            asleep.set()
            await wake.wait()
            return "before"

        async with session(provider, compression_threshold=10, summarize=summarize) as one:
            await one.record(talk(20))
            loading = asyncio.ensure_future(one.load())
            await asleep.wait()
            await provider.append_messages("c", [said("meanwhile", message_id="meanwhile")])
            wake.set()
            view = await loading
        assert view[0].content == "before"
        assert view[-1].message_id == "meanwhile"
        assert ids((await provider.get_conversation("c")).messages) == [*ids(talk(20)), "meanwhile"]

    asyncio.run(use())


@pytest.mark.parametrize("change", ["delete", "revise", "delete, and summarise"])
def test_a_sleeping_summariser_keeps_nothing_of_what_goes(change):
    """While a summariser sleeps, one of the messages that it was given is deleted or revised: it lives on nowhere."""

    async def use():
        backend = InMemoryBackend()
        provider = BackendProvider(backend)
        asleep, wake = asyncio.Event(), asyncio.Event()

        async def summarize(_messages):
            if not wake.is_set():
                asleep.set()
                await wake.wait()
                return "the secret"
            return "others"

        async with session(provider, compression_threshold=10, summarize=summarize) as one:
            await one.record(talk(20))
            loading = asyncio.ensure_future(one.load())
            await asleep.wait()
            if change == "revise":
                await provider.revise_messages("c", {"m2": said("...", message_id="m2")})
            else:
                assert await provider.delete_messages("c", ["m2"]) == 1
            wake.set()
            if change == "delete, and summarise":
                async with session(provider, compression_threshold=10, summarize=summarize) as other:
                    assert (await other.load())[0].content == "others"
            view = await loading
        assert "the secret" not in repr(await backend.read("c"))
        assert "the secret" not in repr(view)
        assert view[-1].message_id == "m19"

    asyncio.run(use())


def test_a_summary_of_another_version():
    """Who has seen what stands at a version keeps a summary of that, and of nothing else."""

    async def use():
        provider = store()
        await provider.store_messages("c", talk(6))
        there = await provider.get_conversation("c")
        await provider.delete_messages("c", ["m1"])
        with pytest.raises(MemoryConflictError):
            await provider.store_summary("c", Summary("x", "m3"), there.incarnation, expected_version=there.version)
        assert (await provider.get_condensed_conversation("c")).summary is None
        kept = await provider.store_summary("c", Summary("x", "m3"), there.incarnation, expected_version=2)
        assert kept is True
        assert (await provider.get_condensed_conversation("c")).summary.text == "x"

    asyncio.run(use())


@pytest.mark.parametrize("again", [False, True])
def test_a_sleeping_summariser_brings_nothing_back(again):
    """While a summariser sleeps the user is erased (and begins anew): the summary goes, and shows nothing."""

    async def use():
        backend = InMemoryBackend()
        provider = BackendProvider(backend)
        asleep, wake = asyncio.Event(), asyncio.Event()

        async def summarize(_messages):
            asleep.set()
            await wake.wait()
            return "before"

        async with session(provider, compression_threshold=10, summarize=summarize) as one:
            await one.record(talk(20))
            loading = asyncio.ensure_future(one.load())
            await asleep.wait()
            await provider.clear_user_conversations("u")
            if again:
                await provider.store_messages("c", talk(30), user_id="u")
            wake.set()
            view = await loading
        assert "before" not in repr(await backend.read("c"))
        assert ids(view)[-1:] == (["m29"] if again else [])
        assert len(view) <= 10
        assert (await provider.get_conversation("c") is not None) is again

    asyncio.run(use())


def test_two_summarisers_make_one_summary():
    """Of two sessions that summarise at once, one summary stays, and both show it."""

    async def use():
        provider = store()
        await provider.store_messages("c", talk(20), user_id="u")

        def summarizer(name):
            async def summarize(_messages):
                await asyncio.sleep(0.1)
                return name

            return summarize

        views = await asyncio.gather(
            *(session(provider, compression_threshold=10, summarize=summarizer(name)).load() for name in "ab")
        )
        assert views[0] == views[1]

    asyncio.run(use())


def test_a_removed_message_takes_its_summary_along():
    """What is truncated, replaced or revised does not live on in a summary."""

    async def use():
        for way in ("truncate", "store", "revise"):
            backend = InMemoryBackend()
            provider = BackendProvider(backend)
            async with session(provider, compression_threshold=10, summarize=lambda _: "before") as one:
                await one.record(talk(20))
                assert (await one.load())[0].content == "before"
            if way == "truncate":
                await provider.truncate_conversation_after("c", "m3")
            elif way == "store":
                await provider.store_messages("c", talk(3))
            else:
                await provider.revise_messages("c", {"m0": said("other", message_id="m0")})
            assert "before" not in repr(await backend.read("c"))
            condensed = await provider.get_condensed_conversation("c")
            assert condensed.summary is None
            assert condensed.conversation == await provider.get_conversation("c")

    asyncio.run(use())


def test_a_blocking_summariser_blocks_nobody():
    """A summariser that is no coroutine runs in a thread."""

    async def use():
        threads = []

        def summarize(_messages):
            threads.append(threading.current_thread())
            time.sleep(0.1)
            return "before"

        async with session(store(), compression_threshold=10, summarize=summarize) as one:
            await one.record(talk(20))
            await one.load()
        assert threads != []
        assert threads[0] is not threading.main_thread()

    asyncio.run(use())


def test_a_pending_call_does_not_stop_compression():
    """A call that never got its result, and a result without a call, are passed over by later compression."""
    odd = [
        Message(
            role="assistant",
            tool_calls=[{"id": "lost", "function": {"name": "f", "arguments": "{}"}}],
            message_id="odd",
        ),
        Message(role="tool", content="?", tool_call_id="nobody", message_id="orphan"),
    ]

    async def use():
        provider = store()
        async with session(provider, compression_threshold=10, summarize=lambda _: "before") as one:
            for start in range(0, 60, 2):
                await one.record([*talk(2, start=start), *(odd if start == 4 else [])])
                view = await one.load()
                assert problem(view) is None
                assert len(view) <= 10
            assert ids(view)[-1] == "m59"
            assert view[0].content == "before"

    asyncio.run(use())


def test_a_token_budget():
    """With the application's counter, a view costs no more than its budget."""

    async def use():
        async with session(store(), max_tokens=50, count_tokens=lambda m: len(m.content)) as one:
            await one.record(talk(100))
            view = await one.load()
        assert 40 < sum(len(message.content) for message in view) <= 50

    asyncio.run(use())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["turn", "call", "parallel", "lost", "orphan", "system", "late"]), max_size=25),
    st.none() | st.integers(1, 12),
    st.none() | st.integers(1, 12),
    st.booleans(),
)
def test_any_history(pieces, most, threshold, summarizing):
    """Recorded piece by piece under any limits, every view is valid and small enough, and the store has everything."""

    def calls(*keys):
        return Message(
            role="assistant", tool_calls=[{"id": k, "function": {"name": "f", "arguments": ""}} for k in keys]
        )

    def result(key):
        return Message(role="tool", content="r", tool_call_id=key)

    def messages_of(number, piece):
        first, second = f"{number}a", f"{number}b"
        return {
            "turn": lambda: [said("q"), said("a", "assistant")],
            "call": lambda: [said("q"), calls("same"), result("same"), said("a", "assistant")],
            "parallel": lambda: [said("q"), calls(first, second), result(second), result(first)],
            "lost": lambda: [calls(first, second), result(first)],
            "orphan": lambda: [result("nobody")],
            "system": lambda: [said("s", "system")],
            "late": lambda: [said("q"), calls(first), said("q"), result(first)],
        }[piece]()

    async def summarize(older):
        assert problem(older) is None
        return f"{len(older)} messages"

    async def use():
        provider, everything = store(), []
        arguments = {"summarize": summarize} if summarizing else {}
        for number, piece in enumerate(pieces):
            async with session(provider, max_messages=most, compression_threshold=threshold, **arguments) as one:
                everything.extend(messages_of(number, piece))
                await one.record(everything)
                view = await one.load()
            assert problem(view) is None
            limits = [most] if threshold is None or len(everything) <= threshold else [most, threshold]
            smallest = min((limit for limit in limits if limit is not None), default=10_000)
            assert len(view) <= smallest
            assert view or smallest < 5 or {m.role for m in everything} <= {"tool"}
            asked = [message.message_id for message in everything if message.role == "user"]
            assert not view or not asked or asked[-1] in ids(view)
            if smallest == 10_000:
                assert [m for m in view if m.role == "system"] == [m for m in everything if m.role == "system"]
        if pieces:
            assert list((await provider.get_conversation("c")).messages) == everything

    asyncio.run(use())


# ---- leases --------------------------------------------------------------------------------------------------


def test_a_lease_keeps_a_second_turn_away():
    """Of two sessions with a lease one is refused until the other has left, or waits for it; numbers grow."""

    async def use():
        provider = store()
        async with session(provider, lease=30) as one:
            with pytest.raises(MemoryConflictError):
                await session(provider, lease=30).__aenter__()
            waiting = asyncio.ensure_future(session(provider, lease=30, lease_wait=10).__aenter__())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await one.record(talk(1))
        await (await waiting).__aexit__(None, None, None)
        lease = await provider.acquire_lease("c", 5)
        assert lease.number == 3
        assert (await provider.get_conversation("c")).metadata == {"user_id": "u"}

    asyncio.run(use())


class Clocked(InMemoryBackend):
    """Its clock moves by what a test says, and a tick at each look."""

    passed = timedelta()

    def now(self):
        """The moment."""
        self.passed += timedelta(microseconds=1)
        return datetime(2030, 1, 1, tzinfo=UTC) + self.passed


class Renewing(BackendProvider):
    """Tells of each renewal of a lease."""

    renewed = asyncio.Event()

    async def renew_lease(self, *given, **named):
        """Renew it."""
        after = await super().renew_lease(*given, **named)
        self.renewed.set()
        return after


def test_a_lease_is_kept_as_long_as_the_session():
    """A turn that takes longer than the lease still holds it, and one that lost it writes nothing."""

    async def use():
        backend = Clocked()
        provider = Renewing(backend)
        async with session(provider, lease=1) as one:
            for _ in range(5):
                backend.passed += timedelta(seconds=0.6)  # by the store's clock, which a busy machine does not move
                provider.renewed.clear()
                await provider.renewed.wait()
                with pytest.raises(MemoryConflictError):
                    await provider.acquire_lease("c", 1)
            one._lease._renewals.cancel()
            backend.passed += timedelta(seconds=1.1)
            await asyncio.sleep(1.1)  # by the session's own, which looks again when half of its time is over
            other = await provider.acquire_lease("c", 5)
            with pytest.raises(MemoryConflictError):
                await one.record(talk(1))
        assert (await provider.get_conversation("c")).messages == ()
        assert await provider.release_lease(other) is True
        assert await provider.release_lease(other) is False

    asyncio.run(use())


def test_leases_go_to_one_at_a_time():
    """Of many that ask at once exactly one gets the lease, also on a conversation that is not there yet."""

    async def use():
        provider = store()
        answers = await asyncio.gather(
            *(provider.acquire_lease("c", 5, user_id="u") for _ in range(16)), return_exceptions=True
        )
        assert sum(not isinstance(answer, AnyMemoryError) for answer in answers) == 1
        with pytest.raises(MemoryNotFoundError):
            await provider.for_user("other").renew_lease(
                next(answer for answer in answers if not isinstance(answer, AnyMemoryError)), 5
            )

    asyncio.run(use())


# ---- whole conversations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [sample_conversations, real_conversations])
def test_conversations_turn_by_turn(source):
    """100 conversations, recorded message by message with a view of 10: every view valid, the store the input."""
    conversations = source()
    if not conversations:
        pytest.skip(WITHOUT_REAL)

    async def use():
        provider = store(max_conversations=1000)
        count = 0
        for line in conversations:
            messages = [
                Message(**message, message_id=f"{line['conversation_id']}:{place}")
                for place, message in enumerate(line["messages"])
            ]
            config = MemoryConfig(provider=provider, max_messages=10)
            arguments = {"conversation_id": line["conversation_id"], "user_id": line["user_id"]}
            async with MemorySession(config, **arguments) as one:
                for message in messages:
                    await one.record([message])
                    view = await one.load()
                    count += 1
                    assert problem(view) is None
                    assert len(view) <= 10
            kept = await provider.get_conversation(line["conversation_id"])
            assert list(kept.messages) == messages
        assert count > 1000

    asyncio.run(use())


def test_a_provider_that_refuses_is_heard():
    """The error of a `Failure` is raised, whatever the provider."""

    async def refuse(*_arguments):
        return Failure(MemoryInvalidInputError("no"))

    async def use():
        provider = SixMethods()
        provider.append_messages = refuse
        async with session(provider) as one:
            with pytest.raises(MemoryInvalidInputError, match="no"):
                await one.record(talk(1))

    asyncio.run(use())


def test_a_held_lease_says_when_to_try_again():
    """Who finds a lease held may try again, and is told after how many seconds; who has lost one is not."""

    async def use():
        provider = store()
        held = await provider.acquire_lease("c", 30)
        with pytest.raises(MemoryConflictError) as caught:
            await provider.acquire_lease("c", 30)
        assert caught.value.retryable
        assert 29 < caught.value.retry_after <= 30
        assert await provider.release_lease(held)
        with pytest.raises(MemoryConflictError) as lost:
            await provider.renew_lease(held, 30)
        assert (lost.value.retryable, lost.value.retry_after) == (False, None)

    asyncio.run(use())


def test_a_lease_is_given_back_by_its_token_alone():
    """A holder that never heard the answer gives back what was granted, and numbers go on growing."""

    async def use():
        provider = store()
        await provider.release_lease(await provider.acquire_lease("c", 30))
        granted = await provider.acquire_lease("c", 30, token="chosen before")
        assert await provider.release_lease(replace(granted, number=0, expires_at=datetime.now(UTC)))
        assert (await provider.acquire_lease("c", 30)).number == granted.number + 1

    asyncio.run(use())
