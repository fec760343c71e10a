"""What a provider does beside its rules: processors, views, and what it never lets through."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from jaf_memory_testing.samples import ids, said, talk
from msgspec.structs import replace

from jaf_memory_core import (
    BackendProvider,
    Context,
    ConversationMemory,
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryInvalidInputError,
    MemoryQuery,
    Message,
    Processor,
    Summary,
    create_in_memory_provider,
    create_memory_provider,
    create_memory_provider_from_env,
    digest,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend


class Wrapping(Processor):
    """Puts signs around texts on their way in, and takes them off on their way out."""

    def __init__(self, sign):
        self.sign = sign

    def outgoing(self, message, _context):
        """Put on."""
        return said(f"{self.sign}{message.content}", message.role, message_id=message.message_id)

    def incoming(self, message, _context):
        """Take off."""
        assert message.content.startswith(self.sign)
        return said(message.content.removeprefix(self.sign), message.role, message_id=message.message_id)

    def outgoing_metadata(self, metadata, _context):
        """Put on."""
        return {key: f"{self.sign}{value}" if key != "user_id" else value for key, value in metadata.items()}

    def incoming_metadata(self, metadata, _context):
        """Take off."""
        return {key: value.removeprefix(self.sign) for key, value in metadata.items()}


class TestProcessors:
    """Everything passes them, on its way in and out."""

    def test_everything_passes(self):
        """What is stored has passed in their order, and what is read in the reverse, by every method."""
        backend = InMemoryBackend()
        provider = BackendProvider(backend, processors=[Wrapping("<"), Wrapping("[")])

        async def main():
            await provider.store_messages("c", talk(2), {"x": "v"}, user_id="u")
            await provider.append_messages("c", talk(3))
            await provider.update_metadata("c", {"y": "w"})
            record = await backend.read("c")
            assert [message.content for message in record.messages] == ["[<m 0", "[<m 1", "[<m 2"]
            assert record.metadata == {"x": "[<v", "y": "[<w"}
            for messages in (
                (await provider.get_conversation("c")).messages,
                await provider.get_recent_messages("c"),
                await provider.get_messages("c"),
                (await provider.find_conversations(MemoryQuery(metadata={"x": "v"})))[0].messages,
                (await anext(provider.iter_conversations())).messages,
            ):
                assert list(messages) == talk(3)
            assert (await provider.get_conversation_until_message("c", "m2")).messages == tuple(talk(2))
            assert (await provider.get_conversation("c")).metadata == {"x": "v", "y": "w", "user_id": "u"}

        asyncio.run(main())

    def test_retries_stay_retries(self):
        """A message that was changed on its way in is known again."""
        provider = BackendProvider(InMemoryBackend(), processors=[Wrapping("<")])

        async def main():
            await provider.store_messages("c", talk(1))
            for _ in range(2):
                await provider.append_messages("c", talk(2, "n"))
            assert ids(await provider.get_recent_messages("c")) == ["m0", "n0", "n1"]

        asyncio.run(main())

    def test_ids_stay(self):
        """A processor that changes a `message_id` is refused: retries depend on it."""

        class Renaming(Processor):
            def outgoing(self, message, _context):
                return Message(role=message.role, content=message.content)

        provider = BackendProvider(InMemoryBackend(), processors=[Renaming()])
        with pytest.raises(MemoryConfigurationError, match="message_id"):
            asyncio.run(provider.store_messages("c", talk(1)))
        assert asyncio.run(provider.get_conversation("c")) is None

    def test_one_that_fails(self):
        """An exception of a processor stops the operation before anything is stored."""

        class Failing(Processor):
            def outgoing(self, message, _context):
                raise ZeroDivisionError(message.role)

        provider = BackendProvider(InMemoryBackend(), processors=[Wrapping("<"), Failing()])
        with pytest.raises(ZeroDivisionError):
            asyncio.run(provider.store_messages("c", talk(1)))
        assert asyncio.run(provider.get_conversation("c")) is None


class Sealing(Processor):
    """Binds everything to where it belongs, as an encryption would, and notes what it is told."""

    def __init__(self):
        self.contexts = []

    def _mark(self, context):
        self.contexts.append(context)
        return f"sealed for {context.conversation_id}:"

    def outgoing(self, message, context):
        """Seal."""
        return replace(message, content=self._mark(context) + message.content)

    def incoming(self, message, context):
        """Open; another conversation's does not."""
        assert message.content.startswith(self._mark(context))
        return replace(message, content=message.content.removeprefix(self._mark(context)))

    def outgoing_metadata(self, metadata, context):
        """Seal each value, in place."""
        assert "user_id" not in metadata
        for key, value in metadata.items():
            metadata[key] = (self._mark(context) if context.conversation_id else "sealed for c:") + json.dumps(value)
        return metadata

    def incoming_metadata(self, metadata, context):
        """Open each value, in place."""
        assert "user_id" not in metadata
        for key, value in metadata.items():
            metadata[key] = json.loads(value.removeprefix(self._mark(context)))
        return metadata


