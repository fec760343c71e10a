"""A summariser that sleeps, while one process appends and another erases: nothing lost, nothing brought back."""

import asyncio
import json
import subprocess
import sys

import pytest
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import MemoryConfig, MemorySession, create_memory_provider_from_env

OTHER = """
import asyncio, json, sys
from jaf_memory_core import Message, create_memory_provider_from_env

async def main(environ, job):
    provider = await create_memory_provider_from_env(environ)
    if job == "append":
        await provider.append_messages("c", [Message(role="user", content="meanwhile", message_id="meanwhile")])
    else:
        assert await provider.clear_user_conversations("u") == 1
    await provider.close()

asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2]))
"""


async def meanwhile(environ, job):
    """Let another process do something, and wait for its end."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHER, json.dumps(environ), job), stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(child.communicate(), 300)
    assert child.returncode == 0, errors.decode()


@pytest.mark.parametrize("jobs", [("append",), ("append", "clear"), ("clear",)])
def test_a_summariser_that_sleeps(tmp_path, jobs):
    """The message that came meanwhile stays, and is shown; what was erased meanwhile is gone, its summary too."""
    pytest.importorskip("jaf_memory_sqlite")
    environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(tmp_path / "conversations.db")}

    async def use():
        provider = await create_memory_provider_from_env(environ)
        await provider.store_messages("c", talk(30), user_id="u")

        async def summarize(_messages):
            for job in jobs:
                await meanwhile(environ, job)
            return "in short"

        config = MemoryConfig(provider=provider, compression_threshold=10)
        async with MemorySession(config, conversation_id="c", user_id="u", summarize=summarize) as session:
            view = await session.load()
        if "clear" in jobs:
            assert view == []
            assert await provider.get_conversation("c") is None
            assert await provider.get_condensed_conversation("c") is None
        else:
            assert view[0].content == "in short"
            assert view[-1].message_id == "meanwhile"
            assert ids((await provider.get_conversation("c")).messages) == [*ids(talk(30)), "meanwhile"]
        await provider.close()

    asyncio.run(use())
