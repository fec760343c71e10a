"""What Pydantic AI has written as JSON moves into any backend of ours."""

import asyncio
import json

import pytest
from jaf_memory_bridges.pydantic_ai import JafMemoryConversationStore
from pydantic_ai import Agent, ModelMessagesTypeAdapter
from pydantic_ai.conversation import ConversationTypeAdapter
from pydantic_ai.messages import ModelRequest, UserPromptPart
from pydantic_ai.models.test import TestModel

from jaf_memory_core import MemoryInvalidInputError, create_memory_provider_from_env
from jaf_memory_core.registry import load_reader

READER = "pydantic-ai"


def bot():
    """An agent that calls its tool, and answers."""
    agent = Agent(TestModel(custom_output_text="Warm."))
    agent.tool_plain(weather)
    return agent


def weather(city: str) -> str:
    """Say how the weather is."""
    return f"18 °C in {city}"


async def turns():
    """A conversation of two turns."""
    result = await bot().run("Weather?")
    return (await bot().run("And now?", conversation=result.conversation)).conversation


def test_a_conversation_goes_on_where_it_was(move, tmp_path):
    """A conversation is loaded by our store with its messages and usage, and goes on; another import adds nothing."""

    async def use():
        theirs = await turns()
        (tmp_path / "c.json").write_bytes(ConversationTypeAdapter.dump_json(theirs))
        provider = await create_memory_provider_from_env(move.environ)
        report, read = await move(provider, READER, tmp_path / "c.json", "ada")
        assert (report.messages_added, len(report.refused)) == (len(theirs.messages), 0)
        store = JafMemoryConversationStore(provider)
        ours = await store.load(theirs.conversation_id, scope="ada")
        assert (ours.messages, ours.usage) == (theirs.messages, theirs.usage)
        assert read[0].active_at == theirs.messages[-1].timestamp
        result = await bot().run("Still?", conversation=ours)
        await store.save(result, scope="ada")
        again, _ = await move(provider, READER, tmp_path / "c.json", "ada")
        assert again.messages_added == 0
        assert len((await store.load(theirs.conversation_id)).messages) == len(result.all_messages())
        await provider.close()

    asyncio.run(use())


def test_histories(move, tmp_path):
    """A file of messages is one conversation, under the id that they bear; of several, each line is one."""

    async def use():
        theirs = [await turns(), await turns()]
        lines = [ModelMessagesTypeAdapter.dump_json(one.messages) for one in theirs]
        (tmp_path / "one.json").write_bytes(lines[0])
        (tmp_path / "two.jsonl").write_bytes(b"\n".join(lines))
        provider = await create_memory_provider_from_env(move.environ)
        await move(provider, READER, tmp_path / "one.json")
        report, _ = await move(provider, READER, tmp_path / "two.jsonl")
        assert (report.conversations, report.messages_held) == (2, len(theirs[0].messages))
        store = JafMemoryConversationStore(provider)
        for one in theirs:
            assert (await store.load(one.conversation_id)).messages == one.messages
        await provider.close()

    asyncio.run(use())


def test_lines_within_texts(tmp_path):
    """What Unicode calls the end of a line, and JSON does not, ends no conversation of a file of several."""
    said = "one\u2028two\x85three\x0cfour\x1efive"
    line = ModelMessagesTypeAdapter.dump_json([ModelRequest(parts=[UserPromptPart(said)])])
    assert "\u2028".encode() in line
    (tmp_path / "h.jsonl").write_bytes(line + b"\r\n" + line + b"\n")
    found = [*load_reader(READER).read(str(tmp_path / "h.jsonl"), None, None)]
    assert [one.conversation_id for one in found] == ["h:1", "h:2"]
    assert [one.messages[0].content for one in found] == [said, said]


def test_bad_rows_are_told_one_by_one(command, tmp_path):
    """Messages that are none are told by their place; what is no JSON at all is refused."""
    good = json.loads(ModelMessagesTypeAdapter.dump_json(asyncio.run(turns()).messages))
    bad = [{"kind": "SECRET"}, "SECRET", None, 1]
    (tmp_path / "h.json").write_text(json.dumps([*bad, *good]))
    ran = command("import", "--from", READER, tmp_path / "h.json", "--keep-going", "--json", "--verify", status=1)
    document = json.loads(ran.stdout)
    assert (document["bad_rows"], document["messages_added"], document["verified"]) == (4, len(good), 1)
    assert "SECRET" not in ran.stdout


def test_what_is_no_history(tmp_path):
    """What is no JSON at all is refused, and a line that holds something else is told."""
    file = tmp_path / "b.json"
    read = load_reader(READER).read
    for text in ("", "{SECRET", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(MemoryInvalidInputError, match="is no JSON in UTF-8") as caught:
            [*read(str(file), None, None)]
        assert "SECRET" not in str(caught.value)
    file.write_text("[]\n{}\n7\n")
    bad = []
    assert len([*read(str(file), None, lambda *one: bad.append(one))]) == 1
    assert [place for place, _ in bad] == ["line 2", "line 3"]