class TestContexts:
    """A processor is told where what it is given belongs, and nothing goes round it."""

    @pytest.fixture
    def backend(self):
        """What is kept, with no processor before it."""
        return InMemoryBackend()

    @pytest.fixture
    def sealing(self):
        """A processor whose work can be told."""
        return Sealing()

    @pytest.fixture
    def provider(self, backend, sealing):
        """A provider that seals."""
        return BackendProvider(backend, processors=[sealing])

    def test_owners_stay(self, provider):
        """An owner that metadata states is the conversation's, whatever the processors make of metadata."""

        async def main():
            metadata = {"user_id": "u", "x": [1]}
            await provider.store_messages("c", talk(1), metadata)
            assert metadata == {"user_id": "u", "x": [1]}
            await provider.update_metadata("c", {"user_id": "u", "y": 2})
            (found,) = await provider.find_conversations(MemoryQuery(metadata={"user_id": "u", "x": [1]}))
            assert (found.user_id, found.metadata) == ("u", {"user_id": "u", "x": [1], "y": 2})
            await provider.store_messages("c", talk(2), {"user_id": "u"}, user_id="u")
            assert await provider.clear_user_conversations("u") == 1
            assert await provider.get_conversation("c") is None

        asyncio.run(main())

    def test_contexts(self, provider, sealing):
        """They name conversation, owner, message and operation."""

        async def main():
            await provider.append_messages("c", talk(1), {"x": 1}, user_id="u", create=True)
            assert set(sealing.contexts) == {
                Context("c", "u", "m0", "append_messages"),
                Context("c", "u", None, "append_messages"),
            }
            sealing.contexts.clear()
            await provider.get_conversation("c")
            assert set(sealing.contexts) == {
                Context("c", "u", "m0", "get_conversation"),
                Context("c", "u", None, "get_conversation"),
            }
            sealing.contexts.clear()
            await provider.for_user("u").get_messages("c")
            assert set(sealing.contexts) == {Context("c", "u", "m0", "get_messages")}

        asyncio.run(main())

    def test_regeneration_points(self, provider, backend):
        """Notes of regeneration points pass, and are read again with all before them."""

        async def main():
            await provider.store_messages("c", talk(2), user_id="u")
            for n in range(3):
                await provider.mark_regeneration_point("c", "m1", {"reason": f"secret {n}"})
            record = await backend.read("c")
            assert all(isinstance(value, str) for value in record.metadata.values())
            shown = (await provider.get_conversation("c")).metadata
            assert [point["reason"] for point in shown["regeneration_points"]] == ["secret 0", "secret 1", "secret 2"]
            assert shown["last_regeneration"]["reason"] == "secret 2"
            assert shown["regeneration_count"] == 3

        asyncio.run(main())

    def test_removed_keys(self, backend):
        """A key goes by the name it is stored under; what a processor adds to all stays; two that meet are refused."""

        class Tagging(Processor):
            def outgoing_metadata(self, metadata, context):
                return {"tag": context.conversation_id, **{f"x-{key.lower()}": metadata[key] for key in metadata}}

            def incoming_metadata(self, metadata, context):
                return {key.removeprefix("x-"): metadata[key] for key in metadata if key != "tag"}

        provider = BackendProvider(backend, processors=[Tagging()])

        async def main():
            await provider.store_messages("c", talk(1), {"a": 1, "b": 2})
            assert await provider.update_metadata("c", {}, ["A"]) == 2
            assert dict((await backend.read("c")).metadata) == {"tag": "c", "x-b": 2}
            with pytest.raises(MemoryInvalidInputError, match="to be set and to be removed"):
                await provider.update_metadata("c", {"b": 3}, ["B"])
            assert (await provider.get_conversation("c")).metadata == {"b": 2}

        asyncio.run(main())

    def test_forks(self, provider, backend):
        """A copy is opened as its parent's, and sealed as its own."""

        async def main():
            await provider.store_messages("c", talk(3), {"x": 1}, user_id="u")
            assert await provider.fork_conversation("c", "d", "m2") == 2
            copy = await provider.get_conversation("d")
            assert (list(copy.messages), copy.metadata, copy.user_id) == (talk(2), {"x": 1, "user_id": "u"}, "u")
            record = await backend.read("d")
            assert all(message.content.startswith("sealed for d:") for message in record.messages)

        asyncio.run(main())

    def test_a_fork_keeps_nothing_that_was_made_for_its_parent(self, backend):
        """Keys that a processor makes of the id are the copy's own, also where a cap was set since."""

        class Keyed(Processor):
            def outgoing_metadata(self, metadata, context):
                return {f"{context.conversation_id}/{key}": value for key, value in metadata.items()}

            def incoming_metadata(self, metadata, context):
                return {key.removeprefix(f"{context.conversation_id}/"): value for key, value in metadata.items()}

        provider = BackendProvider(backend, processors=[Keyed(), Sealing()])
        capped = BackendProvider(backend, InMemoryConfig(max_messages=2), processors=[Keyed(), Sealing()])

        async def main():
            await provider.store_messages("c", talk(3), {"x": 1})
            await provider.store_summary("c", Summary("s", "m1"), (await provider.get_conversation("c")).incarnation)
            for one in (provider, capped):
                assert await one.fork_conversation("c", "d") == 3
                record = await backend.read("d")
                assert record.metadata.keys() == {"d/x"}
                assert (await provider.get_conversation("d")).metadata == {"x": 1}
                assert list((await provider.get_conversation("d")).messages) == talk(3)
                assert await provider.delete_conversation("d")

        asyncio.run(main())

    @pytest.mark.parametrize("steps", range(6))
    def test_a_fork_that_is_killed(self, steps):
        """Wherever the process is killed, nothing stands under the new id that was made for the parent's."""

        class Killed(InMemoryBackend):
            left = 1_000

            def step(self):
                self.left -= 1
                if self.left < 0:
                    raise SystemExit

            async def write(self, record, *, expected):
                self.step()
                return await super().write(record, expected=expected)

            async def amend(self, amend):
                self.step()
                return await super().amend(amend)

            async def revise(self, revise):
                self.step()
                return await super().revise(revise)

            async def remove(self, conversation_id, *, scope=None):
                self.step()
                return await super().remove(conversation_id, scope=scope)

        backend = Killed()
        provider = BackendProvider(backend, processors=[Sealing()])

        async def main():
            await provider.store_messages("c", talk(3), {"x": 1})
            backend.left = steps
            with contextlib.suppress(SystemExit):
                await provider.fork_conversation("c", "d")
            record = await backend.read("d")
            assert record is None or all(one.content.startswith("sealed for d:") for one in record.messages)

        asyncio.run(main())

    def test_a_fork_that_cannot_be_sealed(self, backend):
        """A copy for which a processor fails does not stay."""

        class Failing(Sealing):
            def outgoing(self, message, context):
                if context.conversation_id == "d":
                    raise ZeroDivisionError
                return super().outgoing(message, context)

        provider = BackendProvider(backend, processors=[Failing()])

        async def main():
            await provider.store_messages("c", talk(3))
            with pytest.raises(ZeroDivisionError):
                await provider.fork_conversation("c", "d")
            assert await backend.read("d") is None

        asyncio.run(main())

    def test_summaries_and_revisions(self, provider, backend):
        """A summary, what it keeps, and a revised message pass in both directions."""

        async def main():
            await provider.store_messages("c", talk(3), user_id="u")
            there = await provider.get_conversation("c")
            kept = said("rule", "system", message_id="m0")
            assert await provider.store_summary("c", Summary("secret", "m1", (kept,)), there.incarnation)
            record = await backend.read("c")
            stored = json.dumps(record.metadata)
            assert "sealed for c:secret" in stored
            assert "sealed for c:rule" in stored
            condensed = await provider.get_condensed_conversation("c")
            assert (condensed.summary.text, condensed.summary.kept) == ("secret", (kept,))
            await provider.revise_messages("c", {"m2": said("other", message_id="m2")})
            assert (await backend.read("c")).messages[2].content == "sealed for c:other"

        asyncio.run(main())

    def test_imports(self, provider, backend):
        """What is exported with an owner in its metadata comes back, sealed."""

        async def main():
            await provider.store_messages("c", talk(2), {"x": 1}, user_id="u")
            exported = await provider.get_conversation("c")
            await provider.delete_conversation("c")
            (result,) = await provider.import_conversations([exported])
            assert result.data.added == 2
            back = await provider.get_conversation("c")
            assert (back.messages, back.metadata, back.user_id) == (exported.messages, exported.metadata, "u")
            assert (await backend.read("c")).messages[0].content == "sealed for c:m 0"

        asyncio.run(main())

    def test_filters(self, provider):
        """`trace_id` passes as metadata does; two different ones match nothing."""

        async def main():
            await provider.store_messages("c", talk(1), {"trace_id": "t"})
            for query, found in (
                (MemoryQuery(trace_id="t"), 1),
                (MemoryQuery(metadata={"trace_id": "t"}), 1),
                (MemoryQuery(trace_id="t", metadata={"trace_id": "t"}), 1),
                (MemoryQuery(trace_id="u"), 0),
                (MemoryQuery(trace_id="t", metadata={"trace_id": "u"}), 0),
            ):
                assert len(await provider.find_conversations(query)) == found
                assert len([one async for one in provider.iter_conversations(query)]) == found

        asyncio.run(main())

    def test_a_filter_that_vanishes(self):
        """A filter that a processor takes out matches nothing, and not everything."""

        class Dropping(Processor):
            def outgoing_metadata(self, metadata, _context):
                return {key: value for key, value in metadata.items() if key != "email"}

        provider = create_in_memory_provider(processors=[Dropping()])

        async def main():
            await provider.store_messages("c", talk(1), {"email": "a@b.c"})
            assert await provider.find_conversations(MemoryQuery(metadata={"email": "a@b.c"})) == []

        asyncio.run(main())

    @pytest.mark.parametrize("returned", [None, 5, "text", {"x": {1}}, {5: 1}, {"user_id": "v"}, [("x", 1)]])
    def test_wrong_metadata(self, returned):
        """What a processor returns is checked; nothing is stored, and the processor is named."""

        class Careless(Processor):
            def outgoing_metadata(self, _metadata, _context):
                return returned

        provider = create_in_memory_provider(processors=[Careless()])

        async def main():
            with pytest.raises(MemoryConfigurationError, match="outgoing_metadata of the processor Careless"):
                await provider.store_messages("c", talk(1), {"a": 1})
            assert await provider.get_conversation("c") is None

        asyncio.run(main())

    @pytest.mark.parametrize("change", [{"role": "hacker"}, {"content": ["x"]}, {"message_id": None}, {"name": 5}])
    def test_wrong_messages(self, change):
        """The same for a message, in both directions."""

        class Careless(Processor):
            def outgoing(self, message, _context):
                return replace(message, **change)

        class Clumsy(Processor):
            def incoming(self, message, _context):
                return replace(message, **change)

        async def main():
            with pytest.raises(MemoryConfigurationError, match="outgoing of the processor Careless"):
                await create_in_memory_provider(processors=[Careless()]).store_messages("c", talk(1))
            provider = create_in_memory_provider(processors=[Clumsy()])
            await provider.store_messages("c", talk(1))
            with pytest.raises(MemoryConfigurationError, match="incoming of the processor Clumsy"):
                await provider.get_conversation("c")

        asyncio.run(main())


