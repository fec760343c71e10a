"""Who writes to one conversation from many tasks at once: ours, and other libraries, each on the stores that it has.

Each is used as its documentation shows, as a web service would: what a process shares (client, pool, engine, service)
is shared, what belongs to a request (a session) is made for each task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.competitors import Place

KEY = "user-123:chat"

Say = Callable[[str], Awaitable[object]]
"""Adds a message with that text, which is its id, too, where a message has one."""


class Writers:
    """A library on one store.

    Args:
        place: where the store is.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    async def open(self) -> None:
        """Connect, and make the conversation."""

    async def close(self) -> None:
        """Disconnect."""

    def say(self) -> Say:
        """A function for one task."""
        raise NotImplementedError

    async def kept(self) -> list[str]:
        """The texts that the conversation holds."""
        raise NotImplementedError


class Ours(Writers):
    """A provider of ours."""

    async def open(self) -> None:
        """Make the provider that the benchmarks measure."""
        self.ours = import_module(f"benchmarks.backends.{self.place['store']}").Ours(self.place)
        await self.ours.open()
        await self.ours.provider.store_messages(KEY, [])

    async def close(self) -> None:
        """Close it."""
        await self.ours.close()

    def say(self) -> Say:
        """Append a message."""
        from jaf_memory_core import Message, Success

        async def append(text: str) -> None:
            done = await self.ours.provider.append_messages(KEY, [Message("user", text, message_id=text)])
            if not isinstance(done, Success):
                raise done.error

        return append

    async def kept(self) -> list[str]:
        """Read the conversation."""
        conversation = await self.ours.provider.get_conversation(KEY)
        return [message.content for message in conversation.messages]


class JafPy(Writers):
    """jaf-py's own provider."""

    async def open(self) -> None:
        """Make the provider that the benchmarks measure."""
        from benchmarks.peers import jaf

        kinds = {"memory": jaf.InMemory, "redis": jaf.Redis, "postgres": jaf.Postgres}
        self.peer = kinds[self.place["store"]](self.place)
        await self.peer.open()
        jaf.data(await self.peer.provider.store_messages(KEY, []))

    async def close(self) -> None:
        """Close it."""
        await self.peer.close()

    def say(self) -> Say:
        """Append a message."""
        from jaf.core.types import Message

        from benchmarks.peers.jaf import data

        async def append(text: str) -> None:
            data(await self.peer.provider.append_messages(KEY, [Message(role="user", content=text, message_id=text)]))

        return append

    async def kept(self) -> list[str]:
        """Read the conversation."""
        from benchmarks.peers.jaf import data

        return [str(message.content) for message in data(await self.peer.provider.get_conversation(KEY)).messages]


class OpenAIAgents(Writers):
    """A session of the OpenAI Agents SDK for each task."""

    async def open(self) -> None:
        """Make the sessions' peer that the benchmarks measure."""
        from benchmarks.peers import openai_agents

        kinds = {"sqlite": openai_agents.Sqlite, "redis": openai_agents.Redis, "postgres": openai_agents.Postgres}
        self.peer = kinds[self.place["store"]](self.place)
        await self.peer.open()

    async def close(self) -> None:
        """Close it."""
        await self.peer.close()

    def _session(self) -> Any:
        if self.place["store"] == "sqlite":
            return self.peer.kind(KEY, Path(self.place["folder"], "openai.db"))
        self.peer.sessions = {}  # one of its own for each task
        return self.peer.session(KEY)

    def say(self) -> Say:
        """Add an item."""
        session = self._session()

        async def append(text: str) -> None:
            await session.add_items([{"type": "message", "id": text, "role": "user", "content": text}])

        return append

    async def kept(self) -> list[str]:
        """Read the session."""
        return [item["content"] for item in await self._session().get_items()]


