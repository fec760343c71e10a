"""The checkers of views are no formality: they refuse what others make of the same conversations, in each format.

Three ways of cutting a history are written out below by what they do: the newest so many, as a plain slice has them;
what jaf-py's engine stores above its threshold, the first fifth and the newest; and the views of our own beginnings,
which paired chat-completions calls with their results, let all system messages stay, and looked at nothing else.
"""

import pytest
from endpoint_rules import PROBLEMS, need_clients

from jaf_memory_core import Message
from jaf_memory_core.session import views
from jaf_memory_core.session.formats import form_of, request_of
from jaf_memory_core.session.room import Room

need_clients()

# Conversations, in the words of each endpoint.


def say(role, text):
    """A message that only says something."""
    return {"role": role, "content": text}


def chat(*results, asks="Book both."):
    """A question, two calls at once, and the results that came, as chat-completions have them."""
    calls = [{"id": key, "type": "function", "function": {"name": "book", "arguments": "{}"}} for key in "ab"]
    answers = [{"role": "tool", "tool_call_id": key, "content": text} for key, text in zip("ab", results, strict=False)]
    return [say("user", asks), {"role": "assistant", "content": None, "tool_calls": calls}, *answers]


def anthropic(*results, asks="Book both."):
    """The same in Anthropic's blocks; the ids are of the question, because each may be there once."""
    keys = [f"{key}-{len(asks)}" for key in "ab"]
    calls = [{"type": "tool_use", "id": key, "name": "book", "input": {}} for key in keys]
    pairs = zip(keys, results, strict=False)
    answers = [{"type": "tool_result", "tool_use_id": key, "content": text} for key, text in pairs]
    return [say("user", asks), {"role": "assistant", "content": calls}, say("user", answers)]


def responses(*results, asks="Book both."):
    """The same in items of the Responses interface."""
    keys = [f"{key}-{len(asks)}" for key in "ab"]
    calls = [{"type": "function_call", "call_id": key, "name": "book", "arguments": "{}"} for key in keys]
    pairs = zip(keys, results, strict=False)
    return [
        say("user", asks),
        *calls,
        *({"type": "function_call_output", "call_id": key, "output": text} for key, text in pairs),
    ]


SPOKEN = {"chat": chat, "anthropic": anthropic, "responses": responses}


def two_turns(turn):
    """Two turns with calls, each with an answer."""
    second = turn("booked 3", "booked 4", asks="And two more, please.")
    return [*turn("booked 1", "booked 2"), say("assistant", "Both."), *second, say("assistant", "All four.")]


def half_done(turn):
    """Of two calls at once one has a result, and the talk went on."""
    return [*turn("booked, number 17"), say("user", "Well?"), say("assistant", "One of them.")]


def system_each_turn(turn):
    """Whoever runs the agent puts the instructions before each question."""
    turns = [[say("system", f"Be kind. It is {n} o'clock."), say("user", f"Question {n}")] for n in range(9)]
    return [*turn("1", "2"), say("assistant", "Both."), *(one for both in turns for one in both)]


def long_question(turn):
    """The newest question is longer than a view may be."""
    return [*turn("1", "2"), say("assistant", "Both."), say("user", "Please read this: " + "word " * 900)]


TALKS = {one.__name__: one for one in (two_turns, half_done, system_each_turn, long_question)}


def conversation(talk, view_format):
    """The messages of one of the talks."""
    bodies = TALKS[talk](SPOKEN[view_format])
    return [Message(**body, message_id=f"m{place}") for place, body in enumerate(bodies)]


# What is promised of a view.


def tokens(message):
    """A counter."""
    return len(str(message.dict()))


def texts_of(messages):
    """All that is said, called and answered, as one text."""
    return str([message.dict() for message in messages])


