"""Owners on JAF's HTTP server: a request sees and writes the conversations of who sent it, and nobody else's."""

import asyncio
import json
import logging
import os
import subprocess
import sys

import httpx
import pytest
from jaf.server.types import ServerConfig
from jaf_memory_bridges.jaf import create_memory_provider_from_env, jaf_provider
from jaf_memory_bridges.jaf.server import create_jaf_server

from jaf_memory_core import MemoryConfigurationError, MemoryQuery

TOKENS = {"token-a": "alice", "token-b": "bob"}


def user_of(request):
    """Who sent it, by a token."""
    return TOKENS.get(request.headers.get("authorization"))


def settings(engine, memory, script, tools=()):
    """What JAF's server is made of."""
    config = engine.config(memory, script, tools=tools)
    return ServerConfig(
        host="localhost",
        port=0,
        agent_registry=config.agent_registry,
        run_config=config,
        default_memory_provider=memory,
    )


def client_of(app, token=None):
    """A client that sends a token."""
    headers = {} if token is None else {"authorization": token}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test", headers=headers)


def chat(text, conversation="c", **rest):
    """The body of a request to talk, that claims to be the administrator's."""
    said = {"messages": [{"role": "user", "content": text}], "agent_name": "bot", "conversation_id": conversation}
    return {**said, "context": {"user_id": "admin"}, **rest}


@pytest.mark.parametrize("waits", [False, True])
def test_a_conversation_is_its_senders(environ, engine, waits):
    """Its owner is who sent the request; another's does not see, continue or delete it, nobody's is refused."""

    async def later(request):
        await asyncio.sleep(0)
        return user_of(request)

    async def use():
        memory = await create_memory_provider_from_env(environ)
        script = engine.Script("noted")
        app = create_jaf_server(settings(engine, memory, script), user_of=later if waits else user_of)
        async with client_of(app, "token-a") as alice, client_of(app, "token-b") as bob, client_of(app) as nobody:
            assert (await alice.post("/chat", json=chat("my PIN is 4711"))).json()["success"]
            stored = await memory.provider.get_conversation("c")
            assert (stored.user_id, len(stored.messages)) == ("alice", 2)
            assert (await bob.get("/conversations/c")).status_code == 404
            await bob.post("/chat", json=chat("what did I say?"))
            assert [one.content for one in script.views[-1]] == ["what did I say?"]
            assert (await bob.delete("/conversations/c")).json()["data"]["deleted"] is False
            assert await memory.provider.get_conversation("c") == stored
            for answer in (await nobody.post("/chat", json=chat("hi", "d")), await nobody.get("/conversations/c")):
                assert answer.status_code == 401
            assert (await nobody.get("/health")).status_code == 200
            assert (await alice.get("/memory/health")).json()["data"]["healthy"] is True
            assert (await alice.get("/conversations/c")).json()["data"]["user_id"] == "alice"
        assert await memory.provider.find_conversations(MemoryQuery(user_id="admin")) == []
        assert await memory.provider.clear_user_conversations("alice") == 1
        await memory.close()

    asyncio.run(use())


def test_requests_at_once(engine):
    """Requests of many users at the same time stay apart."""

    async def use():
        memory = await create_memory_provider_from_env({"JAF_MEMORY_TYPE": "memory"})

        def whose(request):
            return request.headers["x-user"]

        class Slow:
            async def get_completion(self, state, _agent, _config):
                await asyncio.sleep(0.01)
                return {"message": {"content": state.messages[-1].content}}

        app = create_jaf_server(settings(engine, memory, Slow()), user_of=whose)

        async def talk(number):
            async with client_of(app) as client:
                client.headers["x-user"] = f"user-{number}"
                await client.post("/chat", json=chat(f"I am {number}", f"c{number}"))

        await asyncio.gather(*map(talk, range(20)))
        for number in range(20):
            stored = await memory.provider.get_conversation(f"c{number}")
            assert (stored.user_id, stored.messages[-1].content) == (f"user-{number}", f"I am {number}")
        await memory.close()

    asyncio.run(use())


