"""Nothing is lost, whatever the engine cuts and its callbacks rebuild; what they edit is edited, and nothing else."""

import asyncio
import copy
import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaf.core.types import Message as JafMessage
from jaf.core.types import ToolCallFunction
from jaf.memory.types import MemoryConfig as JafMemoryConfig
from jaf_memory_bridges.jaf import MemoryConfig, create_memory_provider_from_env, jaf_provider
from jaf_memory_bridges.jaf.messages import merged, to_core, to_jaf

from jaf_memory_core import MemoryInvalidInputError, Message, create_in_memory_provider

RICH = {
    "name": {"role": "user", "content": "hi", "name": "bob"},
    "further field": {"role": "user", "content": "hi", "sentiment": 0.5},
    "audio": {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]},
    "part": {"role": "user", "content": [{"type": "text", "text": "hi", "cache": True}]},
    "attachment": {"role": "user", "content": "hi", "attachments": [{"kind": "image", "url": "u:x", "caption": "c"}]},
    "odd attachment": {"role": "user", "content": "hi", "attachments": [{"kind": "image", "id": "f"}]},
    "call": {"role": "assistant", "content": "", "tool_calls": [
        {"id": "k", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}]},
    "arguments": {"role": "assistant", "content": None, "tool_calls": [
        {"id": "k", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}}]},
    "plain": {"role": "user", "content": "hi"},
}  # fmt: skip

REBUILDS = {
    "replace": lambda messages: [replace(one) for one in messages],
    "deepcopy": copy.deepcopy,
    "constructor": lambda messages: [
        JafMessage(
            role=one.role,
            content=one.content,
            attachments=one.attachments,
            tool_calls=one.tool_calls,
            tool_call_id=one.tool_call_id,
            message_id=one.message_id,
        )
        for one in messages
    ],
    "some": lambda messages: [replace(one) if place % 2 else one for place, one in enumerate(messages)],
}

CALLBACKS = {
    "before_memory_store": lambda rebuild: {"before_memory_store": lambda messages, _state: rebuild(messages)},
    "before_llm_call": lambda rebuild: {
        "before_llm_call": lambda state, _agent: replace(state, messages=rebuild(state.messages))
    },
}


@pytest.mark.parametrize("how", REBUILDS)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_rebuilt_message_is_no_edit(environ, engine, callback, how):
    """A callback that rebuilds what was loaded changes nothing of it, and the turn is stored."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        for name, fields in RICH.items():
            held = [Message(**fields)]
            if held[0].tool_calls:
                held.append(Message(role="tool", content="[1, 2]", tool_call_id="k"))
            held.append(Message(role="assistant", content="hello"))
            await memory.provider.store_messages(name, held)
            script = engine.Script("answer")
            config = engine.config(memory, script, conversation_id=name, **CALLBACKS[callback](REBUILDS[how]))
            for question in ("first", "second"):
                await engine.run(config, question)
            found = (await memory.provider.get_conversation(name)).messages
            assert list(found[: len(held)]) == held, name
            assert [one.content for one in found[len(held) :]] == ["first", "answer", "second", "answer"], name
        await memory.close()

    asyncio.run(use())


def test_an_edit_changes_what_it_changes(environ, engine):
    """A redactor's edit of a loaded message is kept, and with it all that the engine's copy did not hold."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        text = {"type": "text", "text": "PIN 4711", "cache": True}
        audio = {"type": "input_audio", "input_audio": {"data": "AAAA"}}
        held = Message(role="user", content=[text, audio], name="bob", mood="good")
        await memory.provider.store_messages("c", [held, Message(role="assistant", content="noted 4711", extra=1)])

        def redact(messages, _state):
            def clean(value):
                if isinstance(value, str):
                    return value.replace("4711", "****")
                return [replace(part, text=part.text and clean(part.text)) for part in value]

            return [replace(one, content=clean(one.content)) for one in messages]

        await engine.run(engine.config(memory, engine.Script("4711!"), before_memory_store=redact), "what is it?")
        found = (await memory.provider.get_conversation("c")).messages
        expected = Message(**{**held.dict(), "content": [{**text, "text": "PIN ****"}, audio]})
        assert found[0] == expected
        assert (found[1].content, found[1].further["extra"]) == ("noted ****", 1)
        assert [one.content for one in found[2:]] == ["what is it?", "****!"]
        await memory.close()

    asyncio.run(use())


