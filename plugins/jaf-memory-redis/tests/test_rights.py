"""Users with few rights (ACL), and replicas that cannot be waited for: nothing half done, and an outcome that is so."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from services import redis_servers

from jaf_memory_core import (
    ConversationMemory,
    Failure,
    MemoryConflictError,
    MemoryError,
    MemoryQuery,
    MemoryStorageError,
    Message,
    Success,
)

PAGE = (Path(__file__).parents[3] / "docs" / "providers.md").read_text(encoding="utf-8")


def documented(beginning):
    """The rights in the row of the documentation's table that begins so."""
    (row,) = [
        line for line in PAGE.partition("### Rights on Redis")[2].splitlines() if line.startswith(f"| {beginning}")
    ]
    return [right.replace("\\|", "|") for right in re.findall(r"\+[a-z_]+(?:\\\|[a-z]+)?", row)]


EVERY, CLUSTER = documented("every operation"), documented("a Cluster")
WAIT, HEALTH = documented("`JAF_REDIS_MIN_REPLICAS`"), documented("what `health_check`")

NEEDED_TO_WRITE = ("hset", "rpush", "zadd", "pexpireat", "unlink", "zrem", "hmget", "time", "type")


@pytest.fixture(params=[7, 6], ids=["7.0", "6.2"])
def server(request):
    """A server of its own, whose users a test may change."""
    with redis_servers.single(version=request.param) as server:
        yield server


def user(server, *rights):
    """Give the user exactly these rights, from now on."""
    server.command("ACL", "SETUSER", "app", "reset")
    server.command("ACL", "SETUSER", "app", "on", ">pw", "~jaf:memory:*", *rights)


def opened(server, **more):
    """A provider of that user."""
    login = {"port": server.port, "username": "app", "password": "pw", "operation_timeout": 5.0}
    return create_redis_provider(RedisConfig(**login, **more))


async def everything(provider):
    """Each operation that sends commands of its own, so that each right is needed for one of them."""
    first = Message("user", "a", message_id="a")
    assert isinstance(await provider.store_messages("c", [first], {"k": 1}, user_id="u"), Success)
    assert (await provider.append_messages("c", [first])).data.added == 0
    await provider.append_messages("c", [Message("user", str(n)) for n in range(300)])
    await provider.get_messages("c", before=7)
    await provider.update_metadata("c", {"k": 2})
    await provider.set_expiry("c", None)
    await provider.set_expiry("c", 50)
    await provider.fork_conversation("c", "d")
    found = await provider.get_conversation("c")
    last = found.messages[-1]
    await provider.revise_messages("c", {last.message_id: Message("user", "new", message_id=last.message_id)})
    await provider.fork_conversation("c", "e", until_message_id=found.messages[2].message_id)
    assert await provider.delete_messages("e", [found.messages[1].message_id]) == 1
    assert await provider.delete_messages("d", [one.message_id for one in found.messages[::100]]) > 0
    assert await provider.truncate_conversation_after("c", last.message_id) == 1
    assert await provider.truncate_conversation_after("c", found.messages[2].message_id) > 0
    await provider.import_conversation(found)
    assert len(await provider.find_conversations(MemoryQuery(user_id="u", metadata={"k": 2}))) == 3
    assert len(await provider.find_conversations(MemoryQuery(since=found.created_at))) == 3
    assert len([one async for one in provider.iter_conversations(MemoryQuery())]) == 3
    assert (await provider.get_stats("u"))["user_conversations"] == 3
    await provider.set_expiry("d", 0.001)
    await asyncio.sleep(0.05)
    assert await provider.purge_expired() == 1
    assert await provider.delete_conversation("e")
    assert await provider.clear_user_conversations("u") == 1
    async with provider:
        pass
    async for _ in type(provider.backend)(provider.config, provider.backend.topology, {}).adopt(remove=True):
        pass
    await provider.backend.topology.close()


def used(servers):
    """The commands that were used, as rights."""
    lines = [line for server in servers for line in server.command("INFO", "commandstats").decode().splitlines()]
    return {f"+{line.partition(':')[0].removeprefix('cmdstat_')}" for line in lines if line.startswith("cmdstat_")}