def test_without_a_resolver_it_warns(engine, caplog):
    """A server whose conversations will belong to nobody says so when it starts; one of a single user does not."""

    async def use():
        memory = await create_memory_provider_from_env({"JAF_MEMORY_TYPE": "memory"})
        create_jaf_server(settings(engine, jaf_provider(memory, "alice"), engine.Script("one")))
        assert not caplog.records
        create_jaf_server(settings(engine, memory, engine.Script("one")))
        await memory.close()

    with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
        asyncio.run(use())
    assert "belong to nobody" in caplog.text


def test_users_that_nothing_would_keep_apart(six, engine):
    """A resolver over a provider that knows no users is refused when the server is made."""
    with pytest.raises(MemoryConfigurationError, match="for_user"):
        create_jaf_server(settings(engine, jaf_provider(six), engine.Script("one")), user_of=user_of)


def test_a_request_cuts_nothing_that_is_stored(engine):
    """With a `compression_threshold` in the request, and with a callback besides, a run is stored whole."""

    async def use():
        memory = await create_memory_provider_from_env({"JAF_MEMORY_TYPE": "memory"})
        script = engine.Script(*([(f"call-{n}", "look", {"what": "x"})] for n in range(12)), "done")
        config = settings(engine, memory, script, tools=[engine.tool("look")])
        app = create_jaf_server(config, user_of=user_of)
        async with client_of(app, "token-a") as alice:
            body = chat("question", memory={"compression_threshold": 10}, max_turns=50)
            assert (await alice.post("/chat", json=body)).json()["success"]
        stored = await memory.provider.get_conversation("c")
        assert [stored.messages[0].content, len(stored.messages)] == ["question", 26]
        await memory.close()

    asyncio.run(use())


def test_an_approval_in_a_request_ends_as_in_jaf_py(environ, engine):
    """jaf-py's server cannot approve; the call waits on, unharmed, until a run in the process brings the approval."""
    from jaf.core.types import ApprovalValue

    async def use():
        memory = await create_memory_provider_from_env(environ)
        tool = engine.tool("delete", needs_approval=True)
        script = engine.Script([("k", "delete", {"what": "file"})], "deleted")
        config = settings(engine, memory, script, tools=[tool])
        async with client_of(create_jaf_server(config, user_of=user_of), "token-a") as alice:
            waits = (await alice.post("/chat", json=chat("delete it"))).json()["data"]
            assert waits["outcome"]["status"] == "interrupted"
            before = await memory.provider.get_conversation("c")
            approval = {"type": "approval", "session_id": waits["run_id"], "tool_call_id": "k", "approved": True}
            answer = (await alice.post("/chat", json=chat("go on", approvals=[approval]))).json()["data"]["outcome"]
            assert "'dict' object has no attribute 'approved'" in answer["error"]["message"]
        assert (await memory.provider.get_conversation("c")).messages == before.messages
        run = engine.config(jaf_provider(memory, "alice"), script, tools=[tool])
        await engine.run(run, approvals={"k": ApprovalValue(status="approved", approved=True)})
        assert type(tool).executed == 1
        stored = await memory.provider.get_conversation("c")
        assert [one.role for one in stored.messages] == ["user", "assistant", "tool", "assistant"]
        assert (stored.user_id, stored.messages[-1].content) == ("alice", "deleted")
        await memory.close()

    asyncio.run(use())


def test_doctor_tells_of_runs_without_an_owner(engine, tmp_path):
    """`jaf-memory doctor` warns of runs of JAF's engine that belong to nobody, and of none that has an owner."""
    environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(tmp_path / "c.db")}

    async def talk(user, conversation):
        memory = await create_memory_provider_from_env(environ, user_id=user)
        await engine.run(engine.config(memory, engine.Script("one"), conversation_id=conversation), "a")
        await memory.close()

    def warnings():
        kept = {key: value for key, value in os.environ.items() if not key.startswith("JAF_")}
        line = [sys.executable, "-m", "jaf_memory_cli", "doctor", "--json"]
        done = subprocess.run(line, env={**kept, **environ}, capture_output=True, text=True, check=True)
        return " ".join(json.loads(done.stdout)["warnings"])

    asyncio.run(talk("alice", "c"))
    assert "belong to nobody" not in warnings()
    asyncio.run(talk(None, "d"))
    assert "1 of the newest 2 conversations are of JAF's engine and belong to nobody" in warnings()
