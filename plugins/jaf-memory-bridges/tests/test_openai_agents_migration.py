"""What the OpenAI Agents SDK has stored in its own SQLite files moves into any backend of ours."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.extensions.memory import AdvancedSQLiteSession
from agents.testing import ScriptedModel, assistant_message, function_call
from jaf_memory_bridges.openai_agents import JafMemorySession

from jaf_memory_core import MemoryInvalidInputError, MemoryStorageError, create_memory_provider_from_env
from jaf_memory_core.registry import load_reader

READER = "openai-agents-sqlite"


@function_tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"18 °C in {city}"


async def talk(session, prompt):
    """One turn with a call."""
    steps = [[function_call("weather", {"city": "Paris"}, call_id=prompt)], [assistant_message(f"Warm: {prompt}")]]
    await Runner.run(Agent(name="bot", tools=[weather], model=ScriptedModel(steps)), prompt, session=session)


def made(path, *prompts):
    """A file of the SDK's with two sessions, one of them popped empty; the items of the first."""

    async def make():
        session = SQLiteSession("user-1:chat", path)
        for prompt in prompts:
            await talk(session, prompt)
        empty = SQLiteSession("empty", path)
        await empty.add_items([{"role": "user", "content": "gone"}])
        await empty.pop_item()
        items = await session.get_items()
        session.close()
        empty.close()
        return items

    return asyncio.run(make())


def test_a_session_goes_on_where_it_was(move, tmp_path):
    """Items come back as the SDK's own session gives them; a second import adds nothing, a grown source the rest."""
    items = made(tmp_path / "theirs.db", "one")

    async def use():
        provider = await create_memory_provider_from_env(move.environ)
        report, read = await move(provider, READER, tmp_path / "theirs.db", "ada")
        assert (report.conversations, report.messages_added, len(report.refused)) == (2, len(items), 0)
        assert await JafMemorySession("user-1:chat", provider, user_id="ada").get_items() == items
        again, read_again = await move(provider, READER, tmp_path / "theirs.db", "ada")
        assert (again.messages_added, again.messages_held) == (0, len(items))
        assert read == read_again
        (moved,) = [one for one in read if one.messages]
        held = await provider.get_conversation("user-1:chat")
        assert (held.created_at, held.active_at, held.user_id) == (moved.created_at, moved.active_at, "ada")
        grown = await asyncio.to_thread(made, tmp_path / "theirs.db", "two")
        rest, _ = await move(provider, READER, tmp_path / "theirs.db", "ada")
        assert rest.messages_added == len(grown) - len(items)
        assert await JafMemorySession("user-1:chat", provider).get_items() == grown
        await provider.close()

    asyncio.run(use())


def test_an_interrupted_import_goes_on(move, tmp_path):
    """An import that ends in the middle has left whole conversations, and the next one brings the others."""
    for number in range(3):
        session = SQLiteSession(f"s{number}", tmp_path / "theirs.db")
        asyncio.run(talk(session, "hello"))
        session.close()

    async def use():
        provider = await create_memory_provider_from_env(move.environ)
        with closing(sqlite3.connect(tmp_path / "theirs.db")) as file, file:
            file.execute("UPDATE agent_sessions SET created_at = session_id")
            file.execute("UPDATE agent_messages SET message_data = '[' WHERE session_id = 's2'")

        def stop(place, reason):
            if "time" not in place:
                raise MemoryInvalidInputError(reason)

        with pytest.raises(MemoryInvalidInputError, match="is no item of the SDK"):
            await move(provider, READER, tmp_path / "theirs.db", None, stop)
        kept = [len((await provider.get_conversation(f"s{number}")).messages) for number in range(2)]
        assert kept == [4, 4]
        bad = []
        report, _ = await move(provider, READER, tmp_path / "theirs.db", None, lambda *one: bad.append(one))
        assert (report.conversations, report.messages_added, report.messages_held) == (3, 0, 8)
        assert len([place for place, _ in bad if "row" in place]) == 4
        await provider.close()

    asyncio.run(use())


