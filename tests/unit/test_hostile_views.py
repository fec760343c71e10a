"""Views of what no endpoint was made for: one conversation for each thing that has gone wrong, or might."""

import asyncio
import json
import logging
import math

import pytest
from endpoint_rules import PROBLEMS, need_clients

from jaf_memory_core import InMemoryConfig, MemoryConfig, MemorySession, Message, create_in_memory_provider
from jaf_memory_core.session import views
from jaf_memory_core.session.formats import form_of, request_of
from jaf_memory_core.session.room import Room

need_clients()

SURROGATES = "\ud800 and \udfff"
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
DEEP = json.loads("[" * 90 + "]" * 90)


def said(role, content, **fields):
    """A message."""
    return Message(role=role, content=content, **fields)


def calls(*given, text=None):
    """Calls: (id, name, arguments)."""
    made = [{"id": key, "type": "function", "function": {"name": name, "arguments": what}} for key, name, what in given]
    return said("assistant", text, tool_calls=made)


def result(key, text="done"):
    """A result."""
    return said("tool", text, tool_call_id=key)


def one_call(name="f", arguments="{}", key="a"):
    """A question, a call, its result, and another question."""
    return [said("user", "?"), calls((key, name, arguments)), result(key), said("user", "and?")]


def item(**fields):
    """An item of the Responses interface."""
    return Message(**fields)


