"""What stands in the server: the form of each key, that nothing is left behind, and how much memory it takes."""

import asyncio
import json

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys

from jaf_memory_core import MemoryQuery, MemoryStorageError, Message, Success


def opened(server, prefix, **settings):
    """A provider on that server."""
    return create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix, **settings))


def test_stored_form(server7, prefix):
    """A conversation is stored in format 1, in these keys and fields: a change of it needs a new format number."""

    async def main():
        async with await opened(server7, prefix, ttl=600.0, max_messages=2) as provider:
            messages = [Message("user", f"m{n}", message_id=f"id{n}") for n in range(2)]
            await provider.store_messages("c", messages, {"k": [1, "é"]}, user_id="u")
            await provider.append_messages("c", [Message("user", "m2", message_id="id2")])
            found = await provider.get_conversation("c")
        names = Keys(prefix)
        header, bodies, ids = (name.decode() for name in names.conversation("c"))
        flat = server7.command("HGETALL", header)
        fields = {key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True)}
        times = {key: fields.pop(key) for key in "cux"}
        assert fields == {
            "f": "1",
            "id": "c",
            "inc": found.incarnation,
            "v": "2",
            "t": "600.0",
            "o": "u",
            "p": "1",
            "k": "1",
            "n": "2",
            "s": "98",
            'm:"k"': '[1,"é"]',
        }
        assert all(len(text) == 18 and text.isdigit() for text in times.values())
        assert [json.loads(body)["message_id"] for body in server7.command("LRANGE", bodies, 0, -1)] == ["id1", "id2"]
        assert server7.command("ZRANGE", ids, 0, -1, "WITHSCORES") == [b"id1", b"1", b"id2", b"2"]
        activity, creation = (name.decode() for name in names.owned("u"))
        created = times["c"]
        assert server7.command("ZRANGE", activity, 0, -1) == [b"c"]
        assert server7.command("ZRANGE", creation, 0, -1) == [f"{created}c".encode()]
        assert server7.command("ZRANGE", names.expiries.decode(), 0, -1) == [f"c\0u\0{created}".encode()]
        expected = {*map(str, (header, bodies, ids, activity, creation, names.expiries.decode()))}
        expected |= {name.decode() for name in names.everything}
        assert {key.decode() for key in server7.command("KEYS", f"{prefix}*")} == expected

    asyncio.run(main())


@pytest.mark.parametrize("form", ["3", "99"])
def test_newer_format(server, prefix, form):
    """A conversation in a newer format than ours is refused by every operation, and stays as it is."""

    async def main():
        async with await opened(server, prefix) as provider:
            await provider.store_messages("c", [Message("user", "a", message_id="a")], user_id="u")
            header = Keys(prefix).conversation("c")[0].decode()
            server.command("HSET", header, "f", form)
            before = server.command("HGETALL", header)
            for work in (
                provider.get_conversation("c"),
                provider.get_recent_messages("c"),
                provider.get_messages("c", before=1),
                provider.update_metadata("c", {"a": 1}),
                provider.truncate_conversation_after("c", "a"),
                provider.delete_conversation("c"),
                provider.find_conversations(MemoryQuery(user_id="u")),
            ):
                with pytest.raises(MemoryStorageError, match="format"):
                    await work
            failure = await provider.append_messages("c", [Message("user", "b")])
            assert "format" in str(failure.error)
            assert server.command("HGETALL", header) == before

    asyncio.run(main())


def test_keys_of_one_conversation_share_a_slot(cluster, prefix):
    """No id can break the hash tag: its three keys are in one slot, and no two ids share a key."""
    keys = Keys(prefix)
    seen = set()
    for name in ("}{", "{}", "{a}", "a}", "*", "a:h", " ", "é", "e\u0301", "'\"\\", "a" * 255, "😀" * 255, "all", "u-"):
        names = [key.decode() for key in (*keys.conversation(name), *keys.owned(name))]
        slots = [cluster.servers[0].command("CLUSTER", "KEYSLOT", key) for key in names]
        assert len(set(slots[:3])) == len(set(slots[3:])) == 1
        seen |= set(names)
    assert len(seen) == 14 * 5


