"""What a provider does not offer is refused, or done in a slower way; filters hold, and metadata are true."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from jaf.core.types import ApprovalValue, Message
from jaf.memory import types as jaf
from jaf_memory_bridges.jaf import MemoryConfig, create_memory_provider_from_env, jaf_provider

import jaf_memory_core as core
from jaf_memory_core import MemoryConfigurationError, create_in_memory_provider

APPROVED = ApprovalValue(status="approved", approved=True)


def texts(messages):
    """What was said."""
    return [one.content for one in messages]


def test_users_that_nothing_would_keep_apart(six):
    """A bridge for one user over a provider that knows no users is refused when it is made."""
    with pytest.raises(MemoryConfigurationError, match="Six does not offer for_user"):
        jaf_provider(six, user_id="alice")


def test_users_of_a_third_partys_plugin(six, monkeypatch):
    """The same over what the environment describes; what was opened for it is closed."""
    from jaf_memory_bridges.jaf import factory as module

    closed = []

    async def create(_environ, **_given):
        return six

    async def close():
        closed.append(True)

    six.close = close
    monkeypatch.setattr(module, "_create_from_env", create)
    answer = asyncio.run(create_memory_provider_from_env({"JAF_MEMORY_TYPE": "six"}, user_id="alice"))
    assert "for_user" in answer.error.message
    assert closed == [True]
    with pytest.raises(MemoryConfigurationError, match="for_user"):
        MemoryConfig(provider=answer)


def test_six_methods_are_enough_for_runs(six):
    """A provider with the six documented methods serves the engine, and says what it does not offer."""

    async def use():
        memory = jaf_provider(six)
        for said in ("a", "b"):
            found = (await memory.get_conversation("c")).data
            before = [] if found is None else list(found.messages)
            answer = await memory.store_messages("c", [*before, Message(role="user", content=said)], {"user_id": "u"})
            assert answer == jaf.Success(None)
        conversation = await six.get_conversation("c")
        assert texts(conversation.messages) == ["a", "b"]
        assert conversation.user_id == "u"
        assert (await memory.set_previous_response_id("c", "r")).data is None
        assert (await memory.get_previous_response_id("c")).data == "r"
        first = conversation.messages[0].message_id
        for answer in (
            await memory.truncate_conversation_after("c", first),
            await memory.get_conversation_until_message("c", first),
            await memory.mark_regeneration_point("c", first, {}),
            await memory.find_conversations(jaf.MemoryQuery()),
            await memory.clear_user_conversations("u"),
            await memory.get_stats(),
        ):
            assert "Six does not offer" in answer.error.message
        assert texts((await six.get_conversation("c")).messages) == ["a", "b"]

    asyncio.run(use())


@pytest.mark.parametrize("approved", [True, False])
def test_an_approved_tool_runs_once(six, engine, approved):
    """Over six methods a tool that a human approves runs once, its result is kept, and the next run goes on from it."""

    async def use():
        memory = jaf_provider(six)
        tool = engine.tool("delete", needs_approval=True)
        script = engine.Script([("k", "delete", {"what": "file"})], "deleted", "next")
        config = engine.config(memory, script, tools=[tool])
        await engine.run(config, "delete it", status="interrupted")
        decided = {"k": replace(APPROVED, status="approved" if approved else "rejected", approved=approved)}
        await engine.run(config, approvals=decided)
        await engine.run(config, "more", approvals=decided)
        assert type(tool).executed == (1 if approved else 0)
        results = [one for one in (await six.get_conversation("c")).messages if one.role == "tool"]
        assert len(results) == 2  # the note that a human is asked, and the result behind it
        assert [one.tool_call_id for one in script.views[-1] if one.tool_call_id] == ["k"]

    asyncio.run(use())


def test_a_ttl_that_nothing_would_keep(six):
    """A ttl over a provider that cannot let conversations expire is refused when the configuration is made."""
    with pytest.raises(MemoryConfigurationError, match="Six does not offer set_expiry"):
        MemoryConfig(provider=six, ttl=60)


def test_an_edit_that_cannot_be_kept_is_told(six, engine):
    """Over six methods a redactor's edit of what is stored is refused, and the turn itself is stored."""

    async def use():
        memory = jaf_provider(six)
        await engine.run(engine.config(memory, engine.Script("one")), "a")
        found = (await memory.get_conversation("c")).data.messages
        edited = [replace(found[0], content="***"), *found[1:], Message(role="user", content="b")]
        answer = await memory.store_messages("c", edited)
        assert "revise_messages" in answer.error.message
        assert texts((await six.get_conversation("c")).messages) == ["a", "one", "b"]

    asyncio.run(use())


