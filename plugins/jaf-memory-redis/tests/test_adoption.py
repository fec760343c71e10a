"""What jaf-py's own provider stored is moved in by an explicit step, and never overwritten without it."""

import asyncio
import json
from collections import Counter

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider

from jaf_memory_core import Failure, MemoryConflictError, Message, Success

TURN = [
    {
        "role": "user",
        "content": "Grüße 😀 \ud800",
        "message_id": "m1",
        "tool_call_id": None,
        "tool_calls": None,
        "attachments": None,
    },
    {
        "role": "assistant",
        "content": "",
        "message_id": None,
        "tool_call_id": None,
        "attachments": None,
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {
        "role": "tool",
        "content": [{"type": "text", "text": "1e22", "image_url": None, "file": None}],
        "message_id": "m1",
        "tool_call_id": "t",
        "tool_calls": None,
        "attachments": [
            {
                "kind": "image",
                "mime_type": "image/png",
                "name": None,
                "url": "http://x",
                "data": None,
                "format": None,
                "use_litellm_format": True,
            }
        ],
    },
]
"""A turn as jaf-py writes it: with an id that comes twice, and a message without one."""

METADATA = {
    "user_id": "ann",
    "created_at": "2024-01-15T10:00:00",
    "updated_at": "2024-01-16T10:00:00",
    "total_messages": 3,
    "last_activity": "2024-01-17T10:00:00",
    "topic": {"a": [1, 2.0, None]},
}


def older(conversation_id, **changed):
    """One conversation in jaf-py's form."""
    fields = {"conversation_id": conversation_id, "user_id": "ann", "messages": TURN, "metadata": METADATA}
    return json.dumps({**fields, **changed})


async def adopted(address, *, remove=False):
    """Run the step as the command line does; its outcomes and texts."""
    provider = await create_redis_provider(RedisConfig(**address))
    await provider.close()
    backend = type(provider.backend)(provider.config, provider.backend.topology, {})
    try:
        steps = [step async for step in backend.adopt(remove=remove)]
    finally:
        await backend.close()
    return Counter(step.outcome for step in steps), " ".join(step.text for step in steps)


@pytest.fixture(params=["single", "cluster"])
def place(request, prefix):
    """A server or a Cluster, with a way to write jaf-py's strings and to read them."""
    if request.param == "single":
        server = request.getfixturevalue("server7")
        servers, address = [server], {"port": server.port}
    else:
        cluster = request.getfixturevalue("cluster")
        servers, address = cluster.masters(), {"host": cluster.hosts, "cluster": True}

    def command(*words):
        for server in servers:
            try:
                return server.command(*words)
            except RuntimeError as error:
                if "MOVED" not in str(error):
                    raise
        raise AssertionError("no node has the slot")

    return command, {**address, "key_prefix": prefix}


def test_moving_in(place, prefix):
    """Everything comes along, in every value; a repeated run finds it done; the strings stay until told otherwise."""
    command, address = place

    async def main():
        names = ["plain", "a:{b}*", "conversation:x", "ünï"]
        for name in names:
            command("SET", f"{prefix}{name}", older(name))
        command("SET", f"{prefix}short", older("short", user_id=None, metadata={}), "PX", 600_000)
        counts, text = await adopted(address)
        assert counts == {"moved": 5, "note": 2}
        assert "still there" in text
        async with await create_redis_provider(RedisConfig(**address, ttl=60.0)) as provider:
            for name in names:
                found = await provider.get_conversation(name)
                assert [message.content for message in found.messages][:2] == ["Grüße 😀 \ud800", ""]
                assert len({message.message_id for message in found.messages}) == 3
                assert found.messages[2].attachments[0].use_litellm_format is True
                assert (found.user_id, found.metadata["topic"]) == ("ann", METADATA["topic"])
                assert found.created_at.isoformat() < "2024-01-16"
                assert found.expires_at is None
            short = await provider.get_conversation("short")
            assert 500 < (short.expires_at - provider.backend.now()).total_seconds() <= 600
            stats = await provider.get_stats("ann")
            assert stats["total_conversations"] == len(names)
            done = await provider.append_messages("plain", [Message("user", "more")])
            assert isinstance(done, Success)
        assert (await adopted(address))[0] == {"held": 5, "note": 2}
        counts, _ = await adopted(address, remove=True)
        assert counts == {"held": 5, "note": 1}
        assert (await adopted(address))[0] == {"note": 1}
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            assert (await provider.get_conversation("plain")).message_count == 4
            assert await provider.clear_user_conversations("ann") == len(names)

    asyncio.run(main())


def test_nothing_is_overwritten(place, prefix):
    """Until it is moved in, a write to such a conversation is refused, in any form, and the string stays."""
    command, address = place

    async def main():
        text = older("c")
        command("SET", f"{prefix}c", text)
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            for result in (
                await provider.store_messages("c", [Message("user", "x")]),
                await provider.append_messages("c", [Message("user", "x")], create=True),
            ):
                assert isinstance(result, Failure)
                assert isinstance(result.error, MemoryConflictError)
                assert "jaf-memory adopt" in str(result.error)
            assert await provider.get_conversation("c") is None
            assert command("GET", f"{prefix}c").decode() == text
            assert isinstance(await provider.store_messages("d", []), Success)

    asyncio.run(main())


def test_refused_ones_stay(place, prefix):
    """What is no conversation of jaf-py's, or stands in the way, is refused, told, and left as it is."""
    command, address = place

    async def main():
        command("SET", f"{prefix}text", "not JSON, and secret")
        command("SET", f"{prefix}other", older("another id"))
        command("SET", f"{prefix}nan", older("nan", metadata={"x": float("nan")}))
        command("SET", f"{prefix}changed", older("changed"))
        assert (await adopted(address))[0] == {"moved": 1, "refused": 3, "note": 2}
        command("SET", f"{prefix}changed", older("changed", messages=TURN[:1]))
        counts, text = await adopted(address, remove=True)
        assert counts == {"refused": 4, "note": 1}
        assert "secret" not in text
        assert command("EXISTS", f"{prefix}changed") == command("EXISTS", f"{prefix}text") == 1

    asyncio.run(main())


def test_erasure_reaches_what_was_moved(place, prefix):
    """Deleting a conversation that was moved in removes its string too, so that no later run brings it back."""
    command, address = place

    async def main():
        command("SET", f"{prefix}c", older("c"))
        await adopted(address)
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            assert await provider.delete_conversation("c")
            assert command("EXISTS", f"{prefix}c") == 0
            assert isinstance(await provider.store_messages("c", []), Success)
        assert (await adopted(address))[0] == {"note": 1}

    asyncio.run(main())


def test_what_was_not_moved_is_told(place, prefix, caplog):
    """Before `adopt` the start logs it, health warns, and an erasure that would miss it is refused, not answered 0."""
    command, address = place

    async def main():
        command("SET", f"{prefix}c", older("c"))
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            assert "jaf-memory adopt" in caplog.text
            assert "jaf-memory adopt" in " ".join((await provider.health_check())["warnings"])
            with pytest.raises(MemoryConflictError, match="1 conversations of this user"):
                await provider.clear_user_conversations("ann")
            assert await provider.clear_user_conversations("bob") == 0
            with pytest.raises(MemoryConflictError, match="jaf-memory adopt"):
                await provider.delete_conversation("c")
        await adopted(address)
        caplog.clear()
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            assert "adopt" not in caplog.text
            assert await provider.clear_user_conversations("ann") == 1
            assert command("EXISTS", f"{prefix}c") == 0

    asyncio.run(main())


def test_looking_costs_once(place):
    """Many users are erased with one walk over the keys, and one who has older data is refused each time."""
    command, address = place

    async def main():
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            asked = []
            names = provider.backend.topology.names
            provider.backend.topology.names = lambda *given: asked.append(given) or names(*given)
            for number in range(5):
                await provider.store_messages("c", [Message("user", "x")], user_id=f"u{number}")
                assert await provider.clear_user_conversations(f"u{number}") == 1
            assert len(asked) <= 1
            command("SET", f"{address['key_prefix']}c", older("c"))
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            for _ in range(2):
                with pytest.raises(MemoryConflictError, match="1 conversations of this user"):
                    await provider.clear_user_conversations("ann")

    asyncio.run(main())


def test_keys_of_others_stay(place, prefix):
    """A string of another program at prefix and id is never removed, and a write there says what stands in the way."""
    command, address = place

    async def main():
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            for name in ("a", "b"):
                await provider.store_messages(name, [Message("user", "x")], user_id="ann")
                command("SET", f"{prefix}{name}", '{"conversation_id": "of the application"}' if name == "b" else "own")
            assert await provider.delete_conversation("a")
            assert await provider.clear_user_conversations("ann") == 1
            assert command("EXISTS", f"{prefix}a") == command("EXISTS", f"{prefix}b") == 1
            failure = await provider.store_messages("a", [Message("user", "x")])
            assert isinstance(failure.error, MemoryConflictError)
            assert "another program" in str(failure.error)
            assert await provider.delete_conversation("a") is False

    asyncio.run(main())