def test_nothing_is_left(server, prefix):
    """After clearing a user's conversations, and after expiry and a purge, no key is left."""

    async def main():
        async with await opened(server, prefix) as provider:
            for n in range(30):
                await provider.store_messages(f"c{n}", [Message("user", "x")], {"a": n}, user_id=f"u{n % 2}")
            assert await provider.clear_user_conversations("u0") == 15
            assert await provider.clear_user_conversations("u0") == 0
            for n in range(1, 30, 2):
                await provider.set_expiry(f"c{n}", 0.05)
            await asyncio.sleep(0.1)
            assert await provider.find_conversations(MemoryQuery(user_id="u1")) == []
            assert await provider.purge_expired() == 15
            assert server.command("KEYS", f"{prefix}*") == []

    asyncio.run(main())


def test_dropped_by_redis(server, prefix):
    """What Redis itself dropped after its expiry leaves index entries only until somebody reads or purges."""

    async def main():
        async with await opened(server, prefix, ttl=600.0) as provider:
            for name in ("read", "purged"):
                await provider.store_messages(name, [Message("user", "x")], user_id=f"u-{name}")
                for key in Keys(prefix).conversation(name):
                    # A minute later than the conversation itself expires.
                    assert 650_000 < server.command("PTTL", key.decode()) <= 660_010
                    server.command("DEL", key.decode())
            assert await provider.find_conversations(MemoryQuery(user_id="u-read")) == []
            assert [one async for one in provider.iter_conversations(MemoryQuery(user_id="u-read"))] == []
            for entry in server.command("ZRANGE", Keys(prefix).expiries.decode(), 0, -1):
                server.command("ZADD", Keys(prefix).expiries.decode(), 1, entry.decode())
            assert await provider.purge_expired() == 1
            assert server.command("KEYS", f"{prefix}*") == []

    asyncio.run(main())


def test_kept_for_good(server, prefix):
    """Who takes an expiry away takes it from every key: a minute after it Redis would drop one that has it still."""

    async def main():
        async with await opened(server, prefix) as provider:
            await provider.store_messages("c", [Message("user", "x")], {"a": "x" * 2_000}, user_id="u")
            await provider.set_expiry("c", 600)
            keys = [key for key in Keys(prefix).conversation("c") if server.command("EXISTS", key.decode())]
            assert len(keys) == 3
            assert all(server.command("PTTL", key.decode()) > 0 for key in keys)
            await provider.set_expiry("c", None)
            assert [server.command("PTTL", key.decode()) for key in keys] == [-1, -1, -1]

    asyncio.run(main())


def test_memory(server7, prefix):
    """A conversation of 1,000 messages takes at most 1.5 times the bytes of its messages."""

    async def main():
        async with await opened(server7, prefix) as provider:
            messages = [Message("user", "x" * 300) for _ in range(1000)]
            await provider.store_messages("c", messages)
            size = (await provider.get_stats())["total_storage_size"]
        names = Keys(prefix).conversation("c")
        used = sum(server7.command("MEMORY", "USAGE", name.decode(), "SAMPLES", 0) for name in names)
        assert used / size <= 1.5

    asyncio.run(main())


def test_health(server7, prefix):
    """Health tells version, role, memory, clients and durability, and warns where data can be lost."""

    async def main():
        async with await opened(server7, prefix) as provider:
            health = await provider.health_check()
            own = server7.command("INFO", "server").decode()
            assert f"redis_version:{health['details']['version']}\r\n" in own
            assert health["details"]["role"] == "master"
            assert "append-only" in health["details"]["durability"]
            assert health["metrics"]["memory_usage"] > 0
            assert health["metrics"]["connected_clients"] >= health["metrics"]["active_connections"] == 1
            assert health["warnings"] == []
            server7.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            server7.command("CONFIG", "SET", "appendonly", "no")
            try:
                warnings = " ".join((await provider.health_check())["warnings"])
            finally:
                server7.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
                server7.command("CONFIG", "SET", "appendonly", "yes")
            assert "allkeys-lru" in warnings
            assert "nothing is saved" in warnings
        async with await opened(server7, prefix, min_replicas=2) as provider:
            assert "0 replicas are online" in " ".join((await provider.health_check())["warnings"])

    asyncio.run(main())


