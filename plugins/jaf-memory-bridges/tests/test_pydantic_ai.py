"""Pydantic AI, from PyPI, keeps its conversations in any backend of ours."""

import asyncio
from dataclasses import replace

import pytest
from jaf_memory_bridges.pydantic_ai import JafMemoryConversationStore, to_history, to_messages
from pydantic_ai import Agent, BinaryContent, ImageUrl, ModelMessagesTypeAdapter
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, InMemoryConversationStore
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from jaf_memory_core import (
    MemoryConfig,
    MemoryInvalidInputError,
    MemoryQuery,
    MemorySession,
    Message,
    SyncMemoryProvider,
    create_in_memory_provider,
    create_memory_provider_from_env,
)

PROMPT = ["What?", ImageUrl("https://example.org/a.png"), BinaryContent(b"\x00\xff", media_type="image/png")]


async def answer(messages, _info):
    """Call the tool for a prompt, and answer its result."""
    if any(isinstance(part, UserPromptPart) for part in messages[-1].parts):
        call = ToolCallPart("weather", {"city": "Paris"}, tool_call_id=f"c{len(messages)}")
        return ModelResponse(parts=[ThinkingPart("hm", signature="sig"), call])
    return ModelResponse(parts=[TextPart(f"18 °C, after {len(messages)}")])


async def stream(messages, _info):
    """The same in pieces."""
    if any(isinstance(part, UserPromptPart) for part in messages[-1].parts):
        yield {0: DeltaToolCall("weather", '{"city": "Paris"}', tool_call_id=f"c{len(messages)}")}
    else:
        yield "18 "
        yield "°C"


def agent():
    """An agent with a model that follows a script, and a tool."""
    bot = Agent(FunctionModel(answer, stream_function=stream), instructions="Be kind.")
    bot.tool_plain(weather)
    return bot


def weather(city: str) -> dict:
    """Say how the weather is."""
    return {"city": city, "degrees": 18}


async def turn(store, prompt, key="c", scope="u"):
    """Load, run, save, as Pydantic AI's documentation does; the conversation and the entries."""
    conversation = await store.load(key, scope=scope) or Conversation(conversation_id=key)
    result = await agent().run(prompt, conversation=conversation)
    entries = await store.save(result, scope=scope)
    return result.conversation, entries


async def raised(coroutine):
    """The name of what it raises, or what it answers."""
    try:
        return await coroutine
    except (UserError, LookupError) as error:
        return type(error).__name__


def texts(messages):
    """What messages hold, but for times and ids, in short."""
    return [
        [(part.part_kind, str(getattr(part, "content", getattr(part, "tool_name", None)))) for part in message.parts]
        for message in messages
    ]


async def life(store):
    """All that a store is asked for, and what it answers, without times and ids."""
    seen = [await store.load("c"), await store.load_entries("c")]
    first, entries = await turn(store, "What?")
    await turn(store, "More?")
    whole = await store.load("c", scope="u")
    seen += [
        texts(whole.messages),
        whole.usage.requests,
        [texts((await store.load("c", limit=n)).messages) for n in (0, 3)],
    ]
    seen += [await store.load("c", scope="another"), await raised(store.load("c", limit=-1))]
    seen.append(await raised(store.save(first, scope="u")))  # loaded before the last turn
    seen.append(await raised(store.save(Conversation(conversation_id="c", messages=whole.messages))))
    fork = await store.fork("c", from_entry=entries[3].id, new_conversation_id="f", scope="v")
    seen += [texts(fork.messages), await raised(store.fork("c", at=1, new_conversation_id="f"))]
    seen.append(await raised(store.fork("c", at=99)))
    await turn(store, "Elsewhere?", "f", "v")
    branched = await store.branch("c", at=2, expected_revision=whole.revision, scope="u")
    seen += [texts(branched.messages), await raised(store.branch("c", at=1, expected_revision=whole.revision))]
    branched.messages.append(ModelRequest([UserPromptPart("Another way")]))
    (way,) = await store.save(branched)
    record = (await store.list_conversations(scope="u"))[0]
    seen += [texts((await store.load("c")).messages), len(record.branches), record.head_id == way.id]
    back = await store.branch("c", from_entry=record.branches[0], expected_revision=record.revision)
    seen.append(texts(back.messages))
    rewritten = replace(back, messages=[*back.messages[:1], ModelResponse([TextPart("cut")])], new_message_index=None)
    seen += [len(await store.save(rewritten)), texts((await store.load("c")).messages)]
    seen.append([(one.conversation_id, one.scope, one.forked_from) for one in await store.list_conversations()])
    seen.append([one.conversation_id for one in await store.list_conversations(limit=1)])
    await store.delete("c", scope="another")
    seen.append(await store.load("c") is None)
    await store.delete("c", scope="u")
    seen += [await store.load("c"), texts((await store.load("f")).messages), await raised(store.delete("c"))]
    seen.append(await raised(store.save(back)))
    seen += [len((await turn(store, "Anew"))[1]), len(await store.list_conversations())]
    return seen


