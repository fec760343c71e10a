"""A session's course: summarisers that fail, leases, whole lists, growing answers, what a load reads."""

import asyncio
import itertools
import logging
import threading
from types import SimpleNamespace

import anyio
import pytest
from jaf_memory_testing.samples import ids, said, talk
from msgspec.structs import replace
from services.stores import CountingBackend

from jaf_memory_core import (
    BackendProvider,
    InMemoryConfig,
    MemoryConfig,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemorySession,
    Message,
    create_in_memory_provider,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.session import drafts


def store(**settings):
    """A provider that keeps everything."""
    return create_in_memory_provider(InMemoryConfig(**{"max_messages": None, **settings}))


def session(provider, **arguments):
    """A session of one user's conversation."""
    fields = ("auto_store", "max_messages", "ttl", "compression_threshold")
    config = MemoryConfig(provider=provider, **{name: arguments.pop(name) for name in fields if name in arguments})
    return MemorySession(config, conversation_id="c", **{"user_id": "u", **arguments})


# ---- summarisers ---------------------------------------------------------------------------------------------


async def hanging(_messages):
    """Never answer."""
    await asyncio.sleep(600)


def raising(_messages):
    """Fail, with words that no log may hold."""
    raise RuntimeError("secret words of a model")


RELEASED = threading.Event()
"""Set when nobody waits any more for the summariser that blocks."""

USELESS = {
    "blank": lambda _messages: "  \n",
    "nothing": lambda _messages: None,
    "too long": lambda _messages: "x" * 100_000,
    "hanging": hanging,
    "blocking": lambda _messages: RELEASED.wait(),
    "raising": raising,
}


@pytest.mark.parametrize("name", USELESS)
def test_a_summariser_of_no_use_leaves_the_view_without_a_summary(name, caplog):
    """It is logged, nothing is stored, the view is the documented one, and it is not paid again at each load."""
    calls = []

    async def use():
        provider = store()
        await provider.store_messages("c", talk(40))

        def summarize(messages):
            calls.append(1)
            return USELESS[name](messages)

        asked = {"hanging": hanging}.get(name, summarize)
        for _ in range(5):  # without an end, where a load waited for a summariser that never answers
            view = await session(provider, compression_threshold=10, summarize=asked, summarize_timeout=0.2).load()
            assert view == await session(provider, compression_threshold=10).load()
        assert (await provider.get_condensed_conversation("c")).summary is None
        assert len(calls) <= 2

    RELEASED.clear()
    with caplog.at_level(logging.WARNING, "jaf_memory_core"):
        asyncio.run(use())
    RELEASED.set()
    assert "no summary of conversation 'c'" in caplog.text
    assert "secret" not in caplog.text


def test_a_failure_that_passes_is_soon_forgotten():
    """A summariser that fails once is asked again at the next load, and its summary is kept."""
    answers = ["raise", "in short"]

    def summarize(_messages):
        answer = answers.pop(0)
        if answer == "raise":
            raise ConnectionError
        return answer

    async def use():
        provider = store()
        await provider.store_messages("c", talk(40))
        assert (await session(provider, compression_threshold=10, summarize=summarize).load())[0].content != "in short"
        assert (await session(provider, compression_threshold=10, summarize=summarize).load())[0].content == "in short"

    asyncio.run(use())


# ---- what a load reads ---------------------------------------------------------------------------------------


def long_talk(length, first=()):
    """A long conversation."""
    return [*first, *(said(f"text {n}", ("user", "assistant")[n % 2], message_id=f"n{n}") for n in range(length))]


LIMITS = [
    {"max_messages": 20},
    {"max_tokens": 400, "count_tokens": lambda message: len(message.content)},
    {"compression_threshold": 20},
    {"max_messages": 20, "ttl": 1000},
    {"max_messages": 20, "view_format": "anthropic"},
]


@pytest.mark.parametrize("limits", LIMITS, ids=" ".join)
def test_a_load_reads_what_it_shows(limits):
    """However long a conversation is, a load reads what its view holds; the first instructions are still there."""

    async def use():
        reads = []
        for length in (200, 20_000):
            backend = CountingBackend()
            provider = BackendProvider(backend, InMemoryConfig(max_messages=None))
            await provider.store_messages("c", long_talk(length, [said("Be kind.", "system", message_id="s")]))
            backend.read_messages = 0
            async with session(provider, **limits) as one:
                view = await one.load()
                await one.record([said("next", message_id="next")])
            reads.append(backend.read_messages)
            assert view[0].content == "Be kind."
            assert view[-1].message_id == f"n{length - 1}"
        assert reads[0] == reads[1]
        assert reads[1] < 150

    asyncio.run(use())


PIECES = {
    "turn": [("user", "q"), ("assistant", "a")],
    "long": [("user", "q"), *[("assistant", f"step {n}") for n in range(9)]],
    "system": [("system", "s")],
    "blank": [("user", "q"), ("assistant", "")],
}


@pytest.mark.parametrize("most", [2, 5, 12, 40])
def test_reading_the_end_shows_what_reading_all_shows(most):
    """A view of the pages that were read is the view of the whole conversation, with its first instructions."""

    async def use():
        for order in (["turn"] * 60, ["turn", "long"] * 30, ["blank", "turn", "long", "long"] * 15):
            messages = [said("first", "system", message_id="s")]
            for number, piece in enumerate(order):
                messages += [said(t, r, message_id=f"{number}.{n}") for n, (r, t) in enumerate(PIECES[piece])]
            provider = store()
            await provider.store_messages("c", messages)
            paged = await session(provider, max_messages=most).load()
            config = MemoryConfig(provider=SixOnly(provider), max_messages=most)
            assert paged == await MemorySession(config, conversation_id="c").load()
            assert len(paged) <= most

    asyncio.run(use())


@pytest.mark.parametrize(
    "first",
    [
        {"content": "be \ud800 kind"},
        {"content": "be kind", "name": "the boss"},
        {"content": " "},
        {"content": "be kind"},
    ],
    ids=str,
)
@pytest.mark.parametrize("last", ["text", "text ", "t\u00e9xt"])
@pytest.mark.parametrize("view_format", ["chat", "anthropic", "responses"])
def test_plain_texts_are_shown_as_all_others_are(view_format, first, last):
    """The short way for plain texts gives the view of the longer one, with the first instructions in form."""

    async def use():
        provider = store()
        system = Message(role="system", message_id="s", **first)
        talk = [said("text", ("user", "assistant")[n % 2], message_id=f"n{n}") for n in range(30)]
        await provider.store_messages("c", [system, *talk, said(last, "assistant", message_id="last")])
        limits = {"max_messages": 9, "view_format": view_format}
        counted = {"max_tokens": 10**9, "count_tokens": lambda _message: 1}  # which takes the longer way
        short, long = await session(provider, **limits).load(), await session(provider, **limits, **counted).load()
        assert short == long
        str([message.dict() for message in short]).encode()

    asyncio.run(use())


class OlderBackend(InMemoryBackend):
    """Knows of no first messages and no header beside a page."""

    async def tail(self, tail):
        """Give the page alone."""
        return await super().tail(replace(tail, leading=0, with_header=False))


class OlderProvider:
    """Pages without the first messages beside them."""

    def __init__(self, inner):
        self._inner = inner
        for name in dir(inner):
            if not name.startswith("_") and not hasattr(self, name):
                setattr(self, name, getattr(inner, name))

    async def get_messages(self, conversation_id, before=None, limit=50):
        """Give a page alone."""
        return await self._inner.get_messages(conversation_id, before, limit)

    async def get_condensed_conversation(self, conversation_id, limit=None):
        """Give the newest alone."""
        return await self._inner.get_condensed_conversation(conversation_id, limit)


@pytest.mark.parametrize("limits", LIMITS, ids=" ".join)
def test_who_knows_of_no_first_messages_is_asked_again(limits):
    """A backend, and a provider, of an author who has not heard of them give the same views, in more calls."""

    async def use():
        messages = long_talk(300, [said("Be kind.", "system", message_id="s")])
        provider, older = store(), BackendProvider(OlderBackend(), InMemoryConfig(max_messages=None))
        views = []
        for one in (provider, older, OlderProvider(provider)):
            if not isinstance(one, OlderProvider):
                await one.store_messages("c", messages)
            views.append(await session(one, **limits).load())
        assert views[0][0].content == "Be kind."
        assert views[1] == views[2] == views[0]

    asyncio.run(use())


class SixOnly:
    """The documented methods of a provider."""

    def __init__(self, inner):
        for name in (
            "store_messages",
            "get_conversation",
            "append_messages",
            "get_recent_messages",
            "delete_conversation",
            "health_check",
        ):
            setattr(self, name, getattr(inner, name))


# ---- leases --------------------------------------------------------------------------------------------------


class Slow(InMemoryBackend):
    """Waits at every operation, as a store over a network does."""

    waits = True

    async def header(self, *arguments, **keywords):
        """Wait, and read."""
        await asyncio.sleep(0.01)
        return await super().header(*arguments, **keywords)

    async def amend(self, amend):
        """Wait, write, and wait again."""
        await asyncio.sleep(0.01)
        answer = await super().amend(amend)
        await asyncio.sleep(0.01)
        return answer


async def is_free(provider):
    """Return whether the conversation's lease can be had at once."""
    try:
        held = await provider.acquire_lease("c", 5)
    except MemoryConflictError:
        return False
    return await provider.release_lease(held)


async def turn(provider):
    """Hold a lease until cancelled."""
    async with session(provider, lease=30):
        await asyncio.sleep(0.02)


async def cancelled(provider, delay, times):
    """Run a turn, and cancel it so many times from a certain moment on."""
    task = asyncio.ensure_future(turn(provider))
    await asyncio.sleep(delay)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.003)
    await asyncio.gather(task, return_exceptions=True)


