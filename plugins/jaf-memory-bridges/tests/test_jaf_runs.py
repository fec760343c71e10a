"""JAF's engine, from PyPI, keeps its conversations in any backend of ours."""

import asyncio
import json
import logging
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from chat_rules import problem
from jaf_memory_bridges.jaf import MemoryConfig, create_memory_provider_from_env, jaf_provider
from jaf_memory_testing import slow

from jaf_memory_core import MemoryQuery, create_in_memory_provider


def roles(messages):
    """Who says what, in short."""
    return [getattr(message.role, "value", message.role) for message in messages]


def texts(messages):
    """What is said."""
    return [message.content for message in messages]


async def stored(memory, conversation_id="c"):
    """The conversation as our provider has it."""
    return await memory.provider.get_conversation(conversation_id)


def test_several_turns(environ, engine):
    """Each run loads what was before and adds what is new, once, with its owner."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        script = engine.Script("one", "two", "three")
        config = engine.config(memory, script)
        for said in ("a", "b", "c"):
            await engine.run(config, said)
        assert [len(view) for view in script.views] == [1, 3, 5]
        conversation = await stored(memory)
        assert texts(conversation.messages) == ["a", "one", "b", "two", "c", "three"]
        assert conversation.user_id == "u"
        assert conversation.version == 3
        assert conversation.metadata["agent_name"] == "bot"
        assert await memory.owned.clear_user_conversations("u") == 1
        await memory.close()

    asyncio.run(use())


def test_tool_calls(environ, engine):
    """Calls, parallel ones too, and their results are kept, and shown in the next run."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        tools = [engine.tool("look"), engine.tool("find")]
        script = engine.Script(
            [("1", "look", {"what": "x"}), ("2", "find", {"what": "y"})],
            [("3", "look", {"what": "z"})],
            "done",
            "later",
        )
        config = engine.config(memory, script, tools=tools)
        await engine.run(config, "go")
        await engine.run(config, "on")
        conversation = await stored(memory)
        said = ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "user", "assistant"]
        assert roles(conversation.messages) == said
        assert conversation.version == 2
        assert all(problem(view) is None for view in script.views)
        assert roles(script.views[-1]) == said[:-1]
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("answer", ["approved", "rejected"])
@pytest.mark.parametrize("between", [False, True])
def test_approval(environ, engine, answer, between):
    """A call that a human has to approve interrupts; its result then takes the place of the note, in place."""
    from jaf.core.types import ApprovalValue

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        free, guarded = engine.tool("look"), engine.tool("pay", needs_approval=True)
        script = engine.Script([("1", "look", {"what": "x"}), ("2", "pay", {"what": "y"})], "done", "later")
        config = engine.config(memory, script, tools=[free, guarded])
        await engine.run(config, "go", status="interrupted")
        halted = await stored(memory)
        assert roles(halted.messages) == ["user", "assistant", "tool", "tool"]
        assert guarded.executed == 0
        approvals = {"2": ApprovalValue(status=answer, approved=answer == "approved")}
        await engine.run(config, *(["by the way"] if between else []), approvals=approvals)
        assert guarded.executed == (answer == "approved")
        conversation = await stored(memory)
        end = ["user", "assistant"] if between else ["assistant"]
        assert roles(conversation.messages) == ["user", "assistant", "tool", "tool", *end]
        decided = json.loads(conversation.messages[3].content)["hitl_status"]
        assert decided == ("approved_and_executed" if answer == "approved" else "rejected")
        assert [one.message_id for one in conversation.messages[:3]] == [one.message_id for one in halted.messages[:3]]
        await engine.run(config, "and now?")
        assert all(problem(view) is None for view in script.views[-1:])
        assert len((await stored(memory)).messages) == len(conversation.messages) + 2
        await memory.close()

    asyncio.run(use())


