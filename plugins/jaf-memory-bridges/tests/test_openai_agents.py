"""The OpenAI Agents SDK, from PyPI, keeps its sessions in any backend of ours."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.memory import OpenAIResponsesCompactionSession, Session, SessionSettings
from agents.testing import ScriptedModel, assistant_message, function_call
from jaf_memory_bridges.openai_agents import JafMemorySession, to_items, to_message
from openai.types.responses import ResponseReasoningItem

from jaf_memory_core import (
    ContentPart,
    MemoryConfig,
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemorySession,
    Message,
    SyncMemoryProvider,
    create_in_memory_provider,
    create_memory_provider_from_env,
)
from jaf_memory_core.session.formats import request_of

PICTURE = {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"}
SECOND = [{"role": "user", "content": [{"type": "input_text", "text": "And here?"}, PICTURE]}]


@function_tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"18 °C in {city}"


def agent(*steps):
    """An agent whose model answers what it is told to."""
    return Agent(name="bot", instructions="Be kind.", tools=[weather], model=ScriptedModel(steps))


def thought(number):
    """A reasoning item, as the interface gives it."""
    return ResponseReasoningItem(id=f"rs_{number}", type="reasoning", summary=[], encrypted_content="gAAA==")


def steps():
    """Two turns: a call behind a thought, and an answer to its result; then an answer."""
    call = function_call("weather", {"city": "Paris"}, call_id="call_1")
    warm, cat = assistant_message("It is warm.", item_id="msg_1"), assistant_message("A cat.", item_id="msg_2")
    return [[thought(1), call], [warm], [cat]]


async def two_turns(session):
    """What the model was given, and what the session holds after two turns."""
    bot = agent(*steps())
    await Runner.run(bot, "Weather in Paris?", session=session)
    await Runner.run(bot, SECOND, session=session)
    return [call.input for call in bot.model.calls], await session.get_items(), await session.get_items(limit=3)


def plain(value):
    """The same without what differs in each run: ids that the SDK makes up."""
    return json.loads(json.dumps(value), object_hook=lambda one: {**one, "id": "…"} if "id" in one else one)


def test_items_come_back_as_they_were_given(environ):
    """A run's items equal those of the SDK's own session, and are messages, in which a view finds calls and results."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        ours = await two_turns(JafMemorySession("s", provider, user_id="u"))
        theirs = SQLiteSession("s")
        assert plain(ours) == plain(await two_turns(theirs))
        theirs.close()
        conversation = await provider.get_conversation("s")
        assert conversation.user_id == "u"
        kinds = [message.role or message.type for message in conversation.messages]
        assert kinds == ["user", "reasoning", "function_call", "function_call_output", "assistant", "user", "assistant"]
        view = await MemorySession(MemoryConfig(provider=provider), conversation_id="s", user_id="u").load()
        assert plain(request_of(view, "responses")["input"]) == plain(ours[1])
        config = MemoryConfig(provider=provider)
        chat = await MemorySession(config, conversation_id="s", user_id="u", view_format="chat").load()
        said = [(message.role, message.content) for message in chat]
        assert said[:4] == [
            ("user", "Weather in Paris?"),
            ("assistant", None),
            ("tool", "18 °C in Paris"),
            ("assistant", (ContentPart(type="text", text="It is warm."),)),
        ]
        assert await provider.clear_user_conversations("u") == 1
        await provider.close()

    asyncio.run(use())


ODD = [
    {"role": "user", "content": "plain"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": None}]},
    {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}], "content": None},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": None, "name_space": None},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}, PICTURE]},
    {"type": "computer_call", "id": "cc", "call_id": "c", "action": {"type": "click", "x": 1, "y": -0.0}},
    {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}]},
    {"type": "item_reference", "id": "msg_1"},
    {"type": "compaction", "id": "cmp", "encrypted_content": "gAAA=="},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "content": "x", "tool_call_id": "c"},
    {"role": "critic", "content": "a role of its own", "message_id": "mine"},
    {"content": "no role, and no type"},
    {"role": "user", "content": ["a part that is no object", 1], "further": {"a": 1}},
    {"role": "user", "content": "\x00 \ud800 😀", "n": 1 << 70},
    {},
]