class Lacking:
    """No processor at all."""


class Waiting(Processor):
    """Nobody would wait for it."""

    async def outgoing(self, message, context):
        """Wait."""


class Wanting(Processor):
    """It wants what nobody gives it."""

    def incoming(self, message, context, further):
        """Take one argument too many."""


async def waiting(event):
    """Nobody would wait for it."""


class TestMaking:
    """A wrong processor or observer is refused when the provider is made, and not at the first write."""

    @pytest.mark.parametrize("given", [[5], [Lacking()], [Processor], [Waiting()], [Wanting()], 5, "x", Processor()])
    def test_processors(self, given):
        """What has no methods, or the wrong ones, is no processor."""
        with pytest.raises(MemoryConfigurationError, match="processors must"):
            BackendProvider(InMemoryBackend(), processors=given)
        with pytest.raises(MemoryConfigurationError, match="processors must"):
            asyncio.run(create_memory_provider("memory", processors=given))

    @pytest.mark.parametrize(
        "given", [[5], [waiting], [lambda: None], [Lacking], 5, print, [SimpleNamespace(begin=lambda: None)]]
    )
    def test_observers(self, given):
        """What cannot be called, or whose answer must be awaited, is no observer."""
        with pytest.raises(MemoryConfigurationError, match="observers must"):
            BackendProvider(InMemoryBackend(), observers=given)
        with pytest.raises(MemoryConfigurationError, match="observers must"):
            asyncio.run(create_memory_provider("memory", observers=given))

    def test_in_code(self):
        """Every way to make a provider takes them."""
        events = []

        async def main():
            for provider in (
                await create_memory_provider("memory", processors=[Wrapping("<")], observers=[events.append]),
                await create_memory_provider_from_env(
                    {"JAF_MEMORY_TYPE": "memory"}, processors=[Wrapping("<")], observers=[events.append]
                ),
                create_in_memory_provider(processors=[Wrapping("<")], observers=[events.append]),
            ):
                await provider.store_messages("c", talk(1))
                assert (await provider.backend.read("c")).messages[0].content == "<m 0"
            assert [event.operation for event in events if event.operation == "store_messages"] == [
                "store_messages"
            ] * 3

        asyncio.run(main())

    def test_the_backends_settings(self):
        """Without settings of its own a provider goes by those that its backend was made with."""
        config = InMemoryConfig(ttl=60, max_messages=3, operation_timeout=2)
        assert BackendProvider(InMemoryBackend(config)).config is config

    @pytest.mark.parametrize("given", [None, 5, "memory", InMemoryBackend])
    def test_backends(self, given):
        """A provider is made over a backend."""
        with pytest.raises(MemoryConfigurationError, match="over a Backend"):
            BackendProvider(given)

    @pytest.mark.parametrize("given", [5, {}, "x", InMemoryBackend])
    def test_settings(self, given):
        """Settings are settings."""
        with pytest.raises(MemoryConfigurationError, match="takes a"):
            BackendProvider(InMemoryBackend(), given)
        with pytest.raises(MemoryConfigurationError, match="takes a InMemoryConfig"):
            create_in_memory_provider(given)


