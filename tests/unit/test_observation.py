"""What observers are told of an operation, at its beginning and at its end."""

import asyncio
import contextvars
import logging

import pytest
from jaf_memory_testing.samples import talk

from jaf_memory_core import (
    BackendProvider,
    MemoryConnectionError,
    MemoryQuery,
    Message,
    Operation,
    OperationEvent,
    Processor,
    ProviderConfig,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.codec import encode

open_spans: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("open_spans", default=())


class Spans:
    """An observer with a beginning: what is open while an operation runs, and what it was told."""

    def __init__(self):
        self.begun: list[Operation] = []
        self.ended: list[OperationEvent] = []

    def begin(self, operation):
        """Open a span."""
        self.begun.append(operation)
        token = open_spans.set((*open_spans.get(), operation.operation)) if operation.encloses else None

        def end(event):
            self.ended.append(event)
            if token is not None:
                open_spans.reset(token)

        return end


class Driven(InMemoryBackend):
    """A store that notes which spans are open while it works, and fails as it is told."""

    waits = True

    def __init__(self):
        super().__init__()
        self.seen = []
        self.fails = []
        self.arrived = asyncio.Event()

    async def append(self, write):
        """Append."""
        self.arrived.set()
        self.seen.append(open_spans.get())
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails.pop(0)
        return await super().append(write)


def watched(*observers, backend=None, **settings):
    """A provider with observers."""
    return BackendProvider(backend or Driven(), ProviderConfig(**settings), observers=observers)


def told(event):
    """What an event says beside its times."""
    return (event.operation, event.outcome, event.conversations, event.messages)


def test_a_span_is_open_around_the_operation():
    """What the store's driver does happens inside the span, in the caller's task, and not after it."""

    async def main():
        spans, backend = Spans(), Driven()
        provider = watched(spans, backend=backend)
        await provider.append_messages("SENTINEL", talk(1), create=True)
        assert backend.seen == [("append_messages",)]
        assert open_spans.get() == ()
        (operation,) = spans.begun
        assert (operation.provider, operation.operation, operation.conversation_id) == (
            "memory",
            "append_messages",
            "SENTINEL",
        )
        assert "SENTINEL" not in repr(operation) + repr(spans.ended)

    asyncio.run(main())


def test_spans_close_in_the_reverse_order():
    """Of two observers the second one's span lies inside the first's; one that opens none is only not told."""

    class Silent:
        def begin(self, operation):
            return None

    order = []

    class Ordered:
        def __init__(self, name):
            self.name = name

        def begin(self, operation):
            order.append(f"{self.name} begins")
            return lambda _event: order.append(f"{self.name} ends")

    asyncio.run(
        watched(Ordered("a"), Silent(), Ordered("b"), lambda _event: order.append("told")).get_conversation("c")
    )
    assert order == ["a begins", "b begins", "b ends", "a ends", "told"]


def test_counts():
    """Messages, conversations and bytes are told where an operation has to do with some."""

    async def main():
        spans = Spans()
        provider = watched(spans)
        messages = talk(3)
        await provider.store_messages("c", messages, user_id="u")
        await provider.append_messages("c", messages[:1])
        await provider.get_conversation("c")
        await provider.get_recent_messages("c", 2)
        await provider.get_condensed_conversation("c")
        await provider.find_conversations(MemoryQuery(user_id="u"))
        await provider.find_conversations(MemoryQuery(user_id="nobody"))
        await provider.update_metadata("c", {"title": "t"})
        await provider.revise_messages("c", {messages[0].message_id: Message(role="user", content="other")})
        await provider.fork_conversation("c", "d")
        assert len([one async for one in provider.iter_conversations()]) == 2
        await provider.truncate_conversation_after("c", messages[2].message_id)
        await provider.delete_conversation("c")
        await provider.clear_user_conversations("u")
        await provider.purge_expired()
        assert [told(event) for event in spans.ended] == [
            ("store_messages", "done", None, 3),
            ("append_messages", "done", None, 1),
            ("get_conversation", "done", None, 3),
            ("get_recent_messages", "done", None, 2),
            ("get_condensed_conversation", "done", None, 3),
            ("find_conversations", "done", 1, 3),
            ("find_conversations", "done", 0, 0),
            ("update_metadata", "done", None, None),
            ("revise_messages", "done", None, 1),
            ("fork_conversation", "done", None, 3),
            ("iter_conversations", "done", 2, 6),
            ("truncate_conversation_after", "done", None, 1),
            ("delete_conversation", "done", 1, None),
            ("clear_user_conversations", "done", 1, None),
            ("purge_expired", "done", 0, None),
        ]
        assert spans.ended[0].size == sum(len(encode(one)) for one in messages)
        ids = [one.conversation_id for one in spans.begun]
        assert ids == ["c"] * 5 + [None] * 2 + ["c"] * 3 + [None] + ["c"] * 2 + [None] * 2

    asyncio.run(main())


def test_imports_are_counted():
    """Of an import the messages and bytes of each step are told."""

    async def main():
        source = watched()
        for name in ("a", "b"):
            await source.store_messages(name, talk(2))
        spans = Spans()
        target = watched(spans)
        await target.import_conversations([one async for one in source.iter_conversations()])
        assert [told(event) for event in spans.ended] == [("import_conversations", "done", None, 4)]
        assert spans.ended[0].size > 0

    asyncio.run(main())


def test_an_iteration_is_one_operation():
    """An iteration is told of once, with what it gave and how it ended, also where whoever iterates stops early."""

    async def main():
        spans = Spans()
        provider = watched(spans)
        for name in "abc":
            await provider.store_messages(name, talk(2))
        spans.ended.clear()
        iteration = provider.iter_conversations()
        await anext(iteration)
        assert open_spans.get() == ()
        assert spans.ended == []
        await iteration.aclose()
        assert [(event.conversations, event.messages, event.error) for event in spans.ended] == [(1, 2, None)]
        assert len([one async for one in provider.iter_conversations(MemoryQuery(limit=2))]) == 2
        _ = [one async for one in provider.iter_conversations()]
        assert [event.messages for event in spans.ended] == [2, 6, 6]
        assert not spans.begun[-1].encloses

    asyncio.run(main())


def test_outcomes():
    """Of what failed it is told whether nothing was applied, whether it was a conflict, and what was tried in vain."""

    async def main():
        spans, backend = Spans(), Driven()
        provider = watched(spans, backend=backend)
        await provider.append_messages("c", talk(1), create=True)
        await provider.append_messages("c", [Message(role="user", content="new")], expected_version=7)
        backend.fails = [MemoryConnectionError("gone", outcome="unknown")]
        await provider.append_messages("c", talk(1))
        backend.fails = [MemoryConnectionError("gone", outcome="unknown")]
        with pytest.raises(MemoryConnectionError):
            await provider.append_messages("c", talk(1), create=True)
        backend.arrived.clear()
        task = asyncio.ensure_future(provider.append_messages("c", talk(1)))
        await backend.arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [(e.outcome, e.conflict, e.error, e.attempts, e.retries) for e in spans.ended] == [
            ("done", False, None, 1, 0),
            ("not_applied", True, "MemoryConflictError", 1, 0),
            ("done", False, None, 2, 1),
            ("unknown", False, "MemoryConnectionError", 1, 0),
            ("unknown", False, "CancelledError", 1, 0),
        ]
        assert 0 < spans.ended[2].waited <= spans.ended[2].seconds
        assert [event.waited for event in spans.ended if event.retries == 0] == [0.0] * 4
        assert open_spans.get() == ()

    asyncio.run(main())


@pytest.mark.parametrize("step", ["begin", "end"])
def test_an_observer_that_fails_harms_nothing(step, caplog):
    """An observer that fails, at either end, is told of in the log; the others are told, and the operation goes on."""

    class Failing:
        def begin(self, operation):
            if step == "begin":
                raise ZeroDivisionError
            return self

        def __call__(self, event):
            raise ZeroDivisionError

    spans = Spans()
    with caplog.at_level(logging.WARNING):
        asyncio.run(watched(Failing(), spans).store_messages("c", talk(1)))
    assert [event.error for event in spans.ended] == [None]
    assert "an observer failed" in caplog.text


@pytest.mark.parametrize("step", ["begin", "end"])
def test_an_observer_that_fails_is_told_of_once(step, caplog):
    """An observer that always fails is one line of the log, which says where, and nothing of the error's text."""

    class Failing:
        def begin(self, operation):
            if step == "begin":
                raise KeyError(operation.conversation_id)
            return lambda _event: {}[operation.conversation_id]

    async def main():
        provider = watched(Failing())
        for _ in range(5):
            await provider.append_messages("SENTINEL", [Message(role="user", content="x")], create=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (record,) = caplog.records
    assert "KeyError in " in record.getMessage()
    assert "Failing.begin" in record.getMessage()
    assert "SENTINEL" not in caplog.text


def test_what_a_processor_refuses_was_no_operation():
    """An error before anything is sent belongs to the caller: no operation has begun."""

    class Refusing(Processor):
        def outgoing(self, message, context):
            raise LookupError("no key")

    async def main():
        spans = Spans()
        provider = BackendProvider(InMemoryBackend(), processors=[Refusing()], observers=[spans])
        with pytest.raises(LookupError):
            await provider.store_messages("c", talk(1))
        assert spans.begun == []

    asyncio.run(main())
