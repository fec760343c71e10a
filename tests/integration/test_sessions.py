"""Sessions on all four stores: what a load shows, whole lists, growing answers, leases."""

import asyncio
import contextlib
import os
import random

import pytest
from jaf_memory_testing.samples import ids, said, talk

from jaf_memory_core import (
    MemoryConfig,
    MemoryConflictError,
    MemorySession,
    create_memory_provider_from_env,
)

ENTRIES = int(os.environ.get("JAF_TEST_LEASES", "60"))
"""How often a session is entered, and cancelled somewhere."""


@pytest.fixture
def use(environ):
    """Run an async test with a provider, which is closed behind it."""

    def run(test):
        async def opened():
            async with await create_memory_provider_from_env(environ) as provider:
                await test(provider)

        asyncio.run(opened())

    return run


def session(provider, key="c", **arguments):
    """A session of one user's conversation."""
    fields = ("max_messages", "ttl", "compression_threshold")
    config = MemoryConfig(provider=provider, **{name: arguments.pop(name) for name in fields if name in arguments})
    return MemorySession(config, conversation_id=key, user_id="u", **arguments)


def texts(messages):
    """What they say."""
    return [message.content for message in messages]


# What a load shows.


@pytest.mark.parametrize("limits", [{}, {"ttl": 1000}, {"view_format": "anthropic"}], ids=["plain", "ttl", "form"])
def test_a_load_is_one_call_of_the_store(use, limits):
    """The newest messages and the first instructions come in one call, however long the conversation is."""

    async def test(provider):
        await provider.store_messages("c", [said("Be kind.", "system"), *talk(300)])
        calls = []
        tail = provider.backend.tail

        def counted(request):
            calls.append(request)
            return tail(request)

        async def refused(*_arguments, **_keywords):
            raise AssertionError("a load asks for a page, and for nothing else")

        provider.backend.tail, provider.backend.read, provider.backend.header = counted, refused, refused
        view = await session(provider, max_messages=20, **limits).load()
        assert texts(view) == ["Be kind.", *texts(talk(300)[282:])]
        assert len(calls) == 1

    use(test)


def test_a_compressed_load_shows_beginning_and_end(use):
    """Above a threshold, the first fifth, a marker that counts, and the newest; with a summary, what it leaves."""

    async def test(provider):
        await provider.store_messages("c", [said("Be kind.", "system"), *talk(300)])
        view = texts(await session(provider, compression_threshold=20).load())
        assert view[:2] == ["Be kind.", talk(1)[0].content]
        assert "not shown" in view[4]
        assert view[-1] == talk(300)[-1].content
        short = session(provider, compression_threshold=20, summarize=lambda messages: f"{len(messages)} before")
        first = await short.load()
        assert "before" in first[1].content
        again = session(provider, compression_threshold=20, summarize=lambda _messages: "another")
        assert await again.load() == first

    use(test)


# Whole lists.

WHOLE = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]


def test_whole_lists(use):
    """A list that grows is stored once, also where it comes twice at once; an edit is refused, revised, or forks."""

    async def test(provider):
        await asyncio.gather(*(session(provider).reconcile(WHOLE[:2]) for _ in range(4)))
        assert (await session(provider).reconcile(WHOLE)).added == 2
        assert (await session(provider).reconcile(WHOLE)).added == 0
        edited = [*WHOLE[:3], {"role": "assistant", "content": "D"}]
        with pytest.raises(MemoryConflictError):
            await session(provider).reconcile(edited)
        fork = await session(provider).reconcile(edited, edited="fork")
        assert texts((await provider.get_conversation(fork.conversation_id)).messages) == ["a", "b", "c", "D"]
        assert texts((await provider.get_conversation("c")).messages) == ["a", "b", "c", "d"]
        before = ids((await provider.get_conversation("c")).messages)
        assert (await session(provider).reconcile(edited, edited="revise")).revised == 1
        after = (await provider.get_conversation("c")).messages
        assert (texts(after), ids(after)) == (["a", "b", "c", "D"], before)

    use(test)


# Growing answers.


def test_growing_answers(use):
    """A draft is stored as it grows and ends unmarked; one that is cancelled keeps what had come, marked."""

    async def test(provider):
        one = session(provider)
        await one.record([said("tell me")])
        async with one.draft(interval=0.01) as draft:
            for number in range(20):
                await draft.write(f"{number} ")
                await asyncio.sleep(0.003)
            half = (await provider.get_conversation("c")).messages[-1]
            assert (half.message_id, half.unfinished) == (draft.message_id, True)
        whole = (await provider.get_conversation("c")).messages[-1]
        assert (whole.message_id, whole.content.split()[-1]) == (draft.message_id, "19")
        assert "unfinished" not in whole.further

        some = asyncio.Event()

        async def stream():
            async with session(provider).draft(interval=60) as again:
                await again.write("word ")
                while True:
                    await again.write("word ")
                    some.set()
                    await asyncio.sleep(0.002)

        task = asyncio.ensure_future(stream())
        await some.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        messages = (await provider.get_conversation("c")).messages
        assert len(messages) == 3
        assert messages[-1].unfinished is True
        assert messages[-1].content.count("word") > 1

    use(test)


# Leases.


async def held(provider, key):
    """Whether somebody still has the lease."""
    try:
        lease = await provider.acquire_lease(key, 5)
    except MemoryConflictError:
        return True
    return not await provider.release_lease(lease)


def test_no_lease_is_left_behind(use):
    """Sessions that are cancelled at any moment, once or several times, leave no lease: not one of them is held."""
    chance = random.Random(11)

    async def turn(provider, key):
        async with session(provider, key, lease=30) as one:
            await one.record([said("question")])
            await asyncio.sleep(0.001)

    async def cancelled(provider, key, spans):
        task = asyncio.ensure_future(turn(provider, key))
        for span in spans:
            await asyncio.sleep(span)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    async def test(provider):
        keys = [f"c{number}" for number in range(20)]
        for key in keys:
            await provider.store_messages(key, [])
            await turn(provider, key)
        ended = left = 0
        for first in range(0, ENTRIES, len(keys)):
            batch = keys[: ENTRIES - first]
            # Anew each time: a machine that has become quicker would see none of its sessions cancelled.
            began = asyncio.get_running_loop().time()
            await turn(provider, keys[0])
            usual = asyncio.get_running_loop().time() - began
            for key in batch:
                spans = [
                    chance.uniform(0, 1.2 * usual),
                    *(chance.uniform(0, usual / 3) for _ in range(first // 20 % 3)),
                ]
                ended += await cancelled(provider, key, spans)
            left += sum([await held(provider, key) for key in batch])
        assert left == 0, f"{left} leases are left of {ended} sessions that were cancelled"
        assert ended

    use(test)


def test_a_lease_that_another_holds_can_be_waited_for(use):
    """The second session is refused, with the seconds that are left; one that waits gets it when the first leaves."""

    async def test(provider):
        async with session(provider, lease=30):
            with pytest.raises(MemoryConflictError) as refused:
                await session(provider, lease=30).__aenter__()
            assert refused.value.retryable
            assert 0 < refused.value.retry_after <= 30
            waiting = asyncio.ensure_future(session(provider, lease=30, lease_wait=20).__aenter__())
            await asyncio.sleep(0.05)
        entered = await waiting
        await entered.__aexit__(None, None, None)
        assert not await held(provider, "c")

    use(test)