class TestLastLine:
    """What a store lets through by mistake, a provider holds back."""

    def test_another_users_conversation(self):
        """A conversation that does not pass the query is not shown, though the store gave it."""

        class Leaking(InMemoryBackend):
            async def find(self, query):
                return await super().find(replace(query, user_id=None))

            async def scan(self, query):
                async for record in super().scan(replace(query, user_id=None)):
                    yield record

        provider = BackendProvider(Leaking())

        async def main():
            await provider.store_messages("c", talk(1), user_id="u")
            for one in (provider, provider.for_user("v")):
                query = MemoryQuery(user_id="v")
                assert await one.find_conversations(query) == []
                assert [found async for found in one.iter_conversations(query)] == []

        asyncio.run(main())

    def test_messages_that_were_not_asked_for(self):
        """Without messages means without messages, whatever the store gives."""

        class Generous(InMemoryBackend):
            async def find(self, query):
                return await super().find(replace(query, include_messages=True))

        provider = BackendProvider(Generous())

        async def main():
            await provider.store_messages("c", talk(3))
            (found,) = await provider.find_conversations(MemoryQuery(include_messages=False))
            assert (found.messages, found.message_count) == ((), 3)

        asyncio.run(main())

    def test_health_never_raises(self):
        """`health_check` lets a bug through, and nothing of `MemoryError`."""

        class Buggy(InMemoryBackend):
            async def ping(self):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            asyncio.run(BackendProvider(Buggy()).health_check())


