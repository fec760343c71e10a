"""The steps of docs/moving-from-jaf-py.md, against data that the real jaf-py has written."""

import asyncio
import json
import os
import random
import subprocess
import sys
import uuid

import pytest
from jaf import memory as theirs
from jaf.core.types import ApprovalValue, Attachment, Message, MessageContentPart
from jaf_memory_bridges import jaf as ours
from jaf_memory_bridges.jaf.messages import to_core

from jaf_memory_core import ConversationMemory, digest

USERS = ("ann", "bob", "cho")


def conversations(count=100):
    """Conversations as a service of jaf-py's has them: turns, parts, attachments, and owners."""
    chance = random.Random(7)
    for number in range(count):
        turns = []
        for turn in range(chance.randint(1, 6)):
            question = Message(role="user", content=f"question {turn} of {number} — Grüße 😀")
            if chance.random() < 0.2:
                image = MessageContentPart(type="image_url", image_url={"url": "u:x"})
                question = Message(role="user", content=[MessageContentPart(type="text", text="see"), image])
            if chance.random() < 0.2:
                question = Message(role="user", content="file", attachments=[Attachment(kind="image", data="AAAA")])
            turns += [question, Message(role="assistant", content=f"answer {turn}")]
        yield f"chat-{number}", turns, {"user_id": USERS[number % 3], "topic": {"number": number}}


@pytest.fixture(params=["redis", "postgres"])
def place(request, redis_server, postgres_server):
    """Where jaf-py keeps its data: how it is told, and how `JAF_…` variables tell us."""
    key = uuid.uuid4().hex[:10]
    if request.param == "redis":
        config = theirs.RedisConfig(host="127.0.0.1", port=redis_server.port, key_prefix=f"{key}:")
        environ = {"JAF_REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/0", "JAF_REDIS_PREFIX": f"{key}:"}
        return theirs.create_redis_provider, config, config, {"JAF_MEMORY_TYPE": "redis", **environ}
    url, table = postgres_server.url(), f"t{key}"
    config = theirs.PostgresConfig(connection_string=url, table_name=table)
    aside = theirs.PostgresConfig(connection_string=url, table_name=f"{table}__before")
    environ = {"JAF_POSTGRES_CONNECTION_STRING": url, "JAF_POSTGRES_TABLE": table}
    return theirs.create_postgres_provider, config, aside, {"JAF_MEMORY_TYPE": "postgres", **environ}


def command(environ, *arguments):
    """What `jaf-memory` answers in JSON."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("JAF_")}
    line = [sys.executable, "-m", "jaf_memory_cli", *arguments, "--json"]
    done = subprocess.run(line, env={**kept, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digest_of(conversation_id, messages):
    """One digest of all that was said."""
    return digest(ConversationMemory(conversation_id, messages=[to_core(one) for one in messages]))


async def read_by_jaf(create, config, ids):
    """Conversations as the real jaf-py reads them."""
    provider = (await create(config)).data
    found = {key: (await provider.get_conversation(key)).data for key in ids}
    await provider.close()
    return found


def test_the_steps_of_the_page(place, engine):
    """Data of jaf-py's are adopted whole, verified, continued, approved, erased; the way back stays open."""
    create, config, aside, environ = place
    written = list(conversations())
    ids = [key for key, _, _ in written] + ["waiting"]
    tool = engine.tool("delete", needs_approval=True)
    ann, bob = (type("Context", (), {"user_id": name})() for name in ("ann", "bob"))

    async def before():
        provider = (await create(config)).data
        for key, messages, metadata in written:
            assert isinstance(await provider.store_messages(key, messages, metadata), theirs.Success)
        script = engine.Script([("k", "delete", {"what": "file"})])
        run = engine.config(theirs.MemoryConfig(provider=provider), script, tools=[tool], conversation_id="waiting")
        await engine.run(run, "delete it", status="interrupted", context=ann)
        await provider.close()
        return await read_by_jaf(create, config, ids)

    async def use(old):
        memory = await ours.create_memory_provider_from_env(environ=environ)
        assert isinstance(memory, ours.Success), memory
        for key in ids:
            new = (await memory.get_conversation(key)).data
            assert digest_of(key, new.messages) == digest_of(key, old[key].messages)
            assert new.user_id == old[key].user_id
            assert new.metadata["total_messages"] == len(old[key].messages)
        script = engine.Script("one more answer")
        await engine.run(engine.config(memory, script, conversation_id="chat-1"), "one more", context=bob)
        assert len((await memory.get_conversation("chat-1")).data.messages) == len(old["chat-1"].messages) + 2
        run = engine.config(memory, engine.Script("deleted"), tools=[tool], conversation_id="waiting")
        await engine.run(run, context=ann, approvals={"k": ApprovalValue(status="approved", approved=True)})
        assert type(tool).executed == 1
        assert (await memory.get_conversation("waiting")).data.messages[-1].content == "deleted"
        erased = await memory.clear_user_conversations("cho")
        assert erased.data == sum(one.user_id == "cho" for one in old.values())
        assert (await memory.get_conversation("chat-2")).data is None
        await memory.close()

    old = asyncio.run(before())
    answer = command(environ, "adopt")
    assert (answer["moved"], answer["refused"]) == (len(ids), 0)
    asyncio.run(use(old))
    again = command(environ, "adopt")
    assert again["moved"] == 0
    back = asyncio.run(read_by_jaf(create, aside, ["chat-0"]))
    assert digest_of("chat-0", back["chat-0"].messages) == digest_of("chat-0", old["chat-0"].messages)
    assert command(environ, "adopt", "--remove", "--yes")["refused"] == 0
