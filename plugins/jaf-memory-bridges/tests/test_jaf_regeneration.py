"""JAF's regeneration, checkpoints and Responses interface on any backend of ours."""

import asyncio
from types import SimpleNamespace

import pytest
from chat_rules import problem
from jaf_memory_bridges.jaf import create_memory_provider_from_env


def texts(messages):
    """What is said."""
    return [message.content for message in messages]


async def regenerate(config, message_id, **context):
    """Ask JAF to answer anew."""
    from jaf.core.regeneration import regenerate_conversation
    from jaf.core.types import RegenerationRequest

    request = RegenerationRequest(conversation_id="c", message_id=message_id, context=context or None)
    result = await regenerate_conversation(request, config, {}, "bot")
    assert result.outcome.status == "completed", result.outcome
    return result


async def checkpoint(config, message_id):
    """Ask JAF to go back to a message."""
    from jaf.core.checkpoint import checkpoint_conversation
    from jaf.core.types import CheckpointRequest

    return await checkpoint_conversation(CheckpointRequest(conversation_id="c", message_id=message_id), config)


def test_regenerating_an_answer(environ, engine):
    """An answer is made anew: it and all after it go, the question stays, the point is marked, and again, and again."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        script = engine.Script("one", [("1", "look", {"what": "x"})], "two", "three", "two again", "one again", "four")
        config = engine.config(memory, script, tools=[engine.tool("look")])
        for said in ("a", "b", "c"):
            await engine.run(config, said)
        before = (await memory.provider.get_conversation("c")).messages
        assert len(before) == 8
        await regenerate(config, before[5].message_id)
        after = await memory.provider.get_conversation("c")
        assert texts(after.messages) == ["a", "one", "b", "two again"]
        assert after.messages[:3] == before[:3]
        assert texts(script.views[-1]) == ["a", "one", "b"]
        await regenerate(config, before[1].message_id)
        last = await memory.provider.get_conversation("c")
        assert texts(last.messages) == ["a", "one again"]
        points = last.metadata["regeneration_points"]
        assert [point["message_id"] for point in points] == [before[5].message_id, before[1].message_id]
        assert last.metadata["regeneration_count"] == 2
        assert last.metadata["last_regeneration"] == points[1]
        await engine.run(config, "d")
        assert texts((await memory.provider.get_conversation("c")).messages) == ["a", "one again", "d", "four"]
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("place", [0, 2])
def test_editing_a_question(environ, engine, place):
    """A question is asked in other words: it and all after it go, and the new one stands in its place."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two", "new answer", "later"))
        for said in ("a", "b"):
            await engine.run(config, said)
        before = (await memory.provider.get_conversation("c")).messages
        await regenerate(config, before[place].message_id, replace_user_message="new question")
        after = (await memory.provider.get_conversation("c")).messages
        assert after[:place] == before[:place]
        assert texts(after[place:]) == ["new question", "new answer"]
        await engine.run(config, "c")
        assert texts((await memory.provider.get_conversation("c")).messages)[place + 2 :] == ["c", "later"]
        await memory.close()

    asyncio.run(use())


def test_checkpoints(environ, engine):
    """Going back keeps the message and all before it; regeneration and further turns go on from there."""
    from jaf.core.checkpoint import get_checkpoint_history

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two", "three", "four", "four again", "five"))
        for said in ("a", "b", "c"):
            await engine.run(config, said)
        before = (await memory.provider.get_conversation("c")).messages
        result = await checkpoint(config, before[3].message_id)
        assert texts(result.messages) == ["a", "one", "b", "two"]
        assert (await memory.provider.get_conversation("c")).messages == before[:4]
        assert len(await get_checkpoint_history("c", config)) == 1
        await engine.run(config, "d")
        messages = (await memory.provider.get_conversation("c")).messages
        assert texts(messages) == ["a", "one", "b", "two", "d", "four"]
        await regenerate(config, messages[5].message_id)
        messages = (await memory.provider.get_conversation("c")).messages
        assert texts(messages) == ["a", "one", "b", "two", "d", "four again"]
        await checkpoint(config, messages[1].message_id)
        assert texts((await memory.provider.get_conversation("c")).messages) == ["a", "one"]
        await engine.run(config, "e")
        assert texts((await memory.provider.get_conversation("c")).messages) == ["a", "one", "e", "five"]
        await memory.close()

    asyncio.run(use())


