"""Long and real conversations through JAF's engine."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from chat_rules import problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaf_memory_bridges.jaf import MemoryConfig, create_memory_provider_from_env, jaf_provider
from jaf_memory_bridges.jaf.messages import is_halted, to_core, to_jaf
from jaf_memory_testing.samples import talk
from sample_conversations import WITHOUT_REAL, real_conversations, sample_conversations
from services.stores import CountingBackend

from jaf_memory_core import BackendProvider, InMemoryConfig, Message, create_in_memory_provider


def as_jaf_holds_them(conversations):
    """Yield conversations as JAF's `Message` can hold them: without a tool's `name`, with texts for content."""
    for given_one in conversations:
        messages = []
        for place, fields in enumerate(given_one["messages"]):
            kept = {name: value for name, value in fields.items() if name != "name"}
            if isinstance(kept["content"], list):
                kept["content"] = kept["content"][0]["text"]
            messages.append(Message(**kept, message_id=f"{given_one['conversation_id']}:{place}"))
        yield given_one["conversation_id"], given_one["user_id"], messages


def turns_of(messages):
    """Turns that end where the assistant has the last word."""
    turn = []
    for message in messages:
        turn.append(message)
        if message.role == "assistant" and not message.tool_calls:
            yield turn
            turn = []
    if turn:
        yield turn


def content_of(message):
    """What a message says, by role; an answer of the engine's model has an id of its own."""
    fields = message.dict()
    fields.pop("message_id")
    return fields


@pytest.mark.parametrize("source", [sample_conversations, real_conversations])
def test_conversations_turn_by_turn(engine, source):
    """100 conversations, each turn a run with a view of 10: every view valid, the store equal to the input."""
    conversations = source()
    if not conversations:
        pytest.skip(WITHOUT_REAL)

    async def use():
        store = create_in_memory_provider(InMemoryConfig(max_messages=None))
        runs = 0
        for conversation_id, user_id, messages in as_jaf_holds_them(conversations):
            memory = jaf_provider(store, user_id)
            for turn in turns_of(messages):
                *said, last = map(to_jaf, turn)
                if turn[-1].role != "assistant":  # the data ends in the middle of a turn
                    answer = await memory.append_messages(conversation_id, [*said, last])
                    assert hasattr(answer, "data")
                    continue
                script = engine.Script(last.content)
                config = engine.config(
                    MemoryConfig(provider=memory, max_messages=10), script, conversation_id=conversation_id
                )
                await engine.run(config, *said)
                runs += 1
                assert problem(script.views[0]) is None
                assert len(script.views[0]) <= 10 + len(said)
            kept = await store.get_conversation(conversation_id)
            assert list(map(content_of, kept.messages)) == list(map(content_of, messages))
            assert kept.user_id == user_id
        assert runs > 500

    asyncio.run(use())


async def two_turns_after(count, environ, engine, look):
    """Store so many messages, look, run two turns of JAF's engine (one with a limited view), and look again."""
    memory = await create_memory_provider_from_env(environ, user_id="u")
    await memory.provider.store_messages("c", talk(count), user_id="u")
    before = await look()
    for limit in (20, None):
        await engine.run(engine.config(MemoryConfig(memory, max_messages=limit), engine.Script("answer")), "question")
    after = await look()
    assert (await memory.provider.get_stats())["total_messages"] == count + 4
    await memory.close()
    return before, after


def test_ten_thousand_messages_in_sqlite(tmp_path, engine):
    """In a history of 10,000 messages two turns write four rows, and touch no other: counted by triggers."""
    pytest.importorskip("jaf_memory_sqlite")
    path = tmp_path / "conversations.db"

    async def look():
        with closing(sqlite3.connect(path)) as connection, connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if "touched" in names:
                return dict(connection.execute("SELECT kind, count(*) FROM touched GROUP BY kind"))
            (table,) = (name for name in names if "message" in name)
            connection.execute("CREATE TABLE touched (kind TEXT)")
            for kind in ("INSERT", "UPDATE", "DELETE"):
                count = f"INSERT INTO touched VALUES ('{kind}')"
                connection.execute(f"CREATE TRIGGER count_{kind} AFTER {kind} ON {table} BEGIN {count}; END")
            return {}

    environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(path)}
    _, after = asyncio.run(two_turns_after(10_000, environ, engine, look))
    assert after == {"INSERT": 4}


def test_ten_thousand_messages_in_postgres(request, engine):
    """In a history of 10,000 messages two turns write four rows, and touch no other: counted by row versions."""
    asyncpg = pytest.importorskip("asyncpg")
    settings = request.getfixturevalue("postgres_settings")

    async def look():
        connection = await asyncpg.connect(settings["JAF_POSTGRES_CONNECTION_STRING"])
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'body' AND table_name LIKE $1",
            f"%{settings['JAF_POSTGRES_TABLE_NAME']}%",
        )
        rows = await connection.fetch(f"SELECT position, xmin::text, ctid::text FROM {tables[0][0]}")
        await connection.close()
        return {tuple(row) for row in rows}

    environ = {"JAF_MEMORY_TYPE": "postgres", **settings}
    before, after = asyncio.run(two_turns_after(10_000, environ, engine, look))
    assert before < after
    assert len(after - before) == 4