async def in_timeout(provider, delay):
    """Run a turn under `asyncio.timeout`."""
    try:
        async with asyncio.timeout(delay):
            await turn(provider)
    except TimeoutError:
        pass


async def in_scope(provider, delay):
    """Run a turn in a cancel scope of anyio's, which cancels again and again."""
    with anyio.move_on_after(delay):
        await turn(provider)


@pytest.mark.parametrize("way", ["once", "twice", "timeout", "anyio"])
def test_a_lease_is_given_back_wherever_its_session_is_cancelled(way):
    """While it is taken, held, or given back: the lease is free right after."""

    async def use():
        provider = BackendProvider(Slow())
        await provider.store_messages("c", [])
        ways = {
            "once": lambda delay: cancelled(provider, delay, 1),
            "twice": lambda delay: cancelled(provider, delay, 3),
            "timeout": lambda delay: in_timeout(provider, delay),
            "anyio": lambda delay: in_scope(provider, delay),
        }
        for step in range(30):
            await ways[way](0.0005 + step * 0.004)
            assert await is_free(provider), f"held after a cancellation at {step}"

    asyncio.run(use())


def test_a_grant_whose_answer_was_lost_is_given_back():
    """The store has granted the lease, and nobody heard: it is free again."""

    class Deaf(InMemoryBackend):
        lost = True

        async def amend(self, amend):
            answer = await super().amend(amend)
            if self.lost:
                self.lost = False
                raise MemoryConnectionError("lost", outcome="unknown", retryable=False)
            return answer

    async def use():
        provider = BackendProvider(Deaf())
        await provider.store_messages("c", [])
        with pytest.raises(MemoryConnectionError):
            await turn(provider)
        assert await is_free(provider)

    asyncio.run(use())