class TestViews:
    """`for_user`."""

    def test_shares_everything(self):
        """A view shares the store, the limits and the figures of its provider."""
        provider = create_in_memory_provider()
        view = provider.for_user("u")
        assert view.backend is provider.backend
        assert view.config is provider.config
        assert view._guard is provider._guard
        assert repr(view) == "<BackendProvider over memory for one user>"
        assert repr(provider) == "<BackendProvider over memory>"

    def test_import(self):
        """What is imported through a view is its user's, or refused."""
        provider = create_in_memory_provider()

        async def main():
            view = provider.for_user("u")
            await view.import_conversation(ConversationMemory("a", messages=talk(1)))
            assert (await provider.get_conversation("a")).user_id == "u"
            await view.import_conversation(ConversationMemory("b", "v", talk(1)))
            assert await provider.get_conversation("b") is None

        asyncio.run(main())


def test_digest_survives_export_and_import():
    """A conversation that goes through the document's export and import has the same digest."""
    provider = create_in_memory_provider()

    async def main():
        await provider.store_messages("c", talk(3), {"x": [1, 1.0]}, user_id="u")
        before = await provider.get_conversation("c")
        exported = {"messages": [message.dict() for message in before.messages], "metadata": dict(before.metadata)}
        await provider.delete_conversation("c")
        await provider.store_messages(
            "c", [Message(**message) for message in exported["messages"]], exported["metadata"]
        )
        after = await provider.get_conversation("c")
        assert digest(after) == digest(before)
        assert after.incarnation != before.incarnation

    asyncio.run(main())


def test_a_processor_may_leave_the_context_out():
    """Methods that take what they change and nothing else are processors, too, each method for itself."""

    class Plain(Processor):
        def outgoing(self, message):
            return replace(message, content=message.content.upper())

        def outgoing_metadata(self, metadata):
            return {**metadata, "seen": True}

    async def use():
        async with create_in_memory_provider(processors=[Plain()]) as provider:
            (await provider.store_messages("c", [said("hello")], {"a": 1})).unwrap()
            stored = await provider.get_conversation("c")
            assert (stored.messages[0].content, stored.metadata["seen"]) == ("HELLO", True)

    asyncio.run(use())