def test_ten_thousand_messages_in_redis(request, engine):
    """In a history of 10,000 messages two turns change no more than in one of 100: counted by the server itself."""
    redis = pytest.importorskip("redis")
    server = request.getfixturevalue("redis_server")

    async def look():
        client = redis.Redis(port=server.port)
        try:
            return client.info("persistence")["rdb_changes_since_last_save"]
        finally:
            client.close()

    changes = []
    for count in (100, 10_000):
        settings = {"JAF_REDIS_URL": f"redis://127.0.0.1:{server.port}/0", "JAF_REDIS_KEY_PREFIX": f"n{count}:"}
        before, after = asyncio.run(two_turns_after(count, {"JAF_MEMORY_TYPE": "redis", **settings}, engine, look))
        changes.append(after - before)
    assert changes[0] == changes[1] < 100


# ---- every list that the engine may be given -----------------------------------------------------------------


def said(role, **fields):
    """A message of ours."""
    return Message(role=role, content=fields.pop("content", "…"), **fields)


def answered(ids):
    """A call and its results."""
    functions = [{"id": one, "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return [said("assistant", tool_calls=functions), *(said("tool", tool_call_id=one) for one in ids)]


HALTED = '{"hitl_status": "pending_approval"}'
PIECES = st.lists(
    st.one_of(
        st.sampled_from(["user", "assistant", "system"]).map(lambda role: [said(role)]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(answered),
        st.sampled_from("abc").map(lambda one: answered(one)[:1]),
        st.sampled_from("abc").map(lambda one: [*answered(one)[:1], said("tool", content=HALTED, tool_call_id=one)]),
        st.sampled_from("abc").map(lambda one: [said("tool", tool_call_id=one)]),
        st.sampled_from(["[1]", "7.5", "null", '"x"']).map(
            lambda text: [*answered("a")[:1], said("tool", content=text, tool_call_id="a")]
        ),
    ),
    max_size=10,
).map(lambda pieces: [message for piece in pieces for message in piece])
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def loaded(memory, max_messages, engine, threshold=None):
    """What JAF's engine loads of a conversation."""
    from jaf.memory.types import MemoryConfig as JafMemoryConfig

    config = JafMemoryConfig(provider=memory, max_messages=max_messages, compression_threshold=threshold)
    return (await engine.load(config)).messages


@EXAMPLES
@given(PIECES, st.none() | st.integers(1, 15))
def test_every_load_is_valid(engine, messages, limit):
    """Whatever is stored and however JAF's own configuration cuts it, what the engine loads is valid."""

    async def use():
        store = create_in_memory_provider()
        await store.store_messages("c", messages)
        view = await loaded(jaf_provider(store), limit, engine)
        assert problem(view) is None
        systems = sum(message.role == "system" for message in messages)
        # A limit that is the number of messages is what the engine says for no limit; results that a view fills in
        # for calls without any come on top of that.
        assert limit in (None, len(messages)) or len(view) <= max(limit, systems)

    asyncio.run(use())


LONG_PIECES = st.lists(PIECES.filter(bool), min_size=3, max_size=12).map(
    lambda pieces: [message for piece in pieces for message in piece]
)


@settings(EXAMPLES, max_examples=60)
@given(LONG_PIECES, st.integers(1, 12), st.none() | st.integers(5, 15))
def test_a_load_of_a_part_is_a_load_of_all(engine, messages, limit, threshold):
    """What the engine loads by the bridge's configuration is the view of the whole conversation."""
    messages = [one for place, one in enumerate(messages) if one.role != "system" or place < 2]

    async def use():
        store = create_in_memory_provider()
        await store.store_messages("c", messages)
        config = MemoryConfig(provider=jaf_provider(store), max_messages=limit, compression_threshold=threshold)
        view = (await engine.load(config)).messages
        assert problem(view) is None
        whole = (await config.provider.get_conversation("c")).data.messages
        assert len(whole) == len(messages)
        assert texts(view) == texts(one for one in whole[-limit:] if not is_halted(one))

    asyncio.run(use())


def texts(messages):
    """What they say; a marker counts what it leaves out, halted notes too."""
    return [(str(one.role), "left out" if "not shown" in str(one.content) else one.content) for one in messages]


@pytest.mark.parametrize("limits", [{"max_messages": 20}, {"compression_threshold": 20}], ids=" ".join)
def test_a_run_reads_what_it_shows(engine, limits):
    """A run in a history of 20,000 messages reads some dozens; whoever else asks gets the whole of it."""

    async def use():
        reads = []
        for length in (200, 20_000):
            backend = CountingBackend()
            store = BackendProvider(backend, InMemoryConfig(max_messages=None))
            for start in range(0, length, 5_000):
                part = talk(min(5_000, length), start=start)
                await store.append_messages("c", part, create=True, user_id="u")
            backend.read_messages = 0
            script = engine.Script("answer")
            config = MemoryConfig(provider=jaf_provider(store, "u"), **limits)
            await engine.run(engine.config(config, script), "question")
            reads.append(backend.read_messages)
            assert 19 <= len(script.views[0]) <= 21
            found = (await config.provider.get_conversation("c")).data
            assert (len(found.messages), found.metadata["total_messages"]) == (length + 2, length + 2)
        assert reads[0] == reads[1] < 100

    asyncio.run(use())


@EXAMPLES
@given(PIECES, st.data())
def test_any_list_becomes_an_append(messages, data):
    """However the engine's list is cut, filtered, doubled and stored again, what is new is added once, in order."""

    async def use():
        store = create_in_memory_provider()
        await store.store_messages("c", messages)
        memory = jaf_provider(store)
        expected = list(messages)
        for _ in range(data.draw(st.integers(1, 3))):
            found = list((await memory.get_conversation("c")).data.messages)
            kept = [one for one in found if data.draw(st.booleans())]
            new = [said(role) for role in data.draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=3))]
            given_list = [*kept, *map(to_jaf, new)]
            given_list += data.draw(st.lists(st.sampled_from(given_list), max_size=2)) if given_list else []
            for _again in range(data.draw(st.integers(1, 2))):
                assert hasattr(await memory.store_messages("c", given_list, {}), "data")
            expected += new
            assert list((await store.get_conversation("c")).messages) == expected

    asyncio.run(use())


def test_jafs_own_trimming_is_refused(engine):
    """The checker refuses what the engine loads from jaf-py's own provider, cut by count or compressed."""
    from jaf.memory.providers.in_memory import create_in_memory_provider as jafs_own

    async def use():
        history = [said("user"), *answered("ab"), said("assistant"), said("user"), *answered("c"), said("assistant")]
        own = jafs_own()
        await own.store_messages("c", list(map(to_jaf, history)))
        refused = [problem(await loaded(own, limit, engine)) is not None for limit in range(1, len(history) + 1)]
        assert sum(refused) == 3
        ours = create_in_memory_provider()
        await ours.store_messages("c", history)
        for limit in range(1, len(history) + 1):
            assert problem(await loaded(jaf_provider(ours), limit, engine)) is None
        # Compressed as `_store_conversation_history` does, with a threshold of 5.
        assert problem([*history[:1], *history[-4:]]) is None
        assert problem([*history[:2], *history[-3:]]) is not None

    asyncio.run(use())


def test_a_compression_threshold_keeps_everything_stored(engine):
    """Above the threshold the engine loads the first fifth and the newest with a marker, which is never stored."""

    async def use():
        store = create_in_memory_provider()
        config = MemoryConfig(provider=jaf_provider(store, "u"), compression_threshold=10)
        script = engine.Script("answer")
        for turn in range(20):
            await engine.run(engine.config(config, script), f"question {turn}")
        view = script.views[-1]
        assert len(view) == 10
        assert view[0].content == "question 0"
        assert "not shown" in view[2].content
        messages = (await store.get_conversation("c")).messages
        assert len(messages) == 40
        assert not any("not shown" in message.content for message in messages)

    asyncio.run(use())


def test_a_ttl_is_kept(engine):
    """The configuration's ttl is the conversation's from its first run on."""

    async def use():
        store = create_in_memory_provider()
        config = MemoryConfig(provider=jaf_provider(store, "u"), ttl=100)
        await engine.run(engine.config(config, engine.Script("answer")), "a")
        first = await store.get_conversation("c")
        assert (first.ttl, first.version) == (100, 1)
        await engine.run(engine.config(config, engine.Script("answer")), "b")
        second = await store.get_conversation("c")
        assert second.expires_at > first.expires_at
        assert second.version == 2
        other = MemoryConfig(provider=store, ttl=50)
        await engine.run(engine.config(other, engine.Script("answer")), "c")
        assert (await store.get_conversation("c")).ttl == 50

    asyncio.run(use())


def test_what_the_engine_stumbles_over(engine):
    """A tool's result that is JSON and no object, as other engines store it, does not end the conversation."""

    async def use():
        store = create_in_memory_provider()
        history = [
            said("user"),
            *answered("a")[:1],
            said("tool", content="[1, 2]", tool_call_id="a"),
            said("assistant"),
        ]
        await store.store_messages("c", history, user_id="u")
        script = engine.Script("answer")
        await engine.run(engine.config(jaf_provider(store, "u"), script), "go on")
        assert script.views[0][2].content[0].text == "[1, 2]"
        messages = (await store.get_conversation("c")).messages
        assert list(messages[:4]) == history
        assert len(messages) == 6
        assert to_core(to_jaf(history[2])) == history[2]

    asyncio.run(use())
