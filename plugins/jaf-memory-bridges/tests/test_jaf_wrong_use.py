"""Wrong use of the bridge gets the sentence that helps: hostile values for every argument of all that is ours there.

The table is made from `__all__`, and from the methods of `JafProvider`: a new one is in it by itself.
"""

import asyncio
import inspect

import pytest
from hostile_values import HELLO, parameters, wrong_answers
from jaf_memory_bridges import jaf as bridge
from jaf_memory_bridges.jaf.window import Window

from jaf_memory_core import create_in_memory_provider

SOUND = {
    "client": lambda: None,
    "config": lambda: None,
    "conversation_id": lambda: "c",
    "environ": dict,
    "external_clients": lambda: None,
    "message_id": lambda: "m",
    "messages": lambda: [HELLO],
    "metadata": lambda: {"user_id": "u"},
    "observers": tuple,
    "processors": tuple,
    "provider": create_in_memory_provider,
    "query": bridge.MemoryQuery,
    "regeneration_metadata": dict,
    "response_id": lambda: "r",
    "ttl": lambda: None,
    "user_id": lambda: "u",
    "window": Window,
}
"""Argument → what is right for it; others are left out."""


def surface():
    """(name, method, argument) of all that is ours: jaf-py's own names stand beside it unchanged."""
    for name in bridge.__all__:
        thing = getattr(bridge, name)
        if callable(thing) and str(getattr(thing, "__module__", "")).startswith("jaf_memory_bridges"):
            yield from ((name, "", argument) for argument in parameters(thing))
    for method, function in inspect.getmembers(bridge.JafProvider, inspect.isroutine):
        if not method.startswith("_"):
            yield from (("JafProvider", method, argument) for argument in parameters(function))


ROWS = sorted(set(surface()))


@pytest.mark.parametrize(("name", "method", "argument"), ROWS)
def test_hostile_values(name, method, argument):
    """Whatever is given for an argument, the answer is a value, jaf-py's `Failure`, or an error of ours."""
    callee = getattr(bridge.JafProvider, method) if method else getattr(bridge, name)
    needed = {one for one, required in parameters(callee).items() if required} - {argument}
    assert needed <= SOUND.keys(), f"say in SOUND what is right for {needed - SOUND.keys()}"

    async def main():
        provider = bridge.jaf_provider(create_in_memory_provider())
        await provider.store_messages("c", [HELLO], {"user_id": "u"})
        called = getattr(provider, method) if method else callee
        return await wrong_answers(called, argument, {one: SOUND[one] for one in needed})

    assert asyncio.run(main()) == []


def test_arguments_in_wrong_places_are_not_logged(caplog):
    """Messages in the place of an id are refused, and the log of that does not show them."""
    secret = bridge.Message(role="user", content="SECRET")

    async def main():
        provider = bridge.jaf_provider(create_in_memory_provider())
        return await provider.append_messages([secret], "c")

    assert isinstance(asyncio.run(main()), bridge.Failure)
    assert "append_messages failed" in caplog.text
    assert "SECRET" not in caplog.text


def test_the_table_is_the_surface():
    """Every function and class of ours is in it, and every method that the engine calls."""
    assert {name for name, _, _ in ROWS} >= {"jaf_provider", "create_memory_provider_from_env", "MemoryConfig"}
    assert {method for _, method, _ in ROWS} >= {"store_messages", "set_previous_response_id", "configured"}
    assert len(ROWS) > 60