@pytest.mark.parametrize("item", ODD, ids=lambda item: str(item.get("type", item.get("role"))))
def test_an_item_is_a_message_and_comes_back(item):
    """Whatever an item holds, a message is made of it that says it, and the same item of that."""
    message = to_message(item)
    assert to_items([message]) == [item]
    assert all("jaf-memory" not in name for shown in request_of([message], "responses")["input"] for name in shown)
    assert json.dumps(to_items([message]), sort_keys=True) == json.dumps([item], sort_keys=True)
    if isinstance(item.get("content"), str):
        assert message.content == item["content"]
    assert to_message(item).message_id != message.message_id  # said twice is two messages


def test_another_engines_conversation_goes_on():
    """What a chat engine has stored is shown as items, calls and results too, and the next run goes on from there."""

    async def use():
        provider = create_in_memory_provider()
        call = {"id": "c", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
        stored = [
            Message(role="user", content="Weather in Paris?"),
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id="c", content="18 °C"),
        ]
        await provider.store_messages("s", stored)
        session = JafMemorySession("s", provider)
        bot = agent([assistant_message("It is warm.")])
        await Runner.run(bot, "Well?", session=session)
        kinds = ["user", "function_call", "function_call_output", "user"]
        assert [item.get("type", item.get("role")) for item in bot.model.calls[0].input] == kinds
        assert len((await provider.get_conversation("s")).messages) == 5
        popped = [await session.pop_item() for _ in range(6)]
        assert [item and item.get("content") for item in popped[1:]] == [
            "Well?",
            "18 °C",
            None,
            "Weather in Paris?",
            None,
        ]

    asyncio.run(use())


def test_what_json_cannot_hold_is_refused():
    """An item that JSON cannot hold is refused, and nothing of the batch is stored."""

    async def use():
        session = JafMemorySession("s", create_in_memory_provider())
        with pytest.raises(MemoryInvalidInputError):
            await session.add_items([{"role": "user", "content": "a"}, {"role": "user", "content": "b", "x": {1, 2}}])
        assert await session.get_items() == []

    asyncio.run(use())


def test_settings_limits_and_ends():
    """`limit` and `session_settings` are the SDK's; what is not there is empty; clearing leaves nothing."""

    async def use():
        provider = create_in_memory_provider()
        session = JafMemorySession("s", provider, session_settings={"limit": 2})
        assert isinstance(session, Session)
        assert session.session_settings == SessionSettings(limit=2)
        assert (await session.get_items(), await session.get_items(1), await session.pop_item()) == ([], [], None)
        items = [{"role": "user", "content": str(number)} for number in range(5)]
        await session.add_items(items)
        await session.add_items([])
        assert await session.get_items() == items[-2:]
        assert (await session.get_items(4), await session.get_items(0)) == (items[1:], [])
        session.session_settings = None
        assert await session.get_items() == items
        assert await JafMemorySession("s", provider, user_id="another").get_items() == []
        await session.clear_session()
        assert await provider.get_conversation("s") is None

    asyncio.run(use())


def test_wrong_use_is_told():
    """What is no async provider is refused at once; another user's session is not written."""
    sync = SyncMemoryProvider(create_in_memory_provider())
    with pytest.raises(MemoryInvalidInputError, match="not a SyncMemoryProvider"):
        JafMemorySession("s", sync)
    sync.close()
    with pytest.raises(MemoryInvalidInputError, match="not a str"):
        JafMemorySession("s", "redis://localhost")

    async def use():
        provider = create_in_memory_provider()
        await JafMemorySession("s", provider, user_id="u").add_items([{"role": "user", "content": "a"}])
        with pytest.raises(MemoryConflictError):
            await JafMemorySession("s", provider, user_id="another").add_items([{"role": "user", "content": "b"}])

    asyncio.run(use())