def test_large_batches(server, prefix):
    """A batch of 10,000 messages is one atomic append, and its repetition adds nothing."""

    async def main():
        async with await opened(server, prefix) as provider:
            batch = [Message("user", str(n)) for n in range(10_000)]
            await provider.store_messages("c", [])
            assert (await provider.append_messages("c", batch)).data.added == 10_000
            assert (await provider.append_messages("c", batch)).data.added == 0
            assert isinstance(await provider.store_messages("c", batch), Success)
            assert [one.content for one in (await provider.get_messages("c", before=5, limit=2))] == ["3", "4"]
            assert await provider.truncate_conversation_after("c", batch[10].message_id) == 9_990

    asyncio.run(main())


def test_appends_without_memory(server, prefix):
    """On a server that is out of memory a repeated append is known as one; a new one is refused, and leaves nothing."""

    async def main():
        async with await opened(server, prefix) as provider:
            held = [Message("user", "a"), Message("user", "b")]
            await provider.store_messages("c", held)
            before = server.command("HGETALL", Keys(prefix).conversation("c")[0].decode())
            server.command("CONFIG", "SET", "maxmemory", "1")
            try:
                assert (await provider.append_messages("c", held)).data.added == 0
                failure = await provider.append_messages("c", [held[1], Message("user", "new")])
            finally:
                server.command("CONFIG", "SET", "maxmemory", "0")
            assert "no memory" in str(failure.error)
            header, _, ids = (name.decode() for name in Keys(prefix).conversation("c"))
            assert server.command("HGETALL", header) == before
            assert server.command("ZCARD", ids) == 2

    asyncio.run(main())


LIMITS = {
    "exact": ({"a": "x" * 80}, {"b": "x" * 7}, 102, True),
    "one more": ({"a": "x" * 80}, {"b": "x" * 7}, 101, False),
    "shrunk": ({"a": "x" * 80, "b": "x" * 20}, {"b": "x" * 19}, 50, True),
    "grown": ({"a": "x" * 80, "b": "x" * 20}, {"b": "x" * 21}, 50, False),
    "escaped": ({"a": "é" * 30}, {"b": "\ud800"}, 201, True),
    "escaped, one more": ({"a": "é" * 30}, {"b": "\ud800"}, 200, False),
}
"""What stands, what is merged in, how large it may become, and whether it does."""


@pytest.mark.parametrize("count", [1, 300], ids=["in one script", "laid aside"])
@pytest.mark.parametrize("case", LIMITS)
def test_metadata_that_stands_afterwards(server7, prefix, case, count):
    """The limit holds to the byte for what a merge leaves, and a refusal leaves no trace."""
    stored, patch, most, fits = LIMITS[case]

    async def main():
        async with await opened(server7, prefix) as provider:
            await provider.store_messages("c", [Message("user", "first")], stored)
        names = [name.decode() for name in Keys(prefix).conversation("c")]
        before = sorted(server7.command("HGETALL", names[0]))
        new = [Message("user", str(n)) for n in range(count)]
        async with await opened(server7, prefix, max_metadata_bytes=most) as provider:
            answer = await provider.append_messages("c", new, patch)
            assert (type(answer) is Success) == fits
            assert server7.command("ZCARD", names[2]) == server7.command("LLEN", names[1]) == 1 + count * fits
            assert (sorted(server7.command("HGETALL", names[0])) == before) != fits
            if not fits:
                assert "bytes after this write" in str(answer.error)
            assert len(server7.command("KEYS", f"{prefix}*:?:*")) == 0

    asyncio.run(main())


def test_ids_that_are_held_in_part(server, prefix):
    """An append adds just those that are not held, behind all others, also where it is larger than one command."""

    async def main():
        async with await opened(server, prefix) as provider:
            held = [Message("user", str(n)) for n in range(3)]
            new = [Message("user", str(n)) for n in range(3, 5_003)]
            await provider.store_messages("c", held)
            assert (await provider.append_messages("c", [new[0], held[1], *new[1:], held[2]])).data.added == 5_000
            _, bodies, ids = (name.decode() for name in Keys(prefix).conversation("c"))
            stored = [json.loads(body)["message_id"].encode() for body in server.command("LRANGE", bodies, 0, -1)]
            assert stored == [message.message_id.encode() for message in (*held, *new)]
            placed = server.command("ZRANGE", ids, 0, -1, "WITHSCORES")
            assert placed[::2] == stored
            assert placed[1::2] == [str(at).encode() for at in range(5_003)]

    asyncio.run(main())