def test_a_store_answers_as_pydantic_ais_own(environ):
    """Turns, windows, forks, branches, rewritten histories, scopes, conflicts and deletions are as in its own store."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        assert await life(JafMemoryConversationStore(provider)) == await life(InMemoryConversationStore())
        await provider.close()

    asyncio.run(use())


def test_conversations_are_read_by_others(environ):
    """Messages come back as from Pydantic AI's own JSON; calls and results stand in a view, and the scope owns them."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        conversation, entries = await turn(JafMemoryConversationStore(provider), PROMPT)
        store = JafMemoryConversationStore(provider)  # as another process has it
        loaded = await store.load("c", scope="u")
        dumped = ModelMessagesTypeAdapter.dump_json(conversation.messages)
        assert loaded.messages == ModelMessagesTypeAdapter.validate_json(dumped)
        assert (loaded.usage, loaded.revision) == (conversation.usage, conversation.revision)
        assert [(await JafMemoryConversationStore(provider).read_entry(one.id)).id for one in entries] == [
            one.id for one in await store.load_entries("c")
        ]
        with pytest.raises(LookupError):
            await store.read_entry("nowhere")
        view = await MemorySession(MemoryConfig(provider=provider), conversation_id="c", view_format="chat").load()
        assert [message.role for message in view] == ["user", "assistant", "tool", "assistant"]
        assert view[1].tool_calls[0].function.name == "weather"
        assert view[2].content == '{"city": "Paris", "degrees": 18}'
        assert await provider.clear_user_conversations("u") == 1
        assert await store.load("c") is None
        await provider.close()

    asyncio.run(use())


def test_two_saves_at_once(environ):
    """Of those who save what they have all loaded one wins; the others meet a conflict, in which nothing is stored."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        await turn(JafMemoryConversationStore(provider), "first")
        stores = [JafMemoryConversationStore(provider) for _ in range(4)]
        runs = [await agent().run(str(number), conversation=await one.load("c")) for number, one in enumerate(stores)]
        saves = await asyncio.gather(*(raised(one.save(run)) for one, run in zip(stores, runs, strict=True)))
        (won,) = (place for place, saved in enumerate(saves) if saved != "ConversationConflict")
        assert texts((await stores[0].load("c")).messages) == texts(runs[won].all_messages())
        assert len((await provider.get_conversation("c")).messages) == 8
        last = await agent().run("last", conversation=await stores[0].load("c"))
        saved, deleted = await asyncio.gather(raised(stores[0].save(last)), raised(stores[1].delete("c", scope="u")))
        assert (deleted, await provider.get_conversation("c")) == (None, None)
        assert saved == "ConversationConflict" or len(saved) == 4
        await provider.close()

    asyncio.run(use())


def test_a_stream_that_is_left(environ):
    """A streamed run is stored whole; one that is left in mid-turn stores nothing, and the conversation goes on."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        store = JafMemoryConversationStore(provider)
        async with agent().run_stream("Well?", conversation=Conversation(conversation_id="c")) as run:
            assert [text async for text in run.stream_text(delta=True, debounce_by=None)] == ["18 ", "°C"]
        await store.save(Conversation(conversation_id="c", messages=run.all_messages()))
        conversation = await store.load("c")
        async with agent().run_stream("And now?", conversation=conversation) as left:
            async for _ in left.stream_text():
                break
        assert len((await store.load("c")).messages) == 4
        assert len((await turn(store, "Still there?", scope=None))[1]) == 4
        await provider.close()

    asyncio.run(use())


TURNS = """
from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from jaf_memory_bridges.pydantic_ai import JafMemoryConversationStore
from jaf_memory_core import create_memory_provider_from_env

async def turns(environ):
    store = JafMemoryConversationStore(await create_memory_provider_from_env(environ))
    bot = Agent(TestModel())
    await store.save(await bot.run("Hello?", conversation=Conversation(conversation_id="c")), scope="u")
    await Agent(FunctionModel(stopped)).run("Stop!", conversation=await store.load("c"))

async def stopped(messages, info):
    await stop()
"""


