"""Importing many: what a backend's default does, how a provider goes on, and how batches are collected."""

import asyncio

import pytest

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    Failure,
    MemoryConnectionError,
    MemoryStorageError,
    Message,
    ProviderConfig,
    Success,
    create_in_memory_provider,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.records import Write
from jaf_memory_core.transfer import copy, import_conversations
from jaf_memory_core.transfer.imports import in_batches, one_by_one


def writes(count):
    """Return appends to conversations of their own."""
    return [Write(f"c{n}", create=True) for n in range(count)]


def talks(count, size=1):
    """Return conversations of one message."""
    return [ConversationMemory(f"c{n}", messages=[Message("user", "x" * size, message_id="m")]) for n in range(count)]


class Failing(InMemoryBackend):
    """Fails at the conversation `c2`, so many times."""

    def __init__(self, error, times=1):
        super().__init__()
        self.error, self.times = error, times
        self.calls = []

    async def append(self, write):
        """Fail, or do it."""
        if write.conversation_id == "c2" and self.times:
            self.times -= 1
            raise self.error
        return await super().append(write)

    async def append_many(self, some):
        """Count what is asked."""
        self.calls.append(len(some))
        return await super().append_many(some)


class TestDefault:
    """`Backend.append_many`."""

    def test_may_be_tried_again(self):
        """An append that may be tried again, and those behind it, come back as not tried."""

        async def check():
            backend = Failing(MemoryConnectionError("away"))
            outcomes = await backend.append_many(writes(4))
            assert [outcome is None for outcome in outcomes] == [False, False, True, True]

        asyncio.run(check())

    def test_first_may_be_tried_again(self):
        """Where the first fails so, the error is raised, so that the guard tries again."""

        async def check():
            with pytest.raises(MemoryConnectionError, match="away"):
                await Failing(MemoryConnectionError("away")).append_many(writes(4)[2:])

        asyncio.run(check())

    def test_lost_answer(self):
        """An append whose answer was lost is told as that, and nothing behind it is tried."""

        async def check():
            error = MemoryConnectionError("lost", outcome="unknown")
            outcomes = await Failing(error).append_many(writes(4))
            assert outcomes[2] is error
            assert outcomes[3] is None

        asyncio.run(check())

    def test_refusal(self):
        """A refusal is one append's own."""

        async def check():
            error = MemoryStorageError("full", operation="append")
            outcomes = await Failing(error).append_many(writes(4))
            assert outcomes[2] is error
            assert outcomes[3].version == 1

        asyncio.run(check())

    def test_driver_error(self):
        """An error of the driver is translated."""

        async def check():
            outcomes = await FailingDriver(OSError(28, "No space left on device")).append_many(writes(4))
            assert isinstance(outcomes[2], MemoryStorageError)
            assert outcomes[3].version == 1

        asyncio.run(check())


class FailingDriver(Failing):
    """Has a driver."""

    driver_errors = (OSError,)