def test_a_changed_known_message_is_revised_in_place(environ, engine):
    """The same id with other content replaces what is held, where it stands; what only we know of it stays."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two"))
        await engine.run(config, "a")
        first = (await memory.get_conversation("c")).data.messages[0]
        await memory.store_messages("c", [replace(first, content="A")], {})
        assert texts((await stored(memory)).messages) == ["A", "one"]
        await engine.run(config, "b")
        assert texts((await stored(memory)).messages) == ["A", "one", "b", "two"]
        await memory.close()

    asyncio.run(use())


def test_streaming(environ, engine):
    """An answer that comes in pieces is kept whole, and the engine tells of its pieces as ever."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        events = []
        script = engine.StreamingScript("one two three")
        config = engine.config(memory, script, on_event=lambda event: events.append(event.type))
        await engine.run(config, "a")
        await engine.run(config, "b")
        assert events.count("assistant_message") >= 6
        assert events.count("memory_operation") == 7  # a load that finds nothing tells of no end
        assert texts((await stored(memory)).messages) == ["a", "one two three ", "b", "one two three "]
        await memory.close()

    asyncio.run(use())


def test_what_the_list_lacks_is_not_deleted(environ, engine):
    """The engine's cut and compressed lists never shorten a conversation."""
    from jaf.memory.types import MemoryConfig as JafMemoryConfig

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        for number, settings in enumerate((JafMemoryConfig, MemoryConfig)):
            limited = settings(provider=memory, max_messages=4, compression_threshold=5)
            script = engine.Script("answer")
            config = engine.config(limited, script, conversation_id=f"c{number}")
            for turn in range(12):
                await engine.run(config, f"question {turn}")
            conversation = await stored(memory, f"c{number}")
            assert len(conversation.messages) == 24
            assert max(map(len, script.views)) <= 5
            assert all(problem(view) is None for view in script.views)
        await memory.close()

    asyncio.run(use())


def test_identical_texts_all_stay(environ, engine):
    """A user who says the same again and again is kept each time, and a list that is stored twice only once."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("yes"))
        for _ in range(3):
            result = await engine.run(config, "yes")
            await memory.store_messages("c", result.final_state.messages, {})
        assert texts((await stored(memory)).messages) == ["yes"] * 6
        await memory.close()

    asyncio.run(use())


def test_messages_without_ids(environ):
    """Lists of messages without any id, rewritten and grown, are appended as far as they are new."""
    from jaf import Message
    from jaf.core.types import ContentRole

    def nameless(*said):
        messages = [Message(role=ContentRole.USER, content=text) for text in said]
        for message in messages:
            object.__setattr__(message, "message_id", None)
        return messages

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        for said in (["a", "yes"], ["a", "yes"], ["a", "yes", "b", "yes"], ["b", "yes", "yes"], ["yes", "yes", "c"]):
            assert hasattr(await memory.store_messages("c", nameless(*said), {}), "data")
        assert texts((await stored(memory)).messages) == ["a", "yes", "b", "yes", "yes", "c"]
        await memory.close()

    asyncio.run(use())


SECOND = """
import asyncio, json, os, sys
from jaf_memory_bridges.jaf import create_memory_provider_from_env
from jaf import Agent, Message, RunConfig, RunState, run
from jaf_memory_bridges.jaf import MemoryConfig

class Model:
    async def get_completion(self, state, agent, config):
        return {"message": {"content": f"I saw {len(state.messages)}"}}

async def main():
    memory = await create_memory_provider_from_env(json.loads(sys.argv[1]), user_id="u")
    config = RunConfig(
        agent_registry={"bot": Agent(name="bot", instructions=lambda s: "", tools=[])}, model_provider=Model(),
        memory=MemoryConfig(provider=memory), conversation_id="c",
    )
    state = RunState(run_id="r", trace_id="t", messages=[Message(role="user", content="still there?")],
                     current_agent_name="bot", context={}, turn_count=0)
    assert (await run(state, config)).outcome.status == "completed"
    await memory.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "shared_environ",
    ["sqlite", *(pytest.param(name, marks=slow("two processes that import jaf")) for name in ("redis", "postgres"))],
    indirect=True,
)
def test_a_second_process_continues(shared_environ, engine):
    """What one process has kept, the next goes on with."""

    async def use():
        memory = await create_memory_provider_from_env(shared_environ, user_id="u")
        config = engine.config(memory, engine.Script("one"))
        await engine.run(config, "a")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SECOND, json.dumps(shared_environ)), stdout=subprocess.DEVNULL
        )
        assert await asyncio.wait_for(child.wait(), 120) == 0
        assert texts((await stored(memory)).messages) == ["a", "one", "still there?", "I saw 3"]
        await memory.close()

    asyncio.run(use())


