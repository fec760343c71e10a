"""JAF's HTTP server with our provider: its endpoints for conversations answer."""

import asyncio

import httpx
import pytest
from jaf_memory_bridges.jaf import create_memory_provider_from_env


@pytest.fixture
def served(environ, engine):
    """Runs work with a client of JAF's server, over a backend, and with the provider."""

    async def serve(work, script):
        from jaf.server.server import create_jaf_server
        from jaf.server.types import ServerConfig

        memory = await create_memory_provider_from_env(environ, user_id="u")
        agent = engine.agent()
        config = ServerConfig(
            host="localhost",
            port=0,
            agent_registry={"bot": agent},
            run_config=engine.config(memory, script),
            default_memory_provider=memory,
        )
        transport = httpx.ASGITransport(app=create_jaf_server(config))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await work(client, memory)
        await memory.close()

    return lambda work, script: asyncio.run(serve(work, script))


def chat(text):
    """The body of a request to talk."""
    return {"messages": [{"role": "user", "content": text}], "agent_name": "bot", "conversation_id": "c"}


def test_talking_reading_and_deleting(served, engine):
    """Two requests make one conversation, which the server shows, and deletes once."""

    async def work(client, _memory):
        for said in ("a", "b"):
            answer = (await client.post("/chat", json=chat(said))).json()
            assert answer["success"], answer
        shown = (await client.get("/conversations/c")).json()["data"]
        assert [message["content"] for message in shown["messages"]] == ["a", "one", "b", "two"]
        assert shown["user_id"] == "u"
        assert (await client.get("/conversations/missing")).status_code == 404
        assert (await client.delete("/conversations/c")).json()["data"]["deleted"] is True
        assert (await client.delete("/conversations/c")).json()["data"]["deleted"] is False
        assert (await client.get("/conversations/c")).status_code == 404

    served(work, engine.Script("one", "two"))


def test_memory_health(served, engine):
    """The endpoint tells how the store is, and fails when it is closed."""

    async def work(client, memory):
        answer = (await client.get("/memory/health")).json()
        assert answer["success"] is True
        assert answer["data"]["healthy"] is True
        assert answer["data"]["provider"] == memory.provider.name
        await memory.close()
        assert (await client.get("/memory/health")).status_code == 500

    served(work, engine.Script("one"))


def test_regeneration_and_checkpoint(served, engine):
    """The endpoints for regeneration, its history, and checkpoints do what they say."""

    async def work(client, memory):
        for said in ("a", "b"):
            await client.post("/chat", json=chat(said))
        before = (await memory.provider.get_conversation("c")).messages
        body = {"message_id": before[3].message_id, "agent_name": "bot"}
        answer = (await client.post("/conversations/c/regenerate", json=body)).json()
        assert answer["success"], answer
        after = (await memory.provider.get_conversation("c")).messages
        assert [message.content for message in after] == ["a", "one", "b", "two again"]
        answer = (await client.post("/conversations/c/checkpoint", json={"message_id": before[1].message_id})).json()
        assert answer["success"], answer
        assert (await memory.provider.get_conversation("c")).messages == before[:2]
        assert len((await client.get("/conversations/c/checkpoint-history")).json()["data"]["checkpoint_points"]) == 1

    served(work, engine.Script("one", "two", "two again"))
