"""Lists and metadata that an application loads, and hands over again: in their place, in another one, and later."""

import asyncio

import pytest
from jaf import Message
from jaf.core.checkpoint import checkpoint_conversation
from jaf.core.regeneration import regenerate_conversation
from jaf.core.types import CheckpointRequest, RegenerationRequest, ToolCall, ToolCallFunction
from jaf.memory.types import MemoryConfig as TheirConfig
from jaf_memory_bridges.jaf import MemoryQuery, Success, callers, create_memory_provider_from_env, jaf_provider

from jaf_memory_core import Message as CoreMessage
from jaf_memory_core import create_in_memory_provider


def said(messages):
    """What is said in it."""
    return [message.content for message in messages]


async def stored(memory, conversation="c"):
    """What is said in a stored conversation."""
    return said((await memory.provider.get_conversation(conversation)).messages)


class Wrapper:
    """A provider of the application's around another one, as for tracing."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        async def traced(*given, **named):
            return await method(*given, **named)

        return traced


def test_a_conversation_goes_on_under_another_id(environ, engine):
    """What was loaded is new to another conversation, whether that one is there or not, and is stored there."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await engine.run(engine.config(memory, engine.Script("hi")), "hello")
        loaded = (await memory.get_conversation("c")).data
        assert await memory.store_messages("fork", loaded.messages, dict(loaded.metadata)) == Success(None)
        assert await stored(memory, "fork") == ["hello", "hi"]
        await memory.store_messages("there", [Message(role="user", content="first")])
        await memory.store_messages("there", list(loaded.messages))
        assert await stored(memory, "there") == ["first", "hello", "hi"]
        await engine.run(engine.config(memory, engine.Script("on"), conversation_id="fork"), "go")
        assert await stored(memory, "fork") == ["hello", "hi", "go", "on"]
        assert await stored(memory) == ["hello", "hi"]
        await memory.close()

    asyncio.run(use())


def test_a_conversation_is_copied_to_another_store(environ, engine):
    """What was loaded from one store is new to another one, also under the same id."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        other = jaf_provider(create_in_memory_provider(), "u")
        await engine.run(engine.config(memory, engine.Script("hi")), "hello")
        loaded = (await memory.get_conversation("c")).data
        assert await other.store_messages("c", loaded.messages, dict(loaded.metadata)) == Success(None)
        assert await stored(other) == ["hello", "hi"]
        await memory.close()

    asyncio.run(use())


def test_bridges_over_one_provider_are_one_store(engine):
    """What one bridge has loaded, and was erased, is not brought back through another bridge over the same provider."""

    async def use():
        provider = create_in_memory_provider()
        memory = jaf_provider(provider, "u")
        await engine.run(engine.config(memory, engine.Script("hi")), "hello")
        loaded = (await memory.get_conversation("c")).data
        await provider.delete_conversation("c")
        for bridge in (jaf_provider(provider, "u"), jaf_provider(memory), jaf_provider(provider)):
            assert not isinstance(await bridge.store_messages("c", loaded.messages), Success)
        assert await provider.get_conversation("c") is None

    asyncio.run(use())


@pytest.mark.parametrize("how", ["delete_conversation", "clear_user_conversations"])
def test_after_an_erasure_the_same_task_begins_anew(environ, how):
    """Who has erased a conversation, or all of its user's, may begin another one under its id."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await memory.store_messages("c", [Message(role="user", content="old")])
        loaded = (await memory.get_conversation("c")).data
        await getattr(memory, how)("c" if how == "delete_conversation" else "u")
        assert await memory.store_messages("c", [Message(role="user", content="new")]) == Success(None)
        assert await stored(memory) == ["new"]
        assert said(loaded.messages) == ["old"]
        await memory.close()

    asyncio.run(use())