def test_an_edit_in_place_is_seen(engine):
    """A callback that writes into a loaded message's parts, or takes out one of its calls, has edited it."""

    async def use():
        store = create_in_memory_provider()
        parts = [{"type": "image_url", "image_url": {"url": "u:secret"}}, {"type": "text", "text": "see"}]
        await store.store_messages("c", [Message(role="user", content=parts)], user_id="u")

        def redact(messages, _state):
            messages[0].content[0].image_url["url"] = "u:gone"
            return messages

        config = engine.config(jaf_provider(store, "u"), engine.Script("answer"), before_memory_store=redact)
        await engine.run(config, "next")
        found = (await store.get_conversation("c")).messages
        assert found[0].content[0].image_url == {"url": "u:gone"}
        assert len(found) == 3

    asyncio.run(use())


def test_what_was_removed_does_not_come_back_rebuilt(environ, engine):
    """A conversation that was erased during the run stays erased, though a callback has rebuilt all its messages."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await engine.run(engine.config(memory, engine.Script("one")), "a")

        async def erase(*_arguments):
            await memory.owned.clear_user_conversations("u")
            return {"message": {"content": "two"}}

        script = SimpleNamespace(get_completion=erase)
        for rebuild in REBUILDS.values():
            config = engine.config(memory, script, **CALLBACKS["before_memory_store"](rebuild))
            await engine.run(engine.config(memory, engine.Script("one")), "a")
            await engine.run(config, "b")
            assert await memory.provider.get_conversation("c") is None
        await memory.close()

    asyncio.run(use())


MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant", "system", "developer"]),
    content=st.none() | st.text(max_size=5) | st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "input_audio", "refusal"])}, optional={
            "text": st.text(max_size=3), "input_audio": st.just({"data": "A"}), "cache": st.booleans()}), max_size=2),
    tool_calls=st.none() | st.lists(st.fixed_dictionaries({}, optional={
        "id": st.text(max_size=2), "index": st.integers(0, 2), "function": st.fixed_dictionaries(
            {"name": st.text(max_size=2)}, optional={
                "arguments": st.none() | st.text(max_size=2) | st.just({"a": 1}), "x": st.booleans()})}), max_size=2),
    attachments=st.none() | st.lists(st.fixed_dictionaries({"kind": st.just("file")}, optional={
        "url": st.just("u"), "data": st.just("d"), "id": st.just("i"), "caption": st.text(max_size=2)}), max_size=2),
    name=st.none() | st.just("bob"),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(MESSAGES)
def test_every_message_has_a_copy_that_is_no_edit(held):
    """Whatever message is stored, the engine can be given a copy of it, and that copy is no edit, rebuilt or not."""
    assert merged(held, to_core(to_jaf(held))) is held
    assert merged(held, to_core(replace(to_jaf(held)))) is held
    edited = merged(held, to_core(replace(to_jaf(held), content="new")))
    assert edited == Message(**{**held.dict(), "content": "new"})


@pytest.mark.parametrize("threshold", [10, 100])
@pytest.mark.parametrize("calls", [1, 12, 45, 90])
def test_compression_cuts_nothing_that_is_stored(environ, engine, threshold, calls):
    """However many calls a run makes above the threshold, every message of it is stored, the question among them."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = MemoryConfig(provider=memory, compression_threshold=threshold)
        assert config.compression_threshold == replace(config, auto_store=True).compression_threshold == threshold
        before = [Message(role="user" if place % 2 == 0 else "assistant", content=str(place)) for place in range(100)]
        await memory.provider.store_messages("c", before)
        script = engine.Script(*([(f"call-{n}", "look", {"what": str(n)})] for n in range(calls)), "done")
        run = engine.config(replace(config, max_messages=50), script, tools=[engine.tool("look")])
        await engine.run(run, "question")
        found = (await memory.provider.get_conversation("c")).messages
        assert list(found[:100]) == before
        assert len(found) == 100 + 2 + 2 * calls
        assert len(script.views[0]) <= min(threshold, 50) + 1
        await memory.close()

    asyncio.run(use())


def test_a_cut_by_jafs_own_configuration_is_told(engine, caplog):
    """Where jaf-py's own `MemoryConfig` has cut the list, a warning names the conversation."""

    async def use():
        config = JafMemoryConfig(provider=jaf_provider(create_in_memory_provider(), "u"), compression_threshold=10)
        script = engine.Script(*([(f"call-{n}", "look", {"what": "x"})] for n in range(12)), "done")
        await engine.run(engine.config(config, script, tools=[engine.tool("look")]), "question")

    with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
        asyncio.run(use())
    assert "something cut its list" in caplog.text
    assert "'c'" in caplog.text