def test_documented_rights_are_enough(server):
    """A user with the documented rights and no others can do everything, and there is none that nothing needs."""

    async def main():
        user(server, *EVERY)
        server.command("SET", "jaf:memory:older", '{"conversation_id": "older", "messages": []}')
        provider = await opened(server, ttl=100.0, max_messages=250)
        health = await provider.health_check()
        assert health["healthy"]
        assert "+info" in " ".join(health["warnings"])
        server.command("CONFIG", "RESETSTAT")
        with pytest.raises(MemoryConflictError, match="adopt"):
            await provider.delete_conversation("older")
        await everything(provider)
        assert set(EVERY) - used([server]) <= {"+eval"}

    asyncio.run(main())


def test_documented_rights_behind_sentinel(calm_group, caplog):
    """The same with WAIT behind Sentinel, without ROLE, INFO, CONFIG and CLIENT: it works, with a warning."""
    master = calm_group.master()

    async def main():
        user(master, *EVERY, *WAIT)
        login = {"username": "app", "password": "pw", "operation_timeout": 5.0}
        hosts = tuple(calm_group.hosts.split(","))
        provider = await create_redis_provider(RedisConfig(sentinel_hosts=hosts, min_replicas=1, **login))
        assert "+role" in caplog.text
        assert "+info" in " ".join((await provider.health_check())["warnings"])
        await everything(provider)

    try:
        asyncio.run(main())
    finally:
        master.command("ACL", "DELUSER", "app")


def test_documented_rights_on_a_cluster(cluster):
    """The same on a Cluster, with its own row of rights; without that row the error names what is missing."""
    servers = cluster.servers

    async def main():
        login = {"username": "app", "password": "pw", "operation_timeout": 5.0}
        config = RedisConfig(host=cluster.hosts, cluster=True, ttl=100.0, **login)
        for server in servers:
            user(server, *EVERY, *(right for right in CLUSTER if right != "+cluster"))
            server.command("CONFIG", "RESETSTAT")
        provider = await create_redis_provider(config)
        health = await provider.health_check()
        assert health["healthy"]
        assert "+info" in " ".join(health["warnings"])
        await everything(provider)
        # A slot that moves while it is used is what ASKING is for.
        assert {right for right in CLUSTER if "|" not in right} - used(servers) <= {"+cluster", "+asking"}
        for server in servers:
            user(server, *EVERY)
        with pytest.raises(MemoryError, match="CLUSTER"):
            await create_redis_provider(config)

    try:
        asyncio.run(main())
    finally:
        for server in servers:
            server.command("ACL", "DELUSER", "app")


def test_what_health_may_ask(server):
    """With the rights for health there is no warning that anything could not be asked."""

    async def main():
        user(server, *EVERY, *(HEALTH if server.version == 7 else ("+info", "+config")))
        async with await opened(server) as provider:
            assert "grant" not in " ".join((await provider.health_check())["warnings"])

    asyncio.run(main())


@pytest.mark.parametrize("missing", ["evalsha", "eval", "hset", "zcard", "rename", "the keys"])
def test_health_tries_what_a_write_needs(server, missing):
    """Who may not run a script, or not what is in it, is told so by `health_check`, which leaves nothing behind."""

    async def main():
        user(server, "+@all")
        async with await opened(server) as provider:
            assert (await provider.health_check())["healthy"]
            server.command("ACL", "SETUSER", "app", *(("resetkeys",) if missing == "the keys" else (f"-{missing}",)))
            server.command("SCRIPT", "FLUSH")  # for who may run none that the server does not know yet
            health = await provider.health_check()
            assert not health["healthy"]
            assert ("keys" if missing == "the keys" else f"+{missing}") in health["error"]
            assert server.command("KEYS", "*") == []

    asyncio.run(main())


@pytest.mark.parametrize("missing", NEEDED_TO_WRITE)
def test_a_missing_right_is_named(server, missing):
    """Without one of the rights a write leaves nothing behind, and the error names the command, to be granted."""

    async def main():
        user(server, "+@all", f"-{missing}")
        async with await opened(server, ttl=100.0) as provider:
            failure = await provider.store_messages("c", [Message("user", "a", message_id="a")], user_id="u")
            assert isinstance(failure, Failure)
            assert f"+{missing}" in str(failure.error)
            assert failure.error.outcome == "not_applied"
            assert server.command("KEYS", "*") == []
            user(server, "+@all")
            assert isinstance(await provider.store_messages("c", [Message("user", "a")], user_id="u"), Success)
            assert (await provider.get_conversation("c")).message_count == 1
            assert await provider.clear_user_conversations("u") == 1
            assert server.command("KEYS", "*") == []

    asyncio.run(main())


