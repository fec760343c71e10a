"""What a provider does beside its rules: processors, views, and what it never lets through."""

import asyncio

import pytest
from jaf_memory_testing.samples import ids, said, talk
from msgspec.structs import replace

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    MemoryConfigurationError,
    MemoryQuery,
    Message,
    Processor,
    create_in_memory_provider,
    digest,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend


class Wrapping(Processor):
    """Puts signs around texts on their way in, and takes them off on their way out."""

    def __init__(self, sign):
        self.sign = sign

    def outgoing(self, message):
        """Put on."""
        return said(f"{self.sign}{message.content}", message.role, message_id=message.message_id)

    def incoming(self, message):
        """Take off."""
        assert message.content.startswith(self.sign)
        return said(message.content.removeprefix(self.sign), message.role, message_id=message.message_id)

    def outgoing_metadata(self, metadata):
        """Put on."""
        return {key: f"{self.sign}{value}" if key != "user_id" else value for key, value in metadata.items()}

    def incoming_metadata(self, metadata):
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
            def outgoing(self, message):
                return Message(role=message.role, content=message.content)

        provider = BackendProvider(InMemoryBackend(), processors=[Renaming()])
        with pytest.raises(MemoryConfigurationError, match="message_id"):
            asyncio.run(provider.store_messages("c", talk(1)))
        assert asyncio.run(provider.get_conversation("c")) is None

    def test_one_that_fails(self):
        """An exception of a processor stops the operation before anything is stored."""

        class Failing(Processor):
            def outgoing(self, message):
                raise ZeroDivisionError(message.role)

        provider = BackendProvider(InMemoryBackend(), processors=[Wrapping("<"), Failing()])
        with pytest.raises(ZeroDivisionError):
            asyncio.run(provider.store_messages("c", talk(1)))
        assert asyncio.run(provider.get_conversation("c")) is None


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