@pytest.mark.parametrize(
    "field",
    [
        *({"ttl": ttl} for ttl in (0, -1, "60", True, float("nan"), 1e300)),
        *({"max_messages": limit} for limit in (-5, "5")),
        *({"compression_threshold": limit} for limit in (-1, "10", True)),
    ],
    ids=repr,
)
def test_a_wrong_setting_is_refused(field):
    """A setting that could not be kept is refused when the configuration is made; the error says what is allowed."""
    with pytest.raises(MemoryInvalidInputError, match=f"{next(iter(field))} is .* None for no"):
        MemoryConfig(provider=create_in_memory_provider(), **field)


def test_what_the_engine_only_prints_is_logged(engine, caplog):
    """A store that is refused is a warning with the conversation's id and without a word of what was said."""

    async def use():
        store = create_in_memory_provider()
        memory = jaf_provider(store, "u")
        await store.close()
        await engine.run(engine.config(memory, engine.Script("secret answer")), "secret question")

    with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
        asyncio.run(use())
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in told] == [
        "get_conversation failed for conversation 'c'",
        "store_messages failed for conversation 'c'",
    ]
    assert "secret" not in caplog.text


ODD = {
    "attachment": [{"role": "user", "content": "x", "attachments": [{"kind": "image", "id": "f"}]}],
    "long integer": [{"role": "tool", "content": "9" * 5000}],
    "long integer within": [{"role": "tool", "content": '{"status": ' + "9" * 5000 + "}"}],
    "deep": [{"role": "tool", "content": "[" * 100_000}],
    "deep object": [{"role": "tool", "content": '{"a":' * 100_000}],
    "not an object": [{"role": "tool", "content": "null"}],
    "no function": [{"role": "assistant", "content": None, "tool_calls": [{"id": "q", "type": "custom"}]}],
    "nothing": [{"role": "assistant", "content": None}],
    "developer": [{"role": "developer", "content": "be brief"}],
}


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_message_spoils_nothing(environ, engine, odd):
    """A message of another engine's that jaf-py could not make spoils no run, no listing and no other conversation."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        held = [Message(role="user", content="hello")]
        for fields in ODD[odd]:
            if fields["role"] == "tool":
                call = {"id": "k", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                held.append(Message(role="assistant", content="", tool_calls=[call]))
            held.append(Message(**fields, tool_call_id="k" if fields["role"] == "tool" else None))
        await memory.provider.store_messages("c", held)
        await memory.provider.store_messages("other", [Message(role="user", content="hello")])
        for rebuild in (list, *REBUILDS.values()):
            config = engine.config(memory, engine.Script("ok"), **CALLBACKS["before_memory_store"](rebuild))
            await engine.run(config, "go on")
        found = (await memory.provider.get_conversation("c")).messages
        assert list(found[: len(held)]) == held
        said = [one for one in found[len(held) :] if one.role != "tool"]  # the engine answers a call that waited
        assert len(said) == 2 * (1 + len(REBUILDS))
        from jaf.memory.types import MemoryQuery

        assert len((await memory.find_conversations(MemoryQuery())).data) == 2
        assert len((await memory.get_recent_messages("c", 50)).data) == len(found)
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("moment", ["clock", "one"])
def test_a_regeneration_brings_back_nothing_that_was_redacted(environ, engine, moment, monkeypatch):
    """What `before_memory_store` took out of an answer is not brought back by the engine's note of a regeneration."""
    from jaf.core.regeneration import regenerate_conversation
    from jaf.core.types import RegenerationRequest

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")

        def redact(messages, _state):
            return [replace(one, content=one.content.replace("4711", "****")) for one in messages]

        config = engine.config(memory, engine.Script("PIN 4711", "it is 4711", "last 4711"), before_memory_store=redact)
        await engine.run(config, "PIN?")
        if moment == "one":  # two of them in one millisecond, by which the engine stamps its notes
            now = time.time()
            monkeypatch.setattr("jaf.core.regeneration.time.time", lambda: now)
        for _ in range(2):
            last = (await memory.provider.get_conversation("c")).messages[-1]
            request = RegenerationRequest(conversation_id="c", message_id=last.message_id)
            assert (await regenerate_conversation(request, config, {}, "bot")).outcome.status == "completed"
        found = await memory.provider.get_conversation("c")
        assert [one.content for one in found.messages] == ["PIN?", "last ****"]
        assert found.metadata["regeneration_count"] == 2
        await memory.close()

    asyncio.run(use())


