"""LangChain's history on PostgreSQL, over psycopg. It reads a conversation whole, and has no way to read its end."""

from __future__ import annotations

import uuid

import psycopg
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_postgres import PostgresChatMessageHistory

from benchmarks.competitors import Competitor
from benchmarks.payload import text

TABLE = "langchain"


class Postgres(Competitor):
    """`PostgresChatMessageHistory` on one connection."""

    async def open(self) -> None:
        """Connect, and make the table."""
        self.line = await psycopg.AsyncConnection.connect(self.place["url"])
        await PostgresChatMessageHistory.acreate_tables(self.line, TABLE)

    async def close(self) -> None:
        """Disconnect."""
        await self.line.close()

    def history(self, key: str) -> PostgresChatMessageHistory:
        """The history of a conversation; its id has to be a UUID."""
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
        return PostgresChatMessageHistory(TABLE, name, async_connection=self.line)

    async def fill(self, key: str, length: int) -> None:
        """Add so many messages."""
        await self.history(key).aadd_messages([HumanMessage(text()) for _ in range(length)])

    async def append(self, key: str) -> None:
        """Add two messages."""
        turn: list[BaseMessage] = [HumanMessage(text()), AIMessage(text("assistant"))]
        await self.history(key).aadd_messages(turn)

    async def load(self, key: str) -> None:
        """Read all."""
        await self.history(key).aget_messages()