def test_concurrent_runs_lose_nothing(environ, engine):
    """20 runs of one conversation at once: every turn is stored, whole and in order."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")

        async def answer(number):
            script = engine.Script([(f"call {number}", "look", {"what": str(number)})], f"answer {number}")
            await engine.run(engine.config(memory, script, tools=[engine.tool("look")]), f"question {number}")

        await asyncio.gather(*map(answer, range(20)))
        messages = (await stored(memory)).messages
        assert len(messages) == 80
        turns = [messages[start : start + 4] for start in range(0, 80, 4)]
        for turn in turns:
            assert roles(turn) == ["user", "assistant", "tool", "assistant"]
            assert turn[0].content.replace("question", "answer") == turn[3].content
        assert sorted(turn[0].content for turn in turns) == sorted(f"question {n}" for n in range(20))
        await memory.close()

    asyncio.run(use())


def test_jafs_own_provider_loses_some(engine):
    """The same 20 runs over jaf-py's own provider lose turns, so that the test above tests something."""
    from jaf.memory.providers.in_memory import create_in_memory_provider as jafs_own
    from jaf.memory.types import MemoryConfig as JafMemoryConfig

    async def use():
        memory = jafs_own()

        async def answer(number):
            async def slowly(state):
                return state

            config = engine.config(JafMemoryConfig(provider=memory), Slow(engine.Script(f"answer {number}")))
            await engine.run(config, f"question {number}")

        await asyncio.gather(*map(answer, range(20)))
        assert len((await memory.get_conversation("c")).data.messages) < 40

    class Slow:
        def __init__(self, script):
            self.script = script

        async def get_completion(self, *arguments):
            await asyncio.sleep(0.01)
            return await self.script.get_completion(*arguments)

    asyncio.run(use())


@pytest.mark.parametrize("again", [False, True])
def test_an_erased_conversation_does_not_come_back(environ, engine, again):
    """A run that was under way when its user was erased brings nothing back, nor into a conversation made since."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one"))
        await engine.run(config, "a")

        async def erase(*_arguments):
            await memory.owned.clear_user_conversations("u")
            if again:
                await engine.run(engine.config(memory, engine.Script("new answer")), "new")
            return {"message": {"content": "two"}}

        await engine.run(replace(config, model_provider=SimpleNamespace(get_completion=erase)), "b")
        conversation = await stored(memory)
        if again:
            assert texts(conversation.messages)[:2] == ["new", "new answer"]
            assert "a" not in texts(conversation.messages)
        else:
            assert conversation is None
        await memory.close()

    asyncio.run(use())


def test_a_context_that_names_nobody_is_told(engine, caplog):
    """A `dict` as context gives no owner: that is logged once, and `user_id` sets it and keeps others out."""

    async def use():
        whole = create_in_memory_provider()
        nobody = jaf_provider(whole)
        with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
            for conversation_id in ("c", "d"):
                await engine.run(engine.config(nobody, engine.Script("one"), conversation_id=conversation_id), "a")
        assert len(caplog.records) == 1
        assert (await whole.get_conversation("c")).user_id is None
        await engine.run(engine.config(jaf_provider(whole, "u"), engine.Script("one"), conversation_id="e"), "a")
        await engine.run(
            engine.config(nobody, engine.Script("one"), conversation_id="f"), "a", context=SimpleNamespace(user_id="u")
        )
        found = await whole.find_conversations(MemoryQuery(user_id="u"))
        assert sorted(one.conversation_id for one in found) == ["e", "f"]
        script = engine.Script("one")
        await engine.run(engine.config(jaf_provider(whole, "v"), script, conversation_id="e"), "let me in")
        assert len(script.views[0]) == 1
        assert texts((await whole.get_conversation("e")).messages) == ["a", "one"]

    asyncio.run(use())