def test_no_seconds_are_refused():
    """What is no number of seconds, no function, no configuration is refused at once, with what is allowed."""
    for arguments in (
        {"lease": 5, "lease_wait": "x"},
        {"lease": 5, "lease_wait": float("nan")},
        {"lease": 5, "lease_wait": -1},
        {"max_tokens": -3, "count_tokens": len},
        {"max_tokens": "x", "count_tokens": len},
        {"max_tokens": 3, "count_tokens": 5},
        {"summarize": 5},
        {"summarize_timeout": 0},
        {"view_format": "gemini"},
    ):
        with pytest.raises(MemoryInvalidInputError):
            session(store(), **arguments)
    with pytest.raises(MemoryInvalidInputError, match="MemoryConfig"):
        MemorySession(None, conversation_id="c")


@pytest.mark.parametrize("tokens", ["5", None, -1])
def test_a_counter_that_counts_nothing_is_told(tokens):
    """A counter that gives no number is an error that says so."""

    async def use():
        async with session(store(), max_tokens=50, count_tokens=lambda _message: tokens) as one:
            await one.record(talk(3))
            with pytest.raises(MemoryInvalidInputError, match="count_tokens"):
                await one.load()

    asyncio.run(use())


# ---- whole lists ---------------------------------------------------------------------------------------------


def body(role, text, **fields):
    """A message as an engine writes it, without an id."""
    return {"role": role, "content": text, **fields}


WHOLE = [body("user", "one"), body("assistant", "two"), body("user", "three"), body("assistant", "four")]


def texts(messages):
    """What they say."""
    return [message.content for message in messages]


def test_a_whole_list_adds_what_is_more():
    """A growing list, sent whole, with ids or without: each message is there once, also for a new session."""

    async def use():
        for with_ids in (False, True):
            provider = store()
            whole = [{**one, "id": f"i{n}"} if with_ids else one for n, one in enumerate(WHOLE)]
            for size, added in ((2, 2), (2, 0), (4, 2), (4, 0), (1, 0)):
                one = session(provider, id_from="id" if with_ids else None)
                assert (await one.reconcile(whole[:size])).added == added
            stored = (await provider.get_conversation("c")).messages
            assert texts(stored) == ["one", "two", "three", "four"]
            if with_ids:
                assert ids(stored) == ["i0", "i1", "i2", "i3"]

    asyncio.run(use())


