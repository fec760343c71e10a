"""Large conversations: no operation keeps the server for long, and each is as whole as a small one."""

import asyncio

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.layout import Keys
from jaf_memory_redis.scripts import command
from services import redis_servers
from services.lines import WAITING, Line

from jaf_memory_core import (
    Failure,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryNotFoundError,
    MemoryQuery,
    Message,
    Success,
)

MANY = 3_000


def batch(count, size=0, start=0):
    """Messages `m0`, `m1` …, each with its number."""
    return [Message("user", f"{n}" + "x" * size, message_id=f"m{n}") for n in range(start, start + count)]


@pytest.fixture(params=["single", "cluster"])
def address(request, prefix):
    """A server or a Cluster, with a prefix of its own."""
    if request.param == "single":
        return {"port": request.getfixturevalue("server7").port, "key_prefix": prefix}
    return {"host": request.getfixturevalue("cluster").hosts, "cluster": True, "key_prefix": prefix}


def contents(conversation):
    """The numbers of a conversation's messages."""
    return [int(message.content.rstrip("x")) for message in conversation.messages]


def test_in_steps(address):
    """What is done in steps gives what one script would: append, repetition, fork, truncation, caps, replacement."""

    async def main():
        async with await create_redis_provider(RedisConfig(**address, ttl=600.0)) as provider:
            assert isinstance(await provider.store_messages("c", batch(10), user_id="u"), Success)
            done = await provider.append_messages("c", batch(MANY), {"k": 1})
            assert (done.data.added, done.data.message_count) == (MANY - 10, MANY)
            again = await provider.append_messages("c", batch(MANY))
            assert (again.data.added, again.data.version) == (0, done.data.version)
            other = [*batch(MANY - 1), Message("user", "other", message_id=f"m{MANY - 1}")]
            failure = await provider.append_messages("c", other)
            assert isinstance(failure, Failure)
            assert isinstance(failure.error, MemoryConflictError)
            whole = await provider.get_conversation("c")
            assert contents(whole) == list(range(MANY))
            assert (whole.metadata["k"], whole.message_count, whole.user_id) == (1, MANY, "u")
            assert await provider.fork_conversation("c", "d", until_message_id="m2500") == 2_500
            assert contents(await provider.get_conversation("d")) == list(range(2_500))
            assert await provider.truncate_conversation_after("d", "m1000") == 1_500
            assert await provider.truncate_conversation_after("d", "m900") == 100
            assert contents(await provider.get_conversation("d")) == list(range(900))
            assert (await provider.append_messages("d", batch(1, start=900))).data.message_count == 901
            assert await provider.truncate_conversation_after("c", "m0") == MANY
            assert (await provider.get_conversation("c")).message_count == 0
            assert isinstance(await provider.store_messages("c", batch(MANY, start=5)), Success)
            assert contents(await provider.get_conversation("c")) == list(range(5, MANY + 5))
            stats = await provider.get_stats()
            sizes = [len(one) for name in ("c", "d") for one in await bodies_of(provider, name)]
            assert stats["total_storage_size"] == sum(sizes)
        async with await create_redis_provider(RedisConfig(**address, ttl=600.0, max_messages=2_000)) as provider:
            # One message, and a cap that is lower than before: a thousand go.
            assert (await provider.append_messages("c", batch(1, start=MANY + 5))).data.message_count == 2_000
            assert contents(await provider.get_conversation("c")) == list(range(MANY - 1_994, MANY + 6))
        async with await create_redis_provider(RedisConfig(**address, ttl=600.0, max_messages=1_000)) as provider:
            await provider.append_messages("c", batch(600, start=MANY + 5))
            assert contents(await provider.get_conversation("c")) == list(range(MANY - 395, MANY + 605))
            assert await provider.fork_conversation("c", "e", until_message_id=f"m{MANY}") == 395
            assert contents(await provider.get_conversation("e")) == list(range(MANY - 395, MANY))
            assert (await provider.append_messages("e", batch(2, start=MANY - 1))).data.added == 1
            (found,) = await provider.find_conversations(MemoryQuery(conversation_id="c"))
            assert found.message_count == 1_000

    asyncio.run(main())