def test_a_run_beside_a_regeneration_is_stored(environ, engine):
    """A run that loaded before another one's regeneration was noted, and ends behind it, is stored as any other."""
    from jaf.core.regeneration import regenerate_conversation
    from jaf.core.types import RegenerationRequest

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        await engine.run(engine.config(memory, engine.Script("first")), "hello")

        async def regenerate():
            last = (await memory.provider.get_conversation("c")).messages[-1]
            request = RegenerationRequest(conversation_id="c", message_id=last.message_id)
            config = engine.config(memory, engine.Script("anew"))
            assert (await regenerate_conversation(request, config, {}, "bot")).outcome.status == "completed"

        await asyncio.create_task(regenerate())
        slow = engine.Script("slow")
        answers, asked, go_on = slow.get_completion, asyncio.Event(), asyncio.Event()

        async def wait(*given, **named):
            asked.set()
            await go_on.wait()
            return await answers(*given, **named)

        slow.get_completion = wait
        run = asyncio.create_task(engine.run(engine.config(memory, slow), "beside"))
        await asked.wait()  # it has loaded
        await asyncio.create_task(regenerate())
        go_on.set()
        await run
        found = await memory.provider.get_conversation("c")
        assert [one.content for one in found.messages][-2:] == ["beside", "slow"]
        await memory.close()

    asyncio.run(use())


@pytest.mark.parametrize("wrong", [None, "text", [{"role": "user", "content": "x"}], [None], {"a": 1}])
def test_what_is_no_list_of_messages_is_refused(wrong):
    """What is no list of messages is answered with a failure that says what was given and what is needed."""

    async def use():
        memory = jaf_provider(create_in_memory_provider())
        await memory.store_messages("c", [JafMessage(role="user", content="x")])
        for answer in (await memory.store_messages("c", wrong), await memory.append_messages("c", wrong)):
            assert "jaf.Message objects, not a" in answer.error.message

    asyncio.run(use())


def test_messages_of_ours_are_taken():
    """A message of jaf_memory_core's, with parts or calls, is stored as it is."""

    async def use():
        store = create_in_memory_provider()
        ours = [Message(**RICH["part"]), Message(**RICH["arguments"])]
        assert hasattr(await jaf_provider(store).store_messages("c", ours), "data")
        assert list((await store.get_conversation("c")).messages) == ours

    asyncio.run(use())


def test_an_edit_takes_no_call_along_that_was_never_shown():
    """A view may leave parallel calls out; editing what it shows leaves the others where they are stored."""
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}", "strict": True}} for name in "ab"
    ]
    held = Message(role="assistant", content="old", tool_calls=calls, message_id="m")
    shown = Message(role="assistant", content="old", tool_calls=calls[:1], message_id="m")
    view = to_jaf(shown)
    assert merged(held, to_core(replace(view, content="new")), shown).tool_calls == held.tool_calls
    arguments = ToolCallFunction(name="a", arguments='{"x":1}')
    edited = merged(held, to_core(replace(view, tool_calls=[replace(view.tool_calls[0], function=arguments)])), shown)
    assert [call.id for call in edited.tool_calls] == ["a", "b"]
    assert edited.tool_calls[0].function.dict() == {"name": "a", "arguments": '{"x":1}', "strict": True}
    assert edited.tool_calls[1] == held.tool_calls[1]


HOSTILE = {
    "one id for all": lambda messages: [replace(one, message_id=messages[0].message_id) for one in messages],
    "an earlier one's id": lambda messages: [
        *messages[:-1],
        replace(messages[-1], message_id=messages[-2].message_id),
    ],
    "bytes": lambda messages: [replace(one, content=b"x") for one in messages],
    "number": lambda messages: [replace(one, content=5) for one in messages],
    "odd parts": lambda messages: [replace(one, content=[5, None]) for one in messages],
    "odd calls": lambda messages: [replace(one, tool_calls=[5, {}, {"function": 5}]) for one in messages],
    "a role of its own": lambda messages: [replace(one, role="hacker") for one in messages],
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_callback_takes_nothing_along(engine, caplog, how):
    """What a callback makes of messages that cannot be stored is refused with a warning; the run goes on, all stays."""

    async def use():
        memory = jaf_provider(create_in_memory_provider(), user_id="u")
        config = MemoryConfig(provider=memory)
        await engine.run(engine.config(config, engine.Script("one")), "first")
        before = await memory.provider.get_conversation("c")
        with caplog.at_level(logging.WARNING, "jaf_memory_bridges"):
            callback = {"before_memory_store": lambda given, _state: HOSTILE[how](given)}
            await engine.run(engine.config(config, engine.Script("two"), **callback), "second")
        assert "store_messages failed for conversation 'c'" in caplog.text
        assert await memory.provider.get_conversation("c") == before
        await engine.run(engine.config(config, engine.Script("three")), "third")
        texts = [one.content for one in (await memory.provider.get_conversation("c")).messages]
        assert texts == ["first", "one", "third", "three"]

    asyncio.run(use())