def test_six_methods_are_too_few(six):
    """A provider with the six documented methods can neither pop nor keep users apart, and is refused at once."""
    with pytest.raises(MemoryConfigurationError, match=r"lacks get_condensed_conversation, .*, for_user"):
        JafMemorySession("s", six, user_id="u")


def test_each_item_is_popped_once(environ):
    """Of several who pop at once each gets another item, and what is added meanwhile stays."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        sessions = [JafMemorySession("s", provider) for _ in range(4)]
        first = [{"role": "user", "content": f"first {number}"} for number in range(4)]
        later = [{"role": "user", "content": f"later {number}"} for number in range(2)]
        await sessions[0].add_items(first)
        popped, _ = await asyncio.gather(
            asyncio.gather(*(session.pop_item() for session in sessions)),
            asyncio.gather(*(sessions[0].add_items([item]) for item in later)),
        )
        left = await sessions[0].get_items()
        said = sorted(item["content"] for item in [*popped, *left])
        assert said == sorted(item["content"] for item in [*first, *later])
        await provider.close()

    asyncio.run(use())


def test_two_runs_at_once(environ):
    """Two runs on one session lose nothing; what each stores at once stays together."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        sessions = [JafMemorySession("s", provider), JafMemorySession("s", provider)]
        runs = [Runner.run(agent(*steps()[:2]), f"run {number}", session=one) for number, one in enumerate(sessions)]
        await asyncio.gather(*runs)
        items = await sessions[0].get_items()
        kinds = [item.get("type", item.get("role")) for item in items]
        assert sorted(kinds) == sorted(2 * ["user", "reasoning", "function_call", "function_call_output", "message"])
        thoughts = [place for place, kind in enumerate(kinds) if kind == "reasoning"]
        assert all(kinds[place + 1] == "function_call" for place in thoughts)
        await provider.close()

    asyncio.run(use())


def test_a_stream_that_is_left(environ):
    """A run that is cancelled while it streams leaves a session with which the next run goes on."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        session = JafMemorySession("s", provider)
        bot = agent(*steps()[:2])
        streamed = Runner.run_streamed(bot, "Weather in Paris?", session=session)
        async for _ in streamed.stream_events():
            streamed.cancel()
        after = agent([assistant_message("Here I am.")])
        assert (await Runner.run(after, "Still there?", session=session)).final_output == "Here I am."
        shown = after.model.calls[-1].input
        called = {item["call_id"] for item in shown if item.get("type") == "function_call"}
        assert called == {item["call_id"] for item in shown if item.get("type") == "function_call_output"}
        assert [item["content"] for item in await session.get_items() if item.get("role") == "user"][-1:] == [
            "Still there?"
        ]
        await provider.close()

    asyncio.run(use())


TURNS = """
from agents import Agent, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from jaf_memory_bridges.openai_agents import JafMemorySession
from jaf_memory_core import create_memory_provider_from_env

async def turns(environ):
    session = JafMemorySession("s", await create_memory_provider_from_env(environ), user_id="u")
    steps = [[assistant_message("Hello!")], [function_call("stop", {}, call_id="call_1")]]
    bot = Agent(name="bot", tools=[function_tool(stop)], model=ScriptedModel(steps))
    await Runner.run(bot, "Hello?", session=session)
    await Runner.run(bot, "Stop!", session=session)