def test_revised_in_steps(address):
    """Many messages here and there in a large conversation are replaced at once, also by each other's ids."""

    async def main():
        async with await create_redis_provider(RedisConfig(**address, ttl=600.0)) as provider:
            await provider.append_messages("c", batch(MANY, 1_000), create=True, user_id="u")
            places = [*range(100), 700, 702, *range(1_500, 1_550), MANY - 2, MANY - 1]
            anew = {f"m{n}": Message("user", f"9{n}", message_id=f"m{n}") for n in places}
            anew["m700"] = Message("user", "9700", message_id="m702")
            anew["m702"] = Message("user", "9702", message_id="m700")
            version = await provider.revise_messages("c", anew)
            assert version == 2
            found = await provider.get_conversation("c")
            assert contents(found) == [int(f"9{n}") if n in places else n for n in range(MANY)]
            assert [found.messages[n].message_id for n in (699, 700, 702)] == ["m699", "m702", "m700"]
            sizes = [len(one) for one in await bodies_of(provider, "c")]
            assert (await provider.get_stats())["total_storage_size"] == sum(sizes)
            assert (await provider.append_messages("c", [anew["m5"]])).data.added == 0
            # Beside writers it is done all the same.
            again = {f"m{n}": Message("user", "0", message_id=f"m{n}") for n in range(100)}
            writers = [provider.append_messages("c", batch(1, 0, MANY + n)) for n in range(30)]
            await asyncio.gather(provider.revise_messages("c", again), *writers)
            assert contents(await provider.get_conversation("c"))[:101] == [*[0] * 100, 100]
            assert (await provider.get_conversation("c")).message_count == MANY + 30

    asyncio.run(main())


async def bodies_of(provider, name):
    """The bodies of a conversation, as they are stored."""
    keys = provider.backend.keys.conversation(name)
    (bodies,) = await provider.backend.topology.run_all([command("LRANGE", keys[1], 0, -1)])
    return bodies


LARGE = {
    "append": lambda p: p.append_messages("c", batch(MANY, start=MANY)),
    "append to none": lambda p: p.append_messages("d", batch(MANY), create=True),
    "store": lambda p: p.store_messages("c", batch(MANY)),
    "delete messages": lambda p: p.delete_messages("c", [f"m{n}" for n in range(0, MANY, 7)]),
    "truncate": lambda p: p.truncate_conversation_after("c", "m1000"),
    "fork": lambda p: p.fork_conversation("c", "d"),
    "revise": lambda p: p.revise_messages("c", {one.message_id: one for one in batch(100, 9)}),
}


def renamed(server):
    """How often a key's name was changed."""
    told = server.command("INFO", "commandstats").decode().partition("cmdstat_rename:calls=")[2]
    return int(told.partition(",")[0] or 0)


@pytest.mark.parametrize("way", LARGE)
def test_what_was_laid_aside_is_taken(server7, prefix, way):
    """A large change takes what was laid aside for it, bodies and ids, and does not copy all of it in one script."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", batch(MANY, 1_000))
            before = renamed(server7)
            await LARGE[way](provider)
            assert renamed(server7) - before == 2

    asyncio.run(main())


def test_gaps_need_no_script(server7, prefix, monkeypatch):
    """A conversation of which single messages were deleted is read whole without a script, in which all others wait."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server7.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", batch(20))
            assert await provider.delete_messages("c", ["m3", "m4"]) == 2
            monkeypatch.setattr(provider.backend._reader, "_read_by_script", None)
            assert contents(await provider.get_conversation("c")) == [*range(3), *range(5, 20)]

    asyncio.run(main())


def test_long_pages(address):
    """A page of many messages is the same as by small ones: from the end, before a position, and beside writers."""

    async def main():
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            await provider.append_messages("c", batch(MANY), create=True)
            assert numbers(await provider.get_recent_messages("c", 1_000)) == list(range(MANY - 1_000, MANY))
            assert numbers(await provider.get_recent_messages("c", 10 * MANY)) == list(range(MANY))
            page = await provider.get_messages("c", before=1_500, limit=700)
            assert (numbers(page), page.before) == (list(range(800, 1_500)), 800)
            page = await provider.get_messages("c", before=300, limit=700)
            assert (numbers(page), page.before) == (list(range(300)), None)
            page = await provider.get_messages("c", limit=300, leading=500)
            assert [*numbers(page.leading), *numbers(page)] == [*range(500), *range(MANY - 300, MANY)]
            writers = [provider.append_messages("c", batch(1, start=MANY + number)) for number in range(50)]
            *_, read = await asyncio.gather(*writers, provider.get_recent_messages("c", 1_000))
            assert numbers(read) == list(range(numbers(read)[0], numbers(read)[0] + 1_000))
            with pytest.raises(MemoryNotFoundError):
                await provider.get_recent_messages("none", 1_000)

    asyncio.run(main())


def numbers(messages):
    """The numbers of messages."""
    return [int(message.content.rstrip("x")) for message in messages]


