"""LangGraph's checkpoints: a thread's state holds the list of messages, and is read and written as a whole.

An append is an update of the state, the least of what a run of a graph does: a run writes a checkpoint for its input,
and one for each of its steps. There is no way to read the end of the list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from benchmarks.competitors import Competitor
from benchmarks.payload import text

NODE = "model"


def messages(count: int) -> list[BaseMessage]:
    """So many messages, the user's and the model's by turns."""
    return [AIMessage(text("assistant")) if number % 2 else HumanMessage(text()) for number in range(count)]


class Checkpoints(Competitor):
    """A graph of one node, with the state that LangGraph documents for messages, over one of its savers."""

    lines: Any

    async def saver(self) -> Any:
        """Connect, and make the tables."""
        raise NotImplementedError

    async def open(self) -> None:
        """Compile the graph."""
        graph = StateGraph(MessagesState)
        graph.add_node(NODE, lambda _state: {})
        graph.add_edge(START, NODE)
        graph.add_edge(NODE, END)
        self.graph = graph.compile(checkpointer=await self.saver())

    async def close(self) -> None:
        """Disconnect."""
        await self.lines.close()

    async def fill(self, key: str, length: int) -> None:
        """Begin a thread with so many messages."""
        await self.graph.aupdate_state(_thread(key), {"messages": messages(length)}, as_node=NODE)

    async def append(self, key: str) -> None:
        """Add two messages to the state."""
        await self.graph.aupdate_state(_thread(key), {"messages": messages(2)}, as_node=NODE)

    async def load(self, key: str) -> None:
        """Read the state."""
        await self.graph.aget_state(_thread(key))


def _thread(key: str) -> Any:
    return {"configurable": {"thread_id": key}}


class Sqlite(Checkpoints):
    """`AsyncSqliteSaver`, whose one connection is a thread of aiosqlite's."""

    async def saver(self) -> Any:
        """Open the file."""
        import aiosqlite
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        self.lines = await aiosqlite.connect(Path(self.place["folder"], "langgraph.db"))
        return AsyncSqliteSaver(self.lines)


class Postgres(Checkpoints):
    """`AsyncPostgresSaver` over psycopg's pool, with as many connections as ours."""

    async def saver(self) -> Any:
        """Connect."""
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        how = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self.lines = AsyncConnectionPool(self.place["url"], min_size=10, max_size=10, open=False, kwargs=how)
        await self.lines.open()
        saver = AsyncPostgresSaver(self.lines)
        await saver.setup()
        return saver