def test_two_that_send_one_list_at_once_add_it_once():
    """The ids of a list without ids are made of it, so that a request that arrives twice is one."""

    async def use():
        provider = store()
        await asyncio.gather(*(session(provider).reconcile(WHOLE) for _ in range(5)))
        assert texts((await provider.get_conversation("c")).messages) == ["one", "two", "three", "four"]

    asyncio.run(use())


EDITED = [*WHOLE[:2], body("user", "three, but otherwise")]


def test_an_edited_message_is_refused_unless_the_caller_chooses():
    """A list in which a stored message reads otherwise is a conflict that says where, and nothing is written."""

    async def use():
        provider = store()
        one = session(provider)
        await one.reconcile(WHOLE)
        with pytest.raises(MemoryConflictError, match="message 2 of the list"):
            await one.reconcile(EDITED)
        assert texts((await provider.get_conversation("c")).messages) == texts(map_bodies(WHOLE))
        with pytest.raises(MemoryInvalidInputError, match="edited"):
            await one.reconcile(EDITED, edited="replace")

    asyncio.run(use())


def map_bodies(bodies):
    """Messages of bodies."""
    return [Message(**one) for one in bodies]


def test_an_edited_message_can_be_revised():
    """In its place where the list goes on as it did; with all that follows where it does not."""

    async def use():
        provider = store()
        one = session(provider)
        await one.reconcile(WHOLE)
        kept = ids((await provider.get_conversation("c")).messages)
        again = [WHOLE[0], body("assistant", "two, corrected"), *WHOLE[2:], body("user", "five")]
        done = await one.reconcile(again, edited="revise")
        assert (done.revised, done.added) == (1, 1)
        stored = (await provider.get_conversation("c")).messages
        assert texts(stored) == ["one", "two, corrected", "three", "four", "five"]
        assert ids(stored)[:4] == kept
        await one.reconcile(EDITED, edited="revise")
        assert texts((await provider.get_conversation("c")).messages) == ["one", "two", "three, but otherwise"]

    asyncio.run(use())


def test_an_edited_message_can_fork():
    """The conversation stays; the fork has the list; the same list again finds the same fork."""

    async def use():
        provider = store()
        one = session(provider)
        await one.reconcile(WHOLE)
        done = await one.reconcile(EDITED, edited="fork")
        assert done.conversation_id != "c"
        assert texts((await provider.get_conversation(done.conversation_id)).messages)[-1] == "three, but otherwise"
        assert (await provider.get_conversation(done.conversation_id)).user_id == "u"
        assert texts((await provider.get_conversation("c")).messages)[-1] == "four"
        again = await one.reconcile(EDITED, edited="fork")
        assert (again.conversation_id, again.added) == (done.conversation_id, 0)

    asyncio.run(use())


def test_the_view_comes_back_from_an_engine():
    """A list that begins with the view, cut and compressed, adds what is behind it, with ids and without."""

    async def use():
        for keep in (True, False):
            provider = store()
            await provider.store_messages("c", talk(40))
            for how in ("record", "reconcile"):
                one = session(provider, compression_threshold=10)
                sent = [message.dict() for message in await one.load()]
                if not keep:
                    sent = [{name: value for name, value in each.items() if name != "message_id"} for each in sent]
                whole = [*sent, body("user", f"new by {how}", message_id=f"new by {how}")]
                await (one.record(map_bodies(whole)) if how == "record" else one.reconcile(whole))
            assert ids((await provider.get_conversation("c")).messages) == [
                *ids(talk(40)),
                "new by record",
                "new by reconcile",
            ]

    asyncio.run(use())


def test_a_senders_id_is_an_identity():
    """With `id_from`, the same request sent twice is stored once."""

    async def use():
        provider = store()
        for _ in range(2):
            await session(provider, id_from="id").record([Message(role="user", content="hi", id="their-1")])
        assert ids((await provider.get_conversation("c")).messages) == ["their-1"]

    asyncio.run(use())


def test_true_is_not_one():
    """A message that was loaded and comes back with another value of an equal number is no known message."""

    async def use():
        provider = store()
        await provider.store_messages("c", [Message(role="user", content="x", score=1, message_id="m")])
        one = session(provider)
        await one.load()
        with pytest.raises(MemoryConflictError):
            await one.record([Message(role="user", content="x", score=True, message_id="m")])

    asyncio.run(use())