def test_a_known_length(address, monkeypatch):
    """A long conversation that was loaded before is loaded in one step, whatever has become of it meanwhile."""
    steps = []

    async def main():
        config = RedisConfig(**address)
        async with await create_redis_provider(config) as provider, await create_redis_provider(config) as other:
            await other.store_messages("c", batch(1_000, 300))
            topology = provider.backend.topology
            run_all = topology.run_all

            async def counted(commands, **how):
                steps.append(len(commands))
                return await run_all(commands, **how)

            monkeypatch.setattr(topology, "run_all", counted)

            async def load():
                steps.clear()
                conversation = await provider.get_conversation("c")
                return contents(conversation), len(steps)

            assert await load() == (list(range(1_000)), 2)
            assert await load() == (list(range(1_000)), 1)
            await other.append_messages("c", batch(10, start=1_000))
            assert await load() == (list(range(1_010)), 2)
            assert await load() == (list(range(1_010)), 1)
            await other.truncate_conversation_after("c", "m500")
            assert await load() == (list(range(500)), 1)
            await other.store_messages("c", batch(5))
            assert await load() == (list(range(5)), 1)
            await other.store_messages("c", batch(300, 20_000))
            found, taken = await load()
            assert (found, taken > 1) == (list(range(300)), True)

    asyncio.run(main())