def problem(view, history, view_format, most, budget):
    """Tell what is wrong with a view, by its endpoint's rules or by our promises, or return None."""
    refused = PROBLEMS[view_format](request_of(view, view_format))
    if refused:
        return refused
    if len(view) > most or sum(map(tokens, view)) > budget:
        return "it is larger than its limits"
    ids = [message.message_id for message in view]
    asked = [one.message_id for one in history if one.role == "user" and isinstance(one.content, str)]
    if asked[-1] not in ids:
        return "the newest question is not in it"
    if view[-1].message_id != history[-1].message_id:
        return "it does not end with the newest message"
    if most >= 100 and budget >= 10**9 and "number 17" in texts_of(history) and "number 17" not in texts_of(view):
        return "a result is thrown away"
    return None


LIMITS = [(most, 10**9) for most in (*range(2, 22), 100)] + [(100, 1_500)]


def refusals(make, talk, view_format):
    """What is wrong with the views that `make` gives of a talk, over all limits."""
    history = conversation(talk, view_format)
    found = [problem(make(history, *limits), history, view_format, *limits) for limits in LIMITS]
    return [one for one in found if one is not None]


# What others make of them, and what we do.


def newest(history, most, _budget):
    """A plain slice."""
    return history[-most:]


def first_and_newest(history, most, _budget):
    """Above a threshold, a fifth of so many from the beginning and the rest from the end, whatever stands there."""
    first = most // 5
    return history if len(history) <= most else [*history[:first], *history[len(history) - (most - first) :]]


def in_blocks(history):
    """Messages that belong together by chat-completions: calls with all of their results; without, they go."""
    blocks, place = [], 0
    while place < len(history):
        message = history[place]
        keys = {call.id for call in message.tool_calls or ()}
        results = [one for one in history[place + 1 :] if one.role == "tool" and one.tool_call_id in keys]
        place += 1 + (len(results) if keys else 0)
        if message.role != "tool" and len(results) == len(keys):
            blocks.append([message, *results])
    return blocks


def of_the_beginning(history, most, budget):
    """All system messages, and the newest whole turns that fit beside them; nothing where none does."""
    blocks = in_blocks(history)
    staying = [block for block in blocks if block[0].role == "system"]
    turns = []
    for block in blocks:
        if block not in staying:
            turns = [*turns, []] if block[0].role == "user" or not turns else turns
            turns[-1] += block
    taken = [one for block in staying for one in block]
    for turn in reversed(turns):
        if len(taken) + len(turn) > most or sum(map(tokens, [*taken, *turn])) > budget:
            break
        taken = [*taken, *turn]
    ids = {message.message_id for message in taken}
    return [message for message in history if message.message_id in ids]


def ours(history, most, budget):
    """The view of a session."""
    form = form_of(None, history)
    return views.shown(views.limited(views.blocks_of(history, form), Room(most, budget, tokens)), form)


REFUSED = {
    newest: ("two_turns", "half_done", "system_each_turn", "long_question"),
    first_and_newest: ("two_turns", "half_done", "system_each_turn", "long_question"),
    of_the_beginning: ("half_done", "system_each_turn", "long_question"),
}


@pytest.mark.parametrize("view_format", SPOKEN)
@pytest.mark.parametrize(("make", "talk"), [(make, talk) for make, talks in REFUSED.items() for talk in talks])
def test_the_checkers_refuse_what_others_show(make, talk, view_format):
    """Each of the three ways is refused for each of the talks that it is known to damage, in each format."""
    assert refusals(make, talk, view_format)


@pytest.mark.parametrize("view_format", ["anthropic", "responses"])
def test_pairs_of_one_interface_are_none_of_another(view_format):
    """Views that know calls of chat-completions only cut through those of the others."""
    assert refusals(of_the_beginning, "two_turns", view_format)


def test_pairs_of_the_own_interface_were_valid():
    """What our first views promised for chat-completions, they kept: the checker refuses no more than it should."""
    found = refusals(of_the_beginning, "two_turns", "chat")
    assert set(found) <= {"the newest question is not in it", "it does not end with the newest message"}


@pytest.mark.parametrize("view_format", SPOKEN)
@pytest.mark.parametrize("talk", TALKS)
def test_the_checkers_refuse_nothing_of_a_session(talk, view_format):
    """A session's view of the same conversations passes, within every limit."""
    assert refusals(ours, talk, view_format) == []