class TestProvider:
    """`import_conversations`."""

    def test_goes_on_with_what_was_not_tried(self):
        """What a backend has not tried goes into its next call."""

        async def check():
            backend = Failing(MemoryConnectionError("away"))
            results = await BackendProvider(backend).import_conversations(talks(5))
            assert all(isinstance(result, Success) for result in results)
            assert backend.calls == [5, 3]

        asyncio.run(check())

    def test_lost_answer_is_raised(self):
        """A lost answer ends the import, and is not tried again: a conversation might have been deleted meanwhile."""

        async def check():
            backend = Failing(MemoryConnectionError("lost", outcome="unknown"))
            provider = BackendProvider(backend)
            with pytest.raises(MemoryConnectionError, match="lost"):
                await provider.import_conversations(talks(5))
            assert backend.calls == [5]
            assert [await provider.get_conversation(f"c{n}") is not None for n in (1, 2, 3)] == [True, False, False]

        asyncio.run(check())

    def test_names_the_provider(self):
        """A refusal names the provider, as that of a single write does."""

        async def check():
            backend = Failing(MemoryStorageError("full", operation="append"))
            results = await BackendProvider(backend).import_conversations(talks(3))
            assert isinstance(results[2], Failure)
            assert results[2].error.provider == "memory"

        asyncio.run(check())

    def test_backend_that_tries_nothing(self):
        """A backend that tries nothing is an error, and not a loop without an end."""

        async def check():

            class Idle(InMemoryBackend):
                async def append_many(self, writes):
                    return [None] * len(writes)

            with pytest.raises(MemoryStorageError, match="tried none"):
                await BackendProvider(Idle()).import_conversations(talks(1))

        asyncio.run(check())

    def test_steps_grow(self, monkeypatch):
        """Steps begin small, and grow while the store is quick."""
        monkeypatch.setattr("jaf_memory_core.backend.PATIENCE", 60.0)  # quick, however loaded the machine is

        async def check():
            backend = Failing(None, times=0)
            await BackendProvider(backend).import_conversations(talks(1_000))
            assert backend.calls[0] == 32
            assert max(backend.calls) == 512
            assert sum(backend.calls) == 1_000

        asyncio.run(check())

    def test_steps_shrink(self):
        """Where the store is slow, steps are short, so that each ends within its deadline."""

        async def check():

            class Slow(Failing):
                waits = True

                async def append(self, write):
                    await asyncio.sleep(0.04)
                    return await super().append(write)

            backend = Slow(None, times=0)
            results = await BackendProvider(backend, ProviderConfig(operation_timeout=2)).import_conversations(
                talks(60)
            )
            assert all(isinstance(result, Success) for result in results)
            assert min(backend.calls) < 32

        asyncio.run(check())

    def test_bytes_of_a_step(self):
        """A step holds a bounded number of bytes, unless one conversation has more."""

        async def check():
            backend = Failing(None, times=0)
            await BackendProvider(backend).import_conversations(talks(4, size=200_000))
            assert backend.calls[:2] == [1, 1]  # a quick step is followed by a larger one

        asyncio.run(check())


class TestBatches:
    """What is collected before it is sent."""

    def test_count_and_bytes(self):
        """A batch ends at a number of conversations, or of bytes."""

        async def check():
            assert [len(batch) async for batch in in_batches(one_by_one(talks(5)), 2)] == [2, 2, 1]
            assert [len(batch) async for batch in in_batches(one_by_one(talks(3, size=5 << 20)), 100)] == [2, 1]

        asyncio.run(check())

    def test_error_of_the_source(self):
        """What came before an error of the source is passed on first."""

        def source():
            yield from talks(3)
            raise ValueError("no more")

        async def check():
            got = []

            async def collect():
                async for batch in in_batches(one_by_one(source()), 2):
                    got.append(batch)  # noqa: PERF401  (a comprehension would lose them with the error)

            with pytest.raises(ValueError, match="no more"):
                await collect()
            assert [len(batch) for batch in got] == [2, 1]

        asyncio.run(check())

    def test_single_imports_remain(self):
        """A provider that imports one at a time gets one at a time."""

        async def check():

            class Single:
                def __init__(self):
                    self.imported = []

                async def import_conversation(self, conversation):
                    self.imported.append(conversation.conversation_id)
                    return (
                        Failure(MemoryStorageError("full", operation="import"))
                        if len(self.imported) == 2
                        else await ok()
                    )

            async def ok():
                return await create_in_memory_provider().import_conversation(talks(1)[0])

            provider, seen = Single(), []
            report = await import_conversations(
                provider, talks(3), on_step=lambda _: seen.append(len(provider.imported))
            )
            assert (report.conversations, list(report.refused)) == (2, [("c1", "full")])
            assert seen == [1, 2, 3]

        asyncio.run(check())

    def test_copy_reads_only_what_stands(self):
        """A copy reads nothing in a destination that has none of the conversations."""

        async def check():
            source, destination = create_in_memory_provider(), create_in_memory_provider()
            await source.import_conversations(talks(10))
            await destination.import_conversations(talks(2))
            read = []
            reading = destination.get_conversation

            async def counted(key):
                read.append(key)
                return await reading(key)

            destination.get_conversation = counted
            report = await copy(source, destination)
            assert (report.conversations, report.unchanged, report.messages_added) == (10, 2, 8)
            assert sorted(read) == ["c0", "c1"]

        asyncio.run(check())