def test_notes_that_are_handed_back_cut_nothing(environ, engine):
    """A title that is stored with the list and the metadata of a moment ago cuts nothing off that a run has added."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two", "two again", "three"))
        for question in ("a", "b"):
            await engine.run(config, question)
        last = (await memory.get_conversation("c")).data.messages[-1]
        request = RegenerationRequest(conversation_id="c", message_id=last.message_id)
        assert (await regenerate_conversation(request, config, {}, "bot")).outcome.status == "completed"
        newest = (await memory.get_conversation("c")).data.messages[-1]
        await checkpoint_conversation(CheckpointRequest(conversation_id="c", message_id=newest.message_id), config)
        loaded = (await memory.get_conversation("c")).data
        await engine.run(config, "c")
        expected = ["a", "one", "b", "two again", "c", "three"]
        for length in range(len(loaded.messages) + 1):
            await memory.store_messages("c", list(loaded.messages)[:length], {**loaded.metadata, "title": "t"})
            assert await stored(memory) == expected
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("note", ["regeneration", "checkpoint"])
def test_notes_alone_cut_nothing(environ, note):
    """Metadata as the engine's notes have them mean nothing in a list that is not the engine's."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        messages = [Message(role="user", content=text) for text in "abc"]
        points = {"regeneration": 1, "checkpoint": 0}
        notes = {f"{note}_truncated": True, f"{note}_point": messages[points[note]].message_id}
        await memory.store_messages("c", messages, notes)
        loaded = (await memory.get_conversation("c")).data
        assert await memory.store_messages("c", loaded.messages[:1], dict(loaded.metadata)) == Success(None)
        assert await stored(memory) == ["a", "b", "c"]
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("note", ["regeneration", "checkpoint"])
def test_a_release_without_these_functions_goes_by_the_notes(note, monkeypatch):
    """Where jaf-py has no function of that name, a list with its notes still cuts the conversation back."""
    monkeypatch.setitem(callers.CUTS, note, None)

    async def use():
        memory = jaf_provider(create_in_memory_provider(), "u")
        messages = [Message(role="user", content=text) for text in "abc"]
        await memory.store_messages("c", messages)
        loaded = (await memory.get_conversation("c")).data
        point = messages[{"regeneration": 1, "checkpoint": 0}[note]].message_id
        await memory.store_messages("c", loaded.messages[:1], {f"{note}_truncated": True, f"{note}_point": point})
        assert await stored(memory) == ["a"]

    asyncio.run(use())


def test_a_failure_of_no_conversation_names_none(caplog):
    """A listing that failed is told in the log without a conversation."""
    memory = jaf_provider(create_in_memory_provider(), "u")
    asyncio.run(memory.find_conversations(MemoryQuery(limit=-1)))
    assert caplog.messages[0].startswith("find_conversations failed: ")


def test_a_wrapper_changes_nothing(environ, engine):
    """Regeneration and checkpoints cut a conversation back through a provider that the application has wrapped."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        wrapped = TheirConfig(provider=Wrapper(memory))
        config = engine.config(wrapped, engine.Script("one", "two", "two again"))
        for question in ("a", "b"):
            await engine.run(config, question)
        messages = (await memory.get_conversation("c")).data.messages
        request = RegenerationRequest(conversation_id="c", message_id=messages[3].message_id)
        assert (await regenerate_conversation(request, config, {}, "bot")).outcome.status == "completed"
        assert await stored(memory) == ["a", "one", "b", "two again"]
        await checkpoint_conversation(CheckpointRequest(conversation_id="c", message_id=messages[1].message_id), config)
        assert await stored(memory) == ["a", "one"]
        await memory.close()

    asyncio.run(use())


def call(key):
    """An answer that calls a tool."""
    function = ToolCallFunction(name="look", arguments="{}")
    return Message(role="assistant", content="", tool_calls=[ToolCall(id=key, type="function", function=function)])


@pytest.mark.parametrize("later", ["stored", "new"])
def test_a_call_id_that_repeats_keeps_its_results_apart(environ, later):
    """A result stands behind its own call, where an earlier call of the same id still waits for a human."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        waits = CoreMessage(role="tool", tool_call_id="call_0", content='{"hitl_status": "pending_approval"}')
        await memory.store_messages("c", [Message(role="user", content="delete"), call("call_0"), waits])
        repeated = [Message(role="user", content="no, look"), call("call_0")]
        if later == "stored":
            await memory.store_messages("c", repeated)
            repeated = []
        loaded = (await memory.get_conversation("c")).data
        result = Message(role="tool", tool_call_id="call_0", content="seen")
        await memory.store_messages("c", [*loaded.messages, *repeated, result])
        assert await stored(memory) == ["delete", "", waits.content, "no, look", "", "seen"]
        await memory.close()

    asyncio.run(use())


def test_a_response_belongs_to_its_conversation(environ):
    """What a task has stored last says nothing of another conversation that ends with the same message."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        messages = [Message(role="user", content=text) for text in "abc"]
        await memory.store_messages("d", messages[2:])
        await memory.store_messages("c", messages)
        last = messages[2].message_id
        await memory.set_previous_response_id("d", "r", message_id=last, message_index=1)
        metadata = (await memory.provider.get_conversation("d")).metadata
        assert metadata["previous_response_boundary_id"] == last
        await memory.close()

    asyncio.run(use())