@pytest.mark.parametrize("version", [7, 6], ids=["7.0", "6.2"])
@pytest.mark.parametrize("taken", ["UNLINK", "EVAL", "EVALSHA", "TYPE", "INFO", "CONFIG", "SCRIPT", "SCAN"])
def test_a_command_that_was_renamed(version, taken):
    """A command that the server's settings took away is named before anything is written, or it is not needed."""

    async def main(server):
        async with await create_redis_provider(RedisConfig(port=server.port, operation_timeout=5.0)) as provider:
            health = await provider.health_check()
            result = await provider.store_messages("c", [Message("user", "a")], user_id="u")
            if taken in {"INFO", "CONFIG", "SCRIPT", "SCAN"}:
                assert health["healthy"]
                assert isinstance(result, Success)
                assert await provider.delete_conversation("c")
                return
            assert not health["healthy"]
            for text in (health["error"], str(result.error)):
                assert f"no command {taken}," in text
            assert result.error.outcome == "not_applied"
            assert server.command("KEYS", "*") == []

    with redis_servers.single({f"rename-command {taken}": '""'}, version=version) as server:
        asyncio.run(main(server))


WRITES = {
    "append": lambda p: p.append_messages("c", [Message("user", "new")]),
    "store": lambda p: p.store_messages("c", [Message("user", "new")]),
    "amend": lambda p: p.update_metadata("c", {"k": 1}),
    "truncate": lambda p: p.truncate_conversation_after("c", "m1"),
    "delete": lambda p: p.delete_conversation("c"),
    "fork": lambda p: p.fork_conversation("c", "d"),
}


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("missing", ["hset", "rpush", "zadd", "zcard", "unlink", "zremrangebyscore", "pexpireat"])
def test_a_right_that_is_taken_away(way, missing):
    """A right that is withdrawn while the provider is open stops a write before it touches anything, or not at all."""
    redis_servers.require_seven()  # before it, a script cannot ask what is allowed, and the outcome is unknown

    async def main(server):
        user(server, "+@all")
        async with await opened(server, ttl=100.0) as provider:
            await provider.store_messages("c", [Message("user", str(n), message_id=f"m{n}") for n in range(3)])
            before = await provider.get_conversation("c")
            user(server, "+@all", f"-{missing}")
            try:
                result = await WRITES[way](provider)
                error = result.error if isinstance(result, Failure) else None
            except MemoryError as refused:
                error = refused
            user(server, "+@all")
            if error is not None:
                assert f"+{missing}" in str(error)
                assert error.outcome == "not_applied"
                assert await provider.get_conversation("c") == before
                assert await provider.get_conversation("d") is None

    with redis_servers.single() as server:
        asyncio.run(main(server))


def test_erasing_without_the_right_to_look(server):
    """Where a user may not SCAN, what jaf-py's own provider has of another user is not known: no answer of 0."""

    async def main():
        user(server, "+@all", "-scan")
        async with await opened(server) as provider:
            with pytest.raises(MemoryStorageError, match=r"\+scan"):
                await provider.clear_user_conversations("u")

    asyncio.run(main())


def test_waiting_without_the_right(server):
    """Where WAIT is needed and not allowed, a write is refused before it is one, and the error names WAIT."""

    async def main():
        user(server, "+@all", "-wait")
        async with await opened(server, min_replicas=1, min_replicas_timeout=0.1) as provider:
            failure = await provider.store_messages("c", [Message("user", "a")])
            assert "+wait" in str(failure.error)
            assert failure.error.outcome == "not_applied"
            assert server.command("KEYS", "*") == []
            with pytest.raises(MemoryStorageError, match="wait"):
                await provider.delete_conversation("c")

    asyncio.run(main())


def until_written(server, keys):
    """Wait until the server holds more keys."""
    while server.command("DBSIZE") == keys:
        time.sleep(0.01)


