"""What LangChain's chat histories have stored in PostgreSQL moves into any backend of ours."""

import asyncio
import json

import asyncpg
import pytest
from jaf_memory_bridges.langchain import JafMemoryChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, message_to_dict

from jaf_memory_core import MemoryInvalidInputError, create_memory_provider_from_env

READER = "langchain-postgres"

SESSION = "6f1c2a9e-0d4b-4f0e-9a52-1f3a5f6b7c8d"

NEW = """CREATE TABLE {} (id SERIAL PRIMARY KEY, session_id UUID NOT NULL, message JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW())"""
"""As langchain-postgres 0.0.15 makes it."""

OLD = "CREATE TABLE {} (id SERIAL PRIMARY KEY, session_id TEXT NOT NULL, message JSONB NOT NULL)"
"""As PostgresChatMessageHistory of langchain-community makes it."""

CALL = {"id": "c1", "name": "weather", "args": {"city": "Paris"}, "type": "tool_call"}
TURN = [
    HumanMessage("Weather?"),
    AIMessage("", tool_calls=[CALL], id="m1"),
    ToolMessage("18", tool_call_id="c1", artifact={"raw": [1, None]}),
    AIMessage("Warm.", id="m1", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    HumanMessage("Weather?"),
]
"""Two messages say the same, and two have the same id."""


async def fill(address, table, layout, *texts):
    """A table with rows as LangChain writes them."""
    connection = await asyncpg.connect(address)
    await connection.execute(layout.format(table))
    insert = f"INSERT INTO {table} (session_id, message) VALUES ($1, $2)"
    for text in texts:
        await connection.execute(insert, SESSION, text)
    await connection.close()


def rows(messages):
    """Messages as LangChain's JSON."""
    return [json.dumps(message_to_dict(message)) for message in messages]


@pytest.mark.parametrize("layout", [NEW, OLD])
def test_a_history_goes_on_where_it_was(layout, move, new_database):
    """Messages come back as LangChain wrote them, twins too; a second import adds nothing, and times are kept."""

    async def use():
        await fill(new_database, '"chat ""history"', layout, *rows(TURN))
        provider = await create_memory_provider_from_env(move.environ)
        report, read = await move(provider, READER, new_database, "ada")
        assert (report.messages_added, len(report.refused)) == (len(TURN), 0)
        assert await JafMemoryChatMessageHistory(SESSION, provider, user_id="ada").aget_messages() == TURN
        again, read_again = await move(provider, READER, new_database, "ada")
        assert (again.messages_added, read_again) == (0, read)
        held = await provider.get_conversation(SESSION)
        assert layout is OLD or (held.created_at, held.active_at) == (read[0].created_at, read[0].active_at)
        await provider.close()

    asyncio.run(use())


def test_bad_rows_and_which_table(command, new_database):
    """Rows that are no messages are told one by one; of several tables the address says which."""
    bad = ['"SECRET"', "{}", '{"type": "human", "data": {}}', '{"type": "SECRET", "data": {"content": "SECRET"}}']
    asyncio.run(fill(new_database, "one", NEW, *bad, *rows(TURN[:1])))
    ran = command("import", "--from", READER, new_database, "--keep-going", "--json", "--verify", status=1)
    document = json.loads(ran.stdout)
    assert (document["bad_rows"], document["messages_added"], document["verified"]) == (4, 1, 1)
    assert "SECRET" not in ran.stdout
    asyncio.run(fill(new_database, "two", NEW, *rows(TURN[:1])))
    assert "(one, two); say which" in command("import", "--from", READER, new_database, status=2).stderr
    assert json.loads(command("import", "--from", READER, f"{new_database}#two", "--json").stdout)["read"] == 1
    assert "no" in command("import", "--from", READER, f"{new_database}#three", status=2).stderr
    gone = new_database.replace("/d", "/e")
    assert "there is no such database" in command("import", "--from", READER, gone, status=3).stderr


def test_no_table(move, new_database):
    """A database without such a table is refused by a sentence."""

    async def use():
        provider = await create_memory_provider_from_env(move.environ)
        with pytest.raises(MemoryInvalidInputError, match="a table with the columns id, session_id and message"):
            await move(provider, READER, new_database)
        await provider.close()

    asyncio.run(use())
