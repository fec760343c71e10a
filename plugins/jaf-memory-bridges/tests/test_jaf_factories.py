"""Code on jaf-py moves by changing its imports: every name of `jaf.memory`, in its own shape."""

import asyncio
import logging
from dataclasses import asdict
from inspect import signature
from types import SimpleNamespace

import jaf.memory as theirs
import jaf_memory_bridges.jaf as ours
import pytest
from jaf_memory_bridges.jaf import Failure, MemoryConfig, Message, Success, create_memory_provider_from_env

import jaf_memory_core as core

OURS = {"MemoryConfig", *(name for name in theirs.__all__ if name.startswith("create_"))}


def test_every_name_is_there():
    """Each public name of `jaf.memory` is one of the bridge: the very same, or with every parameter of jaf-py's."""
    assert set(theirs.__all__) <= set(ours.__all__)
    for name in theirs.__all__:
        if name not in OURS:
            assert getattr(ours, name) is getattr(theirs, name)
        else:
            taken = list(signature(getattr(ours, name)).parameters)
            wanted = list(signature(getattr(theirs, name)).parameters)
            assert taken[: len(wanted)] == wanted


def test_a_provider_is_its_own_success(environ, engine):
    """What the factory answers is jaf-py's `Success` around the provider, and the provider."""

    async def use():
        result = await create_memory_provider_from_env(environ=environ, user_id="u")
        assert isinstance(result, Success)
        assert not isinstance(result, Failure)
        assert not hasattr(result, "error")
        match result:
            case Success(data=provider):
                assert provider is result
        assert MemoryConfig(provider=result).provider == result.data
        assert asdict(result) == {}
        await engine.run(engine.config(result.data, engine.Script("one")), "a")
        assert len((await result.data.get_conversation("c")).data.messages) == 2
        await result.data.close()

    asyncio.run(use())