MANY = [(f"k{number}", "f", "{}") for number in range(30)]
HOSTILE = {
    "nothing": [],
    "only instructions": [said("system", "a"), said("developer", "b"), said("system", "a")],
    "only blank instructions": [said("system", "  ")],
    "only results": [result("a"), result("b"), said("user", [{"type": "tool_result", "tool_use_id": "x"}])],
    "one id in two turns": [*one_call(), *one_call()],
    "one id twice in a message": [
        said("user", "?"),
        calls(("a", "f", "{}"), ("a", "f", "{}")),
        result("a"),
        result("a"),
    ],
    "calls at the end": [said("user", "?"), calls(("a", "f", "{}"), ("b", "f", "{}"))],
    "partly answered at the end": [said("user", "?"), calls(("a", "f", "{}"), ("b", "f", "{}")), result("b")],
    "partly answered": [said("user", "?"), calls(("a", "f", "{}"), ("b", "f", "{}")), result("b"), said("user", "!")],
    "only images": [said("user", [IMAGE]), said("assistant", [PIXEL]), said("user", [PIXEL])],
    "images everywhere": [said("system", [IMAGE]), said("user", "?"), calls(("a", "f", "{}")), result("a", [IMAGE])],
    "a long question": [said("system", "s" * 300), said("user", "q" * 5000)],
    "a long result": [said("user", "?"), calls(("a", "f", "{}")), result("a", "r" * 9000)],
    "long arguments": one_call(arguments=json.dumps({"x": "y" * 9000})),
    "many calls at once": [said("user", "?"), calls(*MANY), *(result(key) for key, *_ in MANY)],
    "many calls, some answered": [said("user", "?"), calls(*MANY), *(result(key) for key, *_ in MANY[:10])],
    "surrogates": [
        said("system", SURROGATES),
        said("user", SURROGATES),
        calls((SURROGATES, SURROGATES, {SURROGATES: SURROGATES}), ("\ud801 and \udffe", "f", "{}"), text=SURROGATES),
        result(SURROGATES, SURROGATES),
        result("\ud801 and \udffe", "other"),
        said("assistant", SURROGATES),
        said("user", "z"),
    ],
    "NUL": [said("user", "a\0b"), calls(("a\0", "f\0", "{}")), result("a\0", "r\0"), said("user", "z")],
    "a result before its call": [said("user", "?"), result("a", "early"), calls(("a", "f", "{}")), said("user", "z")],
    "a result long after": [*one_call()[:2], said("user", "x"), said("assistant", "y"), result("a"), said("user", "z")],
    "several speakers": [
        said("user", "hi", name="Ada Lovelace"),
        calls(("a", "f", "{}")),
        said("user", "meanwhile", name="Bob <x>"),
        result("a"),
        said("assistant", "ok", name="bot 1"),
        said("user", "bye", name="\t"),
        said("user", "so long", name="x" * 100),
    ],
    "names of another engine": [*one_call("my tool.v1/x"), *one_call("n" * 200, key="b"), *one_call("", key="c")],
    "a function without a name": [said("user", "?"), said("assistant", None, function_call={"arguments": "{}"})] * 2,
    "a function with a blank": [
        said("user", "?"),
        said("assistant", None, function_call={"name": "my f", "arguments": "{}"}),
        said("function", "r", name="my f"),
        said("user", "z"),
    ],
    "arguments that are no JSON": one_call(arguments='{"x": NaN}'),
    "a number beyond any": one_call(arguments='{"x": 1e999}'),
    "deep arguments": one_call(arguments={"x": DEEP}),
    "deeper arguments, as text": one_call(arguments='{"x": ' + "[" * 300 + "]" * 300 + "}"),
    "a list for arguments": one_call(arguments=[1, 2]),
    "unknown parts": [said("user", [{"type": "hologram", "data": "x"}]), said("assistant", [{"type": "hologram"}])],
    "blank parts": [said("user", [{"type": "text", "text": ""}]), said("assistant", [{"type": "text"}])],
    "blank messages": [said("user", ""), said("assistant", ""), said("user", "  "), said("assistant", " \n")],
    "an assistant who begins": [said("assistant", "Hello!"), said("assistant", "Anybody?"), said("user", "Yes.")],
    "instructions at the end": [said("user", "?"), said("assistant", "!"), said("system", "b" * 5000)],
    "text before a result": [
        said("user", "?"),
        said("assistant", [{"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "text", "text": "so"}]),
        said("user", [{"type": "text", "text": "see"}, {"type": "tool_result", "tool_use_id": "t", "content": "r"}]),
    ],
    "blocks of the other role": [
        said("user", [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]),
        said("assistant", [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]),
        said("user", "z"),
    ],
    "only thinking": [said("user", "?"), said("assistant", [{"type": "thinking", "thinking": "hm", "signature": "s"}])],
    "reasoning that led nowhere": [said("user", "?"), item(type="reasoning", id="rs", summary=[])],
    "an output before its call": [
        item(type="function_call_output", call_id="a", output="x"),
        item(type="function_call", call_id="a", name="f", arguments="{}"),
        said("user", "z"),
    ],
    "items partly answered": [
        said("user", "?"),
        item(type="function_call", call_id="a", name="f.x", arguments="{}"),
        item(type="function_call", call_id="b", name="f", arguments="{}"),
        item(type="function_call_output", call_id="b", output="r" * 9000),
    ],
}
ROOMS = [
    (math.inf, math.inf),
    *((most, math.inf) for most in (1, 2, 3, 5, 12)),
    *((math.inf, n) for n in (1, 9, 50, 600)),
]


def tokens(message):
    """A counter."""
    return 3 + sum(len(str(value)) for value in message.dict().values()) // 4


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("view_format", PROBLEMS)
def test_a_view_keeps_its_promises(name, view_format):
    """Its endpoint takes it, it keeps its limits, and it ends with the newest message and holds the newest question."""
    history = HOSTILE[name]
    form = form_of(view_format, history)
    blocks = views.blocks_of(history, form)
    everything = views.shown(blocks, form)
    asked = [block.key for block in blocks if block.role == "user"]
    for most, budget in ROOMS:
        room = Room(most, budget, tokens)
        chosen = views.limited(blocks, room)
        view = views.shown(chosen, form)
        assert PROBLEMS[view_format](request_of(view, view_format)) is None
        assert len(view) <= most
        assert sum(map(tokens, view)) <= budget
        if chosen:
            assert chosen[-1].key == blocks[-1].key
            assert asked[-1:] == [block.key for block in chosen if block.role == "user"][-1:]
        if most > 4 and budget > 500 and name != "many calls, some answered":  # there, twenty wait for a human
            assert bool(view) == bool(everything)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_session_loads_it_and_stores_nothing_new(name):
    """Through a provider: whatever is stored is loaded within a limit, and the view, recorded again, adds nothing."""

    async def use():
        provider = create_in_memory_provider(InMemoryConfig(max_messages=None))
        await provider.store_messages("c", HOSTILE[name])
        for view_format in (None, *PROBLEMS):
            config = MemoryConfig(provider=provider, max_messages=5)
            async with MemorySession(config, conversation_id="c", view_format=view_format) as session:
                view = await session.load()
                assert await session.record(view) is None
                json.dumps(session.request(view), ensure_ascii=False, allow_nan=False).encode()
        assert list((await provider.get_conversation("c")).messages) == list(dict.fromkeys(HOSTILE[name]))

    asyncio.run(use())


def test_a_question_that_does_not_fit_at_all_is_logged(caplog):
    """Where not even a mark has room, the view is empty, and the log says so without a word of the text."""

    async def use():
        provider = create_in_memory_provider()
        await provider.store_messages("c", [said("user", "secret " * 100)])
        config = MemoryConfig(provider=provider)
        session = MemorySession(config, conversation_id="c", max_tokens=1, count_tokens=lambda _message: 2)
        assert await session.load() == []

    with caplog.at_level(logging.WARNING, "jaf_memory_core"):
        asyncio.run(use())
    assert "the view of conversation 'c' is empty" in caplog.text
    assert "secret" not in caplog.text