def test_nothing_is_sent_for_what_is_missing(server, prefix):
    """A large append to a conversation that is not there is refused before its messages are sent."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            before = received(server)
            failure = await provider.append_messages("c", batch(500, 9_000))
            assert isinstance(failure.error, MemoryNotFoundError)
            assert received(server) - before < 100_000  # of 4,500,000
            assert server.command("KEYS", f"{prefix}*") == []

    asyncio.run(main())


def test_bulky_messages(server7, prefix):
    """Of messages of 200 KB no command reads more than 1 MiB, once it is known that they are so large."""

    async def reads(provider):
        """The most messages that one command reads, of each read."""
        most = []
        for read in (
            provider.get_recent_messages("c"),
            provider.get_conversation("c"),
            provider.get_messages("c", before=35),
            provider.get_messages("c", limit=10, leading=10),
        ):
            server7.command("SLOWLOG", "RESET")
            await read
            log = [entry[3] for entry in server7.command("SLOWLOG", "GET", 1_000)]
            most.append(max(int(words[3]) + 1 - int(words[2]) for words in log if words[0] == b"LRANGE"))
        return most

    async def main():
        config = RedisConfig(port=server7.port, key_prefix=prefix)
        async with await create_redis_provider(config) as provider, await create_redis_provider(config) as other:
            for number in range(40):
                await provider.append_messages("c", batch(1, 200_000, number), create=True)
            assert max(await reads(provider)) <= 5
            assert max((await reads(other))[1:]) <= 5  # the first tells it
            assert numbers(await other.get_recent_messages("c")) == list(range(40))
            assert contents(await provider.get_conversation("c")) == list(range(40))
            await provider.append_messages("c", batch(2_000, 0, 40))  # now they are few among many
            assert numbers(await provider.get_messages("c", before=60)) == list(range(10, 60))
            assert contents(await other.get_conversation("c")) == list(range(2_040))

    server7.command("CONFIG", "SET", "slowlog-log-slower-than", 0)
    server7.command("CONFIG", "SET", "slowlog-max-len", 1_000)
    try:
        asyncio.run(main())
    finally:
        server7.command("CONFIG", "SET", "slowlog-log-slower-than", 10_000)


def test_what_a_server_keeps_for_a_client(prefix):
    """A server that keeps 1 MB for a client lets messages of 600 KB be read; for a larger one it is named."""

    async def main(server):
        address = {"port": server.port, "key_prefix": prefix}
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            for number in range(6):
                await provider.append_messages("c", batch(1, 600_000, number), create=True, user_id="u")
            await provider.append_messages("c", batch(300, 0, 6))  # few that are large among many
            for number in range(30):
                await provider.store_messages(f"d{number}", [], {"text": "x" * 60_000}, user_id="v")
        async with await create_redis_provider(RedisConfig(**address)) as provider:
            assert numbers(await provider.get_recent_messages("c", 302)) == list(range(4, 306))
            assert contents(await provider.get_conversation("c")) == list(range(306))
            assert numbers(await provider.get_messages("c", before=6)) == list(range(6))
            (found,) = await provider.find_conversations(MemoryQuery(user_id="u"))
            assert contents(found) == list(range(306))
            assert len(await provider.find_conversations(MemoryQuery(user_id="v"))) == 30
            revised = {f"m{n}": Message("user", "other", message_id=f"m{n}") for n in (1, 3, 5)}
            assert await provider.revise_messages("c", revised) > 0
            await provider.append_messages("e", batch(1, 4_000_000), create=True)
        async with await create_redis_provider(RedisConfig(**address, operation_timeout=2.0)) as provider:
            with pytest.raises(MemoryConnectionError, match="client-output-buffer-limit"):
                await provider.get_recent_messages("e")
        async with await create_redis_provider(RedisConfig(**address, operation_timeout=2.0)) as provider:
            for _ in range(3):  # each reads more carefully than the one before
                with pytest.raises(MemoryConnectionError) as caught:
                    await provider.revise_messages("e", {"m0": Message("user", "other", message_id="m0")})
            assert "client-output-buffer-limit" in str(caught.value)

    with redis_servers.single({"client-output-buffer-limit": "normal 1mb 1mb 0"}) as server:
        asyncio.run(main(server))


class Cut(Line):
    """A line that is cut, `cuts` times, where messages are asked for.

    Attributes:
        cuts: how often still.
        asked: how often messages were asked for.
    """

    cuts = asked = 0

    async def _pass(self, reader, writer, *, up):
        """What is asked for, until it is cut; and what is answered."""
        if not up:
            return await super()._pass(reader, writer, up=up)
        while data := await reader.read(WAITING):
            self.asked += data.count(b"LRANGE")
            if self.cuts and b"LRANGE" in data:
                self.cuts -= 1
                break
            writer.write(data)
        writer.close()
        return None


def test_lines_that_are_cut(server7, prefix):
    """Of a cut line no limit is blamed where all is small, and nobody reads slowly for ever after it."""

    async def main():
        async with Cut(server7.port) as line:
            config = RedisConfig(port=line.port, key_prefix=prefix, operation_timeout=1.0)
            async with await create_redis_provider(config) as provider:
                await provider.append_messages("c", batch(3, 10), create=True)
                line.cuts = MANY
                for read in (provider.get_conversation, provider.get_recent_messages):
                    with pytest.raises(MemoryConnectionError) as caught:
                        await read("c")
                    assert "client-output-buffer-limit" not in str(caught.value)
                line.cuts = 0
        async with Cut(server7.port) as line:
            config = RedisConfig(port=line.port, key_prefix=prefix)
            async with await create_redis_provider(config) as provider:
                await provider.append_messages("d", batch(1_500, 200), create=True)
                for cuts in (0, 1, 0):
                    line.cuts, line.asked = cuts, 0
                    assert len((await provider.get_conversation("d")).messages) == 1_500
                    assert line.asked < 60

    asyncio.run(main())


def received(server):
    """Bytes that the server has read from its clients."""
    return int(server.command("INFO", "stats").split(b"total_net_input_bytes:")[1].split()[0])


def test_beside_others(server, prefix):
    """Large appends of many writers to one conversation all stay, each contiguous; nothing laid aside is left."""

    async def main():
        async with await create_redis_provider(RedisConfig(port=server.port, key_prefix=prefix)) as provider:
            await provider.store_messages("c", [])
            large = [batch(400, start=writer * 10_000) for writer in range(4)]
            small = [batch(1, start=100_000 + number) for number in range(60)]
            results = await asyncio.gather(*(provider.append_messages("c", some) for some in [*large, *small]))
            assert all(isinstance(result, Success) for result in results)
            found = contents(await provider.get_conversation("c"))
            assert len(found) == 4 * 400 + 60
            for some in large:
                first = found.index(int(some[0].content))
                assert found[first : first + 400] == list(range(found[first], found[first] + 400))
            await provider.delete_conversation("c")
            start = Keys(prefix).start("c").decode()
            assert [key for key in server.command("KEYS", "*") if key.decode().startswith(start)] == []

    asyncio.run(main())


@pytest.mark.parametrize("version", [7, 6], ids=["7.0", "6.2"])
def test_cut_without_memory(version):
    """On a server that is out of memory a large truncation still frees some."""

    async def main(server):
        async with await create_redis_provider(RedisConfig(port=server.port)) as provider:
            await provider.store_messages("c", batch(MANY))
            server.command("CONFIG", "SET", "maxmemory", "1")
            assert await provider.truncate_conversation_after("c", "m1000") == MANY - 1_000
            server.command("CONFIG", "SET", "maxmemory", "0")
            assert contents(await provider.get_conversation("c")) == list(range(1_000))

    with redis_servers.single(version=version) as server:
        asyncio.run(main(server))
