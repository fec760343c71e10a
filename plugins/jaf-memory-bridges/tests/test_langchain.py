"""LangChain, from PyPI, keeps its chat histories in any backend of ours."""

import asyncio

import pytest
from jaf_memory_bridges.langchain import JafMemoryChatMessageHistory, to_langchain, to_message
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from jaf_memory_core import (
    MemoryConfig,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemorySession,
    Message,
    SyncMemoryProvider,
    create_in_memory_provider,
    create_memory_provider_from_env,
)

CALL = {"id": "c1", "name": "weather", "args": {"city": "Paris", "n": [1, 2.5, None]}, "type": "tool_call"}
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
TURN = [
    SystemMessage("Be kind."),
    HumanMessage([{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": "data:x"}}], id="m1"),
    AIMessage(
        content=[{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "I look."}],
        tool_calls=[CALL],
        usage_metadata=USAGE,
        response_metadata={"model": "x", "logprobs": None},
        id="m2",
    ),
    ToolMessage("18 °C", tool_call_id="c1", artifact={"raw": [1, None]}, status="error", name="weather", id="m3"),
    AIMessage("It is warm.", id="m4"),
]
ODD = [
    HumanMessage("", name="Mia"),
    HumanMessage(["a text that is no part", {"type": "text", "text": "b"}]),
    HumanMessage([{"type": "text", "text": None}], additional_kwargs={"a": {"b": 1}}),
    AIMessage("", invalid_tool_calls=[{"id": "x", "name": "f", "args": "{", "error": "", "type": "invalid_tool_call"}]),
    AIMessage([{"type": "tool_use", "id": "c1", "name": "weather", "input": {}}], tool_calls=[CALL]),
    AIMessageChunk(content="ch", tool_call_chunks=[{"name": "f", "args": "{}", "id": "c", "index": 0}], id="run-1"),
    ChatMessage("x", role="critic"),
    ChatMessage("x", role="developer"),
    FunctionMessage("x", name="f"),
    ToolMessage([{"type": "text", "text": "part"}], tool_call_id=""),
]


@pytest.mark.parametrize("message", [*TURN, *ODD], ids=lambda message: message.type)
def test_a_message_comes_back_as_it_was_given(message):
    """Whatever a message holds, one of ours is made of it that says it, and the same message of that."""
    ours = to_message(message)
    (back,) = to_langchain([ours])
    assert back == message
    assert type(back) is type(message)
    assert ours.message_id == (message.id or ours.message_id)
    if isinstance(message.content, str):
        assert ours.content == message.content


def test_messages_are_read_by_others(environ):
    """A history comes back equal and once each, has an owner, and a view finds calls and results in it."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        history = JafMemoryChatMessageHistory("h", provider, user_id="u")
        assert await history.aget_messages() == []
        await history.aadd_messages(TURN)
        await history.aadd_messages(TURN[1:])  # a retry: what has an id is there already
        await history.aadd_messages([])
        assert await history.aget_messages() == TURN
        view = await MemorySession(MemoryConfig(provider=provider), conversation_id="h", user_id="u").load()
        assert [message.role for message in view] == ["system", "user", "assistant", "tool", "assistant"]
        (call,) = view[2].tool_calls
        assert (call.id, call.function.name) == ("c1", "weather")
        assert view[3].tool_call_id == "c1"
        another = JafMemoryChatMessageHistory("h", provider, user_id="another")
        assert await another.aget_messages() == []
        with pytest.raises(MemoryConflictError):
            await history.aadd_messages([HumanMessage("other words", id="m1")])
        await history.aclear()
        assert await provider.get_conversation("h") is None
        await provider.close()

    asyncio.run(use())


def chain(answers, provider):
    """A model that follows a script, with the histories of a provider."""
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    model = GenericFakeChatModel(messages=iter(answers))
    return RunnableWithMessageHistory(
        prompt | model,
        lambda session_id: JafMemoryChatMessageHistory(session_id, provider, user_id="u"),
        input_messages_key="question",
        history_messages_key="history",
    )


def config(session_id):
    """How LangChain is told which history."""
    return {"configurable": {"session_id": session_id}}


def test_runs_with_and_without_asyncio(environ):
    """Runs, streams, a stream that is left, and two runs at once keep whole turns; blocking code sees the same."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        runs = chain(["Hello, Mia!", "You are Mia.", "never heard to its end", "a", "b"], provider)
        await runs.ainvoke({"question": "I am Mia."}, config("h"))
        streamed = [chunk.content async for chunk in runs.astream({"question": "Who am I?"}, config("h"))]
        assert "".join(streamed) == "You are Mia."
        left = runs.astream({"question": "And now?"}, config("h"))
        await anext(left)
        await left.aclose()
        await asyncio.gather(*(runs.ainvoke({"question": one}, config("h")) for one in "xy"))
        history = JafMemoryChatMessageHistory("h", provider, user_id="u")
        said = [message.content for message in await history.aget_messages()]
        assert said[:4] == ["I am Mia.", "Hello, Mia!", "Who am I?", "You are Mia."]
        whole = [turn for turn in zip(said[4::2], said[5::2], strict=True) if turn[0] in "xy"]
        assert sorted(question for question, _ in whole) == ["x", "y"]
        assert sorted(answer for _, answer in whole) == ["a", "b"]
        await provider.close()
        return said

    said = asyncio.run(use())
    if environ["JAF_MEMORY_TYPE"] != "memory":  # gone with its process
        with SyncMemoryProvider.from_env(environ) as provider:
            assert [one.content for one in JafMemoryChatMessageHistory("h", provider).messages] == said


def test_blocking_code():
    """Over a synchronous provider blocking code and coroutines work on the same history."""
    with SyncMemoryProvider(create_in_memory_provider()) as provider:
        runs = chain(["Hello, Mia!", "You are Mia."], provider)
        runs.invoke({"question": "I am Mia."}, config("h"))
        asyncio.run(runs.ainvoke({"question": "Who am I?"}, config("h")))
        history = JafMemoryChatMessageHistory("h", provider, user_id="u")
        assert [one.content for one in history.messages] == ["I am Mia.", "Hello, Mia!", "Who am I?", "You are Mia."]
        history.add_user_message("Bye.")
        assert history.messages[-1] == HumanMessage("Bye.")
        assert JafMemoryChatMessageHistory("h", provider, user_id="another").messages == []
        history.clear()
        assert history.messages == []


def test_wrong_use_is_told():
    """Blocking code over an async provider, what is no provider, and what JSON cannot hold are refused by name."""
    history = JafMemoryChatMessageHistory("h", create_in_memory_provider())
    for blocking in (lambda: history.messages, lambda: history.add_messages([HumanMessage("x")]), history.clear):
        with pytest.raises(MemoryInvalidInputError, match="needs a SyncMemoryProvider"):
            blocking()
    with pytest.raises(MemoryInvalidInputError, match="not a str"):
        JafMemoryChatMessageHistory("h", "redis://localhost")
    with pytest.raises(MemoryInvalidInputError):
        asyncio.run(history.aadd_messages([ToolMessage("x", tool_call_id="c", artifact=object())]))


def test_another_engines_conversation_goes_on():
    """What a chat engine has stored is shown as LangChain's messages, calls and results too."""

    async def use():
        provider = create_in_memory_provider()
        call = {"id": "c", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
        stored = [
            Message(role="user", content="Weather?"),
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id="c", content="18 °C"),
        ]
        await provider.store_messages("h", stored)
        history = JafMemoryChatMessageHistory("h", provider)
        await history.aadd_messages([AIMessage("It is warm.")])
        asked, called, result, answer = await history.aget_messages()
        assert (asked.content, answer.content) == ("Weather?", "It is warm.")
        assert called.tool_calls == [{"id": "c", "name": "weather", "args": {"city": "Paris"}, "type": "tool_call"}]
        assert (result.tool_call_id, result.content) == ("c", "18 °C")

    asyncio.run(use())