def test_demotion_while_waiting():
    """A master that is demoted while a write waits for replicas: the outcome is unknown, and no write is done twice."""

    async def main(server):
        async with await create_redis_provider(RedisConfig(port=server.port)) as provider:
            await provider.store_messages("other", [])  # the server knows the script from now on
        before = server.command("KEYS", "*")
        config = RedisConfig(port=server.port, min_replicas=1, min_replicas_timeout=5.0, operation_timeout=10.0)
        async with await create_redis_provider(config) as provider:
            work = asyncio.create_task(provider.store_messages("c", [Message("user", "a")], expected_version=0))
            await asyncio.to_thread(until_written, server, len(before))  # now it waits for replicas
            server.command("REPLICAOF", "127.0.0.1", "1")
            await asyncio.sleep(0.3)
            server.command("REPLICAOF", "NO", "ONE")
            with pytest.raises(MemoryError) as caught:
                await work
            assert caught.value.outcome == "unknown"
            assert not isinstance(caught.value, MemoryConflictError)
            assert (await provider.get_conversation("c")).version == 1

    with redis_servers.single() as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("missing", ["hset", "rpush", "zadd", "unlink"])
def test_adopting_names_a_missing_right(server, missing):
    """An adoption without one of the rights moves nothing, and names the command, to be granted."""

    async def steps():
        backend = (await opened(server)).backend
        try:
            return [step.outcome async for step in backend.adopt()]
        finally:
            await backend.close()

    older = {"conversation_id": "c", "user_id": "u", "messages": [{"role": "user", "content": "a"}], "metadata": {}}
    server.command("SET", "jaf:memory:c", json.dumps(older))
    user(server, "+@all", f"-{missing}")
    with pytest.raises(MemoryStorageError, match=rf"\+{missing}"):
        asyncio.run(steps())
    assert server.command("KEYS", "*") == [b"jaf:memory:c"]
    user(server, "+@all")
    assert asyncio.run(steps()) == ["note", "moved", "note"]


def test_erasing_without_the_right_to_see_what_was_adopted(server):
    """Who may not look whether a conversation was moved in erases nothing of it, rather than leave its older form."""

    async def main():
        user(server, "+@all")
        older = {"conversation_id": "c", "user_id": "u", "messages": [{"role": "user", "content": "a"}], "metadata": {}}
        server.command("SET", "jaf:memory:c", json.dumps(older))
        backend = (await opened(server)).backend
        assert [step.outcome async for step in backend.adopt()] == ["note", "moved", "note"]
        await backend.close()
        user(server, "+@all", "-hget")
        async with await opened(server) as provider:
            with pytest.raises(MemoryStorageError, match=r"\+hget") as caught:
                await provider.delete_conversation("c")
            assert caught.value.outcome == "not_applied"
            user(server, "+@all")
            assert await provider.delete_conversation("c")
            assert server.command("KEYS", "*") == []

    asyncio.run(main())


def test_an_erasure_of_many_that_is_stopped():
    """A right that is withdrawn in the middle of an erasure leaves its outcome unknown, and the rest for the next."""

    async def main(server):
        user(server, "+@all")
        async with await opened(server) as provider:
            await provider.import_conversations(
                [ConversationMemory(conversation_id=f"c{n}", user_id="u") for n in range(3)]
            )
            eraser, removed = provider.backend._eraser, provider.backend._eraser._removed
            one = asyncio.Lock()  # otherwise all of them travel together

            async def withdrawn(conversation_id, **options):
                async with one:
                    alive = await removed(conversation_id, **options)
                    user(server, "+@all", "-unlink")
                    return alive

            eraser._removed = withdrawn
            with pytest.raises(MemoryStorageError, match=r"\+unlink") as caught:
                await provider.clear_user_conversations("u")
            assert caught.value.outcome == "unknown"
            del eraser._removed
            user(server, "+@all")
            left = (await provider.get_stats("u"))["user_conversations"]
            assert 0 < left < 3
            assert await provider.clear_user_conversations("u") == left

    with redis_servers.single() as server:
        asyncio.run(main(server))


def test_housekeeping_that_fails(server):
    """A write that may be done is done, also where it may not look for what has expired on its way."""

    async def main():
        user(server, "+@all", "-zrangebyscore")
        async with await opened(server) as provider:
            assert isinstance(await provider.store_messages("c", [Message("user", "a")]), Success)
            with pytest.raises(MemoryStorageError, match=r"\+zrangebyscore"):
                await provider.purge_expired()

    asyncio.run(main())
