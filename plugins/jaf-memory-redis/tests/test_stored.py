"""What is stored outlives versions: what 0.1.0 wrote is read, listed and written by every later one."""

import asyncio
import json
from pathlib import Path

from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys

from jaf_memory_core import MemoryQuery, Message, digest

STORED = Path(__file__).parent / "stored" / "format_1.jsonl"
"""The keys of three conversations, as commands that make them. It never changes: servers hold keys like these."""

PREFIX = "old:"


def restored(server, prefix):
    """Make the keys again under another prefix; what is expected of them."""
    for line in STORED.read_text(encoding="utf-8").splitlines():
        name, key, *arguments = json.loads(line)
        assert key.startswith(PREFIX)
        server.command(name, prefix + key.removeprefix(PREFIX), *arguments)
    return json.loads(STORED.with_suffix(".json").read_text(encoding="utf-8"))


async def names(provider, **filters):
    """What a query finds, in order."""
    return [one.conversation_id for one in await provider.find_conversations(MemoryQuery(**filters))]


def test_what_an_older_version_stored(server7, prefix):
    """Conversations of 0.1.0 come back with their digests and times, are listed by these, and go on from there."""
    expected = restored(server7, prefix)
    chat = "user-1:chat/ü"

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            for key, one in expected.items():
                found = await provider.get_conversation(key)
                assert digest(found) == one["digest"]
                assert [str(found.created_at), str(found.updated_at), str(found.expires_at)] == one["times"]
                assert found.version == one["version"]
                # Nothing else is known of what changed last.
                assert found.active_at == found.updated_at
            assert await names(provider) == ["capped", chat, "plain"]
            assert await names(provider, user_id="user-1", active_since=found.active_at) == ["capped"]
            before = await provider.get_conversation(chat)
            await provider.update_metadata(chat, {"title": "Heimreise"})
            after = await provider.get_conversation(chat)
            assert before.active_at == after.active_at < after.updated_at
            assert await names(provider) == ["capped", chat, "plain"]
            assert await names(provider, updated_since=after.updated_at) == [chat]
            (await provider.append_messages("plain", [Message("user", "more")])).unwrap()
            assert await names(provider) == ["plain", "capped", chat]
            assert await provider.clear_user_conversations("user-1") == 2
            assert await provider.delete_conversation("plain")
        left = {key.decode() for key in server7.command("KEYS", f"{prefix}*")}
        assert left <= {name.decode() for name in (*Keys(prefix).everything, Keys(prefix).expiries)}

    asyncio.run(main())