def test_regeneration_over_six_methods_changes_nothing(six, engine):
    """A checkpoint or a regeneration over six methods is refused, and the conversation stays as it is."""
    from jaf.core.checkpoint import checkpoint_conversation
    from jaf.core.regeneration import regenerate_conversation
    from jaf.core.types import CheckpointRequest, RegenerationRequest

    async def use():
        config = engine.config(jaf_provider(six), engine.Script("one", "two"))
        for said in ("a", "b"):
            await engine.run(config, said)
        before = await six.get_conversation("c")
        point = before.messages[1].message_id
        with pytest.raises(ValueError, match="truncate_conversation_after"):
            await checkpoint_conversation(CheckpointRequest(conversation_id="c", message_id=point), config)
        request = RegenerationRequest(conversation_id="c", message_id=point)
        result = await regenerate_conversation(request, config, {}, "bot")
        assert result.outcome.status == "error"
        assert await six.get_conversation("c") == before

    asyncio.run(use())


def test_filters_of_our_own_query_hold(environ):
    """Each filter of jaf_memory_core's `MemoryQuery` finds through the bridge what it finds without it."""

    async def use():
        memory = await create_memory_provider_from_env(environ)
        for number in range(3):
            said = [Message(role="user", content="x")]
            await memory.store_messages(f"c{number}", said, {"topic": "keep", "user_id": f"u{number}", "trace_id": "t"})
        old, soon = (datetime.now(UTC) + timedelta(days=days) for days in (-90, 1))
        for query in (
            core.MemoryQuery(active_until=old),
            core.MemoryQuery(active_since=soon),
            core.MemoryQuery(since=soon),
            core.MemoryQuery(metadata={"topic": "trash"}),
            core.MemoryQuery(metadata={"topic": "keep"}, user_id="u1"),
            core.MemoryQuery(trace_id="t", limit=2, include_messages=False),
            core.MemoryQuery(offset=1),
        ):
            ours = await memory.provider.find_conversations(query)
            theirs = (await memory.find_conversations(query)).data
            assert [one.conversation_id for one in theirs] == [one.conversation_id for one in ours]
        first = (await memory.provider.find_conversations(core.MemoryQuery(limit=1)))[0]
        following = (await memory.find_conversations(core.MemoryQuery().after(first))).data
        assert len(following) == 2
        await memory.close()

    asyncio.run(use())


def test_what_a_query_cannot_say_is_refused(environ):
    """A query with a filter that would not be looked at finds nothing, and says so; so does what is no query."""

    @dataclass(frozen=True)
    class Richer(jaf.MemoryQuery):
        agent_name: str | None = None

    async def use():
        memory = await create_memory_provider_from_env(environ)
        await memory.store_messages("c", [Message(role="user", content="x")])
        assert len((await memory.find_conversations(Richer())).data) == 1
        for query in (Richer(agent_name="bot"), {"user_id": "u"}, None, jaf.MemoryQuery(user_id="")):
            assert isinstance(await memory.find_conversations(query), jaf.Failure)
        await memory.close()

    asyncio.run(use())


def test_jafs_own_metadata_are_there_and_true(environ, engine):
    """`created_at`, `updated_at`, `last_activity` and `total_messages` are there, in jaf-py's form, and not stored."""

    async def use():
        memory = await create_memory_provider_from_env(environ, user_id="u")
        config = engine.config(memory, engine.Script("one", "two"))
        start = datetime.now() - timedelta(seconds=5)
        for count, said in ((2, "a"), (4, "b")):
            await engine.run(config, said)
            found = (await memory.get_conversation("c")).data
            assert found.metadata["total_messages"] == count
            assert start < found.metadata["created_at"] <= found.metadata["updated_at"]
            assert found.metadata["last_activity"] <= found.metadata["updated_at"]
            await memory.store_messages("c", list(found.messages), {**found.metadata, "total_messages": 99})
        (listed,) = (await memory.find_conversations(core.MemoryQuery(include_messages=False))).data
        assert listed.metadata["total_messages"] == 4
        stored = (await memory.provider.get_conversation("c")).metadata
        assert not stored.keys() & {"created_at", "updated_at", "last_activity", "total_messages"}
        await memory.close()

    asyncio.run(use())


def test_jafs_own_provider_is_refused():
    """One of jaf-py's own providers is not taken for one of ours."""
    from jaf.memory import create_in_memory_provider as jafs_own

    with pytest.raises(core.MemoryInvalidInputError, match="jaf-py's own provider"):
        jaf_provider(jafs_own())


def test_a_configured_bridge_equals_its_own(engine):
    """A configuration's provider is the one that it was given, whatever its ttl; another user's is another."""
    store = create_in_memory_provider()
    memory = jaf_provider(store)
    assert MemoryConfig(provider=memory, ttl=60).provider == memory == jaf_provider(store)
    assert memory != jaf_provider(store, "u")
    assert len({memory, jaf_provider(store)}) == 1
    assert engine