def test_branches_are_conversations_of_their_own(move, tmp_path):
    """A branch of an AdvancedSQLiteSession moves with what stands before it."""

    async def use():
        session = AdvancedSQLiteSession(session_id="s", db_path=tmp_path / "theirs.db", create_tables=True)
        await session.add_items([{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}])
        await session.add_items([{"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}])
        await session.create_branch_from_turn(2, branch_name="b")
        await session.add_items([{"role": "user", "content": "three"}])
        theirs = [await session.get_items(branch_id=name) for name in ("main", "b")]
        session.close()
        provider = await create_memory_provider_from_env(move.environ)
        await move(provider, READER, tmp_path / "theirs.db")
        assert [await JafMemorySession(name, provider).get_items() for name in ("s", "s:b")] == theirs
        await provider.close()

    asyncio.run(use())


BAD = {
    "no JSON": "{bad",
    "a list": "[1]",
    "no UTF-8": b"\xff\xfe",
    "a number": 7,
    "NaN": '{"role": "user", "content": "x", "n": NaN}',
    "deep": "[" * 100_000,
    "encrypted": json.dumps({"__enc__": 1, "v": 1, "kid": "k", "payload": "gAAA"}),
}


def test_bad_rows_are_told_one_by_one(command, tmp_path):
    """With `--keep-going` the command tells of each, and shows nothing of any; again, it adds and reads the same."""
    items = made(tmp_path / "theirs.db", "one")
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as file, file:
        for value in BAD.values():
            file.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('user-1:chat', ?)", (value,))
        file.execute("INSERT INTO agent_messages (session_id, message_data) VALUES (?, '{}')", ("x" * 300,))
    told = command("import", "--from", READER, tmp_path / "theirs.db", "--keep-going", "--json", "--verify", status=1)
    document = json.loads(told.stdout)
    assert document["bad_rows"] == len(BAD) + 1, document
    assert document["messages_added"] == len(items)
    assert (document["read"], document["verified"], document["differing"]) == (2, 2, 0)
    assert all(value not in told.stdout for value in ("{bad", "gAAA", "[["))
    again = json.loads(command(*told.args[3:], status=1).stdout)
    assert (again["messages_added"], again["read_digest"]) == (0, document["read_digest"])


def test_names_that_are_none(tmp_path):
    """A session or branch whose id is no text is told, and takes nothing else with it."""

    async def make():
        session = AdvancedSQLiteSession(session_id="s", db_path=tmp_path / "theirs.db", create_tables=True)
        await session.add_items([{"role": "user", "content": "one"}])
        session.close()

    asyncio.run(make())
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as file, file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute("INSERT INTO agent_sessions (session_id) VALUES (NULL)")
        file.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('lone', ?)", ('{"role": "user"}',))
        columns = "session_id, message_id, branch_id, message_type, sequence_number"
        file.execute(f"INSERT INTO message_structure ({columns}) VALUES ('s', 1, CAST(x'ff' AS TEXT), 'user', 9)")
    bad = []
    found = [*load_reader(READER).read(str(tmp_path / "theirs.db"), None, lambda *one: bad.append(one))]
    assert {one.conversation_id: len(one.messages) for one in found} == {"lone": 1, "s": 1}
    assert sorted(bad) == [("'s', a branch", "its id is no text"), ("a session", "its id is no text")]


def test_a_branch_is_not_mixed_with_a_session(tmp_path):
    """Where another session has the id that a branch would have, the branch is told, and the session stays itself."""

    async def make():
        for name in ("s", "s:b"):
            session = AdvancedSQLiteSession(session_id=name, db_path=tmp_path / "theirs.db", create_tables=True)
            await session.add_items([{"role": "user", "content": name}])
            if name == "s":
                await session.create_branch_from_turn(1, branch_name="b")
                await session.add_items([{"role": "user", "content": "aside"}])
            session.close()

    asyncio.run(make())
    bad = []
    found = [*load_reader(READER).read(str(tmp_path / "theirs.db"), None, lambda *one: bad.append(one))]
    assert {one.conversation_id: [said.content for said in one.messages] for one in found} == {
        "s": ["s"],
        "s:b": ["s:b"],
    }
    assert bad == [("'s', branch 'b'", "would be mixed with the session of its id")]


def test_what_is_no_file_of_the_sdk(tmp_path):
    """Another file, another database, or none is refused by a sentence."""
    (tmp_path / "text").write_text("hello")
    with closing(sqlite3.connect(tmp_path / "other.db")) as file, file:
        file.execute("CREATE TABLE t (x)")
    (tmp_path / "cut.db").write_bytes((tmp_path / "other.db").read_bytes()[:1000])
    read = load_reader(READER).read
    for name, error, said in (
        ("text", MemoryInvalidInputError, "is no database of SQLite"),
        ("other.db", MemoryInvalidInputError, "no tables agent_sessions"),
        ("cut.db", MemoryStorageError, "cannot be read"),
        ("missing", FileNotFoundError, "No such file"),
        ("u:SECRET@host", MemoryInvalidInputError, "an address with a password"),
    ):
        path = name if ":" in name else str(tmp_path / name)
        with pytest.raises(error, match=said):
            [*read(path, None, None)]
