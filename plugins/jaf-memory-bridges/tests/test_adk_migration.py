"""What Google ADK's own services have stored moves into any backend of ours."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from jaf_memory_bridges.adk import JafMemorySessionService
from services import in_ci

from jaf_memory_core import MemoryConnectionError, MemoryInvalidInputError, create_memory_provider_from_env
from jaf_memory_core.registry import load_reader

ME = {"app_name": "app/1", "user_id": "ada"}


async def fill(service):
    """Two sessions of two users, with events and all kinds of state; what the service answers for each."""
    for user in ("ada", "ben"):
        state = {"k": [1, None], "user:name": user, "app:kind": "x"}
        session = await service.create_session(app_name="app/1", user_id=user, session_id="s%", state=state)
        for number in range(3):
            call = types.FunctionCall(id=f"f{number}", name="weather", args={"city": "Paris"})
            part = types.Part(function_call=call) if number == 1 else types.Part(text=f"Hello {number}")
            content = types.Content(role="user", parts=[part])
            actions = EventActions(state_delta={"count": number, "user:seen": number})
            event = Event(author="user", invocation_id=f"i{number}", content=content, actions=actions)
            await service.append_event(session, event)
    return [await whole(service, user) for user in ("ada", "ben")]


async def whole(service, user):
    """All that a service knows of a user's session."""
    session = await service.get_session(app_name="app/1", user_id=user, session_id="s%")
    events = [event.model_dump(mode="json", exclude_none=True) for event in session.events]
    return session.state, events, round(session.last_update_time, 3)


async def moves(move, address, theirs):
    """Move, twice, and compare with what their service says."""
    provider = await create_memory_provider_from_env(move.environ)
    report, read = await move(provider, "adk", address)
    assert (report.messages_added, len(report.refused)) == (6, 0)
    ours = JafMemorySessionService(provider)
    assert [await whole(ours, user) for user in ("ada", "ben")] == theirs
    assert await ours.get_user_state(app_name="app/1", user_id="ben") == {"name": "ben", "seen": 2}
    again, read_again = await move(provider, "adk", address)
    assert (again.messages_added, read_again) == (0, read)
    assert {one.user_id for one in read} == {"ada", "ben", None}
    session = await ours.get_session(**ME, session_id="s%")
    actions = EventActions(state_delta={"count": 9, "user:seen": 9, "app:kind": "y"})
    await ours.append_event(session, Event(author="bot", actions=actions))
    after = await whole(ours, "ada")
    await move(provider, "adk", address)
    assert await whole(ours, "ada") == after
    assert (after[0]["count"], after[0]["user:seen"], after[0]["app:kind"], len(after[1])) == (9, 9, "y", 4)
    assert await provider.clear_user_conversations("ada") == 2
    await provider.close()


def test_from_its_file(move, tmp_path):
    """Sessions, events with their times, and states of users and apps come from `SqliteSessionService`, and go on."""

    async def use():
        theirs = await fill(SqliteSessionService(str(tmp_path / "theirs.db")))
        await moves(move, f"sqlite:///{tmp_path}/theirs.db", theirs)

    asyncio.run(use())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_from_its_databases(kind, move, tmp_path, request):
    """The same from `DatabaseSessionService`, on SQLite and on PostgreSQL."""
    if not in_ci():
        pytest.importorskip("sqlalchemy")
    from google.adk.sessions import DatabaseSessionService

    address = f"sqlite+aiosqlite:///{tmp_path}/theirs.db"
    if kind == "postgres":
        url = request.getfixturevalue("new_database")
        address = url.replace("postgresql://", "postgresql+asyncpg://").replace("sslmode=", "ssl=")

    async def use():
        service = DatabaseSessionService(address)
        theirs = await fill(service)
        await service.close()
        await moves(move, address, theirs)

    asyncio.run(use())


def test_bad_rows_are_told_one_by_one(command, tmp_path):
    """Events, states and times that cannot be read are told, each by its place, and the others are there."""
    asyncio.run(fill(SqliteSessionService(str(tmp_path / "theirs.db"))))
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as file, file:
        place = "SELECT min(rowid) FROM events"
        file.execute(f"UPDATE events SET event_data = '{{SECRET' WHERE rowid = ({place})")
        file.execute("UPDATE events SET event_data = ? WHERE rowid = (SELECT max(rowid) FROM events)", (b"\xff",))
        file.execute("UPDATE sessions SET state = '[]', create_time = 'SECRET' WHERE user_id = 'ben'")
        file.execute("UPDATE app_states SET state = 'SECRET'")
    theirs = tmp_path / "theirs.db"
    assert "--keep-going" in command("import", "--from", "adk", theirs, status=2).stderr
    ran = command("import", "--from", "adk", theirs, "--keep-going", "--json", "--verify", status=1)
    document = json.loads(ran.stdout)
    assert (document["bad_rows"], document["messages_added"], document["verified"]) == (5, 4, document["read"])
    assert "SECRET" not in ran.stdout
    assert "leave out --user" in command("import", "--from", "adk", theirs, "--user", "x", status=2).stderr


ADDRESSES = {
    "postgresql://u:SECRET@127.0.0.1:1/db": MemoryConnectionError,
    "postgresql://u:SEC/RET@127.0.0.1:1/db": MemoryInvalidInputError,
    "postgresql+psycopg://u:SECRET@[::1/db": MemoryInvalidInputError,
    "mysql://u:SECRET@host/db": MemoryInvalidInputError,
    "u:SECRET@host": MemoryInvalidInputError,
    "sqlite:SECRET": OSError,
    "": OSError,
}


def test_addresses(command, tmp_path):
    """What is no address, or leads nowhere, is refused without a word of it; it may come on standard input."""

    async def read(address):
        async for _ in load_reader("adk").read(str(address), None, None):
            pass

    for address, error in ADDRESSES.items():
        with pytest.raises(error) as caught:
            asyncio.run(read(address))
        assert error is OSError or "SEC" not in str(caught.value), address
    with closing(sqlite3.connect(tmp_path / "old.db")) as file, file:
        file.execute("CREATE TABLE events (id TEXT, actions BLOB)")
    with pytest.raises(MemoryInvalidInputError, match="adk migrate session"):
        asyncio.run(read(tmp_path / "old.db"))
    ran = command("import", "--from", "adk", "-", text="postgresql://u:SECRET@127.0.0.1:1/db\n", status=3)
    assert "cannot be reached" in ran.stderr
    assert "SECRET" not in ran.stderr