def test_a_run_beside_a_regeneration_brings_nothing_back(environ, engine):
    """A run that loaded messages which a regeneration then removed does not store them again."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two", "one again"))
        for said in ("a", "b"):
            await engine.run(config, said)
        before = (await memory.provider.get_conversation("c")).messages

        async def answer(*_arguments):
            await regenerate(config, before[1].message_id)
            return {"message": {"content": "late answer"}}

        await engine.run(engine.config(memory, SimpleNamespace(get_completion=answer)), "late")
        after = texts((await memory.provider.get_conversation("c")).messages)
        assert after == ["a", "one again", "late", "late answer"]
        await memory.close()

    asyncio.run(use())


def test_regeneration_methods(environ, engine):
    """The protocol's own methods for regeneration answer as JAF's providers do."""
    from jaf.memory.types import Failure, MemoryNotFoundError, Success

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await engine.run(engine.config(memory, engine.Script("one")), "a")
        first, second = (await memory.get_conversation("c")).data.messages
        until = await memory.get_conversation_until_message("c", second.message_id)
        assert texts(until.data.messages) == ["a"]
        assert await memory.get_conversation_until_message("c", "nobody") == Success(None)
        assert await memory.get_conversation_until_message("missing", "nobody") == Success(None)
        marks = [memory.mark_regeneration_point("c", first.message_id, {"number": n}) for n in range(10)]
        assert await asyncio.gather(*marks) == [Success(None)] * 10
        points = (await memory.provider.get_conversation("c")).metadata["regeneration_points"]
        assert sorted(point["number"] for point in points) == list(range(10))
        assert await memory.truncate_conversation_after("c", "nobody") == Success(0)
        assert await memory.truncate_conversation_after("c", second.message_id) == Success(1)
        for answer in (
            await memory.truncate_conversation_after("missing", "nobody"),
            await memory.mark_regeneration_point("missing", "nobody", {}),
        ):
            assert isinstance(answer, Failure)
            assert isinstance(answer.error, MemoryNotFoundError)
            assert answer.error.conversation_id == "missing"
        await memory.close()

    asyncio.run(use())


def test_previous_response_ids(environ, engine):
    """With a model whose server keeps what it was sent, the engine knows after each turn where that ends."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        script = engine.Script("one", "two", "three", "four", response_ids=["r1", "r2", "r3", "r4"])
        from jaf_memory_bridges.jaf import MemoryConfig

        config = engine.config(MemoryConfig(provider=memory, max_messages=3), script)
        for said in ("a", "b", "c"):
            await engine.run(config, said)
        # Behind so many of what it loaded, the engine sends what the server does not know yet: the question alone.
        assert [state.response_id for state in script.states] == [None, "r1", "r2"]
        for state in script.states[1:]:
            assert texts(state.messages[state.response_id_index :]) == [state.messages[-1].content]
            assert problem(state.messages) is None
        assert (await memory.get_previous_response_id("c")).data == "r3"
        assert (await memory.get_prior_response_id("c")).data == "r2"
        last = (await memory.provider.get_conversation("c")).messages[-1]
        assert (await memory.get_previous_response_message_id("c")).data == last.message_id
        assert (await memory.get_previous_response_message_index("c")).data == 4
        assert (await memory.get_previous_response_id("missing")).data is None
        await regenerate(config, last.message_id, replace_user_message="c again")
        assert (await memory.get_prior_response_id("c")).data == "r3"
        await memory.close()

    asyncio.run(use())


def test_nothing_leads_back_to_what_was_erased(environ, engine):
    """After an erasure in the middle of a run no response id is kept, which the model's server could continue from."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await engine.run(engine.config(memory, engine.Script("one", response_ids=["r1"])), "a")

        async def erase(*_arguments):
            await memory.owned.clear_user_conversations("u")
            return {"message": {"content": "two"}, "id": "r2"}

        await engine.run(engine.config(memory, SimpleNamespace(get_completion=erase)), "b")
        assert await memory.provider.get_conversation("c") is None
        assert (await memory.get_previous_response_id("c")).data is None
        await memory.close()

    asyncio.run(use())


def test_setting_a_response_id(environ):
    """It makes the conversation where there is none, shifts or overwrites, and beside appends loses nothing."""

    async def use():
        memory = await create_memory_provider_from_env(environ)
        await memory.set_previous_response_id("c", "r1", message_id="m", message_index=1, user_id="u")
        assert (await memory.provider.get_conversation("c")).user_id == "u"
        await memory.set_previous_response_id("c", "r2", user_id="u")
        assert (await memory.get_prior_response_id("c")).data == "r1"
        await memory.set_previous_response_id("c", "r0", shift=False)
        assert (await memory.get_prior_response_id("c")).data is None
        assert (await memory.get_previous_response_id("c")).data == "r0"
        answers = await asyncio.gather(*(memory.set_previous_response_id("c", f"s{n}") for n in range(8)))
        assert all(hasattr(answer, "data") for answer in answers)
        metadata = (await memory.provider.get_conversation("c")).metadata
        assert metadata["previous_response_id"] != metadata["prior_response_id"]
        assert {metadata["previous_response_id"], metadata["prior_response_id"]} <= {f"s{n}" for n in range(8)}
        await memory.close()

    asyncio.run(use())