class LangGraph(Writers):
    """A graph with the list of messages that LangGraph documents, and a checkpointer."""

    async def open(self) -> None:
        """Compile the graph."""
        from langgraph.graph import END, START, MessagesState, StateGraph

        def nothing(_state: Any) -> dict[str, Any]:
            return {}

        await self._connect()
        graph = StateGraph(MessagesState)
        graph.add_node("nothing", nothing)
        graph.add_edge(START, "nothing")
        graph.add_edge("nothing", END)
        self.graph = graph.compile(checkpointer=self.saver)
        self.thread = {"configurable": {"thread_id": KEY}}

    async def _connect(self) -> None:
        self.lines: Any = None
        if self.place["store"] == "memory":
            from langgraph.checkpoint.memory import InMemorySaver

            self.saver: Any = InMemorySaver()
        elif self.place["store"] == "sqlite":
            import aiosqlite
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

            self.lines = await aiosqlite.connect(Path(self.place["folder"], "langgraph.db"))
            self.saver = AsyncSqliteSaver(self.lines)
        else:
            from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
            from psycopg.rows import dict_row
            from psycopg_pool import AsyncConnectionPool

            how = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
            self.lines = AsyncConnectionPool(self.place["url"], min_size=1, max_size=10, open=False, kwargs=how)
            await self.lines.open()
            self.saver = AsyncPostgresSaver(self.lines)
            await self.saver.setup()

    async def close(self) -> None:
        """Close what was opened."""
        if self.lines is not None:
            await self.lines.close()

    def say(self) -> Say:
        """Run the graph with a message."""
        from langchain_core.messages import HumanMessage

        async def run(text: str) -> None:
            await self.graph.ainvoke({"messages": [HumanMessage(text, id=text)]}, self.thread)

        return run

    async def kept(self) -> list[str]:
        """Read the thread's state."""
        state = await self.graph.aget_state(self.thread)
        return [message.content for message in state.values["messages"]]


class PydanticAI(Writers):
    """Pydantic AI's conversations in the store that it brings: in memory."""

    async def open(self) -> None:
        """Make the store, and the conversation."""
        from pydantic_ai.conversation import Conversation
        from pydantic_ai.conversation_store import InMemoryConversationStore

        self.store = InMemoryConversationStore()
        await self.store.save(Conversation(conversation_id=KEY, messages=[]))

    def say(self) -> Say:
        """Load the end, as a run does, and save one message more."""
        import asyncio

        from pydantic_ai.messages import ModelRequest, UserPromptPart

        async def append(text: str) -> None:
            conversation = await self.store.load(KEY, limit=1)
            await asyncio.sleep(0)  # here a run asks its model
            conversation.messages = [*conversation.messages, ModelRequest([UserPromptPart(text)])]
            await self.store.save(conversation)

        return append

    async def kept(self) -> list[str]:
        """Load all."""
        conversation = await self.store.load(KEY)
        return [part.content for message in conversation.messages for part in message.parts]


class GoogleADK(Writers):
    """Google ADK's session service; each task reads the session before each event, as a runner does."""

    async def open(self) -> None:
        """Make the service and the session."""
        from benchmarks.peers.adk import WHOSE

        self.whose = {**WHOSE, "session_id": KEY}
        if self.place["store"] == "memory":
            from google.adk.sessions import InMemorySessionService

            self.service: Any = InMemorySessionService()
        elif self.place["store"] == "sqlite":
            from google.adk.sessions.sqlite_session_service import SqliteSessionService

            self.service = SqliteSessionService(str(Path(self.place["folder"], "adk.db")))
        else:
            from benchmarks.peers.adk import Postgres

            peer = Postgres(self.place)
            await peer.open()
            self.service = peer.service
        await self.service.create_session(**self.whose)

    async def close(self) -> None:
        """Close what can be closed."""
        if hasattr(self.service, "close"):
            await self.service.close()

    def say(self) -> Say:
        """Append an event."""
        from google.adk.events import Event
        from google.adk.sessions.base_session_service import GetSessionConfig
        from google.genai.types import Content, Part

        async def append(text: str) -> None:
            session = await self.service.get_session(**self.whose, config=GetSessionConfig(num_recent_events=1))
            said = Content(role="user", parts=[Part(text=text)])
            await self.service.append_event(session, Event(id=text, author="user", content=said))

        return append

    async def kept(self) -> list[str]:
        """Read the session."""
        session = await self.service.get_session(**self.whose)
        return [event.content.parts[0].text for event in session.events]