@pytest.mark.parametrize(
    "environ",
    [
        {"JAF_MEMORY_TYPE": "nothing"},
        {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_URL": "redis://127.0.0.1:1/0", "JAF_REDIS_RECONNECT_TIMEOUT": "0.1"},
        {"JAF_MEMORY_TYPE": "memory", "JAF_MEMORY_MAX_MESSAGES": "many"},
    ],
    ids=["unknown", "unreachable", "wrong"],
)
def test_what_cannot_be_made_is_a_failure(environ, caplog):
    """A provider that cannot be made is a `Failure`, a warning, and an error where a provider is needed."""

    async def use():
        with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
            result = await create_memory_provider_from_env(environ=environ)
        assert isinstance(result, Failure)
        assert isinstance(result.error, ours.MemoryConnectionError)
        assert "no memory provider was made" in caplog.text
        with pytest.raises(core.MemoryError) as caught:
            MemoryConfig(provider=result)
        assert caught.value is result.error.cause

    asyncio.run(use())


def test_no_clients_are_no_environment(monkeypatch, tmp_path):
    """An empty mapping of clients, or clients that the provider does not need, leave the environment what it is."""
    monkeypatch.setenv("JAF_MEMORY_TYPE", "sqlite")
    monkeypatch.setenv("JAF_SQLITE_PATH", str(tmp_path / "c.db"))

    async def use():
        for clients in ({}, None, {"redis": object()}):
            memory = await create_memory_provider_from_env(clients)
            assert (await memory.health_check()).data["provider"] == "sqlite"
            await memory.close()
        assert isinstance(await create_memory_provider_from_env(["client"]), Failure)

    asyncio.run(use())
    assert (tmp_path / "c.db").exists()


def test_an_environment_by_its_position(environ):
    """A mapping of texts to texts is an environment, where clients could stand, too."""

    async def use():
        memory = await create_memory_provider_from_env(environ)
        assert (await memory.health_check()).data["provider"] == environ["JAF_MEMORY_TYPE"]
        await memory.close()

    asyncio.run(use())


def test_a_redis_client_is_used(redis_server, redis_settings):
    """A client that is handed over is the way to the server, and stays open."""
    import redis.asyncio as redis

    async def use():
        client = redis.Redis(host="127.0.0.1", port=redis_server.port)
        elsewhere = {"JAF_REDIS_KEY_PREFIX": redis_settings["JAF_REDIS_KEY_PREFIX"], "JAF_REDIS_PORT": "1"}
        memory = await create_memory_provider_from_env(
            {"redis": client}, environ={"JAF_MEMORY_TYPE": "redis", **elsewhere}, user_id="u"
        )
        assert isinstance(memory, Success), memory
        await memory.store_messages("c", [Message(role="user", content="hi")])
        await memory.close()
        assert await client.ping()
        assert [key async for key in client.scan_iter(f"{redis_settings['JAF_REDIS_KEY_PREFIX']}*")]
        await client.aclose()
        assert isinstance(
            await create_memory_provider_from_env({"redis": 1}, environ={"JAF_MEMORY_TYPE": "redis"}), Failure
        )

    asyncio.run(use())


def test_a_postgres_pool_is_used(postgres_server):
    """The same with a pool of the application's."""
    import asyncpg

    async def use():
        pool = await asyncpg.create_pool(postgres_server.url(), min_size=1, max_size=2)
        environ = {"JAF_MEMORY_TYPE": "postgres", "JAF_POSTGRES_PORT": "1", "JAF_POSTGRES_TABLE_NAME": "handed"}
        memory = await create_memory_provider_from_env({"postgres": pool}, environ=environ)
        assert isinstance(memory, Success), memory
        await memory.store_messages("c", [Message(role="user", content="hi")])
        await memory.close()
        assert await pool.fetchval("SELECT count(*) FROM handed") == 1
        await pool.close()

    asyncio.run(use())


def test_jafs_own_configurations(redis_server, postgres_server, redis_settings):
    """jaf-py's configurations, `type` and all, make providers of ours; what they hold stays readable."""

    async def use():
        config = ours.InMemoryConfig(type="memory", max_conversations=2, max_messages_per_conversation=3)
        assert config.max_messages_per_conversation == 3
        memory = ours.create_in_memory_provider(config)
        said = [Message(role="user", content=str(number)) for number in range(5)]
        await memory.store_messages("c", said)
        assert [one.content for one in (await memory.get_conversation("c")).data.messages] == ["2", "3", "4"]
        assert isinstance(ours.InMemoryProvider(), ours.JafProvider)
        prefix = redis_settings["JAF_REDIS_KEY_PREFIX"]
        redis = ours.RedisConfig(type="redis", host="127.0.0.1", port=redis_server.port, key_prefix=prefix, ttl=60)
        postgres = ours.PostgresConfig(
            type="postgres", connection_string=postgres_server.url(), table_name="own", max_connections=2
        )
        for made in (await ours.create_redis_provider(redis), await ours.create_postgres_provider(postgres)):
            assert isinstance(made, Success), made
            await made.data.store_messages("c", said)
            assert len((await made.data.get_conversation("c")).data.messages) == 5
            await made.data.close()
        for wrong in ({"host": "x"}, postgres):
            assert isinstance(await ours.create_redis_provider(wrong), Failure)
        with pytest.raises(core.MemoryConfigurationError, match="takes a InMemoryConfig"):
            ours.create_in_memory_provider(redis)

    asyncio.run(use())


class Hidden(core.Processor):
    """Writes text in capitals, and back."""

    def outgoing(self, message, _context):
        """Not as it was said."""
        return core.Message(message.role, message.content.upper(), message_id=message.message_id)


def test_processors_and_observers_in_code(redis_server, redis_settings):
    """Each factory takes them, and what is none of them is its own kind of refusal."""
    import redis.asyncio as redis

    async def use():
        client = redis.Redis(host="127.0.0.1", port=redis_server.port)
        prefix = redis_settings["JAF_REDIS_KEY_PREFIX"]
        of_redis = {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_KEY_PREFIX": prefix}
        config = ours.RedisConfig(host="127.0.0.1", port=redis_server.port, key_prefix=prefix)
        seen = []
        both = {"processors": [Hidden()], "observers": [seen.append]}
        made = [
            await create_memory_provider_from_env(environ={"JAF_MEMORY_TYPE": "memory"}, **both),
            await create_memory_provider_from_env({"redis": client}, environ=of_redis, **both),
            ours.create_in_memory_provider(**both),
            await ours.create_redis_provider(config, **both),
        ]
        for number, memory in enumerate(made):
            assert isinstance(memory, Success), memory
            await memory.store_messages(f"c{number}", [Message(role="user", content="said")])
            assert (await memory.get_conversation(f"c{number}")).data.messages[0].content == "SAID"
            assert {event.operation for event in seen} >= {"append_messages", "get_conversation"}
            seen.clear()
            await memory.close()
        wrong = await create_memory_provider_from_env({"redis": client}, environ=of_redis, processors=[5])
        assert "processors must hold processors" in wrong.error.message
        assert "observers must be a list" in (await ours.create_redis_provider(config, observers=5)).error.message
        await client.aclose()

    asyncio.run(use())


def test_a_third_party_takes_no_client(monkeypatch):
    """A client for a provider that takes none is refused."""
    from jaf_memory_bridges.jaf import factory

    monkeypatch.setattr(factory.registry, "load", lambda _name: SimpleNamespace(config=core.InMemoryConfig))
    answer = asyncio.run(create_memory_provider_from_env({"memory": object()}, environ={"JAF_MEMORY_TYPE": "memory"}))
    assert "takes no client" in answer.error.message


class Weird:
    """Its `repr` fails."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "wrong", [None, 5, "x", {}, [], Weird(), [Weird()], core.SyncMemoryProvider, object()], ids=type
)
def test_wrong_use_gets_a_sentence(wrong):
    """Whatever is given for a provider or a number, the answer is an error of ours."""
    for make in (ours.JafProvider, ours.jaf_provider, lambda value: MemoryConfig(provider=value)):
        with pytest.raises(core.MemoryInvalidInputError, match="a jaf-memory provider is needed"):
            make(wrong)
    memory = ours.create_in_memory_provider()
    if wrong is not None and wrong != 5:
        for name in ("max_messages", "ttl", "compression_threshold"):
            with pytest.raises(core.MemoryInvalidInputError, match=f"{name} is a number"):
                MemoryConfig(provider=memory, **{name: wrong})


def test_a_provider_for_scripts_is_refused():
    """Nobody could await its answers; that is told before anything is written."""
    refused = pytest.raises(core.MemoryInvalidInputError, match="an async provider is needed")
    with core.SyncMemoryProvider(core.create_in_memory_provider()) as door, refused:
        ours.jaf_provider(door)
