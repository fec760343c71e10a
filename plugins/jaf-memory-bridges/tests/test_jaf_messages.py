"""Messages of JAF's and ours, each made from the other without loss; results and errors of JAF's own types."""

import asyncio
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaf.core.types import Attachment, ContentRole, Message, MessageContentPart, ToolCall, ToolCallFunction
from jaf.memory import types as jaf
from jaf_memory_bridges.jaf import jaf_provider
from jaf_memory_bridges.jaf.messages import to_core, to_jaf

from jaf_memory_core import (
    BackendProvider,
    MemoryConnectionError,
    MemoryInvalidInputError,
    create_in_memory_provider,
)
from jaf_memory_core import Message as OurMessage
from jaf_memory_core.backends.in_memory import InMemoryBackend

TEXT = st.text(max_size=20)
MAYBE = st.none() | TEXT
OBJECT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)
PART = st.builds(
    MessageContentPart,
    type=st.sampled_from(["text", "image_url", "file"]),
    text=MAYBE,
    image_url=st.none() | OBJECT,
    file=st.none() | OBJECT,
)
ATTACHMENT = st.builds(
    Attachment,
    kind=st.sampled_from(["image", "document", "file"]),
    mime_type=MAYBE,
    name=MAYBE,
    url=TEXT,
    data=MAYBE,
    format=MAYBE,
    use_litellm_format=st.none() | st.booleans(),
)
CALL = st.builds(
    ToolCall, id=TEXT, type=st.just("function"), function=st.builds(ToolCallFunction, name=TEXT, arguments=TEXT)
)
MESSAGE = st.builds(
    Message,
    role=st.sampled_from(ContentRole) | st.sampled_from(["user", "assistant", "system", "tool"]),
    content=TEXT | st.lists(PART, max_size=3),
    attachments=st.none() | st.lists(ATTACHMENT, max_size=2),
    tool_call_id=MAYBE,
    tool_calls=st.none() | st.lists(CALL, max_size=2),
    message_id=st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20),
)


@settings(max_examples=300, deadline=None)
@given(MESSAGE)
def test_both_ways_without_loss(message):
    """Whatever JAF's `Message` can hold comes back equal: parts, attachments, calls, empty lists and empty texts."""
    assert to_jaf(to_core(message)) == message
    assert asdict(to_jaf(to_core(message))) == asdict(message)


def test_what_jaf_cannot_hold_stays_in_the_store():
    """A message's name and further fields survive a turn of JAF's, and a revision by it."""

    async def use():
        provider = create_in_memory_provider()
        ours = OurMessage(role="user", content="a", name="ann", mood="good", message_id="m")
        await provider.store_messages("c", [ours])
        memory = jaf_provider(provider)
        (loaded,) = (await memory.get_conversation("c")).data.messages
        await memory.store_messages("c", [loaded, Message(role="assistant", content="one")])
        assert (await provider.get_conversation("c")).messages[0] == ours
        await memory.store_messages("c", [replace(loaded, content="b")])
        revised = OurMessage(role="user", content="b", name="ann", mood="good", message_id="m")
        assert (await provider.get_conversation("c")).messages[0] == revised

    asyncio.run(use())


def test_answers_are_of_jafs_own_types():
    """Every method answers with JAF's `Success` or `Failure`, with JAF's errors and conversations in them."""

    async def use():
        memory = jaf_provider(create_in_memory_provider())
        assert await memory.store_messages("c", [Message(role="user", content="a")], {"user_id": "u"}) == jaf.Success(
            None
        )
        assert await memory.append_messages("c", [Message(role="user", content="b")]) == jaf.Success(None)
        found = await memory.get_conversation("c")
        assert isinstance(found.data, jaf.ConversationMemory)
        assert isinstance(found.data.messages, tuple)
        assert isinstance(found.data.metadata, dict)
        found.data.metadata["mine"] = 1
        query = jaf.MemoryQuery(user_id="u", limit=5)
        assert [one.conversation_id for one in (await memory.find_conversations(query)).data] == ["c"]
        assert [one.content for one in (await memory.get_recent_messages("c", 1)).data] == ["b"]
        assert (await memory.get_stats("u")).data["user_messages"] == 2
        assert (await memory.health_check()).data["healthy"] is True
        missing = await memory.append_messages("missing", [Message(role="user", content="b")])
        assert isinstance(missing.error, jaf.MemoryNotFoundError)
        assert isinstance((await memory.get_recent_messages("missing")).error, jaf.MemoryNotFoundError)
        assert await memory.get_conversation("missing") == jaf.Success(None)
        refused = await memory.store_messages("", [Message(role="user", content="b")])
        assert isinstance(refused.error, jaf.MemoryStorageError)
        assert refused.error.operation == "store_messages"
        assert await memory.delete_conversation("c") == jaf.Success(data=True)
        assert await memory.delete_conversation("c") == jaf.Success(data=False)
        assert await memory.clear_user_conversations("u") == jaf.Success(0)
        assert await memory.close() == jaf.Success(None)
        closed = await memory.get_conversation("c")
        assert isinstance(closed.error, jaf.MemoryConnectionError)
        assert isinstance((await memory.health_check()).error, jaf.MemoryConnectionError)

    asyncio.run(use())


def test_a_bug_stays_a_bug():
    """What is no error of a store is not turned into an answer."""

    class Buggy(InMemoryBackend):
        async def read(self, _conversation_id):
            raise ZeroDivisionError

    async def use():
        with pytest.raises(ZeroDivisionError):
            await jaf_provider(BackendProvider(Buggy())).get_conversation("c")
        with pytest.raises(MemoryInvalidInputError):
            jaf_provider("redis://localhost")

    asyncio.run(use())


def test_another_owner_is_refused():
    """A run whose context names somebody else than the bridge stores nothing."""

    async def use():
        provider = create_in_memory_provider()
        memory = jaf_provider(provider, user_id="u")
        answer = await memory.store_messages("c", [Message(role="user", content="a")], {"user_id": "v"})
        assert isinstance(answer.error, jaf.MemoryStorageError)
        assert await provider.get_conversation("c") is None

    asyncio.run(use())


def test_no_content_in_errors():
    """JAF's errors, which the engine prints, hold no content."""

    class Down(InMemoryBackend):
        async def append(self, _write):
            raise MemoryConnectionError("gone", retryable=False)

    async def use():
        memory = jaf_provider(BackendProvider(Down()))
        answer = await memory.store_messages("c", [Message(role="user", content="secret")])
        assert isinstance(answer.error, jaf.MemoryConnectionError)
        assert "secret" not in repr(answer)

    asyncio.run(use())
