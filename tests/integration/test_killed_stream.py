"""A process that is killed while an answer is streamed, on each store that processes share."""

import asyncio
import json
import subprocess
import sys

from jaf_memory_core import create_memory_provider_from_env

STREAM = """
import asyncio, json, sys
from jaf_memory_core import MemoryConfig, MemorySession, Message, create_memory_provider_from_env

async def main():
    provider = await create_memory_provider_from_env(json.loads(sys.argv[1]))
    async with MemorySession(MemoryConfig(provider=provider), conversation_id="c") as session:
        await session.record([Message(role="user", content="Tell me.")])
        async with session.draft(interval=0.05) as draft:
            for number in range(100_000):
                await draft.write(f"{number} ")
                await asyncio.sleep(0.01)
                if number == 50:
                    print("streaming", flush=True)

asyncio.run(main())
"""


def test_a_killed_process_leaves_its_answer_unfinished(shared_environ):
    """What was stored of the answer is there, marked; the question too, and nothing twice."""
    with subprocess.Popen([sys.executable, "-c", STREAM, json.dumps(shared_environ)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"streaming\n"
        child.kill()

    async def use():
        provider = await create_memory_provider_from_env(shared_environ)
        question, answer = (await provider.get_conversation("c")).messages
        assert question.content == "Tell me."
        assert answer.unfinished is True
        assert answer.content.startswith("0 1 2 ")
        await provider.close()

    asyncio.run(use())