class Agno(Writers):
    """An agent of Agno's, with a model that answers at once; what is asked in each run is counted."""

    async def open(self) -> None:
        """Make the database."""
        import logging

        if self.place["store"] == "sqlite":
            from agno.db.sqlite import AsyncSqliteDb

            self.db: Any = AsyncSqliteDb(db_file=str(Path(self.place["folder"], "agno.db")))
        elif self.place["store"] == "postgres":
            from agno.db.postgres import AsyncPostgresDb

            url = urlsplit(self.place["url"])
            self.db = AsyncPostgresDb(db_url=url._replace(scheme="postgresql+asyncpg", query="ssl=disable").geturl())
        elif self.place["store"] == "redis":
            from agno.db.redis import RedisDb

            self.db = RedisDb(db_url=f"redis://127.0.0.1:{self.place['port']}/0")
        else:
            from agno.db.in_memory import InMemoryDb

            self.db = InMemoryDb()
        logging.getLogger("agno").setLevel(logging.CRITICAL)
        await self.say()("first")  # makes tables and session; not counted

    def say(self) -> Say:
        """Run the agent."""
        agent = self._agent()

        async def run(text: str) -> None:
            await agent.arun(text, run_id=text)

        return run

    def _agent(self) -> Any:
        from agno.agent import Agent
        from agno.models.base import Model
        from agno.models.response import ModelResponse

        class Echo(Model):
            """Answers at once."""

            async def ainvoke(self, *_: Any, **__: Any) -> Any:
                return ModelResponse(role="assistant", content="yes")

            invoke = invoke_stream = ainvoke_stream = ainvoke
            _parse_provider_response = _parse_provider_response_delta = ainvoke

        return Agent(model=Echo(id="echo"), db=self.db, session_id=KEY, user_id="user-123", telemetry=False)

    async def kept(self) -> list[str]:
        """Read the session's runs."""
        session = await self._agent().aget_session(session_id=KEY)
        said = [run.input.input_content for run in session.runs]
        return [text for text in said if text != "first"]


class KeyValue(Writers):
    """py-key-value: a conversation is a value, as the other comparison has it."""

    async def open(self) -> None:
        """Open the store, and put an empty list."""
        kinds = {"memory": "InMemory", "sqlite": "Sqlite", "redis": "Redis", "postgres": "Postgres"}
        self.values = getattr(import_module("benchmarks.peers.key_value"), kinds[self.place["store"]])(self.place)
        await self.values.open()
        await self.values.fill(KEY, 0)

    async def close(self) -> None:
        """Close it."""
        await self.values.close()

    def say(self) -> Say:
        """Read the value, and put it back with a message more."""
        return lambda text: self.values.extend(KEY, [{"role": "user", "content": text}])

    async def kept(self) -> list[str]:
        """Read the value."""
        return [message["content"] for message in await self.values.held(KEY)]


LIBRARIES: Mapping[str, tuple[type[Writers], str, tuple[str, ...]]] = {
    "jaf-memory": (Ours, "jaf-memory-core", ("memory", "sqlite", "redis", "postgres")),
    "jaf-py": (JafPy, "jaf-py", ("memory", "redis", "postgres")),
    "OpenAI Agents SDK": (OpenAIAgents, "openai-agents", ("sqlite", "redis", "postgres")),
    "LangGraph": (LangGraph, "langgraph", ("memory", "sqlite", "postgres")),
    "Pydantic AI": (PydanticAI, "pydantic-ai-slim", ("memory",)),
    "Google ADK": (GoogleADK, "google-adk", ("memory", "sqlite", "postgres")),
    "Agno": (Agno, "agno", ("memory", "sqlite", "redis", "postgres")),
    "py-key-value": (KeyValue, "py-key-value-aio", ("memory", "sqlite", "redis", "postgres")),
}
"""Each library, the distribution that brings it, and the stores that it has."""