def test_leaving_with_unsaved_messages_is_told(caplog):
    """With `auto_store=False`, a session that is left without `save` says how much it drops."""

    async def use():
        async with session(store(), auto_store=False) as one:
            await one.record(talk(3))

    with caplog.at_level(logging.WARNING, "jaf_memory_core"):
        asyncio.run(use())
    assert "3 messages that were recorded and not stored" in caplog.text


# ---- growing answers -----------------------------------------------------------------------------------------


class Writes(InMemoryBackend):
    """Counts writes, and how much they carry."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sizes = []

    async def append(self, write):
        """Note how much is appended."""
        self.sizes.append(sum(map(len, write.bodies)))
        return await super().append(write)

    async def revise(self, revise):
        """Note how much is revised."""
        self.sizes.append(sum(map(len, revise.bodies)))
        return await super().revise(revise)


def test_a_growing_answer_is_kept_at_an_interval(monkeypatch):
    """Many pieces are a few writes; the end is the whole answer, unmarked, under one id."""

    async def use():
        backend = Writes()
        provider = BackendProvider(backend)
        async with session(provider) as one:
            await one.record([said("tell me", message_id="q")])
            async with one.draft(interval=0.05) as draft:
                for _ in range(20_000):
                    await draft.write("word ")
        question, answer = (await provider.get_conversation("c")).messages
        assert (question.message_id, answer.message_id) == ("q", draft.message_id)
        assert answer.content == "word " * 20_000
        assert "unfinished" not in answer.further
        assert 10 <= len(backend.sizes) <= 13

    # Half a second in all, on a clock that only these pieces move.
    looks = itertools.count()
    monkeypatch.setattr(drafts, "time", SimpleNamespace(monotonic=lambda: next(looks) * 0.000_025))
    asyncio.run(use())


def test_a_draft_shows_as_it_stands_and_stays_unfinished_when_cancelled():
    """Cancelled in mid-answer, what has come is stored with the mark; a view shows the text without it."""

    async def use():
        provider = store()
        some = asyncio.Event()

        async def stream():
            async with session(provider) as one:
                await one.record([said("tell me", message_id="q")])
                async with one.draft(interval=60) as draft:
                    for number in itertools.count():
                        await draft.write(f"{number} ")
                        if number > 2:
                            some.set()
                        await asyncio.sleep(0.001)

        task = asyncio.ensure_future(stream())
        await some.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stored = (await provider.get_conversation("c")).messages[-1]
        assert stored.unfinished is True
        assert stored.content.startswith("0 1 2 ")
        view = await session(provider).load()
        assert view[-1].content == stored.content
        assert "unfinished" not in view[-1].further

    asyncio.run(use())


def test_a_draft_becomes_what_the_engine_gives():
    """`finish` takes the whole message, with its calls and usage, and stores it under the draft's id."""

    async def use():
        provider = store()
        async with session(provider) as one, one.draft() as draft:
            await draft.write("I look")
            whole = Message(
                role="assistant",
                content="I look.",
                tool_calls=[{"id": "a", "function": {"name": "look", "arguments": "{}"}}],
                usage={"cached_tokens": 5},
            )
            assert (await draft.finish(whole)).message_id == draft.message_id
            with pytest.raises(MemoryInvalidInputError):
                await draft.write("more")
        stored = (await provider.get_conversation("c")).messages
        assert ids(stored) == [draft.message_id]
        assert stored[0].dict() == {**whole.dict(), "message_id": draft.message_id}

    asyncio.run(use())


def test_a_lost_answer_does_not_double_a_draft():
    """The store cannot be reached for a while, and has kept the first piece: in the end there is one answer."""

    class Flaky(InMemoryBackend):
        calls = 0

        async def append(self, write):
            answer = await super().append(write)
            Flaky.calls += 1
            if Flaky.calls == 1:
                raise MemoryConnectionError("lost", outcome="unknown")
            return answer

    async def use():
        provider = BackendProvider(Flaky())
        async with session(provider) as one, one.draft(interval=0.001) as draft:
            for _ in range(5):
                await draft.write("word ")
                await asyncio.sleep(0.005)
        assert texts((await provider.get_conversation("c")).messages) == ["word " * 5]

    asyncio.run(use())


def test_six_methods_keep_an_answer_when_it_is_finished():
    """A provider without `revise_messages` gets the whole answer at the end."""

    async def use():
        inner = store()
        async with session(SixOnly(inner)) as one, one.draft() as draft:
            await draft.write("a")
            assert await inner.get_conversation("c") is None
            await draft.write("b")
        assert texts((await inner.get_conversation("c")).messages) == ["ab"]

    asyncio.run(use())