"""


def test_another_process_goes_on(killed):
    """A process that is killed in mid-turn leaves whole items, and another one goes on with the conversation."""

    async def use(environ):
        provider = await create_memory_provider_from_env(environ)
        session = JafMemorySession("s", provider, user_id="u")
        before = await session.get_items()
        assert before[0]["content"] == "Hello?"
        bot = agent([assistant_message("Here I am.")])
        assert (await Runner.run(bot, "Still there?", session=session)).final_output == "Here I am."
        assert (await session.get_items())[: len(before)] == before
        await provider.close()

    for environ in killed(TURNS):
        asyncio.run(use(environ))


class Compacted:
    """In the place of the client that would ask OpenAI: one item is made of a conversation."""

    def __init__(self):
        self.responses = self

    async def compact(self, **_request):
        """Answer as the endpoint does."""
        return SimpleNamespace(
            output=[{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA=="}], usage=None
        )


def test_compaction(environ):
    """The SDK's compaction puts one item in the place of the conversation, in one write: nobody sees it empty."""

    async def use():
        done = []
        provider = await create_memory_provider_from_env(
            environ, observers=[lambda event: done.append(event.operation)]
        )
        session = JafMemorySession("s", provider, user_id="u")
        around = OpenAIResponsesCompactionSession("s", session, client=Compacted(), compaction_mode="input")
        await around.add_items([{"role": "user", "content": str(number)} for number in range(3)])
        created = (await provider.get_conversation("s")).created_at
        done.clear()
        await around.run_compaction({"force": True})
        assert set(done) <= {"store_messages", "get_conversation", "get_recent_messages"}
        assert done.count("store_messages") == 1
        (item,) = await session.get_items()
        assert item["type"] == "compaction"
        assert (await provider.get_conversation("s")).created_at == created
        assert (await provider.get_conversation("s")).user_id == "u"
        await provider.close()

    asyncio.run(use())


def items_of(*texts):
    """Items that a user said."""
    return [{"role": "user", "content": text} for text in texts]


def test_compaction_of_the_newest_items(environ):
    """What the SDK replaces automatically are the newest items, in one write; not where somebody wrote meanwhile."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        session = JafMemorySession("s", provider, user_id="u")
        await session.add_items(items_of("0", "1", "2", "3", "4"))
        snapshot = await session._get_compaction_snapshot(3)
        assert (snapshot.items, snapshot.complete) == (items_of("2", "3", "4"), False)
        assert await snapshot.replace_suffix(1, items_of("sum"))
        assert await session.get_items() == items_of("0", "1", "2", "sum")
        assert not await snapshot.replace_suffix(1, items_of("again"))
        snapshot = await session._get_compaction_snapshot(99)
        assert snapshot.complete
        assert not await snapshot.replace_suffix(len(snapshot.items), items_of("behind all"))
        await JafMemorySession("s", provider).add_items(items_of("another"))
        assert not await snapshot.replace_suffix(0, items_of("sum"))
        assert await session.get_items() == items_of("0", "1", "2", "sum", "another")
        first = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item["content"] in "01")
        assert await first.replace_suffix(1, [])
        assert await session.get_items() == items_of("2", "sum")
        held = await provider.get_conversation("s")
        await session.clear_session()
        assert not await first.replace_suffix(0, items_of("back"))
        assert await provider.get_conversation("s") is None
        assert held.user_id == "u"
        assert not await (await session._get_compaction_snapshot(5)).replace_suffix(0, [])
        await provider.close()

    asyncio.run(use())


def test_a_subclass_is_compacted_as_it_adds():
    """A session that does more in `add_items` is cleared and added to, so that none of it is passed by."""

    class Louder(JafMemorySession):
        """Capitals only."""

        async def add_items(self, items):
            await super().add_items([{**item, "content": item["content"].upper()} for item in items])

    class Said(Compacted):
        """Answers a message."""

        async def compact(self, **_request):
            return SimpleNamespace(output=[{"role": "user", "content": "sum"}], usage=None)

    async def use():
        session = Louder("s", create_in_memory_provider())
        around = OpenAIResponsesCompactionSession("s", session, client=Said(), compaction_mode="input")
        await around.add_items(items_of("a"))
        await around.run_compaction({"force": True})
        assert await session.get_items() == items_of("SUM")
        assert await session._get_compaction_snapshot(5) is None

    asyncio.run(use())