def test_another_process_goes_on(killed):
    """A process that is killed in mid-turn leaves whole turns, and another one goes on with the conversation."""

    async def use(environ):
        provider = await create_memory_provider_from_env(environ)
        store = JafMemoryConversationStore(provider)
        assert len((await store.load("c", scope="u")).messages) == 2
        assert len((await turn(store, "Still there?"))[0].messages) == 6
        await provider.close()

    for environ in killed(TURNS):
        asyncio.run(use(environ))


def test_long_histories_are_read_by_pages():
    """A window reads no more messages than it shows, and all of a long history, branches between, is found."""

    async def use():
        provider = create_in_memory_provider()
        store = JafMemoryConversationStore(provider)
        messages = [ModelRequest([UserPromptPart(str(number))]) for number in range(250)]
        conversation = Conversation(conversation_id="c", messages=messages)
        await store.save(conversation)
        branched = await store.branch("c", at=120, expected_revision=conversation.revision)
        branched.messages.append(ModelRequest([UserPromptPart("branch")]))
        await store.save(branched)
        assert texts((await store.load("c")).messages) == texts([*messages[:120], branched.messages[-1]])
        assert texts((await store.load("c", limit=2)).messages) == texts([messages[119], branched.messages[-1]])
        assert len(await provider.find_conversations(MemoryQuery())) == 1

    asyncio.run(use())


def test_a_history_in_two_lines(environ):
    """Without the store a history comes back as from Pydantic AI's own JSON; parts of all kinds stand in a view."""
    call = ToolCallPart("f", '{"a": 1}', tool_call_id="c1")
    given = [
        ModelRequest([SystemPromptPart("Be kind.")]),
        ModelRequest([SystemPromptPart("Be brief."), UserPromptPart("Go")], instructions="Now."),
        ModelResponse([TextPart("I go."), call, ToolCallPart("g", None, tool_call_id="c2")]),
        ModelRequest(
            [
                ToolReturnPart("f", "no", tool_call_id="c1", outcome="retried"),
                ToolReturnPart("g", [1], tool_call_id="c2"),
            ]
        ),
        ModelRequest([UserPromptPart(["Look", *PROMPT[1:]])]),
        ModelResponse([]),
    ]

    async def use():
        provider = await create_memory_provider_from_env(environ)
        await provider.append_messages("c", to_messages(given), create=True)
        stored = (await provider.get_conversation("c")).messages
        assert to_history(stored) == ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(given))
        view = await MemorySession(MemoryConfig(provider=provider), conversation_id="c", view_format="chat").load()
        roles = ["system", "user", "assistant", "tool", "tool", "user", "assistant"]
        assert [message.role for message in view] == roles
        await provider.close()

    asyncio.run(use())


def test_another_engines_conversation_goes_on():
    """What a chat engine has stored becomes a history, calls and results too, with which a run goes on."""
    stored = [
        Message(role="system", content="Be kind."),
        Message(role="user", content=[{"type": "text", "text": "Weather?"}]),
        Message(role="assistant", tool_calls=[{"id": "c", "function": {"name": "weather", "arguments": "{}"}}]),
        Message(role="tool", tool_call_id="c", content="18 °C"),
        *to_messages([ModelResponse([TextPart("Warm.")])]),
    ]
    history = to_history(stored)
    kinds = [part.part_kind for message in history for part in message.parts]
    assert kinds == ["system-prompt", "user-prompt", "tool-call", "tool-return", "text"]
    assert history[3].parts[0].tool_name == "weather"


def test_wrong_use_is_told():
    """What is no async provider is refused; a conversation that is not Pydantic AI's is neither shown nor written."""
    sync = SyncMemoryProvider(create_in_memory_provider())
    with pytest.raises(MemoryInvalidInputError, match="not a SyncMemoryProvider"):
        JafMemoryConversationStore(sync)
    sync.close()

    async def use():
        provider = create_in_memory_provider()
        await provider.store_messages("c", [Message(role="user", content="mine")])
        store = JafMemoryConversationStore(provider)
        assert await store.load("c") is None
        with pytest.raises(ConversationConflict):
            await turn(store, "Hello?")
        assert len((await provider.get_conversation("c")).messages) == 1

    asyncio.run(use())
